"""How a database is addressed: names are only names, passwords only where libpq reads them."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_backup.errors import ConnectionFailed, QueryFailed, SettingsError
from aurora_backup.postgres import (
    Session,
    Target,
    client_environment,
    client_version,
    passfile_password,
    quote,
    secret_login,
)

TARGET = Target(host="h", port=5432, dbname="d", user="u", password=lambda: "p:a\\ss", sslrootcert=None)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20))
def test_a_quoted_value_ends_where_it_should(name):
    text = replace(TARGET, dbname=name).conninfo()
    # Read it back as libpq does.
    values, position = {}, 0
    while position < len(text):
        equals = text.index("=", position)
        key, value, position = text[position:equals], "", equals + 2
        while text[position] != "'":
            position += text[position] == "\\"
            value += text[position]
            position += 1
        values[key] = value
        position += 2
    assert values["dbname"] == name
    assert values["sslmode"] == "verify-full"


def test_identifiers_are_always_quoted():
    assert quote("a", 'b"c.d') == '"a"."b""c.d"'


def test_the_passfile_is_private_escaped_and_gone_afterwards(monkeypatch):
    monkeypatch.setenv("PGPASSWORD", "other")
    monkeypatch.setenv("PGHOST", "other")
    monkeypatch.setenv("KEPT", "yes")
    with client_environment(TARGET) as env:
        path = Path(env["PGPASSFILE"])
        assert path.read_text() == "*:*:*:*:p\\:a\\\\ss\n"
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert passfile_password(str(path), TARGET) == "p:a\\ss"
        assert env["KEPT"] == "yes"
        assert not {"PGPASSWORD", "PGHOST"} & set(env)
    assert not path.parent.exists()


def test_a_password_that_a_passfile_cannot_hold_is_refused_without_telling_it():
    with (
        pytest.raises(SettingsError, match="line break") as caught,
        client_environment(replace(TARGET, password=lambda: "a\nsecret")),
    ):
        pass
    assert "secret" not in str(caught.value)


def test_a_target_never_shows_its_password():
    assert "p:a" not in repr(TARGET) + str(TARGET)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("h:5432:d:u:x", "x"), ("*:*:*:*:x", "x"), ("h:5433:d:u:x", None), ("other:*:*:*:x", None),
        ("# h:5432:d:u:x", None), ("", None), ("h:5432:d:u:x\\:y", "x:y"), ("h:5432:d:u", None),
    ],
)  # fmt: skip
def test_a_passfile_is_read_as_libpq_reads_it(line, found, tmp_path):
    path = tmp_path / "pass"
    path.write_text(f"{line}\n")
    assert passfile_password(str(path), TARGET) == found


def test_a_missing_passfile_is_named():
    with pytest.raises(SettingsError, match="passfile /nowhere cannot be read"):
        passfile_password("/nowhere", TARGET)


def test_a_secret_is_read_anew_for_every_connection(monkeypatch):
    passwords = iter(["one", "two", "three"])

    class Secrets:
        def get_secret_value(self, **arguments):
            assert arguments == {"SecretId": "arn"}
            return {"SecretString": json.dumps({"username": "u", "password": next(passwords)})}

    monkeypatch.setattr("boto3.client", lambda _service: Secrets())
    login = secret_login("arn")
    assert (login.user, login.password(), login.password()) == ("u", "two", "three")
    assert "two" not in repr(login)


@pytest.mark.parametrize("text", ["", "no", "[]", '{"username": "u"}'])
def test_a_malformed_secret_is_named_and_not_shown(text, monkeypatch):
    class Secrets:
        def get_secret_value(self, **_):
            return {"SecretString": text}

    monkeypatch.setattr("boto3.client", lambda _service: Secrets())
    with pytest.raises(SettingsError, match="secret arn must be JSON with username and password"):
        secret_login("arn")


def test_a_failed_statement_tells_its_state_and_no_row(sample):
    with Session(sample) as session, pytest.raises(QueryFailed) as caught:
        session.run("INSERT INTO clinic.patient (id, name) OVERRIDING SYSTEM VALUE VALUES (1, 'Jane Roe')")
    assert caught.value.code == "23505"
    assert "Jane" not in str(caught.value)
    assert "(1)" not in str(caught.value)


def test_an_attempt_that_fails_leaves_the_transaction_usable(sample):
    with Session(sample) as session:
        session.run("BEGIN")
        with pytest.raises(QueryFailed), session.attempt():
            session.run("SELECT 1/0")
        assert session.value("SELECT 5") == 5


def test_the_client_s_version_is_found(clients):
    major, text = client_version("pg_dump")
    assert major == 17
    assert text == subprocess.run(["pg_dump", "--version"], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT E'Jane\\nDoe'::timestamptz", "a value that PostgreSQL refuses (SQLSTATE 22007)"),
        ("DO $$ BEGIN RAISE 'bad note of Jane'; END $$", "a function of the database raised an error (SQLSTATE P0001)"),
    ],
)
def test_messages_that_quote_values_are_not_passed_on(empty, sql, said):
    with Session(empty) as session, pytest.raises(QueryFailed) as caught:
        session.run(sql)
    assert str(caught.value) == said


def test_a_password_that_is_asked_for_and_not_given_is_a_failure_that_says_so(empty):
    with pytest.raises(ConnectionFailed, match="the server asks for a password, and none was given"):
        Session(replace(empty, password=lambda: ""))
