"""DB instances of clusters. The first one starts the cluster's PostgreSQL; readers are the same server."""

from __future__ import annotations

import logging
from typing import Any

from ministack.core.responses import get_region
from ministack.services import rds as ministack_rds

from local.protocol import AwsError
from local.rds import rules
from local.rds.clusters import ENGINE, first_backup
from local.rds.keys import check_usable
from local.rds.notices import notify
from local.rds.state import Cluster, arn, here, now, put_tags, resource_id
from local.runtime import in_background

log = logging.getLogger("local.rds")

_FILTERS = {
    "db-cluster-id": ("DBClusterIdentifier", "_cluster_arn"),
    "db-instance-id": ("DBInstanceIdentifier", "DBInstanceArn"),
    "dbi-resource-id": ("DbiResourceId",),
    "engine": ("Engine",),
}
_SAME = (
    "AutoMinorVersionUpgrade",
    "CACertificateIdentifier",
    "CopyTagsToSnapshot",
    "DBInstanceClass",
    "MonitoringInterval",
    "MonitoringRoleArn",
    "PerformanceInsightsKMSKeyId",
    "PerformanceInsightsRetentionPeriod",
    "PreferredMaintenanceWindow",
    "PromotionTier",
    "PubliclyAccessible",
)


def create_instance(request: dict[str, Any]) -> dict[str, Any]:
    """CreateDBInstance, in a cluster: `creating` until PostgreSQL takes connections."""
    region = here()
    name = rules.check_identifier(request["DBInstanceIdentifier"], "DBInstanceIdentifier")
    if name in region.instances:
        raise AwsError("DBInstanceAlreadyExistsFault", f"DB Instance already exists: {name}")
    if not request.get("DBClusterIdentifier"):
        raise AwsError("InvalidParameterValue", "DBClusterIdentifier is missing: only Aurora instances run here")
    cluster = region.cluster(request["DBClusterIdentifier"])
    if request.get("Engine") != ENGINE:
        raise AwsError(
            "InvalidParameterCombination", f"The engine of the instance must be {ENGINE}, as the cluster's is"
        )
    if cluster.record["Status"] != "available":
        raise AwsError("InvalidDBClusterStateFault", f"DBCluster is in state {cluster.record['Status']}")
    if request["DBInstanceClass"] == "db.serverless" and "ServerlessV2ScalingConfiguration" not in cluster.record:
        raise AwsError(
            "InvalidDBClusterStateFault",
            "Set the Serverless v2 scaling configuration on the parent DB cluster before creating a Serverless v2 "
            "DB instance.",
        )
    check_usable(cluster.record.get("KmsKeyId"))
    record = _record(name, request, cluster)
    region.instances[name] = record

    def start() -> None:
        fresh = cluster.engine.earliest() is None
        cluster.engine.start()
        if fresh:
            first_backup(cluster)

    def done(problem: Exception | None) -> None:
        if problem:
            log.error("instance %s: %s", name, problem)
        record["DBInstanceStatus"] = "failed" if problem else "available"
        notify("DB_INSTANCE", record["DBInstanceArn"], "creation", "DB instance created", "RDS-EVENT-0005")

    in_background(start, done)
    return {"DBInstance": view(record)}


def _record(name: str, request: dict[str, Any], cluster: Cluster) -> dict[str, Any]:
    record: dict[str, Any] = {
        "DBInstanceIdentifier": name,
        "DBInstanceArn": arn("db", name),
        "DbiResourceId": resource_id("db"),
        "DBInstanceStatus": "creating",
        "DBClusterIdentifier": cluster.record["DBClusterIdentifier"],
        "Engine": ENGINE,
        "EngineVersion": cluster.record["EngineVersion"],
        "LicenseModel": "postgresql-license",
        "MasterUsername": cluster.record["MasterUsername"],
        "DBName": cluster.record["DatabaseName"],
        "Endpoint": {
            "Address": "127.0.0.1",
            "Port": cluster.engine.port,
            "HostedZoneId": cluster.record["HostedZoneId"],
        },
        "AllocatedStorage": 1,
        "InstanceCreateTime": now(),
        "AvailabilityZone": f"{get_region()}a",
        "AutoMinorVersionUpgrade": True,
        "PromotionTier": 1,
        "PubliclyAccessible": False,
        "MonitoringInterval": 0,
        "PreferredMaintenanceWindow": cluster.record["PreferredMaintenanceWindow"],
        "StorageEncrypted": cluster.record["StorageEncrypted"],
        "CACertificateIdentifier": "rds-ca-rsa2048-g1",
        "TagList": [],
        "_writer": not here().members(cluster),
        "_cluster_arn": cluster.record["DBClusterArn"],
    }
    _apply(record, request)
    put_tags(record["TagList"], request.get("Tags") or [])
    return record


