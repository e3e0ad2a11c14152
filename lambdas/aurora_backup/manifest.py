"""The manifest of a logical backup set: what it holds, exactly enough to check a restore against. Pure.

The manifest is written last: a set without one is not a backup. It carries a digest of itself, and a reader refuses
a version it does not know, an altered document and a malformed one. `compare` names every difference between what a
manifest promises and what a database holds. See docs/logical-backup.md for the document's fields.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import quote as percent
from urllib.parse import unquote

from aurora_backup.errors import ManifestError

FORMAT_VERSION = 1
NAME = "manifest.json"
VERIFICATION_NAME = "verification.json"

NOT_COVERED = (
    "this package's own schema aurora_backup (heartbeat, amcheck), which the database role makes again",
    "role passwords (pg_dump and Aurora do not reveal them)",
    "other databases of the cluster (each has a set of its own)",
    "cluster and instance parameters",
    "contents of foreign tables",
    "contents of materialized views (rebuilt by REFRESH at restore)",
    "planner statistics (rebuilt by ANALYZE at restore)",
    "replication slots and subscription state",
)


@dataclass(frozen=True, kw_only=True)
class TableFacts:
    """One table that stores rows: ordinary tables and leaf partitions.

    rows: None when not counted. estimated: rows is the planner's guess, and is never compared. bytes: heap, TOAST and
    maps, without indexes. root: the partitioned table it belongs to. digest: order-independent, over all columns.
    """

    schema: str
    name: str
    rows: int | None
    estimated: bool = False
    bytes: int = 0
    root: tuple[str, str] | None = None
    digest: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Schema and name, unquoted."""
        return self.schema, self.name


