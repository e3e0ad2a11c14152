"""The decision table, row by row; the document's policy as a golden table; plans that are refused whole."""

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from aurora_backup.policy import RetentionPolicy, Tier
from aurora_backup.retention import (
    GUARD_MATTER,
    PLAN_SCHEMA,
    RULES,
    Action,
    Kind,
    RecoveryPoint,
    Status,
    Verified,
    ageing,
    check,
    decide,
    decision_document,
    drifted,
    expected,
    is_good,
    minimum_copies,
    point_from_document,
    tier_facts,
    time_of,
    vanished,
)

NOW = datetime(2026, 11, 23, 5, 30, tzinfo=UTC)
US = "cluster-OURS"
LINEAGE = {US}
POLICY = RetentionPolicy.hipaa()
GOLDEN = Path(__file__).parent / "golden"


def days(count):
    return timedelta(days=count)


def snapshot(age, name="manual", **changes):
    """An on-demand snapshot of ours; age in days."""
    facts = {
        "kind": Kind.SNAPSHOT,
        "tier": Tier.ON_DEMAND,
        "identifier": f"arn:snapshot:{name}-{age}",
        "cluster_resource_id": US,
        "created": NOW - days(age),
        "status": Status.AVAILABLE,
        "size": 100,
        "encrypted": True,
        "tagged": True,
        "recorded": True,
    }
    return RecoveryPoint(**{**facts, **changes})


def dump_set(age, database="clinic", **changes):
    facts = {
        "kind": Kind.SET,
        "tier": Tier.LOGICAL,
        "identifier": f"logical-backups/{database}/{age}/",
        "series": database,
    }
    return snapshot(age, **{**facts, **changes})


def aws_backup(age, tier=Tier.WEEKLY, **changes):
    facts = {
        "kind": Kind.RECOVERY_POINT,
        "tier": tier,
        "identifier": f"arn:backup:{tier}-{age}",
        "tagged": False,
        "recorded": False,
    }
    return snapshot(age, **{**facts, **changes})


RECENT = aws_backup(1)  # backups are running: without a recent point no deletion is believed


def decision_on(point, *others, policy=POLICY, holds=None, now=NOW):
    plan = decide([point, RECENT, *others], policy, holds or {}, now, lineage=LINEAGE)
    return next(d for d in plan.decisions if d.point == point)


FRESH_SET = dump_set(2)
DAMAGED = {"verified": Verified.FAILED}
TABLE = [
    # (what it is, the point, the rule that decides, the action, a part of the reason)
    ("expired on-demand snapshot", snapshot(181), "expired", "delete", "expired 2026-11-22T05:30:00+00:00"),
    (
        "on-demand snapshot a second too young",
        snapshot(180 - 1 / 86400),
        "in-time",
        "keep",
        "kept until 2026-11-23T05:3",
    ),
    ("on-demand snapshot exactly at its time", snapshot(180), "expired", "delete", "expired 2026-11-23T05:30"),
    ("declared to stay longer", snapshot(181, expires=NOW + days(1)), "in-time", "keep", "until 2026-11-24T05:30"),
    ("declared to go sooner", snapshot(10, expires=NOW - days(5)), "in-time", "keep", "kept until 2027-05"),
    ("expired dump set", dump_set(91), "expired", "delete", "expired 2026-11-22"),
    ("dump set in time", dump_set(89), "in-time", "keep", "kept until 2026-11-24"),
    ("expired unfinished set", dump_set(91, status=Status.INCOMPLETE), "expired", "delete", "expired"),
    ("expired damaged set", dump_set(91, **DAMAGED), "expired", "delete", "expired"),
    ("failed snapshot", snapshot(181, status=Status.FAILED), "expired", "delete", "expired"),
    ("held by the service", snapshot(500, held=True), "held", "keep", "under legal hold: held by the service itself"),
    ("another cluster", snapshot(500, cluster_resource_id="cluster-NEW"), "another-cluster", "keep", "cluster-NEW"),
    ("no resource id", snapshot(500, cluster_resource_id=None), "another-cluster", "keep", "None"),
    ("unknown status", snapshot(500, status=Status.UNKNOWN), "status-unknown", "keep", "status is not known"),
    ("stuck creating", snapshot(500, status=Status.PENDING), "pending", "wait", "still being made"),
    ("being deleted", snapshot(500, status=Status.DELETING), "deleting", "wait", "already being deleted"),
    ("undated", snapshot(500, created=None), "undated", "wait", "has no creation time"),
    ("undated but declared", snapshot(500, created=None, expires=NOW - days(1)), "undated", "wait", "no creation time"),
    (
        "a second in the future",
        snapshot(0, created=NOW + timedelta(seconds=1)),
        "future",
        "wait",
        "2026-11-23 05:30:01",
    ),
    ("a far future", snapshot(0, created=datetime(9999, 12, 31, tzinfo=UTC)), "future", "wait", "in the future"),
    ("automated snapshot", snapshot(10, kind=Kind.AUTOMATED, tier=Tier.AUTOMATED), "aws-expires", "keep", "kept until"),
    ("overdue automated", snapshot(40, kind=Kind.AUTOMATED, tier=Tier.AUTOMATED), "aws-overdue", "keep", "should have"),
    ("weekly in AWS Backup", aws_backup(179), "aws-expires", "keep", "AWS expires it; kept until 2026-11-24"),
    ("overdue weekly", aws_backup(181), "aws-overdue", "keep", "should have since 2026-11-22T05:30:00+00:00"),
    ("AWS Backup of no tier", aws_backup(5, tier=None), "aws-expires", "keep", "until it is deleted by hand"),
    ("stray object", dump_set(500, kind=Kind.STRAY, tier=None), "s3-expires", "keep", "no backup set"),
    ("unfinished upload", dump_set(500, kind=Kind.UPLOAD), "s3-expires", "keep", "S3's lifecycle removes it"),
    ("hidden set", dump_set(500, status=Status.HIDDEN), "hidden", "keep", "deleted before"),
    ("a tier that nobody knows", snapshot(500, tier=None), "no-tier", "keep", "no tier (none)"),
    ("a forged tag", snapshot(500, recorded=False), "unrecorded", "keep", "no creation record names it"),
    ("a stale record", snapshot(500, tagged=False), "untagged", "keep", "does not carry our tag"),
]


