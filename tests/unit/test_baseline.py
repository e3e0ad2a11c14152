from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_backup.baseline import Bound, Database, Facts, FactsError, Heartbeat, Table, around, bound, tolerance_of

T0 = datetime(2026, 11, 1, tzinfo=UTC)


def table(rows, inserted=0, deleted=0, file=1, *, exact=True):
    return Table(rows=rows, inserted=inserted, deleted=deleted, file=file, exact=exact)


@pytest.mark.parametrize(
    ("before", "after", "low", "high"),
    [
        (table(100), table(100), 100, 100),
        (table(100, 0, 0), table(150, 50, 0), 100, 200),  # up to 50 more were there and went, before the counters' end
        (table(100, 10, 5), table(90, 20, 25), 70, 110),
        (table(5, 0, 0), table(0, 0, 10), 0, 5),  # never below nothing
        (table(100, file=1), table(20, file=2), 0, 100),  # truncated meanwhile: the counters do not see it
    ],
)
def test_two_baselines_bound_what_lies_between(before, after, low, high):
    assert bound(before, after) == Bound(low, high)


def test_a_tolerance_widens_the_bound_by_its_share_of_the_larger_end():
    assert bound(table(100), table(100), 0.05) == Bound(95, 105)


def test_reset_statistics_make_a_bound_doubtful_and_not_wider():
    found = bound(table(100, 500), table(120, 20))
    assert (found.low, found.high) == (100, 120)
    assert "statistics were reset" in found.doubtful


def test_one_baseline_or_an_estimate_makes_a_bound_doubtful():
    assert "only one baseline" in bound(table(7), None).doubtful
    assert "estimate" in bound(table(7, exact=False), table(7)).doubtful


def test_what_no_baseline_counted_has_no_bound():
    assert bound(None, None) is None
    assert bound(table(None), None) is None


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 50)), max_size=30),
    st.integers(0, 200),
    st.integers(0, 30),
)
def test_no_history_of_inserts_and_deletes_ever_leaves_its_bound(history, start, moment):
    """Whatever a table does between two baselines, its count at any moment between them is within the bound."""
    rows, inserted, deleted, counts = start, 0, 0, [start]
    for is_insert, wanted in history:
        amount = wanted if is_insert else min(wanted, rows)
        rows += amount if is_insert else -amount
        inserted += amount if is_insert else 0
        deleted += 0 if is_insert else amount
        counts.append(rows)
    limits = bound(table(start), table(rows, inserted, deleted))
    assert not limits.doubtful
    assert limits.low <= counts[min(moment, len(counts) - 1)] <= limits.high


def test_a_tolerance_is_found_for_the_table_its_database_or_all():
    given_ = {"app.public.jobs": 0.9, "public.logs": 0.5, "*": 0.01}
    assert tolerance_of("app.public.jobs", given_) == 0.9
    assert tolerance_of("app.public.logs", given_) == 0.5
    assert tolerance_of("app.public.patients", given_) == 0.01
    assert tolerance_of("app.public.patients", {}) == 0.0


def test_a_reading_that_was_under_way_at_the_recovery_point_is_neither_before_nor_after():
    minute = timedelta(minutes=1)
    readings = [(T0 + n * minute, T0 + n * minute + timedelta(seconds=90), f"key-{n}") for n in range(0, 10, 2)]
    assert around(readings, T0 + 4.5 * minute) == ("key-2", "key-6")
    assert around(readings, T0 - minute) == (None, "key-0")
    assert around(readings, T0 + 60 * minute) == ("key-8", None)


FACTS = Facts(
    taken=T0,
    finished=T0 + timedelta(seconds=3),
    server=170005,
    roles=("role app",),
    databases={
        "app": Database(
            tables={"public.t": table(3, 4, 1, 9)},
            permissions=("grant",),
            heartbeat=Heartbeat(first=1, last=3, count=3, last_at=T0),
            recency=T0,
        )
    },
    failed={"other": "gone"},
)


def test_facts_are_the_same_after_json():
    assert Facts.from_json(FACTS.to_json()) == FACTS


def test_facts_of_another_schema_or_shape_are_refused():
    data = json.loads(FACTS.to_json())
    for change in ({"schema": 2}, {"databases": []}, {"taken": "yesterday"}, {"surprise": 1}):
        with pytest.raises(FactsError):
            Facts.from_json(json.dumps({**data, **change}))
    with pytest.raises(FactsError):
        Facts.from_json("[]")


def test_naive_times_are_refused():
    with pytest.raises(ValueError, match="taken must be timezone-aware"):
        Facts(taken=T0.replace(tzinfo=None), finished=T0, server=1)
