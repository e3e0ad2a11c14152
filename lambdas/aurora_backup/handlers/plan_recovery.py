"""Check a request for point-in-time recovery and plan it. Outside the VPC; creates nothing but the plan's document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aurora_backup import deployment
from aurora_backup.identifiers import IdentifierError, require_identifier
from aurora_backup.recovery import Situation, plan_recovery
from aurora_backup.recovery_edges import Edges
from aurora_backup.tags import EXECUTION, tags_of

if TYPE_CHECKING:
    from datetime import datetime


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Return `{plan, target, moment}`. event: `{execution, started, target_cluster_id, target_time | latest, ...}`.

    Raises:
        RecoveryRefused: naming every reason; nothing was created.

    """
    edges = Edges.from_environment()
    settings = edges.settings
    source, resource_id = edges.source()
    resource_id = str(event.get("source_resource_id") or resource_id)
    if source and source["DbClusterResourceId"] != resource_id:
        source = None  # asked for an earlier cluster of the name
    plan = plan_recovery(
        {name: value for name, value in event.items() if name not in {"execution", "started"}},
        gather(edges, source, resource_id, event),
        owner=settings.owner,
        source_id=settings.cluster_id,
        source_resource_id=resource_id,
        execution=event["execution"],
        started=deployment.moment("started", event["started"]),
        lifetime=edges.options.lifetime,
    )
    return {
        "plan": edges.store.keep_plan(plan),
        "target": plan.target,
        "moment": plan.point.moment.isoformat(),
        "resource_id": resource_id,
    }


def gather(edges: Edges, source: dict[str, Any] | None, resource_id: str, event: dict[str, Any]) -> Situation:
    """Ask RDS what the checks need to know; a deleted cluster is known by its kept backups and what was remembered."""
    rds = edges.rds
    earliest: datetime | None
    latest: datetime | None
    if source:
        instances = rds.instances(edges.settings.cluster_id)
        earliest, latest = source.get("EarliestRestorableTime"), source.get("LatestRestorableTime")
        known: dict[str, Any] | None = source
    else:
        known, instances = edges.store.remembered(resource_id) or (None, [])
        window = (rds.automated_backup(resource_id) or {}).get("RestoreWindow") or {}
        earliest, latest = window.get("EarliestTime"), window.get("LatestTime")
    groups = {event.get("subnet_group"), (known or {}).get("DBSubnetGroup")}
    return Situation(
        source=known,
        source_instances=tuple(instances),
        deleted=source is None,
        earliest=earliest,
        latest=latest,
        taken=frozenset(filter(None, [_taken(edges, event.get("target_cluster_id"), event["execution"])])),
        subnet_groups=frozenset(str(g) for g in groups if g and rds.subnet_group(str(g))),
        quota=rds.quota_left(),
    )


def _taken(edges: Edges, target: object, execution: str) -> str | None:
    """The name asked for, when a cluster has it that this very execution did not make."""
    try:
        found = edges.rds.cluster(require_identifier(target, "target_cluster_id"))
    except IdentifierError:
        return None  # refused by its own rule
    return None if found is None or tags_of(found).get(EXECUTION) == execution else str(found["DBClusterIdentifier"])
