"""A restored copy with real damage in a real PostgreSQL: every validation fails for the right reason."""

from __future__ import annotations

import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from aurora_backup.baseline import Facts
from aurora_backup.facts_sql import Questions, UserCheck, read_facts
from aurora_backup.heartbeat import beat
from aurora_backup.postgres import Session, Target
from aurora_backup.validation import Expectation, Outcome, Verdict, validate

CANARY = "canary-patient-4711"
SCHEMA = """
CREATE EXTENSION amcheck;
CREATE TABLE patients (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, visits int CHECK (visits >= 0));
CREATE TABLE visits (id serial PRIMARY KEY, patient bigint NOT NULL REFERENCES patients, at timestamptz NOT NULL);
CREATE SCHEMA "odd ""schema:x";
CREATE TABLE "odd ""schema:x"."it's : a {table}" (n int PRIMARY KEY);
INSERT INTO patients (name, visits) SELECT 'canary-patient-4711', n FROM generate_series(1, 400) n;
INSERT INTO visits (patient, at) SELECT n, now() - n * interval '1 minute' FROM generate_series(1, 400) n;
INSERT INTO "odd ""schema:x"."it's : a {table}" SELECT generate_series(1, 7);
CREATE INDEX patients_name ON patients (name, id);
ALTER TABLE patients ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON patients USING (name = current_user);
ANALYZE;
"""
LATER = time.monotonic() + 86_400
QUESTIONS = Questions(
    clock=time.monotonic,
    deadline=LATER,
    integrity=True,
    recency={},
)


def target(postgres, database):
    return Target(
        host=postgres.host,
        port=postgres.port,
        dbname=database,
        user=postgres.user,
        password=lambda: postgres.password,
        sslrootcert=str(postgres.ca),
    )


@pytest.fixture(scope="module")
def source(postgres):
    """A database with some of everything, and roles of its own."""
    name = postgres.database()
    postgres.psql(SCHEMA, name)
    postgres.psql(
        f'CREATE ROLE "{name}_app" LOGIN CONNECTION LIMIT 7; CREATE ROLE "{name}_readers";'
        f'GRANT "{name}_readers" TO "{name}_app"; GRANT SELECT ON patients TO "{name}_readers";'
        f'GRANT UPDATE (visits) ON patients TO "{name}_app";'
        f'ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO "{name}_readers"',
        name,
    )
    with Session(target(postgres, name)) as session:
        for _ in range(5):
            beat(session)
    return name


def facts(postgres, database, *, as_database="app", questions=QUESTIONS):
    def open_session(_):
        return Session(target(postgres, database))

    return read_facts(open_session, (as_database,), questions)


@pytest.fixture(scope="module")
def baseline(postgres, source):
    return facts(postgres, source)


@pytest.fixture
def copy(postgres, source):
    """A physical copy of the source, as a restore would give: its own bytes, the same file numbers aside."""

    @contextmanager
    def made(damage=""):
        name = postgres.database(source)
        try:
            if damage:
                postgres.psql(damage.replace("{source}", source), name)
            yield name
        finally:
            postgres.psql(f'DROP DATABASE "{name}"')

    return made


def judge(found, baseline, **changes):
    expected = {"moment": datetime.now(UTC), "before": baseline, "after": baseline}
    return validate(found, Expectation(**{**expected, **changes}))


def by_name(result):
    return {check.name: check for check in result.checks}


def test_an_undamaged_copy_passes_all_four_checks(postgres, copy, baseline):
    with copy() as name:
        result = judge(facts(postgres, name), baseline)
    assert {check.name: check.verdict for check in result.checks} == dict.fromkeys(
        ("record counts", "recent transactions", "data integrity", "permissions"), Verdict.PASS
    ), result.checks
    assert result.outcome is Outcome.RESTORED
    assert result.rpo < timedelta(minutes=1)
    assert result.queried["tables_counted"] == 3
    assert result.queried["objects_checked_by_amcheck"] >= 7


