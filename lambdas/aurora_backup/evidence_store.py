"""The evidence chain in S3: append a record once, under Object Lock, and read everything back for `verify`."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from aurora_backup.errors import BackupError, redact
from aurora_backup.evidence import (
    BESIDE,
    REGISTERS,
    ROOT,
    Document,
    EvidenceError,
    EvidenceUnreadable,
    Lock,
    Record,
    chain_prefix,
    check_links,
    is_document,
    sha256,
    successor,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from datetime import datetime
    from pathlib import Path

    from aurora_backup.policy import Keep

LockMode = Literal["GOVERNANCE", "COMPLIANCE"]
UNCHAINED = "unchained"
_REPLAYS = 8  # how many records are looked through for one of the same execution
_ASKERS = 8  # HEADs side by side
_ATTEMPTS = 5  # writers that meet are the workflows of one owner: a handful
_TAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}


class EvidenceNotWritten(BackupError):  # noqa: N818  says what happened, as it reads in an alert
    """Evidence could not be stored: whatever was found, the report is INCOMPLETE."""


class ChainBroken(EvidenceNotWritten):
    """One of the newest records was altered: nothing is chained to it, until the forged version is deleted."""


@dataclass(frozen=True)
class Written:
    """A record that is stored. head: its SHA-256, to be published where a thief of the bucket cannot reach it."""

    record: Record
    head: str


class EvidenceStore:
    """One owner's chain. mode: Object Lock's; None for a bucket without Object Lock. keep: how long it is locked."""

    def __init__(
        self, client: Any, bucket: str, owner: str, *, keep: Keep, mode: LockMode | None, kms_key: str | None = None
    ) -> None:
        self._client, self._bucket, self._owner = client, bucket, owner
        self._keep, self._mode = keep, mode
        self._encryption: dict[str, Any] = (
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key, "BucketKeyEnabled": True} if kms_key else {}
        )

    def last(self) -> bytes | None:
        """The bytes of the newest record; None when there is none."""
        newest = self._newest(1)
        return newest[0] if newest else None

    def newest(self, kind: str, *, naming: bool = False) -> Record | None:
        """The newest record of a kind. naming: that names documents, if only that there are none.

        Raises EvidenceError: it, or one after it, was altered.
        """
        for key in reversed(self._keys(chain_prefix(self._owner))):
            record = Record.from_bytes(self._read(key))
            if record.kind == kind and not (naming and record.documents is None):
                return record
        return None

    def document(self, kind: str, name: str) -> Any:
        """An attachment of the newest record of a kind, read as JSON; None when there is none, or it was altered."""
        record = self.newest(kind)
        attached = next((a for a in record.attachments if a.name == name), None) if record else None
        data = self._read(attached.key) if attached else b""
        return json.loads(data) if attached and sha256(data) == attached.sha256 else None

    def append(
        self,
        *,
        kind: str,
        execution: str,
        created: datetime,
        body: Mapping[str, Any],
        attachments: Mapping[str, bytes] | None = None,
    ) -> Written:
        """Write the next record of the chain, after its attachments. A replay of an execution writes nothing new.

        Raises EvidenceNotWritten: S3 refused. Raises ChainBroken: one of the records before was altered.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            for _ in range(_ATTEMPTS):
                newest = self._newest(_REPLAYS)
                check_links(newest)
                for data in newest:
                    before = Record.from_bytes(data)
                    if (before.execution, before.kind) == (execution, kind):
                        return Written(before, sha256(data))
                record = successor(
                    newest[0] if newest else None,
                    kind=kind,
                    owner=self._owner,
                    execution=execution,
                    created=created,
                    body=body,
                    attachments=attachments,
                )
                for attachment in record.attachments:
                    self._write(attachment.key, (attachments or {})[attachment.name], created)
                data = record.to_bytes()
                if self._write(record.key, data, created):
                    return Written(record, sha256(data))
        except EvidenceUnreadable as error:
            raise EvidenceNotWritten(f"evidence of {self._owner} was not written: {error}") from None
        except EvidenceError as error:
            raise ChainBroken(f"evidence of {self._owner} was not written: {error}") from None
        except (ClientError, BotoCoreError) as error:
            raise EvidenceNotWritten(f"evidence of {self._owner} was not written: {redact(str(error))}") from None
        raise EvidenceNotWritten(f"evidence of {self._owner} was not written: {_ATTEMPTS} other writers were faster")

    def put_unchained(self, execution: str, created: datetime, name: str, data: bytes) -> str:
        """Keep a document outside the chain, locked, for a day on which nothing can be chained. Returns its key."""
        key = f"{ROOT}{UNCHAINED}/{quote(self._owner, safe='')}/{execution}/{name}"
        if not self._write(key, data, created):
            raise EvidenceNotWritten(f"{key} is there already, with other content")
        return key

    def _newest(self, count: int) -> list[bytes]:
        """The last records, the newest first."""
        return [self._read(key) for key in reversed(self._keys(chain_prefix(self._owner))[-count:])]

    def _write(self, key: str, data: bytes, created: datetime) -> bool:
        """Write once. False: something else is there already."""
        from botocore.exceptions import ClientError

        # Six calendar years can be a day short of the days that six years can be: the longer of the two keeps.
        until = max(self._keep.until(created), created + timedelta(days=self._keep.most_days))
        if until.microsecond:  # which S3 would cut off
            until = until.replace(microsecond=0) + timedelta(seconds=1)
        lock = {"ObjectLockMode": self._mode, "ObjectLockRetainUntilDate": until} if self._mode else {}
        try:
            self._client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=data,
                ContentType="text/html; charset=utf-8" if key.endswith(".html") else "application/json",
                ChecksumSHA256=base64.b64encode(hashlib.sha256(data).digest()).decode(),
                IfNoneMatch="*",
                **lock,
                **self._encryption,
            )
        except ClientError as error:
            if str(error.response.get("Error", {}).get("Code", "")) not in _TAKEN:
                raise
            return self._read(key) == data  # a retried request may find what its first attempt wrote
        return True

    def _keys(self, prefix: str) -> list[str]:
        return [str(item["Key"]) for item in self._listed(prefix)]

    def _listed(self, prefix: str) -> list[dict[str, Any]]:
        with _told(f"s3:ListBucket of {self._bucket}"):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            return [item for page in pages for item in page.get("Contents", [])]

    def _read(self, key: str) -> bytes:
        with _told(key):
            body: bytes = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        return body

    def documents(self, since: datetime | None, known: Collection[str] = ()) -> list[Document]:
        """The documents beside the chain that were written since then, and those of `known` that are still there.

        since: aware; None for all of them.
        """
        found = []
        for item in (item for part in BESIDE for item in self._listed(part)):
            key = str(item["Key"])
            wanted = key in known or since is None or item["LastModified"] >= since
            if wanted and is_document(key, self._owner):
                data = self._read(key)
                found.append(Document(key=key, sha256=sha256(data), bytes=len(data)))
        return found

    def objects(self) -> Mapping[str, bytes]:
        """Every record and attachment of every owner in the bucket, and every document beside them, by key.

        Raises EvidenceUnreadable: it cannot be listed; and from the mapping: S3 refuses an object.
        """
        parts = (f"{ROOT}chain/", f"{ROOT}attachments/", *BESIDE)
        keys = (key for part in parts for key in self._keys(part))
        return _Stored({key: partial(self._read, key) for key in keys})

    def every_key(self) -> set[str]:
        """Every key of a record that S3 has a version or a delete marker of."""
        return {str(item["Key"]) for item in self._versions(f"{ROOT}chain/")}

    def _versions(self, prefix: str) -> list[dict[str, Any]]:
        """Every version and delete marker."""
        with _told(f"s3:ListBucketVersions of {self._bucket}"):
            pages = self._client.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=prefix)
            return [item for page in pages for item in (*page.get("Versions", []), *page.get("DeleteMarkers", []))]

    def locks(self, keys: list[str]) -> dict[str, Lock]:
        """What S3 says of the lock, versions and encryption of each key; left out is what it refuses to describe."""
        versions: dict[str, int] = {}
        for item in self._versions(ROOT):
            versions[item["Key"]] = versions.get(item["Key"], 0) + 1

        def ask(key: str) -> Lock | None:
            with suppress(EvidenceUnreadable), _told(key):
                head = self._client.head_object(Bucket=self._bucket, Key=key)
                return Lock(
                    mode=head.get("ObjectLockMode"),
                    until=head.get("ObjectLockRetainUntilDate"),
                    versions=versions.get(key, 0),
                    encryption=head.get("ServerSideEncryption"),
                    key=head.get("SSEKMSKeyId"),
                )
            return None

        with ThreadPoolExecutor(_ASKERS) as pool:
            found = zip(keys, pool.map(ask, keys), strict=True)
            return {key: lock for key, lock in found if lock is not None}


