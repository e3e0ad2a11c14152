"""The SQL edge of the recovery test: reads a database's facts. Aggregates and the catalogue only, never a row.

Everything about one database except amcheck is read in one repeatable-read transaction, so that counts, counters and
the heartbeat belong to the same moment. Every statement is read-only.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aurora_backup.baseline import Database, Facts, Heartbeat, Integrity, Table
from aurora_backup.errors import ConnectionFailed, QueryFailed, cause
from aurora_backup.heartbeat import SCHEMA as OURS
from aurora_backup.heartbeat import TABLE as HEARTBEAT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from aurora_backup.postgres import Session

_CORRUPT = {"XX001", "XX002"}  # data corrupted, index corrupted
_SYSTEM = f"n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', '{OURS}')"

TABLES = f"""
SELECT n.nspname, c.relname, c.reltuples::float8,
  coalesce(s.n_tup_ins, 0), coalesce(s.n_tup_del, 0), c.relfilenode::int8
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid
WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND {_SYSTEM} ORDER BY c.relpages, 1, 2
"""  # noqa: S608  constants
COUNT = "SELECT count(*) FROM {table}"
CONSTRAINTS = f"""
SELECT format('%I.%I: %I %s', n.nspname, r.relname, c.conname, pg_get_constraintdef(c.oid)), c.convalidated
FROM pg_constraint c JOIN pg_class r ON r.oid = c.conrelid JOIN pg_namespace n ON n.oid = r.relnamespace
WHERE c.contype IN ('p', 'u', 'f', 'c', 'x', 't') AND {_SYSTEM} ORDER BY 1
"""  # noqa: S608  constants
INDEXES = f"""
SELECT format('%I.%I', n.nspname, c.relname), i.indisvalid
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class r ON r.oid = i.indrelid WHERE r.relpersistence = 'p' AND {_SYSTEM} ORDER BY 1
"""  # noqa: S608  constants
EXTENSIONS = "SELECT format('%I %s', extname, extversion) FROM pg_extension ORDER BY 1"
SEQUENCES = f"""
SELECT n.nspname, c.relname, tn.nspname, t.relname, a.attname
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_depend d ON d.objid = c.oid AND d.classid = 'pg_class'::regclass
  AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
LEFT JOIN pg_class t ON t.oid = d.refobjid LEFT JOIN pg_namespace tn ON tn.oid = t.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE c.relkind = 'S' AND c.relpersistence = 'p' AND {_SYSTEM} ORDER BY 1, 2
"""  # noqa: S608  constants
BEHIND = """
SELECT coalesce((SELECT CASE WHEN p.seqincrement > 0
         THEN max({column})::numeric > s.last_value ELSE min({column})::numeric < s.last_value END
       FROM {table} GROUP BY p.seqincrement, s.last_value), false)
