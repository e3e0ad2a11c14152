"""Which recovery points may go, and why each other one stays: the whole decision of the retention manager. Pure.

`decide` takes what was observed (recovery points of every tier), the policy, the holds and the time, and gives one
decision per point. The rules are a table, `RULES`: the first that applies decides. A plan that looks wrong as a whole
is refused by `REFUSALS`, and then nothing in it may be acted on. `check` compares what was observed with the policy,
`vanished` finds what went before its time.

Nothing here reads a clock, the environment or AWS. Times are aware UTC; a naive one raises ValueError.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any

from aurora_backup.policy import MANUAL_SNAPSHOT_QUOTA, Keep, RetentionPolicy, Tier
from aurora_backup.schedule import Schedule, require_utc

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

PLAN_SCHEMA = 1
GUARD_MATTER = "last-good-set"  # the matter under which the manager itself holds the last good set of a tier
LATE = timedelta(days=1)  # how much later than its schedule a backup may be, and an expiry may be carried out
AHEAD = timedelta(hours=1)  # how far the time that is decided by may be ahead of the clock that acts
QUOTA_SHARE = 0.9
_AUTOMATED_SETS_MINIMUM = 1  # daily sets under automated-backups/; the policy gives the other tiers a number
_NEVER = datetime.min.replace(tzinfo=UTC)
_FEW = 1  # a single deletion is a share of nothing: the share limit speaks of two and more


class Kind(StrEnum):
    """What a recovery point is made of, and so who expires it."""

    AUTOMATED = "automated-snapshot"  # Aurora's own; only Aurora can delete it
    RECOVERY_POINT = "recovery-point"  # AWS Backup's; its vault expires it
    SNAPSHOT = "cluster-snapshot"  # a manual RDS cluster snapshot
    SET = "set"  # pg_dump archives in S3, and the manifest that makes them a backup
    STRAY = "stray"  # an object under our prefixes that belongs to no set
    UPLOAD = "upload"  # an unfinished multipart upload


class Status(StrEnum):
    """The state of a recovery point. Whatever a service says that we do not know is UNKNOWN, and kept."""

    AVAILABLE = "available"
    PENDING = "pending"  # still being made
    INCOMPLETE = "incomplete"  # a set without a manifest: being written, or cut short
    FAILED = "failed"
    DELETING = "deleting"
    HIDDEN = "hidden"  # a set behind S3 delete markers: S3 removes it when its noncurrent days are over
    UNKNOWN = "unknown"


class Verified(StrEnum):
    """What the verification record beside a dump set says. Only FAILED is held against a copy."""

    GOOD = "good"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Action(StrEnum):
    """DELETE is the only one that is acted on. WAIT: nothing can be said today, look again tomorrow."""

    KEEP = "keep"
    DELETE = "delete"
    WAIT = "wait"


SWEPT = frozenset({Kind.SNAPSHOT, Kind.SET})
AWS_EXPIRES = frozenset({Kind.AUTOMATED, Kind.RECOVERY_POINT})
S3_EXPIRES = frozenset({Kind.STRAY, Kind.UPLOAD})


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryPoint:
    """One recovery point as it was observed. identifier: an ARN, or a set's key in the bucket, unique in an inventory.

    cluster_resource_id: None when the service did not say. created: None when undated. series: what inside the cluster
    the point holds (the database of a set), because the last copy of one database is no copy of another. expires: the
    expiry that the point itself declares (tag, creation record, AWS Backup lifecycle). size: bytes.
    tagged and recorded: it carries our tag, and our creation record names it; only both make it ours.
    """

    kind: Kind
    tier: Tier | None
    identifier: str
    cluster_resource_id: str | None
    created: datetime | None
    status: Status
    series: str = ""
    expires: datetime | None = None
    size: int = 0
    encrypted: bool | None = None
    tagged: bool = False
    recorded: bool = False
    held: bool = False
    verified: Verified = Verified.UNKNOWN

    def __post_init__(self) -> None:
        for name in ("created", "expires"):
            moment = getattr(self, name)
            if moment is not None:
                object.__setattr__(self, name, require_utc(moment, f"{self.identifier}: {name}"))

    @property
    def ours(self) -> bool:
        """Ours to delete: the tag alone can be forged, the record alone can be stale."""
        return self.tagged and self.recorded

    @property
    def series_key(self) -> tuple[str, str, str]:
        """Points with the same key are copies of the same thing: minimum copies are counted among them."""
        return (self.tier.value if self.tier else "", self.kind.value, self.series)


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens to one point, by which rule, and why. until: its time, when it has one that was looked at.

    relies_on: for a deletion, the good copies that stay because of it; they are looked at again before it happens.
    """

    point: RecoveryPoint
    action: Action
    rule: str
    reason: str
    until: datetime | None = None
    relies_on: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Every decision, sorted by tier, time and identifier, and why none of it may be acted on (empty when it may).

    guard and unguard: dump sets to hold, and to release, so that S3's lifecycle does not expire the last good one.
    """

    decisions: tuple[Decision, ...]
    refused: tuple[str, ...] = ()
    guard: tuple[str, ...] = ()
    unguard: tuple[str, ...] = ()

    @property
    def deletions(self) -> tuple[Decision, ...]:
        """What may be deleted: nothing when the plan is refused."""
        return () if self.refused else self.proposed

    @property
    def proposed(self) -> tuple[Decision, ...]:
        """What would be deleted if the plan were not refused."""
        return tuple(d for d in self.decisions if d.action is Action.DELETE)


# --- One point: its time, and the facts that the rules ask about -----------------------------------------------------


def time_of(point: RecoveryPoint, policy: RetentionPolicy) -> datetime | None:
    """Until when a point must stay: the later of what it declares and what the policy says; None when neither does."""
    return _until(point, policy.keep(point.tier) if point.tier else None)


def _until(point: RecoveryPoint, keep: Keep | None) -> datetime | None:
    if keep is None or point.created is None:
        return point.expires
    until = keep.until(point.created)
    return until if point.expires is None else max(until, point.expires)


def minimum_copies(policy: RetentionPolicy, tier: Tier) -> int:
    """How many good copies of each series of a tier always stay; 0 for a tier that is not made."""
    if tier is Tier.AUTOMATED:
        return _AUTOMATED_SETS_MINIMUM
    made = {
        Tier.WEEKLY: policy.weekly,
        Tier.MONTHLY: policy.monthly,
        Tier.LOGICAL: policy.logical,
        Tier.ON_DEMAND: policy.on_demand,
    }[tier]
    return made.minimum_copies if made else 0


def is_good(point: RecoveryPoint, now: datetime, lineage: Collection[str]) -> bool:
    """Counts as a copy: of this cluster, dated, finished, not failing verification, and not another's to delete."""
    return (
        point.cluster_resource_id in lineage
        and point.status is Status.AVAILABLE
        and point.verified is not Verified.FAILED
        and point.created is not None
        and point.created <= now
        and (point.kind in AWS_EXPIRES or (point.kind in SWEPT and point.ours))
    )


