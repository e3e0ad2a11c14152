"""Completion: the newest recovery point of each tier against its schedule, what was missed, and what failed. Pure.

A stream is one thing that the policy makes by a schedule: a tier kept as snapshots, or as dump sets under a prefix. Its
series are the databases of its sets; snapshots have one series, named "". What the report before saw is held against
what is there now, so that a point that went before its time is missed although its run succeeded.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

from aurora_backup.compliance import CheckSpec, Expected, Found, Level, Tally, cluster_of, unknown
from aurora_backup.policy import Prefix, RetentionPolicy, Tier
from aurora_backup.retention import LATE
from aurora_backup.schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import Callable

    from aurora_backup.compliance_facts import Node, Reader

PITR_LAG = timedelta(hours=1)  # Aurora's latest restorable time is usually five minutes behind
WINDOW = timedelta(days=35)  # how far back runs are looked at
_SHOWN = 5  # dates named in one reason
_EARLY = timedelta(hours=1)  # a point belongs to the run that was due at most this long after it
_GOOD_POINTS = {"COMPLETED", "AVAILABLE"}
_FAILED_JOBS = {"FAILED", "ABORTED", "EXPIRED", "PARTIAL"}
_FAILED_RUNS = {"FAILED", "TIMED_OUT", "ABORTED"}
_SET_TIERS = {"daily": Tier.AUTOMATED, "weekly": Tier.LOGICAL, "monthly": Tier.MONTHLY}


@dataclass(frozen=True)
class Stream:
    """What one schedule makes. name: also the last part of the check's id. prefix: None for snapshots."""

    name: str
    tier: Tier
    schedule: str
    prefix: Prefix | None


@dataclass(frozen=True)
class Point:
    """One recovery point of a stream. until: when it may go."""

    stream: str
    series: str
    identifier: str
    created: datetime
    until: datetime | None


def streams(policy: RetentionPolicy) -> tuple[Stream, ...]:
    """What the policy makes by schedule."""
    snapshots = [Stream(rule.name, Tier(rule.name), rule.schedule, None) for rule in policy.snapshot_rules()]
    names = {"daily": "daily-sets", "weekly": "logical", "monthly": "monthly-sets"}
    sets = [Stream(names[d.name], _SET_TIERS[d.name], d.schedule, d.prefix) for d in policy.dump_schedules()]
    return (*snapshots, *sets)


def points_of(stream: Stream, read: Reader, expected: Expected) -> list[Point]:
    """The finished recovery points of a stream, oldest first. Raises FactMissing when one cannot be judged."""
    keep = expected.policy.keep(stream.tier)
    found = []
    if stream.prefix is None:
        for point in read.observation("recovery-points").each():
            if not point.is_null("tier") and point.text("tier") == stream.tier and point.text("status") in _GOOD_POINTS:
                until = None if point.is_null("delete_at") else point.moment("delete_at")
                found.append(Point(stream.name, "", point.text("arn"), point.moment("created"), until))
    else:
        for item in read.observation("sets").each():
            if item.text("prefix") == stream.prefix.value and not _failed_verification(item):
                started = item.moment("started")
                until = keep.until(started) if keep else None
                found.append(Point(stream.name, item.text("database"), item.text("set"), started, until))
    return sorted(found, key=lambda p: (p.created, p.identifier))


def _failed_verification(item: Node) -> bool:
    if item.is_null("verification"):
        return False
    return any(not tier.is_null("ok") and not tier.flag("ok") for _, tier in item.at("verification").members())


def begun(stream: Stream, read: Reader) -> datetime:
    """Since when the stream is made at all."""
    if stream.prefix is None:
        return read.observation("plan").moment("created")
    flows = {flow.text("name"): flow for flow in read.observation("workflows").each()}
    if "LogicalBackup" not in flows:
        from aurora_backup.compliance_facts import FactMissing

        raise FactMissing("workflows does not name LogicalBackup")
    return flows["LogicalBackup"].moment("created")


def _known(read: Reader, stream: Stream) -> list[Point]:
    """What the report before saw of this stream, and what must still be there."""
    found = []
    for point in read.observation("previous").each("points"):
        if point.text("stream") == stream.name:
            until = None if point.is_null("until") else point.moment("until")
            if until is None or until > read.now:
                created = point.moment("created")
                found.append(Point(stream.name, point.words("series"), point.text("id"), created, until))
    return found


