"""AWS cron expressions: which are refused, and when the accepted ones fire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_backup.schedule import Schedule, ScheduleError, require_utc


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("cron(0 2 ? * ? *)", "exactly one of day of month and day of week must be"),
        ("cron(0 2 * * * *)", "exactly one of day of month and day of week must be"),
        ("cron(0 2 1 * SUN *)", "exactly one of day of month and day of week must be"),
        ("cron(0 2 32 * ? *)", "day of month must be within 1-31, got '32'"),
        ("cron(0 2 0 * ? *)", "day of month must be within 1-31, got '0'"),
        ("cron(60 2 ? * SUN *)", "minute must be within 0-59, got '60'"),
        ("cron(0 24 ? * SUN *)", "hour must be within 0-23, got '24'"),
        ("cron(0 2 ? 13 SUN *)", "month must be within 1-12, got '13'"),
        ("cron(0 2 ? * 8 *)", "day of week must be within 1-7, got '8'"),
        ("cron(0 2 ? * 0 *)", "day of week must be within 1-7, got '0'"),
        ("cron(0 2 ? * SUNDAY *)", "day of week must be within 1-7, got 'SUNDAY'"),
        ("cron(0 2 ? * SUN#6 *)", "day of week must be within 1-7, got 'SUN#6'"),
        ("cron(0 2 ? * SUN 1969)", "year must be within 1970-2199, got '1969'"),
        ("cron(5-1 2 ? * SUN *)", "minute must be within 0-59, got '5-1'"),
        ("cron(*/0 2 ? * SUN *)", "minute must be within 0-59"),
        ("cron(-1 2 ? * SUN *)", "minute must be within 0-59"),
        ("cron(٣ 2 ? * SUN *)", "minute must be within 0-59"),
        ("cron(0 2 ? * SUN)", "schedule needs six fields"),
        ("cron(0 2 ? * SUN * *)", "schedule needs six fields"),
        ("rate(7 days)", "schedule must read cron"),
        ("0 2 ? * SUN *", "schedule must read cron"),
        ("", "schedule must read cron"),
        (None, "schedule must read cron"),
    ],
)
def test_an_expression_that_aws_would_refuse_is_refused_with_field_rule_and_value(expression, message):
    with pytest.raises(ScheduleError, match=message):
        Schedule(expression)


@pytest.mark.parametrize(
    ("expression", "after", "fires"),
    [
        ("cron(0 2 ? * SUN *)", "2026-11-23T00:00", "2026-11-29T02:00"),
        ("cron(0 2 ? * 1 *)", "2026-11-23T00:00", "2026-11-29T02:00"),
        ("cron(0 2 ? * SAT *)", "2026-11-28T02:00", "2026-12-05T02:00"),
        ("cron(0 1 1 * ? *)", "2026-11-23T00:00", "2026-12-01T01:00"),
        ("cron(0 1 L * ? *)", "2028-02-01T00:00", "2028-02-29T01:00"),
        ("cron(0 1 29 2 ? *)", "2026-01-01T00:00", "2028-02-29T01:00"),
        ("cron(0 1 ? * 6L *)", "2026-11-01T00:00", "2026-11-27T01:00"),
        ("cron(0 1 ? * MON#2 *)", "2026-11-10T00:00", "2026-12-14T01:00"),
        ("cron(0 1 ? * L *)", "2026-11-23T00:00", "2026-11-28T01:00"),
        ("cron(0 1 1W * ? *)", "2026-07-15T00:00", "2026-08-03T01:00"),
        ("cron(0 1 31W * ? *)", "2027-01-01T00:00", "2027-01-29T01:00"),
        ("cron(0/20 9-10 ? JAN,MAR MON-FRI *)", "2026-11-23T00:00", "2027-01-01T09:00"),
        ("cron(15 10 * * ? 2027)", "2026-11-23T00:00", "2027-01-01T10:15"),
        ("cron(15 10 * * ? 2020)", "2026-11-23T00:00", None),
    ],
)
def test_the_next_firing_is_where_the_expression_says(expression, after, fires):
    assert Schedule(expression).next(at(after)) == (at(fires) if fires else None)


def test_occurrences_include_the_start_and_leave_out_the_end():
    schedule = Schedule("cron(0 2 ? * SUN *)")
    found = list(schedule.occurrences(at("2026-11-01T02:00"), at("2026-11-29T02:00")))
    assert found == [at(f"2026-11-{day:02}T02:00") for day in (1, 8, 15, 22)]


@pytest.mark.parametrize(
    ("expression", "gap"),
    [
        ("cron(0 2 ? * SUN *)", timedelta(days=7)),
        ("cron(0 1 1 * ? *)", timedelta(days=31)),
        ("cron(0 1 31 * ? *)", timedelta(days=61)),
        ("cron(0/15 * * * ? *)", timedelta(minutes=15)),
    ],
)
def test_the_longest_gap_is_what_an_alarm_on_a_missing_success_must_wait(expression, gap):
    assert Schedule(expression).longest_gap() == gap


@pytest.mark.parametrize("expression", ["cron(0 2 1 1 ? 2020)", "cron(0 2 30 2 ? *)", "cron(0 2 1 1 ? 2026)"])
def test_a_schedule_that_fires_less_than_twice_has_no_gap(expression):
    with pytest.raises(ScheduleError, match="schedule must fire at least twice in four years"):
        Schedule(expression).longest_gap()


def test_a_naive_time_is_refused():
    with pytest.raises(ValueError, match="after must be timezone-aware"):
        Schedule("cron(0 2 ? * SUN *)").next(datetime(2026, 1, 1))  # noqa: DTZ001  the point of the test
    with pytest.raises(ValueError, match="x must be timezone-aware, got the naive 2026-01-01T00:00:00"):
        require_utc(datetime(2026, 1, 1), "x")  # noqa: DTZ001  the point of the test


@given(
    minute=st.integers(0, 59),
    hour=st.integers(0, 23),
    day=st.integers(1, 28),
    start=st.datetimes(min_value=datetime(2024, 1, 1), max_value=datetime(2032, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001  hypothesis adds the zone
)
def test_a_monthly_schedule_fires_once_in_every_month(minute, hour, day, start):
    schedule = Schedule(f"cron({minute} {hour} {day} * ? *)")
    first = schedule.next(start)
    assert first is not None
    second = schedule.next(first)
    assert second is not None
    assert start < first <= start + timedelta(days=31)
    assert (second.month - first.month) % 12 == 1
    assert (second.day, second.hour, second.minute) == (day, hour, minute)
