"""The dump engine: one exported snapshot, one or more pg_dump archives streamed to S3, the manifest last.

Archive 0 is everything except the rows of the large tables; each large table's rows are an archive of their own, so
that they are dumped side by side and can be restored alone. No object of the set exists before every pg_dump has
exited with 0, and no manifest before every archive does.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import threading
import time
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from aurora_backup import catalog
from aurora_backup.errors import DumpFailed, ObjectExists, QueryFailed, RecordError, SettingsError
from aurora_backup.ledger import CreationRecord, Ledger
from aurora_backup.manifest import NAME, NOT_COVERED, Archive, Facts, Manifest, SequenceFacts
from aurora_backup.postgres import Session, client_environment, client_version, quote
from aurora_backup.programs import Program
from aurora_backup.s3 import NoSuchObject
from aurora_backup.settings import DEFAULT_COMPRESSION
from aurora_backup.upload import MIB, Upload, Uploaded, fit_workers, plan_parts

if TYPE_CHECKING:
    from collections.abc import Callable

    from aurora_backup.catalog import Table
    from aurora_backup.postgres import Target
    from aurora_backup.s3 import Bucket

_log = logging.getLogger(__name__)
MEMORY_BUDGET = 256 * MIB
_BUDGET_SHARE = 4  # of the memory: the rest is for pg_dump, one for each archive, and for ourselves
UPLOAD_THREADS = 3  # for one archive; archives side by side produce less each, and take one fewer
_COMPLETIONS = 8  # at once
_PING_SECONDS = 5.0
_ZSTD_CLIENT = 16
_EXCLUDES_EXTENSIONS = 17


@dataclass(frozen=True, kw_only=True)
class DumpOptions:
    """How to dump. memory_budget: bytes of all upload buffers together. jobs: archives made side by side.

    split_bytes: a table at least this large gets an archive of its own when jobs > 1. count_seconds: how long the row
    counts may take altogether, None for no limit. lock_seconds: how long to wait for a table's lock. digest: also
    digest every table's contents. sha256: also hash every archive.
    """

    compression: str = DEFAULT_COMPRESSION
    jobs: int = 1
    memory_budget: int = MEMORY_BUDGET
    split_bytes: int = 64 * MIB
    count_seconds: float | None = 300
    lock_seconds: int = 60
    digest: bool = False
    sha256: bool = False


@dataclass(frozen=True, kw_only=True)
class Request:
    """Which set to make. key: the set's key, ending in "/". source: what else the manifest should say of the source.

    check: called about once a second with the bytes sent so far; raises HandOver to stop. expires: when the set may go.
    """

    key: str
    owner: str
    execution: str
    started: datetime
    source: dict[str, Any] = field(default_factory=dict)
    expires: datetime | None = None
    check: Callable[[int], None] = lambda _sent: None


@dataclass(frozen=True)
class Outcome:
    """What became of a request. manifest: None when another execution has claimed the set, and `reason` says which.

    That one may be making it still, or may have failed: without a manifest there is no backup.
    """

    state: Literal["done", "already-done"]
    manifest: Manifest | None
    seconds: float
    reason: str = ""


def plan_archives(tables: list[Table], jobs: int, split_bytes: int) -> list[Table]:
    """Choose the tables that get an archive of their own, largest first. Pure.

    None when there is one job, and never all for the sake of it: a set of small tables is one archive.
    """
    if jobs < 2:  # noqa: PLR2004  one job makes one archive
        return []
    return sorted((t for t in tables if t.bytes >= split_bytes), key=lambda t: (-t.bytes, t.key))


def dump_set(source: Target, bucket: Bucket, request: Request, options: DumpOptions | None = None) -> Outcome:
    """Make one set, or find that it has been made.

    Raises:
        DumpFailed: pg_dump failed or a table changed midway; no object of the set was left.
        S3Failed: S3 refused something; no parts were left.
        HandOver: raised by `request.check`.
        QueryFailed, ConnectionFailed, SettingsError: as they say.

    """
    options = options or DumpOptions()
    begun = time.monotonic()
    try:
        # Loading the SDK and asking S3 take as long as connecting, locking and exporting: side by side.
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="claim") as pool:
            claim = pool.submit(_claim, bucket, request, begun)
            manifest = _Dump(source, bucket, request, options, claim).run()
        if isinstance(manifest, Outcome):
            return manifest
        bucket.write(request.key + NAME, manifest.to_json(), once=True)
    except ObjectExists:
        done = _existing(bucket, request, begun)
        if done is None:
            raise
        return done
    return Outcome("done", manifest, time.monotonic() - begun)


def _claim(bucket: Bucket, request: Request, begun: float) -> Outcome | bool:
    """Claim the set. True: nobody has before; False: an attempt of this execution has; else what has become of it."""
    record = CreationRecord(
        kind="set",
        identifier=request.key,
        owner=request.owner,
        execution=request.execution,
        created=request.started,
        expires=request.expires,
    )
    try:
        return Ledger(bucket).claim(record) or _existing(bucket, request, begun) or False
    except RecordError as error:
        done = _existing(bucket, request, begun)
        if done is None:
            _log.info("no-op: %s", error)
            done = Outcome("already-done", None, time.monotonic() - begun, str(error))
        return done


def _existing(bucket: Bucket, request: Request, begun: float) -> Outcome | None:
    try:
        manifest = Manifest.from_json(bucket.read(request.key + NAME))
    except NoSuchObject:
        return None
    _log.info("no-op: %s was made by execution %s", request.key, manifest.execution)
    return Outcome("already-done", manifest, time.monotonic() - begun)


@dataclass(frozen=True)
class _Finished:
    """A drained upload that only needs to be completed, and what to record of it."""

    index: int
    upload: Upload
    tables: tuple[Table, ...]
    warnings: tuple[str, ...]
    begun: float


class _Dump:
    """One run. The session that exports the snapshot stays open, and holds its locks, until the archives are done."""

    def __init__(
        self,
        source: Target,
        bucket: Bucket,
        request: Request,
        options: DumpOptions,
        claim: Future[Outcome | bool],
    ) -> None:
        self._claim, self._fresh = claim, False
        self._source, self._bucket, self._request, self._options = source, bucket, request, options
        self._stop = threading.Event()
        self._sent: dict[int, Upload] = {}
        self._left_out: list[str] = []
        self._failures: list[BaseException] = []

    def run(self) -> Manifest | Outcome:
        """Return the manifest, or what has become of the set when it is not ours to make."""
        major, client = client_version("pg_dump")
        if self._options.compression.startswith("zstd") and major < _ZSTD_CLIENT:
            raise SettingsError(
                f"compression {self._options.compression} needs pg_dump {_ZSTD_CLIENT} or newer, got {client}"
            )
        with Session(self._source, application_name="aurora-backup snapshot") as session:
            if session.version // 10000 > major:
                raise SettingsError(
                    f"pg_dump {major} cannot dump a server of version {session.version // 10000}: "
                    "bring a client layer of that version (docs/logical-backup.md, Client binaries)"
                )
            snapshot = self._open(session)
            self._left_out = _left_out(session, major)
            before = catalog.sequences(session)
            split = plan_archives(snapshot.tables, self._options.jobs, self._options.split_bytes)
            claimed = self._claim.result()  # nothing is written before
            if isinstance(claimed, Outcome):
                return claimed
            self._fresh = claimed
            finished, facts, described = self._archives(session, snapshot, split, before)
            try:
                with ThreadPoolExecutor(max_workers=_COMPLETIONS, thread_name_prefix="complete") as pool:
                    archives = tuple(pool.map(self._complete, finished))
            finally:
                for one in finished:
                    one.upload.abort()
            after = {s.key: s for s in self._sequences_after(session)}
            facts = replace(facts, sequences=tuple(_span(s, after.get(s.key)) for s in before))
            return Manifest(
                set=self._request.key,
                owner=self._request.owner,
                execution=self._request.execution,
                started=self._request.started.astimezone(UTC).isoformat(),
                finished=datetime.now(UTC).isoformat(),
                snapshot_time=snapshot.time,
                snapshot_lsn=snapshot.lsn,
                compression=self._options.compression,
                server_version=snapshot.server,
                client_version=client,
                source={**self._request.source, "database": described.database},
                archives=archives,
                facts=facts,
                roles=described.roles,
                not_covered=(*NOT_COVERED, *snapshot.not_covered),
            )

    def _open(self, session: Session) -> _Snapshot:
        """Lock every table, then take and export the snapshot."""
        recovery = bool(session.value("SELECT pg_catalog.pg_is_in_recovery()"))
        known = catalog.tables(session, recovery=recovery, sizes=False)
        session.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        # LOCK takes no snapshot, so that the snapshot below is later than the locks.
        catalog.lock(session, known, self._options.lock_seconds)
        name = str(session.value("SELECT pg_catalog.pg_export_snapshot()"))
        moment = str(session.value("SELECT to_char(clock_timestamp(), 'YYYY-MM-DD\"T\"HH24:MI:SS.US+00:00')"))
        function = "pg_last_wal_replay_lsn" if recovery else "pg_current_wal_lsn"
        lsn: str | None = None
        with contextlib.suppress(QueryFailed), session.attempt():
            lsn = str(session.value(f"SELECT pg_catalog.{function}()::text"))
        tables = catalog.tables(session, recovery=recovery)
        locked = {table.oid for table in known}
        catalog.lock(session, [t for t in tables if t.oid not in locked], self._options.lock_seconds)
        return _Snapshot(
            name=name,
            time=moment,
            lsn=lsn,
            server=str(session.value("SELECT current_setting('server_version')")),
            tables=tables,
            not_covered=("rows of unlogged tables (the source was a standby)",) if recovery else (),
        )

    def _archives(
        self, session: Session, snapshot: _Snapshot, split: list[Table], before: tuple[SequenceFacts, ...]
    ) -> tuple[list[_Finished], Facts, _Described]:
        """Run every pg_dump, `jobs` at a time, and count meanwhile. On any failure everything is stopped first."""
        expected = [_expected(snapshot, split), *(t.bytes for t in split)]
        workers = fit_workers(self._options.jobs, expected, self._options.memory_budget)
        with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="archive") as pool:
            jobs = [pool.submit(self._archive, 0, snapshot, split, workers)]
            jobs += [pool.submit(self._archive, i, snapshot, [t], workers) for i, t in enumerate(split, start=1)]
            for job in jobs:
                job.add_done_callback(lambda job: self._note(job, session))
            try:
                counted = catalog.count(
                    session, snapshot.tables, budget=self._options.count_seconds, digest=self._options.digest
                )
                facts = catalog.assemble(session, counted, before, digest=self._options.digest)
                described = _Described(catalog.database(session), catalog.roles(session))
                self._wait(jobs, session)
                finished = [job.result() for job in jobs]
            except BaseException as error:
                # An archive that failed is the cause: it interrupted the session. One that ends from here on was
                # stopped, and is not; nor is Ctrl-C, which ends the programs too.
                cause = self._failures[0] if self._failures and isinstance(error, Exception) else error
                self._stop.set()
                for job in jobs:
                    job.cancel()
                wait(jobs)
                for job in jobs:
                    if not job.cancelled() and not job.exception():
                        job.result().upload.abort()
                if cause is error:
                    raise
                raise cause from None
        return finished, facts, described

    def _wait(self, jobs: list[Future[_Finished]], session: Session) -> None:
        """Wait for every archive, or the first to fail; notice soon when the session, and so its locks, are gone."""
        waiting: set[Future[_Finished]] = set(jobs)
        while waiting:
            ended, waiting = wait(waiting, timeout=_PING_SECONDS, return_when=FIRST_EXCEPTION)
            for job in ended:
                job.result()
            session.value("SELECT 1")

    def _note(self, job: Future[_Finished], session: Session) -> None:
        """Stop everything as soon as one archive fails, also a count that runs for minutes."""
        error = None if job.cancelled() else job.exception()
        if error is not None:
            self._failures.append(error)
            self._stop.set()
            session.interrupt()

    def _archive(self, index: int, snapshot: _Snapshot, tables: list[Table], workers: int) -> _Finished:
        """Stream one archive into an upload that is left open."""
        begun = time.monotonic()
        key = f"{self._request.key}{index:04d}.dump"
        expected = sum(t.bytes for t in tables) if index else _expected(snapshot, tables)
        plan = plan_parts(
            expected, budget=self._options.memory_budget // workers, threads=UPLOAD_THREADS - (workers > 1)
        )
        selection = (
            [arg for t in tables for arg in ("--table", t.sql)] + ["--data-only"]
            if index
            else [*self._left_out, *(arg for t in tables for arg in ("--exclude-table-data", t.sql))]
        )
        command = [
            "pg_dump",
            "--format=custom",
            f"--compress={self._options.compression}",
            f"--snapshot={snapshot.name}",
            f"--lock-wait-timeout={self._options.lock_seconds}s",
            "--no-password",
            *selection,
            f"--dbname={self._source.conninfo()}",
        ]
        upload: Upload | None = None
        try:
            with (
                client_environment(self._source, application_name="aurora-backup pg_dump") as env,
                Program(command, env, stdout=subprocess.PIPE) as program,
            ):
                # While pg_dump connects and reads the catalogue.
                upload = Upload(self._bucket, key, plan, replaces=self._leftover(key), sha256=self._options.sha256)
                self._sent[index] = upload.start()
                upload.consume(program.output(), self._check)
                while (status := program.poll(1)) is None:
                    self._check()
                if status == 0 and not upload.bytes:
                    raise DumpFailed(f"archive {index} of database {self._source.dbname}: pg_dump wrote nothing")  # noqa: TRY301  as below
                if status != 0:
                    message = f"archive {index} of database {self._source.dbname}: {program.failure()}"
                    raise DumpFailed(message)  # noqa: TRY301  the upload is aborted below
                warnings = tuple(line for line in program.messages.splitlines() if line)
            upload.drain()
        except BaseException:
            if upload is not None:
                upload.abort()
            raise
        return _Finished(index, upload, tuple(tables) if index else (), warnings, begun)

    def _complete(self, one: _Finished) -> Archive:
        done: Uploaded = one.upload.complete()
        return Archive(
            key=done.stored.key,
            version_id=done.stored.version_id,
            bytes=done.bytes,
            crc32=done.crc32,
            sha256=done.sha256,
            tables=tuple(t.key for t in one.tables),
            seconds=round(time.monotonic() - one.begun, 3),
            warnings=one.warnings,
        )

    def _leftover(self, key: str) -> str | None:
        """ETag of what a killed attempt of this same execution left under the key: the one thing it may replace."""
        if self._fresh:
            return None
        try:
            return self._bucket.head(key).etag
        except NoSuchObject:
            return None

    def _check(self) -> None:
        if self._stop.is_set():
            raise DumpFailed("stopped, because another archive of the set failed")
        self._request.check(sum(upload.bytes for upload in self._sent.values()))

    def _sequences_after(self, session: Session) -> tuple[SequenceFacts, ...]:
        """Return the sequences as they are now; a sequence dropped meanwhile leaves the earlier reading alone."""
        try:
            with session.attempt():
                return catalog.sequences(session)
        except QueryFailed:
            return ()


@dataclass(frozen=True)
class _Described:
    """What catalog.database and catalog.roles gave."""

    database: dict[str, Any]
    roles: dict[str, Any]


@dataclass(frozen=True)
class _Snapshot:
    name: str
    time: str
    lsn: str | None
    server: str
    tables: list[Table]
    not_covered: tuple[str, ...]


def _expected(snapshot: _Snapshot, split: list[Table]) -> int:
    """Bytes of the tables whose rows are in archive 0."""
    return sum(t.bytes for t in snapshot.tables) - sum(t.bytes for t in split)


def _left_out(session: Session, client_major: int) -> list[str]:
    """Options that leave out our own schemas: their grants name a grantor that nobody may become when restoring."""
    extensions = catalog.own_extensions(session)
    if extensions and client_major < _EXCLUDES_EXTENSIONS:
        return []
    schemas = [f"--exclude-schema={quote(name)}" for name in catalog.OURS]
    return [*schemas, *(f"--exclude-extension={quote(e)}" for e in extensions)]


def _span(before: SequenceFacts, after: SequenceFacts | None) -> SequenceFacts:
    if after is None:
        return before
    return replace(before, last_value_after=after.last_value, is_called_after=after.is_called)


def available_cpus() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0))


def memory_budget(memory: int | None = None) -> int:
    """Bytes for all upload buffers together: a quarter of `memory` bytes (default: this machine's), at least 256 MiB.

    A function's machine may be larger than the function: Lambda says how much is its own.
    """
    if memory is None:
        function = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")  # MiB
        memory = int(function) * MIB if function else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(MEMORY_BUDGET, memory // _BUDGET_SHARE)
