"""The recovery steps: a snapshot on demand, a disaster, the way back, and recovery tests that pass and that fail."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drill.journal import StepFailedError
from drill.world import DATABASE, World
from local.processes import unprivileged

if TYPE_CHECKING:
    from collections.abc import Callable

    from drill.journal import Step

RECOVERED = "drill-recovered"
_TABLES = ("clinic.patients", "clinic.encounters", "clinic.observations", "clinic.audit")
_BEATS = 4
_SLACK = 1.5  # seconds between the last good write, the recovery target and the disaster
_SECONDS = 240
_AT_ONCE = 3  # tests at the same time, so that one's waiting is another's working


@dataclass(frozen=True)
class Case:
    """A recovery point damaged on purpose: SQL run on its own bytes, the check that must fail, and what it must say."""

    name: str
    damage: tuple[str, ...]
    check: str
    expected: str
    database: str = DATABASE


CASES = (
    Case(
        "missing-rows",
        ("DELETE FROM clinic.audit WHERE id % 2 = 0; DELETE FROM clinic.scans WHERE id > 30",),
        "record counts",
        "clinic.scans has 30 rows, expected 40",
    ),
    Case(
        "stale-copy",
        ("DELETE FROM aurora_backup.heartbeat WHERE seq > 2",),
        "recent transactions",
        "stale copy: the last heartbeat is 2",
        "postgres",
    ),
    Case(
        "corrupt-index",
        (
            "UPDATE pg_index SET indisready = false WHERE indexrelid = 'clinic.scans_pkey'::regclass",
            "UPDATE clinic.scans SET id = -id WHERE id = 7",
            "UPDATE pg_index SET indisready = true WHERE indexrelid = 'clinic.scans_pkey'::regclass",
        ),
        "data integrity",
        "index clinic.scans_pkey is corrupt",
    ),
    Case(
        "dropped-constraint",
        ("ALTER TABLE clinic.scans DROP CONSTRAINT scans_patient_id_fkey",),
        "data integrity",
        "scans_patient_id_fkey",
    ),
    Case(
        "lost-grant",
        ("REVOKE SELECT ON clinic.patients FROM clinician",),
        "permissions",
        "grant SELECT on clinic.patients to clinician is lost",
    ),
    Case(
        "missing-heartbeat",
        ("DELETE FROM aurora_backup.heartbeat WHERE seq = 3",),
        "recent transactions",
        "of the heartbeats 1 to",
        "postgres",
    ),
)


def on_demand_snapshot(world: World, step: Step) -> None:
    """A snapshot when somebody asks for it: described, tagged, watched to its end, made once."""
    beat(world)
    output = run(world, "OnDemandSnapshotWorkflow", {"description": "drill: before the disaster"}, "drill-snapshot")
    step.require("baseline" in output["baseline"], f"a whole baseline belongs to it, got {output['baseline']}")
    name = output["made"]["snapshot"]
    found = snapshots(world)
    (made,) = [s for s in found if s["DBClusterSnapshotIdentifier"] == name]
    tags = {tag["Key"]: tag["Value"] for tag in made["TagList"]}
    wanted = {"BackupType": "Manual", "Description": "drill: before the disaster"}
    step.require(wanted.items() <= tags.items(), f"tags must hold {wanted}, got {tags}")
    step.require(made["Status"] == "available" and made["StorageEncrypted"], f"available and encrypted, got {made}")
    step.detail["snapshot"] = name
    step.detail["expires"] = output["made"]["expires"]
    step.detail["headline"] = f"{name} is available, kept until {output['made']['expires'][:10]}"


def disaster(world: World, step: Step) -> None:
    """Rows deleted and a table dropped, at a known time."""
    beat(world)
    run(world, "BaselineWorkflow", {}, "drill-baseline-before")
    world.notes["rows"] = rows(world)
    time.sleep(_SLACK)
    moment = world.sql("SELECT clock_timestamp()")[0][0]
    world.notes["moment"] = moment
    time.sleep(_SLACK)
    world.sql("DELETE FROM clinic.encounters WHERE id % 3 = 0")
    world.sql("DROP TABLE clinic.observations")
    world.sql("DELETE FROM clinic.audit")
    beat(world)
    left = rows(world)
    step.require(left != world.notes["rows"], f"rows must be gone, got {left}")
    lost = sum(world.notes["rows"].values()) - sum(left.values())
    step.detail["moment"] = moment.isoformat()
    step.detail["rows_lost"] = lost
    step.detail["headline"] = f"{lost:,} rows lost after {moment:%H:%M:%S} UTC"


def point_in_time_recovery(world: World, step: Step) -> None:
    """All rows back, as of the moment before; the source is not touched."""
    before = frozen(world)
    request = {"target_cluster_id": RECOVERED, "target_time": world.notes["moment"].isoformat()}
    begun = time.monotonic()
    output = run(world, "PointInTimeRecoveryWorkflow", request, "drill-recovery")
    handed = output["handed"]
    found = rows(world, RECOVERED)
    step.detail["rows_expected"] = sum(world.notes["rows"].values())
    step.detail["rows_restored"] = sum(found.values())
    step.require(found == world.notes["rows"], f"rows must be {world.notes['rows']}, got {found}")
    document = stored(world, handed["report"])
    step.require(handed["outcome"] == "RESTORED", f"every check must pass, got {document['checks']}")
    # Clusters share this machine, so each has a port of its own.
    different = {name: both for name, both in document["differences"].items() if name != "Port"}
    step.require(not different, f"settings must be carried over, differ: {different}")
    step.require(frozen(world) == before, "the source cluster must not be touched")
    step.detail["rto_seconds"] = handed["rto_seconds"]
    step.detail["rpo_seconds"] = handed["rpo_seconds"]
    step.detail["seconds_to_hand_over"] = round(time.monotonic() - begun, 1)
    step.detail["to_do"] = handed["to_do"]
    step.detail["headline"] = (
        f"{sum(found.values()):,} of {step.detail['rows_expected']:,} rows, "
        f"RTO {handed['rto_seconds']} s, RPO {handed['rpo_seconds']} s"
    )


def recovery_test(world: World, step: Step) -> None:
    """The newest snapshot restored into isolation, queried, judged, removed."""
    begin(world, "drill-recovery-test")
    report = ended(world, "drill-recovery-test")
    step.detail["checks"] = {check["name"]: check["verdict"] for check in report["checks"]}
    step.detail["queried"] = report["queried"]
    step.detail["rto_seconds"] = report["rto_seconds"]
    step.detail["rpo_seconds"] = report["rpo_seconds"]
    step.require(report["outcome"] == "RESTORED", f"every check must pass, got {report['checks']}")
    step.require(not copies(world), f"nothing may be left over, got {copies(world)}")
    counted = report["queried"]["tables_counted"]
    step.detail["headline"] = f"4 of 4 checks PASS over {counted} tables, nothing left over"


def recovery_test_detects_damage(world: World, step: Step) -> None:
    """The negative control: recovery points damaged in their own bytes; each test must fail, and clean up."""
    cases = (Case("undamaged", (), "", "RESTORED"), *CASES)
    running: list[Case] = []
    for case in cases:
        snapshot_with(world, case)
        begin(world, f"drill-test-{case.name}")
        running.append(case)
        if len(running) == _AT_ONCE:
            conclude(world, step, running.pop(0))
    for case in running:
        conclude(world, step, case)
    step.require(not copies(world), f"nothing may be left over, got {copies(world)}")
    step.detail["headline"] = f"the undamaged copy passes, {len(CASES)} damaged ones fail for their own reason"


def beat(world: World, times: int = _BEATS) -> None:
    """Write heartbeats through the deployed schedule's target."""
    schedules = world.aws.client("scheduler").list_schedules()["Schedules"]
    name = next(s["Name"] for s in schedules if "RecoveryHeartbeat" in s["Name"])
    for _ in range(times):
        answer = world.aws.run_schedule(name)["Payload"]
        if "number" not in answer:
            raise StepFailedError(f"a heartbeat must be written, got {answer}")


