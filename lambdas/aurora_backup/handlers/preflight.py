"""Check every database before any is dumped: reachable, readable, a client new enough, and which engine fits.

In the VPC: PostgreSQL, Secrets Manager or an IAM token, and S3.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any

from aurora_backup import catalog, deployment, sizing
from aurora_backup.errors import BackupError, PreflightFailed, QueryFailed, cause
from aurora_backup.instances import leave_lagging
from aurora_backup.manifest import set_key
from aurora_backup.postgres import Session, Target, client_version, discover
from aurora_backup.sets import latest_manifest
from aurora_backup.settings import Settings

_log = logging.getLogger(__name__)
_NAMED = 10  # objects named in a refusal before "and N more"


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Add `databases` and `refused` to the event; one bad database never hides the others.

    A reader that lags is left for the writer, in `instance`.
    databases: `[{name, bytes, archive_bytes, engine, estimate_seconds, basis, set}]`; refused: `[{name, cause}]`.

    Raises:
        ConnectionFailed: databases were to be discovered, and the server could not be asked.

    """
    settings = Settings.from_environment()
    bucket = deployment.bucket(settings)
    started = deployment.moment("started", event["started"])
    names = event.get("databases") or settings.databases
    instance = event["instance"]
    if names is None:
        with Session(deployment.target(settings, instance, "postgres")) as session:
            names, instance = discover(session), leave_lagging(instance, replica_lag(session, instance["id"]))
    elif names and instance["role"] == "reader":
        # A database that cannot be reached is refused below, by name.
        with contextlib.suppress(BackupError), Session(deployment.target(settings, instance, names[0])) as session:
            instance = leave_lagging(instance, replica_lag(session, instance["id"]))
    major, _ = client_version("pg_dump")
    databases, refused = [], []
    for name in dict.fromkeys(names):
        key = set_key(event["prefix"], event["cluster"]["resource_id"], name, started)
        try:
            size = check_database(deployment.target(settings, instance, name), major)
            guess = sizing.estimate(size, latest_manifest(bucket, key))
        except BackupError as error:
            _log.warning("database %r refused: %s", name, cause(error))
            refused.append({"name": name, "cause": cause(error)})
            continue
        databases.append(
            {
                "name": name,
                "bytes": size,
                "engine": sizing.choose_engine(guess.seconds),
                "archive_bytes": guess.archive_bytes,
                "estimate_seconds": round(guess.seconds, 1),
                "basis": guess.basis,
                "set": key,
            }
        )
    return {**event, "instance": instance, "databases": databases, "refused": refused}


def replica_lag(session: Session, instance: str) -> float | None:
    """Milliseconds that a reader is behind the writer, as Aurora says; None where the server is no Aurora's."""
    try:
        lag = session.value(
            "SELECT replica_lag_in_msec FROM pg_catalog.aurora_replica_status() WHERE server_id = :name", name=instance
        )
    except QueryFailed:
        return None
    return None if lag is None else float(lag)


def check_database(target: Target, client_major: int) -> int:
    """Return the bytes of a database's tables, or refuse it.

    Raises:
        PreflightFailed: the server is newer than the client, or objects are unreadable; names them and the remedy.
        ConnectionFailed, QueryFailed: as they say.

    """
    with Session(target) as session:
        server_major = session.version // 10000
        if server_major > client_major:
            raise PreflightFailed(
                f"the server is PostgreSQL {server_major} and pg_dump is {client_major}: "
                "bring a client layer of the server's version (docs/logical-backup.md, Client binaries)"
            )
        unreadable = catalog.unreadable(session)
        if unreadable:
            named = "; ".join(f"{what} ({remedy})" for what, remedy in unreadable[:_NAMED])
            more = f"; and {len(unreadable) - _NAMED} more" if len(unreadable) > _NAMED else ""
            raise PreflightFailed(f"role {target.user} cannot read {len(unreadable)} objects: {named}{more}")
        return sum(table.bytes for table in catalog.tables(session))
