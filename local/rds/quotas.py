"""How much of RDS there may be, and how much there is."""

from __future__ import annotations

from typing import Any

from local.rds.state import MANUAL_SNAPSHOT_QUOTA, here

_CLUSTERS = _INSTANCES = 40


def describe_account_attributes(_request: dict[str, Any]) -> dict[str, Any]:
    """DescribeAccountAttributes: the quotas that recovery asks about."""
    region = here()
    manual = sum(snapshot.record["SnapshotType"] == "manual" for snapshot in region.snapshots.values())
    used = {
        "DBClusters": (len(region.clusters), _CLUSTERS),
        "DBInstances": (len(region.instances), _INSTANCES),
        "ManualClusterSnapshots": (manual, MANUAL_SNAPSHOT_QUOTA),
    }
    return {"AccountQuotas": [{"AccountQuotaName": n, "Used": u, "Max": m} for n, (u, m) in used.items()]}
