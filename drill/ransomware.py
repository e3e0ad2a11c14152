"""The ransomware step: an administrator destroys every copy that can be destroyed, and the way back from the rest.

The local AWS enforces vault locks and S3 Object Lock, by which this step's copies survive. It enforces neither IAM nor
vault, key and bucket policies, keeps one account only, and replicates nothing between buckets: that is said in the
step's detail. What those do to an attacker is evaluated in docs/threat-model.md instead.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from aurora_backup.manifest import NAME as MANIFEST
from aurora_backup.manifest import Manifest
from drill.foundation import database, newest_set
from drill.journal import StepFailedError
from drill.recovery import rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from drill.journal import Step
    from drill.world import World

SURVIVOR = "drill-survivor"
_KEEPER = "drill-second-account"
_UNLOCKED = "drill-unlocked"
_FROM_SET = "clinic_from_set"
_SECONDS = 120
_REGIONAL = "us-east-1"  # the only Region whose buckets are made without a location constraint
_REFUSALS = ("AccessDenied", "AccessDeniedException", "InvalidRequest", "InvalidRequestException")
_NOT_REPRESENTED = (
    "IAM, vault, key and bucket policies are not enforced: what they decide is evaluated in docs/threat-model.md",
    "removing the governance lock and ending the key: not tried, because only those policies would stop it",
    "a second account: a bucket of this account under Object Lock stands for it",
    "S3 replication: the drill copies the newest set itself, with its own version ids in the manifest",
    "the logically air-gapped vault",
)


def ransomware(world: World, step: Step) -> None:
    """An administrator destroys whatever lets itself be deleted; recovered from the locked copies."""
    expected = rows(world)
    locked = back_up(world, world.outputs["BackupVault"])
    world.aws.client("backup").create_backup_vault(BackupVaultName=_UNLOCKED)
    unlocked = back_up(world, _UNLOCKED)
    kept, set_key = keep_set(world)

    destroy_cluster(world)
    destroyed, refused = destroy_objects(world, world.outputs["BackupBucket"])
    backup = world.aws.client("backup")
    for name, vault, point, wanted in (
        ("recovery point in an unlocked vault", _UNLOCKED, unlocked, "deleted"),
        ("recovery point in the locked vault", world.outputs["BackupVault"], locked, "refused"),
    ):
        actual = attempt(partial(backup.delete_recovery_point, BackupVaultName=vault, RecoveryPointArn=point))
        step.case(name, wanted, actual, ok=actual.startswith(wanted))
    vault_itself = attempt(lambda: backup.delete_backup_vault(BackupVaultName=world.outputs["BackupVault"]))
    step.case("the locked vault itself", "refused", vault_itself, ok=vault_itself.startswith("refused"))
    gone, held = destroy_objects(world, _KEEPER)
    step.case(
        "set under Object Lock",
        f"0 of {kept} deleted",
        f"{gone} of {gone + held} deleted",
        ok=(gone, held) == (0, kept),
    )

    begun = time.monotonic()
    restore_point(world, locked)
    found = rows(world, SURVIVOR)
    step.detail["rto_seconds"] = round(time.monotonic() - begun, 1)
    step.require(found == expected, f"the recovery point must hold {expected}, got {found}")
    login = world.login(SURVIVOR)
    answer = world.command_line(
        "restore-dump", "--create", "--set", set_key, *database(world, login, _FROM_SET),
        "--bucket", _KEEPER, "--endpoint-url", world.aws.endpoint_url, PGPASSWORD=login.password,
    )  # fmt: skip
    step.require(answer["ok"], f"the kept set must restore without a difference, got {answer['differences']}")
    step.detail["rows_expected"] = sum(expected.values())
    step.detail["rows_restored"] = sum(found.values())
    step.detail["destroyed"] = {"object versions": destroyed, "versions under a hold or a lock": refused}
    step.detail["not_represented"] = list(_NOT_REPRESENTED)
    step.detail["headline"] = (
        f"the cluster, its snapshots and {destroyed} object versions destroyed; {sum(found.values()):,} rows back from "
        "the locked vault, and a set from the locked bucket"
    )


def back_up(world: World, vault: str) -> str:
    """What the plan's weekly rule does, into a vault; the recovery point's ARN."""
    backup = world.aws.client("backup")
    plan = next(p["BackupPlanId"] for p in backup.list_backup_plans()["BackupPlansList"])
    rules = backup.get_backup_plan(BackupPlanId=plan)["BackupPlan"]["Rules"]
    weekly = next(rule for rule in rules if rule["RuleName"] == "weekly")
    selection = backup.list_backup_selections(BackupPlanId=plan)["BackupSelectionsList"][0]
    job = backup.start_backup_job(
        BackupVaultName=vault,
        ResourceArn=world.cluster()["DBClusterArn"],
        IamRoleArn=selection["IamRoleArn"],
        Lifecycle={"DeleteAfterDays": weekly["Lifecycle"]["DeleteAfterDays"]},
    )["BackupJobId"]
    deadline = time.monotonic() + _SECONDS
    while (told := backup.describe_backup_job(BackupJobId=job))["State"] != "COMPLETED":
        if told["State"] in {"FAILED", "ABORTED", "EXPIRED"} or time.monotonic() > deadline:
            raise StepFailedError(f"backup job {job} ended {told['State']}: {told.get('StatusMessage')}")
        time.sleep(0.2)
    return str(told["RecoveryPointArn"])


def keep_set(world: World) -> tuple[int, str]:
    """Copy the newest set to a bucket under Object Lock, as S3 replication would; how many versions, its key."""
    s3 = world.aws.client("s3")
    place = {} if world.aws.region == _REGIONAL else {
        "CreateBucketConfiguration": {"LocationConstraint": world.aws.region}
    }  # fmt: skip
    s3.create_bucket(Bucket=_KEEPER, ObjectLockEnabledForBucket=True, **place)
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 90}}
    s3.put_object_lock_configuration(
        Bucket=_KEEPER, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
    )
    key = newest_set(world, "logical-backups")
    source = world.outputs["BackupBucket"]
    objects = [item["Key"] for item in s3.list_objects_v2(Bucket=source, Prefix=key)["Contents"]]
    made = {}
    for name in objects:
        body = s3.get_object(Bucket=source, Key=name)["Body"].read()
        made[name] = s3.put_object(Bucket=_KEEPER, Key=name, Body=body)["VersionId"]
    # S3's own replication keeps version ids, which the manifest names; a copy made by hand has its own.
    manifest = Manifest.from_json(s3.get_object(Bucket=source, Key=key + MANIFEST)["Body"].read())
    archives = tuple(replace(archive, version_id=made[archive.key]) for archive in manifest.archives)
    s3.put_object(Bucket=_KEEPER, Key=key + MANIFEST, Body=replace(manifest, archives=archives).to_json())
    return len(objects) + 1, key


def destroy_cluster(world: World) -> None:
    """Deletion protection off, instances, cluster, automated backups and every manual snapshot."""
    rds, name = world.aws.client("rds"), world.outputs["ClusterIdentifier"]
    rds.modify_db_cluster(DBClusterIdentifier=name, DeletionProtection=False, ApplyImmediately=True)
    for member in world.cluster()["DBClusterMembers"]:
        rds.delete_db_instance(DBInstanceIdentifier=member["DBInstanceIdentifier"])
    until(lambda: not world.cluster()["DBClusterMembers"], "the instances to be deleted")
    rds.delete_db_cluster(DBClusterIdentifier=name, SkipFinalSnapshot=True, DeleteAutomatedBackups=True)
    for snapshot in rds.describe_db_cluster_snapshots(SnapshotType="manual")["DBClusterSnapshots"]:
        rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier=snapshot["DBClusterSnapshotIdentifier"])


def destroy_objects(world: World, bucket: str) -> tuple[int, int]:
    """Delete every version in a bucket, bypassing governance; how many went, and how many were refused."""
    s3 = world.aws.client("s3")
    done = [attempt(partial(s3.delete_object, Bucket=bucket, **version)) for version in versions(s3, bucket)]
    return done.count("deleted"), len(done) - done.count("deleted")


def versions(s3: Any, bucket: str) -> list[dict[str, Any]]:
    """What deletes each object version of a bucket."""
    pages = s3.get_paginator("list_object_versions").paginate(Bucket=bucket)
    found = [item for page in pages for item in page.get("Versions", [])]
    return [{"Key": v["Key"], "VersionId": v["VersionId"], "BypassGovernanceRetention": True} for v in found]


def restore_point(world: World, point: str) -> None:
    """A cluster from a recovery point, with an instance and a login of its own."""
    rds = world.aws.client("rds")
    rds.restore_db_cluster_from_snapshot(
        DBClusterIdentifier=SURVIVOR,
        SnapshotIdentifier=point,
        Engine="aurora-postgresql",
        ServerlessV2ScalingConfiguration={"MinCapacity": 0.5, "MaxCapacity": 2},
    )
    until(lambda: world.cluster(SURVIVOR)["Status"] == "available", f"{SURVIVOR} to be available")
    rds.create_db_instance(
        DBInstanceIdentifier=f"{SURVIVOR}-1",
        DBClusterIdentifier=SURVIVOR,
        Engine="aurora-postgresql",
        DBInstanceClass="db.serverless",
    )
    rds.get_waiter("db_instance_available").wait(
        DBInstanceIdentifier=f"{SURVIVOR}-1", WaiterConfig={"Delay": 1, "MaxAttempts": _SECONDS}
    )
    rds.modify_db_cluster(DBClusterIdentifier=SURVIVOR, ManageMasterUserPassword=True, ApplyImmediately=True)
    until(lambda: "MasterUserSecret" in world.cluster(SURVIVOR), f"{SURVIVOR} to have a secret")


def attempt(call: Callable[[], Any]) -> str:
    """`deleted`, or `refused: ` and why. Raises what is no refusal: a wrong name, or a service that is down."""
    try:
        call()
    except ClientError as error:
        if error.response["Error"]["Code"] not in _REFUSALS:
            raise
        return f"refused: {error.response['Error']['Message']}"[:200]
    return "deleted"


def until(holds: Callable[[], object], what: str) -> None:
    """Wait for it. Raises StepFailedError when it does not come."""
    deadline = time.monotonic() + _SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise StepFailedError(f"waited {_SECONDS} s for {what}")
        time.sleep(0.2)
