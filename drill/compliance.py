"""The compliance steps: a report that passes on the healthy system, and one drift after another that it must find.

Nothing here makes facts: each drift is done to the local AWS by the call that somebody would make, and the deployed
workflow then gathers, judges and stores as it does every day.
"""

from __future__ import annotations

import json
import re
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from drill.foundation import newest_set, read_json, schedule_named
from drill.journal import StepFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from drill.journal import Step
    from drill.world import World

_CHAIN = "compliance-backups/evidence/chain/"
_TESTS = "compliance-backups/evidence/recovery-tests/"
_PLANS = "compliance-backups/evidence/retention/"
_STRAY = "compliance-backups/stray.txt"
_JOB_SECONDS = 120
_STRANGER = "999999999999"


def compliance(world: World, step: Step) -> None:
    """The report of the healthy system: PASS, each check with what it rests on, chained and verified as evidence."""
    _take_snapshots(world)
    report = run_report(world, by_schedule=True)
    open_checks = {c["id"]: f"{c['verdict']}: {c['reason']}" for c in report["checks"] if c["verdict"] != "PASS"}
    step.require(report["compliance_status"] == "PASS", f"every check must pass, got {open_checks}")
    step.require(not report["remediation_needed"], "nothing must be left to do")
    levels: dict[str, int] = {}
    for check in report["checks"]:
        levels[check["level"]] = levels.get(check["level"], 0) + 1
        step.require(check["evidence"], f"{check['id']} must say by which calls it knows")
    step.require("restored" in levels, f"some check must rest on a restore, got {levels}")
    answer = world.command_line(
        "evidence", "verify", "--bucket", world.outputs["BackupBucket"], "--endpoint-url", world.aws.endpoint_url
    )
    step.require(answer["ok"], f"the evidence must be whole, got {answer['owners']}")
    step.detail["verifications"] = {v["name"]: v["verdict"] for v in report["verifications"]}
    step.detail["levels"] = {check["id"]: check["level"] for check in report["checks"]}
    step.detail["controls"] = {f"{c['framework']} {c['id']}": c["verdict"] for c in report["controls"]}
    step.detail["recovery_points_seconds"] = {o["stream"]: o["rpo_seconds"] for o in report["objectives"]}
    told = ", ".join(f"{count} {level}" for level, count in sorted(levels.items()))
    step.detail["headline"] = f"{len(report['checks'])} checks pass ({told}); the evidence chain is whole"


def compliance_detects_drift(world: World, step: Step) -> None:
    """One drift after another, each turning exactly its own check to FAIL, with its remedy; and PASS again after.

    What becomes UNKNOWN beside it is exactly what the drift says.
    """
    for drift in DRIFTS:
        undo = ExitStack()
        note = undo.enter_context(drift.happens(world))
        try:
            report = run_report(world)
        finally:
            undo.close()  # without the run's own error, which would skip what follows a drift's yield
        failed = {c["id"]: c for c in report["checks"] if c["verdict"] == "FAIL"}
        unknown = {c["id"] for c in report["checks"] if c["verdict"] == "UNKNOWN"}
        right = list(failed) == [drift.check] and report["compliance_status"] == "FAIL"
        right = right and unknown == drift.unknown
        found = failed.get(drift.check, {"reason": f"status {report['compliance_status']}", "remedy": ""})
        told, remedied = found["reason"], drift.remedy in found["remedy"]
        step.case(
            drift.name,
            f"{drift.check}: {drift.says}{_beside(drift.unknown)}",
            f"{', '.join(failed)}: {told}{_beside(unknown)}" + (f" ({note})" if note else ""),
            ok=right and remedied and drift.says in told,
        )
    report = run_report(world)
    step.case("undamaged", "PASS", report["compliance_status"], ok=report["compliance_status"] == "PASS")
    step.detail["headline"] = f"{len(DRIFTS)} drifts, each found by its own check; PASS again when undone"


def _beside(unknown: Collection[str]) -> str:
    return f"; UNKNOWN: {', '.join(sorted(unknown))}" if unknown else ""


# --- The report ------------------------------------------------------------------------------------------------------