def start(world: World, output: str, payload: dict[str, Any], name: str) -> str:
    """Start a workflow that is an output of the stack; the execution's ARN."""
    states = world.aws.client("stepfunctions")
    machine = world.outputs[output]
    return str(states.start_execution(stateMachineArn=machine, name=name, input=json.dumps(payload))["executionArn"])


def run(world: World, output: str, payload: dict[str, Any], name: str) -> dict[str, Any]:
    """Start a workflow and wait for its output."""
    return world.finish(start(world, output, payload, name))


def conclude(world: World, step: Step, case: Case) -> None:
    """Wait for a damaged copy's test, and hold its report against what the damage must cause."""
    report = ended(world, f"drill-test-{case.name}")
    if not case.damage:
        step.case(case.name, case.expected, report["outcome"], ok=report["outcome"] == "RESTORED")
        return
    (check,) = [check for check in report["checks"] if check["name"] == case.check]
    failed = check["verdict"] == "FAIL" and case.expected in check["reason"]
    step.case(case.name, case.expected, f"{check['verdict']}: {check['reason']}"[:300], ok=failed)


def begin(world: World, name: str) -> None:
    """Start a recovery test of the newest snapshot on demand, and wait until it has chosen it."""
    start(world, "RecoveryTestWorkflow", {"tier": "on-demand"}, name)
    plan = f"compliance-backups/evidence/recovery-runs/{name}/plan.json"
    wait_for(lambda: plan in keys(world, plan) or status(world, name) != "RUNNING", f"the plan of {name}")


