"""Which instance of a cluster a dump reads from. Pure.

An exported snapshot lives on one instance, so an instance is pinned: never the reader endpoint, which balances.
"""

from __future__ import annotations

from typing import Any

from aurora_backup.errors import PreflightFailed

_READER = "an available reader without reported trouble"
MOST_LAG_MS = 60_000  # of a reader: usual are tens of milliseconds
# PostgreSQL's words, as its statements and its client programs repeat them.
_CANCELLED = ("due to conflict with recovery", "due to recovery conflict")


def choose_instance(cluster: dict[str, Any], instances: list[dict[str, Any]]) -> dict[str, Any]:
    """Choose an available reader that reports no replication trouble, else the writer.

    cluster, instances: as DescribeDBClusters and DescribeDBInstances give them. Returns
    `{"id", "host", "port", "role": "reader" | "writer", "reason"}`, and for a reader `writer`: the same of an available
    writer, to fall back to. Among readers the one least likely to be promoted
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
                return _with_writer(_pinned(by_id[name], "reader", _READER), members, by_id)
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


def fall_back(instance: dict[str, Any], problem: str) -> dict[str, Any] | None:
    """Return the writer to go on with when a reader failed because it is one; None when it is not, or there is none.

    problem: the failure's message. A standby cancels what reads for long when it must replay what removes old rows.
    """
    writer = instance.get("writer")
    if instance.get("role") != "reader" or not writer or not any(text in problem for text in _CANCELLED):
        return None
    return {**writer, "reason": f"reader {instance.get('id')} cancelled the dump: conflict with recovery"}


def leave_lagging(instance: dict[str, Any], lag_ms: float | None) -> dict[str, Any]:
    """Return the instance with its lag in the reason, or the writer when a reader is more than a minute behind.

    lag_ms: milliseconds behind the writer, None where the server does not say.
    """
    if instance.get("role") != "reader" or lag_ms is None:
        return instance
    writer = instance.get("writer")
    if lag_ms > MOST_LAG_MS and writer:
        return {**writer, "reason": f"reader {instance['id']} is {lag_ms / 1000:.0f} s behind"}
    return {**instance, "reason": f"{instance['reason']}, {lag_ms:.0f} ms behind"}


def _with_writer(
    reader: dict[str, Any], members: list[dict[str, Any]], by_id: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    for member in members:
        instance = by_id[str(member["DBInstanceIdentifier"])]
        if member.get("IsClusterWriter") and _problem(instance) is None:
            return {**reader, "writer": _pinned(instance, "writer", "to fall back to")}
    return reader


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
