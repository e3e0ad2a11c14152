"""Evidence that cannot be changed unseen: a chain of records, each holding the hash of the one before. Pure.

Record number n of an owner is the object `compliance-backups/evidence/chain/<owner>/<n, eight digits>.json`. Since it
is written with IfNoneMatch, two writers cannot both write it. Schema 1:

`{"schema": 1, "sequence", "previous", "kind", "owner", "execution", "created", "attachments": [...], "body": {...},
"digest"}`, and an attachment is `{"name", "key", "sha256", "bytes"}`.

previous: SHA-256 of the bytes of record n-1, in hex; null for record 1. digest: SHA-256 of the record without it.
A record's text is canonical: there is one text for one content, so that any changed byte is found. Attachments lie
under `compliance-backups/evidence/attachments/<owner>/<n>-<the beginning of their hash>/`, so that two writers never
meet there.

Beside the chain lie documents that other workflows write once: legal holds and second yeses (under `registers/`, which
no lifecycle rule reaches), retention plans and their results, recovery tests and recoveries. A record may name them:
`body.documents` is a list of `{"key", "sha256", "bytes"}`. The first record that names a document stands. `verify`
checks all of this from the bytes alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from urllib.parse import quote as percent

from aurora_backup.errors import BackupError
from aurora_backup.policy import Prefix
from aurora_backup.schedule import require_utc

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SCHEMA = 1
ROOT = f"{Prefix.COMPLIANCE.value}/evidence/"
FIRST = 1
DOCUMENTS = "documents"  # in a record's body
REGISTERS = "registers/"  # of legal holds, and of second yeses: what is in force has no age at which it may go
BESIDE = (
    f"{REGISTERS}holds/",
    f"{REGISTERS}confirmations/",
    f"{ROOT}retention/",
    f"{ROOT}recovery-tests/",
    f"{ROOT}recoveries/",
)
_OWNED = BESIDE[:3]  # the owner's name comes next in the key; the others are kept by tier and time
_POINTER = "/latest.json"  # says which plan is the last: it is rewritten, and evidence of nothing
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
_KEYS = {"schema", "sequence", "previous", "kind", "owner", "execution", "created", "attachments", "body", "digest"}


class EvidenceError(BackupError):
    """An evidence record is malformed, altered or out of place."""


class EvidenceUnreadable(EvidenceError):  # noqa: N818  says what happened
    """Evidence is refused, or archived: nothing is known of it. The message names it."""


def chain_prefix(owner: str) -> str:
    """Where an owner's records lie."""
    return f"{ROOT}chain/{percent(owner, safe='')}/"


def chain_key(owner: str, sequence: int) -> str:
    """The key of one record."""
    return f"{chain_prefix(owner)}{sequence:08d}.json"


def attachment_key(owner: str, sequence: int, name: str, data: bytes) -> str:
    """The key of one attachment with this content. Raises EvidenceError for a name that is not plain."""
    if not _NAME.fullmatch(name):
        raise EvidenceError(f"an attachment's name must be lower-case letters, digits, dots and hyphens, got {name!r}")
    return f"{ROOT}attachments/{percent(owner, safe='')}/{sequence:08d}-{sha256(data)[:12]}/{name}"


def is_document(key: str, owner: str) -> bool:
    """Whether this is a document beside the chain that an owner's records name."""
    beside = next((prefix for prefix in BESIDE if key.startswith(prefix)), None)
    if beside is None or key.endswith(_POINTER):
        return False
    return beside not in _OWNED or key.startswith(tuple(f"{beside}{percent(owner, safe='')}{end}" for end in "/."))