class _Stored(Mapping[str, bytes]):
    """Objects by key, each read when it is asked for, and not kept."""

    def __init__(self, readers: Mapping[str, Callable[[], bytes]]) -> None:
        self._readers = readers

    def __getitem__(self, key: str) -> bytes:
        return self._readers[key]()

    def __contains__(self, key: object) -> bool:
        return key in self._readers

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """S3's refusals as an error of ours, which says what to do about an archived object."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") == "InvalidObjectState":
            raise EvidenceUnreadable(f"{what} is archived: restore required (aws s3api restore-object)") from None
        raise EvidenceUnreadable(f"{what} could not be read: {redact(str(error))}") from None
    except BotoCoreError as error:
        raise EvidenceUnreadable(f"{what} could not be read: {redact(str(error))}") from None


def read_directory(root: Path) -> Mapping[str, bytes]:
    """The same from a copy on disk, such as `aws s3 sync` makes. root: holds `compliance-backups/`, or is `evidence/`.

    Legal holds are read from `registers/` beside `compliance-backups/`.

    Raises EvidenceError: there is no evidence below it; and from the mapping EvidenceUnreadable: a file is refused.
    """
    for base, copy in ((root / ROOT, root), (root, root.resolve().parent.parent)):
        if (base / "chain").is_dir():
            return _Stored(
                {
                    f"{prefix}{path.relative_to(place).as_posix()}": partial(_file, path)
                    for prefix, place in ((ROOT, base), (REGISTERS, copy / REGISTERS))
                    for path in sorted(place.rglob("*"))
                    if path.is_file()
                }
            )
    raise EvidenceError(f"{root} must hold {ROOT}chain/, or chain/ itself")


def _file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EvidenceUnreadable(f"{path} could not be read: {error.strerror}") from None