def _apply(record: dict[str, Any], request: dict[str, Any]) -> None:
    group = request.get("DBParameterGroupName")
    if group and not group.startswith("default.") and group.lower() not in ministack_rds._param_groups:
        raise AwsError("DBParameterGroupNotFoundFault", f"DBParameterGroup not found: {group}")
    record.update({key: request[key] for key in _SAME if key in request})
    if "EnablePerformanceInsights" in request:
        record["PerformanceInsightsEnabled"] = request["EnablePerformanceInsights"]
    if group or "DBParameterGroups" not in record:
        name = group.lower() if group else f"default.{ENGINE}{record['EngineVersion'].split('.')[0]}"
        record["DBParameterGroups"] = [{"DBParameterGroupName": name, "ParameterApplyStatus": "in-sync"}]


def view(record: dict[str, Any]) -> dict[str, Any]:
    """The record as it is told: what belongs to the cluster comes from there."""
    cluster = here().clusters.get(record["DBClusterIdentifier"])
    inherited = (
        "VpcSecurityGroups",
        "BackupRetentionPeriod",
        "PreferredBackupWindow",
        "IAMDatabaseAuthenticationEnabled",
        "KmsKeyId",
    )
    shown = {**record, **{key: cluster.record[key] for key in inherited if cluster and key in cluster.record}}
    if cluster:
        name = cluster.record["DBSubnetGroup"]
        shown["DBSubnetGroup"] = {"DBSubnetGroupName": name, "SubnetGroupStatus": "Complete"}
    if record["DBInstanceStatus"] == "creating":
        shown.pop("Endpoint")
    return shown


def describe_instances(request: dict[str, Any]) -> dict[str, Any]:
    """DescribeDBInstances."""
    region = here()
    wanted = request.get("DBInstanceIdentifier")
    records = [region.instance(wanted)] if wanted else list(region.instances.values())
    chosen, marker = rules.page(
        request,
        [view(record) for record in rules.select(request, records, _FILTERS)],
        "DBInstanceIdentifier",
    )
    return {"DBInstances": chosen, "Marker": marker}


def modify_instance(request: dict[str, Any]) -> dict[str, Any]:
    """ModifyDBInstance: everything is applied at once."""
    record = here().instance(request["DBInstanceIdentifier"])
    if record["DBInstanceStatus"] != "available":
        raise AwsError("InvalidDBInstanceStateFault", f"DB instance is in state {record['DBInstanceStatus']}")
    _apply(record, request)
    return {"DBInstance": view(record)}


def delete_instance(request: dict[str, Any]) -> dict[str, Any]:
    """DeleteDBInstance: PostgreSQL stops with the last one; the cluster stays."""
    region = here()
    record = region.instance(request["DBInstanceIdentifier"])
    if record["DBInstanceStatus"] in ("creating", "deleting"):
        raise AwsError(
            "InvalidDBInstanceStateFault", f"Instance {record['DBInstanceIdentifier']} is {record['DBInstanceStatus']}"
        )
    record["DBInstanceStatus"] = "deleting"
    cluster = region.clusters.get(record["DBClusterIdentifier"])

    def remove() -> None:
        remaining = [m for m in region.members(cluster) if m["DBInstanceStatus"] != "deleting"] if cluster else []
        if cluster and not remaining:
            cluster.engine.stop()
        if remaining and record["_writer"]:
            remaining[0]["_writer"] = True

    def done(problem: Exception | None) -> None:
        if problem:
            log.error("stopping the server of instance %s: %s", record["DBInstanceIdentifier"], problem)
        region.instances.pop(record["DBInstanceIdentifier"], None)
        notify("DB_INSTANCE", record["DBInstanceArn"], "deletion", "DB instance deleted", "RDS-EVENT-0003")

    in_background(remove, done)
    return {"DBInstance": view(record)}


def reboot_instance(request: dict[str, Any]) -> dict[str, Any]:
    """RebootDBInstance: PostgreSQL is stopped and started."""
    region = here()
    record = region.instance(request["DBInstanceIdentifier"])
    if record["DBInstanceStatus"] != "available":
        raise AwsError("InvalidDBInstanceStateFault", f"DB instance is in state {record['DBInstanceStatus']}")
    cluster = region.cluster(record["DBClusterIdentifier"])
    record["DBInstanceStatus"] = "rebooting"

    def restart() -> None:
        cluster.engine.stop()
        cluster.engine.start()

    def done(problem: Exception | None) -> None:
        record["DBInstanceStatus"] = "failed" if problem else "available"
        notify("DB_INSTANCE", record["DBInstanceArn"], "availability", "DB instance restarted", "RDS-EVENT-0006")

    in_background(restart, done)
    return {"DBInstance": view(record)}
