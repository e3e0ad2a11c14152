"""The steps that every drill begins with: synth, deploy, load, logical backup, restore, compare, damage."""

from __future__ import annotations

import io
import json
import shutil
import sys
import threading
import time
import zipfile
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurora_backup.manifest import Manifest, set_key
from drill.journal import StepFailedError
from drill.world import DATABASE, STACK, Login, World, host_architecture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from drill.journal import Step

_SCHEMA = Path(__file__).with_name("clinic.sql")
_TABLES = ("clinic.patients", "clinic.encounters", "clinic.observations")
RESTORED = "drill-restored"


def synth(world: World, step: Step) -> None:
    """`cdk synth` with the compliance packs, which is what is deployed afterwards."""
    context = [f"backup:architecture={host_architecture()}", f"backup:database-name={DATABASE}"]
    context += [
        "backup:alert-emails=oncall@example.org",
        "backup:reserved-concurrency=none",
        "backup:content-digest=true",
    ]
    options = [part for value in context for part in ("--context", value)]
    world.cdk("synth", "--quiet", "--output", str(world.assembly), *options)
    report = json.loads((world.assembly / "validation-report.json").read_text())
    packs = {p["pluginName"]: p["conclusion"] for p in report["pluginReports"]}
    step.require(all(verdict == "success" for verdict in packs.values()), f"every pack must pass, got {packs}")
    step.detail["packs"] = packs
    step.detail["resources"] = len(world.template["Resources"])
    step.detail["headline"] = f"{step.detail['resources']} resources, no unacknowledged finding"


def deploy(world: World, step: Step) -> None:
    """Bootstrap and deploy with the unmodified CLI, then ask the local AWS what it got."""
    world.cdk("bootstrap", f"aws://{world.aws.account}/{world.aws.region}", "--app", str(world.assembly))
    outputs = world.root / "outputs.json"
    app = ["--app", str(world.assembly)]
    world.cdk(
        "deploy", STACK, *app, "--require-approval", "never", "--outputs-file", str(outputs), "--progress", "events"
    )
    world.outputs.update(json.loads(outputs.read_text())[STACK])
    cluster = world.cluster()
    wanted = {
        "BackupRetentionPeriod": 35,
        "PreferredBackupWindow": "03:00-04:00",
        "PreferredMaintenanceWindow": "mon:04:00-mon:05:00",
        "StorageEncrypted": True,
        "DeletionProtection": True,
        "CopyTagsToSnapshot": True,
    }
    found = {key: cluster.get(key) for key in wanted}
    step.require(found == wanted, f"the deployed cluster must have {wanted}, got {found}")
    step.detail["observed"] = found
    step.detail["headline"] = f"{len(world.outputs)} outputs; retention 35 days observed"


def load(world: World, step: Step) -> None:
    """The clinic: a little of everything that a backup can lose."""
    with closing(world.connect()) as connection:
        connection.run(_SCHEMA.read_text())
    rows = {table: world.sql(f"SELECT count(*) FROM {table}")[0][0] for table in _TABLES}
    step.detail["rows"] = rows
    step.detail["headline"] = f"{sum(rows.values()):,} rows, large objects, partitions, roles, row-level security"


def logical_backup(world: World, step: Step) -> None:
    """The deployed workflow, started through its deployed schedule, while the clinic goes on writing."""
    name = schedule_named(world, "LogicalWorkflowWeekly")
    with writing(world) as written:
        started = world.aws.run_schedule(name)
        world.finish(started["executionArn"])
    step.require(written["rows"] > 0, "the source must have been written to while it was dumped")
    key = newest_set(world, "logical-backups")
    manifest = read_json(world, f"{key}manifest.json")
    verified = read_json(world, f"{key}verification.json")
    world.notes.update(set=key, manifest=manifest)
    step.detail["tiers"] = {name: tier["ok"] for name, tier in verified["tiers"].items()}
    step.detail["rows_expected"] = rows_of(manifest)
    step.detail["rows_written_meanwhile"] = written["rows"]
    step.detail["headline"] = f"{rows_of(manifest):,} rows under one snapshot, {written['rows']} written meanwhile"


