"""Which RDS operations are answered here. The others are MiniStack's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from local.protocol import Api
from local.rds import clusters, instances, quotas, restores, snapshots, tags

if TYPE_CHECKING:
    from collections.abc import Callable

api = Api(
    "rds",
    {
        "CreateDBCluster": clusters.create_cluster,
        "DescribeDBClusters": clusters.describe_clusters,
        "ModifyDBCluster": clusters.modify_cluster,
        "DeleteDBCluster": clusters.delete_cluster,
        "StartDBCluster": clusters.start_cluster,
        "StopDBCluster": clusters.stop_cluster,
        "FailoverDBCluster": clusters.fail_over,
        "DescribeDBClusterAutomatedBackups": clusters.describe_automated_backups,
        "DeleteDBClusterAutomatedBackup": clusters.delete_automated_backup,
        "DescribeAccountAttributes": quotas.describe_account_attributes,
        "CreateDBInstance": instances.create_instance,
        "DescribeDBInstances": instances.describe_instances,
        "ModifyDBInstance": instances.modify_instance,
        "DeleteDBInstance": instances.delete_instance,
        "RebootDBInstance": instances.reboot_instance,
        "CreateDBClusterSnapshot": snapshots.create_snapshot,
        "DescribeDBClusterSnapshots": snapshots.describe_snapshots,
        "DeleteDBClusterSnapshot": snapshots.delete_snapshot,
        "CopyDBClusterSnapshot": snapshots.copy_snapshot,
        "DescribeDBClusterSnapshotAttributes": snapshots.describe_attributes,
        "ModifyDBClusterSnapshotAttribute": snapshots.modify_attributes,
        "RestoreDBClusterFromSnapshot": restores.restore_snapshot,
        "RestoreDBClusterToPointInTime": restores.restore_to_point_in_time,
        "AddTagsToResource": tags.add_tags,
        "RemoveTagsFromResource": tags.remove_tags,
        "ListTagsForResource": tags.list_tags,
    },
)


def query_handler(operation: str) -> Callable[[dict[str, Any]], tuple[int, dict[str, str], bytes]]:
    """What goes into MiniStack's table of RDS actions: form parameters in, HTTP response out."""
    return lambda parameters: api.query(operation, parameters)
