"""The role that backups log in as: made with real PostgreSQL, and the custom resource that never blocks a stack."""

from __future__ import annotations

import http.server
import json
import threading
from contextlib import closing

import pytest

from aurora_backup import database_role, deployment
from aurora_backup.handlers import database_role as handler
from aurora_backup.postgres import Session, Target


@pytest.fixture(scope="module")
def superuser(postgres):
    with closing(postgres.connect()) as connection:
        for role in ("rds_iam",):
            if not connection.run("SELECT 1 FROM pg_roles WHERE rolname = :r", r=role):
                connection.run(f"CREATE ROLE {role} NOLOGIN")
    return Target(
        host="127.0.0.1",
        port=postgres.server.port,
        dbname="postgres",
        user="postgres",
        password=lambda: postgres.server.password,
        sslrootcert=str(postgres.ca),
    )


@pytest.fixture
def fresh(postgres, superuser):
    name = postgres.database()
    postgres.psql("CREATE TABLE visits AS SELECT generate_series(1, 5) AS id; SELECT lo_from_bytea(0, 'scan')", name)
    return superuser.database(name)


def make(target):
    with Session(target.database("postgres")) as session:
        refused = database_role.apply(session, database_role.cluster_statements())
    with Session(target) as session:
        refused += database_role.apply(session, database_role.database_statements())
        return refused + database_role.missing(session)


def test_the_role_reads_tables_and_the_large_objects_of_today_and_may_run_amcheck(fresh):
    assert make(fresh) == []
    with Session(fresh) as session:
        session.run("SET ROLE aurora_backup")
        assert session.value("SELECT count(*) FROM public.visits") == 5
        assert session.value("SELECT octet_length(lo_get(oid)) FROM pg_largeobject_metadata") == 4
        session.run("SELECT aurora_backup.bt_index_check(i.indexrelid) FROM pg_index i LIMIT 1")


def test_the_role_can_write_nothing_but_its_own_schema(fresh):
    make(fresh)
    with Session(fresh) as session:
        session.run("SET ROLE aurora_backup")
        session.run("CREATE TABLE aurora_backup.mine (id int)")
        with pytest.raises(Exception, match="permission denied"):
            session.run("DELETE FROM public.visits")


def test_making_it_again_changes_nothing_and_refuses_nothing(fresh):
    make(fresh)
    assert make(fresh) == []


def test_a_connection_limit_keeps_a_runaway_caller_from_filling_the_server(fresh):
    make(fresh)
    with Session(fresh) as session:
        assert session.value("SELECT rolconnlimit FROM pg_roles WHERE rolname = 'aurora_backup'") == 20


def test_what_postgresql_refuses_is_told_and_the_rest_is_done(fresh):
    with Session(fresh) as session:
        refused = database_role.apply(session, ["GRANT nobody_here TO aurora_backup", "CREATE SCHEMA afterwards"])
        assert session.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'afterwards'") == 1
    assert len(refused) == 1
    assert "nobody_here" in refused[0]


def test_a_grant_that_granted_nothing_is_told(fresh, postgres):
    make(fresh)
    with Session(fresh) as session:
        session.run("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA aurora_backup FROM aurora_backup, PUBLIC")
        assert any("bt_index_check" in text for text in database_role.missing(session))


@pytest.fixture
def answers():
    """The presigned address of CloudFormation, as a server that keeps what it is sent."""
    kept = []

    class Keep(http.server.BaseHTTPRequestHandler):
        def do_PUT(self):
            kept.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Keep)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", kept
    server.shutdown()
    server.server_close()


def event(url, kind="Create"):
    return {
        "RequestType": kind,
        "ResponseURL": url,
        "StackId": "stack",
        "RequestId": "request",
        "LogicalResourceId": "Role",
        "ResourceProperties": {"host": "127.0.0.1", "port": "1"},
    }


def test_deleting_the_resource_answers_success_without_opening_the_database(answers, monkeypatch):
    url, kept = answers
    monkeypatch.setattr(handler, "make_role", lambda _: pytest.fail("the database must not be opened"))
    handler.handler(event(url, "Delete"), None)
    assert kept[0]["Status"] == "SUCCESS"


def test_a_database_that_cannot_be_reached_fails_the_resource_with_the_cause(answers, monkeypatch, superuser):
    url, kept = answers
    for name, value in {"BACKUP_BUCKET": "b", "OWNER": "o", "CLUSTER_ID": "c", "DB_USER": "u"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("DB_SECRET_ARN", raising=False)
    monkeypatch.setattr(deployment, "target", lambda *_: Target(host="127.0.0.1", port=1, dbname="x", user="u"))
    handler.handler(event(url), None)
    assert kept[0]["Status"] == "FAILED"
    assert "127.0.0.1:1" in kept[0]["Reason"]


def test_a_surprise_answers_too_so_that_no_stack_waits_for_an_hour(answers, monkeypatch):
    url, kept = answers

    def surprise(_):
        raise KeyError("secret-value")

    monkeypatch.setattr(handler, "make_role", surprise)
    handler.handler(event(url), None)
    assert kept[0]["Status"] == "FAILED"
    assert "secret-value" not in json.dumps(kept[0])


def test_refused_statements_are_reported_and_do_not_fail_the_resource(answers, monkeypatch):
    url, kept = answers
    monkeypatch.setattr(handler, "make_role", lambda _: ["CREATE EXTENSION amcheck: not available"])
    handler.handler(event(url, "Update"), None)
    assert kept[0]["Status"] == "SUCCESS"
    assert "amcheck" in kept[0]["Data"]["Refused"]


def test_a_dump_leaves_our_own_schema_out_and_restores_where_the_role_is_not_known(
    fresh, postgres, s3_server, pg_bin, monkeypatch
):
    from datetime import UTC, datetime

    from aurora_backup.dump import Request, dump_set
    from aurora_backup.manifest import set_key
    from aurora_backup.restore import restore_set
    from aurora_backup.s3 import Bucket

    monkeypatch.setenv("PATH", f"{pg_bin}:/usr/bin:/bin")
    make(fresh)
    with Session(fresh) as session:
        session.run("SET ROLE aurora_backup")
        session.run("CREATE TABLE aurora_backup.heartbeat (seq bigint)")
    bucket = Bucket(s3_server.client(), s3_server.bucket())
    started = datetime(2026, 11, 21, 2, tzinfo=UTC)
    key = set_key("logical-backups", "cluster-1", fresh.dbname, started)
    outcome = dump_set(fresh, bucket, Request(key=key, owner="o", execution="e", started=started, source={}))
    assert [t.key for t in outcome.manifest.facts.tables] == [("public", "visits")]
    assert "amcheck" not in outcome.manifest.facts.extensions
    target = fresh.database(postgres.database())
    assert restore_set(bucket, outcome.manifest, target).ok
    with Session(target) as session:
        assert not session.value("SELECT 1 FROM pg_namespace WHERE nspname = 'aurora_backup'")