def run_report(world: World, *, by_schedule: bool = False) -> dict[str, Any]:
    """Run the deployed workflow; the report that it stored, copied beside drill.json with its page."""
    if by_schedule:
        arn = world.aws.run_schedule(schedule_named(world, "ComplianceWorkflowDaily"))["executionArn"]
    else:
        states = world.aws.client("stepfunctions")
        machines = states.list_state_machines()["stateMachines"]
        machine = next(m["stateMachineArn"] for m in machines if "ComplianceWorkflow" in m["name"])
        arn = states.start_execution(stateMachineArn=machine, input="{}")["executionArn"]
    world.finish(arn)
    s3, bucket = world.aws.client("s3"), world.outputs["BackupBucket"]
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=_CHAIN)
    records = [read_json(world, i["Key"]) for page in pages for i in page.get("Contents", [])]
    reports = [r for r in records if r["kind"] == "compliance-report"]
    if not reports or reports[-1]["execution"] != arn.rsplit(":", maxsplit=1)[-1]:
        raise StepFailedError(f"the newest record must be of {arn}, got {reports[-1:]}")
    for attachment in reports[-1]["attachments"]:
        body = s3.get_object(Bucket=bucket, Key=attachment["key"])["Body"].read()
        name = {"report.json": "compliance-report.json", "report.html": "compliance-report.html"}.get(
            attachment["name"]
        )
        if name:
            (world.root / name).write_bytes(body)
    return dict(json.loads((world.root / "compliance-report.json").read_text()))


def _take_snapshots(world: World) -> None:
    """What the plan's rules do at their hour: a job of each, into its vault, with its lifecycle and tags."""
    backup, template = world.aws.client("backup"), world.template["Resources"]
    plan_id = next(p["BackupPlanId"] for p in backup.list_backup_plans()["BackupPlansList"])
    selection = backup.list_backup_selections(BackupPlanId=plan_id)["BackupSelectionsList"][0]
    declared = next(r for r in template.values() if r["Type"] == "AWS::Backup::BackupPlan")
    tags = {
        rule["RuleName"]: rule.get("RecoveryPointTags", {})
        for rule in declared["Properties"]["BackupPlan"]["BackupPlanRule"]
    }
    jobs = [
        backup.start_backup_job(
            BackupVaultName=rule["TargetBackupVaultName"],
            ResourceArn=world.cluster()["DBClusterArn"],
            IamRoleArn=selection["IamRoleArn"],
            Lifecycle={"DeleteAfterDays": rule["Lifecycle"]["DeleteAfterDays"]},
            RecoveryPointTags=tags[rule["RuleName"]],
        )["BackupJobId"]
        for rule in backup.get_backup_plan(BackupPlanId=plan_id)["BackupPlan"]["Rules"]
    ]
    deadline = time.monotonic() + _JOB_SECONDS
    for job in jobs:
        while (state := backup.describe_backup_job(BackupJobId=job)["State"]) != "COMPLETED":
            if state in {"FAILED", "ABORTED", "EXPIRED"} or time.monotonic() > deadline:
                raise StepFailedError(f"backup job {job} ended {state}")
            time.sleep(0.2)


# --- The drifts ------------------------------------------------------------------------------------------------------


@contextmanager
def _bucket_encryption(world: World) -> Iterator[str]:
    s3, bucket = world.aws.client("s3"), world.outputs["BackupBucket"]
    before = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]
    weak = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=weak)
    yield ""
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=before)


@contextmanager
def _stray_object(world: World) -> Iterator[str]:
    """Something that is no set and no evidence is put beside them, under S3's own key.

    In AWS the bucket's policy refuses it until somebody takes that away; no policy is enforced here.
    """
    s3, bucket = world.aws.client("s3"), world.outputs["BackupBucket"]
    put = s3.put_object(Bucket=bucket, Key=_STRAY, Body=b"x", ServerSideEncryption="AES256")
    yield ""
    s3.delete_object(Bucket=bucket, Key=_STRAY, VersionId=put["VersionId"])


@contextmanager
def _lifecycle(world: World) -> Iterator[str]:
    s3, bucket = world.aws.client("s3"), world.outputs["BackupBucket"]
    before = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    shorter = json.loads(json.dumps(before))
    for rule in shorter:
        if rule["ID"] == "logical-backups":
            rule["Expiration"]["Days"] = 30
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": shorter})
    yield ""
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": before})


