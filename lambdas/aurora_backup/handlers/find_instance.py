"""Pin the instance that a logical backup reads from. Outside the VPC: calls the RDS API only."""

from __future__ import annotations

from typing import Any

from aurora_backup.errors import PreflightFailed
from aurora_backup.instances import choose_instance
from aurora_backup.settings import Settings


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Add `cluster: {id, resource_id, engine_version, arn}` and `instance` (see choose_instance) to the event.

    Raises:
        PreflightFailed: the cluster's name now belongs to another cluster, or no instance is available.

    """
    import boto3

    settings = Settings.from_environment()
    rds = boto3.client("rds")
    cluster = rds.describe_db_clusters(DBClusterIdentifier=settings.cluster_id)["DBClusters"][0]
    resource_id = str(cluster["DbClusterResourceId"])
    if settings.cluster_resource_id and settings.cluster_resource_id != resource_id:
        raise PreflightFailed(
            f"cluster {settings.cluster_id} must have the resource id {settings.cluster_resource_id}, got "
            f"{resource_id}: the name was given to another cluster; adopt it before it is backed up"
        )
    pages = rds.get_paginator("describe_db_instances").paginate(
        Filters=[{"Name": "db-cluster-id", "Values": [settings.cluster_id]}]
    )
    instances = [instance for page in pages for instance in page["DBInstances"]]
    return {
        **event,
        "cluster": {
            "id": settings.cluster_id,
            "resource_id": resource_id,
            "engine_version": str(cluster["EngineVersion"]),
            "arn": str(cluster["DBClusterArn"]),
        },
        "instance": choose_instance(cluster, instances),
    }
