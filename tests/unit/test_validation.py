from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_backup.baseline import NO_ANSWER, RECENCY, Database, Facts, Heartbeat, Integrity, Table
from aurora_backup.validation import Expectation, Outcome, Verdict, validate

T0 = datetime(2026, 11, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
BEATS = Heartbeat(first=1, last=10, count=10, last_at=T0 - MINUTE)
SOURCE = Database(
    tables={"public.t": Table(rows=100)},
    constraints=("public.t: t_pkey PRIMARY KEY (id)",),
    permissions=("grant SELECT on public.t to app",),
    heartbeat=BEATS,
)
COPY = replace(SOURCE, integrity=Integrity(checked=2))


def facts(database=SOURCE, **changes):
    return Facts(
        **{"taken": T0, "finished": T0, "server": 17, "roles": ("role app",), "databases": {"app": database}, **changes}
    )


BASE = facts()


def judge(database=COPY, *, found=None, **changes):
    expected = {"moment": T0, "before": BASE, "after": BASE}
    return validate(found or facts(database), Expectation(**{**expected, **changes}))


def verdicts(result):
    return {check.name: check.verdict.value for check in result.checks}


def check(result, name):
    (found,) = [c for c in result.checks if c.name == name]
    return found


def test_a_copy_like_its_baselines_is_restored_and_its_rpo_is_the_age_of_the_last_write():
    result = judge()
    assert result.outcome is Outcome.RESTORED
    assert set(verdicts(result).values()) == {"PASS"}
    assert result.to_dict()["rpo_seconds"] == 60


@pytest.mark.parametrize("missing", ["before", "after"])
def test_with_one_baseline_a_difference_is_unknown_and_agreement_passes(missing):
    assert judge(**{missing: None}).outcome is Outcome.RESTORED
    fewer = judge(replace(COPY, tables={"public.t": Table(rows=1)}), **{missing: None})
    assert check(fewer, "record counts").verdict is Verdict.UNKNOWN
    assert "only one baseline knows the table" in check(fewer, "record counts").reason
    gone = judge(replace(COPY, tables={}, constraints=(), permissions=()), **{missing: None})
    assert set(verdicts(gone).values()) == {"UNKNOWN", "PASS"}
    assert gone.outcome is Outcome.NOT_PROVED


def test_a_table_made_or_dropped_between_the_baselines_may_be_there_or_not():
    dropped = facts(replace(SOURCE, tables={}))
    assert verdicts(judge(after=dropped))["record counts"] == "PASS"
    assert verdicts(judge(replace(COPY, tables={}), after=dropped))["record counts"] == "PASS"
    made_meanwhile = replace(COPY, tables={**COPY.tables, "public.new": Table(rows=5)})
    assert verdicts(judge(made_meanwhile))["record counts"] == "PASS"


def test_a_grant_made_or_lost_between_the_baselines_may_be_there_or_not():
    later = facts(replace(SOURCE, permissions=(*SOURCE.permissions, "grant UPDATE")))
    assert verdicts(judge(after=later))["permissions"] == "PASS"
    assert (
        verdicts(judge(replace(COPY, permissions=(*SOURCE.permissions, "grant UPDATE")), after=later))["permissions"]
        == "PASS"
    )
    stranger = judge(replace(COPY, permissions=(*SOURCE.permissions, "grant DELETE")), after=later)
    assert check(stranger, "permissions").reason == "app: grant DELETE is new"


def test_a_logical_set_is_held_against_its_own_counts_exactly():
    result = judge(replace(COPY, tables={"public.t": Table(rows=101)}))
    assert check(result, "record counts").reason == "app.public.t has 101 rows, expected 100"
    assert "exact for a logical set" in check(judge(), "record counts").reason


def test_a_missing_database_fails_and_an_unreadable_one_is_unknown():
    assert "database app is missing" in check(judge(found=facts(databases={})), "record counts").reason
    unreadable = judge(found=facts(databases={}, failed={"app": "permission denied"}))
    assert set(verdicts(unreadable).values()) == {"UNKNOWN"}
    assert "app: permission denied" in check(unreadable, "permissions").reason


UNREAD = facts(databases={}, roles=(), failed={"app": "QueryFailed: permission denied"})


@pytest.mark.parametrize("found", [BASE, facts(databases={})])
def test_what_no_baseline_could_read_is_unknown_whether_or_not_the_copy_holds_it(found):
    found = replace(found, databases=dict.fromkeys(found.databases, COPY))
    result = judge(found=found, before=UNREAD, after=UNREAD)
    assert result.outcome is Outcome.NOT_PROVED
    for name in ("record counts", "data integrity", "permissions"):
        told = check(result, name)
        assert told.verdict is Verdict.UNKNOWN
        assert "app is not compared whole, a baseline could not read it: QueryFailed: permission denied" in told.reason


@pytest.mark.parametrize("side", ["before", "after"])
def test_what_one_baseline_could_not_read_is_unknown_and_still_has_to_be_there(side):
    other = replace(UNREAD, databases={"other": SOURCE}, roles=BASE.roles)
    sides = {"before": facts(databases={"app": SOURCE, "other": SOURCE}), "after": BASE, side: other}
    sides["after" if side == "before" else "before"] = facts(databases={"app": SOURCE, "other": SOURCE})
    here = facts(databases={"app": COPY, "other": COPY})
    assert judge(found=here, **sides).outcome is Outcome.NOT_PROVED
    gone = judge(found=facts(databases={"other": COPY}), **sides)
    assert check(gone, "record counts").reason == "database app is missing"
    assert gone.outcome is Outcome.DAMAGED


@given(st.sampled_from(["before", "after", "both"]), st.booleans(), st.booleans())
def test_a_copy_is_never_called_restored_when_a_baseline_could_not_read_a_database(side, there, other):
    more = {"other": SOURCE} if other else {}
    base, unread = facts(databases={"app": SOURCE, **more}), replace(UNREAD, databases=more)
    found = facts(databases={**({"app": COPY} if there else {}), **({"other": COPY} if other else {})})
    sides = {name: unread if side in {name, "both"} else base for name in ("before", "after")}
    assert judge(found=found, **sides).outcome is not Outcome.RESTORED


@pytest.mark.parametrize(
    ("beats", "says"),
    [
        (replace(BEATS, last=9, count=9), "stale copy: the last heartbeat is 9, but 10 was written"),
        (replace(BEATS, count=8), "2 of the heartbeats 1 to 10 are missing"),
        (replace(BEATS, first=12, last=20, count=9), "the heartbeats before 12 are missing"),
        (replace(BEATS, last_at=T0 - 11 * MINUTE), "660 s older than the recovery point, allowed are 605 s"),
        (None, "the heartbeat table is missing or empty"),
    ],
)
def test_the_heartbeat_fails_for_its_own_reason(beats, says):
    found = check(judge(replace(COPY, heartbeat=beats)), "recent transactions")
    assert found.verdict is Verdict.FAIL
    assert says in found.reason


def test_a_write_after_the_recovery_point_is_wrong_only_where_the_point_is_a_precise_time():
    late = replace(COPY, heartbeat=replace(BEATS, last_at=T0 + MINUTE))
    assert verdicts(judge(late, precise=False))["recent transactions"] == "PASS"
    assert "60 s newer than the recovery point" in check(judge(late, precise=True), "recent transactions").reason


def test_without_heartbeat_and_without_recency_query_nothing_is_known_of_recent_transactions():
    bare = facts(replace(SOURCE, heartbeat=None))
    result = judge(replace(COPY, heartbeat=None), before=bare, after=bare)
    assert check(result, "recent transactions").verdict is Verdict.UNKNOWN
    assert result.rpo is None


@pytest.mark.parametrize(
    ("before", "after", "why", "verdict"),
    [
        (T0, T0, NO_ANSWER, "FAIL"),
        (T0, "none", NO_ANSWER, "FAIL"),
        (T0, None, NO_ANSWER, "UNKNOWN"),  # emptied before the recovery point, or after it
        (None, T0, NO_ANSWER, "UNKNOWN"),
        (None, None, NO_ANSWER, "UNKNOWN"),
        (T0, T0, "QueryFailed: no such table", "UNKNOWN"),
    ],
)
def test_a_recency_query_without_an_answer_is_never_passed_over(before, after, why, verdict):
    sides = {
        side: None if answer == "none" else facts(replace(SOURCE, recency=answer))
        for side, answer in (("before", before), ("after", after))
    }
    result = judge(replace(COPY, unreadable={RECENCY: why}), recent_within=MINUTE, **sides)
    assert verdicts(result)["recent transactions"] == verdict
    assert "app: the recency query" in check(result, "recent transactions").reason


def test_a_check_that_was_asked_for_and_has_no_answer_is_unknown():
    answered = replace(COPY, integrity=Integrity(checked=2, checks={"orphans": True}))
    assert judge(answered, reasons={"orphans": "r"}).outcome is Outcome.RESTORED
    result = judge(answered, reasons={"orphans": "r", "doubles": "r"})
    assert check(result, "data integrity").verdict is Verdict.UNKNOWN
    assert check(result, "data integrity").reason.startswith("doubles was asked for and has no answer")


def test_what_was_invalid_on_the_source_already_is_not_held_against_the_copy():
    broken = ("index public.x is not valid",)
    source = facts(replace(SOURCE, invalid=broken))
    assert verdicts(judge(replace(COPY, invalid=broken), before=source, after=source))["data integrity"] == "PASS"
    assert verdicts(judge(replace(COPY, invalid=broken)))["data integrity"] == "FAIL"


def test_amcheck_that_was_not_run_is_unknown():
    assert verdicts(judge(SOURCE))["data integrity"] == "UNKNOWN"


def test_a_failure_outweighs_what_is_unknown():
    both = replace(COPY, integrity=Integrity(checked=1, corrupt={"index i": "bad"}, unchecked={"table t": "no time"}))
    result = judge(both)
    assert verdicts(result)["data integrity"] == "FAIL"
    assert result.outcome is Outcome.DAMAGED


def test_a_long_list_of_findings_is_cut_and_counted():
    many = {f"public.t{n}": Table(rows=1) for n in range(30)}
    base = facts(replace(SOURCE, tables=many))
    result = judge(replace(COPY, tables={}), before=base, after=base)
    assert check(result, "record counts").reason.endswith("; and 10 more")


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "tables": st.just({"public.t": Table(rows=None)}),
            "heartbeat": st.none(),
            "integrity": st.one_of(st.none(), st.just(Integrity(unchecked={"x": "y"}))),
            "unreadable": st.just({"table public.t": "denied"}),
            "constraints": st.just(()),
        },
    ),
    st.booleans(),
    st.booleans(),
)
def test_a_copy_is_called_restored_only_when_every_check_passed(changes, has_before, has_after):
    result = judge(replace(COPY, **changes), before=BASE if has_before else None, after=BASE if has_after else None)
    assert (result.outcome is Outcome.RESTORED) == (set(verdicts(result).values()) == {"PASS"})
    if changes or not (has_before or has_after):
        assert result.outcome is not Outcome.RESTORED
