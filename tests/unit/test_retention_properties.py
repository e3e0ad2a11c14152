"""What must hold for every policy, inventory, hold, clock and history: nothing is deleted too early, held, or last."""

import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from aurora_backup.policy import Archive, Keep, LogicalTier, OnDemandTier, RetentionPolicy, SnapshotTier, Sweep, Tier
from aurora_backup.retention import (
    GUARD_MATTER,
    SWEPT,
    Kind,
    RecoveryPoint,
    Status,
    Verified,
    decide,
    is_good,
    minimum_copies,
    time_of,
    vanished,
)
from aurora_backup.schedule import Schedule

PROFILE = settings(max_examples=300, deadline=None, derandomize=True, database=None)
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
LINEAGE = frozenset({"cluster-A", "cluster-B"})

MOMENTS = [EPOCH + timedelta(days=d) for d in (-3000, -2192, -200, -90, -89, -7, -1, 0)]
NOWS = [EPOCH + timedelta(days=d) for d in (1, 36, 91, 181, 400, 3000)]


def _policy(seed):
    """One of a few random policies: building one costs as much as deciding on a thousand points."""
    pick = random.Random(seed)

    def keep():
        return Keep.for_days(pick.randint(1, 400)) if pick.random() < 0.7 else Keep.for_years(pick.randint(1, 8))

    monthly = SnapshotTier(schedule="cron(0 1 1 * ? *)", keep=keep(), minimum_copies=pick.choice([0, 1, 1, 2]))
    return RetentionPolicy(
        weekly=pick.choice([None, monthly]),
        monthly=pick.choice([None, monthly]),
        logical=pick.choice(
            [None, *[LogicalTier(keep=keep(), minimum_copies=pick.choice([0, 1, 1, 2]), trial_restore=None)] * 3]
        ),
        on_demand=OnDemandTier(keep=keep(), minimum_copies=pick.choice([0, 1, 1, 2])),
        archive=Archive(transitions=()),
        sweep=Sweep(max_deletions=pick.randint(1, 6), max_share=pick.choice([0.2, 0.5, 1])),
    )


POLICIES = [_policy(seed) for seed in range(16)]


def _moment(pick):
    return EPOCH + timedelta(hours=pick.randint(-3000 * 24, 3000 * 24))


def _mostly(pick, usual, *strange):
    return usual if pick.random() < 8 / 9 else pick.choice(strange)


def _point(pick, number):
    return RecoveryPoint(
        kind=_mostly(pick, pick.choice([Kind.SET, Kind.SNAPSHOT, Kind.SNAPSHOT]), *Kind),
        tier=_mostly(pick, pick.choice([Tier.ON_DEMAND, Tier.LOGICAL, Tier.LOGICAL]), *Tier, None),
        identifier=f"p{number}",
        cluster_resource_id=_mostly(pick, "cluster-A", "cluster-B", "cluster-C", None),
        created=pick.choice([None, *MOMENTS, *(_moment(pick) for _ in range(9))]),
        status=_mostly(pick, Status.AVAILABLE, *Status),
        series=_mostly(pick, "", "clinic"),
        expires=_mostly(pick, None, EPOCH, EPOCH + timedelta(days=400)),
        tagged=_mostly(pick, True, False),
        recorded=_mostly(pick, True, False),
        held=_mostly(pick, False, True),
        verified=pick.choice([Verified.UNKNOWN, *Verified]),
    )


@cache
def world_of(seed):
    """A policy, an inventory, holds and a time. Most worlds have a copy of today: without one nothing is deleted.

    By a seed, and kept: drawing each field by itself costs more than all that is asked of the world.
    """
    pick = random.Random(seed)
    now = pick.choice([*NOWS, *(_moment(pick) for _ in range(6))])
    inventory = [_point(pick, number) for number in range(pick.randint(4, 12))]
    if pick.random() < 0.8:
        today = now - timedelta(hours=pick.randint(0, 47))
        inventory.append(replace(_point(pick, 99), kind=Kind.AUTOMATED, tier=Tier.AUTOMATED, created=today))
    holds = {inventory[0].identifier: ["Doe"]} if pick.random() < 1 / 3 else {}
    return pick.choice(POLICIES), inventory, holds, now


def worlds():
    return st.integers(0, 10_000).map(world_of)


