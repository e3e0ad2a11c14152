"""Restore a set into a fresh database, or one table of it, and prove it by comparing with the manifest.

The steps are those of pg_restore's sections: roles (when asked), pre-data of archive 0, the rows of every archive side
by side, post-data, ANALYZE. Definitions need only the head of archive 0; rows are streamed from S3, never on disk.

Re-running resumes: a schema of ours in the target notes which steps are done, and rows of an unfinished step are
removed before it runs again. It is dropped at the end. A target that holds anything else is refused, and so is one
that another restore is working on. What a killed restore left running in the target is ended first.
"""

# ruff: noqa: S608  what is not a constant of this module is quoted by `quote`

from __future__ import annotations

import json
import logging
import re
import subprocess
import tempfile
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurora_backup import catalog
from aurora_backup.errors import ArchiveDamaged, RestoreFailed, RestoreRefused
from aurora_backup.manifest import Archive, Difference, Facts, Manifest, compare, crc32_text
from aurora_backup.postgres import Session, SqlError, client_environment, client_version, quote
from aurora_backup.programs import Program
from aurora_backup.verify import feeding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from aurora_backup.postgres import Target
    from aurora_backup.s3 import Bucket

_log = logging.getLogger(__name__)
_STEPS = quote(catalog.RESTORE_MARK, "steps")
_HEAD_CHUNK = 1 << 16
_PROGRAM = "aurora-backup pg_restore"
_ONE_AT_A_TIME = 0x6175_726F_7261  # key of the advisory lock that a restore holds in its target
_DUPLICATE_DATABASE = "42P04"
_PATIENCE_SECONDS = 15
_EXTENSION_COMMENT = re.compile(rb"\d+; \d+ \d+ COMMENT - EXTENSION ")  # a table's name may hold these words too
_PG16 = 160000
# Settings whose value is a list of quoted names: as one literal it would be one name.
_LISTS = frozenset({"search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries"})
Table = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class RestoreOptions:
    """How to restore. jobs: archives loaded, and indexes built, side by side.

    tables: restore only these tables' rows, without indexes, constraints and triggers (a partitioned table means all
    its partitions). roles: create missing roles first, without passwords, and restore owners and grants; otherwise
    everything belongs to the connecting role. progress: called with (step, bytes read so far).
    """

    jobs: int = 2
    tables: tuple[Table, ...] = ()
    roles: bool = False
    analyze: bool = True
    progress: Callable[[str, int], None] = lambda _step, _read: None


@dataclass(frozen=True)
class Restored:
    """What a restore did. differences: empty when the database is what the manifest says. bytes_read: from S3.

    estimated: tables that were not counted when dumped, so that their rows are not compared.
    """

    set: str
    rows_expected: int
    rows_restored: int
    bytes_read: int
    seconds: float
    differences: tuple[Difference, ...]
    skipped: tuple[str, ...]
    estimated: int = 0

    @property
    def ok(self) -> bool:
        """Whether the restored database agrees with the manifest."""
        return not self.differences


def restore_set(bucket: Bucket, manifest: Manifest, target: Target, options: RestoreOptions | None = None) -> Restored:
    """Restore a set, whole or in part, into `target`, which must be empty or hold an unfinished restore of this set.

    Raises:
        RestoreRefused: the target holds something else, a table is not in the set, or pg_restore is too old.
        RestoreFailed: pg_restore failed; run again to resume.
        ArchiveDamaged: an archive's bytes are not those that the manifest recorded.

    """
    return _Restore(bucket, manifest, target, options or RestoreOptions()).run()


def create_database(target: Target, manifest: Manifest) -> None:
    """Create the target's database, with the source's encoding and locale. An unfinished restore is left as it is.

    Raises:
        RestoreRefused: it exists and holds no unfinished restore, or the server does not know the locale.

    """
    source = manifest.source.get("database", {})
    settings = [
        f"{name} {_literal(str(source[key]))}"
        for name, key in (("ENCODING", "encoding"), ("LC_COLLATE", "collate"), ("LC_CTYPE", "ctype"))
        if source.get(key)
    ]
    provider = {"i": ("icu", "ICU_LOCALE"), "b": ("builtin", "BUILTIN_LOCALE")}.get(str(source.get("provider")))
    if provider and source.get("locale"):
        settings.append(f"LOCALE_PROVIDER {provider[0]} {provider[1]} {_literal(str(source['locale']))}")
    with Session(target.database("postgres"), application_name="aurora-backup restore") as session:
        try:
            session.run(f"CREATE DATABASE {quote(target.dbname)} TEMPLATE template0 {' '.join(settings)}")
        except SqlError as error:
            if error.code != _DUPLICATE_DATABASE:
                raise RestoreRefused(f"database {target.dbname} could not be created: {error}") from None
            exists = True
        else:
            exists = False
    if exists:
        with Session(target, application_name="aurora-backup restore") as session:
            if session.value("SELECT to_regclass(:name)", name=_STEPS) is None:
                raise RestoreRefused(
                    f"database {target.dbname} already exists; without --create it is restored into, if it is empty"
                )


