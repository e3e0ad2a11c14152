"""The `aurora-backup` command. Exit status: 0 done, 1 failed or found something wrong, 2 wrong usage.

Ctrl-C, SIGTERM and SIGHUP end it in order (uploads are aborted, programs killed) with 128 and the signal's number.
Every subcommand takes `--json` and then prints one JSON document on standard output; messages and progress go to
standard error. Another module adds its subcommand to `COMMANDS`, by name: it is loaded when it is called.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

from aurora_backup.database_role import ROLE
from aurora_backup.errors import BackupError, SettingsError, cause
from aurora_backup.postgres import quote
from aurora_backup.settings import DEFAULT_COMPRESSION, default_root_certificate
from aurora_backup.stopping import Stopped, stoppable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aurora_backup.manifest import Manifest
    from aurora_backup.postgres import Target
    from aurora_backup.s3 import Bucket

DONE, FAILED, USAGE = 0, 1, 2
Answer = tuple[int, dict[str, Any], str]


@dataclass(frozen=True)
class Command:
    """One subcommand. run: gives the exit status, the JSON document and the line for people."""

    name: str
    summary: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Answer]


def _bucket_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where the sets are")
    group.add_argument("--bucket", required=True)
    group.add_argument("--endpoint-url", help="another S3 than AWS's")
    group.add_argument("--region", help="default: the AWS environment's")
    group.add_argument("--kms-key", help="encrypt what is written with this key; default: the bucket's own")


def _database_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the database", "the password comes from PGPASSWORD, a passfile or a secret")
    group.add_argument("--host", required=True, help="an instance, never the reader endpoint; or a socket's directory")
    group.add_argument("--port", type=int, default=5432)
    group.add_argument("--dbname", required=True)
    group.add_argument("--user", default=os.environ.get("PGUSER"))
    login = group.add_mutually_exclusive_group()
    login.add_argument("--passfile", default=os.environ.get("PGPASSFILE"), help="default: PGPASSFILE")
    login.add_argument("--secret-arn", help="JSON secret with username and password")
    login.add_argument("--iam", action="store_true", help="an IAM authentication token")
    group.add_argument("--sslmode", choices=("verify-full", "disable"), default="verify-full")
    group.add_argument(
        "--sslrootcert",
        default=os.environ.get("PGSSLROOTCERT") or default_root_certificate(),
        help="PEM; default: PGSSLROOTCERT, else the RDS authorities shipped with this package",
    )


def open_bucket(arguments: argparse.Namespace) -> Bucket:
    """Return the bucket that the arguments name."""
    from aurora_backup.s3 import Bucket, make_client

    def client() -> Any:
        return make_client(endpoint_url=arguments.endpoint_url, region=arguments.region)

    return Bucket(client, arguments.bucket, kms_key=arguments.kms_key)


def open_target(arguments: argparse.Namespace) -> Target:
    """Return the database that the arguments name, with the way to its password."""
    from dataclasses import replace

    from aurora_backup.postgres import Target, iam_password, passfile_password, secret_login

    user = arguments.user
    login = secret_login(arguments.secret_arn) if arguments.secret_arn else None
    if login is not None:
        user = login.user
    if not user:
        raise SettingsError("--user (or PGUSER) must be given unless --secret-arn is")
    target = Target(
        host=arguments.host,
        port=arguments.port,
        dbname=arguments.dbname,
        user=user,
        sslmode=arguments.sslmode,
        sslrootcert=arguments.sslrootcert,
    )
    if login is not None:
        return replace(target, password=login.password)
    if arguments.iam:
        return replace(target, password=iam_password(arguments.host, arguments.port, user))
    environment = os.environ.get("PGPASSWORD")
    if environment:
        return replace(target, password=lambda: environment)
    if arguments.passfile:
        path = arguments.passfile
        return replace(target, password=lambda: passfile_password(path, target))
    return target


def _dump_arguments(parser: argparse.ArgumentParser) -> None:
    _database_arguments(parser)
    _bucket_arguments(parser)
    group = parser.add_argument_group("the set")
    group.add_argument("--prefix", default="manual-backups")
    group.add_argument("--cluster-resource-id", default="cluster-local", help="second part of the set's key")
    group.add_argument("--started", type=_moment, help="ISO 8601 with time zone; the same start is the same set")
    group.add_argument("--execution", help="the same execution may finish what it began; default: made up")
    group.add_argument("--owner", default="cli", help="whose creation record it is")
    group.add_argument("--jobs", type=_positive, default=None, help="archives side by side; default: CPUs, at most 4")
    group.add_argument("--split-mib", type=_positive, default=64, help="a table this large gets its own archive")
    group.add_argument("--compress", type=_compression, default=DEFAULT_COMPRESSION, metavar="zstd:N")
    group.add_argument("--memory-mib", type=_positive, default=256, help="of all upload buffers together")
    group.add_argument("--count-seconds", type=float, default=300, help="time for exact row counts; then estimates")
    group.add_argument("--digest", action="store_true", help="also digest every table's contents")
    group.add_argument("--sha256", action="store_true", help="also hash every archive")


def _dump(arguments: argparse.Namespace) -> Answer:
    from aurora_backup.dump import DumpOptions, Request, available_cpus, dump_set
    from aurora_backup.manifest import NAME, set_key

    started = arguments.started or datetime.now(UTC)
    key = set_key(arguments.prefix, arguments.cluster_resource_id, arguments.dbname, started)
    request = Request(
        key=key,
        owner=arguments.owner,
        execution=arguments.execution or f"cli-{os.getpid()}-{time.time_ns()}",
        started=started,
        source={
            "cluster": {"resource_id": arguments.cluster_resource_id},
            "instance": {"host": arguments.host, "port": arguments.port},
        },
    )
    options = DumpOptions(
        compression=arguments.compress,
        jobs=arguments.jobs or min(available_cpus(), 4),
        split_bytes=arguments.split_mib << 20,
        memory_budget=arguments.memory_mib << 20,
        count_seconds=arguments.count_seconds,
        digest=arguments.digest,
        sha256=arguments.sha256,
    )
    outcome = dump_set(open_target(arguments), open_bucket(arguments), request, options)
    manifest = outcome.manifest
    document = {
        "state": outcome.state,
        "database": arguments.dbname,
        "set": key,
        "manifest_key": key + NAME if manifest else None,
        "bytes": manifest.size if manifest else 0,
        "rows": manifest.facts.rows if manifest else 0,
        "archives": len(manifest.archives) if manifest else 0,
        "seconds": round(outcome.seconds, 3),
    }
    if manifest is None:  # claimed by an execution that may be making it, or may have failed
        return FAILED, {**document, "reason": outcome.reason}, f"not backed up: {outcome.reason}"
    return DONE, document, "{state}: {rows} rows, {bytes} bytes in {set}, {seconds} s".format(**document)


def _engine_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--event", default=os.environ.get("EVENT"), help="JSON of the dump function's event; or $EVENT")


def _engine(arguments: argparse.Namespace) -> Answer:
    """Dump and verify one database as the functions' own environment says, without a deadline."""
    from aurora_backup.handlers import dump, verify

    try:
        event = json.loads(arguments.event or "")
    except ValueError:
        raise SettingsError("--event (or EVENT) must be the JSON of the dump function's event") from None
    result = dump.handler(event, None)
    if result["manifest_key"]:
        result["verified"] = verify.handler({"set": result["set"], "reuse": True}, None)
    ok = result.get("verified", {}).get("ok", True)
    return (DONE if ok else FAILED), result, f"{result['state']}: {result['set']}"