@dataclass(frozen=True, kw_only=True)
class SequenceFacts:
    """A sequence before and after the archives were made: sequences do not obey snapshots.

    A restored value is right when it lies between the two.
    """

    schema: str
    name: str
    last_value: int
    is_called: bool
    last_value_after: int | None = None
    is_called_after: bool | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Schema and name, unquoted."""
        return self.schema, self.name


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What one database held at one snapshot.

    schema: SHA-256 of each kind of definition, by kind, so that a difference names its kind. large_objects: how many.
    extensions: version by name. server_major: schema digests are only comparable within one major version.
    """

    tables: tuple[TableFacts, ...]
    sequences: tuple[SequenceFacts, ...]
    large_objects: int
    large_objects_digest: str | None
    extensions: dict[str, str]
    schema: dict[str, str]
    server_major: int

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Read what `asdict` wrote; unknown keys are ignored, missing ones raise KeyError."""
        return cls(
            tables=tuple(
                TableFacts(**(_known(TableFacts, row) | {"root": tuple(row["root"]) if row.get("root") else None}))
                for row in data["tables"]
            ),
            sequences=tuple(SequenceFacts(**_known(SequenceFacts, row)) for row in data["sequences"]),
            large_objects=int(data["large_objects"]),
            large_objects_digest=data.get("large_objects_digest"),
            extensions=dict(data["extensions"]),
            schema=dict(data["schema"]),
            server_major=int(data["server_major"]),
        )

    @property
    def rows(self) -> int:
        """Rows of all counted tables together, estimates left out."""
        return sum(table.rows or 0 for table in self.tables if not table.estimated)

    @property
    def estimated(self) -> int:
        """How many tables were not counted."""
        return sum(table.estimated for table in self.tables)


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One pg_dump archive of the set.

    tables: empty for archive 0, which holds everything but the rows of the tables that other archives name.
    crc32: of the whole object, base64 as S3 prints it. seconds: from starting pg_dump to the finished object.
    """

    key: str
    version_id: str | None
    bytes: int
    crc32: str
    tables: tuple[tuple[str, str], ...]
    seconds: float
    sha256: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A whole set. Times are ISO 8601 UTC. source: cluster, instance and database facts. See docs/logical-backup.md."""

    set: str
    owner: str
    execution: str
    started: str
    finished: str
    snapshot_time: str
    snapshot_lsn: str | None
    compression: str
    server_version: str
    client_version: str
    source: dict[str, Any]
    archives: tuple[Archive, ...]
    facts: Facts
    roles: dict[str, Any]
    not_covered: tuple[str, ...]
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all archives together."""
        return sum(archive.bytes for archive in self.archives)

    def archive_of(self, schema: str, name: str) -> Archive:
        """Return the archive that holds this table's rows."""
        for archive in self.archives:
            if (schema, name) in archive.tables:
                return archive
        return self.archives[0]

    def to_json(self) -> str:
        """Canonical JSON with `format_version` and `digest`."""
        body = {"format_version": FORMAT_VERSION, **asdict(self)}
        return json.dumps({**body, "digest": _digest(body)}, sort_keys=True, indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a manifest.

        Raises:
            ManifestError: not JSON, an unknown version, altered since it was written, or a field missing.

        """
        try:
            data = json.loads(text)
        except ValueError:
            raise ManifestError("the manifest is not JSON") from None
        if not isinstance(data, dict):
            raise ManifestError(f"the manifest must be a JSON object, got {type(data).__name__}")
        version = data.get("format_version")
        if version != FORMAT_VERSION or isinstance(version, bool):
            raise ManifestError(f"format_version must be {FORMAT_VERSION}, got {version!r}: use a newer aurora-backup")
        recorded = data.pop("digest", None)
        if recorded != _digest(data):
            raise ManifestError("digest does not match the document: the manifest was altered after it was written")
        try:
            values = {f.name: data[f.name] for f in fields(cls)}
            values["archives"] = tuple(
                Archive(
                    **(
                        _known(Archive, row)
                        | {"tables": tuple((s, n) for s, n in row["tables"]), "warnings": tuple(row["warnings"])}
                    )
                )
                for row in data["archives"]
            )
            values["facts"] = Facts.from_dict(data["facts"])
            values["not_covered"] = tuple(data["not_covered"])
            manifest = cls(**values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ManifestError(f"the manifest is malformed: {type(error).__name__}: {error}") from None
        if not manifest.archives:
            raise ManifestError("archives must name at least one archive, got none")
        return manifest


def _known(kind: type[Any], row: dict[str, Any]) -> dict[str, Any]:
    names = {f.name for f in fields(kind)}
    return {name: value for name, value in row.items() if name in names}


def _digest(body: dict[str, Any]) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True)
class Difference:
    """One thing that a database holds differently from its manifest. expected and actual are counts or digests."""

    what: str
    expected: Any
    actual: Any

    def __str__(self) -> str:
        return f"{self.what}: expected {self.expected}, found {self.actual}"


# Owners and grants are only restored when roles are.
ACCESS_KINDS = frozenset({"owners", "grants", "default_privileges"})


def compare(
    manifest: Manifest | Facts, actual: Facts, *, tables: frozenset[tuple[str, str]] | None = None, access: bool = True
) -> list[Difference]:
    """Every difference between what was backed up and what is there, in a fixed order; empty when they agree.

    tables: compare only these tables' rows (a restore of one table). access: also compare owners and grants.
    Estimated rows are never compared. Digests are compared where both sides have one.
    """
    expected = manifest.facts if isinstance(manifest, Manifest) else manifest
    found = [*_compare_tables(expected, actual, tables)]
    if tables is not None:
        return found
    found += _compare_sequences(expected, actual)
    if expected.large_objects != actual.large_objects:
        found.append(Difference("large objects", expected.large_objects, actual.large_objects))
    elif (
        expected.large_objects_digest and actual.large_objects_digest
    ) and expected.large_objects_digest != actual.large_objects_digest:
        found.append(Difference("large objects' contents", expected.large_objects_digest, actual.large_objects_digest))
    for name in sorted(expected.extensions.keys() | actual.extensions.keys()):
        left, right = expected.extensions.get(name), actual.extensions.get(name)
        if (left is None) != (right is None):
            found.append(Difference(f"extension {name}", left or "absent", right or "absent"))
    if expected.server_major == actual.server_major:
        kinds = sorted(expected.schema.keys() | actual.schema.keys())
        found += [
            Difference(f"schema: {kind}", expected.schema.get(kind), actual.schema.get(kind))
            for kind in kinds
            if (access or kind not in ACCESS_KINDS) and expected.schema.get(kind) != actual.schema.get(kind)
        ]
    return found


def _compare_tables(expected: Facts, actual: Facts, only: frozenset[tuple[str, str]] | None) -> list[Difference]:
    left = {table.key: table for table in expected.tables if only is None or table.key in only}
    right = {table.key: table for table in actual.tables if only is None or table.key in only}
    found = []
    for key in sorted(left.keys() | right.keys()):
        name = ".".join(key)
        if key not in right:
            found.append(Difference(f"table {name}", "present", "absent"))
        elif key not in left:
            found.append(Difference(f"table {name}", "absent", "present"))
        else:
            found += _compare_table(name, left[key], right[key])
    return found


def _compare_table(name: str, left: TableFacts, right: TableFacts) -> list[Difference]:
    exact = not (left.estimated or right.estimated) and left.rows is not None and right.rows is not None
    if exact and left.rows != right.rows:
        return [Difference(f"rows of {name}", left.rows, right.rows)]
    if left.digest and right.digest and left.digest != right.digest:
        return [Difference(f"contents of {name}", left.digest, right.digest)]
    return []


def _compare_sequences(expected: Facts, actual: Facts) -> list[Difference]:
    left = {sequence.key: sequence for sequence in expected.sequences}
    right = {sequence.key: sequence for sequence in actual.sequences}
    found = []
    for key in sorted(left.keys() | right.keys()):
        name = f"sequence {'.'.join(key)}"
        if key not in left or key not in right:
            found.append(
                Difference(name, "present" if key in left else "absent", "present" if key in right else "absent")
            )
            continue
        want, have = left[key], right[key]
        after = want.last_value if want.last_value_after is None else want.last_value_after
        called_after = want.is_called if want.is_called_after is None else want.is_called_after
        low, high = sorted((want.last_value, after))  # a sequence may count down
        called = have.is_called in {want.is_called, called_after}
        if not low <= have.last_value <= high or not called:
            span = str(low) if low == high else f"{low} to {high}"
            found.append(Difference(name, span, have.last_value if called else f"is_called={have.is_called}"))
    return found


def set_key(prefix: str, cluster_resource_id: str, database: str, started: datetime) -> str:
    """Return `<prefix>/<cluster resource id>/<database>/<timestamp>/`: the same start always gives the same set.

    The database's name is percent-encoded, so that no name can reach into another's keys.

    Raises:
        ValueError: started is naive.

    """
    if started.tzinfo is None:
        raise ValueError(f"started must carry a time zone, got {started!r}")
    stamp = started.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    name = percent(database, safe="")
    if set(name) == {"."}:  # "." and ".." are names that S3 tools fold away
        name = name.replace(".", "%2E")
    return f"{prefix.strip('/')}/{percent(cluster_resource_id, safe='')}/{name}/{stamp}/"


def parse_set_key(key: str) -> tuple[str, str, str, datetime]:
    """Return prefix, cluster resource id, database and start time of a set's key: the inverse of `set_key`.

    Raises:
        ManifestError: it is not a set's key.

    """
    parts = key.strip("/").split("/")
    try:
        prefix, (resource, database, stamp) = "/".join(parts[:-3]), parts[-3:]
        started = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise ManifestError(f"a set must be named <prefix>/<cluster>/<database>/<timestamp>/, got {key!r}") from None
    if not prefix:
        raise ManifestError(f"a set must be named <prefix>/<cluster>/<database>/<timestamp>/, got {key!r}")
    return prefix, unquote(resource), unquote(database), started


def crc32_text(value: int) -> str:
    """Return a CRC32 as S3 prints it: base64 of four big-endian bytes."""
    return base64.b64encode(value.to_bytes(4, "big")).decode()