def restore(world: World, step: Step) -> None:
    """Into a fresh cluster, by the command that an operator would type, from the bytes in S3 alone."""
    rds = world.aws.client("rds")
    rds.create_db_cluster(
        DBClusterIdentifier=RESTORED,
        Engine="aurora-postgresql",
        EngineVersion=world.cluster()["EngineVersion"],
        MasterUsername="postgres",
        ManageMasterUserPassword=True,
        StorageEncrypted=True,
        ServerlessV2ScalingConfiguration={"MinCapacity": 0.5, "MaxCapacity": 8},
    )
    patience = {"Delay": 1, "MaxAttempts": 120}
    rds.get_waiter("db_cluster_available").wait(DBClusterIdentifier=RESTORED, WaiterConfig=patience)
    rds.create_db_instance(
        DBInstanceIdentifier=f"{RESTORED}-1",
        DBClusterIdentifier=RESTORED,
        Engine="aurora-postgresql",
        DBInstanceClass="db.serverless",
    )
    rds.get_waiter("db_instance_available").wait(DBInstanceIdentifier=f"{RESTORED}-1", WaiterConfig=patience)
    answer = restore_set(world, world.notes["set"], DATABASE)
    step.require(answer["ok"], f"the restored database differs: {answer['differences']}")
    step.detail["rows_expected"] = rows_of(world.notes["manifest"])
    step.detail["bytes_read"] = answer.get("bytes_read")
    step.detail["headline"] = f"by sections and in parallel, {answer.get('bytes_read') or 0:,} bytes read"


def compare(world: World, step: Step) -> None:
    """With the source's own directory out of the way: counts and digests against the manifest."""
    with source_hidden(world):
        expected = tables_of(world.notes["manifest"])
        login = world.login(RESTORED)
        found = {name: world.sql(f"SELECT count(*) FROM ONLY {quoted(name)}", login=login)[0][0] for name in expected}
        answer = world.command_line(
            "restore-dump", "--compare-only", "--roles", "--set", world.notes["set"],
            *database(world, login, DATABASE), *storage(world), PGPASSWORD=login.password,
        )  # fmt: skip
    different = {n: (rows, found[n]) for n, rows in expected.items() if rows != found[n]}
    step.detail["rows_expected"] = sum(expected.values())
    step.detail["rows_restored"] = sum(found.values())
    step.detail["tables"] = len(expected)
    step.require(not different, f"row counts must equal the manifest's, got {different}")
    step.require(answer["ok"], f"digests must equal the manifest's, got {answer['differences']}")
    digests = [t for t in world.notes["manifest"]["facts"]["tables"] if t.get("digest")]
    step.require(digests, "the manifest must hold a digest of each table's contents")
    step.detail["digests"] = len(digests)
    step.detail["headline"] = f"{sum(found.values()):,} rows in {len(found)} tables, {len(digests)} digests equal"


def restore_table(world: World, step: Step) -> None:
    """One table alone, reading only its own archive, from a set that an operator made by hand."""
    login = world.login()
    made = world.command_line(
        "dump", "--jobs", "2", "--split-mib", "1", "--prefix", "manual-backups",
        "--cluster-resource-id", world.cluster()["DbClusterResourceId"], "--owner", owner(world),
        *database(world, login, DATABASE), *storage(world), PGPASSWORD=login.password,
    )  # fmt: skip
    manifest = Manifest.from_json(json.dumps(read_json(world, made["manifest_key"])))
    answer = restore_set(world, manifest.set, "one_table", "--table", "clinic.observations")
    step.require(answer["ok"], f"the restored table differs: {answer.get('differences')}")
    login = world.login(RESTORED)
    rows = world.sql("SELECT count(*) FROM clinic.observations", database="one_table", login=login)[0][0]
    expected = next(table.rows for table in manifest.facts.tables if table.key == ("clinic", "observations"))
    step.require(rows == expected, f"clinic.observations must have {expected} rows, got {rows}")
    archive = manifest.archive_of("clinic", "observations")
    step.detail.update(
        table_rows=rows, bytes_read=answer["bytes_read"], archive_bytes=archive.bytes, set_bytes=manifest.size
    )
    step.require(answer["bytes_read"] < manifest.size, f"less than the set's {manifest.size} bytes must be read")
    step.detail["headline"] = f"{rows:,} rows, {answer['bytes_read']:,} of the set's {manifest.size:,} bytes read"


def verify(world: World, step: Step) -> None:
    """Every tier: checksums and decoding right after the dump, and the deployed trial restore."""
    name = schedule_named(world, "TrialWorkflow")
    output = world.finish(world.aws.run_schedule(name)["executionArn"])
    step.require(
        any(f"{DATABASE}:" in told for told in output["restored"]), f"{DATABASE} must be restored, got {output}"
    )
    tiers = read_json(world, f"{world.notes['set']}verification.json")["tiers"]
    step.detail["tiers"] = {name: tier["ok"] for name, tier in tiers.items()}
    wanted = {"s3-checksum", "full-decode", "trial-restore"}
    step.require({n for n, ok in step.detail["tiers"].items() if ok} == wanted, f"all of {sorted(wanted)} must be ok")
    step.detail["headline"] = tiers["trial-restore"]["detail"]


def owner(world: World) -> str:
    """Whose the deployed strategy's recovery points are."""
    functions = world.aws.client("lambda").get_paginator("list_functions").paginate()
    variables = (f.get("Environment", {}).get("Variables", {}) for page in functions for f in page["Functions"])
    return str(next(found["OWNER"] for found in variables if "OWNER" in found))


