"""Cluster snapshots: manual ones, automated ones, and those that AWS Backup takes."""

from __future__ import annotations

import logging
import secrets
import time
from typing import Any

from local import faults
from local.protocol import AwsError
from local.rds import rules
from local.rds.engine import copy
from local.rds.keys import check_usable, key_arn
from local.rds.notices import notify
from local.rds.state import MANUAL_SNAPSHOT_QUOTA, Cluster, Region, Snapshot, arn, here, now, put_tags
from local.runtime import current, in_background

log = logging.getLogger("local.rds")

_FILTERS = {
    "db-cluster-id": ("DBClusterIdentifier",),
    "db-cluster-snapshot-id": ("DBClusterSnapshotIdentifier",),
    "snapshot-type": ("SnapshotType",),
    "engine": ("Engine",),
}
_TYPES = ("automated", "manual", "awsbackup", "shared", "public")
_FROM_CLUSTER = (
    "AvailabilityZones",
    "DBClusterIdentifier",
    "DbClusterResourceId",
    "Engine",
    "EngineMode",
    "EngineVersion",
    "MasterUsername",
    "Port",
    "AllocatedStorage",
    "ClusterCreateTime",
    "StorageEncrypted",
    "KmsKeyId",
    "IAMDatabaseAuthenticationEnabled",
)


def create_snapshot(request: dict[str, Any]) -> dict[str, Any]:
    """CreateDBClusterSnapshot: `creating` with progress, then `available`, or `failed`."""
    cluster = here().cluster(request["DBClusterIdentifier"])
    tags = list(request.get("Tags") or [])
    snapshot = take_snapshot(cluster, request["DBClusterSnapshotIdentifier"], tags)
    return {"DBClusterSnapshot": view(snapshot)}


def take_snapshot(
    cluster: Cluster,
    identifier: str,
    tags: list[dict[str, str]],
    *,
    wait: bool = False,
    kind: str = "manual",
) -> Snapshot:
    """Record a snapshot and copy the cluster in the background, or at once with `wait`."""
    name = (
        identifier.lower() if kind == "awsbackup" else rules.check_identifier(identifier, "DBClusterSnapshotIdentifier")
    )
    if cluster.record["Status"] not in ("available", "stopped", "backing-up"):
        raise AwsError("InvalidDBClusterStateFault", f"Cluster is not in available state: {cluster.record['Status']}")
    check_usable(cluster.record.get("KmsKeyId"))
    snapshot = _add(name, cluster, kind)
    if cluster.record["CopyTagsToSnapshot"]:
        put_tags(snapshot.record["TagList"], cluster.record["TagList"])
    put_tags(snapshot.record["TagList"], tags)
    _fill(snapshot, lambda: cluster.engine.snapshot(snapshot.data), wait=wait)
    return snapshot


def _add(name: str, cluster: Cluster, kind: str) -> Snapshot:
    region = here()
    if name in region.snapshots:
        raise AwsError(
            "DBClusterSnapshotAlreadyExistsFault", f"Cannot create the snapshot because {name} already exists."
        )
    check_quota(region, kind)
    record = {key: cluster.record[key] for key in _FROM_CLUSTER if key in cluster.record}
    record |= {
        "DBClusterSnapshotIdentifier": name,
        "DBClusterSnapshotArn": arn("cluster-snapshot", name),
        "SnapshotType": kind,
        "Status": "creating",
        "PercentProgress": 0,
        "LicenseModel": "postgresql-license",
        "TagList": [],
    }
    engine = cluster.engine
    data = current().home.path / "snapshots" / secrets.token_hex(8) / "data"
    region.snapshots[name] = Snapshot(record, data, engine.master, engine.password, engine.database)
    return region.snapshots[name]


def check_quota(region: Region, kind: str) -> None:
    """Refuse one more manual snapshot when the Region has as many as it may have."""
    manual = sum(snapshot.record["SnapshotType"] == "manual" for snapshot in region.snapshots.values())
    if kind == "manual" and manual >= MANUAL_SNAPSHOT_QUOTA:
        raise AwsError(
            "SnapshotQuotaExceededFault",
            f"Cannot create more than {MANUAL_SNAPSHOT_QUOTA} manual snapshots",
        )


