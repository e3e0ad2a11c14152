"""Backup jobs and restore jobs, their states and their events.

A backup job of a cluster takes a real cluster snapshot of type `awsbackup`; the snapshot's ARN is the recovery point's.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

from ministack.core.responses import get_account_id, get_region

from local import events
from local.backup import points, vaults
from local.protocol import AwsError
from local.rds import restores
from local.rds.snapshots import take_snapshot
from local.rds.state import here, now
from local.runtime import in_background

_jobs: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
_restores: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
opted_in: dict[tuple[str, str], dict[str, bool]] = {}
"""Which resource types AWS Backup protects, by account and Region."""

_TYPES = ("Aurora", "RDS", "S3", "DynamoDB", "EBS", "EC2", "EFS")
_ENDED = ("COMPLETED", "FAILED", "ABORTED", "EXPIRED")


def _scope() -> tuple[str, str]:
    return get_account_id(), get_region()


def jobs() -> dict[str, dict[str, Any]]:
    """The backup jobs of the current account and Region."""
    return _jobs.setdefault(_scope(), {})


def settings() -> dict[str, bool]:
    """The opt-in of each resource type, all on at first."""
    return opted_in.setdefault(_scope(), dict.fromkeys(_TYPES, True))


def describe_region_settings(_request: dict[str, Any]) -> dict[str, Any]:
    """DescribeRegionSettings."""
    return {"ResourceTypeOptInPreference": dict(settings()), "ResourceTypeManagementPreference": {"DynamoDB": True}}


def update_region_settings(request: dict[str, Any]) -> None:
    """UpdateRegionSettings."""
    for name, value in (request.get("ResourceTypeOptInPreference") or {}).items():
        settings()[name] = value


def start_backup(request: dict[str, Any]) -> dict[str, Any]:
    """StartBackupJob on a cluster's ARN."""
    vault, resource = vaults.vault(request["BackupVaultName"]), request["ResourceArn"]
    token = request.get("IdempotencyToken")
    for job in jobs().values():
        if token and job["_token"] == token:
            return _started(job)
    if ":cluster:" not in resource:
        raise AwsError("InvalidParameterValueException", f"Only Aurora clusters can be backed up here, not {resource}")
    try:
        cluster = here().cluster(resource)
    except AwsError as error:
        raise AwsError("ResourceNotFoundException", error.message) from None
    if not settings()["Aurora"]:
        raise AwsError("InvalidRequestException", "Aurora is not opted in for AWS Backup in this Region")
    created = now()
    job_id = str(uuid.uuid4()).upper()
    name = f"awsbackup:job-{job_id.lower()}"
    kept = points.lifecycle(request.get("Lifecycle"), created)
    job = {
        "BackupJobId": job_id,
        "AccountId": get_account_id(),
        "BackupVaultName": vault["BackupVaultName"],
        "BackupVaultArn": vault["BackupVaultArn"],
        "RecoveryPointArn": cluster.record["DBClusterArn"].split(":cluster:")[0] + f":cluster-snapshot:{name}",
        "ResourceArn": cluster.record["DBClusterArn"],
        "ResourceType": "Aurora",
        "ResourceName": cluster.record["DBClusterIdentifier"],
        "IamRoleArn": request["IamRoleArn"],
        "CreationDate": created,
        "State": "CREATED",
        "PercentDone": "0.0",
        "BackupSizeInBytes": 0,
        "StartBy": created,
        "IsParent": False,
        "CreatedBy": request.get("_created_by", {}),
        "_token": token,
    }
    jobs()[job_id] = job
    _announce(job)
    in_background(
        lambda: _back_up(job, cluster, name, kept, request.get("RecoveryPointTags") or {}, vault),
        lambda problem: _finish(job, problem),
    )
    return _started(job)


def _started(job: dict[str, Any]) -> dict[str, Any]:
    return {key: job[key] for key in ("BackupJobId", "RecoveryPointArn", "CreationDate", "IsParent")}


