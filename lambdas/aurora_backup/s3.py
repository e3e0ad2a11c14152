"""The S3 edge: one bucket, conditional writes, checksums that S3 itself checks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from aurora_backup.errors import BackupError, ObjectExists, S3Failed, redact

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

_TAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
_ABSENT = {"NoSuchKey", "NotFound", "404", "NoSuchVersion", "NoSuchUpload"}


class NoSuchObject(BackupError):  # noqa: N818  as in errors.py
    """The object, or that version of it, is not there."""


@dataclass(frozen=True)
class Stored:
    """What S3 knows of one version of an object. crc32: base64, None when it was stored without a full-object CRC32."""

    key: str
    bytes: int
    etag: str
    version_id: str | None
    crc32: str | None


def make_client(*, endpoint_url: str | None = None, region: str | None = None, connections: int = 32) -> Any:
    """Make an S3 client for large uploads. connections: eight archives side by side send two parts each.

    Integrity rests on the checksums we send, so payloads are not hashed a second time for the signature, also on
    plain HTTP (only emulators speak that).
    """
    from botocore.config import Config

    return _create(
        "s3",
        endpoint_url=endpoint_url,
        region_name=region,
        config=Config(
            max_pool_connections=connections,
            connect_timeout=10,
            read_timeout=60,
            retries={"mode": "standard", "max_attempts": 6},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"payload_signing_enabled": False},
        ),
    )


def _create(service: str, **options: Any) -> Any:
    from botocore.session import get_session  # boto3 would only add a tenth of a second

    return get_session().create_client(service, **options)


class Bucket:
    """One bucket, and the key that encrypts what is written to it (None: the bucket's own default).

    client: an S3 client, or a function that makes one when it is first needed, in the thread that needs it.
    """

    def __init__(self, client: Any, name: str, *, kms_key: str | None = None) -> None:
        self._client = client
        self.name = name
        self._encryption: dict[str, Any] = (
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key, "BucketKeyEnabled": True} if kms_key else {}
        )

    @cached_property
    def client(self) -> Any:
        """The S3 client."""
        return self._client() if callable(self._client) else self._client

    def _call(self, operation: str, key: str, **arguments: Any) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer: dict[str, Any] = getattr(self.client, operation)(Bucket=self.name, Key=key, **arguments)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _TAKEN:
                raise ObjectExists(f"s3://{self.name}/{key} was written by somebody else") from None
            if code in _ABSENT:
                raise NoSuchObject(f"s3://{self.name}/{key} does not exist") from None
            raise S3Failed(f"{operation} of s3://{self.name}/{key}: {redact(str(error))}") from None
        except (BotoCoreError, OSError) as error:
            raise S3Failed(f"{operation} of s3://{self.name}/{key}: {redact(str(error))}") from None
        return answer

    def head(self, key: str, version_id: str | None = None) -> Stored:
        """Describe an object, or one version of it.

        Raises:
            NoSuchObject: there is none.

        """
        version = {"VersionId": version_id} if version_id else {}
        found = self._call("head_object", key, ChecksumMode="ENABLED", **version)
        full = found.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT"
        return Stored(
            key=key,
            bytes=int(found["ContentLength"]),
            etag=str(found["ETag"]),
            version_id=found.get("VersionId"),
            crc32=found.get("ChecksumCRC32") if full else None,
        )

    def read(self, key: str, version_id: str | None = None) -> bytes:
        """Return a small object, whole.

        Raises:
            NoSuchObject: there is none.

        """
        return b"".join(self.stream(key, version_id))

    def stream(self, key: str, version_id: str | None = None, *, chunk: int = 1 << 20) -> Iterator[bytes]:
        """Yield an object in chunks of at most `chunk` bytes; memory does not grow with the object.

        Raises:
            NoSuchObject: there is none.
            ArchiveDamaged: the connection ended before the whole object had come.

        """
        from aurora_backup.errors import ArchiveDamaged

        version = {"VersionId": version_id} if version_id else {}
        answer = self._call("get_object", key, **version)
        body, expected, got = answer["Body"], int(answer["ContentLength"]), 0
        try:
            while data := body.read(chunk):
                got += len(data)
                yield data
        except GeneratorExit:
            raise
        except Exception as error:  # noqa: BLE001  botocore, urllib3 and sockets each have their own
            raise ArchiveDamaged(f"s3://{self.name}/{key} broke off: {redact(str(error))}") from None
        finally:
            body.close()
        if got != expected:
            raise ArchiveDamaged(f"s3://{self.name}/{key} ended after {got} of {expected} bytes")

    def read_json(self, key: str) -> Any:
        """Return a JSON object's content, or None when there is no such object."""
        try:
            return json.loads(self.read(key))
        except NoSuchObject:
            return None

    def write(self, key: str, body: str, *, once: bool, content_type: str = "application/json") -> str | None:
        """Write a small object whose SHA-256 S3 checks. Returns the version.

        once: refuse to replace anything.

        Raises:
            ObjectExists: `once`, and the key is taken by something else than this very body.

        """
        data = body.encode()
        try:
            return self._put(key, data, content_type, once=once)
        except ObjectExists:
            # A retried request may find what its first attempt wrote.
            stored = self.head(key)
            if stored.bytes == len(data) and self.read(key) == data:
                return stored.version_id
            raise

    def create(self, key: str, body: str) -> None:
        """Write a small JSON object where there is none.

        Raises:
            ObjectExists: there is one, whatever is in it; also when the answer to an attempt that succeeded was lost.

        """
        self._put(key, body.encode(), "application/json", once=True)

    def _put(self, key: str, data: bytes, content_type: str, *, once: bool) -> str | None:
        condition = {"IfNoneMatch": "*"} if once else {}
        answer = self._call(
            "put_object",
            key,
            Body=data,
            ContentType=content_type,
            ChecksumAlgorithm="SHA256",
            **condition,
            **self._encryption,
        )
        version = answer.get("VersionId")
        return None if version is None else str(version)

    def begin(self, key: str) -> str:
        """Start a multipart upload with a full-object CRC32; returns its id."""
        answer = self._call(
            "create_multipart_upload",
            key,
            ContentType="application/octet-stream",
            ChecksumAlgorithm="CRC32",
            ChecksumType="FULL_OBJECT",
            **self._encryption,
        )
        return str(answer["UploadId"])

    def part(self, key: str, upload_id: str, number: int, body: bytes | bytearray, crc32: str) -> str:
        """Upload one part, whose CRC32 S3 checks; returns its ETag."""
        answer = self._call("upload_part", key, UploadId=upload_id, PartNumber=number, Body=body, ChecksumCRC32=crc32)
        return str(answer["ETag"])

    def finish(
        self, key: str, upload_id: str, parts: list[dict[str, Any]], *, size: int, crc32: str, replaces: str | None
    ) -> Stored:
        """Complete a multipart upload. replaces: the ETag of the one object it may replace; None replaces nothing.

        Raises:
            ObjectExists: the key is taken by something else than exactly these bytes.

        """
        condition = {"IfMatch": replaces} if replaces else {"IfNoneMatch": "*"}
        try:
            answer = self._call(
                "complete_multipart_upload",
                key,
                UploadId=upload_id,
                MultipartUpload={"Parts": parts},
                MpuObjectSize=size,
                ChecksumCRC32=crc32,
                ChecksumType="FULL_OBJECT",
                **condition,
            )
        except (ObjectExists, S3Failed, NoSuchObject):
            # The answer to a request that succeeded may have been lost: look before giving up.
            stored = self._same(key, size, crc32)
            if stored is None:
                raise
            return stored
        return Stored(key, size, str(answer.get("ETag", "")), answer.get("VersionId"), crc32)

    def _same(self, key: str, size: int, crc32: str) -> Stored | None:
        try:
            stored = self.head(key)
        except BackupError:
            return None
        return stored if (stored.bytes, stored.crc32) == (size, crc32) else None

    def abort(self, key: str, upload_id: str) -> None:
        """Abort a multipart upload: its parts are gone, or NoSuchObject says that they already were."""
        from contextlib import suppress

        with suppress(NoSuchObject):
            self._call("abort_multipart_upload", key, UploadId=upload_id)

    def keys(self, prefix: str, since: datetime | None = None) -> list[str]:
        """Every key under a prefix, in S3's order. since: aware; only of what was written then or later."""
        from botocore.exceptions import BotoCoreError, ClientError

        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        try:
            items = (item for page in pages for item in page.get("Contents", []))
            return [str(item["Key"]) for item in items if since is None or item["LastModified"] >= since]
        except (BotoCoreError, ClientError, OSError) as error:
            raise S3Failed(f"list_objects_v2 of s3://{self.name}/{prefix}: {redact(str(error))}") from None

    def remove(self, key: str) -> None:
        """Delete a small object; in a versioned bucket this leaves a delete marker. Absent is fine."""
        self._call("delete_object", key)