@pytest.mark.parametrize(("point", "rule", "action", "reason"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE])
def test_each_row_of_the_table(point, rule, action, reason):
    decision = decision_on(point, FRESH_SET)

    assert (decision.rule, decision.action) == (rule, action)
    assert reason in decision.reason


def test_every_rule_is_reached_by_a_case_of_these_tests():
    seen = {row[2] for row in TABLE} | {"minimum", "last-resort"}

    assert seen == {rule.name for rule in RULES}


def test_a_rule_decides_before_those_below_it():
    order = [rule.name for rule in RULES]
    held_foreign = snapshot(500, cluster_resource_id="cluster-NEW", held=True, status=Status.UNKNOWN)

    assert order[-1] == "expired"
    assert decision_on(held_foreign).rule == "held"
    assert decision_on(replace(held_foreign, held=False)).rule == "another-cluster"
    assert decision_on(aws_backup(500, status=Status.PENDING)).rule == "pending"
    assert decision_on(dump_set(500, status=Status.HIDDEN, tagged=False)).rule == "hidden"
    assert decision_on(snapshot(500, tagged=False, recorded=False)).rule == "untagged"


def test_a_hold_names_all_its_matters_in_order():
    point = snapshot(500, held=True)
    held = decision_on(point, holds={point.identifier: ["Roe", "Doe", "Roe"]})

    assert held.reason == "under legal hold: Doe, Roe, held by the service itself"


def test_a_hold_on_another_point_holds_nothing_here():
    assert decision_on(snapshot(500), holds={"arn:another": ["Doe"]}).action is Action.DELETE


def test_the_last_good_copy_stays_however_old_it_is():
    last, older = dump_set(400), dump_set(500)

    kept = decision_on(last, older)
    assert (kept.rule, kept.action) == ("minimum", Action.KEEP)
    assert kept.reason == "expired 2026-01-17T05:30:00+00:00, but one of the last 1 good copies"
    assert decision_on(older, last).action is Action.DELETE
    assert decision_on(older, last).relies_on == (last.identifier,)
    assert decision_on(last, older).relies_on == ()


def test_each_database_has_a_last_good_copy_of_its_own():
    assert decision_on(dump_set(400, "billing"), dump_set(1, "clinic")).rule == "minimum"


def test_copies_of_another_tier_or_kind_do_not_count():
    old = dump_set(400)
    others = (
        dump_set(1, identifier="logical-backups/m/", tier=Tier.ON_DEMAND),
        aws_backup(2, tier=Tier.LOGICAL, series="clinic"),
    )

    assert decision_on(old, *others).rule == "minimum"


def test_a_copy_of_an_earlier_cluster_of_the_lineage_counts_as_one_of_this_cluster():
    before = dump_set(400, cluster_resource_id="cluster-BEFORE")
    plan = decide([before, FRESH_SET, RECENT], POLICY, {}, NOW, lineage={US, "cluster-BEFORE"})

    assert [d.point for d in plan.deletions] == [before]