def _back_up(
    job: dict[str, Any],
    cluster: Any,
    name: str,
    kept: dict[str, Any],
    tags: dict[str, str],
    vault: dict[str, Any],
) -> None:
    job.update(State="RUNNING", PercentDone="10.0")
    _announce(job)
    reason = vaults.check_retention(vault, kept["Lifecycle"].get("DeleteAfterDays"))
    if reason:
        raise AwsError("InvalidParameterValueException", reason)
    snapshot = take_snapshot(
        cluster,
        name,
        [{"Key": key, "Value": value} for key, value in tags.items()],
        kind="awsbackup",
        wait=True,
    )
    size = sum(path.stat().st_size for path in snapshot.data.rglob("*") if path.is_file())
    job.update(BackupSizeInBytes=size, BytesTransferred=size)
    same = (
        "BackupVaultName",
        "BackupVaultArn",
        "RecoveryPointArn",
        "ResourceArn",
        "ResourceType",
        "ResourceName",
        "IamRoleArn",
    )
    points.points()[job["RecoveryPointArn"]] = {
        **{key: job[key] for key in same},
        **kept,
        "CreatedBy": job["CreatedBy"],
        "Status": "COMPLETED",
        "CreationDate": job["CreationDate"],
        "CompletionDate": now(),
        "BackupSizeInBytes": size,
        "IsEncrypted": bool(cluster.record.get("StorageEncrypted")),
        "EncryptionKeyArn": cluster.record.get("KmsKeyId"),
        "StorageClass": "WARM",
        "VaultType": "BACKUP_VAULT",
        "IsParent": False,
        "_tags": tags,
    }


def _finish(job: dict[str, Any], problem: Exception | None) -> None:
    if problem:
        job.update(State="FAILED", StatusMessage=str(problem), CompletionDate=now())
        job.pop("RecoveryPointArn", None)
    else:
        job.update(State="COMPLETED", PercentDone="100.0", CompletionDate=now())
    _announce(job)


def _announce(job: dict[str, Any]) -> None:
    detail = {
        "backupJobId": job["BackupJobId"],
        "backupVaultArn": job["BackupVaultArn"],
        "backupVaultName": job["BackupVaultName"],
        "creationDate": events.timestamp(job["CreationDate"]),
        "iamRoleArn": job["IamRoleArn"],
        "resourceArn": job["ResourceArn"],
        "resourceType": job["ResourceType"],
        "state": job["State"],
        "percentDone": float(job["PercentDone"]),
        "bytesTransferred": str(job.get("BytesTransferred", 0)),
    }
    if job.get("StatusMessage"):
        detail["statusMessage"] = job["StatusMessage"]
    if job.get("CompletionDate"):
        detail["completionDate"] = events.timestamp(job["CompletionDate"])
    events.emit("aws.backup", "Backup Job State Change", detail, [job.get("RecoveryPointArn") or job["ResourceArn"]])


def describe_backup(request: dict[str, Any]) -> dict[str, Any]:
    """DescribeBackupJob."""
    job = jobs().get(request["BackupJobId"])
    if job is None:
        raise AwsError("ResourceNotFoundException", f"Backup job {request['BackupJobId']} does not exist")
    return job


def list_backups(request: dict[str, Any]) -> dict[str, Any]:
    """ListBackupJobs, newest first, with its filters."""
    found = [
        job
        for job in jobs().values()
        if request.get("ByState") in (None, job["State"])
        and request.get("ByResourceArn") in (None, job["ResourceArn"])
        and request.get("ByResourceType") in (None, job["ResourceType"])
        and request.get("ByBackupVaultName") in (None, job["BackupVaultName"])
        and (request.get("ByCreatedAfter") is None or job["CreationDate"] > request["ByCreatedAfter"])
        and (request.get("ByCreatedBefore") is None or job["CreationDate"] < request["ByCreatedBefore"])
    ]
    return points.paged(request, sorted(found, key=lambda job: job["CreationDate"], reverse=True), "BackupJobs")


def stop_backup(request: dict[str, Any]) -> None:
    """StopBackupJob: a job that has not ended; an Aurora snapshot that runs cannot be stopped."""
    job = describe_backup(request)
    reason = "has ended" if job["State"] in _ENDED else "backs up Aurora, which cannot be stopped"
    raise AwsError("InvalidRequestException", f"Backup job {job['BackupJobId']} {reason}")