@dataclass(frozen=True, slots=True)
class Case:
    """One point and what the rules may ask about it.

    last_good: one of the newest good copies that the minimum needs. last_resort: damaged, but nothing better is left.
    """

    point: RecoveryPoint
    now: datetime
    own: bool
    matters: tuple[str, ...]
    policy_keeps: bool
    until: datetime | None
    last_good: bool
    last_resort: bool
    minimum: int

    @property
    def undated(self) -> bool:
        return self.point.created is None

    @property
    def future(self) -> bool:
        return self.point.created is not None and self.point.created > self.now

    @property
    def expired(self) -> bool:
        return self.until is not None and self.until <= self.now


# --- The rules -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table. reason is a format string over the case: `{point.status}`, `{until}`, `{matters}`."""

    name: str
    when: Callable[[Case], bool]
    action: Action
    reason: str


RULES: tuple[Rule, ...] = (
    Rule("held", lambda c: bool(c.matters), Action.KEEP, "under legal hold: {matters}"),
    Rule("another-cluster", lambda c: not c.own, Action.KEEP, "of another cluster: {point.cluster_resource_id}"),
    Rule("status-unknown", lambda c: c.point.status is Status.UNKNOWN, Action.KEEP, "its status is not known"),
    Rule("pending", lambda c: c.point.status is Status.PENDING, Action.WAIT, "still being made"),
    Rule("deleting", lambda c: c.point.status is Status.DELETING, Action.WAIT, "already being deleted"),
    Rule("undated", lambda c: c.undated, Action.WAIT, "has no creation time"),
    Rule("future", lambda c: c.future, Action.WAIT, "created in the future: {point.created}"),
    Rule(
        "aws-overdue",
        lambda c: c.point.kind in AWS_EXPIRES and c.expired,
        Action.KEEP,
        "AWS expires it, and should have since {until}",
    ),
    Rule("aws-expires", lambda c: c.point.kind in AWS_EXPIRES, Action.KEEP, "AWS expires it; kept until {until}"),
    Rule("s3-expires", lambda c: c.point.kind in S3_EXPIRES, Action.KEEP, "no backup set; S3's lifecycle removes it"),
    Rule("hidden", lambda c: c.point.status is Status.HIDDEN, Action.KEEP, "deleted before; S3's lifecycle removes it"),
    Rule("no-tier", lambda c: not c.policy_keeps, Action.KEEP, "the policy has no tier {tier}"),
    Rule("untagged", lambda c: not c.point.tagged, Action.KEEP, "not ours: it does not carry our tag"),
    Rule("unrecorded", lambda c: not c.point.recorded, Action.KEEP, "not ours: no creation record names it"),
    Rule("in-time", lambda c: not c.expired, Action.KEEP, "kept until {until}"),
    Rule("minimum", lambda c: c.last_good, Action.KEEP, "expired {until}, but one of the last {minimum} good copies"),
    Rule(
        "last-resort",
        lambda c: c.last_resort,
        Action.KEEP,
        "expired {until} and not good, but fewer than {minimum} good copies are left",
    ),
    Rule("expired", lambda _: True, Action.DELETE, "expired {until}"),
)