def ended(world: World, name: str) -> dict[str, Any]:
    """Wait for a recovery test, however it ends; its report."""
    wait_for(lambda: status(world, name) != "RUNNING", f"the end of {name}")
    prefix = "compliance-backups/evidence/recovery-tests/"
    reports = [key for key in keys(world, prefix) if key.endswith(f"_{name}.json")]
    if not reports:
        raise StepFailedError(f"recovery test {name} ended {status(world, name)} without a report")
    return stored(world, reports[0])


def status(world: World, name: str) -> str:
    """The status of an execution of the recovery test."""
    machine = world.outputs["RecoveryTestWorkflow"]
    arn = f"{machine.replace(':stateMachine:', ':execution:')}:{name}"
    return str(world.aws.client("stepfunctions").describe_execution(executionArn=arn)["status"])


def wait_for(fact: Callable[[], bool], what: str) -> None:
    """Wait until the fact holds."""
    deadline = time.monotonic() + _SECONDS
    while not fact():
        if time.monotonic() > deadline:
            raise StepFailedError(f"{what} has not come after {_SECONDS} s")
        time.sleep(0.3)


def keys(world: World, prefix: str) -> list[str]:
    """Keys of the backup bucket under a prefix."""
    pages = world.aws.client("s3").get_paginator("list_objects_v2")
    found = pages.paginate(Bucket=world.outputs["BackupBucket"], Prefix=prefix)
    return [item["Key"] for page in found for item in page.get("Contents", [])]


def stored(world: World, key: str) -> dict[str, Any]:
    """An object of the backup bucket, as JSON."""
    body = world.aws.client("s3").get_object(Bucket=world.outputs["BackupBucket"], Key=key)["Body"]
    return dict(json.loads(body.read()))


def rows(world: World, cluster: str | None = None) -> dict[str, int]:
    """Rows of the clinic's tables; a table that is gone has none."""
    login = world.login(cluster)
    there = {row[0] for row in world.sql("SELECT schemaname || '.' || tablename FROM pg_tables", login=login)}
    return {t: world.sql(f"SELECT count(*) FROM {t}", login=login)[0][0] if t in there else 0 for t in _TABLES}


def frozen(world: World) -> dict[str, Any]:
    """What RDS says of the source that must not change."""
    moving = {"LatestRestorableTime", "EarliestRestorableTime"}
    return {key: value for key, value in world.cluster().items() if key not in moving}


def copies(world: World) -> list[str]:
    """Clusters and instances that carry the tag of a recovery test."""
    rds = world.aws.client("rds")
    things = rds.describe_db_clusters()["DBClusters"] + rds.describe_db_instances()["DBInstances"]
    tag = {"Key": "aurora-backup:purpose", "Value": "recovery-test"}
    return [str(t.get("DBInstanceIdentifier") or t["DBClusterIdentifier"]) for t in things if tag in t["TagList"]]


def snapshots(world: World) -> list[dict[str, Any]]:
    """Manual snapshots."""
    found = world.aws.client("rds").describe_db_cluster_snapshots(SnapshotType="manual")["DBClusterSnapshots"]
    return list(found)


def snapshot_with(world: World, case: Case) -> None:
    """Take a snapshot, and damage the bytes that it consists of: the source stays as it is."""
    name = f"drill-{case.name}"
    beat(world, 1)
    rds = world.aws.client("rds")
    home = Path(world.aws.live_directory("x")).parent.parent
    before = set((home / "snapshots").iterdir())
    rds.create_db_cluster_snapshot(
        DBClusterSnapshotIdentifier=name, DBClusterIdentifier=world.outputs["ClusterIdentifier"]
    )
    wait_for(
        lambda: any(s["DBClusterSnapshotIdentifier"] == name and s["Status"] == "available" for s in snapshots(world)),
        f"snapshot {name}",
    )
    (made,) = set((home / "snapshots").iterdir()) - before
    if case.damage:
        rewrite(home, made / "data", case)


def rewrite(home: Path, data: Path, case: Case) -> None:
    """Run SQL on a base backup's own bytes, in PostgreSQL's single-user mode."""
    done = subprocess.run(
        [str(home / "postgresql" / "bin" / "postgres"), "--single", "-D", str(data), case.database],
        input="".join(f"{statement}\n" for statement in case.damage),
        capture_output=True,
        text=True,
        cwd="/",
        env={"LC_ALL": "C"},
        check=False,
        **unprivileged().switch,  # type: ignore[call-overload]
    )
    if done.returncode or "ERROR" in done.stderr:
        said = [line for line in done.stderr.splitlines() if "ERROR" in line or "FATAL" in line]
        raise StepFailedError(f"{case.name} could not be done: {said}")