def plan_of(world, **more):
    policy, inventory, holds, now = world
    return decide(inventory, policy, holds, now, lineage=LINEAGE, **more)


@PROFILE
@given(worlds())
def test_every_point_gets_exactly_one_decision_with_a_reason(world):
    plan = plan_of(world)

    assert sorted(d.point.identifier for d in plan.decisions) == sorted(p.identifier for p in world[1])
    assert all(d.reason and "{" not in d.reason for d in plan.decisions)


@PROFILE
@given(worlds())
def test_nothing_is_deleted_before_its_time_or_undated_or_in_the_future(world):
    policy, _, _, now = world
    for decision in plan_of(world).proposed:
        point = decision.point
        assert point.created is not None
        assert point.created <= now
        assert time_of(point, policy) <= now
        assert point.expires is None or point.expires <= now
        assert policy.keep(point.tier).until(point.created) <= now


@PROFILE
@given(worlds())
def test_nothing_is_deleted_that_is_held_or_not_ours_or_not_swept_or_of_another_cluster(world):
    for decision in plan_of(world).proposed:
        point = decision.point
        assert not point.held
        assert point.identifier not in world[2]
        assert point.ours
        assert point.kind in SWEPT
        assert point.cluster_resource_id in LINEAGE
        assert point.status not in {Status.UNKNOWN, Status.PENDING, Status.DELETING, Status.HIDDEN}


@PROFILE
@given(worlds())
def test_the_minimum_of_good_copies_of_each_series_is_never_touched(world):
    policy, inventory, _, now = world
    gone = {d.point.identifier for d in plan_of(world).proposed}
    for key in {p.series_key for p in inventory if p.tier}:
        good = [p for p in inventory if p.series_key == key and is_good(p, now, LINEAGE)]
        newest = sorted(good, key=lambda p: (p.created, p.identifier), reverse=True)
        assert gone.isdisjoint(p.identifier for p in newest[: minimum_copies(policy, Tier(key[0]))])


@PROFILE
@given(worlds(), st.integers(0, 1000))
def test_decisions_do_not_depend_on_order(world, order):
    policy, inventory, holds, now = world
    shuffled = random.Random(order).sample(inventory, len(inventory))

    assert plan_of((policy, shuffled, holds, now)) == plan_of(world)


@PROFILE
@given(worlds())
def test_deciding_again_after_the_deletions_deletes_nothing_more(world):
    policy, inventory, holds, now = world
    gone = {d.point.identifier for d in plan_of(world).proposed}
    left = [p for p in inventory if p.identifier not in gone]

    assert plan_of((policy, left, holds, now)).proposed == ()


@PROFILE
@given(worlds())
def test_a_refused_plan_deletes_nothing_and_the_limits_always_refuse(world):
    policy, inventory, _, _ = world
    plan = plan_of(world)
    swept = [p for p in inventory if p.kind in SWEPT and p.ours and p.cluster_resource_id in LINEAGE]

    assert plan.deletions == (() if plan.refused else plan.proposed)
    assert len(plan.deletions) <= policy.sweep.max_deletions
    assert len(plan.deletions) <= max(1, policy.sweep.max_share * len(swept))
    assert plan_of(world, unknown=["page 2"]).deletions == ()


@PROFILE
@given(worlds(), st.integers(1, 5000))
def test_more_time_never_brings_back_what_expired_and_holds_only_add(world, later):
    policy, inventory, _, now = world
    unheld = {d.point.identifier for d in plan_of((policy, inventory, {}, now)).proposed}
    held = {d.point.identifier for d in plan_of(world).proposed}

    assert held <= unheld
    for decision in plan_of((policy, inventory, {}, now)).proposed:
        then = next(
            d for d in decide([decision.point], policy, {}, now + timedelta(days=later), lineage=LINEAGE).decisions
        )
        assert then.rule in {"expired", "minimum", "last-resort"}


@PROFILE
@given(worlds(), st.integers(3, 5000))
def test_a_clock_that_is_days_ahead_of_the_newest_copy_deletes_nothing(world, skew):
    policy, inventory, holds, now = world
    later = now + timedelta(days=skew)
    honest = [p for p in inventory if p.created is None or p.created <= now]

    assert plan_of((policy, honest, holds, later)).deletions == ()
    assert plan_of((policy, inventory, holds, later), clock=now).deletions == ()