def _explain(rule: Rule, case: Case) -> str:
    return rule.reason.format(
        point=case.point,
        tier=case.point.tier or "(none)",
        until=case.until.isoformat() if case.until else "it is deleted by hand",
        matters=", ".join(case.matters),
        minimum=case.minimum,
    )


# --- A whole inventory -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Series:
    """The copies of one thing, newest first, and those among them that must stay."""

    good: tuple[RecoveryPoint, ...]
    keepers: frozenset[str]
    resorts: frozenset[str]
    minimum: int


def _series(
    points: Sequence[RecoveryPoint], policy: RetentionPolicy, now: datetime, lineage: Collection[str]
) -> dict[tuple[str, str, str], _Series]:
    groups: dict[tuple[str, str, str], list[RecoveryPoint]] = {}
    for point in points:
        if point.cluster_resource_id in lineage and point.created is not None and point.created <= now:
            groups.setdefault(point.series_key, []).append(point)
    found = {}
    for key, members in groups.items():
        members.sort(key=_newest_first, reverse=True)
        tier = members[0].tier
        minimum = minimum_copies(policy, tier) if tier else 0
        good = tuple(p for p in members if is_good(p, now, lineage))
        damaged = [p for p in members if p.ours and p.status is Status.AVAILABLE and p.verified is Verified.FAILED]
        found[key] = _Series(
            good,
            frozenset(p.identifier for p in good[:minimum]),
            frozenset(p.identifier for p in damaged[: max(0, minimum - len(good))]),
            minimum,
        )
    return found


def _newest_first(point: RecoveryPoint) -> tuple[datetime | None, str]:
    return (point.created, point.identifier)