def _role_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--database", action="append", required=True, metavar="NAME", help="repeat for each database")
    parser.add_argument("--role", default=ROLE)


def _role_sql(arguments: argparse.Namespace) -> Answer:
    """Print what the master user runs with psql, once for the cluster and once in each database."""
    from aurora_backup.database_role import cluster_statements, database_statements

    cluster, each = cluster_statements(arguments.role), database_statements(arguments.role)
    lines = ["-- once for the cluster", *(f"{sql.strip()};" for sql in cluster)]
    for name in dict.fromkeys(arguments.database):
        lines += [f"\\connect {quote(name)}", *(f"{sql.strip()};" for sql in each)]
    return DONE, {"role": arguments.role, "cluster": cluster, "database": each}, "\n".join(lines)


def _set_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--set", required=True, help="<prefix>/<cluster>/<database>/<timestamp>/")


def _verify_arguments(parser: argparse.ArgumentParser) -> None:
    from aurora_backup.verify import QUICK, TIERS

    _bucket_arguments(parser)
    _set_arguments(parser)
    parser.add_argument("--tier", action="append", choices=TIERS, help=f"repeat for more; default: {', '.join(QUICK)}")
    parser.add_argument("--no-record", action="store_true", help="do not write verification.json beside the manifest")


def _verify(arguments: argparse.Namespace) -> Answer:
    from aurora_backup.verify import QUICK, verify_set

    done = verify_set(
        open_bucket(arguments), arguments.set, tiers=arguments.tier or QUICK, record=not arguments.no_record
    )
    words = {True: "ok", False: "FAILED", None: "not run"}
    lines = [f"{tier.name}: {words[tier.ok]}, {tier.detail} ({tier.seconds} s)" for tier in done.tiers]
    document = {"set": done.set, "ok": done.ok, "tiers": [asdict(tier) for tier in done.tiers]}
    return (DONE if done.ok else FAILED), document, "\n".join(lines)


