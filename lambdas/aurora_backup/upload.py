"""A stream into S3: parts are read ahead while others are on their way, in a fixed number of preallocated buffers.

The object appears only when `complete` is called; leaving the `with` block in any other way aborts the upload.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import logging
import os
import queue
import select
import threading
import time
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Self

from aurora_backup.errors import BackupError, S3Failed, SettingsError
from aurora_backup.manifest import crc32_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from aurora_backup.s3 import Bucket, Stored

MIB = 1 << 20
MAX_PARTS = 10_000
MAX_PART = 5 * 1024 * MIB
MAX_OBJECT = 5 * 1024 * 1024 * MIB
PIPE_BYTES = MIB
_FLAT_PARTS = 9_500  # parts of the base size; the rest grow, in case an archive is far larger than expected
_FINE_PARTS = 400  # the first ones are small: the shorter the last part of an archive, the sooner it is complete
_FINE = 8 * MIB
_BASE = 24 * MIB  # 9,100 of them hold 229 GB: enough for a 150 GB database whose archive is 1.5 times its size
_SMALL = 8 * 1024 * MIB  # what is expected to be smaller is cut finer throughout, and takes less memory
_SMALL_BASE = 8 * MIB  # 9,500 of them hold 79 GB, and the last 500 grow, should the expectation be wrong
_GROWTH = 1.5
_FEWEST = 2  # one part is filled while one is sent
CHECK_SECONDS = 1.0
_M_MMAP_THRESHOLD = -3  # <malloc.h>
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PartPlan:
    """How a stream is cut. base: bytes of most parts. buffers: parts held in memory at once.

    The first 400 parts have at most 8 MiB, though their buffers begin at `base`, so that memory is spoken for at once.
    budget: the most bytes that all buffers together may take. Parts after the first 9,500 double every hundred as far
    as the budget allows, in no fewer than two buffers.
    """

    base: int
    buffers: int
    budget: int

    def size(self, number: int) -> int:
        """Bytes of part `number`, counted from 1."""
        if number <= _FINE_PARTS:
            return min(self.base, _FINE)
        if number <= _FLAT_PARTS:
            return self.base
        doublings = 1 + (number - _FLAT_PARTS - 1) // 100
        return min(self.base << doublings, max(self.base, self.budget // 2), MAX_PART)

    def buffers_for(self, number: int) -> int:
        """How many buffers of this part's size the budget allows, up to the plan's own number."""
        return max(1, min(self.buffers, self.budget // self.size(number)))

    @property
    def capacity(self) -> int:
        """The largest object, in bytes, that the plan can hold."""
        return min(sum(self.size(n) for n in range(1, MAX_PARTS + 1)), MAX_OBJECT)


def plan_parts(expected: int, *, budget: int, threads: int) -> PartPlan:
    """Choose the part size for an archive of tables of `expected` bytes, within `budget` bytes of memory.

    The size is constant up to 8 GiB, and from there to 150 GB, so memory is too. Beyond, it leaves room for an archive
    of 1.5 times its tables; where the budget does not, for one of their size, which a compressed one does not reach.

    Raises:
        SettingsError: the budget is too small for two parts of the size that 10,000 parts demand.

    """
    wanted = _part_bytes(expected, _GROWTH)
    base = max(_part_bytes(expected, 1), min(wanted, budget // _FEWEST // MIB * MIB))
    buffers = min(threads + 1, budget // base)
    if buffers < _FEWEST:
        raise SettingsError(
            f"memory budget must be at least {_FEWEST * base // MIB} MiB for a database of {expected} bytes, "
            f"got {budget // MIB} MiB"
        )
    return PartPlan(base, buffers, budget)


def fit_workers(jobs: int, expected: Sequence[int], budget: int) -> int:
    """How many archives to make side by side: at most `jobs`, and so few that each has room for its parts. Pure.

    expected: bytes of the tables of each archive. budget: bytes of memory of all of them together.
    """
    each = _FEWEST * _part_bytes(max(expected, default=0), _GROWTH)
    return max(1, min(jobs, len(expected), budget // each))


def _part_bytes(expected: int, growth: float) -> int:
    usual = _FLAT_PARTS - _FINE_PARTS
    base = max(_SMALL_BASE if expected < _SMALL else _BASE, -(-int(expected * growth) // usual // MIB) * MIB)
    return min(base, -(-MAX_OBJECT // usual // MIB) * MIB)


@dataclass(frozen=True)
class Uploaded:
    """A finished object. crc32: base64. sha256: hex, or None when it was not asked for."""

    stored: Stored
    bytes: int
    crc32: str
    sha256: str | None
    parts: int


class Upload:
    """One multipart upload. `consume` reads a pipe to its end; `complete` makes the object; otherwise it is aborted."""

    def __init__(
        self, bucket: Bucket, key: str, plan: PartPlan, *, replaces: str | None = None, sha256: bool = False
    ) -> None:
        self._bucket, self._key, self._plan, self._replaces = bucket, key, plan, replaces
        self._free: queue.Queue[bytearray | None] = queue.Queue()
        self._work: queue.Queue[tuple[int, bytearray, str] | None] = queue.Queue()
        self._etags: dict[int, str] = {}
        self._crcs: dict[int, str] = {}
        self._failure: BaseException | None = None
        self._threads: list[threading.Thread] = []
        self._allotted = plan.buffers
        self._crc = 0
        self._sha = hashlib.sha256() if sha256 else None
        self._upload_id: str | None = None
        self._done = False
        self.bytes = 0

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def start(self) -> Self:
        """Begin the upload; `abort` or `complete` must follow."""
        self._upload_id = self._bucket.begin(self._key)
        _free_at_once()
        # All of them, written to, at once: what a dump needs does not depend on how far it has come.
        for _ in range(self._plan.buffers):
            self._free.put(bytearray(b"\0") * self._plan.base)
        for number in range(max(1, self._plan.buffers - 1)):
            thread = threading.Thread(target=self._send, name=f"part-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def abort(self) -> None:
        """Stop and leave nothing behind. After `complete`, or a second time, this does nothing."""
        if self._done or self._upload_id is None:
            return
        # Parts that arrive after an abort would stay for ever: first let those on their way finish.
        self._failure = self._failure or S3Failed("aborted")
        self._stop()
        upload_id, self._upload_id = self._upload_id, None
        try:
            self._bucket.abort(self._key, upload_id)
        except BackupError as problem:  # the bucket's AbortIncompleteMultipartUpload rule is the second net
            _log.warning("the aborted upload of %s may have left parts: %s", self._key, problem)

    def consume(self, descriptor: int, check: Callable[[], None] = lambda: None) -> None:
        """Read a pipe to its end and send it in parts. `check` is called about once a second and may raise to stop.

        Raises:
            S3Failed: S3 refused a part.

        """
        with contextlib.suppress(OSError):  # the default of 64 KiB costs a context switch for each of 16 reads
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        number, ended, checked = 0, False, time.monotonic()
        while not ended:
            number += 1
            if number > MAX_PARTS:
                raise S3Failed(f"{self._key} needs more than {MAX_PARTS} parts of up to {self._plan.size(number)}")
            buffer = self._buffer(number, check)
            view, filled, wanted = memoryview(buffer), 0, self._plan.size(number)
            while filled < wanted:
                now = time.monotonic()
                if now - checked >= CHECK_SECONDS:
                    checked = now
                    self._raise_failure()
                    check()
                if not poll.poll(1000):
                    continue
                got = os.readv(descriptor, [view[filled:wanted]])
                if got == 0:
                    ended = True
                    break
                filled += got
            view.release()
            if filled or number == 1:
                del buffer[filled:]  # the last part: cut in place, not copied
                # Summed once, as soon as it is here: S3 refuses what changes later, in the part or in the whole.
                crc = zlib.crc32(buffer)
                self._crc = join_crc32(self._crc, crc, filled)
                if self._sha:
                    self._sha.update(buffer)
                self.bytes += filled
                self._work.put((number, buffer, crc32_text(crc)))

    def drain(self) -> None:
        """Wait until every part has arrived, and give the buffers back.

        Raises:
            S3Failed: S3 refused a part.

        """
        self._stop()
        self._free = queue.Queue()
        self._raise_failure()

    def complete(self) -> Uploaded:
        """Wait for the last parts and make the object.

        Raises:
            S3Failed: S3 refused a part or the whole.
            ObjectExists: the key is taken.

        """
        self.drain()
        parts = [{"PartNumber": n, "ETag": self._etags[n], "ChecksumCRC32": self._crcs[n]} for n in sorted(self._etags)]
        crc = crc32_text(self._crc)
        stored = self._bucket.finish(
            self._key, self._upload_id or "", parts, size=self.bytes, crc32=crc, replaces=self._replaces
        )
        self._done = True
        return Uploaded(stored, self.bytes, crc, self._sha.hexdigest() if self._sha else None, len(parts))

    def _buffer(self, number: int, check: Callable[[], None]) -> bytearray:
        """Take a free buffer of this part's size; while the number of them shrinks, retire those that come back."""
        wanted, allowed = self._plan.size(number), self._plan.buffers_for(number)
        while True:
            self._raise_failure()
            try:
                buffer = self._free.get(timeout=1)
            except queue.Empty:
                check()
                continue
            if buffer is None:
                continue
            if self._allotted > allowed:
                self._allotted -= 1
            elif len(buffer) >= wanted:
                return buffer
            else:
                del buffer
                return bytearray(wanted)

    def _send(self) -> None:
        while (item := self._work.get()) is not None:
            number, buffer, crc = item
            if self._failure is None:
                try:
                    self._etags[number] = self._bucket.part(self._key, self._upload_id or "", number, buffer, crc)
                    self._crcs[number] = crc
                except Exception as error:  # noqa: BLE001  raised again in the reading thread
                    self._failure = error
            self._free.put(buffer)
            if self._failure is not None:
                self._free.put(None)  # wake the reader

    def _stop(self) -> None:
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _raise_failure(self) -> None:
        if self._failure is None:
            return
        if isinstance(self._failure, BackupError):
            raise self._failure
        raise S3Failed(f"{self._key}: {type(self._failure).__name__}: {self._failure}") from self._failure


def join_crc32(first: int, second: int, length: int) -> int:
    """CRC32 of two pieces of data one after the other, from the CRC32 of each and the bytes of the second.

    Appending n bytes multiplies the polynomial of what came before by x to the power 8 n.
    """
    return _product(_power(8 * length), first) ^ second


_POLYNOMIAL = 0xEDB88320  # of CRC32; the highest bit is the coefficient of x to the power 0
_ONE, _X = 1 << 31, 1 << 30


def _product(a: int, b: int) -> int:
    result = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            result ^= b
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return result


@lru_cache(maxsize=32)
def _power(exponent: int) -> int:
    result, square = _ONE, _X
    while exponent:
        if exponent & 1:
            result = _product(square, result)
        square, exponent = _product(square, square), exponent >> 1
    return result


def _free_at_once() -> None:
    """Have glibc give freed buffers back to the system; left alone it learns to keep some, and memory is not flat."""
    with contextlib.suppress(OSError, AttributeError):  # another libc
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, MIB)
