"""Restoring: whole sets, single tables, what is refused, and carrying on after a failure."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from aurora_backup import catalog, restore
from aurora_backup.errors import ArchiveDamaged, RestoreFailed, RestoreRefused
from aurora_backup.postgres import Session, SqlError
from aurora_backup.restore import (
    RestoreOptions,
    compare_with,
    create_database,
    create_roles,
    restore_database,
    restore_set,
)
from tests.unit.dumping import ROWS


@pytest.fixture
def failing_restore(fake_program):
    """A function that makes pg_restore fail once, at the end of the first call whose arguments hold `word`."""

    def make(word: str) -> None:
        fake_program(
            "pg_restore",
            f'case "$*" in *--dbname*{word}*|*{word}*--dbname*) if [ ! -e $DIR/failed ]; then\n'
            "  touch $DIR/failed; $REAL \"$@\"; echo 'pg_restore: error: killed' >&2; exit 1\n"
            'fi;; esac\nexec $REAL "$@"',
        )

    return make


@pytest.mark.parametrize("word", ["--section=pre-data", "--section=data", "--section=post-data"])
def test_a_restore_that_failed_after_its_work_was_done_is_resumed(word, made, bucket, empty, failing_restore):
    """The worst moment: everything was applied, and the step was not yet noted as done."""
    failing_restore(word)
    with pytest.raises(RestoreFailed, match=r"killed\nRun the same command again"):
        restore_set(bucket, made, empty, RestoreOptions(roles=True))
    done = restore_set(bucket, made, empty, RestoreOptions(roles=True))
    assert done.differences == ()
    assert done.rows_restored == ROWS


def test_a_restore_that_is_stopped_while_it_compares_is_carried_on(made, bucket, empty, monkeypatch):
    """The database's owner, grants and settings come last of all: what is called done before that never gets them."""
    gather, set_up = catalog.gather, []
    monkeypatch.setattr(restore, "restore_database", lambda session, _: set_up.append(session.target.dbname) or [])

    def stopped(*_, **__):
        monkeypatch.setattr(catalog, "gather", gather)
        raise RestoreFailed("stopped")

    monkeypatch.setattr(catalog, "gather", stopped)
    with pytest.raises(RestoreFailed, match="stopped"):
        restore_set(bucket, made, empty, RestoreOptions(roles=True))
    create_database(empty, made)  # as the same command says again
    done = restore_set(bucket, made, empty, RestoreOptions(roles=True))
    assert (done.differences, set_up) == ((), [empty.dbname])
    with Session(empty) as session:
        assert session.value("SELECT to_regnamespace('aurora_backup_restore')") is None


def test_indexes_of_partitions_that_were_not_yet_attached_are_made_again(made, bucket, empty, fake_program):
    """No DROP in an archive is of them: each later attempt found them there already, and failed."""
    fake_program(
        "pg_restore",
        """case "$*" in *--section=post-data*) if [ ! -e $DIR/failed ]; then
  touch $DIR/failed
  for word in "$@"; do case "$word" in --use-list=*) list=${word#--use-list=};; esac; done
  sed -i '/INDEX ATTACH/,$d' "$list"; $REAL "$@"; exit 1
fi;; esac
exec $REAL "$@\"""",
    )
    with pytest.raises(RestoreFailed):
        restore_set(bucket, made, empty)
    loose = "SELECT count(*) FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid WHERE x.relname LIKE 'event_2%'"
    with Session(empty) as session:
        assert session.value(f"{loose} AND NOT x.relispartition") == 4  # a key and an index of each
    assert restore_set(bucket, made, empty).ok


def test_another_restore_is_not_carried_on(made, bucket, empty, failing_restore):
    failing_restore("--section=data")
    with pytest.raises(RestoreFailed):
        restore_set(bucket, made, empty)
    with pytest.raises(RestoreRefused, match="an unfinished restore of something else"):
        restore_set(bucket, made, empty, RestoreOptions(tables=(("clinic", "visit"),)))


def test_what_a_killed_restore_left_running_is_ended_before_it_is_carried_on(made, bucket, empty, failing_restore):
    failing_restore("--section=post-data")
    with pytest.raises(RestoreFailed):
        restore_set(bucket, made, empty)
    with Session(empty, application_name="aurora-backup pg_restore") as stray, Session(empty) as bystander:
        stray.run("BEGIN; LOCK TABLE clinic.visit")
        assert restore_set(bucket, made, empty).ok
        with pytest.raises(SqlError):
            stray.run("SELECT 1")
        assert bystander.value("SELECT 1") == 1


