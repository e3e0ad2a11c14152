"""Which instance of a cluster a dump reads from. Pure.

An exported snapshot lives on one instance, so an instance is pinned: never the reader endpoint, which balances.
"""

from __future__ import annotations

from typing import Any

from aurora_backup.errors import PreflightFailed


def choose_instance(cluster: dict[str, Any], instances: list[dict[str, Any]]) -> dict[str, Any]:
    """Choose an available reader that reports no replication trouble, else the writer.

    cluster, instances: as DescribeDBClusters and DescribeDBInstances give them. Returns
    `{"id", "host", "port", "role": "reader" | "writer", "reason"}`. Among readers the one least likely to be promoted
    is taken (highest promotion tier), then the first by name, so that a replay chooses the same.

    Raises:
        PreflightFailed: no instance of the cluster is available; names each with its status.

    """
    by_id = {str(i["DBInstanceIdentifier"]): i for i in instances}
    members = [m for m in cluster.get("DBClusterMembers", []) if m["DBInstanceIdentifier"] in by_id]
    members.sort(key=lambda m: (-int(m.get("PromotionTier") or 0), m["DBInstanceIdentifier"]))
    refused = []
    for member in members:
        name = str(member["DBInstanceIdentifier"])
        problem = None if member.get("IsClusterWriter") else _problem(by_id[name])
        if not member.get("IsClusterWriter"):
            if problem is None:
                return _pinned(by_id[name], "reader", "an available reader without reported lag")
            refused.append(f"reader {name} {problem}")
    for member in members:
        name = str(member["DBInstanceIdentifier"])
        if member.get("IsClusterWriter"):
            problem = _problem(by_id[name])
            if problem is None:
                return _pinned(by_id[name], "writer", "; ".join(refused) or "the cluster has no reader")
            refused.append(f"writer {name} {problem}")
    found = "; ".join(refused) or "it has no instances"
    raise PreflightFailed(f"no instance of cluster {cluster.get('DBClusterIdentifier')} can be dumped from: {found}")


def _problem(instance: dict[str, Any]) -> str | None:
    status = str(instance.get("DBInstanceStatus", "unknown"))
    if status != "available":
        return f"is {status}"
    if not (instance.get("Endpoint") or {}).get("Address"):
        return "has no endpoint"
    for info in instance.get("StatusInfos") or []:
        if info.get("Normal") is False:
            return f"reports {info.get('StatusType', 'replication')} {info.get('Status', 'not normal')}"
    return None


def _pinned(instance: dict[str, Any], role: str, reason: str) -> dict[str, Any]:
    endpoint = instance["Endpoint"]
    return {
        "id": str(instance["DBInstanceIdentifier"]),
        "host": str(endpoint["Address"]),
        "port": int(endpoint["Port"]),
        "role": role,
        "reason": reason,
    }
