"""The dump benchmark: every way to get one database into S3, side by side, and what surrounds a dump.

Rows of one workload and sink are run in turn, round after round, so that what else the machine does hits all of them.
Every way connects to the same server in the same way (TLS, verified) and is timed as a command, from its start to its
exit. Ours does more than the others: it exports a snapshot, counts every row, and writes a manifest.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurora_backup.settings import DEFAULT_COMPRESSION
from benchmarks import generate, measure, sinks, ways
from local.object_store import ObjectStore
from local.postgres import Home, Server
from local.processes import Guarded, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from benchmarks.measure import Cost, Row

ROOT = Path(__file__).resolve().parent.parent
BUCKET = "benchmark"
CPUS = len(os.sched_getaffinity(0))
LIMIT = "limit"
SHAPES = {"null": sinks.NULL, "shaped": sinks.SHAPED}
OURS = {
    "ours-fast": ("--compress", "zstd:1"),  # what a deadline asks for
    "ours-default": (),
    "ours-parallel": ("--jobs", str(2 * CPUS)),  # more archives at once than processors
}
NAMES = (LIMIT, "copy", *ways.WAYS, *OURS)
SLOW = {"document"}
NO_SINK = {LIMIT, "copy"}
# Rows that run the very same command share their runs: what would differ is noise.
SAME = {"ours-default": "ours-fast"} if OURS["ours-fast"] == ("--compress", DEFAULT_COMPRESSION) else {}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much to run. size_mb: of the main database. memory_mb: of the others. seconds: no new round after so many.

    slow_rounds, slow_sinks: how often, and into which sinks, the slow ways run.
    """

    size_mb: int = 1000
    rounds: int = 5
    slow_rounds: int = 1
    slow_sinks: tuple[str, ...] = ("null", "shaped")
    memory_mb: tuple[int, ...] = (250, 500)
    seconds: float = 400

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Plan:
        """BENCH_QUICK=1: a smaller database and fewer rounds. BENCH_FULL=1: memory with 4 GB too."""
        if environment.get("BENCH_QUICK") == "1":
            return cls(size_mb=250, rounds=3, slow_sinks=("null",), memory_mb=(400,), seconds=50)
        if environment.get("BENCH_FULL") == "1":
            return cls(memory_mb=(250, 500, 4000))
        return cls()


def aws_command() -> str:
    """Path of the AWS CLI, installed once into an environment of its own: it pins another botocore than we do."""
    directory = ROOT / "build" / "bench-aws"
    wanted, stamp = (ROOT / "requirements-bench.txt").read_text(), directory / ".stamp"
    if not stamp.exists() or stamp.read_text() != wanted:
        say("the AWS CLI into build/bench-aws (once)")
        venv.create(directory, with_pip=True, clear=True)
        pip = [str(directory / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(ROOT / "requirements-bench.txt")], check=True)
        stamp.write_text(wanted)
    return str(directory / "bin/aws")


