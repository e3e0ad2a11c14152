from __future__ import annotations

import threading
from contextlib import closing

import pytest

from aurora_backup import heartbeat
from aurora_backup.errors import QueryFailed
from aurora_backup.heartbeat import beat
from aurora_backup.postgres import Session, Target


@pytest.fixture
def database(postgres):
    name = postgres.database()
    yield name
    postgres.psql(f'DROP DATABASE "{name}" WITH (FORCE)')


def target(postgres, database, user=None, password=None):
    return Target(
        host=postgres.host,
        port=postgres.port,
        dbname=database,
        user=user or postgres.user,
        password=lambda: password or postgres.password,
        sslrootcert=str(postgres.ca),
    )


def test_the_first_beat_makes_the_table_and_each_gets_the_next_number(postgres, database):
    with Session(target(postgres, database)) as session:
        assert [beat(session)[0] for _ in range(3)] == [1, 2, 3]


def test_a_beat_that_was_rolled_back_leaves_no_gap(postgres, database):
    with Session(target(postgres, database)) as session:
        beat(session)
        session.run("BEGIN")
        beat(session)
        session.run("ROLLBACK")
        assert beat(session)[0] == 2


def test_old_beats_are_trimmed_from_the_beginning_only(postgres, database, monkeypatch):
    monkeypatch.setattr(heartbeat, "_TRIM", heartbeat._TRIM.replace(str(heartbeat.KEPT), "3"))
    with Session(target(postgres, database)) as session:
        for _ in range(6):
            beat(session)
        assert session.run("SELECT min(seq), max(seq), count(*) FROM aurora_backup.heartbeat") == [[4, 6, 3]]


def test_a_role_that_may_only_use_its_own_schema_can_beat(postgres, database):
    role = f"{database}_role"
    postgres.psql(f"CREATE ROLE \"{role}\" LOGIN PASSWORD 'pw'", database)
    postgres.psql(f'CREATE SCHEMA aurora_backup; GRANT USAGE, CREATE ON SCHEMA aurora_backup TO "{role}"', database)
    try:
        with Session(target(postgres, database, role, "pw")) as session:
            assert beat(session)[0] == 1
    finally:
        postgres.psql(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"', database)


def test_two_beats_at_once_never_share_a_number(postgres, database):
    with Session(target(postgres, database)) as session:
        beat(session)
    failures = []

    def many():
        with closing(Session(target(postgres, database))) as session:
            for _ in range(20):
                try:
                    beat(session)
                except QueryFailed as error:
                    failures.append(error.code)

    threads = [threading.Thread(target=many) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Session(target(postgres, database)) as session:
        first, last, count = session.run("SELECT min(seq), max(seq), count(*) FROM aurora_backup.heartbeat")[0]
    assert set(failures) <= {"23505"}, "only the primary key may refuse a beat"
    assert count == last - first + 1 == 61 - len(failures)
