"""What a database holds, read from its catalogue: the facts of a manifest, on both sides of a comparison.

Everything runs in the caller's transaction, so that counts belong to the exported snapshot. No row ever leaves the
database: contents are digested by the server.
"""

# ruff: noqa: S608  every fragment is a constant of this module or an identifier quoted by `quote`

from __future__ import annotations

import hashlib
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aurora_backup.database_role import SCHEMA as OWN_SCHEMA
from aurora_backup.errors import QueryFailed
from aurora_backup.manifest import Facts, SequenceFacts, TableFacts
from aurora_backup.postgres import SqlError, quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aurora_backup.postgres import Session

# Our own schemas (heartbeat, amcheck; how far a restore is) are no part of anybody's data: neither dumped nor compared.
RESTORE_MARK = "aurora_backup_restore"
OURS = (OWN_SCHEMA, RESTORE_MARK)
_SYSTEM = (
    f"n.nspname NOT IN ('pg_catalog', 'information_schema', '{OWN_SCHEMA}', '{RESTORE_MARK}')"
    " AND n.nspname !~ '^pg_(toast|temp)'"
)
# Objects that an extension owns come back with CREATE EXTENSION.
_MEMBER = "SELECT FROM pg_catalog.pg_depend d WHERE d.deptype = 'e' AND d.classid = 'pg_catalog.{}'::regclass"
_PG15, _PG16, _PG17 = 150000, 160000, 170000
_STANDBY = "pg_catalog.pg_is_in_recovery()"


def _not_member(catalogue: str, alias: str) -> str:
    return f"NOT EXISTS ({_MEMBER.format(catalogue)} AND d.objid = {alias}.oid)"


@dataclass(frozen=True)
class Table:
    """A table that stores rows, as the catalogue knows it. bytes: without indexes. estimate: -1 when never analysed."""

    oid: int
    schema: str
    name: str
    bytes: int
    estimate: float
    root: tuple[str, str] | None

    @property
    def key(self) -> tuple[str, str]:
        """Schema and name, unquoted."""
        return self.schema, self.name

    @property
    def sql(self) -> str:
        """The quoted name, for SQL and as an exact pg_dump pattern."""
        return quote(self.schema, self.name)


def tables(session: Session, *, recovery: bool = False, sizes: bool = True) -> list[Table]:
    """Tables whose rows pg_dump dumps, in name order.

    recovery: leave out unlogged ones, unreadable on a standby. sizes: False leaves bytes 0 and needs no lock.
    """
    size = "pg_catalog.pg_table_size(c.oid)" if sizes else "0"
    unlogged = "AND c.relpersistence <> 'u'" if recovery else ""
    rows = session.run(
        f"""SELECT c.oid::bigint, n.nspname, c.relname, {size}, c.reltuples::float8,
              rn.nspname, r.relname
            FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            LEFT JOIN pg_catalog.pg_class r ON c.relispartition AND r.oid = pg_catalog.pg_partition_root(c.oid)
            LEFT JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace
            WHERE c.relkind = 'r' AND c.relpersistence <> 't' {unlogged} AND {_SYSTEM}
              AND (NOT EXISTS ({_MEMBER.format("pg_class")} AND d.objid = c.oid)
                   OR EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE c.oid = ANY (e.extconfig)))
            ORDER BY n.nspname, c.relname"""
    )
    return [
        Table(int(oid), schema, name, int(size or 0), float(estimate), (root_schema, root) if root else None)
        for oid, schema, name, size, estimate, root_schema, root in rows
    ]


def lock(session: Session, wanted: Iterable[Table], seconds: int) -> None:
    """Hold ACCESS SHARE on every table to the end of the transaction: a TRUNCATE would be invisible to a snapshot.

    Raises:
        QueryFailed: a lock was not to be had within `seconds`, or a table is gone or forbidden; names the table.

    """
    session.run(f"SET LOCAL lock_timeout = '{seconds}s'")
    for table in wanted:
        try:
            session.run(f"LOCK TABLE ONLY {table.sql} IN ACCESS SHARE MODE")
        except SqlError as error:
            raise QueryFailed(f"table {table.schema}.{table.name} could not be locked: {error}") from None


def count(
    session: Session,
    wanted: Iterable[Table],
    *,
    budget: float | None,
    digest: bool = False,
    alive: Callable[[], None] = lambda: None,
) -> tuple[TableFacts, ...]:
    """Count (and digest) each table, smallest first, within `budget` seconds altogether; None has no limit.

    What does not fit is estimated and labelled so. `alive` is called between tables and may raise to stop.
    """
    end = None if budget is None else time.monotonic() + budget
    facts = []
    for table in sorted(wanted, key=lambda t: t.bytes):
        alive()
        left = None if end is None else end - time.monotonic()
        facts.append(_count(session, table, left, digest=digest))
    return tuple(sorted(facts, key=lambda t: t.key))