def _newest(name: str) -> Callable[[Reader, Expected], Found]:
    def check(read: Reader, expected: Expected) -> Found:
        stream = next(s for s in streams(expected.policy) if s.name == name)
        points, known = points_of(stream, read, expected), _known(read, stream)
        series = sorted({p.series for p in (*points, *known)} | _databases(stream, read, expected))
        tally = Tally()
        newest = []
        for one in series or [""]:
            mine = [p for p in points if p.series == one]
            tally.examined += 1
            if problem := _behind(stream, one, mine, [p for p in known if p.series == one], read):
                (tally.problems if problem[0] else tally.unknown).append(problem[1])
            if mine:
                newest.append(mine[-1].created)
        age = read.now - min(newest) if newest else timedelta(0)
        return tally.conclude(
            f"the newest is {_span(age)} old, {_span(longest_gap(stream.schedule) + LATE)} are allowed"
        )

    return check


def _databases(stream: Stream, read: Reader, expected: Expected) -> set[str]:
    """The databases that must have sets: those that are named, and those that have one, good or not."""
    if stream.prefix is None:
        return set()
    sets = read.observation("sets").each()
    return {item.text("database") for item in sets if item.text("prefix") == stream.prefix} | set(expected.databases)


def _behind(
    stream: Stream, series: str, points: list[Point], known: list[Point], read: Reader
) -> tuple[bool, str] | None:
    """Whether it is certain, and what is wrong with the newest point of a series; None when nothing is."""
    what = f"{stream.name} of {series}" if series else stream.name
    newest = points[-1] if points else None
    gone = [p for p in known if newest is None or p.created > newest.created]
    if gone:
        last = max(gone, key=lambda p: p.created)
        return True, f"{what}: the newest recovery point, {last.identifier}, was there at the report before and is gone"
    if newest is None:
        since = begun(stream, read)
        due = Schedule(stream.schedule).next(since)
        if due is not None and due + LATE < read.now:
            return True, f"{what}: there is no recovery point, and the first was due on {due:%Y-%m-%d %H:%M} UTC"
        return False, f"{what}: no run was due yet; the first is due on {due:%Y-%m-%d %H:%M} UTC"
    age, allowed = read.now - newest.created, longest_gap(stream.schedule) + LATE
    if newest.created > read.now + LATE:
        return False, f"{what}: {newest.identifier} was made in the future, on {newest.created.isoformat()}"
    if age > allowed:
        return True, f"{what}: the newest recovery point is {_span(age)} old, {_span(allowed)} are allowed"
    return None


@cache
def longest_gap(schedule: str) -> timedelta:
    """The longest time between two runs of an AWS cron expression; expanding it takes a moment, so only once."""
    return Schedule(schedule).longest_gap()


def _span(span: timedelta) -> str:
    hours = int(span.total_seconds()) // 3600
    return f"{hours // 24} d {hours % 24} h" if hours >= 24 else f"{hours} h {int(span.total_seconds()) // 60 % 60} min"  # noqa: PLR2004


def _history(read: Reader, expected: Expected) -> Found:
    tally = Tally()
    for stream in streams(expected.policy):
        points, known = points_of(stream, read, expected), _known(read, stream)
        for one in sorted({p.series for p in points}):
            mine = [p for p in points if p.series == one]
            there = {p.identifier for p in mine}
            tally.examined += len(mine)
            what = f"{stream.name} of {one}" if one else stream.name
            lost = [p for p in known if p.series == one and p.identifier not in there and p.created <= mine[-1].created]
            tally.problems += [f"{what}: {p.identifier} went before its time" for p in lost]
            none = missed(stream, mine, begun(stream, read), expected, read.now)
            if none:
                due = ", ".join(f"{moment:%Y-%m-%d %H:%M} UTC" for moment in none[:_SHOWN])
                more = f" and {len(none) - _SHOWN} more" if len(none) > _SHOWN else ""
                tally.problems.append(f"{what}: no recovery point came of what was due on {due}{more}")
    return tally.conclude(f"no run was missed and nothing went early: {tally.examined} recovery points")


def missed(stream: Stream, points: list[Point], since: datetime, expected: Expected, now: datetime) -> list[datetime]:
    """The runs that were due before the newest point's and left none. since: when the stream began."""
    keep = expected.policy.keep(stream.tier)
    if not points or keep is None:
        return []
    begin = max(min(since, points[0].created - _EARLY), now - timedelta(days=keep.most_days) + LATE)
    due = Schedule(stream.schedule).occurrences(begin, points[-1].created + _EARLY)
    return [
        start
        for start, end in pairwise(due)
        if not any(start - _EARLY <= point.created < end - _EARLY for point in points)
    ]