def say(text: str) -> None:
    """Progress, on standard error: the table goes to standard output."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


@dataclass
class Place:
    """Where the benchmark runs: a server, the sinks' addresses by name, a scratch directory, the AWS CLI.

    aws: None leaves that way out.
    """

    server: Server
    endpoints: dict[str, str]
    scratch: Path
    aws: str | None
    passfile: Path = field(init=False)

    def __post_init__(self) -> None:
        self.passfile = self.scratch / "passfile"
        self.passfile.touch(0o600)
        self.passfile.write_text(f"*:*:*:*:{self.server.password}\n")
        (self.scratch / "aws").write_text("[default]\ns3 =\n  payload_signing_enabled = false\n")

    def env(self, database: str) -> dict[str, str]:
        """Everything that a way needs: libpq's variables, AWS's login, our client programs on PATH."""
        login = self.server.env(database)
        del login["PGPASSWORD"]
        return {
            "PATH": f"{self.server.home.bin}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.scratch),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'lambdas'}",
            "PGPASSFILE": str(self.passfile),
            "AWS_ACCESS_KEY_ID": "benchmark",
            "AWS_SECRET_ACCESS_KEY": "benchmark",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": str(self.scratch / "aws"),
            "AWS_EC2_METADATA_DISABLED": "true",
            **login,
        }

    def ours(self, command: str, *arguments: str, endpoint_url: str, bucket: str = BUCKET) -> list[str]:
        """One of our own subcommands."""
        program = [sys.executable, "-m", "aurora_backup.cli", command, "--json"]
        return [*program, f"--endpoint-url={endpoint_url}", f"--bucket={bucket}", *arguments]

    def database_arguments(self, database: str) -> list[str]:
        """How our subcommands are told the database; user, passfile and authority are in the environment."""
        return ["--host=127.0.0.1", f"--port={self.server.port}", f"--dbname={database}"]

    def command(self, name: str, sink: str, database: str, key: str) -> list[str]:
        """The command of the row `name`."""
        if name == LIMIT:
            return ["sh", "-c", "exec pg_dump -Fc --compress=none >/dev/null"]
        if name == "copy":
            copies = [f"-c COPY {generate.SCHEMA}.{table} TO STDOUT" for table in generate.TABLES]
            return ["sh", "-c", 'exec psql -Xq "$@" >/dev/null', "copy", *copies]
        endpoint = self.endpoints[sink]
        if name in OURS:
            where = [*self.database_arguments(database), f"--prefix={key}"]
            return self.ours("dump", *where, *OURS[name], endpoint_url=endpoint)
        arguments = [f"--endpoint-url={endpoint}", f"--bucket={BUCKET}", f"--key={key}", f"--scratch={self.scratch}"]
        return [sys.executable, "-m", "benchmarks.ways", name, *arguments, *([f"--aws={self.aws}"] if self.aws else [])]

    def measure(self, name: str, sink: str, database: str) -> Cost:
        """Run one row once, and see in the sink what it wrote.

        Raises:
            CommandFailedError: it failed, or the sink has nothing of it.

        """
        key = f"run-{secrets.token_hex(6)}"
        cost = measure.run(self.command(name, sink, database, key), self.env(database), self.scratch / "log")
        if name in NO_SINK:
            return cost
        found = _client(self.endpoints[sink]).list_objects_v2(Bucket=BUCKET, Prefix=key).get("Contents", [])
        dumps = [thing for thing in found if not thing["Key"].endswith(".json")]
        if not dumps:
            raise measure.CommandFailedError(f"{name} left nothing in the {sink} sink under {key}")
        return measure.with_output(cost, sum(thing["Size"] for thing in dumps))


def _client(endpoint_url: str, access_key: str = "benchmark", secret_key: str = "benchmark") -> Any:
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
    )


@contextlib.contextmanager
def place(aws: str | None) -> Iterator[Place]:
    """A server of our own, both sinks, and a scratch directory, gone afterwards."""
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aurora-backup-bench-")))
        home = Home(scratch / "home")
        stack.callback(home.remove)
        directory = home.path / "server"
        server = Server(
            home, directory, superuser="postgres", password=secrets.token_hex(16), archive=directory / "wal"
        )
        server.create()
        server.start()
        stack.callback(server.end)
        # Nothing of the server's own while a row is measured, and no second copy of the WAL in memory.
        server.psql("ALTER SYSTEM SET archive_command = 'true'", "ALTER SYSTEM SET autovacuum = off")
        server.psql("SELECT pg_reload_conf()")
        endpoints = {}
        for name, shape in SHAPES.items():
            endpoints[name] = stack.enter_context(_sink(shape, scratch / f"{name}.log"))
        yield Place(server, endpoints, scratch, aws)


@contextlib.contextmanager
def _sink(shape: sinks.Shape, log: Path) -> Iterator[str]:
    port = free_port()
    rate = [] if shape.rate is None else [f"--rate={shape.rate}"]
    command = [sys.executable, "-m", "benchmarks.sinks", f"--port={port}", f"--latency={shape.latency}", *rate]
    process = Guarded(command, log=log, cwd=ROOT)
    try:
        endpoint = f"http://127.0.0.1:{port}"
        process.wait_until(lambda: _answers(endpoint))
        yield endpoint
    finally:
        process.stop()


def _answers(endpoint: str) -> bool:
    import urllib.error
    import urllib.request

    try:
        urllib.request.urlopen(f"{endpoint}/{BUCKET}?list-type=2", timeout=5).close()
    except (urllib.error.URLError, OSError):
        return False
    return True


def dumps(where: Place, database: str, size: int, plan: Plan) -> list[Row]:
    """Every way on every sink, round after round. What no sink has a part in is run once a round, for all of them."""
    names = [name for name in NAMES if where.aws or name != "aws-s3-cp"]
    rows = [(sink, name) for sink in SHAPES for name in names if name not in SLOW or sink in plan.slow_sinks]
    costs: dict[tuple[str, str], list[Cost]] = {_run_of(row): [] for row in rows}
    begun = time.monotonic()
    for number in range(plan.rounds):
        if number and time.monotonic() - begun > plan.seconds:
            say(f"stopped after {number} of {plan.rounds} rounds: {plan.seconds:.0f} s are over")
            break
        for (sink, name), known in costs.items():
            if name in SLOW and number >= plan.slow_rounds:
                continue
            known.append(where.measure(name, sink, database))
            say(f"round {number + 1}, {sink}, {name}: {known[-1].wall:.1f} s")
    return [
        measure.row(
            costs[_run_of((sink, name))],
            name=name,
            workload="dump",
            sink=sink,
            size=size,
            limit=None if name in NO_SINK else LIMIT,
        )
        for sink, name in rows
    ]


def _run_of(row: tuple[str, str]) -> tuple[str, str]:
    """The (sink, name) whose runs are this row's."""
    sink, name = row
    return (next(iter(SHAPES)) if name in NO_SINK else sink, SAME.get(name, name))