def _count(session: Session, table: Table, seconds: float | None, *, digest: bool) -> TableFacts:
    def fact(rows: int | None, *, estimated: bool = False, digest: str | None = None) -> TableFacts:
        return TableFacts(
            schema=table.schema,
            name=table.name,
            rows=rows,
            estimated=estimated,
            bytes=table.bytes,
            root=table.root,
            digest=digest,
        )

    guess = None if table.estimate < 0 else int(table.estimate)
    if seconds is not None and seconds <= 0:
        return fact(guess, estimated=True)
    limit = 0 if seconds is None else max(1, int(seconds * 1000))
    try:
        with session.attempt():
            session.run(f"SET LOCAL statement_timeout = {limit}")
            rows, contents = session.run(_count_sql(table.sql, digest=digest))[0]
            session.run("SET LOCAL statement_timeout = 0")
    except SqlError as error:
        if error.code != "57014":  # query_canceled: the budget is spent
            raise QueryFailed(f"table {table.schema}.{table.name} could not be counted: {error}") from None
        return fact(guess, estimated=True)
    return fact(int(rows), digest=contents)


def _count_sql(name: str, *, digest: bool) -> str:
    if not digest:
        return f"SELECT count(*), NULL FROM ONLY {name}"
    return f"SELECT count(*), {_row_digest('aurora_backup_row::text')} FROM ONLY {name} AS aurora_backup_row"


def _row_digest(text: str) -> str:
    """Sum two seeded 64-bit hashes of each row: the order of rows does not matter, a repeated row does."""
    sums = (
        f'to_hex((sum(hashtextextended(({text}) COLLATE "C", {seed})::numeric) % 9223372036854775807)::bigint)'
        for seed in (0, 1)
    )
    return "coalesce(concat_ws(':', " + ", ".join(sums) + "), '')"


def sequences(session: Session) -> tuple[SequenceFacts, ...]:
    """Every sequence's current value. Not bound to a snapshot: sequences never are."""
    names = session.run(
        f"""SELECT n.nspname, c.relname
            FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind = 'S' AND c.relpersistence = 'p' AND {_SYSTEM} AND {_not_member("pg_class", "c")}
            ORDER BY n.nspname, c.relname"""
    )
    found = []
    for start in range(0, len(names), 200):
        chunk = names[start : start + 200]
        rows = session.run(
            " UNION ALL ".join(
                f"SELECT {i}, last_value, is_called FROM {quote(schema, name)}"
                for i, (schema, name) in enumerate(chunk)
            )
        )
        found += [
            SequenceFacts(schema=chunk[i][0], name=chunk[i][1], last_value=int(value), is_called=bool(called))
            for i, value, called in sorted(rows)
        ]
    return tuple(found)


def large_objects(session: Session, *, digest: bool = False) -> tuple[int, str | None]:
    """How many large objects there are, and a digest of their numbers and contents when asked."""
    number = int(session.value("SELECT count(*) FROM pg_catalog.pg_largeobject_metadata"))
    if not digest or not number:
        return number, None
    text = "oid::text || ' ' || encode(sha256(lo_get(oid)), 'hex')"
    return number, str(session.value(f"SELECT {_row_digest(text)} FROM pg_catalog.pg_largeobject_metadata"))