FROM {sequence} s, pg_sequence p WHERE p.seqrelid = '{literal}'::regclass
"""
PERMISSIONS = f"""
SELECT text FROM (
  SELECT format('owner of %s %I.%I is %I', k.kind, n.nspname, c.relname, pg_get_userbyid(c.relowner)) AS text
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN (VALUES ('r', 'table'), ('p', 'table'), ('v', 'view'), ('m', 'materialized view'), ('S', 'sequence'),
    ('f', 'foreign table')) k(code, kind) ON k.code = c.relkind::text
  WHERE {_SYSTEM}
  UNION ALL
  SELECT format('grant %s on %I.%I to %s%s', a.privilege_type, n.nspname, c.relname,
    CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
    CASE WHEN a.is_grantable THEN ' with grant option' ELSE '' END)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) a WHERE {_SYSTEM}
  UNION ALL
  SELECT format('grant %s (%I) on %I.%I to %s', a.privilege_type, t.attname, n.nspname, c.relname,
    CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END)
  FROM pg_attribute t JOIN pg_class c ON c.oid = t.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace,
    aclexplode(t.attacl) a WHERE {_SYSTEM}
  UNION ALL
  SELECT format('grant %s on function %I.%I(%s) to %s', a.privilege_type, n.nspname, p.proname,
    pg_get_function_identity_arguments(p.oid),
    CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END)
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace, aclexplode(p.proacl) a WHERE {_SYSTEM}
  UNION ALL
  SELECT format('grant %s on schema %I to %s', a.privilege_type, n.nspname,
    CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END)
  FROM pg_namespace n, aclexplode(n.nspacl) a WHERE {_SYSTEM}
  UNION ALL
  SELECT format('grant %s on database to %s', a.privilege_type,
    CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END)
  FROM pg_database d, aclexplode(d.datacl) a WHERE d.datname = current_database()
  UNION ALL
  SELECT format('default privilege %s on %s of %I in %s to %s', a.privilege_type, d.defaclobjtype,
    pg_get_userbyid(d.defaclrole), coalesce(quote_ident(n.nspname), 'every schema'),
    CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END)
  FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace, aclexplode(d.defaclacl) a
  UNION ALL
  SELECT format('row-level security on %I.%I is %s', n.nspname, c.relname,
    CASE WHEN c.relforcerowsecurity THEN 'forced' ELSE 'enabled' END)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relrowsecurity AND {_SYSTEM}
  UNION ALL
  SELECT format('policy %I on %I.%I: %s, for %s to %s using (%s) with check (%s)', p.policyname, p.schemaname,
    p.tablename, p.permissive, p.cmd, array_to_string(p.roles, ', '), p.qual, p.with_check)
  FROM pg_policies p
) listed ORDER BY 1
"""  # noqa: S608  constants
ROLES = """
SELECT format('role %I:%s%s%s%s%s%s%s, %s connections', rolname,
  CASE WHEN rolcanlogin THEN ' login' ELSE '' END, CASE WHEN rolsuper THEN ' superuser' ELSE '' END,
  CASE WHEN rolcreaterole THEN ' createrole' ELSE '' END, CASE WHEN rolcreatedb THEN ' createdb' ELSE '' END,
  CASE WHEN rolreplication THEN ' replication' ELSE '' END, CASE WHEN rolbypassrls THEN ' bypassrls' ELSE '' END,
  CASE WHEN rolinherit THEN ' inherit' ELSE '' END, rolconnlimit)
FROM pg_roles WHERE rolname !~ '^(pg_|rds)'
UNION ALL
SELECT format('membership of %I in %I%s', m.rolname, r.rolname, CASE WHEN a.admin_option THEN ' with admin' ELSE '' END)
FROM pg_auth_members a JOIN pg_roles m ON m.oid = a.member JOIN pg_roles r ON r.oid = a.roleid
WHERE m.rolname !~ '^(pg_|rds)' ORDER BY 1
"""
BEATS = f"SELECT min(seq), max(seq), count(*), max(at)::text FROM {HEARTBEAT}"  # noqa: S608  constant
RECENCY = "SELECT max(answer.v)::timestamptz::text FROM (\n{sql}\n) AS answer(v)"
ASK = "SELECT coalesce((SELECT answer.v::text FROM (\n{sql}\n) AS answer(v)) = :expected, false)"
AMCHECK = """
SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'amcheck'
"""
CHECKABLE = f"""
SELECT n.nspname, c.relname, c.relkind = 'i' AS is_index
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_am m ON m.oid = c.relam
LEFT JOIN pg_index i ON i.indexrelid = c.oid
WHERE c.relpersistence = 'p' AND {_SYSTEM} AND (c.relkind = 'i' AND m.amname = 'btree' AND i.indisready AND i.indisvalid
  OR c.relkind IN ('r', 'm') AND m.amname = 'heap') ORDER BY c.relpages, 1, 2
