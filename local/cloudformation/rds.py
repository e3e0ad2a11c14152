"""AWS::RDS::DBCluster, DBInstance and EventSubscription."""

from __future__ import annotations

import time
from typing import Any

from local.cloudformation.register import Created, Properties, Provisioner, physical_name, register
from local.protocol import AwsError, coerce
from local.rds import clusters, instances, notices, restores, tags
from local.rds.api import api
from local.rds.snapshots import take_snapshot
from local.rds.state import Cluster, arn, here

_WAIT_SECONDS = 300
# Properties whose parameter of the RDS API has another name.
_RENAMED = {
    "PerformanceInsightsEnabled": "EnablePerformanceInsights",
    "PerformanceInsightsKmsKeyId": "PerformanceInsightsKMSKeyId",
}
# Properties that are no parameter of CreateDBCluster and are dealt with by name below.
_OWN = {
    "MasterUserSecret",
    "SnapshotIdentifier",
    "SourceDBClusterIdentifier",
    "SourceDbClusterResourceId",
    "RestoreType",
    "RestoreToTime",
    "UseLatestRestorableTime",
    "DeleteAutomatedBackups",
    "AssociatedRoles",
    "ReadEndpoint",
    "Endpoint",
}


def install() -> None:
    """Register the types."""
    register(
        "AWS::RDS::DBCluster",
        Provisioner(create=_create_cluster, update=_update_cluster, delete=_delete_cluster, snapshot=_snapshot_cluster),
    )
    register(
        "AWS::RDS::DBInstance",
        Provisioner(create=_create_instance, update=_update_instance, delete=_delete_instance),
    )
    register(
        "AWS::RDS::EventSubscription",
        Provisioner(create=_create_subscription, update=_update_subscription, delete=_delete_subscription),
    )


def _request(operation: str, properties: Properties, **more: Any) -> dict[str, Any]:
    shape = api.model.operation_model(operation).input_shape
    return {**coerce(shape, {_RENAMED.get(name, name): value for name, value in properties.items()}), **more}


def _create_cluster(logical_id: str, properties: Properties, stack: str) -> Created:
    known = set(api.model.operation_model("CreateDBCluster").input_shape.members) | _OWN
    unknown = sorted(set(properties) - known - set(_RENAMED))
    if unknown:
        raise ValueError(f"AWS::RDS::DBCluster {logical_id}: the property {unknown[0]} is not emulated")
    name = properties.get("DBClusterIdentifier") or physical_name(stack, logical_id, longest=63, lowercase=True)
    secret = properties.get("MasterUserSecret") or {}
    more = {"DBClusterIdentifier": name}
    if properties.get("SnapshotIdentifier"):
        restores.restore_snapshot(_request("RestoreDBClusterFromSnapshot", properties, **more))
    elif properties.get("SourceDBClusterIdentifier") or properties.get("SourceDbClusterResourceId"):
        restores.restore_to_point_in_time(_request("RestoreDBClusterToPointInTime", properties, **more))
    else:
        if secret.get("KmsKeyId"):
            more["MasterUserSecretKmsKeyId"] = secret["KmsKeyId"]
        clusters.create_cluster(_request("CreateDBCluster", properties, **more))
    cluster = here().cluster(name)
    _wait("AWS::RDS::DBCluster", name, lambda: cluster.record["Status"])
    return name, _cluster_attributes(cluster)


def _cluster_attributes(cluster: Cluster) -> dict[str, Any]:
    record = cluster.record
    return {
        "DBClusterArn": record["DBClusterArn"],
        "DBClusterResourceId": record["DbClusterResourceId"],
        "Endpoint.Address": record["Endpoint"],
        "Endpoint.Port": str(record["Port"]),
        "ReadEndpoint.Address": record["ReaderEndpoint"],
        "MasterUserSecret.SecretArn": record.get("MasterUserSecret", {}).get("SecretArn", ""),
    }