def memory(where: Place, databases: Mapping[str, int]) -> list[Row]:
    """Ours over databases of several sizes: one run each. databases: bytes by name."""
    rows = []
    for database, size in databases.items():
        cost = where.measure("ours-default", "null", database)
        rows.append(measure.row([cost], name="ours-default", workload="memory", sink="null", size=size, limit=None))
        say(f"memory, {size / measure.MB:.0f} MB: {cost.peak / measure.MB:.0f} MB")
    return rows


def reading(where: Place, database: str, size: int, runs: int) -> list[Row]:
    """Verify a whole set and restore one table of it, from a real S3 server, where output_mb is what was read."""
    store = ObjectStore(where.scratch / "store")
    try:
        bucket = store.bucket()
        client = _client(store.endpoint_url, store.access_key, store.secret_key)
        env = {
            **where.env(database),
            "AWS_ACCESS_KEY_ID": store.access_key,
            "AWS_SECRET_ACCESS_KEY": store.secret_key,
        }
        log = where.scratch / "log"
        at = {"endpoint_url": store.endpoint_url, "bucket": bucket}
        made = json.loads(
            measure.run(where.ours("dump", *where.database_arguments(database), "--jobs=2", **at), env, log).stdout
        )
        archives = _download(client, bucket, made["set"], where.scratch)
        costs: dict[str, list[Cost]] = {"pg_restore-decode": [], "verify": [], "restore-table": []}
        for number in range(runs):
            decode = "for archive; do pg_restore -f /dev/null $archive || exit; done"
            cost = measure.run(["sh", "-c", decode, "decode", *map(str, archives)], env, log)
            costs["pg_restore-decode"].append(measure.with_output(cost, made["bytes"]))
            cost = measure.run(where.ours("verify", f"--set={made['set']}", "--no-record", **at), env, log)
            read = sum(tier["bytes"] for tier in json.loads(cost.stdout)["tiers"])
            costs["verify"].append(measure.with_output(cost, read))
            target = f"restored_{number}"
            where.server.psql(f"CREATE DATABASE {target} TEMPLATE template0")
            arguments = [*where.database_arguments(target), f"--set={made['set']}"]
            table = f"--table={generate.SCHEMA}.{generate.TABLE}"
            cost = measure.run(where.ours("restore-dump", *arguments, table, **at), env, log)
            costs["restore-table"].append(measure.with_output(cost, json.loads(cost.stdout)["bytes_read"]))
            where.server.psql(f"DROP DATABASE {target}")
        bounds = {"verify": "pg_restore-decode"}
        return [
            measure.row(
                known,
                name=name,
                workload="restore-table" if name == "restore-table" else "verify",
                sink="seaweedfs",
                size=size,
                limit=bounds.get(name),
            )
            for name, known in costs.items()
        ]
    finally:
        store.stop()


def _download(client: Any, bucket: str, prefix: str, directory: Path) -> list[Path]:
    paths = []
    for thing in client.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]:
        if thing["Key"].endswith(".dump"):
            paths.append(directory / Path(thing["Key"]).name)
            client.download_file(bucket, thing["Key"], str(paths[-1]))
    return paths


def benchmark(plan: Plan, aws: str | None, *, step: Callable[[Sequence[Row]], None] = lambda _: None) -> list[Row]:
    """Run everything; `step` is given all rows so far after each part."""
    rows: list[Row] = []
    with place(aws) as where:
        databases = {}
        for size_mb in sorted({plan.size_mb, *plan.memory_mb}):
            name = f"clinic_{size_mb}"
            say(f"a database of {size_mb} MB")
            databases[name] = generate.generate(where.server, name, size_mb)
        main = f"clinic_{plan.size_mb}"
        rows += dumps(where, main, databases[main], plan)
        step(rows)
        rows += memory(where, databases)
        step(rows)
        rows += reading(where, main, databases[main], plan.rounds)
        step(rows)
    return rows