def _restore_arguments(parser: argparse.ArgumentParser) -> None:
    _database_arguments(parser)
    _bucket_arguments(parser)
    _set_arguments(parser)
    parser.add_argument("--jobs", type=_positive, default=2, help="archives and indexes side by side")
    parser.add_argument(
        "--table", action="append", type=_table, default=[], metavar="SCHEMA.TABLE", help="only this table; repeatable"
    )
    parser.add_argument("--roles", action="store_true", help="create missing roles; restore owners and grants")
    parser.add_argument("--create", action="store_true", help="create the database first, as the source's was")
    parser.add_argument("--no-analyze", action="store_true")
    parser.add_argument("--compare-only", action="store_true", help="restore nothing: compare what is there")


def _restore(arguments: argparse.Namespace) -> Answer:
    from aurora_backup.restore import RestoreOptions, compare_with, create_database, restore_set
    from aurora_backup.sets import read_manifest

    bucket, target = open_bucket(arguments), open_target(arguments)
    manifest = read_manifest(bucket, arguments.set)
    if arguments.compare_only:
        only = tuple(arguments.table)
        found = compare_with(manifest, target, tables=only, access=arguments.roles)
        tables = [t for t in manifest.facts.tables if not only or {t.key, t.root} & set(only)]
        rows, estimated = sum(t.rows or 0 for t in tables if not t.estimated), sum(t.estimated for t in tables)
        return _compared(found, {"set": manifest.set, "rows_expected": rows, "estimated": estimated})
    if arguments.create:
        create_database(target, manifest)
    done = restore_set(
        bucket,
        manifest,
        target,
        RestoreOptions(
            jobs=arguments.jobs,
            tables=tuple(arguments.table),
            roles=arguments.roles,
            analyze=not arguments.no_analyze,
            progress=_Progress(manifest),
        ),
    )
    document = {name: value for name, value in asdict(done).items() if name != "differences"}
    return _compared(list(done.differences), document)


def _compared(differences: Sequence[Any], document: dict[str, Any]) -> Answer:
    document = {**document, "ok": not differences, "differences": [asdict(d) for d in differences]}
    told = [f"DIFFERENT {d}" for d in differences] or ["the database is what the manifest says"]
    if document["estimated"]:
        told.append(f"NOT COMPARED: the rows of {document['estimated']} tables, which were not counted when dumped")
    told += [f"NOT RESTORED: {what}" for what in document.get("skipped", ())]
    return (FAILED if differences else DONE), document, "\n".join(told)


class _Progress:
    """Says on standard error, every few seconds and at every new step, how far a restore is."""

    def __init__(self, manifest: Manifest) -> None:
        self._total = manifest.size
        self._said = (0.0, "")

    def __call__(self, step: str, read: int) -> None:
        now = time.monotonic()
        loading = step.startswith("data") and self._said[1].startswith("data")
        if (step == self._said[1] or loading) and now - self._said[0] < 5:  # noqa: PLR2004  seconds
            return
        self._said = (now, step)
        print(f"{step}: {read >> 20} of {self._total >> 20} MiB read", file=sys.stderr, flush=True)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {text}")
    return value


def _moment(text: str) -> datetime:
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be an ISO 8601 time, got {text}") from None
    if value.tzinfo is None:
        raise argparse.ArgumentTypeError(f"must carry a time zone, got {text}")
    return value


def _compression(text: str) -> str:
    if not re.fullmatch(r"zstd:([1-9]|1\d)", text):
        raise argparse.ArgumentTypeError(f"must read zstd:1 to zstd:19, got {text}")
    return text