def test_a_second_restore_into_the_same_database_is_refused(made, bucket, empty, monkeypatch):
    monkeypatch.setattr(restore, "_PATIENCE_SECONDS", 1)
    with Session(empty) as first:
        restore._Steps(first, "first").open()
        with pytest.raises(RestoreRefused, match=r"another restore into database .* is running"):
            restore_set(bucket, made, empty)
    with pytest.raises(RestoreRefused, match="an unfinished restore of something else"):
        restore_set(bucket, made, empty)


def test_the_first_archive_that_fails_stops_the_others(made, bucket, empty, fake_program):
    fake_program(
        "pg_restore",
        'case "$*" in *--section=data*) if mkdir $DIR/second 2>/dev/null; then exec sleep 60; fi\n'
        'sleep 0.2; echo no >&2; exit 3;; esac\nexec $REAL "$@"',
    )
    begun = time.monotonic()
    with pytest.raises(RestoreFailed, match="status 3: no"):
        restore_set(bucket, made, empty)
    assert time.monotonic() - begun < 20


def test_a_target_that_is_not_empty_is_refused_and_left_alone(made, bucket, empty, postgres):
    postgres.psql("CREATE TABLE mine (a int); INSERT INTO mine VALUES (1)", empty.dbname)
    with pytest.raises(RestoreRefused, match=r"is not empty: it holds relation public\.mine"):
        restore_set(bucket, made, empty)
    assert postgres.psql("SELECT count(*) FROM mine", empty.dbname) == "1"


@pytest.mark.parametrize(
    "sql", ["SELECT lo_create(0)", "CREATE SCHEMA theirs", "CREATE FUNCTION f() RETURNS int RETURN 1"]
)
def test_anything_at_all_makes_a_target_not_empty(made, bucket, empty, postgres, sql):
    postgres.psql(sql, empty.dbname)
    with pytest.raises(RestoreRefused, match="is not empty"):
        restore_set(bucket, made, empty)


def test_one_table_is_restored_by_reading_its_own_archive(made, bucket, empty, postgres):
    done = restore_set(bucket, made, empty, RestoreOptions(tables=(("clinic", "visit"),)))
    assert done.ok
    assert (done.rows_expected, done.rows_restored) == (9000, 9000)
    own = made.archive_of("clinic", "visit")
    assert own.tables == (("clinic", "visit"),)
    assert done.bytes_read < own.bytes + 150_000, "its own archive and the head of archive 0"
    assert postgres.psql("SELECT count(*) FROM clinic.patient", empty.dbname) == "0"


def test_one_table_without_an_archive_of_its_own(made, bucket, empty):
    odd = ('Odd "Schema"', "-rf. COPY x FROM stdin;")
    done = restore_set(bucket, made, empty, RestoreOptions(tables=(odd,)))
    assert done.ok
    assert done.rows_restored == 2


def test_a_partitioned_table_means_all_its_partitions(made, bucket, empty):
    done = restore_set(bucket, made, empty, RestoreOptions(tables=(("clinic", "event"),)))
    assert done.ok
    assert done.rows_restored == 8000


def test_a_table_that_is_not_in_the_set_is_refused(made, bucket, empty):
    with pytest.raises(RestoreRefused, match=r"clinic\.none is not in the set"):
        restore_set(bucket, made, empty, RestoreOptions(tables=(("clinic", "none"),)))


def test_damaged_rows_are_never_taken_for_restored(made, bucket, empty):
    archive = made.archives[1]
    wrong = replace(made, archives=(made.archives[0], replace(archive, crc32="AAAAAA=="), *made.archives[2:]))
    with pytest.raises(ArchiveDamaged, match="do not use what was restored"):
        restore_set(bucket, wrong, empty)


