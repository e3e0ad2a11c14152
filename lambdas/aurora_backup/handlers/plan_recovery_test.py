"""Choose the recovery point of the tier whose turn it is, and plan its test. Outside the VPC; creates nothing."""

from __future__ import annotations

from typing import Any

from aurora_backup import deployment
from aurora_backup.policy import Tier
from aurora_backup.recovery import TESTED, NoRecoveryPoint, choose_point, next_tier, plan_test
from aurora_backup.recovery_edges import Edges


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Return `{plan, target, tier, moment}`. event: `{execution, started, tier (optional)}`.

    Raises:
        NoRecoveryPoint: the tier asked for, or every tier, has no available recovery point.

    """
    edges = Edges.from_environment()
    settings = edges.settings
    source, resource_id = edges.source()
    if source is None:
        raise NoRecoveryPoint(f"cluster {settings.cluster_id} with resource id {resource_id} does not exist")
    asked = event.get("tier")
    tiers = (Tier(asked),) if asked else tuple(t for t in TESTED if edges.options.policy.keep(t))
    snapshots = [*edges.rds.snapshots("manual"), *edges.rds.snapshots("awsbackup")]
    points = {tier: choose_point(tier, source, snapshots, edges.lineage(resource_id)) for tier in tiers}
    tier = next_tier(points, edges.store.last_tests())
    point = points[tier]
    if point is None:
        raise NoRecoveryPoint(f"tier {tier.value} has no available recovery point")
    plan = plan_test(
        point,
        source,
        edges.options.require_isolation(),
        owner=settings.owner,
        source_id=settings.cluster_id,
        source_resource_id=point.resource_id or resource_id,
        execution=event["execution"],
        started=deployment.moment("started", event["started"]),
        lifetime=edges.options.lifetime,
        skipped={t.value: "no available recovery point" for t, found in points.items() if found is None},
    )
    return {
        "plan": edges.store.keep_plan(plan),
        "target": plan.target,
        "tier": tier.value,
        "moment": point.moment.isoformat(),
    }
