"""DB clusters: create, describe, modify, delete, start, stop, fail over."""

from __future__ import annotations

import json
import secrets
from typing import Any

from ministack.core.responses import get_region
from ministack.services import rds as ministack_rds
from ministack.services import secretsmanager

from local.protocol import AwsError
from local.rds import rules
from local.rds.engine import Engine
from local.rds.keys import key_arn
from local.rds.notices import notify
from local.rds.snapshots import automated_snapshot, drop_automated_snapshots, take_snapshot
from local.rds.state import Cluster, Retained, Snapshot, arn, here, now, put_tags, resource_id
from local.runtime import in_background

ENGINE = "aurora-postgresql"
_FILTERS = {
    "db-cluster-id": ("DBClusterIdentifier", "DBClusterArn"),
    "db-cluster-resource-id": ("DbClusterResourceId",),
    "engine": ("Engine",),
}
_DEFAULT_VERSION = "17.4"
# Settings that requests carry and records show under the same name.
_SAME = (
    "PreferredBackupWindow",
    "PreferredMaintenanceWindow",
    "DeletionProtection",
    "CopyTagsToSnapshot",
    "ServerlessV2ScalingConfiguration",
    "MonitoringInterval",
    "MonitoringRoleArn",
    "EngineVersion",
    "DatabaseInsightsMode",
    "AutoMinorVersionUpgrade",
    "StorageType",
    "NetworkType",
)
_EXPORTS = ("postgresql", "instance", "iam-db-auth-error")


def create_cluster(request: dict[str, Any]) -> dict[str, Any]:
    """CreateDBCluster: the record, its secret, and a port; PostgreSQL starts with the first instance."""
    name = rules.check_identifier(request["DBClusterIdentifier"], "DBClusterIdentifier")
    if request.get("Engine") != ENGINE:
        raise AwsError("InvalidParameterValue", f"Invalid DB engine: {request.get('Engine')}; only {ENGINE} runs here")
    master = request.get("MasterUsername")
    if not master:
        raise AwsError("InvalidParameterValue", "The parameter MasterUsername must be provided and must not be blank.")
    managed, given = request.get("ManageMasterUserPassword", False), request.get("MasterUserPassword")
    if managed == bool(given):
        raise AwsError(
            "InvalidParameterCombination",
            "Give exactly one of MasterUserPassword and ManageMasterUserPassword",
        )
    password = secrets.token_urlsafe(24) if managed else rules.check_password(str(given))
    cluster = add_cluster(name, request, Engine(resource_id("cluster"), master, password, request.get("DatabaseName")))
    if managed:
        _keep_secret(cluster, request.get("MasterUserSecretKmsKeyId"))
    cluster.record["Status"] = "creating"

    def ready(_: Exception | None) -> None:
        cluster.record["Status"] = "available"
        notify("CLUSTER", cluster.record["DBClusterArn"], "creation", "DB cluster created", "RDS-EVENT-0170")

    in_background(lambda: None, ready)
    return {"DBCluster": view(cluster)}


def add_cluster(name: str, request: dict[str, Any], engine: Engine) -> Cluster:
    """Check the settings that creating and restoring share, and record a cluster in front of `engine`."""
    region = here()
    if name in region.clusters:
        raise AwsError("DBClusterAlreadyExistsFault", f"DB Cluster already exists: {name}")
    created = now()
    record: dict[str, Any] = {
        "DBClusterIdentifier": name,
        "DBClusterArn": arn("cluster", name),
        "DbClusterResourceId": engine.automated.name,
        "Status": "creating",
        "Engine": ENGINE,
        "EngineMode": "provisioned",
        "EngineVersion": _DEFAULT_VERSION,
        "MasterUsername": engine.master,
        "DatabaseName": engine.database,
        "Endpoint": "127.0.0.1",
        "ReaderEndpoint": "127.0.0.1",
        "Port": engine.port,
        "HostedZoneId": "Z000000000LOCAL",
        "MultiAZ": False,
        "AvailabilityZones": [f"{get_region()}{zone}" for zone in "abc"],
        "AllocatedStorage": 1,
        "ClusterCreateTime": created,
        "BackupRetentionPeriod": 1,
        "PreferredBackupWindow": "03:00-03:30",
        "PreferredMaintenanceWindow": "sun:05:00-sun:05:30",
        "DBSubnetGroup": _subnet_group(request),
        "DBClusterParameterGroup": f"default.{ENGINE}{request.get('EngineVersion', _DEFAULT_VERSION).split('.')[0]}",
        "VpcSecurityGroups": [],
        "StorageEncrypted": request.get("StorageEncrypted", False),
        "IAMDatabaseAuthenticationEnabled": False,
        "EnabledCloudwatchLogsExports": [],
        "DeletionProtection": False,
        "CopyTagsToSnapshot": False,
        "CrossAccountClone": False,
        "HttpEndpointEnabled": False,
        "AssociatedRoles": [],
        "TagList": [],
    }
    if record["StorageEncrypted"]:
        record["KmsKeyId"] = key_arn(request.get("KmsKeyId"))
    elif request.get("KmsKeyId"):
        raise AwsError("InvalidParameterCombination", "KmsKeyId is given, and StorageEncrypted is not true")
    cluster = Cluster(record, engine)
    _apply(cluster, request, exports=request.get("EnableCloudwatchLogsExports"))
    put_tags(record["TagList"], request.get("Tags") or [])
    region.clusters[name] = cluster
    return cluster