# kind -> SQL giving one line of text for each object. Names are qualified because search_path is empty.
_DEFINITIONS: dict[str, str] = {
    "schemas": f"""SELECT n.nspname FROM pg_namespace n
        WHERE n.nspname <> 'public' AND {_SYSTEM} AND {_not_member("pg_namespace", "n")}""",
    "relations": f"""SELECT concat_ws('|', c.oid::regclass, c.relkind, c.relpersistence, c.relrowsecurity,
          c.relforcerowsecurity, c.reloptions, pg_get_expr(c.relpartbound, c.oid),
          CASE c.relkind WHEN 'p' THEN pg_get_partkeydef(c.oid) END,
          (SELECT string_agg(inhparent::regclass::text, ',' ORDER BY inhseqno) FROM pg_inherits
           WHERE inhrelid = c.oid AND c.relkind IN ('r', 'p', 'f')), c.relreplident)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c', 'S') AND {_SYSTEM} AND {_not_member("pg_class", "c")}""",
    "columns": f"""SELECT concat_ws('|', c.oid::regclass,
          row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum), a.attname, format_type(a.atttypid, a.atttypmod),
          a.attnotnull, a.attidentity, a.attgenerated, a.attstorage,
          nullif(a.attcollation, t.typcollation)::regcollation,
          pg_get_expr(x.adbin, x.adrelid))
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_type t ON t.oid = a.atttypid
        LEFT JOIN pg_attrdef x ON x.adrelid = a.attrelid AND x.adnum = a.attnum
        WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c')
          AND {_SYSTEM} AND {_not_member("pg_class", "c")}""",
    "constraints": f"""SELECT concat_ws('|', nullif(k.conrelid, 0)::regclass, nullif(k.contypid, 0)::regtype, k.conname,
          pg_get_constraintdef(k.oid), k.convalidated)
        FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace
        LEFT JOIN pg_class c ON c.oid = k.conrelid LEFT JOIN pg_type t ON t.oid = k.contypid
        WHERE k.contype NOT IN ('n', 't') AND {_SYSTEM}
          AND (k.conrelid = 0 OR {_not_member("pg_class", "c")})
          AND (k.contypid = 0 OR {_not_member("pg_type", "t")})""",
    "indexes": f"""SELECT pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_SYSTEM} AND {_not_member("pg_class", "c")}""",
    "views": f"""SELECT concat_ws('|', c.oid::regclass, pg_get_viewdef(c.oid)) FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('v', 'm') AND {_SYSTEM} AND {_not_member("pg_class", "c")}""",
    "functions": f"""SELECT CASE WHEN p.prokind = 'a'
          THEN concat_ws('|', p.oid::regprocedure, g.aggtransfn, g.aggfinalfn, g.agginitval)
          ELSE pg_get_functiondef(p.oid) END
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace LEFT JOIN pg_aggregate g ON g.aggfnoid = p.oid
        WHERE {_SYSTEM} AND {_not_member("pg_proc", "p")}""",
    "triggers": f"""SELECT concat_ws('|', pg_get_triggerdef(t.oid), t.tgenabled) FROM pg_trigger t
        JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE NOT t.tgisinternal AND {_SYSTEM} AND {_not_member("pg_class", "c")}""",
    "event_triggers": f"""SELECT concat_ws('|', v.evtname, v.evtevent, v.evtfoid::regprocedure, v.evtenabled, v.evttags)
        FROM pg_event_trigger v WHERE {_not_member("pg_event_trigger", "v")}""",
    "rules": f"""SELECT pg_get_ruledef(r.oid) FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE r.rulename <> '_RETURN' AND {_SYSTEM} AND {_not_member("pg_class", "c")}""",
    "policies": f"""SELECT concat_ws('|', p.polname, c.oid::regclass, p.polcmd, p.polpermissive,
          (SELECT string_agg(CASE r WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(r)::text END, ',' ORDER BY 1)
           FROM unnest(p.polroles) r), pg_get_expr(p.polqual, c.oid), pg_get_expr(p.polwithcheck, c.oid))
        FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE {_SYSTEM} AND {_not_member("pg_class", "c")}""",
    "types": f"""SELECT concat_ws('|', t.oid::regtype, t.typtype, t.typnotnull, t.typdefault,
          nullif(t.typbasetype, 0)::regtype,
          (SELECT string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid))
        FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
        WHERE t.typtype IN ('e', 'd', 'r', 'm') AND {_SYSTEM} AND {_not_member("pg_type", "t")}""",
    "sequences": f"""SELECT concat_ws('|', c.oid::regclass, format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement,
          s.seqmax, s.seqmin, s.seqcache, s.seqcycle,
          (SELECT concat_ws('.', o.refobjid::regclass, o.refobjsubid) FROM pg_depend o WHERE o.objid = c.oid
           AND o.classid = 'pg_class'::regclass AND o.deptype IN ('a', 'i') AND o.refobjsubid > 0))
        FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE {_SYSTEM} AND {_not_member("pg_class", "c")}""",
    "owners": f"""SELECT concat_ws('|', c.oid::regclass, pg_get_userbyid(c.relowner)) FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND {_SYSTEM} AND {_not_member("pg_class", "c")}
        UNION ALL SELECT concat_ws('|', p.oid::regprocedure, pg_get_userbyid(p.proowner)) FROM pg_proc p
        JOIN pg_namespace n ON n.oid = p.pronamespace WHERE {_SYSTEM} AND {_not_member("pg_proc", "p")}""",
    "grants": f"""SELECT concat_ws('|', o.what, CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(x.grantee) END,
          x.privilege_type, x.is_grantable)
        FROM (SELECT 'relation ' || c.oid::regclass AS what, coalesce(c.relacl,
                acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner)) AS acl
              FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND {_SYSTEM} AND {_not_member("pg_class", "c")}
              UNION ALL SELECT 'column ' || c.oid::regclass || '.' || a.attname, a.attacl
              FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE a.attacl IS NOT NULL AND NOT a.attisdropped AND {_SYSTEM} AND {_not_member("pg_class", "c")}
              UNION ALL SELECT 'function ' || p.oid::regprocedure, coalesce(p.proacl, acldefault('f', p.proowner))
              FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
              WHERE {_SYSTEM} AND {_not_member("pg_proc", "p")}
              UNION ALL SELECT 'schema ' || n.nspname, coalesce(n.nspacl, acldefault('n', n.nspowner))
              FROM pg_namespace n WHERE {_SYSTEM} AND {_not_member("pg_namespace", "n")}
              UNION ALL SELECT 'large object ' || l.oid, coalesce(l.lomacl, acldefault('L', l.lomowner))
              FROM pg_largeobject_metadata l) o CROSS JOIN LATERAL aclexplode(o.acl) x""",
    "default_privileges": """SELECT concat_ws('|', pg_get_userbyid(d.defaclrole), n.nspname, d.defaclobjtype,
          CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(x.grantee) END, x.privilege_type, x.is_grantable)
        FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
        CROSS JOIN LATERAL aclexplode(d.defaclacl) x""",
    "comments": """SELECT concat_ws('|', i.type, i.identity, d.description) FROM pg_description d
        CROSS JOIN LATERAL pg_identify_object(d.classoid, d.objoid, d.objsubid) i
        WHERE d.objoid >= 16384 AND d.classoid <> 'pg_extension'::regclass""",
    "publications": """SELECT concat_ws('|', p.pubname, p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete,
          p.pubtruncate, (SELECT string_agg(r.prrelid::regclass::text, ',' ORDER BY r.prrelid::regclass::text)
          FROM pg_publication_rel r WHERE r.prpubid = p.oid)) FROM pg_publication p""",
}