def _fill(snapshot: Snapshot, work: Any, *, wait: bool = False) -> None:
    """Do `work`, which writes the snapshot's bytes, and finish its record."""
    record, where = snapshot.record, snapshot.record["DBClusterSnapshotArn"]
    manual = record["SnapshotType"] != "automated"

    def copy_bytes() -> None:
        record["PercentProgress"] = 10
        notify(
            "CLUSTER_SNAPSHOT",
            where,
            "backup",
            "Creating cluster snapshot",
            "RDS-EVENT-0074" if manual else "RDS-EVENT-0168",
        )
        work()
        record["PercentProgress"] = 90

    def done(problem: Exception | None) -> None:
        while faults.stays_creating(snapshot.name):
            time.sleep(0.05)
        if problem:
            log.error("snapshot %s failed: %s", snapshot.name, problem)
            record["Status"] = "failed"
            notify("CLUSTER_SNAPSHOT", where, "failure", "Cluster snapshot failed")
            return
        record.update(Status="available", PercentProgress=100, SnapshotCreateTime=now())
        notify(
            "CLUSTER_SNAPSHOT",
            where,
            "backup",
            "Cluster snapshot created",
            "RDS-EVENT-0075" if manual else "RDS-EVENT-0169",
        )

    if wait:
        copy_bytes()
        done(None)
    else:
        in_background(copy_bytes, done)


def automated_snapshot(cluster: Cluster) -> Snapshot:
    """The automated snapshot whose bytes are the base backup under the continuous backup."""
    moment = now()
    name = f"rds:{cluster.record['DBClusterIdentifier']}-{moment:%Y-%m-%d-%H-%M-%S}"
    snapshot = _add(name, cluster, "automated")
    snapshot.data = cluster.engine.base
    put_tags(snapshot.record["TagList"], cluster.record["TagList"] if cluster.record["CopyTagsToSnapshot"] else [])
    snapshot.record.update(Status="available", PercentProgress=100, SnapshotCreateTime=moment)
    notify(
        "CLUSTER_SNAPSHOT",
        snapshot.record["DBClusterSnapshotArn"],
        "backup",
        "Automated cluster snapshot created",
        "RDS-EVENT-0169",
    )
    return snapshot


def drop_automated_snapshots(cluster: Cluster) -> None:
    """Forget the automated snapshots of a cluster that is gone. Their bytes are the continuous backup's."""
    region = here()
    for name, snapshot in list(region.snapshots.items()):
        same = snapshot.record["DbClusterResourceId"] == cluster.resource_id
        if same and snapshot.record["SnapshotType"] == "automated":
            del region.snapshots[name]


def view(snapshot: Snapshot) -> dict[str, Any]:
    """The record as it is told."""
    return dict(snapshot.record)


def describe_snapshots(request: dict[str, Any]) -> dict[str, Any]:
    """DescribeDBClusterSnapshots: manual and automated ones unless a type is asked for.

    An automated snapshot is not found by its identifier without `SnapshotType`.
    """
    region, wanted, kind = here(), request.get("DBClusterSnapshotIdentifier"), request.get("SnapshotType")
    if kind and kind not in _TYPES:
        raise AwsError(
            "InvalidParameterValue", f"Invalid value {kind} for SnapshotType; it is one of {', '.join(_TYPES)}"
        )
    if wanted:
        found = region.snapshot(wanted)
        hidden = found.record["SnapshotType"] == "automated" and kind is None
        if hidden or (kind and found.record["SnapshotType"] != kind):
            raise AwsError("DBClusterSnapshotNotFoundFault", f"DBClusterSnapshot {wanted} not found.")
        snapshots = [found]
    else:
        kinds = (kind,) if kind else ("manual", "automated")
        snapshots = [s for s in region.snapshots.values() if s.record["SnapshotType"] in kinds]
    records = [view(snapshot) for snapshot in snapshots]
    if "DBClusterIdentifier" in request:
        name = request["DBClusterIdentifier"].rsplit(":cluster:", 1)[-1].lower()
        records = [record for record in records if record["DBClusterIdentifier"] == name]
    if "DbClusterResourceId" in request:
        records = [record for record in records if record["DbClusterResourceId"] == request["DbClusterResourceId"]]
    chosen, marker = rules.page(request, rules.select(request, records, _FILTERS), "DBClusterSnapshotIdentifier")
    return {"DBClusterSnapshots": chosen, "Marker": marker}