_NO_SERIES = _Series((), frozenset(), frozenset(), 0)


def decide(
    points: Iterable[RecoveryPoint],
    policy: RetentionPolicy,
    holds: Mapping[str, Sequence[str]],
    now: datetime,
    *,
    lineage: Collection[str],
    unknown: Sequence[str] = (),
    clock: datetime | None = None,
    ahead: bool = False,
) -> Plan:
    """What happens to each point at `now`, and whether the whole may be acted on.

    holds: identifier of a point -> the matters that hold it. lineage: the resource ids of the cluster and of those that
    it was recovered from, which count as one. unknown: what could not be listed completely; any makes the plan refused.
    clock: what the clock of whoever asks says; None when it has none. ahead: somebody said on purpose that `now` is
    ahead of every clock, so that neither the clock nor the age of the newest copy speaks against it.
    """
    now = require_utc(now, "now")
    points = sorted(points, key=_order)
    own = frozenset(lineage)
    series = _series(points, policy, now, own)
    keeps: dict[Tier | None, Keep | None] = {tier: policy.keep(tier) for tier in Tier}
    decisions = tuple(
        _decide(p, keeps.get(p.tier), holds.get(p.identifier, ()), now, p.cluster_resource_id in own, series)
        for p in points
    )
    doubted = None if ahead or clock is None else require_utc(clock, "clock")
    sweep = _Sweep(decisions, policy, now, own, tuple(unknown), doubted, ahead)
    refused = tuple(reason for refusal in REFUSALS for reason in refusal(sweep))
    guard, unguard = _guards(series, policy, holds, now, decisions)
    return Plan(decisions, refused, guard, unguard)


def _order(point: RecoveryPoint) -> tuple[str, str, datetime, str]:
    return (point.tier or "", point.kind, point.created or _NEVER, point.identifier)


def _decide(
    point: RecoveryPoint,
    keep: Keep | None,
    holds: Sequence[str],
    now: datetime,
    own: bool,
    series: Mapping[tuple[str, str, str], _Series],
) -> Decision:
    copies = series.get(point.series_key, _NO_SERIES)
    matters = {*holds, "held by the service itself"} if point.held else set(holds)
    dated = point.created is not None and point.created <= now
    case = Case(
        point=point,
        now=now,
        own=own,
        matters=tuple(sorted(matters)),
        policy_keeps=keep is not None,
        until=_until(point, keep) if dated else point.expires,
        last_good=point.identifier in copies.keepers,
        last_resort=point.identifier in copies.resorts,
        minimum=copies.minimum,
    )
    rule = next(rule for rule in RULES if rule.when(case))
    relies_on = tuple(sorted(copies.keepers)) if rule.action is Action.DELETE else ()
    return Decision(point, rule.action, rule.name, _explain(rule, case), case.until, relies_on)


# --- Plans that are refused whole ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Sweep:
    decisions: tuple[Decision, ...]
    policy: RetentionPolicy
    now: datetime
    lineage: frozenset[str]
    unknown: tuple[str, ...]
    clock: datetime | None
    ahead: bool

    @property
    def deletions(self) -> int:
        return sum(d.action is Action.DELETE for d in self.decisions)


def _not_listed(sweep: _Sweep) -> Iterable[str]:
    return (f"could not be read completely, so nothing is deleted: {source}" for source in sweep.unknown)


def _nameless(sweep: _Sweep) -> Iterable[str]:
    if not sweep.lineage:
        yield "the cluster's resource id is not known"


def _listed_twice(sweep: _Sweep) -> Iterable[str]:
    counts = Counter(d.point.identifier for d in sweep.decisions)
    twice = sorted(identifier for identifier, count in counts.items() if count > 1)
    if twice:
        yield f"{len(twice)} points are listed more than once, the first is {twice[0]}"


def _too_many(sweep: _Sweep) -> Iterable[str]:
    limit = sweep.policy.sweep.max_deletions
    if sweep.deletions > limit:
        yield f"sweep.max_deletions is {limit}, the plan would delete {sweep.deletions}"