@pytest.mark.parametrize(
    "useless",
    [
        {"verified": Verified.FAILED},
        {"status": Status.INCOMPLETE},
        {"status": Status.FAILED},
        {"status": Status.PENDING},
        {"status": Status.HIDDEN},
        {"created": None},
        {"created": NOW + timedelta(seconds=1)},
        {"cluster_resource_id": "cluster-NEW"},
        {"recorded": False},
        {"tagged": False},
    ],
)
def test_what_is_no_good_copy_does_not_let_the_last_one_go(useless):
    old, newer = dump_set(400), dump_set(1, **useless)

    assert decision_on(old, newer).rule == "minimum"
    assert not is_good(newer, NOW, LINEAGE)


def test_a_good_copy_is_dated_finished_ours_and_of_this_cluster():
    assert is_good(dump_set(1), NOW, LINEAGE)
    assert is_good(dump_set(0), NOW, LINEAGE)
    assert is_good(dump_set(1, verified=Verified.GOOD), NOW, LINEAGE)
    assert is_good(aws_backup(1), NOW, LINEAGE)
    assert not is_good(dump_set(1, kind=Kind.STRAY), NOW, LINEAGE)


def test_damaged_copies_stay_while_nothing_better_is_left():
    damaged, older = dump_set(400, **DAMAGED), dump_set(500, **DAMAGED)

    kept = decision_on(damaged, older)
    assert (kept.rule, kept.action) == ("last-resort", Action.KEEP)
    assert kept.reason == "expired 2026-01-17T05:30:00+00:00 and not good, but fewer than 1 good copies are left"
    assert decision_on(older, damaged).action is Action.DELETE
    assert decision_on(damaged, FRESH_SET).action is Action.DELETE


@pytest.mark.parametrize(
    "useless",
    [
        {"recorded": False},
        {"cluster_resource_id": "cluster-NEW"},
        {"created": NOW + timedelta(seconds=1)},
        {"status": Status.INCOMPLETE},
    ],
)
def test_a_damaged_copy_that_is_worth_nothing_is_no_last_resort(useless):
    worthless, ours = dump_set(400, **DAMAGED, **useless), dump_set(500, **DAMAGED)

    assert decision_on(ours, worthless).rule == "last-resort"


def test_a_damaged_copy_stays_beside_a_good_one_when_two_are_asked_for():
    policy = POLICY.with_changes({"logical": {"minimum_copies": 2}})
    good, damaged = dump_set(400), dump_set(500, **DAMAGED)

    assert decision_on(good, damaged, policy=policy).rule == "minimum"
    assert decision_on(damaged, good, policy=policy).rule == "last-resort"


def test_a_copy_made_this_very_instant_counts():
    assert decision_on(dump_set(400), dump_set(0)).action is Action.DELETE


def test_what_nobody_vouches_for_is_not_ours():
    point = RecoveryPoint(
        kind=Kind.SET,
        tier=None,
        identifier="x",
        cluster_resource_id=None,
        created=None,
        status=Status.UNKNOWN,
    )

    assert (point.tagged, point.recorded, point.ours, point.held, point.size) == (False, False, False, False, 0)
    assert (point.verified, point.encrypted, point.expires, point.series) == (Verified.UNKNOWN, None, None, "")


def test_more_copies_stay_when_the_policy_says_so():
    policy = POLICY.with_changes({"logical": {"minimum_copies": 3}, "on_demand": {"minimum_copies": 2}})
    sets = [dump_set(age) for age in (100, 200, 300, 400)]
    shots = [snapshot(age) for age in (200, 300, 400)]
    plan = decide([*sets, *shots, RECENT], policy, {}, NOW, lineage=LINEAGE)

    assert {d.point for d in plan.deletions} == {sets[3], shots[2]}
    assert plan.deletions[0].relies_on == tuple(sorted(p.identifier for p in sets[:3]))


def test_no_copies_are_kept_when_the_policy_needs_none():
    policy = POLICY.with_changes({"logical": {"minimum_copies": 0}})

    assert decision_on(dump_set(400), policy=policy).action is Action.DELETE
    assert decision_on(dump_set(400, **DAMAGED), policy=policy).action is Action.DELETE


def test_the_minimum_comes_from_each_tier():
    assert {tier: minimum_copies(POLICY, tier) for tier in Tier} == {
        Tier.AUTOMATED: 1,
        Tier.WEEKLY: 1,
        Tier.MONTHLY: 1,
        Tier.LOGICAL: 1,
        Tier.ON_DEMAND: 0,
    }
    assert minimum_copies(RetentionPolicy.dev(), Tier.WEEKLY) == 0


def test_a_tier_that_the_policy_does_not_make_is_kept():
    policy = POLICY.with_changes({"logical": None})

    assert decision_on(dump_set(5000), policy=policy).rule == "no-tier"
    assert decision_on(dump_set(5000), policy=policy).reason == "the policy has no tier logical"