def delete_snapshot(request: dict[str, Any]) -> dict[str, Any]:
    """DeleteDBClusterSnapshot: manual ones that are finished."""
    region = here()
    snapshot = region.snapshot(request["DBClusterSnapshotIdentifier"])
    record = snapshot.record
    if record["SnapshotType"] != "manual":
        raise AwsError(
            "InvalidDBClusterSnapshotStateFault",
            f"Only manual snapshots may be deleted; {snapshot.name} is {record['SnapshotType']}.",
        )
    if record["Status"] not in ("available", "failed"):
        raise AwsError("InvalidDBClusterSnapshotStateFault", f"Cluster snapshot is in state {record['Status']}.")
    remove_snapshot(snapshot)
    return {"DBClusterSnapshot": {**record, "Status": "deleted"}}


def remove_snapshot(snapshot: Snapshot) -> None:
    """Delete the record and its bytes."""
    del here().snapshots[snapshot.name]
    snapshot.delete_bytes()
    notify("CLUSTER_SNAPSHOT", snapshot.record["DBClusterSnapshotArn"], "deletion", "Cluster snapshot deleted")


def copy_snapshot(request: dict[str, Any]) -> dict[str, Any]:
    """CopyDBClusterSnapshot within the Region; `KmsKeyId` re-encrypts, `CopyTags` takes the source's tags."""
    region = here()
    source = region.snapshot(request["SourceDBClusterSnapshotIdentifier"])
    name = rules.check_identifier(request["TargetDBClusterSnapshotIdentifier"], "TargetDBClusterSnapshotIdentifier")
    if source.record["Status"] != "available":
        raise AwsError("InvalidDBClusterSnapshotStateFault", f"Cluster snapshot is in state {source.record['Status']}.")
    if name in region.snapshots:
        raise AwsError(
            "DBClusterSnapshotAlreadyExistsFault", f"Cannot create the snapshot because {name} already exists."
        )
    check_usable(source.record.get("KmsKeyId"))
    check_quota(region, "manual")
    record = {key: value for key, value in source.record.items() if key != "SnapshotCreateTime"} | {
        "DBClusterSnapshotIdentifier": name,
        "DBClusterSnapshotArn": arn("cluster-snapshot", name),
        "SourceDBClusterSnapshotArn": source.record["DBClusterSnapshotArn"],
        "SnapshotType": "manual",
        "Status": "creating",
        "PercentProgress": 0,
        "TagList": [],
    }
    if request.get("KmsKeyId"):
        record |= {"StorageEncrypted": True, "KmsKeyId": key_arn(request["KmsKeyId"])}
    put_tags(record["TagList"], source.record["TagList"] if request.get("CopyTags") else [])
    put_tags(record["TagList"], request.get("Tags") or [])
    data = current().home.path / "snapshots" / secrets.token_hex(8) / "data"
    made = Snapshot(record, data, source.master, source.password, source.database)
    region.snapshots[name] = made
    _fill(made, lambda: copy(source.data, made.data))
    return {"DBClusterSnapshot": view(made)}


def describe_attributes(request: dict[str, Any]) -> dict[str, Any]:
    """DescribeDBClusterSnapshotAttributes: with whom it is shared; `all` is everybody."""
    snapshot = here().snapshot(request["DBClusterSnapshotIdentifier"])
    attribute = {"AttributeName": "restore", "AttributeValues": list(snapshot.shared_with)}
    return {
        "DBClusterSnapshotAttributesResult": {
            "DBClusterSnapshotIdentifier": snapshot.record["DBClusterSnapshotIdentifier"],
            "DBClusterSnapshotAttributes": [attribute],
        },
    }


def modify_attributes(request: dict[str, Any]) -> dict[str, Any]:
    """ModifyDBClusterSnapshotAttribute: only manual snapshots, and no encrypted one for everybody."""
    snapshot = here().snapshot(request["DBClusterSnapshotIdentifier"])
    if request["AttributeName"] != "restore":
        raise AwsError(
            "InvalidParameterValue", f"Invalid attribute name: {request['AttributeName']}; only restore exists"
        )
    if snapshot.record["SnapshotType"] != "manual":
        raise AwsError("InvalidDBClusterSnapshotStateFault", "Only manual snapshots can be shared.")
    add, remove = request.get("ValuesToAdd") or [], request.get("ValuesToRemove") or []
    if "all" in add and snapshot.record.get("StorageEncrypted"):
        raise AwsError("InvalidDBClusterSnapshotStateFault", "An encrypted snapshot cannot be made public.")
    snapshot.shared_with = sorted((set(snapshot.shared_with) | set(add)) - set(remove))
    return describe_attributes(request)