def start_restore(request: dict[str, Any]) -> dict[str, Any]:
    """StartRestoreJob of an Aurora recovery point: the cluster that `Metadata` describes, without an instance."""
    point = points.points().get(request["RecoveryPointArn"])
    if point is None:
        raise AwsError("ResourceNotFoundException", f"Recovery point {request['RecoveryPointArn']} does not exist")
    metadata = {key.lower(): value for key, value in request["Metadata"].items()}
    wanted = {
        "DBClusterIdentifier": metadata.get("dbclusteridentifier"),
        "SnapshotIdentifier": point["RecoveryPointArn"],
        "Engine": metadata.get("engine", "aurora-postgresql"),
    }
    if not wanted["DBClusterIdentifier"]:
        raise AwsError("InvalidParameterValueException", "Metadata lacks DBClusterIdentifier")
    if metadata.get("dbsubnetgroupname"):
        wanted["DBSubnetGroupName"] = metadata["dbsubnetgroupname"]
    created = restores.restore_snapshot(wanted)["DBCluster"]
    job = {
        "RestoreJobId": str(uuid.uuid4()).upper(),
        "AccountId": get_account_id(),
        "RecoveryPointArn": point["RecoveryPointArn"],
        "ResourceType": "Aurora",
        "SourceResourceArn": point["ResourceArn"],
        "BackupVaultArn": point["BackupVaultArn"],
        "CreationDate": now(),
        "Status": "RUNNING",
        "PercentDone": "0.0",
        "BackupSizeInBytes": point["BackupSizeInBytes"],
        "IamRoleArn": request.get("IamRoleArn", ""),
        "CreatedResourceArn": created["DBClusterArn"],
        "_metadata": request["Metadata"],
    }
    _restores.setdefault(_scope(), {})[job["RestoreJobId"]] = job
    _announce_restore(job)
    cluster = here().cluster(created["DBClusterArn"])

    def wait() -> None:
        while cluster.record["Status"] == "creating":
            time.sleep(0.05)
        if cluster.record["Status"] != "available":
            raise AwsError("InvalidRequestException", f"The restored cluster is {cluster.record['Status']}")

    def done(problem: Exception | None) -> None:
        job.update(Status="FAILED" if problem else "COMPLETED", PercentDone="100.0", CompletionDate=now())
        if problem:
            job["StatusMessage"] = str(problem)
        _announce_restore(job)

    in_background(wait, done)
    return {"RestoreJobId": job["RestoreJobId"]}


def _announce_restore(job: dict[str, Any]) -> None:
    detail = {
        "restoreJobId": job["RestoreJobId"],
        "status": job["Status"],
        "resourceType": job["ResourceType"],
        "recoveryPointArn": job["RecoveryPointArn"],
        "createdResourceArn": job["CreatedResourceArn"],
        "backupSizeInBytes": str(job["BackupSizeInBytes"]),
        "creationDate": events.timestamp(job["CreationDate"]),
        "percentDone": float(job["PercentDone"]),
        "iamRoleArn": job["IamRoleArn"],
    }
    events.emit("aws.backup", "Restore Job State Change", detail, [job["RecoveryPointArn"]])


def describe_restore(request: dict[str, Any]) -> dict[str, Any]:
    """DescribeRestoreJob."""
    job = _restores.get(_scope(), {}).get(request["RestoreJobId"])
    if job is None:
        raise AwsError("ResourceNotFoundException", f"Restore job {request['RestoreJobId']} does not exist")
    return job


def list_restores(request: dict[str, Any]) -> dict[str, Any]:
    """ListRestoreJobs, newest first."""
    found = [
        job
        for job in _restores.get(_scope(), {}).values()
        if request.get("ByStatus") in (None, job["Status"])
        and (request.get("ByCreatedAfter") is None or job["CreationDate"] > request["ByCreatedAfter"])
        and (request.get("ByCreatedBefore") is None or job["CreationDate"] < request["ByCreatedBefore"])
    ]
    return points.paged(request, sorted(found, key=lambda job: job["CreationDate"], reverse=True), "RestoreJobs")


def restore_metadata(request: dict[str, Any]) -> dict[str, Any]:
    """GetRestoreJobMetadata."""
    job = describe_restore(request)
    return {"RestoreJobId": job["RestoreJobId"], "Metadata": job["_metadata"]}


def put_validation(request: dict[str, Any]) -> None:
    """PutRestoreValidationResult: once the restore is complete."""
    job = describe_restore(request)
    if job["Status"] != "COMPLETED":
        raise AwsError("InvalidRequestException", f"Restore job is {job['Status']}, not COMPLETED")
    if request["ValidationStatus"] not in ("SUCCESSFUL", "FAILED", "TIMED_OUT", "VALIDATING"):
        raise AwsError("InvalidParameterValueException", f"Unknown ValidationStatus {request['ValidationStatus']}")
    job["ValidationStatus"] = request["ValidationStatus"]
    if "ValidationStatusMessage" in request:
        job["ValidationStatusMessage"] = request["ValidationStatusMessage"]
