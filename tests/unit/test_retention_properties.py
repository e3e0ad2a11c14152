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
)
from aurora_backup.schedule import Schedule

PROFILE = settings(max_examples=100, deadline=None, derandomize=True)
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
LINEAGE = frozenset({"cluster-A", "cluster-B"})

moments = st.integers(-3000 * 24, 3000 * 24).map(lambda hours: EPOCH + timedelta(hours=hours))
nows = st.sampled_from([1, 36, 91, 181, 400, 3000]).map(lambda d: EPOCH + timedelta(days=d)) | moments


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


def mostly(usual, *strange):
    return st.sampled_from([usual] * 8 * len(strange) + list(strange))


points = st.builds(
    RecoveryPoint,
    kind=mostly(Kind.SET, Kind.SNAPSHOT, Kind.SNAPSHOT, *Kind),
    tier=mostly(Tier.ON_DEMAND, Tier.LOGICAL, Tier.LOGICAL, *Tier, None),
    identifier=st.just(""),
    cluster_resource_id=mostly("cluster-A", "cluster-B", "cluster-C", None),
    created=st.sampled_from([None, *(EPOCH + timedelta(days=d) for d in (-3000, -2192, -200, -90, -89, -7, -1, 0))])
    | moments,
    status=mostly(Status.AVAILABLE, *Status),
    series=mostly("", "clinic"),
    expires=mostly(None, EPOCH, EPOCH + timedelta(days=400)),
    tagged=mostly(True, False),
    recorded=mostly(True, False),
    held=mostly(False, True),
    verified=st.sampled_from([Verified.UNKNOWN, *Verified]),
)
inventories = st.lists(points, min_size=4, max_size=12).map(
    lambda ps: [replace(p, identifier=f"p{n}") for n, p in enumerate(ps)]
)


@st.composite
def worlds(draw):
    """A policy, an inventory, holds and a time."""
    inventory = draw(inventories)
    held = draw(st.sampled_from([set(), set(), {inventory[0].identifier}]))
    return draw(st.sampled_from(POLICIES)), inventory, {identifier: ["Doe"] for identifier in held}, draw(nows)


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
@given(worlds(), st.permutations(range(12)))
def test_decisions_do_not_depend_on_order(world, order):
    policy, inventory, holds, now = world
    shuffled = [inventory[n] for n in order if n < len(inventory)]

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


# --- Ten years, day by day -----------------------------------------------------------------------------------------

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = 3653
POLICY = RetentionPolicy.hipaa().with_changes(
    {"monthly": {"store": "both", "keep": {"years": 1}}, "on_demand": {"minimum_copies": 1}}
)
SCHEDULES = {
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
    """Sets and snapshots, S3's lifecycle that expires blindly, and a manager that runs on most days.

    present: what could be restored today. hidden: sets behind a delete marker, by the day on which S3 removes them,
    unless they are held.
    """

    def __init__(self):
        self.present: dict[str, RecoveryPoint] = {}
        self.hidden: dict[str, int] = {}
        self.guarded: set[str] = set()
        self.doe: set[str] = set()
        self.deletions = 0
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
            tagged=True,
            recorded=True,
        )

    def lifecycle(self, day, now):
        """S3 does what it was told on the day, and asks nobody; Object Lock keeps the versions of held sets."""
        for identifier, point in list(self.present.items()):
            if point.kind is Kind.SET and identifier not in self.hidden:
                age = (now - point.created).days
                if age > POLICY.keep(point.tier).most_days:
                    self.hidden[identifier] = day + HIDDEN_DAYS
            if self.hidden.get(identifier, day + 1) <= day and identifier not in self.guarded | self.doe:
                self.lost.add(identifier)
                del self.present[identifier], self.hidden[identifier]

    def manage(self, now, day):
        holds = {i: [GUARD_MATTER] for i in self.guarded} | {i: ["Doe"] for i in self.doe}
        plan = decide(self.inventory, POLICY, holds, now, lineage={"cluster-A"})
        self.guarded |= set(plan.guard)
        self.guarded -= set(plan.unguard)
        for decision in plan.deletions:
            self.deletions += 1
            assert time_of(decision.point, POLICY) <= now
            if decision.point.kind is Kind.SET:
                self.hidden[decision.point.identifier] = day + HIDDEN_DAYS
            else:
                del self.present[decision.point.identifier]
        return plan


def outages(longest):
    return st.lists(st.tuples(st.integers(0, DAYS), st.integers(1, longest)), max_size=8).map(
        lambda spans: {day for start, length in spans for day in range(start, start + length)}
    )


@settings(PROFILE, max_examples=2)
@given(
    dumps_fail=outages(400), manager_fails=outages(30), holds=st.lists(st.integers(0, DAYS), max_size=5), data=st.data()
)
def test_ten_years_of_outages_keep_the_promise_of_every_tier(dumps_fail, manager_fails, holds, data):
    world = World()
    ever_good: dict[str, tuple[datetime, bool]] = {}  # until when it must stay, and whether it is the newest
    for day in range(DAYS):
        now = FIRST + timedelta(days=day, hours=13)
        for key, moment in firings().get(day, ()):
            good = not (day in dumps_fail and key[1] is Kind.SET)
            world.take(key, moment, good)
            if good:
                ever_good |= {i: (u, False) for i, (u, _) in ever_good.items() if i.startswith(f"{key[0]}/{key[1]}/")}
                ever_good[name_of(key, moment)] = (POLICY.keep(key[0]).until(moment), True)
        if day in holds and world.present:
            candidates = sorted(set(world.present) - set(world.hidden))
            world.doe |= {data.draw(st.sampled_from(candidates))} if candidates else set()
        if day not in manager_fails:
            world.manage(now, day)
        world.lifecycle(day, now)
        _promises(world, ever_good, now)
    assert world.deletions, "a simulation in which nothing is ever deleted shows nothing"


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


def test_without_the_guard_s3_would_have_taken_the_last_good_set():
    """The control of the simulation above: it can fail."""
    world = World()
    world.take((Tier.LOGICAL, Kind.SET), FIRST, good=True)
    for day in range(200):
        world.lifecycle(day, FIRST + timedelta(days=day))
    assert world.lost

    guarded = World()
    guarded.take((Tier.LOGICAL, Kind.SET), FIRST, good=True)
    for day in range(200):
        guarded.manage(FIRST + timedelta(days=day), day)
        guarded.lifecycle(day, FIRST + timedelta(days=day))
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
    assert seen["acted"] >= 10, seen
