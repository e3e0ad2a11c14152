"""The compliance report as a document: what an auditor, a program and the page all read. Pure.

`build` makes schema 1, published in docs/schemas/compliance-report-1.json. It holds verdicts and measurements, names of
databases and recovery points, and never a row of a table.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from aurora_backup.access_documents import DocumentError
from aurora_backup.checks import CHECKS
from aurora_backup.checks_completion import begun, missed, points_of, streams
from aurora_backup.compliance import Assessment, Expected, Verification, assess
from aurora_backup.compliance_facts import FactMissing, Reader
from aurora_backup.compliance_principals import answers
from aurora_backup.controls import default_controls, judge, read_controls
from aurora_backup.forecast_page import section
from aurora_backup.schedule import Schedule, require_utc
from aurora_backup.validation import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from aurora_backup.checks_completion import Point, Stream
    from aurora_backup.compliance_facts import Node

SCHEMA = 1
KIND = "compliance-report"
TIMELINE = timedelta(days=365)
_T = TypeVar("_T")
_LEVELS = {
    "declared": "a setting that says what will happen, read back from the service",
    "observed": "the thing itself, seen by a call",
    "restored": "a restore that was queried",
}


@dataclass(frozen=True)
class Report:
    """The document, and the assessment that it renders."""

    document: dict[str, Any]
    assessment: Assessment

    def to_json(self) -> str:
        """The document as text, sorted and indented: one text for one document."""
        return json.dumps(self.document, sort_keys=True, indent=1, ensure_ascii=True, allow_nan=False)


def build(
    facts: Mapping[str, Any],
    expected: Expected,
    *,
    now: datetime,
    execution: str,
    controls: str | None = None,
    before: Mapping[str, Any] | None = None,
) -> Report:
    """Assess the facts and say everything that the report says. controls: an own table (JSON), instead of ours.

    before: the last report's document; what it forecast on the same day, from the same, is not computed again.

    Raises ControlsError: the own table is malformed.
    """
    now = require_utc(now, "now")
    table = read_controls(controls or default_controls(), (spec.id for spec in CHECKS))
    assessment = assess(facts, expected, now, checks=CHECKS)
    read = Reader(facts, now)
    document = {
        "schema": SCHEMA,
        "kind": KIND,
        "generated_at": now.isoformat(),
        "execution": execution,
        "owner": expected.owner,
        "cluster": {"identifier": expected.cluster_id, "resource_ids": list(expected.lineage)},
        "compliance_status": assessment.status.value,
        "remediation_needed": assessment.remediation_needed,
        "levels": _LEVELS,
        "verifications": [_verification(assessment, name) for name in Verification],
        "checks": [_result(r) for r in assessment.results],
        "not_applicable": [{"id": s.id, "title": s.title} for s in assessment.not_applicable],
        "findings": [
            {name: row[name] for name in ("title", "verdict", "level", "reason", "remedy")} | {"check": r.spec.id}
            for r in sorted(assessment.results, key=lambda r: r.verdict is not Verdict.FAIL)
            if r.verdict is not Verdict.PASS
            for row in [_result(r)]
        ],
        "controls": [
            {**dataclasses.asdict(c.control), "checks": list(c.checks), "verdict": c.verdict.value}
            for c in judge(table, assessment)
        ],
        "objectives": [_objective(read, expected, stream) for stream in streams(expected.policy)]
        + [_point_in_time(read)],
        "timeline": _timeline(read, expected, now),
        "recovery_tests": _recovery_tests(read),
        "legal_holds": _legal_holds(read),
        "who_can_delete": _who_can_delete(read, expected),
        "points": _points(read, expected),
        "costs": _costs(read),
        "policy": json.loads(expected.policy.to_json()),
    }
    document["forecast"] = _forecast(read, expected, now, document["policy"], before or {})
    return Report(document, assessment)


def documents_beside(facts: Mapping[str, Any], now: datetime) -> list[dict[str, Any]] | None:
    """The documents beside the chain that the report's record names; None when they could not be listed.

    What the record before named stays as it was named, also where it is gone or was rewritten since.
    """
    read, fields = Reader(facts, require_utc(now, "now")), ("key", "sha256")

    def rows(nodes: list[Node]) -> dict[str, dict[str, Any]]:
        return {n.text("key"): {f: n.text(f) for f in fields} | {"bytes": n.number("bytes")} for n in nodes}

    def both() -> list[dict[str, Any]]:
        found, before = rows(read.observation("documents").each()), rows(read.observation("previous").each("documents"))
        kept = {key: row for key, row in before.items() if found.get(key) != row}
        return [row for _, row in sorted((found | kept).items())]

    return _known(both)


def _verification(assessment: Assessment, name: Verification) -> dict[str, Any]:
    mine = [r for r in assessment.results if r.spec.verification is name]
    counts = {v.value.lower(): sum(r.verdict is v for r in mine) for v in Verdict}
    return {"name": name.value, "verdict": assessment.verification(name).value, **counts}


def _result(result: Any) -> dict[str, Any]:
    return {
        "id": result.spec.id,
        "verification": result.spec.verification.value,
        "title": result.spec.title,
        "level": result.spec.level.value,
        "verdict": result.verdict.value,
        "reason": result.reason,
        "remedy": result.spec.remedy,
        "examined": result.examined,
        "evidence": [dataclasses.asdict(e) for e in result.evidence],
    }


def _known(read: Callable[[], _T]) -> _T | None:
    """What can be shown beside the verdicts; None when it cannot be known: the checks say why."""
    try:
        return read()
    except (FactMissing, DocumentError):
        return None


def _points_of(stream: Stream, read: Reader, expected: Expected) -> list[Point] | None:
    return _known(lambda: points_of(stream, read, expected))


def _objective(read: Reader, expected: Expected, stream: Stream) -> dict[str, Any]:
    points = _points_of(stream, read, expected)
    newest = {p.series: p for p in points or []}
    oldest_newest = min((p.created for p in newest.values()), default=None)
    due = Schedule(stream.schedule).next(read.now)
    return {
        "stream": stream.name,
        "tier": stream.tier.value,
        "schedule": stream.schedule,
        "recovery_points": None if points is None else len(points),
        "newest": oldest_newest.isoformat() if oldest_newest else None,
        "rpo_seconds": max(0, int((read.now - oldest_newest).total_seconds())) if oldest_newest else None,
        "next": due.isoformat() if due else None,
    }


def _point_in_time(read: Reader) -> dict[str, Any]:
    latest = _known(lambda: read.observation("cluster").moment("latest"))
    return {
        "stream": "point-in-time",
        "tier": "automated",
        "schedule": "continuous",
        "recovery_points": None,
        "newest": latest.isoformat() if latest else None,
        "rpo_seconds": max(0, int((read.now - latest).total_seconds())) if latest else None,
        "next": None,
    }


def _timeline(read: Reader, expected: Expected, now: datetime) -> dict[str, Any]:
    begin = now - TIMELINE
    lanes = []
    for stream in streams(expected.policy):
        points, since = _points_of(stream, read, expected), _known(lambda s=stream: begun(s, read)) or now  # type: ignore[misc]
        shown = [p for p in points or [] if p.created >= begin]
        gaps = {
            due
            for one in {p.series for p in points or []}
            for due in missed(stream, [p for p in points or [] if p.series == one], since, expected, now)
            if due >= begin
        }
        lanes.append(
            {
                "stream": stream.name,
                "known": points is not None,
                "points": sorted({p.created.isoformat() for p in shown}),
                "missed": sorted(due.isoformat() for due in gaps),
                "older": len(points or []) - len(shown),
            }
        )
    window = _known(lambda: [read.observation("cluster").moment(n).isoformat() for n in ("earliest", "latest")])
    return {"from": begin.isoformat(), "to": now.isoformat(), "lanes": lanes, "point_in_time": window}


def _points(read: Reader, expected: Expected) -> list[dict[str, Any]]:
    """Every recovery point that was seen: what the next report holds against what it sees."""
    return [
        {
            "stream": point.stream,
            "series": point.series,
            "id": point.identifier,
            "created": point.created.isoformat(),
            "until": point.until.isoformat() if point.until else None,
        }
        for stream in streams(expected.policy)
        for point in _points_of(stream, read, expected) or []
    ]


def _recovery_tests(read: Reader) -> list[dict[str, Any]]:
    """Those whose time and outcome are known, the newest first."""

    def row(test: Node) -> dict[str, Any]:
        optional = {name: _known(lambda n=name: test.number(n)) for name in ("rto_seconds", "rpo_seconds")}  # type: ignore[misc]
        finished, outcome = test.moment("finished").isoformat(), test.text("outcome")
        return {"finished": finished, "outcome": outcome, "tier": _known(lambda: test.text("tier")), **optional}

    tests = _known(lambda: read.observation("recovery-tests").each()) or []
    rows = [_known(lambda t=test: row(t)) for test in tests]  # type: ignore[misc]
    return sorted((r for r in rows if r), key=lambda r: str(r["finished"]), reverse=True)


def _legal_holds(read: Reader) -> list[dict[str, Any]] | None:
    """What is held, by which matter and since when; None when it could not be read."""
    fields = ("what", "matter", "since", "by")
    return _known(lambda: [{f: hold.text(f) for f in fields} for hold in read.observation("legal-holds").each()])


def _costs(read: Reader) -> dict[str, Any] | None:
    """What a month of what exists costs, by tier; None when the last retention plan did not say."""

    def row(tier: Node) -> dict[str, Any]:
        cost = tier.at("cost").value
        if isinstance(cost, bool) or not isinstance(cost, (int, float)):
            raise FactMissing(f"{tier.path}.cost must be a number")
        return {"tier": tier.text("tier"), "kind": tier.text("kind"), "cost": round(cost, 2)}

    def rows() -> dict[str, Any]:
        found = read.observation("storage").at("costs")
        if not found.is_null("problem"):
            raise FactMissing(found.text("problem"))
        about = {name: found.text(name) for name in ("currency", "as_of", "region")}
        return {"at": found.moment("at").isoformat(), **about, "tiers": [row(t) for t in found.each("tiers")]}

    return _known(rows)


def _forecast(
    read: Reader, expected: Expected, now: datetime, policy: Mapping[str, Any], before: Mapping[str, Any]
) -> dict[str, Any]:
    """What the policy will keep and cost: the document of `forecast_page.section`."""
    size = _known(lambda: read.observation("storage").number("bytes") / 1e9)
    region = expected.key_arn.split(":")[3]
    known = before.get("forecast") or {}
    asked = (now.date().isoformat(), region, size, expected.snapshot_quota, policy)
    if asked == (
        known.get("from"),
        known.get("region"),
        known.get("workload", {}).get("size_gb"),
        known.get("snapshot_quota"),
        before.get("policy"),
    ):
        return dict(known)
    start, quota = now.date(), expected.snapshot_quota
    return section(expected.policy, region=region, size_gb=size, start=start, quota=quota).document


def _who_can_delete(read: Reader, expected: Expected) -> list[dict[str, Any]]:
    """Who can delete what. who: None when nobody can tell. sometimes: those of them who can under conditions."""
    guards = {t.guard for t in expected.targets if t.guard is not None}
    documents = {name: _known(lambda n=name: read.observation(n).at("document")) for name in guards}  # type: ignore[misc]
    rows = answers(
        expected.targets,
        {name: node.value for name, node in documents.items() if node is not None},
        _known(lambda: _identities(read)),
        expected.key_arn.split(":")[4],
    )
    shown = [
        {
            "what": row.what,
            "who": None if row.who is None else sorted(row.who),
            "sometimes": sorted(arn for arn, how in (row.who or {}).items() if how == "sometimes"),
            "by": row.rests_on,
        }
        for row in rows
    ]
    planned = {"what": "expired snapshots and sets, by plan", "who": list(expected.deleters), "sometimes": []}
    return [*shown, {**planned, "by": "this package's own roles"}]


def _identities(read: Reader) -> dict[str, Any]:
    found = read.observation("identities")
    principals = [
        {"arn": one.text("arn"), "may": {name: str(how.value) for name, how in one.at("may").members()}}
        for one in found.each("principals")
    ]
    return {"principals": principals, "unread": found.texts("unread")}
