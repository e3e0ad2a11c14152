"""The role that this package connects as: what it may do in PostgreSQL, as SQL, and the SQL applied.

It logs in by IAM, reads everything, checks indexes, and writes only in its own schema. Membership cannot give it what
only an owner has: tables with row-level security, and large objects that it was not granted. `unreadable` in preflight
names those, and a dump as their owner (the master secret) reads them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_backup.errors import QueryFailed, cause
from aurora_backup.postgres import quote

if TYPE_CHECKING:
    from aurora_backup.postgres import Session

ROLE = "aurora_backup"
SCHEMA = "aurora_backup"
_CONNECTIONS = 20  # jobs, counts and the heartbeat of one run; a runaway caller cannot fill the server
_DUPLICATE = "42710"
_GRANT_LARGE_OBJECTS = """
DO $$ DECLARE object oid; BEGIN FOR object IN SELECT oid FROM pg_largeobject_metadata LOOP
EXECUTE format('GRANT SELECT ON LARGE OBJECT %%s TO %s', object); END LOOP; END $$
"""


def cluster_statements(role: str = ROLE) -> list[str]:
    """SQL that makes the role, once for the cluster. Each statement can be run again."""
    name = quote(role)
    return [
        f"CREATE ROLE {name} LOGIN CONNECTION LIMIT {_CONNECTIONS}",
        f"GRANT rds_iam TO {name}",
        f"GRANT pg_read_all_data, pg_monitor TO {name}",
    ]


def database_statements(role: str = ROLE) -> list[str]:
    """SQL for one database: a schema of our own, amcheck in it, and the large objects that exist today."""
    name = quote(role)
    return [
        f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}",
        f"GRANT USAGE, CREATE ON SCHEMA {SCHEMA} TO {name}",
        f"CREATE EXTENSION IF NOT EXISTS amcheck WITH SCHEMA {SCHEMA}",
        f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {SCHEMA} TO {name}",
        _GRANT_LARGE_OBJECTS % name,
    ]


_NOT_EXECUTABLE = """
SELECT p.oid::regprocedure::text FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = :schema AND NOT pg_catalog.has_function_privilege(:role, p.oid, 'EXECUTE') ORDER BY 1
"""


def missing(session: Session, role: str = ROLE) -> list[str]:
    """What the role still may not execute in our schema: a GRANT that grants nothing is only a warning."""
    rows = session.run(_NOT_EXECUTABLE, schema=SCHEMA, role=role)
    return [f"EXECUTE on {row[0]} was not granted to {role}" for row in rows]


def apply(session: Session, statements: list[str]) -> list[str]:
    """Run each statement by itself; return what was refused and why. A role that exists already is no failure."""
    refused = []
    for statement in statements:
        try:
            session.run(statement)
        except QueryFailed as error:
            if getattr(error, "code", "") != _DUPLICATE:
                refused.append(f"{statement.split(' TO ')[0][:80]}: {cause(error)}")
    return refused
