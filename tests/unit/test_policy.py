"""RetentionPolicy: what it says, what it refuses, and what is derived from it."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_backup.policy import (
    Archive,
    AutomatedTier,
    Keep,
    LifecycleRule,
    LogicalTier,
    MonthlyStore,
    OnDemandTier,
    PolicyError,
    Prefix,
    RecoveryTesting,
    RetentionPolicy,
    SnapshotTier,
    StorageClass,
    Sweep,
    Tier,
    Transition,
)

HIPAA = RetentionPolicy.hipaa()


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# What the strategy document asks for (sections 1.1, 1.2 and 3.1, corrected as facts about AWS demand).


def test_the_hipaa_policy_keeps_each_tier_as_long_as_the_strategy_document_says():
    assert {tier: str(HIPAA.keep(tier)) for tier in Tier} == {
        Tier.AUTOMATED: "35 days",
        Tier.WEEKLY: "180 days",
        Tier.MONTHLY: "6 years",
        Tier.LOGICAL: "90 days",
        Tier.ON_DEMAND: "180 days",
    }


def test_the_hipaa_policy_runs_when_the_strategy_document_says():
    assert HIPAA.automated.backup_window == "03:00-04:00"
    assert HIPAA.automated.maintenance_window == "Mon:04:00-Mon:05:00"
    rules = {rule.name: (rule.schedule, rule.delete_after_days) for rule in HIPAA.snapshot_rules()}
    assert rules == {"weekly": ("cron(0 2 ? * SUN *)", 180), "monthly": ("cron(0 1 1 * ? *)", 2192)}
    assert [(d.prefix, d.schedule) for d in HIPAA.dump_schedules()] == [(Prefix.LOGICAL, "cron(0 2 ? * SAT *)")]


def test_the_four_prefixes_expire_after_their_retention_and_move_to_glacier_only_when_they_outlive_it():
    rules = {rule.prefix: (rule.expire_days, rule.transitions) for rule in HIPAA.lifecycle_rules()}
    glacier = (Transition(90, StorageClass.GLACIER),)
    assert rules == {
        "automated-backups/": (35, ()),
        "manual-backups/": (180, glacier),
        "logical-backups/": (90, ()),
        "compliance-backups/": (2192, glacier),
    }


def test_dump_sets_of_the_monthly_and_daily_tiers_are_made_when_they_are_asked_for():
    policy = HIPAA.with_changes({"monthly": {"store": "both"}, "automated": {"sets_schedule": "cron(0 5 * * ? *)"}})
    assert {d.name: d.prefix for d in policy.dump_schedules()} == {
        "daily": Prefix.AUTOMATED,
        "weekly": Prefix.LOGICAL,
        "monthly": Prefix.COMPLIANCE,
    }
    assert [r.name for r in HIPAA.with_changes({"monthly": {"store": "sets"}}).snapshot_rules()] == ["weekly"]


def test_evidence_outlives_a_shorter_monthly_tier():
    policy = HIPAA.with_changes({"monthly": {"keep": {"days": 400}}})
    assert str(policy.prefix_keep(Prefix.COMPLIANCE)) == "6 years"


def test_the_dev_policy_keeps_as_little_as_it_can():
    dev = RetentionPolicy.dev()
    assert dev.automated.keep_days == 1
    assert dev.snapshot_rules() == []
    assert dev.keep(Tier.MONTHLY) is None
    assert {rule.prefix: rule.expire_days for rule in dev.lifecycle_rules()}["logical-backups/"] == 7


# Calendar years.


@pytest.mark.parametrize(
    ("created", "until"),
    [
        ("2026-11-23T01:00", "2032-11-23T01:00"),
        ("2024-02-29T01:00", "2030-03-01T01:00"),
        ("2024-02-28T23:59", "2030-02-28T23:59"),
        ("2022-02-28T00:00", "2028-02-28T00:00"),
    ],
)
def test_years_end_on_the_same_date_and_a_leap_day_on_the_first_of_march(created, until):
    assert Keep.for_years(6).until(at(created)) == at(until)


def test_a_leap_day_stays_a_leap_day_where_the_year_has_one():
    assert Keep.for_years(4).until(at("2024-02-29T00:00")) == at("2028-02-29T00:00")


def test_six_years_are_at_most_2192_days_and_the_documents_2190_would_lose_a_day_or_two():
    assert Keep.for_years(6).most_days == 2192
    lengths = {(Keep.for_years(6).until(d) - d).days for d in (at("2023-03-01"), at("2025-03-01"), at("2026-11-23"))}
    assert lengths == {2191, 2192}  # until 2100, which is no leap year


def test_days_are_times_24_hours():
    assert Keep.for_days(35).until(at("2026-01-01T03:00")) == at("2026-02-05T03:00")
    assert Keep.for_days(35).most_days == 35


def test_retention_is_reckoned_in_utc_whatever_zone_the_time_comes_in():
    zone = timezone(timedelta(hours=-5))
    assert Keep.for_days(1).until(datetime(2026, 1, 1, 22, tzinfo=zone)) == at("2026-01-03T03:00")


def test_a_naive_time_is_refused_because_its_zone_would_be_a_guess():
    with pytest.raises(ValueError, match="created must be timezone-aware"):
        Keep.for_days(1).until(datetime(2026, 1, 1))  # noqa: DTZ001  the point of the test


@given(st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2399, 12, 31), timezones=st.just(UTC)))  # noqa: DTZ001  hypothesis adds the zone
def test_no_six_years_are_ever_longer_than_what_services_that_count_days_are_told(created):
    keep = Keep.for_years(6)
    assert keep.until(created) <= created + timedelta(days=keep.most_days)


# JSON.


@pytest.mark.parametrize(
    "policy",
    [
        HIPAA,
        RetentionPolicy.dev(),
        RetentionPolicy(),
        HIPAA.with_changes(
            {
                "weekly": None,
                "monthly": {"store": "both", "keep": {"days": 400}},
                "archive": {
                    "transitions": [
                        {"days": 30, "storage_class": "STANDARD_IA"},
                        {"days": 90, "storage_class": "DEEP_ARCHIVE"},
                    ],
                    "noncurrent_days": 7,
                },
                "sweep": {"enforce": True, "max_share": 1},
            }
        ),
    ],
    ids=["hipaa", "dev", "empty", "changed"],
)
def test_a_policy_comes_back_from_json_as_it_was(policy):
    assert RetentionPolicy.from_json(policy.to_json()) == policy
    assert RetentionPolicy.from_json(policy.environment()["RETENTION_POLICY"]) == policy


def test_the_json_is_one_stable_line_with_a_schema_number():
    text = HIPAA.to_json()
    assert "\n" not in text
    assert text == RetentionPolicy.from_json(text).to_json()
    assert json.loads(text)["schema"] == 1


def test_the_environment_leaves_room_under_lambdas_4_kb():
    assert len(HIPAA.to_json()) < 2048


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "policy must be JSON"),
        ("[]", "policy.schema must be 1"),
        ("{}", "policy.schema must be 1"),
        ('{"schema": 2}', "policy.schema must be 1"),
        ('{"schema": 1, "wekly": null}', "policy.wekly is not a setting; policy has archive, automated"),
        (
            '{"schema": 1, "weekly": {"schedule": "cron(0 2 ? * SUN *)"}}',
            r"policy.weekly needs keep, got \['schedule'\]",
        ),
        ('{"schema": 1, "weekly": []}', r"policy.weekly must be an object, got \[\]"),
        ('{"schema": 1, "archive": {"transitions": {}}}', r"policy.archive.transitions must be a list, got \{\}"),
        (
            '{"schema": 1, "archive": {"transitions": [{"days": 1, "storage_class": "ICE"}]}}',
            r"policy.archive.transitions\[0\].storage_class must be one of STANDARD_IA, .*got 'ICE'",
        ),
        ('{"schema": 1, "sweep": {"enforce": "yes"}}', "policy.sweep.enforce must be bool, got 'yes'"),
        ('{"schema": 1, "automated": {"keep_days": true}}', "policy.automated.keep_days must be int, got True"),
        ('{"schema": 1, "automated": {"keep_days": NaN}}', "automated.keep_days must be a whole number .* got nan"),
        ('{"schema": 1, "on_demand": null}', "policy.on_demand must be an object, got None"),
    ],
)
def test_json_that_is_not_a_policy_is_refused_by_path(text, message):
    with pytest.raises(PolicyError, match=message):
        RetentionPolicy.from_json(text)


# Changes.


def test_changes_lie_over_the_policy_and_leave_the_rest():
    policy = HIPAA.with_changes({"weekly": {"keep": {"days": 200}}, "monthly": None})
    assert policy.weekly == SnapshotTier(schedule="cron(0 2 ? * SUN *)", keep=Keep.for_days(200))
    assert policy.monthly is None
    assert policy.logical == HIPAA.logical


def test_a_retention_in_days_replaces_one_in_years():
    assert HIPAA.with_changes({"monthly": {"keep": {"days": 2200}}}).keep(Tier.MONTHLY) == Keep.for_days(2200)


def test_an_unknown_change_is_refused_by_name():
    with pytest.raises(PolicyError, match=r"policy\.weekly\.retain is not a setting; policy\.weekly has keep, "):
        HIPAA.with_changes({"weekly": {"retain": 3}})


def test_a_policy_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        HIPAA.weekly = None  # type: ignore[misc]


# Refusals: field, rule and value.


@pytest.mark.parametrize("days", [0, -1, 36, 1000])
def test_automated_retention_outside_1_to_35_is_refused(days):
    with pytest.raises(PolicyError, match=rf"automated\.keep_days must be within 1-35, got {days}"):
        AutomatedTier(keep_days=days)


@pytest.mark.parametrize("days", [math.nan, math.inf, 1.5, True, "35", None])
def test_automated_retention_that_is_no_whole_number_is_refused(days):
    with pytest.raises(PolicyError, match=r"automated\.keep_days must be a whole number within 1-35, got "):
        AutomatedTier(keep_days=days)


@pytest.mark.parametrize("value", [0, -7, math.nan, math.inf, -math.inf, 10**9, True, 0.5])
@pytest.mark.parametrize("unit", ["days", "years"])
def test_a_negative_zero_nan_or_absurd_retention_is_refused(unit, value):
    with pytest.raises(PolicyError, match=rf"keep\.{unit} must be .*, got {value!r}"):
        Keep(**{unit: value})


@pytest.mark.parametrize("given", [{}, {"days": 1, "years": 1}])
def test_a_retention_has_exactly_one_unit(given):
    with pytest.raises(PolicyError, match="keep must have exactly one of days and years"):
        Keep(**given)


@pytest.mark.parametrize(
    ("window", "rule"),
    [
        ("03:00-03:29", "must last 30 minutes or more"),
        ("03:00-03:00", "must last 30 minutes or more"),
        ("3:00-4:00", "must read hh:mm-hh:mm in UTC"),
        ("24:00-01:00", "must read hh:mm-hh:mm in UTC"),
        ("03:00", "must read hh:mm-hh:mm in UTC"),
        ("", "must read hh:mm-hh:mm in UTC"),
        (None, "must read hh:mm-hh:mm in UTC"),
    ],
)
def test_a_backup_window_that_rds_would_refuse_is_refused(window, rule):
    with pytest.raises(PolicyError, match=rf"automated\.backup_window {rule}, got {window!r}"):
        AutomatedTier(backup_window=window)


@pytest.mark.parametrize(
    ("window", "rule"),
    [
        ("Mon:04:00-Mon:04:29", "must last 30 minutes or more"),
        ("Mon:04:00-05:00", "must read Ddd:hh:mm-Ddd:hh:mm in UTC"),
        ("Moo:04:00-Mon:05:00", "must read Ddd:hh:mm-Ddd:hh:mm in UTC"),
        ("Mon:04:60-Mon:05:00", "must read Ddd:hh:mm-Ddd:hh:mm in UTC"),
    ],
)
def test_a_maintenance_window_that_rds_would_refuse_is_refused(window, rule):
    with pytest.raises(PolicyError, match=rf"automated\.maintenance_window {rule}, got {window!r}"):
        AutomatedTier(maintenance_window=window)


@pytest.mark.parametrize(
    ("backup", "maintenance"),
    [
        ("03:00-04:00", "Mon:03:59-Mon:05:00"),
        ("03:00-04:00", "Mon:02:00-Mon:03:01"),
        ("23:30-00:30", "Mon:00:00-Mon:00:30"),
        ("23:30-00:30", "Sun:23:45-Mon:00:15"),
        ("00:00-01:00", "Sat:22:00-Sun:00:30"),
    ],
)
def test_windows_that_overlap_are_refused_also_over_midnight_and_the_end_of_the_week(backup, maintenance):
    with pytest.raises(PolicyError, match=f"backup_window '{backup}' must not overlap .*'{maintenance}'"):
        AutomatedTier(backup_window=backup, maintenance_window=maintenance)


@pytest.mark.parametrize(
    ("backup", "maintenance"),
    [
        ("03:00-04:00", "Mon:04:00-Mon:05:00"),
        ("23:30-00:30", "Mon:00:30-Mon:01:00"),
        ("03:00-03:30", "Sun:23:30-Mon:00:30"),
    ],
)
def test_windows_that_only_touch_are_accepted(backup, maintenance):
    AutomatedTier(backup_window=backup, maintenance_window=maintenance)


@pytest.mark.parametrize("days", [90, 91])
def test_a_transition_at_or_after_expiry_is_refused_with_both_numbers(days):
    with pytest.raises(PolicyError, match=rf"mine/: expire_days 90 must be greater than .*GLACIER at {days} days"):
        LifecycleRule("mine/", 90, (Transition(days, StorageClass.GLACIER),))


def test_the_documents_own_rules_are_among_the_refused():
    for prefix, expire in (("automated-backups/", 35), ("logical-backups/", 90)):
        with pytest.raises(PolicyError, match=f"{prefix}: expire_days {expire} must be greater"):
            LifecycleRule(prefix, expire, (Transition(90, StorageClass.GLACIER),))


def test_infrequent_access_before_30_days_is_refused():
    with pytest.raises(PolicyError, match=r"transition\.days must be 30 or more for STANDARD_IA, got 29"):
        Transition(29, StorageClass.STANDARD_IA)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Transition(30, StorageClass.GLACIER), Transition(60, StorageClass.STANDARD_IA)),
        (Transition(60, StorageClass.GLACIER), Transition(60, StorageClass.DEEP_ARCHIVE)),
        (Transition(60, StorageClass.GLACIER), Transition(90, StorageClass.GLACIER)),
        (Transition(30, StorageClass.STANDARD_IA), Transition(59, StorageClass.GLACIER)),
    ],
)
def test_transitions_out_of_order_or_too_close_are_refused(first, second):
    message = f"from warm to cold.*got {first.storage_class} at {first.days} days and then {second.storage_class} at"
    with pytest.raises(PolicyError, match=f"archive.transitions must go {message}"):
        Archive(transitions=(first, second))
    with pytest.raises(PolicyError, match=f"mine/: transitions must go {message}"):
        LifecycleRule("mine/", 1000, (first, second))


def test_an_archive_step_that_no_set_lives_to_see_is_refused():
    with pytest.raises(
        PolicyError, match=r"DEEP_ARCHIVE at 3000 days must come before .*compliance-backups/ 2192 days"
    ):
        dataclasses.replace(HIPAA, archive=Archive(transitions=(Transition(3000, StorageClass.DEEP_ARCHIVE),)))


def test_only_the_monthly_tier_may_choose_its_store():
    with pytest.raises(PolicyError, match=r"weekly\.store must be 'snapshots'"):
        HIPAA.with_changes({"weekly": {"store": "sets"}})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SnapshotTier(schedule="rate(7 days)", keep=Keep.for_days(1)), "schedule: schedule must read cron"),
        (lambda: LogicalTier(schedule="cron(0 2 * * SAT *)"), r"logical\.schedule: exactly one of day of month"),
        (lambda: LogicalTier(trial_restore="cron(0 2 32 * ? *)"), r"logical\.trial_restore: day of month .*got '32'"),
        (
            lambda: LogicalTier(compression="zstd:20"),
            r"logical\.compression must read zstd:1 to zstd:19, got 'zstd:20'",
        ),
        (lambda: AutomatedTier(sets_schedule="daily"), r"automated\.sets_schedule: schedule must read cron.*'daily'"),
        (lambda: OnDemandTier(minimum_copies=-1), r"on_demand\.minimum_copies must be within 0-1000, got -1"),
        (lambda: Sweep(max_share=0), r"sweep\.max_share must be above 0 and at most 1, got 0"),
        (lambda: Sweep(max_share=math.nan), r"sweep\.max_share must be above 0 and at most 1, got nan"),
        (lambda: Sweep(max_deletions=0), r"sweep\.max_deletions must be within 1-10000, got 0"),
        (lambda: RecoveryTesting(heartbeat_minutes=0), r"heartbeat_minutes must be within 1-60, got 0"),
        (lambda: Archive(noncurrent_days=0), r"archive\.noncurrent_days must be within 1-36500, got 0"),
    ],
)
def test_every_other_field_refuses_what_it_cannot_mean(make, message):
    with pytest.raises(PolicyError, match=message):
        make()


# The quota of manual snapshots.


def test_the_projection_counts_the_snapshots_that_both_rules_hold_at_one_time():
    assert HIPAA.projected_snapshots() in {98, 99}
    assert HIPAA.with_changes({"monthly": {"store": MonthlyStore.SETS.value}}).projected_snapshots() in {25, 26}
    assert RetentionPolicy.dev().projected_snapshots() == 0


def test_the_policy_is_importable_without_cdk_or_boto3():
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('aws_cdk', 'boto3', 'botocore', 'pg8000')));"
        "from aurora_backup.policy import RetentionPolicy; print(RetentionPolicy.hipaa().keep('monthly'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("6 years", 0), done.stderr


def test_a_choice_may_be_given_as_text_and_means_the_same():
    text = SnapshotTier(schedule="cron(0 1 1 * ? *)", keep=Keep.for_years(6), store="sets")
    policy = RetentionPolicy(monthly=text, logical=LogicalTier())
    assert policy.snapshot_rules() == []
    assert RetentionPolicy.from_json(policy.to_json()) == policy
    with pytest.raises(PolicyError, match="30 or more for STANDARD_IA, got 10"):
        Transition(10, "STANDARD_IA")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SnapshotTier(schedule="cron(0 1 1 * ? *)", keep=35), "keep must be a Keep, got 35"),
        (lambda: RetentionPolicy(weekly="x"), "weekly must be a SnapshotTier, got 'x'"),
        (lambda: RetentionPolicy(sweep=None), "sweep must be a Sweep, got None"),
        (lambda: LogicalTier(compression=5), "logical.compression must be a str, got 5"),
        (
            lambda: SnapshotTier(schedule="cron(0 1 1 * ? *)", keep=Keep.for_days(9), store="tape"),
            "store must be one of snapshots, sets, both, got 'tape'",
        ),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(make, said):
    with pytest.raises(PolicyError, match=said):
        make()