@pytest.mark.parametrize(
    ("created", "until"),
    [
        ("2024-02-29T01:00:00+00:00", "2030-03-01T01:00:00+00:00"),
        ("2024-03-01T01:00:00+00:00", "2030-03-01T01:00:00+00:00"),
        ("2022-02-28T01:00:00+00:00", "2028-02-28T01:00:00+00:00"),
        ("2021-01-01T01:00:00+02:00", "2026-12-31T23:00:00+00:00"),
    ],
)
def test_six_years_are_calendar_years(created, until):
    point = dump_set(0, tier=Tier.MONTHLY, created=datetime.fromisoformat(created))

    assert time_of(point, POLICY) == datetime.fromisoformat(until)


def test_a_point_without_policy_has_the_time_it_declares():
    assert time_of(snapshot(1, tier=None, expires=NOW), POLICY) == NOW
    assert time_of(snapshot(1, tier=None), POLICY) is None
    assert time_of(snapshot(1, expires=NOW), POLICY) == NOW - days(1) + days(180)
    assert time_of(snapshot(1, expires=NOW + days(999)), POLICY) == NOW + days(999)


def test_naive_times_are_refused_by_name():
    with pytest.raises(ValueError, match="arn:snapshot:manual-1: created must be timezone-aware"):
        snapshot(1, created=datetime(2026, 1, 1))  # noqa: DTZ001  that is the point
    with pytest.raises(ValueError, match="expires must be timezone-aware"):
        snapshot(1, expires=datetime(2026, 1, 1))  # noqa: DTZ001  that is the point
    with pytest.raises(ValueError, match=r"^now must be timezone-aware"):
        decide([], POLICY, {}, datetime(2026, 1, 1), lineage=LINEAGE)  # noqa: DTZ001  that is the point
    with pytest.raises(ValueError, match=r"^now must be timezone-aware"):
        check([], POLICY, datetime(2026, 1, 1), lineage=LINEAGE)  # noqa: DTZ001  that is the point
    with pytest.raises(ValueError, match=r"^now must be timezone-aware"):
        vanished([], [], POLICY, datetime(2026, 1, 1))  # noqa: DTZ001  that is the point


# --- Plans that are refused whole


def refusals(points, *, policy=POLICY, now=NOW, lineage=LINEAGE, unknown=()):
    return decide(points, policy, {}, now, lineage=lineage, unknown=unknown).refused


def test_a_plan_on_an_incomplete_listing_is_refused_but_still_shown():
    plan = decide([snapshot(500), RECENT], POLICY, {}, NOW, lineage=LINEAGE, unknown=["rds page 2: Throttling"])

    assert plan.refused == ("could not be read completely, so nothing is deleted: rds page 2: Throttling",)
    assert plan.deletions == ()
    assert [d.point for d in plan.proposed] == [snapshot(500)]


def test_every_source_that_could_not_be_read_is_named():
    assert len(refusals([], unknown=["one", "two"])) == 2


def test_a_plan_for_a_cluster_without_resource_id_is_refused():
    assert refusals([RECENT], lineage=()) == ("the cluster's resource id is not known",)


def test_a_point_listed_twice_refuses_the_plan():
    assert refusals([snapshot(500), snapshot(500, size=1), RECENT]) == (
        "1 points are listed more than once, the first is arn:snapshot:manual-500",
        "sweep.max_share is 0.5, the plan would delete 2 of 2",
    )


def test_a_plan_above_the_limit_is_refused_whole():
    young = [snapshot(age) for age in range(1, 60)]
    old = [snapshot(500 + n) for n in range(21)]

    assert refusals([*young, *old[:20]]) == ()
    assert refusals([*young, *old]) == ("sweep.max_deletions is 20, the plan would delete 21",)


def test_an_implausible_share_is_refused_whole():
    old = [snapshot(500), snapshot(501)]

    assert refusals([*old, snapshot(1), snapshot(2)]) == ()
    assert refusals([*old, snapshot(1)]) == ("sweep.max_share is 0.5, the plan would delete 2 of 3",)


@pytest.mark.parametrize(
    "other",
    [
        aws_backup(3, tagged=True, recorded=True),
        snapshot(2, recorded=False),
        snapshot(2, cluster_resource_id="x"),
    ],
)
def test_the_share_is_of_what_could_be_deleted_at_all(other):
    assert len(refusals([snapshot(500), snapshot(501), snapshot(1), other, RECENT])) == 1


def test_one_deletion_is_no_share():
    assert refusals([snapshot(500), RECENT]) == ()


def test_the_limits_come_from_the_policy():
    points = [snapshot(500), snapshot(501), snapshot(1), RECENT]

    assert refusals(points, policy=POLICY.with_changes({"sweep": {"max_share": 1.0}})) == ()
    assert len(refusals(points, policy=POLICY.with_changes({"sweep": {"max_share": 1.0, "max_deletions": 1}}))) == 1


SKEWS = (3, 30, 200, 1000, 3653)
SIX_YEARS_OF_SETS = POLICY.with_changes({"monthly": {"store": "both"}, "sweep": {"max_share": 1.0}})