def _failures(read: Reader, expected: Expected) -> Found:
    tally = Tally()
    runs: list[tuple[str, str, datetime, bool]] = []
    if expected.policy.snapshot_rules():
        for job in read.observation("backup-jobs").each():
            state = job.text("state")
            if state in _FAILED_JOBS | {"COMPLETED"}:
                runs.append(("AWS Backup job", job.text("id"), job.moment("created"), state == "COMPLETED"))
    for run in read.observation("executions").each():
        status = run.text("status")
        if status in _FAILED_RUNS | {"SUCCEEDED"}:
            runs.append((run.text("workflow"), run.text("name"), run.moment("started"), status == "SUCCEEDED"))
    repaired = 0
    for kind, name, when, succeeded in runs:
        tally.examined += 1
        if succeeded:
            continue
        if any(k == kind and ok and later > when for k, _, later, ok in runs):
            repaired += 1
        else:
            tally.problems.append(f"{kind} {name} of {when:%Y-%m-%d %H:%M} UTC failed, and none succeeded after it")
    return tally.conclude(
        f"{tally.examined} runs in {WINDOW.days} days; {repaired} failed and were followed by one that succeeded"
    )


def _restorable(read: Reader, expected: Expected) -> Found:
    cluster, now = cluster_of(read, expected), read.now
    if cluster.is_null("latest") or cluster.is_null("earliest"):
        return Tally().need(False, "the cluster has no restorable time: no point-in-time recovery").conclude("")
    earliest, latest, created = (cluster.moment(name) for name in ("earliest", "latest", "created"))
    if latest > now + LATE:
        return unknown(f"the latest restorable time {latest.isoformat()} is in the future")
    wanted = max(now - timedelta(days=expected.policy.automated.keep_days), created) + LATE
    tally = Tally()
    tally.need(now - latest <= PITR_LAG, f"the latest restorable time is {_span(now - latest)} ago")
    tally.need(
        earliest <= wanted,
        f"the earliest restorable time is {earliest.isoformat()}, not {wanted.isoformat()} or before",
    )
    return tally.conclude(f"any second from {earliest:%Y-%m-%d %H:%M} to {latest:%Y-%m-%d %H:%M} UTC can be restored")


_RUN_NOW = "Start the LogicalBackup workflow now, look at what the last execution says, and mend that."
_BACK_UP_NOW = "Start a backup job of this rule now (aws backup start-backup-job), and look at the last job's message."


def _of_stream(name: str, title: str, remedy: str) -> CheckSpec:
    return CheckSpec(
        id=f"completion.{name}",
        title=title,
        level=Level.OBSERVED,
        remedy=remedy,
        run=_newest(name),
        applies=lambda e: any(s.name == name for s in streams(e.policy)),
    )


COMPLETION = (
    CheckSpec(
        id="completion.point-in-time",
        title="The cluster can be restored to any second of the policy's days, up to the last hour",
        level=Level.OBSERVED,
        remedy="Look at the cluster's events: a stopped or failing cluster, or a retention that was lowered, stops it.",
        run=_restorable,
    ),
    _of_stream("weekly", "The newest weekly snapshot is no older than its schedule allows", _BACK_UP_NOW),
    _of_stream("monthly", "The newest monthly snapshot is no older than its schedule allows", _BACK_UP_NOW),
    _of_stream("daily-sets", "Each database's newest daily dump set is no older than its schedule allows", _RUN_NOW),
    _of_stream("logical", "Each database's newest weekly dump set is no older than its schedule allows", _RUN_NOW),
    _of_stream(
        "monthly-sets", "Each database's newest monthly dump set is no older than its schedule allows", _RUN_NOW
    ),
    CheckSpec(
        id="completion.history",
        title="No run was missed, and no recovery point went before its time",
        level=Level.OBSERVED,
        remedy="A missed run cannot be made up for: note the cause with the evidence. What went early was deleted: "
        "find out from CloudTrail by whom, and look for old versions of a set.",
        run=_history,
        applies=lambda e: bool(streams(e.policy)),
    ),
    CheckSpec(
        id="completion.failures",
        title="Every failed run was followed by one that succeeded",
        level=Level.OBSERVED,
        remedy="Open the named execution or job, mend what its cause names, and start it again.",
        run=_failures,
        applies=lambda e: bool(streams(e.policy)),
    ),
)