def _too_large_a_share(sweep: _Sweep) -> Iterable[str]:
    ours = sum(
        d.point.kind in SWEPT and d.point.ours and d.point.cluster_resource_id in sweep.lineage for d in sweep.decisions
    )
    limit = sweep.policy.sweep.max_share
    if sweep.deletions > _FEW and sweep.deletions > limit * ours:
        yield f"sweep.max_share is {limit}, the plan would delete {sweep.deletions} of {ours}"


def _ahead_of_the_clock(sweep: _Sweep) -> Iterable[str]:
    if sweep.clock is not None and sweep.now > sweep.clock + AHEAD:
        yield f"the time given, {sweep.now.isoformat()}, is ahead of the clock, {sweep.clock.isoformat()}"


def _nothing_recent(sweep: _Sweep) -> Iterable[str]:
    """No copy is as young as one always is while backups run: the time is wrong, or they stopped. Delete nothing.

    A copy's date comes from another clock, RDS's or S3's, so that the newest one bounds how far `now` can be ahead.
    """
    if sweep.ahead or not sweep.deletions:
        return
    good = (d.point for d in sweep.decisions if is_good(d.point, sweep.now, sweep.lineage))
    newest = max((point.created for point in good if point.created is not None), default=None)
    oldest = min(expected(sweep.policy).values()) + LATE
    if newest is None or newest + oldest < sweep.now:
        yield (
            f"no good recovery point of any tier is younger than {oldest / timedelta(days=1):g} days (the newest is "
            f"from {newest.isoformat() if newest else 'never'}): the time given, {sweep.now.isoformat()}, is wrong or "
            "backups have stopped"
        )


REFUSALS: tuple[Callable[[_Sweep], Iterable[str]], ...] = (
    _not_listed,
    _nameless,
    _listed_twice,
    _too_many,
    _too_large_a_share,
    _ahead_of_the_clock,
    _nothing_recent,
)


# --- What S3 would expire by itself ----------------------------------------------------------------------------------


