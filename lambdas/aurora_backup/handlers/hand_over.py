"""Write the hand-over document of a point-in-time recovery: where the data is now, and what is left to do."""

from __future__ import annotations

from typing import Any

from aurora_backup.errors import BackupError
from aurora_backup.recovery_edges import Edges
from aurora_backup.reports import hand_over


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Return the notification: `{report, endpoint, port, outcome, rto_seconds, rpo_seconds, to_do}`.

    event: `{plan, judged}`; judged.report is the key of the validation's report.
    """
    edges = Edges.from_environment()
    plan = edges.store.plan(event["plan"])
    restored = edges.rds.cluster(plan.target)
    if restored is None:
        raise BackupError(f"cluster {plan.target} does not exist any more")
    source, resource_id = edges.source()
    if source is None or resource_id != plan.source_resource_id:
        remembered = edges.store.remembered(plan.source_resource_id)
        source = remembered[0] if remembered else None
    report = edges.store.report(event["judged"]["report"])
    lineage = edges.lineage(plan.source_resource_id)
    document = hand_over(plan, report, source, restored, lineage, edges.settings.backup_bucket)
    key = edges.store.keep_hand_over(plan, document)
    told = ("target", "endpoint", "port", "outcome", "rto_seconds", "rpo_seconds", "to_do")
    return {"report": key, **{name: document[name] for name in told}}