def engine(world: World, step: Step) -> None:
    """The long-running engine's own command, with the assets and environment of the synthesised template."""
    project = next(r for r in world.template["Resources"].values() if r["Type"] == "AWS::CodeBuild::Project")
    build = json.loads(project["Properties"]["Source"]["BuildSpec"])
    command = build["phases"]["build"]["commands"][-1]
    deployed = world.aws.client("codebuild").batch_get_projects(
        names=list(world.aws.client("codebuild").list_projects()["projects"])
    )["projects"][0]
    environment = {v["name"]: v["value"] for v in deployed["environment"]["environmentVariables"]}
    home = world.root / "engine"
    shutil.rmtree(home, ignore_errors=True)
    for asset, folder in (("CODE_ASSET", "code"), ("POSTGRES_ASSET", "postgres")):
        unpack(world, environment[asset], home / folder)
    cluster = world.cluster()
    instance = next(m["DBInstanceIdentifier"] for m in cluster["DBClusterMembers"] if m["IsClusterWriter"])
    endpoint = world.aws.client("rds").describe_db_instances(DBInstanceIdentifier=instance)["DBInstances"][0][
        "Endpoint"
    ]
    started = datetime.now(UTC).replace(microsecond=0)
    key = set_key("manual-backups", cluster["DbClusterResourceId"], DATABASE, started)
    event = {
        "execution": "drill-engine",
        "started": started.isoformat(),
        "prefix": "manual-backups",
        "cluster": {"id": cluster["DBClusterIdentifier"], "resource_id": cluster["DbClusterResourceId"]},
        "instance": {"id": instance, "host": endpoint["Address"], "port": endpoint["Port"], "role": "writer"},
        "database": {"name": DATABASE, "bytes": 10**12, "engine": "codebuild", "set": key},
    }
    environment.update(EVENT=json.dumps(event), PGSSLROOTCERT=str(world.aws.ca), TMPDIR=str(home))
    # As CodeBuild runs it: a shell in the project's folder; only the interpreter is this machine's.
    answer = json.loads(
        world.run(
            ["bash", "-c", command.replace("python3 ", f"{sys.executable} -S ")],
            {**world.aws.env(), **environment},
            log="engine.log",
            cwd=home,
        )
    )
    step.require(
        answer["state"] == "done" and answer["verified"]["ok"], f"the engine must dump and verify, got {answer}"
    )
    step.detail["rows_dumped"] = answer["rows"]
    step.detail["headline"] = f"{answer['rows']:,} rows dumped and verified outside Lambda"