def _subnet_group(request: dict[str, Any]) -> str:
    name = str(request.get("DBSubnetGroupName") or "default").lower()
    if name != "default" and name not in ministack_rds._subnet_groups:
        raise AwsError("DBSubnetGroupNotFoundFault", f"DB subnet group '{name}' does not exist.")
    return name


def _apply(cluster: Cluster, request: dict[str, Any], exports: list[str] | None) -> None:
    """Check and take over the settings in `request` that can also be modified later."""
    record = cluster.record
    windows = [request.get(key, record[key]) for key in ("PreferredBackupWindow", "PreferredMaintenanceWindow")]
    rules.check_windows(*windows)
    retention = rules.check_retention(request.get("BackupRetentionPeriod", record["BackupRetentionPeriod"]))
    unknown = sorted(set(exports or ()) - set(_EXPORTS))
    if unknown:
        raise AwsError(
            "InvalidParameterCombination", f"You cannot use the log types '{unknown[0]}' with engine {ENGINE}."
        )
    group = request.get("DBClusterParameterGroupName")
    if group and not group.startswith("default.") and group.lower() not in ministack_rds._db_cluster_param_groups:
        raise AwsError("DBClusterParameterGroupNotFoundFault", f"DBClusterParameterGroup not found: {group}")
    record.update({key: request[key] for key in _SAME if key in request}, BackupRetentionPeriod=retention)
    if group:
        record["DBClusterParameterGroup"] = group.lower()
    if exports is not None:
        record["EnabledCloudwatchLogsExports"] = sorted(exports)
    if "VpcSecurityGroupIds" in request:
        record["VpcSecurityGroups"] = [
            {"VpcSecurityGroupId": group_id, "Status": "active"} for group_id in request["VpcSecurityGroupIds"]
        ]
    if "EnablePerformanceInsights" in request:
        record["PerformanceInsightsEnabled"] = request["EnablePerformanceInsights"]
    if "EnableIAMDatabaseAuthentication" in request:
        record["IAMDatabaseAuthenticationEnabled"] = request["EnableIAMDatabaseAuthentication"]
        cluster.engine.set_iam(enabled=request["EnableIAMDatabaseAuthentication"])


def _keep_secret(cluster: Cluster, key: str | None) -> None:
    value = json.dumps({"username": cluster.engine.master, "password": cluster.engine.password})
    secret_arn, _ = secretsmanager._store_new_secret(
        f"rds!{cluster.resource_id}",
        secret_string=value,
        description=f"Secret managed by RDS for {cluster.record['DBClusterArn']}",
        kms_key_id=key,
    )
    cluster.record["MasterUserSecret"] = {"SecretArn": secret_arn, "SecretStatus": "active"}
    if key:
        cluster.record["MasterUserSecret"]["KmsKeyId"] = key_arn(key)


def view(cluster: Cluster) -> dict[str, Any]:
    """The record as it is told: with members and the restorable window of this moment."""
    members = [
        {
            "DBInstanceIdentifier": record["DBInstanceIdentifier"],
            "IsClusterWriter": record["_writer"],
            "DBClusterParameterGroupStatus": "in-sync",
            "PromotionTier": record["PromotionTier"],
        }
        for record in here().members(cluster)
    ]
    return {
        **cluster.record,
        "DBClusterMembers": members,
        "EarliestRestorableTime": cluster.engine.earliest(),
        "LatestRestorableTime": cluster.engine.latest(),
    }


def describe_clusters(request: dict[str, Any]) -> dict[str, Any]:
    """DescribeDBClusters."""
    region = here()
    wanted = request.get("DBClusterIdentifier")
    clusters = [region.cluster(wanted)] if wanted else list(region.clusters.values())
    records = rules.select(request, [view(cluster) for cluster in clusters], _FILTERS)
    chosen, marker = rules.page(request, records, "DBClusterIdentifier")
    return {"DBClusters": chosen, "Marker": marker}