def _update_cluster(name: str, old: Properties, new: Properties, _stack: str) -> Created:
    cluster = here().cluster(name)
    changed = {key: value for key, value in new.items() if old.get(key) != value}
    request = _request("ModifyDBCluster", changed, DBClusterIdentifier=name, ApplyImmediately=True)
    if "EnableCloudwatchLogsExports" in changed:
        wanted, now = set(changed["EnableCloudwatchLogsExports"]), set(cluster.record["EnabledCloudwatchLogsExports"])
        request["CloudwatchLogsExportConfiguration"] = {
            "EnableLogTypes": sorted(wanted - now),
            "DisableLogTypes": sorted(now - wanted),
        }
    clusters.modify_cluster(request)
    _sync_tags(cluster.record["DBClusterArn"], old, new)
    return name, _cluster_attributes(cluster)


def _sync_tags(where: str, old: Properties, new: Properties) -> None:
    before, after = ({tag["Key"] for tag in properties.get("Tags") or ()} for properties in (old, new))
    tags.remove_tags({"ResourceName": where, "TagKeys": sorted(before - after)})
    tags.add_tags({"ResourceName": where, "Tags": new.get("Tags") or []})


def _delete_cluster(name: str, properties: Properties) -> None:
    region = here()
    if name not in region.clusters:
        return
    keep = str(properties.get("DeleteAutomatedBackups", True)).lower() == "false"
    clusters.delete_cluster(
        {"DBClusterIdentifier": name, "SkipFinalSnapshot": True, "DeleteAutomatedBackups": not keep},
    )
    _wait_gone(lambda: name in region.clusters, f"DB cluster {name}")


def _snapshot_cluster(name: str, _properties: Properties) -> None:
    take_snapshot(here().cluster(name), f"{name}-final-snapshot"[:63].strip("-"), [], wait=True)


def _create_instance(logical_id: str, properties: Properties, stack: str) -> Created:
    name = properties.get("DBInstanceIdentifier") or physical_name(stack, logical_id, longest=63, lowercase=True)
    instances.create_instance(_request("CreateDBInstance", properties, DBInstanceIdentifier=name))
    record = here().instance(name)
    _wait("AWS::RDS::DBInstance", name, lambda: record["DBInstanceStatus"])
    return name, _instance_attributes(record)


def _instance_attributes(record: dict[str, Any]) -> dict[str, Any]:
    return {
        "DBInstanceArn": record["DBInstanceArn"],
        "DbiResourceId": record["DbiResourceId"],
        "Endpoint.Address": record["Endpoint"]["Address"],
        "Endpoint.Port": str(record["Endpoint"]["Port"]),
    }


def _update_instance(name: str, old: Properties, new: Properties, _stack: str) -> Created:
    record = here().instance(name)
    changed = {key: value for key, value in new.items() if old.get(key) != value}
    instances.modify_instance(_request("ModifyDBInstance", changed, DBInstanceIdentifier=name))
    _sync_tags(record["DBInstanceArn"], old, new)
    return name, _instance_attributes(record)


def _delete_instance(name: str, _properties: Properties) -> None:
    region = here()
    if name in region.instances:
        instances.delete_instance({"DBInstanceIdentifier": name, "SkipFinalSnapshot": True})
        _wait_gone(lambda: name in region.instances, f"DB instance {name}")


def _create_subscription(logical_id: str, properties: Properties, stack: str) -> Created:
    name = properties.get("SubscriptionName") or physical_name(stack, logical_id, longest=255, lowercase=True)
    if not properties.get("SnsTopicArn"):
        raise AwsError("InvalidParameterValue", "SnsTopicArn is required")
    notices.subscriptions[arn("es", name)] = properties
    return name, {}


def _update_subscription(name: str, _old: Properties, new: Properties, _stack: str) -> Created:
    notices.subscriptions[arn("es", name)] = new
    return name, {}


def _delete_subscription(name: str, _properties: Properties) -> None:
    notices.subscriptions.pop(arn("es", name), None)


def _wait(kind: str, name: str, status: Any) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while status() != "available":
        if status() == "failed" or time.monotonic() > deadline:
            raise ValueError(f"{kind} {name} did not become available: it is {status()}")
        time.sleep(0.05)


def _wait_gone(exists: Any, what: str) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while exists():
        if time.monotonic() > deadline:
            raise ValueError(f"{what} is still there")
        time.sleep(0.05)
