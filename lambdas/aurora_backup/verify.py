"""Verify a set in tiers, each named in the evidence.

- `s3-checksum`: S3's own size and full-object CRC32 of every archive are those of the manifest.
- `full-decode`: every byte is read back and its CRC32 recomputed, pg_restore decodes every block (streamed, never on
  disk), and the rows of each table in the decoded data are those that the manifest counted.
- `trial-restore`: the set is restored into a throw-away PostgreSQL started beside this process, and compared.

A tier that cannot run here is reported with `ok` None and the reason. The manifest is never altered: the outcome goes
into `verification.json` beside it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import subprocess
import threading
import time
import zlib
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aurora_backup.errors import ArchiveDamaged, BackupError, cause
from aurora_backup.manifest import VERIFICATION_NAME, Archive, Manifest, crc32_text
from aurora_backup.programs import Program
from aurora_backup.sets import read_manifest
from aurora_backup.stopping import held

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from aurora_backup.s3 import Bucket

_log = logging.getLogger(__name__)
SCHEMA = 1
CHECKSUM, DECODE, TRIAL = "s3-checksum", "full-decode", "trial-restore"
QUICK = (CHECKSUM, DECODE)
TIERS = (*QUICK, TRIAL)


@dataclass(frozen=True)
class Tier:
    """What one tier found. ok: None when it could not run here. bytes: read from S3."""

    name: str
    ok: bool | None
    detail: str
    seconds: float
    bytes: int = 0


@dataclass(frozen=True)
class Verification:
    """All tiers that were asked for, in order."""

    set: str
    tiers: tuple[Tier, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found wrong, and at least one tier ran."""
        return all(t.ok is not False for t in self.tiers) and any(t.ok for t in self.tiers)


def verify_set(bucket: Bucket, key: str, *, tiers: Iterable[str] = QUICK, record: bool = True) -> Verification:
    """Run the tiers on the set `key`, in order, and write the verification record.

    A set without a readable manifest fails its first tier. `record` False leaves the bucket as it is.
    """
    found: list[Tier] = []
    manifest: Manifest | None = None
    for name in tiers:
        begun = time.monotonic()
        read = 0
        try:
            manifest = manifest or read_manifest(bucket, key)
            ok, detail, read = _TIERS[name](bucket, manifest)
        except BackupError as error:
            ok, detail = False, cause(error)
        found.append(Tier(name, ok, detail, round(time.monotonic() - begun, 3), read))
        _log.info("%s of %s: %s (%s)", name, key, {True: "ok", False: "FAILED", None: "not run"}[ok], detail)
    result = Verification(key, tuple(found))
    if record and manifest is not None:
        _record(bucket, result)
    return result


def recorded(bucket: Bucket, key: str, tiers: Iterable[str]) -> Verification | None:
    """Return what the record says of these tiers, when all of them have passed; otherwise None."""
    try:
        document = bucket.read_json(key.rstrip("/") + "/" + VERIFICATION_NAME)
        if document["schema"] != SCHEMA or document["set"] != key:
            return None
        names = {f.name for f in fields(Tier)}
        found = tuple(Tier(**{n: v for n, v in document["tiers"][tier].items() if n in names}) for tier in tiers)
    except (ValueError, KeyError, TypeError):
        return None
    return Verification(key, found) if all(tier.ok is True for tier in found) else None


def _record(bucket: Bucket, result: Verification) -> None:
    """Keep the latest outcome of each tier: `{"schema": 1, "set", "tiers": {name: {..., "at"}}}`."""
    path = result.set.rstrip("/") + "/" + VERIFICATION_NAME
    try:
        before = bucket.read_json(path)
    except ValueError:
        before = None
    known: dict[str, Any] = before["tiers"] if isinstance(before, dict) and before.get("schema") == SCHEMA else {}
    now = datetime.now(UTC).isoformat()
    for tier in result.tiers:
        known[tier.name] = {**asdict(tier), "at": now}
    document = {"schema": SCHEMA, "set": result.set, "tiers": known}
    bucket.write(path, json.dumps(document, sort_keys=True, indent=1), once=False)


def _checksums(bucket: Bucket, manifest: Manifest) -> tuple[bool | None, str, int]:
    for archive in manifest.archives:
        stored = bucket.head(archive.key, archive.version_id)
        if stored.bytes != archive.bytes:
            raise ArchiveDamaged(f"{archive.key} must have {archive.bytes} bytes, and S3 holds {stored.bytes}")
        if stored.crc32 != archive.crc32:
            raise ArchiveDamaged(f"{archive.key} must have the CRC32 {archive.crc32}, and S3 holds {stored.crc32}")
    return True, f"{len(manifest.archives)} archives, {manifest.size} bytes", 0


def _decode(bucket: Bucket, manifest: Manifest) -> tuple[bool | None, str, int]:
    rows: dict[tuple[str, str], int] = {}
    for archive in manifest.archives:
        for key, number in decode(bucket, archive).items():
            rows[key] = rows.get(key, 0) + number
    counted = [t for t in manifest.facts.tables if t.rows is not None and not t.estimated]
    for table in counted:
        if rows.get(table.key, 0) != table.rows:
            held = rows.get(table.key, 0)
            raise ArchiveDamaged(
                f"table {'.'.join(table.key)} must have {table.rows} rows, and the archive holds {held}"
            )
    told = f"{sum(rows.values())} rows decoded, {len(counted)} tables compared with their counts"
    if manifest.facts.estimated:
        told += f"; {manifest.facts.estimated} tables were not counted when dumped, and not compared"
    return True, told, manifest.size


