"""Keep what RDS says of the cluster, so that a deleted one can be rebuilt as it was. Outside the VPC, scheduled."""

from __future__ import annotations

from typing import Any

from aurora_backup.recovery_edges import Edges


def handler(_event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Return `{resource_id, new, database_endpoint: {host, port} | None}`; new: whether anything had changed.

    A cluster that is gone is left as remembered, and has no endpoint.
    """
    edges = Edges.from_environment()
    source, resource_id = edges.source()
    if source is None:
        return {"resource_id": resource_id, "new": False, "database_endpoint": None}
    instances = edges.rds.instances(edges.settings.cluster_id)
    endpoint = {"host": source["Endpoint"], "port": source["Port"]} if source.get("Endpoint") else None
    new = edges.store.remember(resource_id, source, instances)
    return {"resource_id": resource_id, "new": new, "database_endpoint": endpoint}