# `x IN ('a')` on a varchar is stored with other casts and brackets after a dump and restore than before.
_CAST = re.compile(r'::(?:"[^"]+"|[\w.]+)(?: varying| precision)*(?:\([\d,]+\))?(?: with(?:out)? time zone)?(?:\[\])*')
_LOOSE = frozenset(
    {"columns", "constraints", "indexes", "views", "triggers", "policies", "rules", "relations", "types"}
)


def _normal(kind: str, line: str) -> str:
    if kind not in _LOOSE:
        return line
    return re.sub(r"[\s()]+", " ", _CAST.sub("", line)).replace(" ", "")


def schema(session: Session) -> dict[str, str]:
    """SHA-256 of the definitions of each kind of object, by kind. Casts, brackets and spaces do not count."""
    return {
        kind: hashlib.sha256(
            "\n".join(sorted(_normal(kind, str(row[0])) for row in session.run(sql))).encode()
        ).hexdigest()
        for kind, sql in _DEFINITIONS.items()
    }


def extensions(session: Session) -> dict[str, str]:
    """Version by name, plpgsql included, but for those in our own schema."""
    rows = session.run(
        "SELECT e.extname, e.extversion FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n"
        " ON n.oid = e.extnamespace WHERE n.nspname <> :own ORDER BY e.extname",
        own=OWN_SCHEMA,
    )
    return {str(name): str(version) for name, version in rows}


def own_extensions(session: Session) -> list[str]:
    """Extensions in our own schema."""
    rows = session.run(
        "SELECT e.extname FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace"
        " WHERE n.nspname = :own ORDER BY 1",
        own=OWN_SCHEMA,
    )
    return [str(row[0]) for row in rows]


def database(session: Session) -> dict[str, Any]:
    """Return what `pg_dump` without `--create` leaves out: the database's own settings."""
    locale = "d.datlocale" if session.version >= _PG17 else "d.daticulocale"
    provider = f"d.datlocprovider, {locale}" if session.version >= _PG15 else "'c', NULL"
    row = session.run(
        f"""SELECT d.datname, pg_catalog.pg_get_userbyid(d.datdba), pg_catalog.pg_encoding_to_char(d.encoding),
             d.datcollate, d.datctype, {provider}, d.datacl::text, pg_catalog.pg_database_size(d.oid),
             (SELECT array_to_json(array_agg(json_build_object('role', pg_catalog.pg_get_userbyid(nullif(s.setrole, 0)),
                'settings', s.setconfig)))::text FROM pg_catalog.pg_db_role_setting s WHERE s.setdatabase = d.oid)
           FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()"""
    )[0]
    names = ("name", "owner", "encoding", "collate", "ctype", "provider", "locale", "acl", "bytes", "settings")
    return dict(zip(names, row, strict=True))


