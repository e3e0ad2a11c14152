"""The aurora-backup command: what it prints, how it exits, where the password comes from."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aurora_backup import cli
from aurora_backup.database_role import cluster_statements, database_statements
from tests.unit.dumping import ROWS, leftovers

CANARY = "canary-p4ssw0rd"


@pytest.fixture
def where(s3_server, bucket_name, s3_login, clients):
    return ["--bucket", bucket_name, "--endpoint-url", s3_server.endpoint_url, "--region", "us-east-1"]


@pytest.fixture
def database(postgres, sample, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    return [
        "--host", postgres.host, "--port", str(postgres.port), "--user", postgres.user,
        "--sslrootcert", str(postgres.ca), "--dbname",
    ]  # fmt: skip


@pytest.fixture
def run(capsys):
    """Run a command line; give its status, its JSON and what it said on standard error."""

    def call(*arguments: str):
        status = cli.main([*arguments, "--json"])
        captured = capsys.readouterr()
        assert len(captured.out.splitlines()) == 1
        return status, json.loads(captured.out), captured.err

    return call


def test_dump_verify_restore_and_compare(run, where, database, sample, empty, postgres, capsys):
    status, made, _ = run("dump", *database, sample.dbname, *where, "--jobs", "1", "--compress", "zstd:1")
    assert (status, made["state"], made["rows"]) == (0, "done", ROWS)
    assert run("verify", *where, "--set", made["set"])[1]["ok"]
    restore = ["restore-dump", *database, empty.dbname, *where, "--set", made["set"], "--roles"]
    status, restored, said = run(*restore)
    assert (status, restored["ok"], restored["rows_restored"], restored["differences"]) == (0, True, ROWS, [])
    assert "MiB read" in said
    postgres.psql("DELETE FROM clinic.derived", empty.dbname)
    status, found, _ = run(*restore, "--compare-only")
    assert (status, found["ok"]) == (1, False)
    assert found["differences"] == [{"what": "rows of clinic.derived", "expected": 1, "actual": 0}]
    assert cli.main([*restore, "--compare-only"]) == 1
    assert capsys.readouterr().out == "DIFFERENT rows of clinic.derived: expected 1, found 0\n"
    assert cli.main([*restore, "--compare-only", "--table", "clinic.patient"]) == 0  # of another table
    capsys.readouterr()
    status, found, _ = run(*restore, "--compare-only", "--table", "clinic.derived")
    assert (status, found["rows_expected"]) == (1, 1)


def test_rows_that_nobody_counted_are_not_said_to_agree(run, where, database, sample, capsys):
    status, made, said = run("dump", *database, sample.dbname, *where, "--count-seconds", "0")
    assert (status, made.get("state")) == (0, "done"), said
    same = ["restore-dump", *database, sample.dbname, *where, "--set", made["set"], "--compare-only"]
    status, found, said = run(*same)
    assert (status, found["differences"], found["estimated"] > 0) == (0, [], True), said
    assert cli.main(same) == 0
    assert "NOT COMPARED: the rows of " in capsys.readouterr().out


def test_what_a_file_or_aws_refuses_is_told_without_a_traceback(run, where, database, empty, tmp_path, monkeypatch):
    (tmp_path / "no.pem").write_text("no certificate")
    dump = ["dump", *database, empty.dbname, *where]
    status, said, _ = run(*dump, "--sslrootcert", str(tmp_path / "no.pem"))
    assert (status, said["ok"], said["error"]) == (1, False, "SSLError")
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    assert run(*dump, "--iam")[1]["error"] == "NoRegionError"


def test_the_same_start_is_the_same_set(run, where, database, empty):
    arguments = ["dump", *database, empty.dbname, *where, "--started", "2026-11-21T02:00:00+00:00"]
    first, second = run(*arguments)[1], run(*arguments)[1]
    assert (first["state"], second["state"]) == ("done", "already-done")
    assert first["set"] == second["set"]


def test_a_set_that_another_execution_claimed_is_no_backup_and_exits_1(run, where, database, empty, bucket):
    arguments = ["dump", *database, empty.dbname, *where, "--started", "2026-11-22T02:00:00+00:00"]
    made = run(*arguments, "--execution", "the first")[1]
    bucket.remove(made["manifest_key"])  # as if it had failed after its claim
    status, document, _ = run(*arguments, "--execution", "the second")
    assert (status, document["state"], document["manifest_key"]) == (1, "already-done", None)
    assert "claimed by execution the first" in document["reason"]


def test_the_role_s_sql_is_printed_for_the_cluster_and_each_database(run, capsys):
    _, document, _ = run("role-sql", "--database", "app", "--role", "dumper")
    assert (document["cluster"], document["database"]) == (cluster_statements("dumper"), database_statements("dumper"))
    assert cli.main(["role-sql", "--database", "app", "--database", 'odd "name"']) == 0
    printed = capsys.readouterr().out
    assert 'GRANT rds_iam TO "aurora_backup";\n' in printed
    assert '\n\\connect "app"\nCREATE SCHEMA' in printed
    assert '\n\\connect "odd ""name"""\n' in printed
    assert printed.count("GRANT EXECUTE ON ALL FUNCTIONS") == 2