def _table(text: str) -> tuple[str, str]:
    """Read SCHEMA.TABLE, where a name with a dot or a quote in it is written in double quotes as in SQL."""
    names = re.fullmatch(r'("(?:[^"]|"")+"|[^".]+)\.("(?:[^"]|"")+"|[^".]+)', text)
    if not names:
        raise argparse.ArgumentTypeError(f"must read SCHEMA.TABLE, got {text}")
    first, second = (n[1:-1].replace('""', '"') if n.startswith('"') else n for n in names.groups())
    return first, second


def _from(module: str, name: str) -> Callable[[Any], Any]:
    """Return the function `name` of a module of ours that is loaded when it is called."""

    def call(argument: Any) -> Any:
        return getattr(import_module(f"aurora_backup.{module}"), name)(argument)

    return call


COMMANDS: tuple[Command, ...] = (
    Command("dump", "make a set of one database", _dump_arguments, _dump),
    Command("verify", "verify a set", _verify_arguments, _verify),
    Command("restore-dump", "restore a set, or one table of it, and compare", _restore_arguments, _restore),
    Command("role-sql", "the SQL that makes the role that dumps log in as", _role_arguments, _role_sql),
    Command("engine", "what the long-running engine runs", _engine_arguments, _engine),
    Command(
        "forecast",
        "what a policy will keep and cost",
        _from("retention_cli", "forecast_arguments"),
        _from("retention_cli", "forecast"),
    ),
    Command("hold", "legal holds", _from("retention_cli", "hold_arguments"), _from("retention_cli", "hold")),
    Command(
        "retention",
        "the retention manager's plan",
        _from("retention_cli", "retention_arguments"),
        _from("retention_cli", "retention"),
    ),
    Command(
        "adopt",
        "put a recovered cluster in its predecessor's place",
        _from("adoption_cli", "add_arguments"),
        _from("adoption_cli", "run"),
    ),
    Command(
        "evidence", "check that evidence is whole", _from("evidence_cli", "add_arguments"), _from("evidence_cli", "run")
    ),
    Command(
        "who-can-delete", "who can delete backups now", _from("access_cli", "add_arguments"), _from("access_cli", "run")
    ),
)


def parser(only: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of all subcommands; with `only`, of that one: the others' arguments are left out."""
    root = argparse.ArgumentParser(prog="aurora-backup", description=__doc__.splitlines()[0])
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        sub = commands.add_parser(command.name, help=command.summary, description=command.summary)
        if only in {None, command.name}:
            command.arguments(sub)
        sub.add_argument("--json", action="store_true", help="print one JSON document")
        sub.add_argument("--verbose", action="store_true", help="log what is done")
        sub.set_defaults(run=command.run)
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit status."""
    words = sys.argv[1:] if argv is None else argv
    arguments = parser(words[0] if words else "").parse_args(words)
    logging.basicConfig(level=logging.INFO if arguments.verbose else logging.WARNING, stream=sys.stderr)
    logging.getLogger("botocore").setLevel(logging.WARNING)
    try:
        with stoppable():
            status, document, told = arguments.run(arguments)
    except Stopped as stopped:
        print(f"aurora-backup: stopped by {stopped.signal.name}", file=sys.stderr)
        if arguments.json:
            print(json.dumps({"ok": False, "error": "Stopped", "message": stopped.signal.name}))
        return 128 + stopped.signal
    except SettingsError as error:
        return _failed(arguments, error, USAGE)
    except BackupError as error:
        return _failed(arguments, error, FAILED)
    except Exception as error:
        # Files, networks and AWS fail in ways that nothing of ours foresaw; what remains is a fault of ours.
        if not isinstance(error, OSError | UnicodeError) and not type(error).__module__.startswith("botocore."):
            raise
        return _failed(arguments, error, FAILED)
    print(json.dumps(document, sort_keys=True, default=str) if arguments.json else told)
    return int(status)


def _failed(arguments: argparse.Namespace, error: Exception, status: int) -> int:
    print(f"aurora-backup: {cause(error)}", file=sys.stderr)
    if arguments.json:
        print(json.dumps({"ok": False, "error": type(error).__name__, "message": cause(error)}, sort_keys=True))
    return status


if __name__ == "__main__":
    sys.exit(main())
