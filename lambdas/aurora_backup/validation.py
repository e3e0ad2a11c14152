"""The four validations of a restored copy, as checks over facts. Pure.

Each check ends PASS, FAIL or UNKNOWN, with its reason; UNKNOWN is never a pass. A copy is called RESTORED only when
every check passed, and the report says what was queried to know it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from aurora_backup.baseline import NO_ANSWER, RECENCY, Bound, bound, tolerance_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from aurora_backup.baseline import Database, Facts, Heartbeat

SCHEMA = 1
_BOTH = 2
_NAMED = 20  # findings named in one reason; the rest are counted
_SKEW = timedelta(seconds=5)
_ESTIMATE = 0.2  # how far the planner's estimate may be from the bound before it says nothing


class Verdict(StrEnum):
    """How a check ended."""

    PASS = "PASS"  # noqa: S105  a verdict, not a password
    FAIL = "FAIL"
    UNKNOWN = "UNKNOWN"


class Outcome(StrEnum):
    """What a recovery test showed: a restore that was queried and passed, one that did not pass, or no proof."""

    RESTORED = "RESTORED"
    DAMAGED = "DAMAGED"
    NOT_PROVED = "NOT PROVED"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or cannot be known, about one object."""

    verdict: Verdict
    text: str


@dataclass(frozen=True)
class Check:
    """One validation. examined: how many objects it looked at."""

    name: str
    verdict: Verdict
    reason: str
    examined: int


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What a restored copy is held against.

    moment: the recovery point's time. precise: the copy must hold nothing newer (point-in-time recovery). before and
    after: the baselines around it; for a logical set both are its own manifest's facts. beat: the time between two
    heartbeats; recent_within: how much older than the recovery point the caller's recency query may answer.
    tolerances: see `baseline.tolerance_of`. reasons: the caller's own checks, name -> what it means when one fails.
    """

    moment: datetime
    precise: bool = False
    before: Facts | None = None
    after: Facts | None = None
    beat: timedelta = timedelta(minutes=5)
    recent_within: timedelta | None = None
    tolerances: Mapping[str, float] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def baselines(self) -> list[Facts]:
        """Those that are known."""
        return [facts for facts in (self.before, self.after) if facts]

    def pair(self, database: str) -> tuple[Database | None, Database | None]:
        """Give a database's baselines before and after."""
        before, after = (facts.databases.get(database) if facts else None for facts in (self.before, self.after))
        return before, after

    def certain(self) -> bool:
        """Whether both baselines are known: only then is a difference a fault and not perhaps a change."""
        return self.before is not None and self.after is not None


@dataclass(frozen=True, kw_only=True)
class Result:
    """Four checks and what they add up to. rpo: how much older than the recovery point the last proven write is."""

    outcome: Outcome
    checks: tuple[Check, ...]
    rpo: timedelta | None
    queried: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """JSON-like, for the report. Seconds are whole or None."""
        return {
            "outcome": self.outcome.value,
            "rpo_seconds": None if self.rpo is None else math.ceil(self.rpo.total_seconds()),
            "checks": [
                {"name": c.name, "verdict": c.verdict.value, "reason": c.reason, "examined": c.examined}
                for c in self.checks
            ],
            "queried": self.queried,
        }


def validate(found: Facts, expected: Expectation) -> Result:
    """Hold a restored copy's facts against what is expected of it."""
    checks = tuple(
        check(found, expected) for check in (record_counts, recent_transactions, data_integrity, permissions)
    )
    verdicts = {check.verdict for check in checks}
    outcome = (
        Outcome.DAMAGED
        if Verdict.FAIL in verdicts
        else Outcome.NOT_PROVED
        if Verdict.UNKNOWN in verdicts
        else Outcome.RESTORED
    )
    databases = found.databases.values()
    tables = [table for database in databases for table in database.tables.values()]
    queried = {
        "databases": len(found.databases),
        "tables_counted": sum(table.exact and table.rows is not None for table in tables),
        "tables_estimated": sum(not table.exact for table in tables),
        "objects_checked_by_amcheck": sum(d.integrity.checked for d in databases if d.integrity),
    }
    return Result(outcome=outcome, checks=checks, rpo=_rpo(found, expected), queried=queried)