def test_verify_exits_1_when_something_is_wrong(run, where):
    status, document, _ = run("verify", *where, "--set", "manual-backups/c/d/20261121T020000Z/")
    assert (status, document["ok"]) == (1, False)


def test_a_failure_exits_1_and_is_json_too(run, where, database, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", CANARY)
    status, document, said = run("dump", *database, "postgres", *where)
    assert (status, document["error"]) == (1, "ConnectionFailed")
    assert "password authentication failed" in said
    assert CANARY not in said + json.dumps(document)


@pytest.fixture
def slow(fake_program):
    """A function that makes a client program hang, once its pid is in the file that is returned."""

    def make(name: str, when: str) -> Path:
        hang = "echo $$ > $DIR/pid.part; mv $DIR/pid.part $DIR/pid; exec sleep 60"
        return fake_program(name, f'case "$*" in *{when}*) {hang};; esac\nexec $REAL "$@"').with_name("pid")

    return make


def _runs(stat: Path) -> bool:
    """Whether a process is there and has not ended: whoever inherits it may be slow to take notice."""
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _interrupted(arguments, pid, number):
    """Run the command as a process, signal it once its client program hangs; give its status and what it said."""
    command = [sys.executable, "-m", "aurora_backup.cli", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 30
        while not pid.exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(number)
        try:
            said = process.communicate(timeout=30)[1]
        finally:
            process.kill()  # else a test that failed would wait for it
    program = Path("/proc", pid.read_text().strip(), "stat")
    deadline = time.monotonic() + 20
    while _runs(program) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _runs(program), "the client program outlived us"
    return process.returncode, said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_dump_that_is_told_to_stop_leaves_no_part_and_no_program(where, database, sample, slow, bucket, number):
    pid = slow("pg_dump", "--data-only")  # the first archive goes on its way meanwhile
    prefix = f"stopped-by-{number.name.lower()}"
    arguments = ["dump", *database, sample.dbname, *where, "--jobs", "2", "--split-mib", "1", "--prefix", prefix]
    status, said = _interrupted(arguments, pid, number)
    assert (status, said) == (128 + number, f"aurora-backup: stopped by {number.name}\n")
    assert leftovers(bucket, prefix) == ([], [])


def test_a_restore_that_is_told_to_stop_can_be_carried_on(where, database, made, empty, slow, run):
    pid = slow("pg_restore", "--section=post-data")
    arguments = ["restore-dump", *database, empty.dbname, *where, "--set", made.set]
    status, said = _interrupted(arguments, pid, signal.SIGTERM)
    assert status == 128 + signal.SIGTERM
    assert said.endswith("aurora-backup: stopped by SIGTERM\n")
    (pid.parent / "pg_restore").unlink()
    assert run(*arguments)[1]["ok"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nothing"],
        ["dump"],
        ["dump", "--password", "x"],
        ["verify", "--bucket", "b"],
        ["verify", "--bucket", "b", "--set", "s", "--tier", "hope"],
        ["dump", "--host", "h", "--dbname", "d", "--bucket", "b", "--jobs", "0"],
        ["dump", "--host", "h", "--dbname", "d", "--bucket", "b", "--compress", "gzip:9"],
        ["dump", "--host", "h", "--dbname", "d", "--bucket", "b", "--started", "2026-11-21"],
        ["restore-dump", "--host", "h", "--dbname", "d", "--bucket", "b", "--set", "s", "--table", "t"],
    ],
)
def test_wrong_usage_exits_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_no_user_is_wrong_usage(where, monkeypatch, capsys):
    monkeypatch.delenv("PGUSER", raising=False)
    assert cli.main(["dump", "--host", "h", "--dbname", "d", *where]) == 2
    assert "--user" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "table"),
    [("a.b", ("a", "b")), ('"a.b"."c""d"', ("a.b", 'c"d')), ('clinic."-rf x"', ("clinic", "-rf x"))],
)
def test_a_table_is_named_as_in_sql(text, table):
    assert cli._table(text) == table


def test_the_password_may_come_from_a_passfile(run, where, database, empty, postgres, monkeypatch, tmp_path):
    monkeypatch.delenv("PGPASSWORD")
    path = tmp_path / "pass"
    path.write_text(f"# ours\nelsewhere:*:*:*:no\n*:{postgres.port}:*:{postgres.user}:{postgres.password}\n")
    status, made, _ = run("dump", *database, empty.dbname, *where, "--passfile", str(path))
    assert (status, made["state"]) == (0, "done")


def test_help_and_import_need_neither_boto3_nor_pg8000():
    code = "import sys, aurora_backup.cli as c; c.parser(); print(sorted({'boto3', 'pg8000'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