def test_every_kind_of_difference_is_found_afterwards(made, bucket, empty, postgres):
    assert restore_set(bucket, made, empty, RestoreOptions(roles=True)).ok
    changes = {
        "rows of clinic.derived": "DELETE FROM clinic.derived",
        "contents of clinic.patient": "UPDATE clinic.patient SET name = 'x' WHERE id = 7",
        "sequence clinic.down": "SELECT nextval('clinic.down')",
        "large objects": "SELECT lo_create(0)",
        "extension pgcrypto": "DROP EXTENSION pgcrypto",
        "schema: grants": 'REVOKE UPDATE (name) ON clinic.patient FROM "Dr. O\'Reader"',
        "schema: constraints": "ALTER TABLE clinic.patient DROP CONSTRAINT patient_kind_check",
        "schema: policies": "ALTER POLICY mine ON clinic.visit USING (true)",
        "schema: triggers": "ALTER TABLE clinic.visit DISABLE TRIGGER touch",
        "schema: functions": "ALTER FUNCTION clinic.touch() SECURITY DEFINER",
        "schema: indexes": "DROP INDEX clinic.visit_notes",
        "schema: columns": "ALTER TABLE clinic.empty ALTER b SET DEFAULT 'x'",
        "table clinic.nothing": "DROP TABLE clinic.nothing",
        "schema: owners": 'ALTER TABLE clinic.base OWNER TO "Dr. O\'Reader"',
        "schema: comments": "COMMENT ON TABLE clinic.patient IS 'other'",
        "schema: views": "CREATE OR REPLACE VIEW clinic.expensive AS"
        " SELECT name, 1.5::numeric(10,2) AS cost FROM clinic.patient",
    }
    postgres.psql(";".join(changes.values()), empty.dbname)
    assert set(changes) <= {difference.what for difference in compare_with(made, empty)}


def test_a_role_that_does_not_own_the_extensions_can_restore(made, bucket, empty, postgres):
    """As on Aurora, where rdsadmin owns them: only their owner may comment on them."""
    postgres.psql("CREATE EXTENSION pgcrypto", empty.dbname)
    postgres.psql(f"CREATE ROLE plain LOGIN PASSWORD 'plain'; ALTER DATABASE {empty.dbname} OWNER TO plain")
    plain = replace(empty, user="plain", password=lambda: "plain")
    assert restore_set(bucket, made, plain).ok


def test_a_master_user_of_another_name_can_make_the_roles_that_it_makes_owners(postgres, empty):
    strong = ("superuser", "createrole", "createdb", "replication", "bypassrls")
    role = {"name": "shop", "inherit": True, "login": False, "connection_limit": -1, **dict.fromkeys(strong, False)}
    postgres.psql(f"CREATE ROLE chief LOGIN CREATEROLE PASSWORD 'c'; ALTER DATABASE {empty.dbname} OWNER TO chief")
    try:
        with Session(replace(empty, user="chief", password=lambda: "c")) as session:
            assert create_roles(session, {"roles": [role]}) == []
            session.run("CREATE SCHEMA app")
            session.run("ALTER SCHEMA app OWNER TO shop")
    finally:
        postgres.psql(f"ALTER DATABASE {empty.dbname} OWNER TO postgres")
        postgres.psql("DROP OWNED BY shop, chief; DROP ROLE shop; DROP ROLE chief", empty.dbname)


def test_roles_come_back_without_passwords_and_what_cannot_be_done_is_named(postgres, target, empty):
    roles = {
        "roles": [
            {"name": n, "inherit": True, "login": True, "connection_limit": 3, "superuser": n == "boss 'x'",
             "createrole": False, "createdb": True, "replication": False, "bypassrls": False}
            for n in ("boss 'x'", 'clerk "y"')
        ],
        "memberships": [{"role": "boss 'x'", "member": 'clerk "y"', "admin": True}],
    }  # fmt: skip
    postgres.psql("CREATE ROLE maker LOGIN CREATEROLE PASSWORD 'maker'")
    try:
        with Session(replace(empty, user="maker", password=lambda: "maker")) as session:
            skipped = create_roles(session, roles)
        assert skipped[0] == "role boss 'x': SUPERUSER, CREATEDB"
        rows = postgres.psql(
            "SELECT rolname, rolcanlogin, rolsuper, rolconnlimit, rolpassword IS NULL FROM pg_authid"
            " WHERE rolname IN ('boss ''x''', 'clerk \"y\"') ORDER BY 1"
        )
        assert rows.splitlines() == ["boss 'x'|t|f|3|t", 'clerk "y"|t|f|3|t']
    finally:
        postgres.psql('DROP ROLE IF EXISTS "clerk ""y"""; DROP ROLE IF EXISTS "boss \'x\'"; DROP ROLE maker')