@pytest.mark.parametrize("skew", SKEWS)
def test_a_clock_ahead_deletes_nothing_even_where_sets_are_kept_for_six_years(skew):
    monthly = aws_backup(1, Tier.MONTHLY), dump_set(1, "monthly", tier=Tier.MONTHLY)
    points = [snapshot(178), snapshot(1), dump_set(1), dump_set(88), RECENT, *monthly]
    plan = decide(points, SIX_YEARS_OF_SETS, {}, NOW + days(skew), lineage=LINEAGE)

    assert plan.proposed
    assert plan.deletions == ()
    (reason,) = plan.refused
    assert reason == (
        "no good recovery point of any tier is younger than 2 days (the newest is from 2026-11-22T05:30:00+00:00): "
        f"the time given, {(NOW + days(skew)).isoformat()}, is wrong or backups have stopped"
    )


@pytest.mark.parametrize("skew", SKEWS)
def test_a_time_ahead_of_the_clock_is_refused_whatever_the_copies_say(skew):
    then = NOW + days(skew)
    points = [snapshot(181), aws_backup(1, created=then)]

    def refused(now=then, **more):
        return decide(points, POLICY, {}, now, lineage=LINEAGE, **more).refused

    assert refused(clock=NOW) == (f"the time given, {then.isoformat()}, is ahead of the clock, {NOW.isoformat()}",)
    assert refused(clock=then) == refused(clock=then - timedelta(hours=1)) == refused(clock=then + days(1)) == ()
    assert len(refused(clock=then - timedelta(hours=1, seconds=1))) == 1
    with pytest.raises(ValueError, match="clock must be timezone-aware"):
        refused(clock=datetime(2026, 11, 23))  # noqa: DTZ001  on purpose


def test_a_time_that_is_ahead_on_purpose_is_decided_by():
    then = NOW + days(200)
    plan = decide([snapshot(1), RECENT], POLICY, {}, then, lineage=LINEAGE, clock=NOW, ahead=True)

    assert (plan.refused, [d.point for d in plan.deletions]) == ((), [snapshot(1)])


def test_backups_that_stopped_stop_the_sweep():
    assert refusals([snapshot(500), aws_backup(2)]) == ()
    assert len(refusals([snapshot(500), aws_backup(2 + 1 / 86400)])) == 1
    assert len(refusals([snapshot(500), aws_backup(1, cluster_resource_id="cluster-NEW")])) == 1
    assert "the newest is from never" in refusals([snapshot(500, status=Status.FAILED)])[0]


def test_without_deletions_nothing_needs_to_be_believed():
    assert refusals([aws_backup(3000)]) == ()


# --- The last good set is held before S3 expires it


def guards(*points, holds=None):
    plan = decide(points, POLICY, holds or {}, NOW, lineage=LINEAGE)
    return plan.guard, plan.unguard


def test_the_last_good_set_is_held_when_half_its_time_is_over():
    assert guards(dump_set(45), dump_set(60)) == ((), ())
    assert guards(dump_set(46), dump_set(60)) == (("logical-backups/clinic/46/",), ())
    assert guards(dump_set(46), dump_set(1, **DAMAGED)) == (("logical-backups/clinic/46/",), ())
    assert guards(dump_set(46, "billing"), dump_set(1, "clinic")) == (("logical-backups/billing/46/",), ())


def test_only_dump_sets_can_be_held_this_way():
    assert guards(snapshot(179), aws_backup(179)) == ((), ())


def test_one_set_is_held_even_where_the_policy_needs_none():
    policy = POLICY.with_changes({"logical": {"minimum_copies": 0}})

    assert decide([dump_set(46)], policy, {}, NOW, lineage=LINEAGE).guard == ("logical-backups/clinic/46/",)


def test_as_many_sets_are_held_as_the_minimum_needs():
    policy = POLICY.with_changes({"logical": {"minimum_copies": 2}})
    points = [dump_set(46), dump_set(53), dump_set(60)]

    assert decide(points, policy, {}, NOW, lineage=LINEAGE).guard == (
        "logical-backups/clinic/46/",
        "logical-backups/clinic/53/",
    )


def test_a_held_set_is_released_when_a_new_one_is_good():
    old = dump_set(60)
    held = {old.identifier: [GUARD_MATTER]}

    again = (old.identifier,)  # its store may not have followed
    assert guards(old, holds=held) == (again, ())
    assert guards(old, dump_set(1, **DAMAGED), holds=held) == (again, ())
    assert guards(old, dump_set(1, "billing"), holds=held) == (again, ())
    assert guards(old, dump_set(1), holds=held) == ((), (old.identifier,))
    assert guards(old, dump_set(1), holds={old.identifier: ["Doe"]}) == ((), ())