def decode(bucket: Bucket, archive: Archive) -> dict[tuple[str, str], int]:
    """Read one archive whole, check its CRC32, decode all of it, and count the rows of each table in it.

    Raises:
        ArchiveDamaged: the bytes are not those that were written, or pg_restore cannot decode them.

    """
    command = ["pg_restore", "--format=custom", "--data-only", "--file=-"]
    crc = 0

    def checked() -> Iterator[bytes]:
        nonlocal crc
        for chunk in bucket.stream(archive.key, archive.version_id):
            crc = zlib.crc32(chunk, crc)
            yield chunk

    with Program(command, None, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        with feeding(program, checked()) as feeder:
            counter = _RowCounter()
            output = program.output()
            while data := os.read(output, 1 << 20):
                counter.feed(data)
            status = program.wait()
        feeder.reraise()
        if crc32_text(crc) != archive.crc32:
            raise ArchiveDamaged(
                f"{archive.key} must have the CRC32 {archive.crc32}, and its bytes give {crc32_text(crc)}"
            )
        if status != 0:
            raise ArchiveDamaged(f"{archive.key} does not decode: {program.failure()}")
        return counter.finish(archive.key)


class Feeder(threading.Thread):
    """Writes chunks to a program's standard input; a program that stops reading early is no error."""

    def __init__(self, program: Program, chunks: Iterable[bytes], *, whole: bool = True) -> None:
        super().__init__(daemon=True)
        self._stdin, self._chunks, self._whole = program.process.stdin, chunks, whole
        self._given_up = False
        self._error: BaseException | None = None
        self.bytes = 0

    def run(self) -> None:
        """Copy until the chunks or the program's patience end. With `whole`, read on to the last chunk regardless."""
        stdin = self._stdin
        listening = stdin is not None
        try:
            for chunk in self._chunks:
                self.bytes += len(chunk)
                if listening and stdin is not None:
                    try:
                        stdin.write(chunk)
                    except (BrokenPipeError, ValueError):
                        listening = False
                if self._given_up or not (listening or self._whole):
                    break
        except BaseException as error:  # noqa: BLE001  raised again by `reraise`
            self._error = error
        finally:
            if stdin is not None:
                with contextlib.suppress(OSError, ValueError):
                    stdin.close()

    def give_up(self) -> None:
        """Read no further: nobody wants the rest."""
        self._given_up = True

    def reraise(self) -> None:
        """Raise what went wrong while reading the chunks."""
        if self._error is not None:
            raise self._error


@contextlib.contextmanager
def feeding(program: Program, chunks: Iterable[bytes], *, whole: bool = True) -> Iterator[Feeder]:
    """Feed a program in the background; on leaving, wait for the feeder (kill the program first on an error)."""
    feeder = Feeder(program, chunks, whole=whole)
    with held():
        feeder.start()
    try:
        yield feeder
    except BaseException:
        program.kill()
        feeder.give_up()
        raise
    finally:
        feeder.join()


_NAMES = rb'(?:"(?:[^"]|"")*"|[^\s".(]+)'
_COPY = re.compile(rb"COPY (" + _NAMES + rb"\." + _NAMES + rb') (?:\((?:"(?:[^"]|"")*"|[^")])*\) )? ?FROM stdin;\n')
_NAME = re.compile(rb'"((?:[^"]|"")*)"|([^.\s"]+)')
_END = b"\\.\n"


class _RowCounter:
    r"""Counts the rows of every COPY block in the text that `pg_restore --data-only` writes.

    COPY escapes line breaks and backslashes, so that a line that is only `\\.` ends a block and every other line break
    ends a row. Outside blocks, only a line that begins with `COPY ` and ends with `FROM stdin;` begins one.
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], int] = {}
        self._table: tuple[str, str] | None = None
        self._rest = b"\n"

    def feed(self, data: bytes) -> None:
        """Take the next piece of output."""
        text = self._rest + data
        position = 0
        while True:
            if self._table is None:
                start = text.find(b"\nCOPY ", position)
                if start < 0:
                    position = max(position, len(text) - 5)
                    break
                found = _COPY.match(text, start + 1)
                if not found:
                    if len(text) - start > 1 << 20:  # no COPY line is a mebibyte long
                        position = start + 1
                        continue
                    position = start
                    break
                self._table = _table_name(found[1])
                self._rows.setdefault(self._table, 0)
                position = found.end() - 1  # keep the line break: `\.` may follow at once
            else:
                end = text.find(b"\n" + _END, position)
                stop = end if end >= 0 else max(position, len(text) - 3)
                self._rows[self._table] += text.count(b"\n", position + 1, stop + 1)
                position = stop
                if end < 0:
                    break
                self._table = None
                position = end + len(_END)
        self._rest = text[position:]

    def finish(self, key: str) -> dict[tuple[str, str], int]:
        """Return the rows by table.

        Raises:
            ArchiveDamaged: the output ended inside a table.

        """
        if self._table is not None:
            raise ArchiveDamaged(f"{key} ends inside the rows of {'.'.join(self._table)}")
        return self._rows


def _table_name(quoted: bytes) -> tuple[str, str]:
    names = [(m[1].replace(b'""', b'"') if m[1] is not None else m[2]).decode() for m in _NAME.finditer(quoted)]
    return names[0], names[1]


def _trial(bucket: Bucket, manifest: Manifest) -> tuple[bool | None, str, int]:
    from aurora_backup.trial import trial_restore

    return trial_restore(bucket, manifest)


_TIERS: dict[str, Callable[[Bucket, Manifest], tuple[bool | None, str, int]]] = {
    CHECKSUM: _checksums,
    DECODE: _decode,
    TRIAL: _trial,
}