# --- Ten years, day by day -----------------------------------------------------------------------------------------

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = 3653
POLICY = RetentionPolicy.hipaa().with_changes(
    {  # every tier, each short enough to be made and to expire dozens of times
        "automated": {"keep_days": 2},
        "weekly": {"keep": {"days": 15}},
        "monthly": {"store": "both", "keep": {"days": 70}},
        "logical": {"keep": {"days": 20}},
        "on_demand": {"minimum_copies": 1, "keep": {"days": 40}},
        "archive": {"transitions": []},
    }
)
SCHEDULES = {
    (Tier.AUTOMATED, Kind.AUTOMATED): "cron(0 3 * * ? *)",
    (Tier.WEEKLY, Kind.RECOVERY_POINT): POLICY.weekly.schedule,
    (Tier.MONTHLY, Kind.RECOVERY_POINT): POLICY.monthly.schedule,
    (Tier.LOGICAL, Kind.SET): POLICY.logical.schedule,
    (Tier.MONTHLY, Kind.SET): POLICY.monthly.schedule,
    (Tier.ON_DEMAND, Kind.SNAPSHOT): "cron(0 12 10 * ? *)",
}
HIDDEN_DAYS = POLICY.archive.noncurrent_days


@cache
def firings():
    end = FIRST + timedelta(days=DAYS)
    found = {}
    for key, schedule in SCHEDULES.items():
        for moment in Schedule(schedule).occurrences(FIRST, end):
            found.setdefault((moment - FIRST).days, []).append((key, moment))
    return found


def name_of(key, moment):
    return f"{key[0]}/{key[1]}/{moment.date()}"


class World:
    """Points of every tier, AWS and S3 that expire blindly, and a manager that runs on most days.

    present: what could be restored today. hidden: sets behind a delete marker, by the day on which S3 removes them,
    unless they are held.
    """

    def __init__(self):
        self.present: dict[str, RecoveryPoint] = {}
        self.hidden: dict[str, int] = {}
        self.guarded: set[str] = set()
        self.doe: set[str] = set()
        self.seen = Counter()
        self.lost: set[str] = set()

    @property
    def inventory(self):
        return [replace(p, status=Status.HIDDEN) if i in self.hidden else p for i, p in self.present.items()]

    def take(self, key, moment, good):
        tier, kind = key
        identifier = name_of(key, moment)
        self.present[identifier] = RecoveryPoint(
            kind=kind,
            tier=tier,
            identifier=identifier,
            cluster_resource_id="cluster-A",
            created=moment,
            status=Status.AVAILABLE if good else Status.INCOMPLETE,
            tagged=kind in SWEPT,
            recorded=kind in SWEPT,
        )

    def expire(self, day, now):
        """AWS and S3 do what they were told on the day, and ask nobody; Object Lock keeps the versions of held sets."""
        for identifier, point in list(self.present.items()):
            over = POLICY.keep(point.tier).until(point.created) <= now
            if over and point.kind not in SWEPT and identifier not in self.doe:
                del self.present[identifier]
            elif over and point.kind is Kind.SET and identifier not in self.hidden:
                self.hidden[identifier] = day + HIDDEN_DAYS
            if self.hidden.get(identifier, day + 1) <= day and identifier not in self.guarded | self.doe:
                self.lost.add(identifier)
                del self.present[identifier], self.hidden[identifier]

    def manage(self, now, day, *, clock=None, unknown=(), s3_fails=False):
        """One run. clock: what the function's own says. s3_fails: it holds nothing and hides nothing today."""
        holds = {i: [GUARD_MATTER] for i in self.guarded} | {i: ["Doe"] for i in self.doe}
        plan = decide(self.inventory, POLICY, holds, now, lineage={"cluster-A"}, clock=clock, unknown=unknown)
        self.seen["refused"] += bool(plan.refused)
        if not s3_fails and not unknown:
            self.guarded |= set(plan.guard)
            self.guarded -= set(plan.unguard)
            self.seen.update(guarded=len(plan.guard), unguarded=len(plan.unguard))
        for decision in plan.deletions:
            point = decision.point
            assert point.kind in SWEPT
            self.seen[point.kind] += 1
            if point.kind is Kind.SNAPSHOT:
                del self.present[point.identifier]
            elif not s3_fails:
                self.hidden[point.identifier] = day + HIDDEN_DAYS
        return plan