def test_a_held_set_that_the_minimum_still_needs_stays_held():
    policy = POLICY.with_changes({"logical": {"minimum_copies": 2}})
    old, older = dump_set(60), dump_set(67)
    held = {point.identifier: [GUARD_MATTER] for point in (old, older)}
    plan = decide([dump_set(1), old, older], policy, held, NOW, lineage=LINEAGE)

    assert (plan.guard, plan.unguard) == ((old.identifier,), (older.identifier,))


def test_half_of_the_time_is_measured_to_the_second():
    assert not ageing(dump_set(45), POLICY, NOW)
    assert ageing(dump_set(45, created=NOW - days(45) - timedelta(seconds=1)), POLICY, NOW)
    assert not ageing(dump_set(1, created=None, expires=NOW), POLICY, NOW)
    assert not ageing(dump_set(1, tier=None), POLICY, NOW)


# --- Observed against declared


def findings(*points, now=NOW, policy=POLICY):
    return {(f.rule, f.subject) for f in check(points, policy, now, lineage=LINEAGE)}


def complete(now=NOW):
    """One recent good point of everything that the policy makes."""
    automated = snapshot(0.5, kind=Kind.AUTOMATED, tier=Tier.AUTOMATED, identifier="arn:auto")
    return [automated, aws_backup(3), aws_backup(20, Tier.MONTHLY), dump_set(5)]


def test_a_complete_inventory_has_no_findings():
    assert findings(*complete()) == set()


@pytest.mark.parametrize(
    ("point", "rule"),
    [
        (snapshot(1, encrypted=False), "unencrypted"),
        (dump_set(1, **DAMAGED), "verification-failed"),
        (snapshot(1, created=None), "undated"),
        (snapshot(1, created=NOW + timedelta(seconds=1)), "undated"),
        (aws_backup(4, expires=NOW - days(4) + days(178)), "short-retention"),
        (aws_backup(182), "overdue"),
    ],
)
def test_each_departure_from_the_policy_is_found(point, rule):
    assert findings(*complete(), point) == {(rule, point.identifier)}


@pytest.mark.parametrize(
    "point",
    [
        aws_backup(4, expires=NOW - days(4) + days(179)),
        aws_backup(181),
        aws_backup(4, encrypted=None),
        snapshot(1, encrypted=False, cluster_resource_id="cluster-NEW"),
        dump_set(1, kind=Kind.STRAY, created=None),
        dump_set(1, kind=Kind.UPLOAD, encrypted=False),
        snapshot(400),
        snapshot(1, tier=None, expires=NOW),
    ],
)
def test_what_is_as_it_should_be_is_no_finding(point):
    assert findings(*complete(), point) == set()


def test_a_tier_without_a_good_point_is_missing_once_its_gap_has_passed():
    automated, weekly, _, dump = complete()

    assert findings(automated, weekly, dump) == set()
    assert findings(automated, weekly, dump, snapshot(32)) == set()
    assert findings(automated, weekly, dump, snapshot(33)) == {("missing", "monthly/recovery-point")}
    assert findings(automated, weekly, dump, snapshot(33), aws_backup(3, Tier.MONTHLY, status=Status.FAILED)) == {
        ("missing", "monthly/recovery-point")
    }


def test_a_newest_point_older_than_its_schedule_is_stale():
    automated, weekly, monthly, _ = complete()

    assert findings(automated, weekly, monthly, dump_set(8)) == set()
    assert findings(automated, weekly, monthly, dump_set(9)) == {("stale", "logical/set/clinic")}
    assert findings(automated, aws_backup(9), monthly, dump_set(1)) == {("stale", "weekly/recovery-point")}


def test_a_point_of_a_tier_that_is_not_made_has_no_time_to_fall_short_of():
    policy = POLICY.with_changes({"weekly": None, "monthly": None})
    automated, *_, dump = complete()

    assert findings(automated, dump, aws_backup(1, expires=NOW), policy=policy) == set()
    assert findings(automated, dump, aws_backup(1, expires=None), policy=policy) == set()


def test_a_point_made_this_very_instant_is_dated():
    assert findings(*complete(), snapshot(0)) == set()
    assert findings(*complete(), snapshot(-1 / 86400)) == {("undated", "arn:snapshot:manual-" + str(-1 / 86400))}


def test_an_old_point_of_aws_is_stale_and_not_ageing_because_the_vault_expires_it_by_itself():
    automated, _, monthly, dump = complete()

    assert findings(automated, aws_backup(100), monthly, dump) == {("stale", "weekly/recovery-point")}


def test_one_database_without_fresh_sets_does_not_hide_behind_another():
    assert findings(*complete(), dump_set(20, "billing")) == {("stale", "logical/set/billing")}


