"""Creation records: what this package made, written before it was made, asked before it is deleted.

Before anything that the package may later delete is created (a restored cluster, an instance, a snapshot, a dump set),
a small JSON object is written under `ledger/` with `IfNoneMatch`, so that exactly one execution can claim a name.
Deleting needs the resource's tag *and* this record; when in doubt, a thing is not ours.

The object is `ledger/<kind>/<owner>/<identifier>.json` (each part percent-encoded), schema 1:
`{"schema": 1, "kind", "identifier", "owner", "execution", "created", "expires"}`; times are ISO 8601 UTC, `expires`
may be null. Other keys make a record malformed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote as percent

from aurora_backup.errors import ObjectExists, RecordError
from aurora_backup.s3 import NoSuchObject

if TYPE_CHECKING:
    from aurora_backup.s3 import Bucket

SCHEMA = 1
PREFIX = "ledger/"


@dataclass(frozen=True, kw_only=True)
class CreationRecord:
    """One thing that an execution is about to make. created, expires: aware UTC; expires None means never.

    kind: a plain word such as "set", "cluster", "instance", "snapshot". owner: the construct's unique id.
    """

    kind: str
    identifier: str
    owner: str
    execution: str
    created: datetime
    expires: datetime | None = None

    def __post_init__(self) -> None:
        for name in ("kind", "identifier", "owner", "execution"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise RecordError(f"{name} must be a text of at least one letter, got {value!r}")
        for name in ("created", "expires"):
            value = getattr(self, name)
            if name == "expires" and value is None:
                continue
            if not isinstance(value, datetime) or value.utcoffset() is None:
                raise RecordError(f"{name} must be a time with a time zone, got {value!r}")
            object.__setattr__(self, name, value.astimezone(UTC))
        if self.expires is not None and self.expires < self.created:
            raise RecordError(f"expires must not be before created {self.created}, got {self.expires}")

    @property
    def key(self) -> str:
        """The object's key."""
        return record_key(self.kind, self.owner, self.identifier)

    def to_json(self) -> str:
        """Return the document described at the top of this module."""
        times = {"created": self.created.isoformat(), "expires": self.expires.isoformat() if self.expires else None}
        return json.dumps({"schema": SCHEMA, **asdict(self), **times}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a record strictly.

        Raises:
            RecordError: not JSON, an unknown schema, a missing or an extra key, a malformed value.

        """
        try:
            data: Any = json.loads(text)
        except ValueError:
            raise RecordError("a creation record must be JSON") from None
        wanted = {f.name for f in fields(cls)} | {"schema"}
        if not isinstance(data, dict) or set(data) != wanted:
            raise RecordError(f"a creation record must have exactly the keys {', '.join(sorted(wanted))}")
        if data["schema"] != SCHEMA or isinstance(data["schema"], bool):
            raise RecordError(f"schema must be {SCHEMA}, got {data['schema']!r}")
        try:
            data["created"] = datetime.fromisoformat(data["created"])
            data["expires"] = None if data["expires"] is None else datetime.fromisoformat(data["expires"])
        except (TypeError, ValueError):
            raise RecordError("created and expires must be ISO 8601 times") from None
        del data["schema"]
        return cls(**data)

    def claims(self, kind: str, identifier: str, owner: str) -> bool:
        """Whether this record speaks of exactly this thing of this owner."""
        return (self.kind, self.identifier, self.owner) == (kind, identifier, owner)

    def is_expired(self, now: datetime) -> bool:
        """Whether the thing may be swept. now: aware."""
        return self.expires is not None and now >= self.expires


def record_key(kind: str, owner: str, identifier: str) -> str:
    """Return `ledger/<kind>/<owner>/<identifier>.json`, each part percent-encoded."""
    return f"{PREFIX}{percent(kind, safe='')}/{percent(owner, safe='')}/{percent(identifier, safe='')}.json"


class Ledger:
    """The creation records in one bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def put(self, record: CreationRecord) -> CreationRecord:
        """Write a record before its thing is created; call it again freely in the same execution.

        Returns the record that is in force: for a replay, the one that the first attempt wrote.

        Raises:
            RecordError: another execution has claimed the name, or what is there is not a valid record.

        """
        try:
            self._bucket.write(record.key, record.to_json(), once=True)
        except ObjectExists:
            existing = self.get(record.kind, record.owner, record.identifier)
            if existing is not None and existing.execution == record.execution:
                return existing
            holder = f"execution {existing.execution}" if existing else "an unreadable record"
            raise RecordError(
                f"{record.kind} {record.identifier} is claimed by {holder}, not by execution {record.execution}"
            ) from None
        return record

    def claim(self, record: CreationRecord) -> bool:
        """As `put`; returns whether the record is new: False when an attempt of this execution may have come before.

        Raises:
            RecordError: as `put`.

        """
        try:
            self._bucket.create(record.key, record.to_json())
        except ObjectExists:
            self.put(record)
            return False
        return True

    def get(self, kind: str, owner: str, identifier: str) -> CreationRecord | None:
        """Return the valid record of this thing, or None: a malformed or misplaced one counts as none."""
        try:
            record = CreationRecord.from_json(self._bucket.read(record_key(kind, owner, identifier)))
        except (NoSuchObject, RecordError):
            return None
        return record if record.claims(kind, identifier, owner) else None

    def is_ours(self, kind: str, owner: str, identifier: str, *, execution: str | None = None) -> bool:
        """Whether a valid record says that this owner (and this execution, when given) made the thing."""
        record = self.get(kind, owner, identifier)
        return record is not None and execution in (None, record.execution)

    def close(self, kind: str, owner: str, identifier: str) -> None:
        """Remove a record after its thing is gone. Gone already is fine."""
        self._bucket.remove(record_key(kind, owner, identifier))

    def records(self, kind: str, owner: str) -> list[CreationRecord]:
        """Every valid record of one kind of one owner, in key order: what a janitor looks through."""
        prefix = record_key(kind, owner, "").removesuffix(".json")
        found = []
        for key in self._bucket.keys(prefix):
            try:
                record = CreationRecord.from_json(self._bucket.read(key))
            except (NoSuchObject, RecordError):
                continue
            if record.key == key and (record.kind, record.owner) == (kind, owner):
                found.append(record)
        return found