def compare_with(
    manifest: Manifest, target: Target, *, tables: tuple[Table, ...] = (), access: bool = True
) -> list[Difference]:
    """Compare a database with a manifest as it is, without restoring anything. tables: only these.

    Raises:
        RestoreRefused: a table is not in the set.

    """
    only = frozenset(_selected(manifest, tables)) or None
    return compare(manifest, _facts(manifest, target), tables=only, access=access)


def _selected(manifest: Manifest, tables: tuple[Table, ...]) -> tuple[Table, ...]:
    """The leaf tables that were asked for."""
    found: list[Table] = []
    for wanted in tables:
        leaves = [t.key for t in manifest.facts.tables if wanted in (t.key, t.root)]
        if not leaves:
            raise RestoreRefused(f"table {'.'.join(wanted)} is not in the set {manifest.set}")
        found += leaves
    return tuple(dict.fromkeys(found))


def _facts(manifest: Manifest, target: Target) -> Facts:
    digest = bool(manifest.facts.large_objects_digest) or any(table.digest for table in manifest.facts.tables)
    with Session(target, application_name="aurora-backup compare") as session:
        return catalog.gather(session, digest=digest)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


class _Restore:
    def __init__(self, bucket: Bucket, manifest: Manifest, target: Target, options: RestoreOptions) -> None:
        self._bucket, self._manifest, self._target, self._options = bucket, manifest, target, options
        self._tables = _selected(manifest, options.tables)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._read = 0
        self._skipped: list[str] = []

    def run(self) -> Restored:
        begun = time.monotonic()
        major, version = client_version("pg_restore")
        made_by = int("".join(c if c.isdigit() else " " for c in self._manifest.client_version).split()[0])
        if major < made_by:
            raise RestoreRefused(f"archives of pg_dump {made_by} need pg_restore {made_by} or newer, got {version}")
        with Session(self._target, application_name="aurora-backup restore") as session:
            steps = _Steps(session, self._purpose())
            steps.open()
            if self._options.roles:
                self._skipped += create_roles(session, self._manifest.roles)
            with tempfile.TemporaryDirectory(prefix="aurora-backup-") as directory:
                head = self._head(Path(directory))
                entries = self._entries(Path(directory), head)
                if steps.must_run("pre-data") and not _objects(session):
                    self._sections(head, entries, ["--section=pre-data", "--single-transaction"])
                steps.finish("pre-data")
                self._data(session, steps)
                if not self._tables and not steps.is_done("post-data"):
                    again = [] if steps.must_run("post-data") is _FIRST else ["--clean", "--if-exists"]
                    if again:
                        _drop_indexes_of_partitions(session)
                    self._sections(head, entries, ["--section=post-data", f"--jobs={self._options.jobs}", *again])
                    steps.finish("post-data")
            if self._options.analyze:
                self._progress("analyze")
                session.run("ANALYZE")
            done = self._compared(begun)
            if self._options.roles and not self._tables:
                # Late: its settings and grants may be such that the connecting role could not have worked here.
                skipped = restore_database(session, self._manifest.source.get("database", {}))
                done = replace(done, skipped=(*done.skipped, *skipped))
            steps.close()  # last: what is stopped before can be carried on
        return done

    def _purpose(self) -> str:
        names = ",".join(sorted(quote(*table) for table in self._tables)) or "all"
        return f"{self._manifest.set} {names}"

    def _compared(self, begun: float) -> Restored:
        self._progress("compare")
        actual = _facts(self._manifest, self._target)
        only = frozenset(self._tables) or None
        differences = compare(self._manifest, actual, tables=only, access=self._options.roles)
        expected = [t for t in self._manifest.facts.tables if only is None or t.key in only]
        restored = [t for t in actual.tables if only is None or t.key in only]
        return Restored(
            set=self._manifest.set,
            rows_expected=sum(t.rows or 0 for t in expected if not t.estimated),
            rows_restored=sum(t.rows or 0 for t in restored),
            bytes_read=self._read,
            seconds=round(time.monotonic() - begun, 3),
            differences=tuple(differences),
            skipped=tuple(self._skipped),
            estimated=sum(t.estimated for t in expected),
        )

    def _progress(self, step: str, read: int = 0) -> None:
        with self._lock:
            self._read += read
            total = self._read
        self._options.progress(step, total)

    def _stream(self, archive: Archive, step: str, *, chunk: int = 1 << 20) -> Iterator[bytes]:
        for data in self._bucket.stream(archive.key, archive.version_id, chunk=chunk):
            self._progress(step, len(data))
            yield data

    def _head(self, directory: Path) -> Path:
        """Fetch as much of archive 0 as pg_restore reads to know its contents: definitions need no more."""
        path = directory / "head.dump"
        kept = bytearray()

        def keep() -> Iterator[bytes]:
            for data in self._stream(self._manifest.archives[0], "contents", chunk=_HEAD_CHUNK):
                kept.extend(data)
                yield data

        with Program(["pg_restore", "--list"], None, stdin=subprocess.PIPE) as program:
            with feeding(program, keep(), whole=False) as feeder:
                status = program.wait()
            feeder.reraise()
            if status != 0:
                raise ArchiveDamaged(f"{self._manifest.archives[0].key} has no readable contents: {program.failure()}")
        path.touch(mode=0o600)
        path.write_bytes(kept)
        return path

    def _entries(self, directory: Path, head: Path) -> Path:
        """List what to restore: all but comments on extensions, which only an extension's owner may set."""
        path = directory / "entries"
        done = subprocess.run(["pg_restore", "--list", str(head)], capture_output=True, check=True)
        lines = [line for line in done.stdout.splitlines(keepends=True) if not _EXTENSION_COMMENT.match(line)]
        path.write_bytes(b"".join(lines))
        return path

    def _access(self) -> list[str]:
        return [] if self._options.roles else ["--no-owner", "--no-privileges"]

    def _sections(self, head: Path, entries: Path, arguments: Sequence[str]) -> None:
        self._progress(arguments[0].removeprefix("--section="))
        self._pg_restore([*arguments, f"--use-list={entries}", str(head)], None)

    def _pg_restore(self, arguments: Sequence[str], chunks: Iterator[bytes] | None) -> None:
        command = [
            "pg_restore",
            "--exit-on-error",
            "--no-password",
            *self._access(),
            f"--dbname={self._target.conninfo()}",
            *arguments,
        ]
        with (
            client_environment(self._target, application_name=_PROGRAM) as env,
            Program(command, env, stdin=subprocess.PIPE if chunks else subprocess.DEVNULL) as program,
        ):
            if chunks is None:
                status = self._ended(program)
            else:
                with feeding(program, chunks) as feeder:
                    status = self._ended(program)
                    if status != 0:
                        feeder.give_up()
                feeder.reraise()
            if status != 0:
                raise RestoreFailed(f"{program.failure()}\nRun the same command again to resume.")

    def _ended(self, program: Program) -> int:
        while (status := program.poll(1)) is None:
            if self._stop.is_set():
                raise RestoreFailed("stopped, because another archive of the set could not be restored")
        return status

    def _data(self, session: Session, steps: _Steps) -> None:
        """Load the rows of every archive that is needed, `jobs` at a time. The first to fail stops the others."""
        wanted = []
        for number, archive in enumerate(self._manifest.archives):
            tables = self._tables_in(archive)
            if self._tables and not tables:
                continue
            name = f"data {number:04d}"
            if steps.is_done(name):
                continue
            if steps.must_run(name) is not _FIRST:
                self._remove_rows(session, archive, tables)
            wanted.append((name, archive, tables))
        with ThreadPoolExecutor(max_workers=max(1, self._options.jobs), thread_name_prefix="restore") as pool:
            jobs = {pool.submit(self._load, name, archive, tables): name for name, archive, tables in wanted}
            try:
                for job in as_completed(jobs):
                    job.result()
                    steps.finish(jobs[job])
            except BaseException:
                self._stop.set()
                for job in jobs:
                    job.cancel()
                raise

    def _tables_in(self, archive: Archive) -> list[Table]:
        """Return the tables whose rows this archive holds, of those that were asked for."""
        keys = [t.key for t in self._manifest.facts.tables if self._manifest.archive_of(*t.key) is archive]
        return [key for key in keys if not self._tables or key in self._tables]

    def _remove_rows(self, session: Session, archive: Archive, tables: Sequence[Table]) -> None:
        for table in tables:
            session.run(f"TRUNCATE TABLE ONLY {quote(*table)}")
        if archive is self._manifest.archives[0] and not self._tables:
            batch = "SELECT lo_unlink(oid) FROM (SELECT oid FROM pg_catalog.pg_largeobject_metadata LIMIT 500) o"
            while session.run(batch):
                pass

    def _load(self, step: str, archive: Archive, tables: Sequence[Table]) -> None:
        crc = 0

        def checked() -> Iterator[bytes]:
            nonlocal crc
            for data in self._stream(archive, step):
                crc = zlib.crc32(data, crc)
                yield data

        if self._tables and not archive.tables:
            for schema, name in tables:
                crc = 0
                self._pg_restore(["--section=data", f"--schema={schema}", f"--table={name}"], checked())
                self._check(archive, crc)
            return
        self._pg_restore(["--section=data"], checked())
        self._check(archive, crc)

    def _check(self, archive: Archive, crc: int) -> None:
        if crc32_text(crc) != archive.crc32:
            raise ArchiveDamaged(
                f"{archive.key} must have the CRC32 {archive.crc32}, and its bytes give {crc32_text(crc)}: "
                "do not use what was restored"
            )