DAMAGE = {
    "missing rows": (
        "DELETE FROM visits WHERE id > 390",
        "record counts",
        "app.public.visits has 390 rows, expected 400",
    ),
    "dropped table": ("DROP TABLE visits", "record counts", "app.public.visits is missing"),
    "stale copy": (
        "DELETE FROM aurora_backup.heartbeat WHERE seq > 3",
        "recent transactions",
        "stale copy: the last heartbeat is 3, but 5 was written before",
    ),
    "missing heartbeat": (
        "DELETE FROM aurora_backup.heartbeat WHERE seq = 3",
        "recent transactions",
        "1 of the heartbeats 1 to 5 are missing",
    ),
    "first heartbeats missing": (
        "DELETE FROM aurora_backup.heartbeat WHERE seq < 5; INSERT INTO aurora_backup.heartbeat VALUES (6, now())",
        "recent transactions",
        "",
    ),
    "no heartbeat table": (
        "DROP SCHEMA aurora_backup CASCADE",
        "recent transactions",
        "the heartbeat table is missing or empty",
    ),
    "dropped constraint": (
        "ALTER TABLE patients DROP CONSTRAINT patients_visits_check",
        "data integrity",
        "constraint public.patients: patients_visits_check CHECK",
    ),
    "dropped index": ("DROP INDEX patients_name", "data integrity", "index public.patients_name is missing"),
    "dropped extension": ("DROP EXTENSION amcheck", "data integrity", "extension amcheck"),
    "sequence behind": (
        "ALTER SEQUENCE visits_id_seq RESTART WITH 5; SELECT nextval('visits_id_seq')",
        "data integrity",
        "sequence public.visits_id_seq is behind public.visits.id",
    ),
    "lost grant": (
        'REVOKE SELECT ON patients FROM "{source}_readers"',
        "permissions",
        "grant SELECT on public.patients to {source}_readers is lost",
    ),
    "lost column grant": (
        'REVOKE UPDATE (visits) ON patients FROM "{source}_app"',
        "permissions",
        "grant UPDATE (visits) on public.patients to {source}_app is lost",
    ),
    "new grant": ("GRANT SELECT ON visits TO PUBLIC", "permissions", "grant SELECT on public.visits to PUBLIC is new"),
    "lost policy": ("DROP POLICY own ON patients", "permissions", "policy own on public.patients"),
    "row-level security off": (
        "ALTER TABLE patients DISABLE ROW LEVEL SECURITY",
        "permissions",
        "row-level security on public.patients is enabled is lost",
    ),
    "lost default privilege": (
        'ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE SELECT ON TABLES FROM "{source}_readers"',
        "permissions",
        "default privilege SELECT",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_fails_the_check_that_is_about_it(postgres, copy, baseline, source, case):
    damage, check, reason = DAMAGE[case]
    with copy(damage) as name:
        result = judge(facts(postgres, name), baseline)
    assert result.outcome is Outcome.DAMAGED
    assert by_name(result)[check].verdict is Verdict.FAIL
    assert reason.replace("{source}", source) in by_name(result)[check].reason


def test_a_corrupt_index_fails_by_what_amcheck_says(postgres, copy, baseline):
    damage = """
    UPDATE pg_index SET indisvalid = true, indisready = false WHERE indexrelid = 'patients_name'::regclass;
    INSERT INTO patients (name, visits) VALUES ('unseen by the index', 1);
    UPDATE pg_index SET indisready = true WHERE indexrelid = 'patients_name'::regclass;
    """
    with copy(damage) as name:
        result = judge(facts(postgres, name), baseline)
    check = by_name(result)["data integrity"]
    assert check.verdict is Verdict.FAIL
    assert "index public.patients_name is corrupt" in check.reason
    assert "lacks matching index tuple" in check.reason


def test_a_lost_role_membership_fails_permissions(postgres, source, baseline):
    postgres.psql(f'REVOKE "{source}_readers" FROM "{source}_app"')
    try:
        result = judge(facts(postgres, source), baseline)
    finally:
        postgres.psql(f'GRANT "{source}_readers" TO "{source}_app"')
    assert f"membership of {source}_app in {source}_readers is lost" in by_name(result)["permissions"].reason


def test_without_amcheck_the_integrity_check_is_unknown_and_the_copy_not_called_restored(postgres, copy, baseline):
    with copy("DROP EXTENSION amcheck") as name:
        without = facts(postgres, name)
        result = judge(without, without)
    check = by_name(result)["data integrity"]
    assert check.verdict is Verdict.UNKNOWN
    assert "CREATE EXTENSION amcheck" in check.reason
    assert result.outcome is Outcome.NOT_PROVED


def test_without_a_baseline_nothing_is_proved(postgres, source):
    result = judge(facts(postgres, source), None)
    assert result.outcome is Outcome.NOT_PROVED
    assert "no baseline was found" in by_name(result)["record counts"].reason


def test_facts_survive_the_journey_through_json(baseline):
    assert Facts.from_json(baseline.to_json()) == baseline


def test_no_row_leaves_the_database(postgres, source):
    checks = {
        "app": (UserCheck(name="names", sql="SELECT name FROM public.patients LIMIT 1", expected="x", reason="r"),)
    }
    questions = Questions(
        clock=time.monotonic,
        deadline=LATER,
        integrity=True,
        recency={"app": "SELECT name FROM public.patients"},  # not a time: the server's error would quote the value
        checks=checks,
    )
    found = facts(postgres, source, questions=questions)
    assert CANARY not in found.to_json()
    assert "recency" in str(found.databases["app"].unreadable)
    assert found.databases["app"].integrity.checks == {"names": False}


def test_every_answer_about_a_user_table_is_one_aggregate(postgres, source):
    """Record every statement: what names a table of the user's comes back as one row of one column."""
    seen = []

    class Recording(Session):
        def run(self, sql, **parameters):
            rows = super().run(sql, **parameters)
            seen.append((sql, rows))
            return rows

    read_facts(lambda _: Recording(target(postgres, source)), ("app",), QUESTIONS)
    about_tables = [(sql, rows) for sql, rows in seen if '"public"."' in sql]
    assert len(about_tables) >= 9
    for sql, rows in about_tables:
        assert len(rows) == 1, sql
        assert len(rows[0]) == 1, sql
        assert isinstance(rows[0][0], (int, bool)) or rows[0][0] == "", (sql, rows)  # amcheck answers void


def test_the_users_checks_pass_fail_or_say_why_they_could_not_run(postgres, source, baseline):
    def check(name, sql):
        return UserCheck(name=name, sql=sql, expected="400", reason=f"{name} went wrong")

    checks = {
        "app": (
            check("good", "SELECT count(*) FROM public.patients;"),
            check("bad", "SELECT count(*) - 1 FROM public.patients"),
            check("broken", "SELECT count(*) FROM public.nothing"),
            check("many rows", "SELECT id FROM public.patients"),
            check("writes", "SELECT nextval('public.visits_id_seq')"),
        )
    }
    found = facts(
        postgres,
        source,
        questions=Questions(clock=time.monotonic, deadline=LATER, integrity=True, checks=checks),
    )
    answers = found.databases["app"].integrity.checks
    assert answers["good"] is True
    assert answers["bad"] is False
    assert "42P01" in answers["broken"]
    assert "21000" in answers["many rows"]
    assert "25006" in answers["writes"]
    reason = by_name(judge(found, baseline, reasons={"bad": "bad went wrong"}))["data integrity"].reason
    assert reason == "app: bad: bad went wrong"


def test_a_recency_query_takes_the_heartbeats_place(postgres, copy, baseline):
    recency = {"app": "SELECT at FROM public.visits"}
    with copy("DROP SCHEMA aurora_backup CASCADE") as name:
        found = facts(
            postgres,
            name,
            questions=Questions(clock=time.monotonic, deadline=LATER, integrity=True, recency=recency),
        )
        result = judge(found, found, recent_within=timedelta(minutes=3))
        stale = judge(found, found, recent_within=timedelta(minutes=3), moment=datetime.now(UTC) + timedelta(hours=1))
    assert result.outcome is Outcome.RESTORED
    assert 50 < result.rpo.total_seconds() < 120
    assert "stale copy: the recency query answers" in by_name(stale)["recent transactions"].reason


def test_counts_past_the_budget_are_estimates_and_labelled(postgres, source, baseline):
    found = facts(postgres, source, questions=Questions(clock=time.monotonic, deadline=LATER, count_seconds=0))
    table = found.databases["app"].tables["public.visits"]
    assert (table.rows, table.exact) == (400, False)
    result = judge(found, baseline)
    assert by_name(result)["record counts"].verdict is Verdict.PASS
    assert result.queried["tables_estimated"] == 3


def test_what_there_is_no_time_to_check_is_unknown(postgres, source, baseline):
    found = facts(postgres, source, questions=Questions(clock=time.monotonic, deadline=0.0, integrity=True))
    check = by_name(judge(found, baseline))["data integrity"]
    assert check.verdict is Verdict.UNKNOWN
    assert "the time for checking was used up" in check.reason


def test_one_database_that_cannot_be_opened_does_not_hide_the_others(postgres, source, baseline):
    def open_session(name):
        return Session(target(postgres, source if name == "app" else "no-such-database"))

    found = read_facts(open_session, ("gone", "app"), QUESTIONS)
    assert list(found.databases) == ["app"]
    assert "3D000" in found.failed["gone"]
    assert judge(found, baseline).outcome is Outcome.NOT_PROVED


def test_a_table_that_the_role_may_not_read_is_unknown(postgres, source, baseline):
    role = f"{source}_limited"
    postgres.psql(
        f"CREATE ROLE \"{role}\" LOGIN PASSWORD 'pw';"
        f'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{role}"; REVOKE SELECT ON visits FROM "{role}"',
        source,
    )
    try:
        limited = Target(
            host=postgres.host,
            port=postgres.port,
            dbname=source,
            user=role,
            password=lambda: "pw",
            sslrootcert=str(postgres.ca),
        )
        found = read_facts(lambda _: Session(limited), ("app",), QUESTIONS)
    finally:
        postgres.psql(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"', source)
    result = by_name(judge(found, baseline))
    assert result["record counts"].verdict is Verdict.UNKNOWN
    assert "table public.visits could not be read" in result["record counts"].reason
    assert "the heartbeat could not be read" in result["recent transactions"].reason
    assert "permission denied for function" in result["data integrity"].reason