def _spans(pick, days, count, longest):
    starts = [pick.randint(0, days) for _ in range(count)]
    return {day for start in starts for day in range(start, start + pick.randint(1, longest))}


def _live(seed, days):
    """So many days of one random life; every day the promises are looked at. Returns the world."""
    pick, world = random.Random(seed), World()
    years = max(1, days // 365)
    dumps_fail, all_fails = _spans(pick, days, 2 * years, 120), _spans(pick, days, years, 40)
    manager_fails, s3_fails = _spans(pick, days, years, 20), _spans(pick, days, 2 * years, 3)
    wrong_clock, unread = _spans(pick, days, 2 * years, 5), _spans(pick, days, 2 * years, 4)
    placed, released = _spans(pick, days, 2 * years, 1), _spans(pick, days, years, 1)
    ever_good: dict[str, tuple[datetime, bool]] = {}  # until when it must stay, and whether it is the newest
    before = []
    for day in range(days):
        now = FIRST + timedelta(days=day, hours=13)
        for key, moment in firings().get(day, ()) if day not in all_fails else ():
            good = not (day in dumps_fail and key[1] is Kind.SET)
            world.take(key, moment, good)
            if good:
                series = f"{key[0]}/{key[1]}/"
                ever_good |= {i: (u, False) for i, (u, _) in ever_good.items() if i.startswith(series)}
                ever_good[name_of(key, moment)] = (POLICY.keep(key[0]).until(moment), key[1] in SWEPT)
        if day in placed and (candidates := sorted(set(world.present) - set(world.hidden))):
            world.doe.add(pick.choice(candidates))
        if day in released and world.doe:
            world.doe.remove(pick.choice(sorted(world.doe)))
        if day not in manager_fails:
            ahead = timedelta(days=pick.choice([3, 30, 200, 1000, 3653])) if day in wrong_clock else timedelta()
            clock = now if pick.random() < 0.5 else None  # the function's own clock may be the wrong one
            unknown = ("page 2",) if day in unread else ()
            plan = world.manage(now + ahead, day, clock=clock, unknown=unknown, s3_fails=day in s3_fails)
            assert not (ahead and plan.deletions)
        world.expire(day, now)
        _promises(world, ever_good, now)
        if day % 7 == 0:
            assert vanished(before, world.inventory, POLICY, now) == ()
            before = world.inventory
    return world


def _promises(world, ever_good, now):
    assert world.doe <= set(world.present)
    for identifier, (until, newest) in list(ever_good.items()):
        if until > now:
            assert identifier in world.present, f"{identifier} went before its time"
            assert identifier not in world.hidden
        elif newest:
            assert identifier in world.present, f"the last good copy is gone: {identifier}"
        else:
            del ever_good[identifier]


@settings(PROFILE, max_examples=15)
@given(st.integers())
def test_a_year_of_outages_wrong_clocks_and_failures_keeps_the_promise_of_every_tier(seed):
    _live(seed, 365)


def test_ten_years_of_outages_wrong_clocks_and_failures_keep_the_promise_of_every_tier():
    seen = _live(10, DAYS).seen

    wanted = {Kind.SET, Kind.SNAPSHOT, "refused", "guarded", "unguarded"}
    assert wanted <= {what for what, count in seen.items() if count}, "a life in which nothing happens shows nothing"


def test_without_the_guard_s3_would_have_taken_the_last_good_set():
    """The control of the simulation above: it can fail."""
    world = World()
    world.take((Tier.LOGICAL, Kind.SET), FIRST, good=True)
    for day in range(60):
        world.expire(day, FIRST + timedelta(days=day))
    assert world.lost

    guarded = World()
    guarded.take((Tier.LOGICAL, Kind.SET), FIRST, good=True)
    for day in range(60):
        guarded.manage(FIRST + timedelta(days=day), day)
        guarded.expire(day, FIRST + timedelta(days=day))
    assert not guarded.lost


def test_the_actions_that_were_tried_include_deletions():
    """The generators above reach the rule that matters."""
    seen = Counter()

    @PROFILE
    @given(worlds())
    def collect(world):
        seen.update(d.rule for d in plan_of(world).decisions)
        seen.update(["acted"] * len(plan_of(world).deletions))

    collect()
    assert set(seen) >= {"held", "another-cluster", "future", "in-time", "minimum", "last-resort", "unrecorded"}
    assert seen["expired"] >= 30, seen
    assert seen["acted"] >= 30, seen
