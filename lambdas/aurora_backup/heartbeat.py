"""The heartbeat: a small table that says, after any restore, which was the last transaction that survived.

Every beat is one row with the next number and the server's time. Numbers come from the table itself and not from an SQL
sequence, because a sequence leaves gaps after a crash or a restore, and a gap has to mean a lost row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aurora_backup.postgres import Session

SCHEMA = "aurora_backup"
TABLE = f"{SCHEMA}.heartbeat"
KEPT = 20_000  # rows: 69 days of one beat in five minutes, more than the longest point-in-time window
_MISSING = {"42P01", "3F000"}  # undefined table, undefined schema
_MAKE_SCHEMA = f"CREATE SCHEMA {SCHEMA}"
_MAKE_TABLE = f"CREATE TABLE IF NOT EXISTS {TABLE} (seq bigint PRIMARY KEY, at timestamptz NOT NULL)"
_BEAT = f"""
INSERT INTO {TABLE} (seq, at)
SELECT coalesce(max(seq), 0) + 1, clock_timestamp() FROM {TABLE} RETURNING seq, at::text
"""  # noqa: S608  constants
_TRIM = f"DELETE FROM {TABLE} WHERE seq <= :newest - {KEPT}"  # noqa: S608  constants


def beat(session: Session) -> tuple[int, str]:
    """Write one beat; return its number and the server's time. Makes the table where it is missing.

    Two beats at the same time cannot share a number: the primary key lets one of them fail.

    Raises:
        QueryFailed: the role may not write or create the table.

    """
    from aurora_backup.postgres import SqlError

    try:
        number, at = session.run(_BEAT)[0]
    except SqlError as error:
        if error.code not in _MISSING:
            raise
        # The role may make tables in the schema that was made for it, but no schema: so look first.
        if session.value("SELECT to_regnamespace(:name)", name=SCHEMA) is None:
            session.run(_MAKE_SCHEMA)
        session.run(_MAKE_TABLE)
        number, at = session.run(_BEAT)[0]
    session.run(_TRIM, newest=number)
    return int(number), str(at)