def sha256(data: bytes) -> str:
    """The SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """One document that belongs to a record."""

    name: str
    key: str
    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Document:
    """One document beside the chain, as it was when a record named it."""

    key: str
    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Record:
    """One link of the chain. created: aware UTC. body: what is recorded, JSON-like."""

    sequence: int
    previous: str | None
    kind: str
    owner: str
    execution: str
    created: datetime
    body: Mapping[str, Any]
    attachments: tuple[Attachment, ...] = ()

    @property
    def key(self) -> str:
        """The object's key."""
        return chain_key(self.owner, self.sequence)

    @property
    def documents(self) -> tuple[Document, ...] | None:
        """What it names beside the chain; None when it speaks of none. Raises EvidenceError: malformed."""
        found = self.body.get(DOCUMENTS)
        try:
            return None if found is None else tuple(Document(**row) for row in found)
        except TypeError:
            raise EvidenceError(
                f"record {self.sequence}: {DOCUMENTS} must be a list of key, sha256 and bytes"
            ) from None

    def to_bytes(self) -> bytes:
        """The canonical text, with its digest."""
        content = {
            "schema": SCHEMA,
            "sequence": self.sequence,
            "previous": self.previous,
            "kind": self.kind,
            "owner": self.owner,
            "execution": self.execution,
            "created": require_utc(self.created, "created").isoformat(),
            "attachments": [vars(a) for a in self.attachments],
            "body": self.body,
        }
        return _canonical({**content, "digest": sha256(_canonical(content))})

    @classmethod
    def from_bytes(cls, data: bytes) -> Record:
        """Read a record. Raises EvidenceError: malformed, of an unknown schema, or altered."""
        try:
            found = json.loads(data)
        except ValueError:
            raise EvidenceError("the record is not JSON") from None
        if not isinstance(found, dict) or set(found) != _KEYS:
            raise EvidenceError(f"the record must have exactly the keys {', '.join(sorted(_KEYS))}")
        if found["schema"] != SCHEMA or isinstance(found["schema"], bool):
            raise EvidenceError(f"schema must be {SCHEMA}, got {found['schema']!r}: use a newer aurora-backup")
        digest = found.pop("digest")
        if digest != sha256(_canonical(found)):
            raise EvidenceError("the digest does not match: the record was altered")
        if data != _canonical({**found, "digest": digest}):
            raise EvidenceError("the text is not the one that was written: the record was altered")
        try:
            return cls(
                sequence=_whole(found["sequence"]),
                previous=found["previous"],
                kind=found["kind"],
                owner=found["owner"],
                execution=found["execution"],
                created=require_utc(datetime.fromisoformat(found["created"]), "created"),
                body=found["body"],
                attachments=tuple(Attachment(**a) for a in found["attachments"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise EvidenceError(f"the record is malformed: {type(error).__name__}: {error}") from None


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"sequence must be a whole number, got {value!r}")
    return value


def _canonical(content: object) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def successor(
    last: bytes | None,
    *,
    kind: str,
    owner: str,
    execution: str,
    created: datetime,
    body: Mapping[str, Any],
    attachments: Mapping[str, bytes] | None = None,
) -> Record:
    """The record that follows the one with these bytes; None begins a chain.

    Raises EvidenceError: the last record is not readable. Nothing is ever chained to what was altered.
    """
    before = Record.from_bytes(last) if last is not None else None
    sequence = before.sequence + 1 if before else FIRST
    found = tuple(
        Attachment(name=name, key=attachment_key(owner, sequence, name, data), sha256=sha256(data), bytes=len(data))
        for name, data in sorted((attachments or {}).items())
    )
    return Record(
        sequence=sequence,
        previous=sha256(last) if last is not None else None,
        kind=kind,
        owner=owner,
        execution=execution,
        created=created,
        body=body,
        attachments=found,
    )


def check_links(newest: Sequence[bytes]) -> None:
    """Raise EvidenceError unless each of these records, the newest first, follows the next one and names its hash."""
    for data, before in pairwise(newest):
        record, known = Record.from_bytes(data), Record.from_bytes(before)
        if record.sequence != known.sequence + 1 or record.previous != sha256(before):
            raise EvidenceError(f"record {record.sequence} does not follow record {known.sequence}: one was altered")


# --- Verification, from bytes alone ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Lock:
    """What S3 says of one stored object. versions: how many there are of the key, delete markers included.

    encryption: as S3 names it, "aws:kms"; key: ARN of the KMS key; None where S3 does not say.
    """

    mode: str | None
    until: datetime | None
    versions: int = 1
    encryption: str | None = None
    key: str | None = None


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a chain is held against. Each is left out when None.

    longest_gap: between two records of `gap_kind`, and from the last to `now`. head: SHA-256 of the newest record, as
    it was published when it was written; it shows that nothing was cut off the end. keep_days: the least Object Lock.
    key: ARN of the KMS key that each object must be under; without it, any KMS key.
    """

    now: datetime | None = None
    longest_gap: timedelta | None = None
    gap_kind: str | None = None
    head: str | None = None
    keep_days: int | None = None
    key: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What `verify` found. head: SHA-256 of the newest record; problems: empty when everything holds.

    documents: those beside the chain that records name. unrecorded: those that no record names yet.
    """

    records: int
    attachments: int
    documents: int
    unrecorded: int
    head: str | None
    first: datetime | None
    last: datetime | None
    problems: tuple[str, ...]


@dataclass
class _Check:
    problems: list[str] = field(default_factory=list)
    records: dict[int, Record] = field(default_factory=dict)
    hashes: dict[int, str] = field(default_factory=dict)
    unread: set[str] = field(default_factory=set)


def verify(
    objects: Mapping[str, bytes],
    owner: str,
    rules: Rules | None = None,
    locks: Mapping[str, Lock] | None = None,
) -> Outcome:
    """Check an owner's whole chain: every byte, link, attachment and named document, with `rules` gaps and locks.

    objects: bytes by key; those of other owners and kinds are left alone. One is read at a time, so a mapping may read
    it when it is asked for it; an object whose reading raises EvidenceUnreadable is no less a problem than a missing
    one. locks: by key; None for a copy on disk.
    """
    rules = rules or Rules()
    check = _Check()
    prefix = chain_prefix(owner)
    for key in sorted(k for k in objects if k.startswith(prefix)):
        if (data := _bytes(check, objects, key)) is not None:
            _read(check, key, data, owner)
    _links(check)
    attached = _attachments(check, objects)
    named = _documents(check, objects)
    ordered = [check.records[n] for n in sorted(check.records)]
    if not ordered:
        check.problems.append(f"there is no evidence of {owner}")
    head = check.hashes[ordered[-1].sequence] if ordered else None
    if rules.head and rules.head != head:
        check.problems.append(
            f"the newest record must have the SHA-256 {rules.head}, and has {head}: the end was cut off"
        )
    _gaps(check, ordered, rules)
    if locks is not None:
        keys = [r.key for r in ordered] + [a.key for r in ordered for a in r.attachments]
        created = {key: r.created for r in ordered for key in (r.key, *(a.key for a in r.attachments))}
        for key in (key for key in keys if key not in check.unread):
            check.problems += _lock(key, locks.get(key), created[key], rules)
    return Outcome(
        len(ordered),
        attached,
        len(named),
        sum(is_document(key, owner) and key not in named for key in objects),
        head,
        ordered[0].created if ordered else None,
        ordered[-1].created if ordered else None,
        tuple(check.problems),
    )


def _bytes(check: _Check, objects: Mapping[str, bytes], key: str) -> bytes | None:
    """What is stored; None when nothing is, or it cannot be read, which is then a problem."""
    try:
        data = objects.get(key)
    except EvidenceUnreadable as error:
        check.unread.add(key)
        check.problems.append(str(error))
        return None
    if data is None:
        check.problems.append(f"{key} is missing")
    return data


def _read(check: _Check, key: str, data: bytes, owner: str) -> None:
    try:
        record = Record.from_bytes(data)
    except EvidenceError as error:
        check.problems.append(f"{key}: {error}")
        return
    if record.key != key or record.owner != owner:
        check.problems.append(f"{key}: holds record {record.sequence} of {record.owner}: it was moved")
        return
    check.records[record.sequence] = record
    check.hashes[record.sequence] = sha256(data)


def _links(check: _Check) -> None:
    numbers = sorted(check.records)
    if numbers and numbers[0] != FIRST:
        check.problems.append(f"records {FIRST} to {numbers[0] - 1} are missing, or could not be read")
    elif numbers and check.records[FIRST].previous is not None:
        check.problems.append(f"record {FIRST} names a record before it")
    for before, after in pairwise(numbers):
        if after != before + 1:
            check.problems.append(f"records {before + 1} to {after - 1} are missing, or could not be read")
        elif check.records[after].previous != check.hashes[before]:
            check.problems.append(f"record {after} does not hold the hash of record {before}: one of them was changed")
        if check.records[after].created < check.records[before].created:
            check.problems.append(f"record {after} is older than record {before}")


def _attachments(check: _Check, objects: Mapping[str, bytes]) -> int:
    named = {}
    for number in sorted(check.records):
        for attachment in check.records[number].attachments:
            named[attachment.key] = attachment
            _compare(check, objects, attachment)
    return len(named)


def _compare(check: _Check, objects: Mapping[str, bytes], recorded: Attachment | Document) -> None:
    data = _bytes(check, objects, recorded.key)
    if data is not None and (sha256(data), len(data)) != (recorded.sha256, recorded.bytes):
        check.problems.append(f"{recorded.key} was altered: its SHA-256 is not the recorded one")


def _documents(check: _Check, objects: Mapping[str, bytes]) -> dict[str, Document]:
    named: dict[str, Document] = {}
    for number in sorted(check.records):
        try:
            documents = check.records[number].documents or ()
        except EvidenceError as error:
            check.problems.append(str(error))
            continue
        for document in documents:
            first = named.setdefault(document.key, document)
            if document != first:
                check.problems.append(f"{document.key} was written again before record {number}")
    for document in named.values():
        _compare(check, objects, document)
    return named


def _gaps(check: _Check, ordered: Sequence[Record], rules: Rules) -> None:
    if rules.longest_gap is None:
        return
    times = [r.created for r in ordered if rules.gap_kind in (None, r.kind)]
    if not times:
        check.problems.append(f"there is no record of the kind {rules.gap_kind}")
        return
    for before, after in pairwise([*times, *([rules.now] if rules.now else [])]):
        if after - before > rules.longest_gap:
            check.problems.append(f"there is no evidence between {_stamp(before)} and {_stamp(after)}")


def _stamp(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _lock(key: str, lock: Lock | None, created: datetime, rules: Rules) -> list[str]:
    if lock is None:
        return [f"{key}: S3 did not say how it is locked and encrypted"]
    found = _encryption(key, lock, rules.key)
    if lock.versions != 1:
        found.append(f"{key}: S3 holds {lock.versions} versions of it, there must be one")
    if rules.keep_days is not None:
        # The lock is set from the time of writing, a moment after the record's own.
        wanted = created + timedelta(days=rules.keep_days)
        if lock.mode is None or lock.until is None:
            found.append(f"{key}: it is not locked")
        elif lock.until < wanted:
            found.append(f"{key}: it is locked until {_stamp(lock.until)}, and must be until {_stamp(wanted)}")
    return found


def _encryption(key: str, lock: Lock, wanted: str | None) -> list[str]:
    if lock.encryption is None:
        return [f"{key}: S3 does not say how it is encrypted"]
    if not lock.encryption.startswith("aws:kms"):
        return [f"{key}: it is encrypted by {lock.encryption}, not under a KMS key"]
    if wanted is not None and lock.key != wanted:
        return [f"{key}: it is under {lock.key or 'a key that S3 does not name'}, not {wanted}"]
    return []
