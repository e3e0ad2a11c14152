"""Backup vaults: lock, access policy, notifications, and when one may be deleted."""

from __future__ import annotations

import datetime as dt
from typing import Any

from ministack.services import backup

from local.backup.points import in_vault
from local.protocol import AwsError
from local.rds.state import now

_SHORTEST_CHANGEABLE = 3
_EVENTS = (
    "BACKUP_JOB_STARTED",
    "BACKUP_JOB_COMPLETED",
    "BACKUP_JOB_SUCCESSFUL",
    "BACKUP_JOB_FAILED",
    "BACKUP_JOB_EXPIRED",
    "RESTORE_JOB_STARTED",
    "RESTORE_JOB_COMPLETED",
    "RESTORE_JOB_SUCCESSFUL",
    "RESTORE_JOB_FAILED",
    "COPY_JOB_STARTED",
    "COPY_JOB_SUCCESSFUL",
    "COPY_JOB_FAILED",
    "RECOVERY_POINT_MODIFIED",
    "BACKUP_PLAN_CREATED",
    "BACKUP_PLAN_MODIFIED",
    "S3_BACKUP_OBJECT_FAILED",
    "S3_RESTORE_OBJECT_FAILED",
    "CONTINUOUS_BACKUP_INTERRUPTED",
    "RECOVERY_POINT_INDEX_COMPLETED",
    "RECOVERY_POINT_INDEX_DELETED",
    "RECOVERY_POINT_INDEXING_FAILED",
)


def vault(name: str) -> dict[str, Any]:
    """MiniStack's record of the vault; what we keep about it is in the same record."""
    record: dict[str, Any] | None = backup._vaults.get(name)
    if record is None:
        raise AwsError("ResourceNotFoundException", f"Backup vault {name} does not exist")
    return record


def describe(request: dict[str, Any]) -> dict[str, Any]:
    """DescribeBackupVault, with the lock and the true number of recovery points."""
    record = vault(request["BackupVaultName"])
    return {
        **{key: value for key, value in record.items() if value != ""},
        "CreationDate": dt.datetime.fromtimestamp(record["CreationDate"], dt.UTC),
        "NumberOfRecoveryPoints": len(in_vault(record["BackupVaultName"])),
        "VaultType": record.get("VaultType", "BACKUP_VAULT"),
        "VaultState": "AVAILABLE",
    }


def list_vaults(_request: dict[str, Any]) -> dict[str, Any]:
    """ListBackupVaults, all on one page."""
    return {"BackupVaultList": [describe({"BackupVaultName": name}) for name in sorted(backup._vaults)]}


def delete(request: dict[str, Any]) -> None:
    """DeleteBackupVault: an empty one."""
    name = vault(request["BackupVaultName"])["BackupVaultName"]
    if in_vault(name):
        raise AwsError("InvalidRequestException", f"Backup vault {name} cannot be deleted: it contains recovery points")
    del backup._vaults[name]


def put_lock(request: dict[str, Any]) -> None:
    """PutBackupVaultLockConfiguration: compliance mode with `ChangeableForDays`, else governance mode."""
    record = vault(request["BackupVaultName"])
    _check_lock_may_change(record)
    shortest, longest = request.get("MinRetentionDays"), request.get("MaxRetentionDays")
    changeable = request.get("ChangeableForDays")
    if shortest is not None and shortest < 1:
        raise AwsError("InvalidParameterValueException", f"MinRetentionDays must be at least 1, received {shortest}")
    if shortest is not None and longest is not None and longest < shortest:
        raise AwsError(
            "InvalidParameterValueException", f"MaxRetentionDays {longest} is below MinRetentionDays {shortest}"
        )
    if changeable is not None and changeable < _SHORTEST_CHANGEABLE:
        raise AwsError("InvalidParameterValueException", f"ChangeableForDays must be at least 3, received {changeable}")
    record.update(Locked=True, MinRetentionDays=shortest, MaxRetentionDays=longest)
    record["LockDate"] = now() + dt.timedelta(days=changeable) if changeable is not None else None


def delete_lock(request: dict[str, Any]) -> None:
    """DeleteBackupVaultLockConfiguration: governance mode, or compliance mode before its date."""
    record = vault(request["BackupVaultName"])
    _check_lock_may_change(record)
    record.update(Locked=False, MinRetentionDays=None, MaxRetentionDays=None, LockDate=None)


def _check_lock_may_change(record: dict[str, Any]) -> None:
    if record.get("LockDate") and record["LockDate"] <= now():
        raise AwsError("InvalidRequestException", f"Backup vault {record['BackupVaultName']} has been locked for ever")


def check_retention(record: dict[str, Any], days: int | None) -> str | None:
    """Why a locked vault does not take a recovery point that is kept for `days` (None: for ever), or None."""
    if not record.get("Locked"):
        return None
    shortest, longest = record.get("MinRetentionDays"), record.get("MaxRetentionDays")
    if longest is not None and (days is None or days > longest):
        return f"Retention period exceeds the vault lock's maximum of {longest} days"
    if shortest is not None and days is not None and days < shortest:
        return f"Retention period is below the vault lock's minimum of {shortest} days"
    return None


def put_policy(request: dict[str, Any]) -> None:
    """PutBackupVaultAccessPolicy. Kept and told; not enforced."""
    vault(request["BackupVaultName"])["_policy"] = request.get("Policy", "")


def get_policy(request: dict[str, Any]) -> dict[str, Any]:
    """GetBackupVaultAccessPolicy."""
    record = vault(request["BackupVaultName"])
    if "_policy" not in record:
        raise AwsError("ResourceNotFoundException", f"Backup vault {record['BackupVaultName']} has no access policy")
    return {
        "BackupVaultName": record["BackupVaultName"],
        "BackupVaultArn": record["BackupVaultArn"],
        "Policy": record["_policy"],
    }


def delete_policy(request: dict[str, Any]) -> None:
    """DeleteBackupVaultAccessPolicy."""
    vault(request["BackupVaultName"]).pop("_policy", None)


def put_notifications(request: dict[str, Any]) -> None:
    """PutBackupVaultNotifications. Kept and told; nothing is published, EventBridge has the same events."""
    unknown = sorted(set(request["BackupVaultEvents"]) - set(_EVENTS))
    if unknown:
        raise AwsError("InvalidParameterValueException", f"Unknown vault event {unknown[0]}")
    vault(request["BackupVaultName"])["_notifications"] = {
        "SNSTopicArn": request["SNSTopicArn"],
        "BackupVaultEvents": request["BackupVaultEvents"],
    }


def get_notifications(request: dict[str, Any]) -> dict[str, Any]:
    """GetBackupVaultNotifications."""
    record = vault(request["BackupVaultName"])
    if "_notifications" not in record:
        raise AwsError("ResourceNotFoundException", f"Backup vault {record['BackupVaultName']} has no notifications")
    same = {key: record[key] for key in ("BackupVaultName", "BackupVaultArn")}
    return {**same, **record["_notifications"]}


def delete_notifications(request: dict[str, Any]) -> None:
    """DeleteBackupVaultNotifications."""
    vault(request["BackupVaultName"]).pop("_notifications", None)