def modify_cluster(request: dict[str, Any]) -> dict[str, Any]:
    """ModifyDBCluster: everything is applied at once."""
    region = here()
    cluster = region.cluster(request["DBClusterIdentifier"])
    record = cluster.record
    if record["Status"] not in ("available", "stopped"):
        raise AwsError(
            "InvalidDBClusterStateFault", f"DB cluster is in state {record['Status']} and cannot be modified."
        )
    logs = request.get("CloudwatchLogsExportConfiguration") or {}
    exports = set(record["EnabledCloudwatchLogsExports"]) | set(logs.get("EnableLogTypes") or ())
    _apply(cluster, request, exports=sorted(exports - set(logs.get("DisableLogTypes") or ())))
    if "MasterUserPassword" in request:
        cluster.engine.set_password(rules.check_password(request["MasterUserPassword"]))
    if request.get("ManageMasterUserPassword") and "MasterUserSecret" not in record:
        cluster.engine.set_password(secrets.token_urlsafe(24))
        _keep_secret(cluster, request.get("MasterUserSecretKmsKeyId"))
    if "NewDBClusterIdentifier" in request:
        _rename(cluster, rules.check_identifier(request["NewDBClusterIdentifier"], "NewDBClusterIdentifier"))
    return {"DBCluster": view(cluster)}


def _rename(cluster: Cluster, name: str) -> None:
    region, old = here(), cluster.record["DBClusterIdentifier"]
    if name in region.clusters:
        raise AwsError("DBClusterAlreadyExistsFault", f"DB Cluster already exists: {name}")
    for record in region.members(cluster):
        record["DBClusterIdentifier"] = name
    cluster.record.update(DBClusterIdentifier=name, DBClusterArn=arn("cluster", name))
    region.clusters[name] = region.clusters.pop(old)


def delete_cluster(request: dict[str, Any]) -> dict[str, Any]:
    """DeleteDBCluster, with every rule that protects a cluster."""
    region = here()
    cluster = region.cluster(request["DBClusterIdentifier"])
    record = cluster.record
    final = request.get("FinalDBSnapshotIdentifier")
    if record["DeletionProtection"]:
        raise AwsError(
            "InvalidParameterCombination",
            "Cannot delete protected Cluster, please disable deletion protection and try again.",
        )
    if any(member["DBInstanceStatus"] != "deleting" for member in region.members(cluster)):
        raise AwsError(
            "InvalidDBClusterStateFault",
            "Cluster cannot be deleted, it still contains DB instances in non-deleting state.",
        )
    if request.get("SkipFinalSnapshot", False) == bool(final):
        raise AwsError(
            "InvalidParameterCombination",
            "FinalDBSnapshotIdentifier is required unless SkipFinalSnapshot is specified, and cannot be given with it.",
        )
    if record["Status"] == "deleting":
        raise AwsError(
            "InvalidDBClusterStateFault", f"DB cluster {record['DBClusterIdentifier']} is already being deleted"
        )
    if final:
        take_snapshot(cluster, final, [], wait=True)
    record["Status"] = "deleting"
    keep = request.get("DeleteAutomatedBackups") is False
    in_background(cluster.engine.destroy, lambda _: _gone(cluster, keep=keep))
    return {"DBCluster": view(cluster)}


def _gone(cluster: Cluster, *, keep: bool) -> None:
    region, record = here(), cluster.record
    for name in [name for name, member in region.instances.items() if member in region.members(cluster)]:
        del region.instances[name]
    region.clusters.pop(record["DBClusterIdentifier"], None)
    if "MasterUserSecret" in record:
        secretsmanager.delete_secret_in_process(record["MasterUserSecret"]["SecretArn"])
    if keep:
        region.retained[cluster.resource_id] = Retained(automated_backup(cluster, "retained"), cluster)
    else:
        drop_automated_snapshots(cluster)
        cluster.engine.forget_backups()
    notify("CLUSTER", record["DBClusterArn"], "deletion", "DB cluster deleted", "RDS-EVENT-0171")


