"""Hold a restored copy's facts against the baselines around its recovery point, and write the report."""

from __future__ import annotations

from typing import Any

from aurora_backup import deployment
from aurora_backup.recovery_edges import Edges, now_of
from aurora_backup.reports import restore_report
from aurora_backup.validation import Expectation, validate


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Return `{outcome, report, rto_seconds, rpo_seconds, reasons}`. event: `{plan, read: {facts, first_query}, now}`.

    report: the key of the report; a recovery's is part of the hand-over document later.
    """
    edges = Edges.from_environment()
    options, store = edges.options, edges.store
    plan = store.plan(event["plan"])
    before, after = store.baselines(plan.source_resource_id, plan.point.moment)
    expected = Expectation(
        moment=plan.point.moment,
        precise=plan.point.identifier is None,
        before=before,
        after=after,
        beat=options.beat,
        recent_within=options.validation.recent_within,
        tolerances=options.validation.tolerances,
        reasons={check.name: check.reason for checks in options.validation.checks.values() for check in checks},
    )
    result = validate(store.facts(event["read"]["facts"]), expected)
    first_query = deployment.moment("first_query", event["read"]["first_query"])
    report = restore_report(plan, result, first_query=first_query, finished=now_of(event))
    return {
        "outcome": result.outcome.value,
        "report": store.keep_test_report(plan, report),
        "rto_seconds": report["rto_seconds"],
        "rpo_seconds": report["rpo_seconds"],
        "checks": {check.name: check.verdict.value for check in result.checks},
    }