def unpack(world: World, url: str, folder: Path) -> None:
    """Unzip an asset that the deployment put into S3."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    data = world.aws.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        archive.extractall(folder)
    for program in (folder / "bin").glob("*"):
        program.chmod(0o755)


def damage(world: World, step: Step) -> None:
    """The negative control: a corrupted, a truncated and a manifest-less copy must each be refused."""
    manifest = Manifest.from_json(json.dumps(world.notes["manifest"]))
    half = manifest.archives[0].bytes // 2

    def flip(data: bytes) -> bytes:
        return data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :]

    cases: dict[str, tuple[Callable[[bytes], bytes], str, str]] = {
        "undamaged": (lambda data: data, "archive", "verified and restorable"),
        "corrupted": (flip, "archive", "ArchiveDamaged"),
        "truncated": (lambda data: data[:half], "archive", "ArchiveDamaged"),
        "without-manifest": (lambda _: b"", "manifest", "NoSuchObject"),
        "altered-manifest": (lambda data: data.replace(b'"rows":', b'"rows": 1', 1), "manifest", "ManifestError"),
    }
    for name, (change, what, expected) in cases.items():
        copy = copy_set(world, manifest, f"drill-{name}", change, what)
        answer = world.command_line("verify", "--no-record", "--set", manifest.set, *copy, expect=(0, 1))
        told = "; ".join(f"{tier['name']}: {tier['detail']}" for tier in answer["tiers"])
        refused = answer["status"] == 1 and not any(tier["ok"] for tier in answer["tiers"]) and expected in told
        step.case(
            name,
            expected,
            "verified and restorable" if answer["status"] == 0 else told[:300],
            ok=answer["ok"] if name == "undamaged" else refused,
        )
    step.detail["headline"] = f"the undamaged copy verifies, {len(cases) - 1} damaged ones are refused"


def copy_set(world: World, manifest: Manifest, bucket: str, change: Callable[[bytes], bytes], what: str) -> list[str]:
    """A copy of the set in a bucket of its own, with its archive or its manifest changed; how to address it."""
    s3, source = world.aws.client("s3"), world.outputs["BackupBucket"]
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": world.aws.region})
    for archive in manifest.archives:
        data = s3.get_object(Bucket=source, Key=archive.key)["Body"].read()
        changed = change(data) if what == "archive" and archive is manifest.archives[0] else data
        s3.put_object(Bucket=bucket, Key=archive.key, Body=changed, ChecksumAlgorithm="CRC32")
    # The copy's objects have no versions: its manifest says so, and is otherwise the same.
    archives = tuple(replace(archive, version_id=None) for archive in manifest.archives)
    text = replace(manifest, archives=archives).to_json().encode()
    if what == "manifest":
        text = change(text)
    if text:
        s3.put_object(Bucket=bucket, Key=f"{manifest.set}manifest.json", Body=text)
    return ["--bucket", bucket, "--endpoint-url", world.aws.endpoint_url]


@contextmanager
def writing(world: World) -> Iterator[dict[str, int]]:
    """Keep inserting and updating until the block ends; counts the rows."""
    stop, written = threading.Event(), {"rows": 0}
    login = world.login()

    def write() -> None:
        with closing(world.connect(login=login)) as connection:
            while not stop.is_set():
                connection.run(
                    "INSERT INTO clinic.encounters (patient_id, at, severity) "
                    "SELECT 1 + (random() * 4999)::int, now(), 'high' FROM generate_series(1, 20)"
                )
                connection.run("UPDATE clinic.patients SET born = born + 1 WHERE id = 1 + (random() * 4999)::int")
                written["rows"] += 20
                time.sleep(0.01)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield written
    finally:
        stop.set()
        thread.join(10)


@contextmanager
def source_hidden(world: World) -> Iterator[None]:
    """Stop the source and move its directory away, so that nothing can be read from it."""
    live = world.aws.live_directory(world.cluster()["DbClusterResourceId"])
    rds, name = world.aws.client("rds"), world.outputs["ClusterIdentifier"]
    rds.stop_db_cluster(DBClusterIdentifier=name)
    hidden = live.with_name(live.name + ".hidden")
    shutil.move(live, hidden)
    try:
        yield
    finally:
        shutil.move(hidden, live)
        rds.start_db_cluster(DBClusterIdentifier=name)


def schedule_named(world: World, part: str) -> str:
    """The deployed schedule whose name holds this."""
    names = [s["Name"] for s in world.aws.client("scheduler").list_schedules()["Schedules"]]
    found = [name for name in names if part in name]
    if len(found) != 1:
        raise StepFailedError(f"one schedule named like {part} was expected, got {found or names}")
    return str(found[0])


def newest_set(world: World, prefix: str) -> str:
    """The key of the newest set under a prefix: the folder of its manifest."""
    pages = world.aws.client("s3").get_paginator("list_objects_v2")
    keys = [
        item["Key"]
        for page in pages.paginate(Bucket=world.outputs["BackupBucket"], Prefix=f"{prefix}/")
        for item in page.get("Contents", [])
    ]
    manifests = sorted(key for key in keys if f"/{DATABASE}/" in key and key.endswith("/manifest.json"))
    if not manifests:
        raise StepFailedError(f"a set of {DATABASE} was expected under {prefix}/, got {keys}")
    return str(manifests[-1]).removesuffix("manifest.json")


def read_json(world: World, key: str) -> dict[str, Any]:
    """An object of the backup bucket, as JSON."""
    body = world.aws.client("s3").get_object(Bucket=world.outputs["BackupBucket"], Key=key)["Body"]
    return dict(json.loads(body.read()))


def rows_of(manifest: dict[str, Any]) -> int:
    """All rows that a manifest counts."""
    return sum(tables_of(manifest).values())


def tables_of(manifest: dict[str, Any]) -> dict[tuple[str, str], int]:
    """Rows by (schema, table)."""
    return {(t["schema"], t["name"]): t["rows"] for t in manifest["facts"]["tables"]}


def quoted(name: tuple[str, str]) -> str:
    """A table's name in SQL."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in name)


def storage(world: World) -> list[str]:
    """Where the sets are, as arguments."""
    return ["--bucket", world.outputs["BackupBucket"], "--endpoint-url", world.aws.endpoint_url]


def database(world: World, login: Login, name: str) -> list[str]:
    """Which database, as arguments; the password goes by environment."""
    where = ["--host", login.host, "--port", str(login.port), "--user", login.user, "--dbname", name]
    return [*where, "--sslrootcert", str(world.aws.ca)]


def restore_set(world: World, key: str, name: str, *options: str) -> dict[str, Any]:
    """Restore a set into the drill's own cluster."""
    login = world.login(RESTORED)
    return world.command_line(
        "restore-dump", "--create", "--roles", "--set", key, *options,
        *database(world, login, name), *storage(world), PGPASSWORD=login.password,
    )  # fmt: skip
