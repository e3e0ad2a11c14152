"""What a database is known to hold at one moment, and how two such moments bound what lies between them. Pure.

A baseline and the facts of a restored copy are the same document (`Facts`): one was read from the source, the other
from the copy. It holds counts, the heartbeat and the catalogue, never a row.

A physical recovery point lies between two baselines, so its counts are bounded by theirs. Rows inserted and deleted
meanwhile are known from the server's own counters, which makes the bound hold for any table however it grows or
shrinks; where the counters do not help (statistics were reset), a value outside the bound is doubtful, not wrong.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from aurora_backup.errors import BackupError
from aurora_backup.schedule import require_utc

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SCHEMA = 1
RECENCY = "the recency query"  # in `Database.unreadable`
NO_ANSWER = "it answered NULL"


class FactsError(BackupError):
    """A facts document is malformed or of a version that this code does not know."""


class BaselineIncomplete(BackupError):  # noqa: N818  names say what happened, as in errors.py
    """A baseline was stored, and does not hold every database; the message names each with its cause."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table. rows: None when it could not be counted. exact: False for the planner's estimate.

    inserted, deleted: the server's counters since its statistics were last reset. file: the table's file number, which
    changes when it is truncated or rewritten.
    """

    rows: int | None
    exact: bool = True
    inserted: int = 0
    deleted: int = 0
    file: int = 0


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """The heartbeat table in four aggregates; last_at is the server's time of the last beat."""

    first: int
    last: int
    count: int
    last_at: datetime

    @property
    def missing(self) -> int:
        """How many beats are missing between the first and the last."""
        return self.last - self.first + 1 - self.count


@dataclass(frozen=True, kw_only=True)
class Integrity:
    """What amcheck and the caller's own checks found in a restored copy.

    checked: how many indexes and tables were read whole. corrupt: name and what amcheck said. unchecked: name and why.
    checks: name -> True, False, or the text of why it could not run.
    """

    checked: int = 0
    corrupt: dict[str, str] = field(default_factory=dict)
    unchecked: dict[str, str] = field(default_factory=dict)
    checks: dict[str, bool | str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Database:
    """One database. The lists are sorted sentences about the catalogue, made to be compared and to be read.

    recency: what the caller's recency query answered. integrity: only for a restored copy.
    """

    tables: dict[str, Table] = field(default_factory=dict)
    constraints: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()
    sequences: tuple[str, ...] = ()
    permissions: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()
    heartbeat: Heartbeat | None = None
    recency: datetime | None = None
    integrity: Integrity | None = None
    unreadable: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One cluster between two moments, aware UTC: when reading began and when it ended.

    server: server_version_num. roles: attributes and memberships. failed: databases that could not be read, and why.
    """

    taken: datetime
    finished: datetime
    server: int
    roles: tuple[str, ...] = ()
    databases: dict[str, Database] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("taken", "finished"):
            object.__setattr__(self, name, require_utc(getattr(self, name), name))

    def to_json(self) -> str:
        """One line of JSON; the same facts give the same text."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, sort_keys=True, separators=(",", ":"), default=_text)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read `to_json`'s text. Raises FactsError for another schema or a malformed document."""
        try:
            data = json.loads(text)
            if data.pop("schema") != SCHEMA:
                raise FactsError(f"facts.schema must be {SCHEMA}, got {text[:80]!r}")
            databases = {name: _database(value) for name, value in data.pop("databases").items()}
            taken, finished = (datetime.fromisoformat(data.pop(name)) for name in ("taken", "finished"))
            return cls(taken=taken, finished=finished, roles=tuple(data.pop("roles")), databases=databases, **data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FactsError(f"facts must be a document of schema {SCHEMA}: {type(error).__name__}: {error}") from None


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not part of a facts document")


def _database(data: dict[str, Any]) -> Database:
    lists: dict[str, Any] = {
        name: tuple(data.pop(name))
        for name in ("constraints", "indexes", "extensions", "sequences", "permissions", "invalid")
    }
    heartbeat, recency, integrity = data.pop("heartbeat"), data.pop("recency"), data.pop("integrity")
    return Database(
        tables={name: Table(**table) for name, table in data.pop("tables").items()},
        heartbeat=heartbeat and Heartbeat(**{**heartbeat, "last_at": datetime.fromisoformat(heartbeat["last_at"])}),
        recency=recency and datetime.fromisoformat(recency),
        integrity=integrity and Integrity(**integrity),
        **lists,
        **data,
    )


@dataclass(frozen=True)
class Bound:
    """How many rows a table may have. doubtful: a count outside may be right all the same, and why."""

    low: int
    high: int
    doubtful: str = ""


def bound(before: Table | None, after: Table | None, tolerance: float = 0.0) -> Bound | None:
    """Bound a table's rows at a moment between two baselines; None when neither counted it.

    tolerance: widens the bound by this share of its larger end, 0.05 for five per cent.
    """
    ends = [table for table in (before, after) if table and table.rows is not None]
    rows = [table.rows or 0 for table in ends]
    if not rows:
        return None
    low, high, doubtful = min(rows), max(rows), ""
    if before is None or after is None or len(ends) == 1:
        doubtful = "only one baseline knows the table"
    elif after.inserted < before.inserted or after.deleted < before.deleted:
        doubtful = "the server's statistics were reset between the baselines"
    else:
        low -= after.deleted - before.deleted
        high += after.inserted - before.inserted
        if before.file != after.file:
            low = 0  # truncated or rewritten meanwhile: the counters do not see a truncation
    if not all(table.exact for table in ends):
        doubtful = doubtful or "a baseline holds the planner's estimate, not a count"
    slack = int(high * tolerance)
    return Bound(max(0, low - slack), high + slack, doubtful)


def tolerance_of(name: str, tolerances: Mapping[str, float]) -> float:
    """Find the tolerance of "database.schema.table", "schema.table", or "*" for all others; 0 by default."""
    short = name.partition(".")[2]
    return next((tolerances[key] for key in (name, short, "*") if key in tolerances), 0.0)


def around(readings: Iterable[tuple[datetime, datetime, str]], point: datetime) -> tuple[str | None, str | None]:
    """Choose from (taken, finished, key) the last reading that ended by the recovery point, and the first after it."""
    ordered = sorted(readings)
    before = [key for _, finished, key in ordered if finished <= point]
    after = [key for taken, _, key in ordered if taken > point]
    return (before[-1] if before else None, after[0] if after else None)
