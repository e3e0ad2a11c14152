"""How long a dump will take, where it should run, and when to give up in time. Pure. Bytes and seconds throughout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from aurora_backup.manifest import Manifest

Engine = Literal["lambda", "codebuild"]
# Measured: zstd:1 dumps 100-250 MB of heap a second with one x86 core for pg_dump; a busy Aurora gives far less.
ASSUMED_RATE = 40_000_000
ASSUMED_RATIO = 0.5  # archive bytes per byte of heap; measured 0.3-0.5, close to 1 for incompressible bytea
LAMBDA_SECONDS = 840  # 15 minutes, less start-up, locks and the manifest
_SLACK = 1.5
_MEASURE_SECONDS = 60
_RESERVE_SECONDS = 45  # to stop pg_dump, abort the uploads and answer


@dataclass(frozen=True)
class Estimate:
    """seconds: of the whole dump. archive_bytes: of all archives. basis: what the numbers rest on, for the record."""

    seconds: float
    archive_bytes: int
    basis: str


def estimate(table_bytes: int, previous: Manifest | None = None) -> Estimate:
    """Estimate a function's dump of `table_bytes` of heap and TOAST: from the last set of the database, or constants.

    The long-running engine has more processors: its time is no promise for a function, which gets no less than the
    assumed rate gives.
    """
    last = sum(table.bytes for table in previous.facts.tables) if previous else 0
    if previous and last > 0:
        took = max(archive.seconds for archive in previous.archives)
        seconds, basis = took * table_bytes / last, f"the set of {previous.started}"
        if (previous.source.get("engine") or {}).get("name") == "codebuild":
            seconds, basis = max(seconds, table_bytes / ASSUMED_RATE), f"{basis}, made by the long-running engine"
        return Estimate(seconds, int(previous.size * table_bytes / last), basis)
    return Estimate(table_bytes / ASSUMED_RATE, int(table_bytes * ASSUMED_RATIO), "no earlier set: assumed rates")


def choose_engine(seconds: float) -> Engine:
    """Choose Lambda only when the estimate fits with half as much again to spare."""
    return "lambda" if seconds * _SLACK <= LAMBDA_SECONDS else "codebuild"


def must_hand_over(*, elapsed: float, remaining: float, sent: int, expected: int) -> str | None:
    """Say why a Lambda should hand its dump over now, or None to carry on.

    elapsed, remaining: seconds since the start and until the deadline. sent, expected: archive bytes. The measured
    rate counts after a minute; whatever was measured, the last 45 seconds are kept for stopping cleanly.
    """
    if remaining < _RESERVE_SECONDS:
        return f"{remaining:.0f} s are left and the dump is not finished"
    if elapsed < _MEASURE_SECONDS or sent >= expected:
        return None
    needed = (expected - sent) * elapsed / max(sent, 1)
    if needed > remaining - _RESERVE_SECONDS:
        return (
            f"{sent} of about {expected} bytes in {elapsed:.0f} s would need {needed:.0f} s more, "
            f"and {remaining:.0f} s are left"
        )
    return None
