"""What goes wrong during a dump: each case leaves no object, no part and no running program, and says why."""

from __future__ import annotations

import threading
import time
import traceback
from concurrent.futures import wait
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError, ConnectionClosedError

from aurora_backup import dump, upload
from aurora_backup.dump import DumpOptions, dump_set
from aurora_backup.errors import BackupError, ConnectionFailed, DumpFailed, QueryFailed, S3Failed, SettingsError
from aurora_backup.verify import verify_set
from tests.unit.dumping import SPLIT, leftovers, request

CANARY = "canary-p4ssw0rd"


@pytest.fixture(autouse=True)
def _no_password_in_any_log(caplog, postgres):
    """Whatever a test does: neither password in use is in what was logged."""
    caplog.set_level("INFO")
    caplog.set_level("DEBUG", logger="aurora_backup")
    yield
    for when in ("setup", "call"):
        for record in caplog.get_records(when):
            told = record.getMessage() + str(record.exc_info)
            assert CANARY not in told
            assert postgres.password not in told


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of 5 MiB, the smallest that S3 takes."""
    plan = upload.PartPlan(base=5 << 20, buffers=3, budget=15 << 20)
    monkeypatch.setattr(dump, "plan_parts", lambda *_, **__: plan)


@pytest.fixture
def tiny_parts(monkeypatch):
    """Parts of this many bytes: too small for S3 to complete, which the test does not reach."""
    size = 100_000
    monkeypatch.setattr(dump, "plan_parts", lambda *_, **__: upload.PartPlan(base=size, buffers=3, budget=3 * size))
    return size


@pytest.fixture(scope="module")
def bulk(postgres, target):
    """A database whose archive has a few parts of 5 MiB, because it does not compress."""
    name = postgres.database()
    chunk = " || ".join(["gen_random_bytes(1000)"] * 8)
    sql = f"CREATE EXTENSION pgcrypto; CREATE TABLE bulk AS SELECT g, {chunk} AS b FROM generate_series(1, 2200) g"
    postgres.psql(sql, name)
    return target(name)


def fails(source, bucket, kind=BackupError, match=None, **options):
    """Dump, expect the failure, and find nothing left but the claim. Returns the message."""
    asked = request(source.dbname)
    with pytest.raises(kind, match=match) as caught:
        dump_set(source, bucket, asked, DumpOptions(**options))
    assert leftovers(bucket, asked.key) == ([], [])
    told = "".join(traceback.format_exception(caught.value))
    assert CANARY not in told
    assert source.password() not in told
    return str(caught.value)


VERSION = 'case "$*" in *--version*) exec $REAL --version;; esac\n'


def test_pg_dump_killed_midway(sample, bucket, fake_program):
    fake_program("pg_dump", VERSION + '$REAL "$@" | head -c 20000; kill -9 $$')
    fails(sample, bucket, DumpFailed, "killed by SIGKILL")


def test_exit_1_after_output_that_looks_valid(sample, bucket, fake_program):
    fake_program("pg_dump", VERSION + '$REAL "$@"; echo "pg_dump: error: something odd" >&2; exit 1')
    fails(sample, bucket, DumpFailed, "status 1: pg_dump: error: something odd")


def test_exit_0_without_any_output(sample, bucket, fake_program):
    fake_program("pg_dump", VERSION + "exit 0")
    fails(sample, bucket, DumpFailed, "pg_dump wrote nothing")


def test_one_failing_archive_stops_the_others(sample, bucket, fake_program):
    fake_program("pg_dump", VERSION + 'case "$*" in *visit*--data-only*) exit 3;; esac; exec $REAL "$@"')
    fails(sample, bucket, DumpFailed, "exited with status 3", jobs=2, split_bytes=SPLIT)


def test_no_program_is_left_running_after_a_failure(sample, bucket, fake_program, tmp_path):
    script = 'case "$*" in *--data-only*) sleep 0.3; exit 3;; esac; echo $$ > $DIR/pid; exec sleep 60'
    fake_program("pg_dump", VERSION + script)
    begun = time.monotonic()
    fails(sample, bucket, DumpFailed, "status 3", jobs=2, split_bytes=SPLIT)
    assert time.monotonic() - begun < 20
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_the_connection_is_cut(sample, bucket, postgres):
    stop = threading.Event()

    def cut():
        with closing(postgres.connect()) as connection:
            while not stop.is_set():
                connection.run(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'aurora-backup pg_dump' AND datname = :name",
                    name=sample.dbname,
                )

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        fails(sample, bucket, DumpFailed, "terminating connection|closed the connection|SSL connection")
    finally:
        stop.set()
        cutter.join()


def test_the_snapshot_session_is_cut(sample, bucket, fake_program, postgres, monkeypatch, tmp_path):
    def slow_to_return(*args, **kwargs):
        ended = wait(*args, **kwargs)
        time.sleep(0.1)  # the callbacks of what has ended are called after the waiter is told
        return ended

    monkeypatch.setattr(dump, "wait", slow_to_return)
    monkeypatch.setattr(dump, "_PING_SECONDS", 0.2)
    fake_program("pg_dump", VERSION + "echo $$ > $DIR/pid; exec sleep 60")
    over = threading.Event()
    cut: list[int] = []

    def cutting():
        with closing(postgres.connect()) as connection:
            while not (tmp_path / "pid").exists() and not over.wait(0.05):
                pass
            while not cut and not over.is_set():
                cut.extend(
                    row[0]
                    for row in connection.run(
                        "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE datname = :name AND application_name = 'aurora-backup snapshot'",
                        name=sample.dbname,
                    )
                )

    cutter = threading.Thread(target=cutting)
    cutter.start()
    try:
        told = fails(sample, bucket, QueryFailed)
    finally:
        over.set()
        cutter.join()
    assert cut
    assert "another archive" not in told


def answer(status: int, code: str):
    body = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()

    class Raw:
        def stream(self):
            yield body

    return lambda request: AWSResponse(request.url, status, {}, Raw())


def reset(_request):
    raise ConnectionClosedError(endpoint_url="injected", error=ConnectionResetError())


FAULTS = {"500": answer(500, "InternalError"), "slow": answer(503, "SlowDown"), "reset": reset}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_request_to_s3_may_fail_once(bulk, own_bucket, small_parts, fault):
    seen = set()

    def once(request, **_):
        name = (request.method, request.url)
        if name in seen:
            return None
        seen.add(name)
        return FAULTS[fault](request)

    own_bucket.client.meta.events.register("before-send.s3", once)
    asked = request(bulk.dbname)
    assert dump_set(bulk, own_bucket, asked).state == "done"
    assert len([url for method, url in seen if "partNumber=" in url]) > 2
    assert verify_set(own_bucket, asked.key).ok


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("part", [1, 2, "last"])
def test_a_part_that_never_arrives_leaves_no_parts(sample, own_bucket, tiny_parts, fault, part):
    failed = []

    def handler(request, **_):
        last = int(request.headers["Content-Length"]) < tiny_parts
        if last if part == "last" else f"partNumber={part}&" in f"{request.url}&":
            failed.append(request.url)
            return FAULTS[fault](request)
        return None

    own_bucket.client.meta.events.register("before-send.s3.UploadPart", handler)
    fails(sample, own_bucket, S3Failed, "UploadPart|upload_part")
    assert len(failed) > 1, "tried again"


def test_a_completion_that_never_succeeds_leaves_no_parts(sample, own_bucket):
    own_bucket.client.meta.events.register(
        "before-send.s3.CompleteMultipartUpload", lambda request, **_: reset(request)
    )
    fails(sample, own_bucket, S3Failed)


def test_a_completion_whose_answer_is_lost_is_found_to_have_succeeded(sample, own_bucket, monkeypatch):
    original = own_bucket.client.complete_multipart_upload

    def lossy(**arguments):
        original(**arguments)
        raise ClientError({"Error": {"Code": "InternalError"}}, "CompleteMultipartUpload")

    monkeypatch.setattr(own_bucket.client, "complete_multipart_upload", lossy)
    asked = request(sample.dbname)
    assert dump_set(sample, own_bucket, asked).state == "done"
    assert verify_set(own_bucket, asked.key).ok


@pytest.mark.parametrize("operation", ["UploadPart", "CompleteMultipartUpload"])
def test_bytes_that_change_on_the_way_are_refused_by_s3(sample, own_bucket, operation):
    def handler(request, **_):
        request.headers.replace_header("x-amz-checksum-crc32", "AAAAAA==")

    own_bucket.client.meta.events.register(f"before-sign.s3.{operation}", handler)
    fails(sample, own_bucket, S3Failed, "BadDigest|checksum|Checksum|did not match")


def test_a_table_cannot_be_truncated_or_dropped_midway(own_sample, bucket, fake_program, tmp_path, postgres):
    fake_program("pg_dump", VERSION + 'touch $DIR/begun; while [ ! -e $DIR/go ]; do sleep 0.05; done; exec $REAL "$@"')
    asked = request(own_sample.dbname)
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(dump_set(own_sample, bucket, asked)))
    thread.start()
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    with closing(postgres.connect(own_sample.dbname)) as connection:
        connection.run("SET lock_timeout = '200ms'")
        for statement in ("TRUNCATE clinic.event_2025", "DROP TABLE clinic.empty"):
            with pytest.raises(Exception, match="lock timeout"):
                connection.run(statement)
    (tmp_path / "go").touch()
    thread.join()
    assert outcome[0].state == "done"


def test_a_table_that_stays_locked_is_named(sample, bucket, postgres):
    with closing(postgres.connect(sample.dbname)) as connection:
        connection.run("BEGIN; LOCK TABLE clinic.patient IN ACCESS EXCLUSIVE MODE")
        fails(sample, bucket, QueryFailed, "clinic.patient could not be locked", lock_seconds=1)


def test_a_table_dropped_between_the_list_and_the_lock_is_named(own_sample, bucket, postgres, monkeypatch):
    from aurora_backup import catalog

    original = catalog.lock

    def dropping(session, tables, seconds):
        postgres.psql("DROP TABLE IF EXISTS clinic.empty", own_sample.dbname)
        original(session, tables, seconds)

    monkeypatch.setattr(catalog, "lock", dropping)
    fails(own_sample, bucket, QueryFailed, "clinic.empty could not be locked")


@pytest.fixture
def reader(postgres, own_sample):
    """A role that may read everything but one table, with a statement timeout of a millisecond."""
    postgres.psql(
        f'''DO $$ BEGIN CREATE ROLE reader LOGIN BYPASSRLS PASSWORD '{CANARY}';
          EXCEPTION WHEN duplicate_object THEN NULL; END $$;
        ALTER ROLE reader SET statement_timeout = 1; ALTER ROLE reader SET lock_timeout = 1;
        GRANT USAGE ON SCHEMA clinic, "Odd ""Schema""" TO reader;
        GRANT SELECT ON ALL TABLES IN SCHEMA clinic TO reader;
        GRANT SELECT ON ALL TABLES IN SCHEMA "Odd ""Schema""" TO reader;
        GRANT SELECT ON ALL SEQUENCES IN SCHEMA clinic TO reader;
        DO $$ DECLARE o oid; BEGIN FOR o IN SELECT oid FROM pg_largeobject_metadata LOOP
          EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO reader', o); END LOOP; END $$;''',
        own_sample.dbname,
    )
    return replace(own_sample, user="reader", password=lambda: CANARY)