def test_sets_past_half_of_their_time_are_ageing():
    automated, weekly, monthly, _ = complete()

    assert findings(automated, weekly, monthly, dump_set(46)) == {
        ("stale", "logical/set/clinic"),
        ("ageing", "logical/set/clinic"),
    }


def test_the_quota_is_a_finding_at_ninety_percent():
    others = [snapshot(n, f"n{n}", cluster_resource_id="cluster-OTHER") for n in range(1, 88)]

    assert findings(*complete(), *others) == set()
    assert findings(*complete(), *others, snapshot(1)) == {("quota", "region")}
    raised = check([*complete(), *others, snapshot(1)], POLICY, NOW, lineage=LINEAGE, quota=150)
    assert raised == ()
    low = check(complete(), POLICY, NOW, lineage=LINEAGE, quota=2)
    assert [f.message for f in low] == ["2 cluster snapshots, the quota is 2"]


def test_what_the_policy_makes_is_expected_with_the_gap_of_its_schedule():
    daily = POLICY.with_changes({"automated": {"sets_schedule": "cron(0 4 * * ? *)"}, "monthly": {"store": "both"}})

    assert expected(daily) == {
        (Tier.AUTOMATED, Kind.AUTOMATED): days(1),
        (Tier.WEEKLY, Kind.RECOVERY_POINT): days(7),
        (Tier.MONTHLY, Kind.RECOVERY_POINT): days(31),
        (Tier.AUTOMATED, Kind.SET): days(1),
        (Tier.LOGICAL, Kind.SET): days(7),
        (Tier.MONTHLY, Kind.SET): days(31),
    }


def test_findings_say_what_was_found():
    automated, _, monthly, _ = complete()
    odd = [
        aws_backup(4, expires=NOW),
        aws_backup(182, encrypted=False),
        dump_set(46, "billing", **DAMAGED),
        dump_set(47, "billing"),
        snapshot(1, created=None),
    ]
    others = [snapshot(n, f"n{n}", cluster_resource_id="cluster-OTHER") for n in range(1, 87)]
    points = [automated, monthly, *odd, *others]
    without = [p for p in points if p is not monthly] + [snapshot(40)]

    assert [(f.rule, f.message) for f in check(points, POLICY, NOW, lineage=LINEAGE)] == [
        ("ageing", "the newest good set is past half of its retention: 47 days old"),
        ("overdue", "AWS should have expired it 2026-11-21T05:30:00+00:00"),
        ("quota", "90 cluster snapshots, the quota is 100"),
        (
            "short-retention",
            "it expires 2026-11-23T05:30:00+00:00, the policy keeps it until 2027-05-18T05:30:00+00:00",
        ),
        ("stale", "the newest good one is 47 days old, the schedule's gap is 7 days, 0:00:00"),
        ("undated", "its creation time cannot be used: None"),
        ("unencrypted", "it is not encrypted"),
        ("verification-failed", "its verification failed"),
    ]
    assert ("missing", "no good recovery point, though backups exist since 2026-05-25T05:30:00+00:00") in {
        (f.rule, f.message) for f in check(without, POLICY, NOW, lineage=LINEAGE)
    }


def test_a_point_that_went_before_its_time_has_vanished():
    before = [snapshot(1), snapshot(181), dump_set(5), snapshot(2, status=Status.PENDING), snapshot(3, tier=None)]
    before += [snapshot(4, tagged=False), aws_backup(5)]

    gone = vanished(before, [replace(dump_set(5), status=Status.HIDDEN)], POLICY, NOW)
    assert {f.subject for f in gone} == {snapshot(1).identifier, dump_set(5).identifier, aws_backup(5).identifier}
    assert {f.rule for f in gone} == {"vanished"}
    assert all(f.message.startswith("it is gone, and had to stay until 2027-") for f in gone)
    assert vanished(before, before, POLICY, NOW) == ()


def test_where_the_register_and_a_store_disagree_is_found():
    one, other, loose = snapshot(1), dump_set(1), dump_set(2)
    tagged, theirs = snapshot(3, held=True), snapshot(4, held=True, cluster_resource_id="cluster-OTHER")
    holds = {p.identifier: ("Doe", "Roe") for p in (one, other, loose, tagged)} | {"arn:gone": ("Doe",)}
    points = [one, other, loose, tagged, theirs]
    found = drifted(points, holds, {other.identifier}, lineage=LINEAGE)

    assert {(f.rule, f.subject, f.message) for f in found} == {
        ("hold-drift", one.identifier, "Doe, Roe holds it, and its store would let it go"),
        ("hold-drift", loose.identifier, "Doe, Roe holds it, and its store would let it go"),
        ("hold-drift", "arn:gone", "Doe holds it, and it is gone"),
    }
    (strange,) = drifted([tagged, theirs, one, aws_backup(1, held=True)], {}, (), lineage=LINEAGE)
    assert (strange.rule, strange.subject, strange.message) == (
        "hold-drift",
        tagged.identifier,
        "its tag holds it, and no matter in the register does",
    )