def record_counts(found: Facts, expected: Expectation) -> Check:
    """Every table of the baselines is there, with a number of rows that it can have had at the recovery point."""
    findings, examined = _databases(found, expected), 0
    for name, database in found.databases.items():
        before, after = expected.pair(name)
        known = [d for d in (before, after) if d]
        for table in sorted({*database.tables, *(t for d in known for t in d.tables)}):
            examined += 1
            findings += _count(f"{name}.{table}", table, database, before, after, expected)
    exact = "exact for a logical set" if expected.before is expected.after else "within the bounds of the baselines"
    return _check("record counts", findings, examined, f"{examined} tables are {exact}")


def _count(
    name: str,
    table: str,
    database: Database,
    before: Database | None,
    after: Database | None,
    expected: Expectation,
) -> list[Finding]:
    then, later = (d.tables.get(table) if d else None for d in (before, after))
    here = database.tables.get(table)
    if here is None:
        if then and later:
            return [Finding(Verdict.FAIL, f"{name} is missing from the restored copy")]
        text = f"{name} is missing from the restored copy, and only one baseline was taken"
        return [] if expected.certain() else [Finding(Verdict.UNKNOWN, text)]
    limits = bound(then, later, tolerance_of(name, expected.tolerances))
    if here.rows is None:
        return [Finding(Verdict.UNKNOWN, f"{name} could not be counted")]
    if limits is None:
        made_meanwhile = expected.certain() and not (then or later)
        text = f"{name} has {here.rows} rows and no baseline counted it"
        return [] if made_meanwhile else [Finding(Verdict.UNKNOWN, text)]
    return _outside(name, here.rows, limits, exact=here.exact)


def _outside(name: str, rows: int, limits: Bound, *, exact: bool) -> list[Finding]:
    if not exact:
        return _estimate(name, rows, limits)
    if limits.low <= rows <= limits.high:
        return []
    text = f"{name} has {rows} rows, expected {_range(limits)}"
    if limits.doubtful:
        return [Finding(Verdict.UNKNOWN, f"{text}, but {limits.doubtful}")]
    return [Finding(Verdict.FAIL, text)]


def _estimate(name: str, rows: int, limits: Bound) -> list[Finding]:
    if limits.low * (1 - _ESTIMATE) <= rows <= limits.high * (1 + _ESTIMATE):
        return []
    return [Finding(Verdict.UNKNOWN, f"{name} has an estimated {rows} rows, expected {_range(limits)}")]


def _range(limits: Bound) -> str:
    return str(limits.low) if limits.low == limits.high else f"{limits.low} to {limits.high}"


def recent_transactions(found: Facts, expected: Expectation) -> Check:
    """The last heartbeat before the recovery point survived and none before it is missing; or the caller's query."""
    findings: list[Finding] = []
    examined = 0
    for name, database in found.databases.items():
        before, after = expected.pair(name)
        known = [d.heartbeat for d in (before, after) if d and d.heartbeat]
        if database.heartbeat:
            examined += 1
            findings += _beats(name, database.heartbeat, known, before.heartbeat if before else None, expected)
        elif "the heartbeat" in database.unreadable:
            why = database.unreadable["the heartbeat"]
            findings.append(Finding(Verdict.UNKNOWN, f"{name}: the heartbeat could not be read: {why}"))
        elif before and before.heartbeat:
            examined += 1
            findings.append(Finding(Verdict.FAIL, f"{name}: the heartbeat table is missing or empty"))
        if expected.recent_within is not None and database.recency:
            examined += 1
            findings += _recency(name, database.recency, expected.recent_within, expected.moment)
        elif RECENCY in database.unreadable:
            examined += 1
            findings.append(_no_recency(name, database.unreadable[RECENCY], before, after))
    nothing = "there is no heartbeat and no recency query to tell by"
    return _check("recent transactions", findings, examined, _recent(found, expected), nothing)