def test_a_role_with_a_statement_timeout_of_a_millisecond_can_dump(reader, bucket):
    assert dump_set(reader, bucket, request(reader.dbname)).state == "done"


def test_no_permission_on_one_table_names_it(reader, bucket, postgres):
    postgres.psql("REVOKE SELECT ON clinic.visit FROM reader", reader.dbname)
    fails(reader, bucket, QueryFailed, "clinic.visit could not be locked: permission denied")


def test_a_wrong_password_is_not_told(sample, bucket):
    wrong = replace(sample, password=lambda: CANARY)
    fails(wrong, bucket, ConnectionFailed, "password authentication failed")


def test_a_token_that_expires_between_two_connections(sample, bucket):
    passwords = iter([sample.password()])
    expired = replace(sample, password=lambda: next(passwords, CANARY))
    fails(expired, bucket, DumpFailed, "password authentication failed")


def test_every_connection_gets_a_fresh_token(sample, bucket):
    asked = []
    counting = replace(sample, password=lambda: asked.append(1) or sample.password())
    dump_set(counting, bucket, request(sample.dbname), DumpOptions(jobs=2, split_bytes=SPLIT))
    assert len(asked) == 5  # the snapshot session and four programs


def test_a_missing_certificate_authority_is_named(sample, bucket):
    fails(replace(sample, sslrootcert="/nowhere/ca.pem"), bucket, SettingsError, "/nowhere/ca.pem does not exist")