@pytest.mark.parametrize(("left", "found"), [(days(1), 0), (days(1) + timedelta(seconds=1), 1), (days(0.5), 0)])
def test_a_point_that_goes_on_its_last_day_has_not_vanished(left, found):
    assert len(vanished([snapshot(0, created=NOW + left - days(180))], [], POLICY, NOW)) == found


# --- As documents


def test_a_decision_document_gives_the_same_point_back():
    for point in (
        snapshot(181),
        dump_set(1, tier=None, created=None, expires=NOW, **DAMAGED),
        aws_backup(1, held=True),
    ):
        document = json.loads(json.dumps(decision_document(decision_on(point))))

        assert point_from_document(document) == point


def test_a_decision_document_says_what_was_decided_and_why():
    document = decision_document(decision_on(dump_set(91), FRESH_SET))

    assert {k: document[k] for k in ("action", "rule", "reason", "until", "relies_on")} == {
        "action": "delete",
        "rule": "expired",
        "reason": "expired 2026-11-22T05:30:00+00:00",
        "until": "2026-11-22T05:30:00+00:00",
        "relies_on": [FRESH_SET.identifier],
    }
    assert decision_document(decision_on(snapshot(1, created=None)))["until"] is None


def test_the_words_that_documents_metrics_and_registers_hold_do_not_change():
    assert [k.value for k in Kind] == [
        "automated-snapshot",
        "recovery-point",
        "cluster-snapshot",
        "set",
        "stray",
        "upload",
    ]
    assert [s.value for s in Status] == [
        "available",
        "pending",
        "incomplete",
        "failed",
        "deleting",
        "hidden",
        "unknown",
    ]
    assert [v.value for v in Verified] == ["good", "failed", "unknown"]
    assert [a.value for a in Action] == ["keep", "delete", "wait"]
    assert (PLAN_SCHEMA, GUARD_MATTER) == (1, "last-good-set")


def test_tier_facts_count_good_copies_and_their_age():
    points = [dump_set(2), dump_set(9), dump_set(1, **DAMAGED), aws_backup(3), snapshot(1, cluster_resource_id="x")]
    facts = {(f.tier, f.kind): f for f in tier_facts(points, POLICY, NOW, lineage=LINEAGE)}
    weekly, logical = facts["weekly", "recovery-point"], facts["logical", "set"]

    assert (weekly.good, weekly.size) == (1, 100)
    assert (logical.series, logical.good, logical.size, logical.newest_age_seconds) == ("clinic", 2, 200, 172800.0)


def test_what_the_policy_makes_and_has_no_good_copy_has_facts_too():
    facts = tier_facts([dump_set(1, **DAMAGED), aws_backup(3)], POLICY, NOW, lineage=LINEAGE)

    assert {(f.tier, f.kind, f.series) for f in facts if f.good == 0} == {
        ("automated", "automated-snapshot", ""),
        ("logical", "set", ""),
        ("monthly", "recovery-point", ""),
    }
    assert {(f.size, f.newest_age_seconds) for f in facts if f.good == 0} == {(0, None)}


def document_inventory():
    """The strategy document's policy after seven years, everything that should exist and some that should not."""
    monthly = [aws_backup(30.5 * n, Tier.MONTHLY, identifier=f"arn:monthly:{n}") for n in range(0, 75, 6)]
    weekly = [aws_backup(7 * n + 1) for n in range(0, 28, 3)]
    logical = [dump_set(7 * n + 2) for n in range(15)]
    automated = [
        snapshot(n, kind=Kind.AUTOMATED, tier=Tier.AUTOMATED, identifier=f"arn:auto:{n}", tagged=False, recorded=False)
        for n in (0, 17, 34, 35, 36)
    ]
    demanded = [snapshot(n) for n in (10, 179, 180, 200)]
    odd = [row[1] for row in TABLE if row[2] not in {"expired", "in-time"}]
    unique = {p.identifier: p for p in [*monthly, *weekly, *logical, *automated, *demanded]}
    strange = [replace(p, identifier=f"{p.identifier}#{n}") for n, p in enumerate(odd)]
    return [*unique.values(), *strange]


def test_the_documents_policy_decides_as_in_the_golden_table():
    plan = decide(document_inventory(), POLICY, {"arn:monthly:6": ["Doe v. Clinic"]}, NOW, lineage=LINEAGE)
    rows = [[d.point.identifier, d.action.value, d.rule, d.reason] for d in plan.decisions]
    text = json.dumps({"refused": plan.refused, "guard": plan.guard, "decisions": rows}, indent=1) + "\n"
    path = GOLDEN / "retention_hipaa.json"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    assert json.loads(text) == json.loads(path.read_text()), "UPDATE_GOLDEN=1 rewrites the table: read its diff"