def roles(session: Session) -> dict[str, Any]:
    """Roles with their attributes and settings, and who is a member of whom. Never a password."""
    attributes = (
        "rolname", "rolsuper", "rolinherit", "rolcreaterole", "rolcreatedb", "rolcanlogin", "rolreplication",
        "rolbypassrls", "rolconnlimit", "rolvaliduntil::text", "array_to_json(rolconfig)::text",
    )  # fmt: skip
    names = ("name", "superuser", "inherit", "createrole", "createdb", "login", "replication", "bypassrls",
             "connection_limit", "valid_until", "settings")  # fmt: skip
    inherit = "m.inherit_option, m.set_option" if session.version >= _PG16 else "NULL, NULL"
    return {
        "roles": [
            dict(zip(names, row, strict=True))
            for row in session.run(
                f"SELECT {', '.join(attributes)} FROM pg_catalog.pg_roles WHERE rolname !~ '^pg_' ORDER BY rolname"
            )
        ],
        "memberships": [
            dict(zip(("role", "member", "admin", "inherit", "set"), row, strict=True))
            for row in session.run(
                f"""SELECT pg_catalog.pg_get_userbyid(m.roleid), pg_catalog.pg_get_userbyid(m.member), m.admin_option,
                      {inherit} FROM pg_catalog.pg_auth_members m
                    WHERE pg_catalog.pg_get_userbyid(m.member) !~ '^pg_' ORDER BY 1, 2"""
            )
        ],
    }


def gather(session: Session, *, digest: bool = False, budget: float | None = None) -> Facts:
    """Facts of a database as it is now, in one read-only snapshot: what a restored database is compared by."""
    session.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        recovery = bool(session.value(f"SELECT {_STANDBY}"))
        counted = count(session, tables(session, recovery=recovery), budget=budget, digest=digest)
        return assemble(session, counted, sequences(session), digest=digest)
    finally:
        session.run("ROLLBACK")


def assemble(
    session: Session, counted: tuple[TableFacts, ...], values: tuple[SequenceFacts, ...], *, digest: bool
) -> Facts:
    """Facts from counts already made, and the rest of the catalogue."""
    number, contents = large_objects(session, digest=digest)
    return Facts(
        tables=counted,
        sequences=values,
        large_objects=number,
        large_objects_digest=contents,
        extensions=extensions(session),
        schema=schema(session),
        server_major=session.version // 10000,
    )


_UNREADABLE = f"""
    SELECT CASE WHEN c.relkind = 'S' THEN 'sequence' ELSE 'table' END || ' ' || c.oid::regclass, 'GRANT SELECT ON it'
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't' AND {_SYSTEM}
      AND {_not_member("pg_class", "c")} AND NOT has_table_privilege(c.oid, 'SELECT')
    UNION ALL
    SELECT 'schema ' || n.nspname, 'GRANT USAGE ON it' FROM pg_namespace n
    WHERE {_SYSTEM} AND {_not_member("pg_namespace", "n")} AND NOT has_schema_privilege(n.oid, 'USAGE')
    UNION ALL
    SELECT 'rows of ' || c.oid::regclass || ' (row-level security)', 'ALTER ROLE ... BYPASSRLS'
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.relrowsecurity AND {_SYSTEM} AND {_not_member("pg_class", "c")}
      AND NOT (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user)
      AND (c.relforcerowsecurity OR NOT pg_has_role(c.relowner, 'USAGE'))
    UNION ALL
    SELECT count(*) || ' large objects, the first is ' || min(l.oid), 'GRANT SELECT ON LARGE OBJECT'
    FROM pg_largeobject_metadata l
    WHERE NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
      AND NOT current_setting('lo_compat_privileges')::boolean AND NOT pg_has_role(l.lomowner, 'USAGE')
      AND NOT EXISTS (SELECT FROM aclexplode(l.lomacl) x WHERE x.privilege_type = 'SELECT'
                      AND (x.grantee = 0 OR pg_has_role(x.grantee, 'USAGE')))
    HAVING count(*) > 0"""


def unreadable(session: Session) -> list[tuple[str, str]]:
    """Objects that the role cannot read, so that pg_dump would fail on them: (object, remedy).

    Schemas come first: without them the rest cannot be reached. Large objects are one entry.
    """
    found = sorted((str(what), str(remedy)) for what, remedy in session.run(_UNREADABLE))
    return sorted(found, key=lambda item: not item[0].startswith("schema "))