def test_another_certificate_authority_is_refused(sample, bucket):
    from aurora_backup.settings import default_root_certificate

    stranger = replace(sample, sslrootcert=default_root_certificate())
    told = fails(stranger, bucket, ConnectionFailed, "certificate verify failed")
    assert "rds-ca-bundle.pem; set PGSSLROOTCERT to a bundle that has it" in told


def test_another_host_name_than_the_certificate_s_is_refused(sample, bucket):
    fails(
        replace(sample, host="127.1"), bucket, ConnectionFailed, "certificate is not valid for|doesn.t match|mismatch"
    )


def test_a_newer_server_is_refused_with_the_remedy(sample, bucket, fake_program):
    fake_program("pg_dump", "echo 'pg_dump (PostgreSQL) 16.9'")
    fails(sample, bucket, SettingsError, "pg_dump 16 cannot dump a server of version 17: bring a client layer")


def test_no_client_program_is_said_plainly(sample, bucket, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    fails(sample, bucket, SettingsError, "pg_dump must be on PATH")


def test_a_budget_too_small_for_two_parts_is_refused(sample, bucket):
    fails(sample, bucket, SettingsError, "memory budget must be at least 16 MiB", memory_budget=12 << 20)


def test_the_password_is_in_no_argument_list_and_no_environment_of_the_programs(
    reader, bucket, fake_program, tmp_path, caplog
):
    watch = 'tr "\\0" "\\n" < /proc/$$/cmdline > $DIR/seen; env >> $DIR/seen; ls -l $PGPASSFILE > $DIR/mode;'
    fake_program("pg_dump", VERSION + watch + 'exec $REAL "$@"')
    with caplog.at_level("DEBUG"):
        outcome = dump_set(reader, bucket, request(reader.dbname))
    seen = (tmp_path / "seen").read_text()
    assert "--dbname=host=" in seen
    assert "PGPASSFILE=" in seen
    assert CANARY not in seen
    assert (tmp_path / "mode").read_text().startswith("-rw-------")
    assert not Path(seen.split("PGPASSFILE=")[1].splitlines()[0]).exists(), "the passfile outlived the program"
    assert CANARY not in caplog.text
    assert CANARY not in outcome.manifest.to_json()
    assert CANARY not in repr(reader)


def test_the_programs_do_not_inherit_settings_that_lead_elsewhere(sample, bucket, monkeypatch):
    monkeypatch.setenv("PGHOSTADDR", "127.0.0.9")
    monkeypatch.setenv("PGSSLMODE", "disable")
    assert dump_set(sample, bucket, request(sample.dbname)).state == "done"


def test_two_sets_cannot_be_claimed_by_two_executions(sample, bucket):
    asked = request(sample.dbname)
    dump_set(sample, bucket, asked)
    later = dump_set(sample, bucket, request(sample.dbname, key=asked.key, execution="later"))
    assert (later.state, later.manifest.execution) == ("already-done", asked.execution)