@contextmanager
def _snapshot(world: World) -> Iterator[str]:
    """RDS refuses to make an encrypted snapshot public, which is said; it is given to a stranger's account instead."""
    rds = world.aws.client("rds")
    snapshots = rds.describe_db_cluster_snapshots(SnapshotType="manual")["DBClusterSnapshots"]
    owner = world.cluster()["DbClusterResourceId"]
    name = next(s["DBClusterSnapshotIdentifier"] for s in snapshots if s["DbClusterResourceId"] == owner)

    def share(verb: str, value: str) -> None:
        rds.modify_db_cluster_snapshot_attribute(
            DBClusterSnapshotIdentifier=name, AttributeName="restore", **{verb: [value]}
        )

    try:
        share("ValuesToAdd", "all")
        value, note = "all", ""
    except rds.exceptions.InvalidDBClusterSnapshotStateFault:
        value, note = _STRANGER, "RDS refused 'all', because it is encrypted: shared with a stranger's account"
        share("ValuesToAdd", value)
    yield note
    share("ValuesToRemove", value)


@contextmanager
def _key(world: World) -> Iterator[str]:
    kms = world.aws.client("kms")
    key = world.aws.client("s3").get_bucket_encryption(Bucket=world.outputs["BackupBucket"])
    rule = key["ServerSideEncryptionConfiguration"]["Rules"][0]["ApplyServerSideEncryptionByDefault"]
    arn = rule["KMSMasterKeyID"]
    kms.schedule_key_deletion(KeyId=arn, PendingWindowInDays=7)
    yield ""
    kms.cancel_key_deletion(KeyId=arn)
    kms.enable_key(KeyId=arn)


@contextmanager
def _newest_backup(world: World) -> Iterator[str]:
    s3, bucket, key = world.aws.client("s3"), world.outputs["BackupBucket"], newest_set(world, "logical-backups")
    markers = []
    for item in s3.list_objects_v2(Bucket=bucket, Prefix=key)["Contents"]:
        marker = s3.delete_object(Bucket=bucket, Key=item["Key"])
        markers.append((item["Key"], marker["VersionId"]))
    yield ""
    for name, version in markers:
        s3.delete_object(Bucket=bucket, Key=name, VersionId=version)


def _overwritten(name: str, change: Callable[[bytes], bytes]) -> Callable[[World], Any]:
    @contextmanager
    def happens(world: World) -> Iterator[str]:
        s3, bucket = world.aws.client("s3"), world.outputs["BackupBucket"]
        key = newest_set(world, "logical-backups") + name
        data = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        version = s3.put_object(Bucket=bucket, Key=key, Body=change(data), ChecksumAlgorithm="CRC32")["VersionId"]
        yield ""
        s3.delete_object(Bucket=bucket, Key=key, VersionId=version)

    return happens


@contextmanager
def _old_recovery_tests(world: World) -> Iterator[str]:
    """Every report of a recovery test is replaced by one of the same test, two months ago."""
    s3, bucket = world.aws.client("s3"), world.outputs["BackupBucket"]
    old = (datetime.now(UTC) - timedelta(days=61)).isoformat()
    versions = []
    for item in s3.list_objects_v2(Bucket=bucket, Prefix=_TESTS).get("Contents", []):
        report = read_json(world, item["Key"]) | {"finished": old}
        answer = s3.put_object(Bucket=bucket, Key=item["Key"], Body=json.dumps(report).encode())
        versions.append((item["Key"], answer["VersionId"]))
    yield ""
    for key, version in versions:
        s3.delete_object(Bucket=bucket, Key=key, VersionId=version)


@contextmanager
def _rewritten_plan(world: World) -> Iterator[str]:
    """The newest retention plan is written again, with one decision less."""
    s3, bucket = world.aws.client("s3"), world.outputs["BackupBucket"]
    listed = s3.list_objects_v2(Bucket=bucket, Prefix=_PLANS)["Contents"]
    key = max(item["Key"] for item in listed if item["Key"].endswith("/plan.json"))
    plan = read_json(world, key)
    body = json.dumps(plan | {"decisions": plan["decisions"][1:]}).encode()
    version = s3.put_object(Bucket=bucket, Key=key, Body=body)["VersionId"]
    yield ""
    s3.delete_object(Bucket=bucket, Key=key, VersionId=version)


