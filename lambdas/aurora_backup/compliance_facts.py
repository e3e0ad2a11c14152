"""What was observed, by which call and when; and a strict way to read it. Pure.

A facts document holds one observation for each question that was put to AWS:
`{"schema": 1, "observations": {name: {"call", "at", "ok", "value" | "error"}}}`. An observation that failed holds its
error and no value. Checks read values only through a `Reader`, which raises FactMissing for anything that is absent,
failed, stale or of another type than was asked for. So a check can only pass on facts that are there, and what it read
is known afterwards: that is its evidence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from aurora_backup.schedule import require_utc

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SCHEMA = 1
FRESH = timedelta(hours=6)  # an observation further from the time of the report than this says nothing about it


class FactMissing(Exception):  # noqa: N818  says what happened: nobody can know
    """A fact is absent, malformed, stale, or could not be read. The message names it and says why."""


def observed(call: str, at: datetime, value: Any) -> dict[str, Any]:
    """Record what a call answered. call: as IAM names it, `rds:DescribeDBClusters`. value: JSON-like."""
    return {"call": call, "at": require_utc(at, "at").isoformat(), "ok": True, "value": value}


def unobserved(call: str, at: datetime, error: str) -> dict[str, Any]:
    """Record that a call failed, and how."""
    return {"call": call, "at": require_utc(at, "at").isoformat(), "ok": False, "error": error}


@dataclass(frozen=True)
class Evidence:
    """One observation that a check rests on. at: ISO 8601 UTC, or the text that was there instead."""

    name: str
    call: str
    at: str
    ok: bool


@dataclass(frozen=True)
class Node:
    """A value inside an observation, and the path to it for messages."""

    path: str
    value: Any

    def at(self, name: str) -> Node:
        """The member `name` of an object; it must be there, and may be null."""
        if not isinstance(self.value, dict):
            raise FactMissing(f"{self.path} must be an object, and is {_kind(self.value)}")
        if name not in self.value:
            raise FactMissing(f"{self.path}.{name} is missing")
        return Node(f"{self.path}.{name}", self.value[name])

    def text(self, name: str) -> str:
        """A text that is not empty."""
        node = self.at(name)
        if not isinstance(node.value, str) or not node.value:
            raise FactMissing(f"{node.path} must be a text, and is {_kind(node.value)}")
        return node.value

    def words(self, name: str) -> str:
        """A text that may be empty."""
        node = self.at(name)
        if not isinstance(node.value, str):
            raise FactMissing(f"{node.path} must be a text, and is {_kind(node.value)}")
        return node.value

    def flag(self, name: str) -> bool:
        """True or false, and nothing that only resembles them."""
        node = self.at(name)
        if not isinstance(node.value, bool):
            raise FactMissing(f"{node.path} must be true or false, and is {_kind(node.value)}")
        return node.value

    def number(self, name: str) -> int:
        """A whole number of 0 or more."""
        node = self.at(name)
        if isinstance(node.value, bool) or not isinstance(node.value, int) or node.value < 0:
            raise FactMissing(f"{node.path} must be a whole number, and is {_kind(node.value)}")
        return node.value

    def moment(self, name: str) -> datetime:
        """An ISO 8601 time with its zone."""
        node = self.at(name)
        found = _moment(node.value)
        if found is None:
            raise FactMissing(f"{node.path} must be an ISO 8601 time with a zone, and is {_kind(node.value)}")
        return found

    def is_null(self, name: str) -> bool:
        """Whether the member is there and null: AWS answered, and there is no such thing."""
        return self.at(name).value is None

    def each(self, name: str | None = None) -> list[Node]:
        """The items of a list."""
        node = self if name is None else self.at(name)
        if not isinstance(node.value, list):
            raise FactMissing(f"{node.path} must be a list, and is {_kind(node.value)}")
        return [Node(f"{node.path}[{n}]", item) for n, item in enumerate(node.value)]

    def texts(self, name: str) -> list[str]:
        """A list of texts."""
        nodes = self.each(name)
        for node in nodes:
            if not isinstance(node.value, str):
                raise FactMissing(f"{node.path} must be a text, and is {_kind(node.value)}")
        return [node.value for node in nodes]

    def members(self) -> Iterator[tuple[str, Node]]:
        """The members of an object, sorted by name."""
        if not isinstance(self.value, dict):
            raise FactMissing(f"{self.path} must be an object, and is {_kind(self.value)}")
        for name in sorted(self.value, key=str):
            yield str(name), Node(f"{self.path}.{name}", self.value[name])


@dataclass
class Reader:
    """Reads a facts document for one check, and remembers what was read. now: the time of the report."""

    facts: Mapping[str, Any]
    now: datetime
    read: dict[str, Evidence] = field(default_factory=dict)

    def observation(self, name: str) -> Node:
        """The value of an observation. Raises FactMissing: it is absent, failed, stale or malformed."""
        observations = self.facts.get("observations")
        found = observations.get(name) if isinstance(observations, dict) else None
        if not isinstance(found, dict):
            self.read[name] = Evidence(name, "", "", ok=False)
            raise FactMissing(f"{name} was not observed")
        call, at, ok = found.get("call"), found.get("at"), found.get("ok")
        self.read[name] = Evidence(name, str(call), str(at), ok is True)
        if not isinstance(call, str) or not call:
            raise FactMissing(f"{name}.call must name the call, and is {_kind(call)}")
        if ok is not True:
            raise FactMissing(f"{name} could not be read by {call}: {found.get('error', 'no reason was given')}")
        moment = _moment(at)
        if moment is None:
            raise FactMissing(f"{name}.at must be an ISO 8601 time with a zone, and is {_kind(at)}")
        if abs(moment - self.now) > FRESH:
            raise FactMissing(f"{name} was observed at {at}, more than {FRESH} from the time of this report")
        if "value" not in found:
            raise FactMissing(f"{name}.value is missing")
        return Node(name, found["value"])

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """What was read, in order."""
        return tuple(self.read.values())


def _moment(value: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return found.astimezone(UTC) if found is not None and found.utcoffset() is not None else None


def _kind(value: object) -> str:
    if value is None:
        return "null"
    return f"a {type(value).__name__}" if isinstance(value, (dict, list)) else repr(value)[:80]