def test_settings_of_roles_their_end_and_how_they_are_members_come_back(postgres, empty):
    postgres.psql(
        """CREATE ROLE "staff x" NOLOGIN; CREATE ROLE nurse LOGIN VALID UNTIL '2030-01-01 00:00:00+00';
        ALTER ROLE nurse SET search_path TO "a, b", public; ALTER ROLE nurse SET work_mem TO '64MB';
        ALTER ROLE nurse SET app.ward TO 'it''s 7'; GRANT "staff x" TO nurse WITH INHERIT FALSE, SET FALSE"""
    )
    drop = 'DROP ROLE nurse; DROP ROLE "staff x"'
    try:
        with Session(empty) as session:
            before = catalog.roles(session)
            postgres.psql(drop)
            assert create_roles(session, before) == []
            assert catalog.roles(session) == before
    finally:
        postgres.psql(drop)


def test_a_membership_by_several_grantors_keeps_all_that_they_granted(postgres, empty):
    granted = [
        {"role": "team", "member": "dba", "admin": True, "inherit": False, "set": False},
        {"role": "team", "member": "dba", "admin": False, "inherit": True, "set": True},
    ]
    postgres.psql("CREATE ROLE team; CREATE ROLE dba")
    try:
        for memberships in (granted, granted[::-1]):
            with Session(empty) as session:
                assert create_roles(session, {"memberships": memberships}) == []
            rows = "SELECT admin_option, inherit_option, set_option FROM pg_auth_members WHERE member = 'dba'::regrole"
            assert postgres.psql(rows) == "t|t|t"
            postgres.psql("REVOKE team FROM dba")
    finally:
        postgres.psql("DROP ROLE team; DROP ROLE dba")


def test_owner_grants_and_settings_of_the_database_come_back(postgres, target):
    source, copy = target(postgres.database()), target(postgres.database())
    name = source.dbname
    postgres.psql(
        f"""CREATE ROLE "own er"; CREATE ROLE grantee; ALTER DATABASE {name} OWNER TO "own er";
        REVOKE CONNECT ON DATABASE {name} FROM PUBLIC; GRANT CONNECT ON DATABASE {name} TO grantee WITH GRANT OPTION;
        ALTER DATABASE {name} SET default_transaction_read_only TO on;
        ALTER DATABASE {name} SET search_path TO a, "b c";
        ALTER ROLE grantee IN DATABASE {name} SET work_mem TO '5MB'"""
    )
    try:
        with Session(source) as session:
            before = catalog.database(session)
        with Session(copy) as session:
            assert restore_database(session, before) == []
            after = catalog.database(session)
            broken = {**before, "owner": "nobody here", "acl": "{nobody=c/nobody}", "settings": None}
            refused = restore_database(session, broken)
        assert after["owner"] == before["owner"] == "own er"
        for key, ends in (("acl", "{}"), ("settings", "[]")):
            assert sorted(after[key].strip(ends).split(",")) == sorted(before[key].strip(ends).split(","))
        assert [line.split(" of ")[0] for line in refused] == ["grants", "owner"]
    finally:
        for made in (source, copy):
            postgres.psql(f"DROP DATABASE {made.dbname}")
        postgres.psql('DROP ROLE "own er"; DROP ROLE grantee')


def test_only_comments_on_extensions_are_left_out():
    assert restore._EXTENSION_COMMENT.match(b"3456; 0 0 COMMENT - EXTENSION pgcrypto \n")
    assert not restore._EXTENSION_COMMENT.match(b"215; 1259 16385 TABLE public a COMMENT - EXTENSION b postgres\n")


def test_a_created_database_has_the_source_s_encoding_and_locale(made, target, postgres):
    copy = target("created by restore")
    create_database(copy, made)
    row = postgres.psql(
        "SELECT pg_encoding_to_char(encoding), datlocprovider, datlocale FROM pg_database"
        " WHERE datname = 'created by restore'"
    )
    assert row == "UTF8|b|C.UTF-8"
    with pytest.raises(RestoreRefused, match="already exists"):
        create_database(copy, made)