@contextmanager
def _spared_stranger(world: World) -> Iterator[str]:
    """Somebody lets his own role past the key's denial of deletion, which is still there for everybody else."""
    kms, s3 = world.aws.client("kms"), world.aws.client("s3")
    found = s3.get_bucket_encryption(Bucket=world.outputs["BackupBucket"])["ServerSideEncryptionConfiguration"]
    arn = found["Rules"][0]["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"]
    before = kms.get_key_policy(KeyId=arn, PolicyName="default")["Policy"]
    policy = json.loads(before)
    denial = next(s for s in policy["Statement"] if s.get("Sid") == "DenyDeletionOutsideBreakGlass")
    spared = denial["Condition"]["ArnNotEquals"]["aws:PrincipalArn"]
    names = spared if isinstance(spared, list) else [spared]
    stranger = f"arn:aws:iam::{world.aws.account}:role/stranger"
    denial["Condition"]["ArnNotEquals"]["aws:PrincipalArn"] = [*names, stranger]
    kms.put_key_policy(KeyId=arn, PolicyName="default", Policy=json.dumps(policy))
    yield ""
    kms.put_key_policy(KeyId=arn, PolicyName="default", Policy=before)


@contextmanager
def _deletion_protection(world: World) -> Iterator[str]:
    rds, name = world.aws.client("rds"), world.outputs["ClusterIdentifier"]
    rds.modify_db_cluster(DBClusterIdentifier=name, DeletionProtection=False, ApplyImmediately=True)
    yield ""
    rds.modify_db_cluster(DBClusterIdentifier=name, DeletionProtection=True, ApplyImmediately=True)


@dataclass(frozen=True)
class Drift:
    """Something that somebody does to the system. says: part of the check's reason; remedy: part of its remedy.

    unknown: the checks that nothing can be said of meanwhile.
    """

    name: str
    check: str
    says: str
    remedy: str
    happens: Callable[[World], Any]
    unknown: frozenset[str] = frozenset()


DRIFTS = (
    Drift(
        "bucket-encryption-weakened", "encryption.bucket", "AES256", "aws:kms with the backup key", _bucket_encryption
    ),
    Drift("object-under-another-key", "encryption.objects", _STRAY, "with the backup key", _stray_object),
    Drift(
        "lifecycle-shortened",
        "retention.lifecycle",
        "logical-backups/ expires after 30 days, the policy says 90",
        "Deploy the stack again, today",
        _lifecycle,
    ),
    Drift("snapshot-made-public", "accessibility.sharing", "can be restored by", "values-to-remove", _snapshot),
    Drift("key-scheduled-for-deletion", "encryption.key", "will be deleted on", "cancel-key-deletion", _key),
    Drift(
        "newest-backup-missing",
        "completion.logical",
        "was there at the report before and is gone",
        "Start the LogicalBackup workflow now",
        _newest_backup,
    ),
    Drift(
        "archive-overwritten",
        "integrity.archives",
        "was overwritten",
        "start a new logical backup",
        _overwritten("0000.dump", lambda data: data[:-1] + bytes([data[-1] ^ 1])),
    ),
    Drift(
        "manifest-altered",
        "integrity.manifests",
        "was altered after it was written",
        "first version is in the bucket's old versions",
        _overwritten("manifest.json", lambda data: re.sub(rb'"rows": (\d)', rb'"rows": 9\1', data, count=1)),
        unknown=frozenset({"integrity.archives"}),  # what they should be is not known
    ),
    Drift(
        "recovery-test-too-old",
        "integrity.recovery-test",
        "allowed are 40",
        "Start the RecoveryTest",
        _old_recovery_tests,
    ),
    Drift(
        "evidence-rewritten",
        "integrity.documents",
        "was written again after it was recorded",
        "first version of each named document",
        _rewritten_plan,
    ),
    Drift(
        "denial-spares-a-stranger",
        "accessibility.deletion",
        "role/stranger, which is no break-glass role",
        "deploy the stack again",
        _spared_stranger,
    ),
    Drift(
        "deletion-protection-off",
        "retention.deletion-protection",
        "DeletionProtection is off",
        "--deletion-protection",
        _deletion_protection,
    ),
)
