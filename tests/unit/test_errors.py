"""What never reaches a log or an alert."""

from __future__ import annotations

import pytest

from aurora_backup.errors import DumpFailed, cause, redact

LEAKS = [
    'ERROR:  duplicate key value violates unique constraint "p"\nDETAIL:  Key (name)=(Jane Roe) already exists.',
    'pg_restore: error: COPY failed for "patient"\nCONTEXT:  COPY patient, line 3: "7\tJane Roe"',
    "pg_restore: error: could not execute query: ERROR:  x\nCommand was: INSERT INTO p VALUES ('Jane Roe'\n  , 'x');",
    'ERROR:  invalid input syntax for type integer: "Jane Roe"',
    "boom\nSTATEMENT:  SELECT 'Jane Roe'\n\t, 1",
    "pg_restore: error: could not execute query: ERROR:  x\nCommand was: CREATE FUNCTION f()\nBEGIN\n-- Jane\n\nEND;",
    "pg_dump: error: query failed: ERROR:  x\npg_dump: detail: Query was: SELECT\n'Jane Roe'",
    "pg_restore: error: could not execute query: ERROR:  x\nLINE 1: INSERT INTO p VALUES ('Jane Roe')\n        ^",
    'ERROR:  invalid input syntax for type json: "{\nJane Roe"',
    "2026-11-26 04:33:40.402 UTC [12] STATEMENT:  SELECT\n'Jane Roe'\n2026-11-26 04:33:40.403 UTC [12] LOG:  shut down",
]


@pytest.mark.parametrize("text", LEAKS)
def test_rows_and_statements_are_dropped(text):
    assert "Jane" not in redact(text)
    assert redact(text)


def test_what_explains_is_kept():
    text = "pg_dump: error: query failed: ERROR:  permission denied for table visit\nHINT:  Ask."
    assert redact(text) == text


def test_the_error_before_a_statement_and_the_message_after_it_are_kept():
    body = "Command was: CREATE FUNCTION f()\nBEGIN\nPERFORM dblink_connect('password=hunter2');\nEND;"
    first, next_ = "pg_restore: error: could not execute query: ERROR:  no such type", "pg_restore: warning: 1 ignored"
    assert redact(f"{first}\n{body}\n\n{next_}") == f"{first}\n{next_}"


def test_secrets_are_replaced_and_long_texts_cut():
    assert redact("a s3cret b", ["s3cret", ""]) == "a *** b"
    assert len(redact("x" * 9000)) == 2000


def test_a_cause_names_its_class():
    assert cause(DumpFailed("why\nDETAIL: Key (a)=(Jane)")) == "DumpFailed: why"