_FIRST, _AGAIN = "first", "again"
_STILL_NEEDED = "2BP01"  # dependent_objects_still_exist
_LOCK_NOT_AVAILABLE = "55P03"


class _Steps:
    """Which steps of this restore are done, kept in the target itself."""

    def __init__(self, session: Session, purpose: str) -> None:
        self._session, self._purpose = session, purpose

    def open(self) -> None:
        """Claim an empty target, or find our own unfinished restore in it, and end what still runs of that."""
        self._alone()
        if self._session.value("SELECT to_regclass(:name)", name=_STEPS) is None:
            found = _objects(self._session)
            if found:
                raise RestoreRefused(
                    f"database {self._session.target.dbname} is not empty: it holds {', '.join(found)}; "
                    "restore into a new database, or compare what is there (--compare-only)"
                )
            self._session.run("BEGIN")
            self._session.run(f"CREATE SCHEMA {quote(catalog.RESTORE_MARK)}")
            self._session.run(f"CREATE TABLE {_STEPS} (step text PRIMARY KEY, done boolean NOT NULL)")
            self._note(f"purpose {self._purpose}", done=True)
            self._session.run("COMMIT")
        if not self.is_done(f"purpose {self._purpose}"):
            raise RestoreRefused(
                f"database {self._session.target.dbname} holds an unfinished restore of something else; "
                "restore into a new database"
            )
        self._end_strays()

    def _alone(self) -> None:
        """Hold, for as long as the session lives, the lock that only one restore of this database can hold."""
        self._session.run(f"SET lock_timeout = '{_PATIENCE_SECONDS}s'")  # what a killed run held is released soon
        try:
            self._session.run("SELECT pg_catalog.pg_advisory_lock(:key)", key=_ONE_AT_A_TIME)
        except SqlError as error:
            if error.code != _LOCK_NOT_AVAILABLE:
                raise
            raise RestoreRefused(f"another restore into database {self._session.target.dbname} is running") from None
        self._session.run("SET lock_timeout = '60s'")

    def _end_strays(self) -> None:
        """A killed restore's pg_restore may still be building indexes here: without its connection it ends."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        strays = (
            "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity"
            " WHERE datname = current_database() AND usename = current_user AND application_name = :name"
        )
        while self._session.run(strays, name=_PROGRAM):
            if time.monotonic() > deadline:
                raise RestoreFailed("what an earlier restore left running in the target does not end")
            time.sleep(0.1)

    def is_done(self, step: str) -> bool:
        """Whether the step has been finished."""
        return bool(self._session.value(f"SELECT done FROM {_STEPS} WHERE step = :step", step=step))

    def must_run(self, step: str) -> str | None:
        """Return "first" or "again", and note that the step begins; None when it is done."""
        known = self._session.value(f"SELECT done FROM {_STEPS} WHERE step = :step", step=step)
        if known:
            return None
        self._note(step, done=False)
        return _FIRST if known is None else _AGAIN

    def finish(self, step: str) -> None:
        """Note that the step is done."""
        self._note(step, done=True)

    def close(self) -> None:
        """Leave no trace in the restored database."""
        self._session.run(f"DROP SCHEMA {quote(catalog.RESTORE_MARK)} CASCADE")

    def _note(self, step: str, *, done: bool) -> None:
        self._session.run(
            f"INSERT INTO {_STEPS} VALUES (:step, :done) ON CONFLICT (step) DO UPDATE SET done = excluded.done",
            step=step,
            done=done,
        )


def _objects(session: Session, limit: int = 5) -> list[str]:
    """Name some of the objects that make a database not empty; extensions and our own marks do not."""
    rows = session.run(
        f"""SELECT what FROM (
              SELECT 'schema ' || n.nspname AS what, n.nspname FROM pg_catalog.pg_namespace n
              WHERE n.nspname NOT IN ('public', 'information_schema') AND n.nspname !~ '^pg_'
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.deptype = 'e' AND d.objid = n.oid)
              UNION ALL
              SELECT 'relation ' || c.oid::regclass, n.nspname FROM pg_catalog.pg_class c
              JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_'
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.deptype = 'e' AND d.objid = c.oid)
              UNION ALL
              SELECT 'function ' || p.oid::regprocedure, n.nspname FROM pg_catalog.pg_proc p
              JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
              WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_'
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.deptype = 'e' AND d.objid = p.oid)
              UNION ALL
              SELECT 'large object ' || l.oid, '' FROM pg_catalog.pg_largeobject_metadata l
            ) o WHERE nspname <> '{catalog.RESTORE_MARK}' ORDER BY what LIMIT {limit}"""
    )
    return [str(row[0]) for row in rows]


def _drop_indexes_of_partitions(session: Session) -> None:
    """Drop the indexes and keys of partitioned tables, as `--clean` cannot.

    An archive drops the key of a partition before its parent's, which PostgreSQL refuses once it is attached, and has
    no DROP for an index that is to be attached: every second attempt would fail, as the first left them.
    """
    statements = session.run(
        """WITH top AS (
             SELECT i.indexrelid FROM pg_catalog.pg_index i
             JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid AND NOT x.relispartition
             JOIN pg_catalog.pg_class t ON t.oid = i.indrelid AND (t.relispartition OR t.relkind = 'p')
           )
           SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', k.conrelid::regclass, k.conname), k.contype <> 'f'
           FROM pg_catalog.pg_constraint k JOIN top ON top.indexrelid = k.conindid WHERE k.conparentid = 0
           UNION ALL
           SELECT format('DROP INDEX %s', indexrelid::regclass), true FROM top
           WHERE NOT EXISTS (
             SELECT FROM pg_catalog.pg_constraint k WHERE k.conindid = top.indexrelid AND k.contype <> 'f'
           ) ORDER BY 2"""  # foreign keys before the keys that they rest on
    )
    for statement, _ in statements:
        try:
            session.run(statement)
        except SqlError as error:
            if error.code != _STILL_NEEDED:
                raise
            raise RestoreRefused(
                f"this restore cannot be carried on: {statement} is refused, because something else depends on it; "
                "restore into a new database"
            ) from None


def create_roles(session: Session, roles: dict[str, Any]) -> list[str]:
    """Create the roles that are missing, without passwords, and their memberships. Returns what could not be done.

    A role that may log in gets no password: nobody can use it before somebody sets one. Attributes and settings that
    the connecting role may not give away are left out and named; a role that exists is left as it is. From PostgreSQL
    16 on the connecting role is a member of the roles that it makes, so that it can make them owners.
    """
    skipped: list[str] = []
    if session.version >= _PG16:  # what a role that is no superuser makes, it could give nothing to otherwise
        session.run("SET createrole_self_grant = 'set, inherit'")
    existing = {row[0] for row in session.run("SELECT rolname FROM pg_catalog.pg_roles")}
    for role in roles.get("roles", []):
        if role["name"] in existing:
            continue
        common = [
            "INHERIT" if role["inherit"] else "NOINHERIT",
            "LOGIN" if role["login"] else "NOLOGIN",
            f"CONNECTION LIMIT {int(role['connection_limit'])}",
            *([f"VALID UNTIL {_literal(role['valid_until'])}"] if role.get("valid_until") else []),
        ]
        strong = [
            name.upper() for name in ("superuser", "createrole", "createdb", "replication", "bypassrls") if role[name]
        ]
        create = f"CREATE ROLE {quote(role['name'])} {' '.join(common)}"
        try:
            session.run(f"{create} {' '.join(strong)}")
        except SqlError:
            session.run(create)
            skipped.append(f"role {role['name']}: {', '.join(strong)}")
        settings = json.loads(role.get("settings") or "null")
        skipped += _configure(session, f"ROLE {quote(role['name'])}", f"role {role['name']}", settings)
    for member in _merged(roles.get("memberships", [])):
        grant = f"GRANT {quote(member['role'])} TO {quote(member['member'])}"
        options = {name: member[name] for name in ("inherit", "set") if member.get(name) is not None}
        if options and session.version >= _PG16:
            told = ", ".join(f"{name.upper()} {value}" for name, value in {"admin": member["admin"], **options}.items())
            grant += f" WITH {told}"
        else:
            grant += " WITH ADMIN OPTION" if member["admin"] else ""
            lost = ", ".join(f"{name.upper()} {value}" for name, value in options.items() if not value)
            if lost:
                skipped.append(f"membership of {member['member']} in {member['role']}: {lost} (before PostgreSQL 16)")
        try:
            session.run(grant)
        except SqlError as error:
            skipped.append(f"membership of {member['member']} in {member['role']}: {error}")
    return skipped


def _merged(memberships: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One membership for each role and member: from PostgreSQL 16 on every grantor has one, and all of them count."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for each in memberships:
        one = found.setdefault((each["role"], each["member"]), dict(each))
        for option in ("admin", "inherit", "set"):
            if each.get(option):
                one[option] = True
    return list(found.values())


def restore_database(session: Session, source: dict[str, Any]) -> list[str]:
    """Give the session's database the owner, grants and settings of the source's. Returns what could not be done.

    source: as catalog.database gave it. Roles that are missing keep what is theirs from being restored.
    """
    name = quote(session.target.dbname)
    skipped: list[str] = []

    def attempt(what: str, *statements: str) -> None:
        try:
            for statement in statements:
                session.run(statement)
        except SqlError as error:
            skipped.append(f"{what} of the database: {error}")

    if source.get("acl"):  # none: PostgreSQL's defaults
        try:
            grants = session.run(
                "SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,"
                " privilege_type, is_grantable FROM aclexplode(CAST(:acl AS aclitem[]))"
                " WHERE pg_get_userbyid(grantee) <> :owner",
                acl=source["acl"],
                owner=str(source["owner"]),
            )
        except SqlError as error:
            skipped.append(f"grants of the database: {error}")
        else:
            attempt("grants", f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
            for grantee, privilege, grantable in grants:
                option = " WITH GRANT OPTION" if grantable else ""
                attempt(f"{privilege} to {grantee}", f"GRANT {privilege} ON DATABASE {name} TO {grantee}{option}")
    for entry in json.loads(source.get("settings") or "null") or []:
        what = f"ROLE {quote(entry['role'])} IN DATABASE {name}" if entry["role"] else f"DATABASE {name}"
        told = f"role {entry['role']} in the database" if entry["role"] else "the database"
        skipped += _configure(session, what, told, entry["settings"])
    if source.get("owner"):
        attempt("owner", f"ALTER DATABASE {name} OWNER TO {quote(str(source['owner']))}")
    return skipped


def _configure(session: Session, what: str, told: str, settings: list[str] | None) -> list[str]:
    """Run ALTER `what` SET for every `name=value`; return those that were refused."""
    skipped = []
    for setting in settings or []:
        name, _, value = setting.partition("=")
        try:
            if name in _LISTS:
                session.run("BEGIN")
                session.run("SELECT pg_catalog.set_config(:name, :value, true)", name=name, value=value)
                session.run(f"ALTER {what} SET {quote(name)} FROM CURRENT")
                session.run("COMMIT")
            else:
                session.run(f"ALTER {what} SET {quote(*name.split('.'))} TO {_literal(value)}")
        except SqlError as error:
            if name in _LISTS:
                session.run("ROLLBACK")
            skipped.append(f"setting {name} of {told}: {error}")
    return skipped