"""  # noqa: S608  constants
INDEX_CHECK = "SELECT {schema}.bt_index_check('{name}'::regclass, true)"
HEAP_CHECK = "SELECT count(*) FROM {schema}.verify_heapam('{name}'::regclass)"


@dataclass(frozen=True, kw_only=True)
class UserCheck:
    """The caller's own check: a query with one column and at most one row, and the text its answer must equal.

    Only whether it does leaves the database. reason: what it means when it does not.
    """

    name: str
    sql: str
    expected: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What to read. deadline: a clock of our own (seconds); when it has passed, counts become estimates.

    integrity: also run amcheck and the caller's checks (on a restored copy). recency: SQL for the newest transaction,
    one column. count_seconds: how long counting a whole database may take.
    """

    clock: Callable[[], float]
    deadline: float
    count_seconds: float = 60.0
    integrity: bool = False
    recency: Mapping[str, str] = field(default_factory=dict)
    checks: Mapping[str, tuple[UserCheck, ...]] = field(default_factory=dict)


def read_facts(
    open_session: Callable[[str], Session],
    databases: tuple[str, ...],
    questions: Questions,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Facts:
    """Read every database; one that fails is named in `failed` and does not hide the others."""
    taken = now()
    found: dict[str, Database] = {}
    failed: dict[str, str] = {}
    roles: tuple[str, ...] = ()
    server = 0
    for name in databases:
        try:
            with open_session(name) as session:
                server = session.version
                roles = roles or tuple(str(row[0]) for row in session.run(ROLES))
                found[name] = _database(session, name, questions)
        except (ConnectionFailed, QueryFailed) as error:
            failed[name] = cause(error)
    return Facts(taken=taken, finished=now(), server=server, roles=roles, databases=found, failed=failed)


def _database(session: Session, name: str, questions: Questions) -> Database:
    unreadable: dict[str, str] = {}
    with _snapshot(session):
        constraints = session.run(CONSTRAINTS)
        indexes = session.run(INDEXES)
        sequences, behind = _sequences(session, unreadable)
        found = Database(
            tables=_tables(session, questions, unreadable),
            constraints=tuple(str(row[0]) for row in constraints),
            indexes=tuple(str(row[0]) for row in indexes),
            extensions=tuple(str(row[0]) for row in session.run(EXTENSIONS)),
            sequences=sequences,
            permissions=tuple(str(row[0]) for row in session.run(PERMISSIONS)),
            invalid=(
                *(f"constraint {row[0]} is not validated" for row in constraints if not row[1]),
                *(f"index {row[0]} is not valid" for row in indexes if not row[1]),
                *behind,
            ),
            heartbeat=_heartbeat(session, unreadable),
            recency=_recency(session, questions.recency.get(name), unreadable),
            unreadable=unreadable,
        )
    if not questions.integrity:
        return found
    return replace(found, integrity=_integrity(session, questions, questions.checks.get(name, ())))


@contextmanager
def _snapshot(session: Session) -> Iterator[None]:
    session.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        yield
    finally:
        session.run("ROLLBACK")


def _quoted(*names: str) -> str:
    from aurora_backup.postgres import quote

    return quote(*names)


def _literal(name: str) -> str:
    return name.replace("'", "''")


def _tables(session: Session, questions: Questions, unreadable: dict[str, str]) -> dict[str, Table]:
    end = min(questions.deadline, questions.clock() + questions.count_seconds)
    tables = {}
    for schema, name, estimate, inserted, deleted, file in session.run(TABLES):
        known = Table(rows=None, inserted=int(inserted), deleted=int(deleted), file=int(file))
        try:
            rows, exact = _count(session, _quoted(schema, name), estimate, end - questions.clock())
            known = replace(known, rows=rows, exact=exact)
        except QueryFailed as error:
            unreadable[f"table {schema}.{name}"] = cause(error)
        tables[f"{schema}.{name}"] = known
    return tables


def _count(session: Session, table: str, estimate: float, seconds: float) -> tuple[int | None, bool]:
    from aurora_backup.postgres import SqlError

    if seconds > 0:
        try:
            with session.attempt():
                session.run(f"SET LOCAL statement_timeout = {int(seconds * 1000) + 1}")
                return int(session.value(COUNT.format(table=table))), True
        except SqlError as error:
            if error.code != "57014":  # query_canceled: the budget is used up
                raise
    return (int(estimate), False) if estimate >= 0 else (None, False)


def _sequences(session: Session, unreadable: dict[str, str]) -> tuple[tuple[str, ...], list[str]]:
    names, behind = [], []
    for schema, name, table_schema, table, column in session.run(SEQUENCES):
        names.append(f"{schema}.{name}")
        if table is None:
            continue
        sequence = _quoted(schema, name)
        sql = BEHIND.format(
            column=_quoted(column), table=_quoted(table_schema, table), sequence=sequence, literal=_literal(sequence)
        )
        try:
            with session.attempt():
                late = session.value(sql)
        except QueryFailed as error:
            unreadable[f"sequence {schema}.{name}"] = cause(error)
            continue
        if late:
            behind.append(f"sequence {schema}.{name} is behind {table_schema}.{table}.{column}")
    return tuple(names), behind


def _heartbeat(session: Session, unreadable: dict[str, str]) -> Heartbeat | None:
    try:
        with session.attempt():
            if session.value("SELECT to_regclass(:name)", name=HEARTBEAT) is None:
                return None
            first, last, count, at = session.run(BEATS)[0]
    except QueryFailed as error:
        unreadable["the heartbeat"] = cause(error)
        return None
    return Heartbeat(first=int(first), last=int(last), count=int(count), last_at=_moment(at)) if count else None


def _moment(text: str) -> datetime:
    # PostgreSQL writes the offset as +00; the session's time zone is UTC.
    return datetime.fromisoformat(re.sub(r"([+-]\d\d)$", r"\1:00", text)).astimezone(UTC)


def _recency(session: Session, sql: str | None, unreadable: dict[str, str]) -> datetime | None:
    if not sql:
        return None
    try:
        with session.attempt():
            answer = session.value(RECENCY.format(sql=sql.strip().rstrip(";")))
    except QueryFailed as error:
        unreadable["the recency query"] = cause(error)
        return None
    return _moment(answer) if answer else None


def _integrity(session: Session, questions: Questions, checks: tuple[UserCheck, ...]) -> Integrity:
    corrupt: dict[str, str] = {}
    unchecked: dict[str, str] = {}
    checked = 0
    schema = session.value(AMCHECK)
    if schema is None:
        unchecked["every table and index"] = "the extension amcheck is not installed (CREATE EXTENSION amcheck)"
    else:
        for place, name, is_index in session.run(CHECKABLE):
            what = f"{'index' if is_index else 'table'} {place}.{name}"
            try:
                said = _check(session, _quoted(schema), _quoted(place, name), bool(is_index), questions)
            except QueryFailed as error:
                unchecked[what] = cause(error)
                continue
            checked += 1
            if said:
                corrupt[what] = said
    return Integrity(
        checked=checked,
        corrupt=corrupt,
        unchecked=unchecked,
        checks={check.name: _ask(session, check) for check in checks},
    )


def _check(session: Session, schema: str, name: str, is_index: bool, questions: Questions) -> str:
    """Check one table or index whole; "" when it is sound, else what amcheck says, without a row's data."""
    from aurora_backup.postgres import SqlError

    left = questions.deadline - questions.clock()
    if left <= 0:
        raise QueryFailed("the time for checking was used up")
    session.run(f"SET statement_timeout = {int(left * 1000) + 1}")
    sql = (INDEX_CHECK if is_index else HEAP_CHECK).format(schema=schema, name=_literal(name))
    try:
        answer = session.value(sql)
    except SqlError as error:
        if error.code in _CORRUPT:
            return str(error)
        raise
    finally:
        session.run("SET statement_timeout = 0")
    return "" if is_index or not answer else f"verify_heapam found {answer} faults"


def _ask(session: Session, check: UserCheck) -> bool | str:
    try:
        with _snapshot(session):
            return bool(session.value(ASK.format(sql=check.sql.strip().rstrip(";")), expected=check.expected))
    except QueryFailed as error:
        return cause(error)