def _beats(
    name: str, beats: Heartbeat, known: list[Heartbeat], before: Heartbeat | None, expected: Expectation
) -> list[Finding]:
    texts = []
    if beats.missing:
        texts.append(f"{name}: {beats.missing} of the heartbeats {beats.first} to {beats.last} are missing")
    if known and beats.first > max(beat.first for beat in known):
        texts.append(f"{name}: the heartbeats before {beats.first} are missing")
    if before and beats.last < before.last:
        texts.append(
            f"{name}: stale copy: the last heartbeat is {beats.last}, but {before.last} was written before the "
            "recovery point"
        )
    age, allowed = expected.moment - beats.last_at, 2 * expected.beat + _SKEW
    if age > allowed:
        texts.append(
            f"{name}: stale copy: the last heartbeat is {_seconds(age)} older than the recovery point, "
            f"allowed are {_seconds(allowed)}"
        )
    if expected.precise and age < -_SKEW:
        texts.append(f"{name}: the last heartbeat is {_seconds(-age)} newer than the recovery point")
    return [Finding(Verdict.FAIL, text) for text in texts]


def _recency(name: str, newest: datetime, within: timedelta, moment: datetime) -> list[Finding]:
    age = moment - newest
    if age <= within:
        return []
    text = f"{name}: stale copy: the recency query answers {_seconds(age)} before the recovery point, allowed are"
    return [Finding(Verdict.FAIL, f"{text} {_seconds(within)}")]


def _no_recency(name: str, why: str, before: Database | None, after: Database | None) -> Finding:
    if why == NO_ANSWER and before and before.recency and (after is None or after.recency):
        return Finding(Verdict.FAIL, f"{name}: {RECENCY} answers NULL, and on the source it answered a time")
    return Finding(Verdict.UNKNOWN, f"{name}: {RECENCY} could not be read: {why}")


def _newest(found: Facts) -> list[datetime]:
    databases = found.databases.values()
    return [d.heartbeat.last_at for d in databases if d.heartbeat] + [d.recency for d in databases if d.recency]


def _rpo(found: Facts, expected: Expectation) -> timedelta | None:
    newest = _newest(found)
    return max(expected.moment - max(newest), timedelta(0)) if newest else None


def _recent(found: Facts, expected: Expectation) -> str:
    lost = _rpo(found, expected)
    return f"the last proven write is {_seconds(lost)} before the recovery point" if lost is not None else ""


def _seconds(span: timedelta) -> str:
    return f"{math.ceil(span.total_seconds())} s"


def data_integrity(found: Facts, expected: Expectation) -> Check:
    """Read indexes and tables with amcheck; constraints, indexes, sequences and extensions are there and valid."""
    findings, examined, checked = _databases(found, expected), 0, 0
    for name, database in found.databases.items():
        before, after = expected.pair(name)
        for kind in ("constraints", "indexes", "extensions", "sequences"):
            read = _field(kind)
            examined += len(read(database))
            label = {"indexes": "index"}.get(kind, kind.removesuffix("s"))
            missing = _missing(read(database), read(before), read(after), expected)
            findings += [Finding(v, f"{name}: {label} {text} is missing") for v, text in missing]
        source = {text for d in (before, after) if d for text in d.invalid}
        findings += [Finding(Verdict.FAIL, f"{name}: {text}") for text in database.invalid if text not in source]
        examined += 1
        if database.integrity is None:
            findings.append(Finding(Verdict.UNKNOWN, f"{name}: amcheck was not run"))
            continue
        checked += database.integrity.checked
        findings += _integrity(name, database, expected)
    answered = {name for d in found.databases.values() if d.integrity for name in d.integrity.checks}
    findings += [
        Finding(Verdict.UNKNOWN, f"{name} was asked for and has no answer: its database was not read")
        for name in sorted(expected.reasons.keys() - answered)
    ]
    reason = f"{checked} tables and indexes were read by amcheck, {examined} catalogue entries compared"
    return _check("data integrity", findings, examined, reason)


def _integrity(name: str, database: Database, expected: Expectation) -> list[Finding]:
    result = database.integrity
    if result is None:
        return []
    corrupt = [Finding(Verdict.FAIL, f"{name}: {what} is corrupt: {said}") for what, said in result.corrupt.items()]
    unread = [
        Finding(Verdict.UNKNOWN, f"{name}: {what} was not checked: {why}") for what, why in result.unchecked.items()
    ]
    asked = []
    for check, answer in result.checks.items():
        if answer is False:
            asked.append(Finding(Verdict.FAIL, f"{name}: {check}: {expected.reasons.get(check, 'the answer differs')}"))
        elif answer is not True:
            asked.append(Finding(Verdict.UNKNOWN, f"{name}: {check} could not run: {answer}"))
    return corrupt + unread + asked