def automated_backup(cluster: Cluster, status: str) -> dict[str, Any]:
    """The DBClusterAutomatedBackup record of a cluster; `status` is `active` or `retained`."""
    record = cluster.record
    same = (
        "Engine",
        "EngineVersion",
        "EngineMode",
        "DBClusterArn",
        "DBClusterIdentifier",
        "DbClusterResourceId",
        "MasterUsername",
        "ClusterCreateTime",
        "StorageEncrypted",
        "KmsKeyId",
        "BackupRetentionPeriod",
        "PreferredBackupWindow",
        "AvailabilityZones",
        "Port",
        "IAMDatabaseAuthenticationEnabled",
        "TagList",
    )
    return {
        **{key: record[key] for key in same if key in record},
        "DBClusterAutomatedBackupsArn": arn(
            "cluster-auto-backup", f"ab-{cluster.resource_id.removeprefix('cluster-')}"
        ),
        "Region": get_region(),
        "Status": status,
        "RestoreWindow": {"EarliestTime": cluster.engine.earliest(), "LatestTime": cluster.engine.latest()},
    }


def describe_automated_backups(request: dict[str, Any]) -> dict[str, Any]:
    """DescribeDBClusterAutomatedBackups: of live clusters, and those that deleted clusters left."""
    region = here()
    records = [automated_backup(c, "active") for c in region.clusters.values() if c.engine.earliest()]
    records += [automated_backup(retained.cluster, "retained") for retained in region.retained.values()]
    for key in ("DbClusterResourceId", "DBClusterIdentifier"):
        if key in request:
            records = [record for record in records if record[key] == request[key]]
    if request.get("DbClusterResourceId") and not records:
        raise AwsError(
            "DBClusterAutomatedBackupNotFoundFault",
            f"No automated backup of {request['DbClusterResourceId']}",
        )
    fields = {
        "status": ("Status",),
        "db-cluster-id": ("DBClusterIdentifier", "DBClusterArn"),
        "db-cluster-resource-id": ("DbClusterResourceId",),
    }
    chosen, marker = rules.page(request, rules.select(request, records, fields), "DbClusterResourceId")
    return {"DBClusterAutomatedBackups": chosen, "Marker": marker}


def delete_automated_backup(request: dict[str, Any]) -> dict[str, Any]:
    """DeleteDBClusterAutomatedBackup: only what a deleted cluster left."""
    region, wanted = here(), request["DbClusterResourceId"]
    if wanted not in region.retained:
        raise AwsError("DBClusterAutomatedBackupNotFoundFault", f"No retained automated backup of {wanted}")
    retained = region.retained.pop(wanted)
    drop_automated_snapshots(retained.cluster)
    retained.cluster.engine.forget_backups()
    return {"DBClusterAutomatedBackup": {**retained.record, "Status": "deleting"}}


def stop_cluster(request: dict[str, Any]) -> dict[str, Any]:
    """StopDBCluster."""
    cluster = here().cluster(request["DBClusterIdentifier"])
    if cluster.record["Status"] != "available":
        raise AwsError("InvalidDBClusterStateFault", f"DbCluster is not in available state: {cluster.record['Status']}")
    cluster.engine.stop()
    _set_status(cluster, "stopped")
    return {"DBCluster": view(cluster)}


def start_cluster(request: dict[str, Any]) -> dict[str, Any]:
    """StartDBCluster."""
    cluster = here().cluster(request["DBClusterIdentifier"])
    if cluster.record["Status"] != "stopped":
        raise AwsError("InvalidDBClusterStateFault", f"DbCluster is not in stopped state: {cluster.record['Status']}")
    if here().members(cluster):
        cluster.engine.start()
    _set_status(cluster, "available")
    return {"DBCluster": view(cluster)}


def _set_status(cluster: Cluster, status: str) -> None:
    cluster.record["Status"] = status
    for member in here().members(cluster):
        member["DBInstanceStatus"] = status


def fail_over(request: dict[str, Any]) -> dict[str, Any]:
    """FailoverDBCluster: another instance becomes the writer. All of them are the same PostgreSQL here."""
    region = here()
    cluster = region.cluster(request["DBClusterIdentifier"])
    readers = [member for member in region.members(cluster) if not member["_writer"]]
    wanted = request.get("TargetDBInstanceIdentifier")
    if wanted:
        readers = [member for member in readers if member["DBInstanceIdentifier"] == wanted.lower()]
    if not readers:
        raise AwsError("InvalidDBClusterStateFault", "The cluster has no other instance to fail over to")
    target = min(readers, key=lambda member: (member["PromotionTier"], member["DBInstanceIdentifier"]))
    for member in region.members(cluster):
        member["_writer"] = member is target
    message = f"Completed failover to DB instance: {target['DBInstanceIdentifier']}"
    notify("CLUSTER", cluster.record["DBClusterArn"], "failover", message, "RDS-EVENT-0071")
    return {"DBCluster": view(cluster)}


def first_backup(cluster: Cluster) -> Snapshot:
    """Record the automated snapshot that the continuous backup began with."""
    return automated_snapshot(cluster)
