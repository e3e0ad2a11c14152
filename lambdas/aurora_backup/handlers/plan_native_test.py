"""Plan the validation of a cluster that AWS Backup's own restore testing restored. Outside the VPC."""

from __future__ import annotations

from typing import Any

from aurora_backup import deployment
from aurora_backup.errors import BackupError
from aurora_backup.recovery import Point, plan_native_test
from aurora_backup.recovery_edges import Edges

_PREFIX = "awsbackup-restore-test"


class NotARestoreTest(BackupError):  # noqa: N818  names say what happened, as in errors.py
    """The restore job is not a restore test of this cluster; the cluster it made is not touched."""


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Return `{plan, target, restore_job}`. event: `{execution, started, restore_job}`.

    Raises:
        NotARestoreTest: the job restored something else, or not for a test.

    """
    import boto3

    edges = Edges.from_environment()
    settings = edges.settings
    job = boto3.client("backup").describe_restore_job(RestoreJobId=event["restore_job"])
    name = str(job.get("CreatedResourceArn", "")).rpartition(":")[2]
    if not name.startswith(_PREFIX) or not (job.get("CreatedBy") or {}).get("RestoreTestingPlanArn"):
        raise NotARestoreTest(f"restore job {event['restore_job']} made {name!r}, which is not a restore test's")
    cluster = edges.rds.cluster(name)
    snapshot = edges.rds.snapshot(str(job["RecoveryPointArn"]))
    _, resource_id = edges.source()
    if cluster is None or snapshot is None or snapshot["DbClusterResourceId"] not in edges.lineage(resource_id):
        raise NotARestoreTest(f"restore job {event['restore_job']} is not of cluster {settings.cluster_id}")
    plan = plan_native_test(
        Point(
            tier="native",
            moment=snapshot["SnapshotCreateTime"],
            identifier=str(job["RecoveryPointArn"]),
            resource_id=snapshot["DbClusterResourceId"],
        ),
        cluster,
        restore_job=event["restore_job"],
        instance_class=edges.options.require_isolation().instance_class,
        owner=settings.owner,
        source_id=settings.cluster_id,
        source_resource_id=snapshot["DbClusterResourceId"],
        execution=event["execution"],
        started=deployment.moment("started", event["started"]),
        lifetime=edges.options.lifetime,
    )
    return {"plan": edges.store.keep_plan(plan), "target": plan.target, "restore_job": event["restore_job"]}