def _guards(
    series: Mapping[tuple[str, str, str], _Series],
    policy: RetentionPolicy,
    holds: Mapping[str, Sequence[str]],
    now: datetime,
    decisions: Sequence[Decision],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The last good sets to hold before S3's lifecycle expires them, and those that newer ones have replaced."""
    guard: set[str] = set()
    fresh: set[tuple[str, str, str]] = set()
    for key, copies in series.items():
        if not copies.good or copies.good[0].kind is not Kind.SET:
            continue
        newest = copies.good[0]
        if ageing(newest, policy, now):
            guard.update(copies.keepers or {newest.identifier})
        else:
            fresh.add(key)
    held = {d.point.identifier: d.point for d in decisions if GUARD_MATTER in holds.get(d.point.identifier, ())}
    replaced = {i for i, p in held.items() if p.series_key in fresh and i not in series[p.series_key].keepers}
    # Also what the register holds already: the store may not have followed, and following twice changes nothing.
    return tuple(sorted(guard | (held.keys() - replaced))), tuple(sorted(replaced))


def ageing(point: RecoveryPoint, policy: RetentionPolicy, now: datetime) -> bool:
    """Half of its retention is over. When this is the newest good copy, backups have failed for a long time."""
    until = time_of(point, policy)
    return point.created is not None and until is not None and now - point.created > (until - point.created) / 2


# --- Observed against declared ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """What is not as the policy says. rule is a short name that alarms and reports can count."""

    rule: str
    subject: str
    message: str


def check(
    points: Sequence[RecoveryPoint],
    policy: RetentionPolicy,
    now: datetime,
    *,
    lineage: Collection[str],
    quota: int = MANUAL_SNAPSHOT_QUOTA,
) -> tuple[Finding, ...]:
    """Each way in which what was observed is not what the policy declares, sorted. Never an action.

    quota: how many manual cluster snapshots the account may have in the Region.
    """
    now = require_utc(now, "now")
    mine = [p for p in points if p.cluster_resource_id in lineage]
    found = [finding for point in mine for finding in _check_point(point, policy, now)]
    found += _check_tiers(mine, policy, now, lineage)
    manual = sum(p.kind in (Kind.SNAPSHOT, Kind.RECOVERY_POINT) for p in points)
    if manual >= QUOTA_SHARE * quota:
        found.append(Finding("quota", "region", f"{manual} cluster snapshots, the quota is {quota}"))
    return tuple(sorted(found))


def _check_point(point: RecoveryPoint, policy: RetentionPolicy, now: datetime) -> Iterable[Finding]:
    if point.kind in S3_EXPIRES:
        return
    if point.encrypted is False:
        yield Finding("unencrypted", point.identifier, "it is not encrypted")
    if point.verified is Verified.FAILED:
        yield Finding("verification-failed", point.identifier, "its verification failed")
    if point.created is None or point.created > now:
        yield Finding("undated", point.identifier, f"its creation time cannot be used: {point.created}")
        return
    keep = policy.keep(point.tier) if point.tier else None
    due = keep.until(point.created) if keep else None
    if due and point.expires and point.expires < due - LATE:
        short = f"it expires {point.expires.isoformat()}, the policy keeps it until {due.isoformat()}"
        yield Finding("short-retention", point.identifier, short)
    until = time_of(point, policy)
    if point.kind in AWS_EXPIRES and until and until + LATE < now:
        yield Finding("overdue", point.identifier, f"AWS should have expired it {until.isoformat()}")


def expected(policy: RetentionPolicy) -> dict[tuple[Tier, Kind], timedelta]:
    """The recovery points that the policy makes by itself, and the longest time between two of them."""
    made = {(Tier.AUTOMATED, Kind.AUTOMATED): timedelta(days=1)}
    for rule in policy.snapshot_rules():
        made[Tier(rule.name), Kind.RECOVERY_POINT] = _gap(rule.schedule)
    tiers = {"daily": Tier.AUTOMATED, "weekly": Tier.LOGICAL, "monthly": Tier.MONTHLY}
    for dump in policy.dump_schedules():
        made[tiers[dump.name], Kind.SET] = _gap(dump.schedule)
    return made


@cache
def _gap(schedule: str) -> timedelta:
    return Schedule(schedule).longest_gap()


def _check_tiers(
    mine: Sequence[RecoveryPoint], policy: RetentionPolicy, now: datetime, lineage: Collection[str]
) -> Iterable[Finding]:
    dated = [p.created for p in mine if p.created is not None and p.created <= now]
    since = min(dated, default=now)
    for (tier, kind), gap in expected(policy).items():
        newest: dict[str, RecoveryPoint] = {}
        for point in mine:
            if (point.tier, point.kind) == (tier, kind) and is_good(point, now, lineage):
                newest[point.series] = max(newest.get(point.series, point), point, key=_newest_first)
        subject = f"{tier.value}/{kind.value}"
        if not newest and now - since > gap + LATE:
            yield Finding("missing", subject, f"no good recovery point, though backups exist since {since.isoformat()}")
        for series, point in sorted(newest.items()):
            age = now - (point.created or now)
            name = f"{subject}/{series}" if series else subject
            if age > gap + LATE:
                yield Finding("stale", name, f"the newest good one is {age.days} days old, the schedule's gap is {gap}")
            if kind is Kind.SET and ageing(point, policy, now):
                yield Finding("ageing", name, f"the newest good set is past half of its retention: {age.days} days old")


def vanished(
    before: Iterable[RecoveryPoint], points: Iterable[RecoveryPoint], policy: RetentionPolicy, now: datetime
) -> tuple[Finding, ...]:
    """What an earlier run saw available, ours or AWS's, what should still be here, and is not: somebody deleted it."""
    now = require_utc(now, "now")
    here = {p.identifier for p in points if p.status is not Status.HIDDEN}
    gone = []
    for point in before:
        until = time_of(point, policy)
        watched = point.status is Status.AVAILABLE and (point.ours or point.kind in AWS_EXPIRES)
        if watched and until is not None and until > now + LATE and point.identifier not in here:
            gone.append(Finding("vanished", point.identifier, f"it is gone, and had to stay until {until}"))
    return tuple(sorted(gone))


def drifted(
    points: Iterable[RecoveryPoint],
    holds: Mapping[str, Sequence[str]],
    locked: Collection[str],
    *,
    lineage: Collection[str],
) -> tuple[Finding, ...]:
    """Where the register of holds and the stores disagree. locked: the held sets whose every version S3 holds."""
    here = {point.identifier: point for point in points}
    found = []
    for identifier, matters in holds.items():
        point, names = here.get(identifier), ", ".join(matters)
        if point is None:
            found.append(Finding("hold-drift", identifier, f"{names} holds it, and it is gone"))
        elif not (identifier in locked if point.kind is Kind.SET else point.held):
            found.append(Finding("hold-drift", identifier, f"{names} holds it, and its store would let it go"))
    for point in here.values():
        mine = point.kind is Kind.SNAPSHOT and point.cluster_resource_id in lineage
        if mine and point.held and point.identifier not in holds:
            found.append(
                Finding("hold-drift", point.identifier, "its tag holds it, and no matter in the register does")
            )
    return tuple(sorted(found))


# --- As documents ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TierFacts:
    """What metrics say of one series: newest_age_seconds is the recovery point objective that was reached, if any."""

    tier: str
    kind: str
    series: str
    good: int
    size: int
    newest_age_seconds: float | None = field(default=None)


def tier_facts(
    points: Iterable[RecoveryPoint], policy: RetentionPolicy, now: datetime, *, lineage: Collection[str]
) -> tuple[TierFacts, ...]:
    """Count, bytes and age of the newest, of the good copies of each series, sorted.

    What the policy makes and has no good copy at all is there too, with none: silence would look like health.
    """
    groups: dict[tuple[str, str, str], list[RecoveryPoint]] = {}
    for point in points:
        if is_good(point, now, lineage):
            groups.setdefault(point.series_key, []).append(point)
    present = {key[:2] for key in groups}
    groups |= {(t.value, k.value, ""): [] for t, k in expected(policy) if (t.value, k.value) not in present}
    return tuple(
        TierFacts(
            *key,
            good=len(copies),
            size=sum(p.size for p in copies),
            newest_age_seconds=min(((now - p.created).total_seconds() for p in copies if p.created), default=None),
        )
        for key, copies in sorted(groups.items())
    )


def decision_document(decision: Decision) -> dict[str, Any]:
    """One decision as JSON: what `point_from_document` reads again, and action, rule, reason, until and relies_on."""
    point = decision.point
    facts = {name: getattr(point, name) for name in RecoveryPoint.__slots__}
    return {
        **{name: value.isoformat() if isinstance(value, datetime) else value for name, value in facts.items()},
        "action": decision.action.value,
        "rule": decision.rule,
        "reason": decision.reason,
        "until": decision.until.isoformat() if decision.until else None,
        "relies_on": list(decision.relies_on),
    }


def point_from_document(data: Mapping[str, Any]) -> RecoveryPoint:
    """The point that a decision document was made from. Raises KeyError or ValueError when it is not one."""
    moments = {name: datetime.fromisoformat(data[name]) if data[name] else None for name in ("created", "expires")}
    return RecoveryPoint(
        kind=Kind(data["kind"]),
        tier=Tier(data["tier"]) if data["tier"] else None,
        identifier=data["identifier"],
        cluster_resource_id=data["cluster_resource_id"],
        status=Status(data["status"]),
        verified=Verified(data["verified"]),
        created=moments["created"],
        expires=moments["expires"],
        series=data["series"],
        size=data["size"],
        encrypted=data["encrypted"],
        tagged=data["tagged"],
        recorded=data["recorded"],
        held=data["held"],
    )
