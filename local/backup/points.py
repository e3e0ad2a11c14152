"""Recovery points: found by vault and by resource, described, kept, deleted."""

from __future__ import annotations

import datetime as dt
from typing import Any

from ministack.core.responses import get_account_id, get_region
from ministack.services import backup

from local.protocol import AwsError
from local.rds.snapshots import remove_snapshot
from local.rds.state import here, now

_points: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}


def points() -> dict[str, dict[str, Any]]:
    """The recovery points of the current account and Region, by ARN."""
    return _points.setdefault((get_account_id(), get_region()), {})


def in_vault(name: str) -> list[dict[str, Any]]:
    """The recovery points in one vault."""
    return [point for point in points().values() if point["BackupVaultName"] == name]


def lifecycle(given: dict[str, Any] | None, created: dt.datetime) -> dict[str, Any]:
    """`Lifecycle` and `CalculatedLifecycle` for what a job or rule asked for. Aurora has no cold storage."""
    given = {key: value for key, value in (given or {}).items() if value not in (None, -1)}
    days = given.get("DeleteAfterDays")
    if given.get("MoveToColdStorageAfterDays") is not None:
        if days is not None and days < given["MoveToColdStorageAfterDays"] + 90:
            raise AwsError(
                "InvalidParameterValueException",
                f"DeleteAfterDays {days} must be at least 90 days after "
                f"MoveToColdStorageAfterDays {given['MoveToColdStorageAfterDays']}",
            )
        given.pop("MoveToColdStorageAfterDays")
    calculated = {"DeleteAt": created + dt.timedelta(days=days)} if days else {}
    return {"Lifecycle": given, "CalculatedLifecycle": calculated}


def describe(request: dict[str, Any]) -> dict[str, Any]:
    """DescribeRecoveryPoint."""
    return _find(request)


def _find(request: dict[str, Any]) -> dict[str, Any]:
    point = points().get(request["RecoveryPointArn"])
    if point is None or point["BackupVaultName"] != request["BackupVaultName"]:
        raise AwsError(
            "ResourceNotFoundException",
            f"Recovery point {request['RecoveryPointArn']} is not in vault {request['BackupVaultName']}",
        )
    return point


def list_by_vault(request: dict[str, Any]) -> dict[str, Any]:
    """ListRecoveryPointsByBackupVault, newest first, with its filters, paged by position."""
    name = request["BackupVaultName"]
    if name not in backup._vaults:
        raise AwsError("ResourceNotFoundException", f"Backup vault {name} does not exist")
    found = [
        point
        for point in in_vault(name)
        if request.get("ByResourceArn") in (None, point["ResourceArn"])
        and request.get("ByResourceType") in (None, point["ResourceType"])
        and request.get("ByBackupPlanId") in (None, point.get("CreatedBy", {}).get("BackupPlanId"))
        and (request.get("ByCreatedAfter") is None or point["CreationDate"] > request["ByCreatedAfter"])
        and (request.get("ByCreatedBefore") is None or point["CreationDate"] < request["ByCreatedBefore"])
    ]
    return paged(request, sorted(found, key=lambda point: point["CreationDate"], reverse=True), "RecoveryPoints")


def list_by_resource(request: dict[str, Any]) -> dict[str, Any]:
    """ListRecoveryPointsByResource, newest first."""
    found = [point for point in points().values() if point["ResourceArn"] == request["ResourceArn"]]
    return paged(request, sorted(found, key=lambda point: point["CreationDate"], reverse=True), "RecoveryPoints")


def list_protected(request: dict[str, Any]) -> dict[str, Any]:
    """ListProtectedResources: whatever has a recovery point, with the time of its last."""
    last: dict[str, dict[str, Any]] = {}
    for point in sorted(points().values(), key=lambda point: point["CreationDate"]):
        if point["Status"] == "COMPLETED":
            last[point["ResourceArn"]] = {
                "ResourceArn": point["ResourceArn"],
                "ResourceType": point["ResourceType"],
                "LastBackupTime": point["CreationDate"],
                "LastBackupVaultArn": point["BackupVaultArn"],
                "LastRecoveryPointArn": point["RecoveryPointArn"],
            }
    return paged(request, [last[arn] for arn in sorted(last)], "Results")


def paged(request: dict[str, Any], items: list[dict[str, Any]], key: str) -> dict[str, Any]:
    """One page of `items`; the token is the position of the next."""
    start, size = int(request.get("NextToken") or 0), int(request.get("MaxResults") or 1000)
    end = start + size
    return {key: items[start:end], "NextToken": str(end) if end < len(items) else None}


def delete(request: dict[str, Any]) -> None:
    """DeleteRecoveryPoint: not from a locked vault before the lifecycle says so."""
    point = _find(request)
    if point["Status"] not in ("COMPLETED", "PARTIAL", "EXPIRED", "AVAILABLE"):
        raise AwsError("InvalidResourceStateException", f"Recovery point is {point['Status']}")
    record = backup._vaults[point["BackupVaultName"]]
    until = point["CalculatedLifecycle"].get("DeleteAt")
    if record.get("Locked") and (until is None or until > now()):
        raise AwsError(
            "InvalidRequestException",
            f"Recovery point cannot be deleted: backup vault {point['BackupVaultName']} is locked",
        )
    del points()[point["RecoveryPointArn"]]
    snapshot = here().snapshots.get(point["RecoveryPointArn"].split(":cluster-snapshot:", 1)[-1])
    if snapshot:
        remove_snapshot(snapshot)


def update_lifecycle(request: dict[str, Any]) -> dict[str, Any]:
    """UpdateRecoveryPointLifecycle: a locked vault only lets it grow."""
    point = _find(request)
    changed = lifecycle(request.get("Lifecycle"), point["CreationDate"])
    before, after = point["CalculatedLifecycle"].get("DeleteAt"), changed["CalculatedLifecycle"].get("DeleteAt")
    shorter = after is not None and (before is None or after < before)
    if backup._vaults[point["BackupVaultName"]].get("Locked") and shorter:
        raise AwsError(
            "InvalidRequestException", "The vault is locked: a recovery point's retention cannot be shortened"
        )
    point.update(changed)
    same = {key: point[key] for key in ("BackupVaultArn", "RecoveryPointArn")}
    return {**same, **changed}


def restore_metadata(request: dict[str, Any]) -> dict[str, Any]:
    """GetRecoveryPointRestoreMetadata: what the cluster looked like, for a restore."""
    point = _find(request)
    snapshot = here().snapshot(point["RecoveryPointArn"]).record
    return {
        "BackupVaultArn": point["BackupVaultArn"],
        "RecoveryPointArn": point["RecoveryPointArn"],
        "ResourceType": point["ResourceType"],
        "RestoreMetadata": {
            "Engine": snapshot["Engine"],
            "EngineVersion": snapshot["EngineVersion"],
            "DBClusterIdentifier": snapshot["DBClusterIdentifier"],
            "Port": str(snapshot["Port"]),
        },
    }