def permissions(found: Facts, expected: Expectation) -> Check:
    """Compare roles, memberships, owners, grants, default privileges and row-level security with the baselines."""
    findings = _databases(found, expected)
    # Roles are read through a database: a baseline that could open none knows no roles.
    then, later = (f.roles if f and f.databases else None for f in (expected.before, expected.after))
    examined = 0 if then is later is None else len(found.roles)
    findings += [Finding(v, f"{text} is lost") for v, text in _missing(found.roles, then, later, expected)]
    findings += [Finding(v, f"{text} is new") for v, text in _extra(found.roles, then, later, expected)]
    for name, database in found.databases.items():
        old, new = (d.permissions if d else None for d in expected.pair(name))
        examined += len(database.permissions)
        findings += [
            Finding(v, f"{name}: {text} is lost") for v, text in _missing(database.permissions, old, new, expected)
        ]
        findings += [
            Finding(v, f"{name}: {text} is new") for v, text in _extra(database.permissions, old, new, expected)
        ]
    return _check("permissions", findings, examined, f"{examined} roles and permissions are as in the baselines")


def _field(kind: str) -> Callable[[Any], Any]:
    return lambda database: getattr(database, kind) if database is not None else None


def _missing(
    found: Iterable[str], before: Iterable[str] | None, after: Iterable[str] | None, expected: Expectation
) -> list[tuple[Verdict, str]]:
    known = [set(side) for side in (before, after) if side is not None]
    if not expected.certain():
        return [(Verdict.UNKNOWN, text) for text in sorted(set().union(*known) - set(found))]
    if len(known) < _BOTH:
        return []  # the database was made or dropped between the baselines
    return [(Verdict.FAIL, text) for text in sorted(known[0] & known[1] - set(found))]


def _extra(
    found: Iterable[str], before: Iterable[str] | None, after: Iterable[str] | None, expected: Expectation
) -> list[tuple[Verdict, str]]:
    known = [set(side) for side in (before, after) if side is not None]
    if not known or (expected.certain() and len(known) < _BOTH):
        return []
    verdict = Verdict.FAIL if expected.certain() else Verdict.UNKNOWN
    return [(verdict, text) for text in sorted(set(found).difference(*known))]


def _databases(found: Facts, expected: Expectation) -> list[Finding]:
    findings = [Finding(Verdict.UNKNOWN, f"{name}: {why}") for name, why in sorted(found.failed.items())]
    findings += [
        Finding(Verdict.UNKNOWN, f"{name}: {what} could not be read: {why}")
        for name, database in found.databases.items()
        for what, why in database.unreadable.items()
    ]
    if not expected.baselines:
        return [*findings, Finding(Verdict.UNKNOWN, "no baseline was found near the recovery point")]
    unread = {name: why for facts in expected.baselines for name, why in facts.failed.items()}
    findings += [
        Finding(Verdict.UNKNOWN, f"{name} is not compared whole, a baseline could not read it: {why}")
        for name, why in sorted(unread.items())
    ]
    there = {*found.databases, *found.failed}
    names = [{*facts.databases, *facts.failed} for facts in expected.baselines]
    read = {name for facts in expected.baselines for name in facts.databases}
    certain = names[0].intersection(*names[1:]) & read
    verdict = Verdict.FAIL if expected.certain() else Verdict.UNKNOWN
    return findings + [Finding(verdict, f"database {name} is missing") for name in sorted(certain - there)]


def _check(
    name: str, findings: list[Finding], examined: int, reason: str, nothing: str = "there was nothing to examine"
) -> Check:
    for verdict in (Verdict.FAIL, Verdict.UNKNOWN):
        texts = [finding.text.strip() for finding in findings if finding.verdict is verdict]
        if texts:
            more = f"; and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
            return Check(name, verdict, "; ".join(texts[:_NAMED]) + more, examined)
    if examined == 0:
        return Check(name, Verdict.UNKNOWN, nothing, 0)
    return Check(name, Verdict.PASS, reason, examined)
