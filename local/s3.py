"""S3: the lifecycle refusals, and bodies for MiniStack's own Put functions."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

import botocore.serialize
from ministack.core.responses import get_account_id, get_region
from ministack.services import s3

from local import lifecycle
from local.protocol import service_model


def body(operation: str, parameters: dict[str, Any]) -> bytes:
    """The XML that boto3 would send for `operation`."""
    model = service_model("s3").operation_model(operation)
    request = botocore.serialize.create_serializer("rest-xml").serialize_to_request(
        {"Bucket": "b", **parameters}, model
    )
    text = request["body"]
    return text if isinstance(text, bytes) else str(text).encode()


def check(answer: tuple[int, dict[str, str], Any]) -> None:
    """Raise ValueError with S3's message if `answer` is a refusal."""
    status, _, document = answer
    if status >= 300:
        root = ET.fromstring(document)  # our own emulator's answer
        raise ValueError(f"{root.findtext('Code')}: {root.findtext('Message')}")


def install() -> None:
    """Check every lifecycle configuration the way S3 does before it is kept."""
    theirs = s3._put_bucket_lifecycle

    def put(bucket: str, document: bytes) -> Any:
        before = s3._bucket_lifecycle.get(bucket)
        answer = theirs(bucket, document)
        rules = s3._bucket_lifecycle.get(bucket)
        if answer[0] != 200:
            return answer
        reason = lifecycle.problem(rules) if isinstance(rules, list) else "The XML you provided was not well-formed"
        if reason is None:
            return answer
        if before is None:
            s3._bucket_lifecycle.pop(bucket, None)
        else:
            s3._bucket_lifecycle[bucket] = before
        return s3._error("InvalidRequest", reason, 400, f"/{bucket}")

    s3._put_bucket_lifecycle = put
    s3._resolve_sse_write_headers = _with_default_key(s3._resolve_sse_write_headers)
    s3._complete_multipart_upload = _with_full_object_checksums(s3._complete_multipart_upload)


def _with_full_object_checksums(theirs: Any) -> Any:
    """MiniStack knows composite checksums only; on S3 an upload may ask for one over the whole object's bytes."""

    def complete(bucket: str, key: str, body: bytes, query: Any, headers: Any = None) -> Any:
        upload = s3._multipart_uploads.get(s3._qp(query, "uploadId"))
        algorithm = (upload or {}).get("checksum_algorithm")
        if not upload or not algorithm or (headers or {}).get("x-amz-checksum-type") != "FULL_OBJECT":
            return theirs(bucket, key, body, query, headers)
        whole = b"".join(upload["parts"][number]["body"] for number in sorted(upload["parts"]))
        computed = s3._compute_s3_checksum(algorithm, whole)
        if headers.get(f"x-amz-checksum-{algorithm.lower()}") not in {None, computed}:
            message = f"The {algorithm} you specified did not match the calculated checksum."
            return s3._error("BadDigest", message, 400, f"/{bucket}/{key}")
        upload["checksum_algorithm"] = None
        answer = theirs(bucket, key, body, query, headers)
        if answer[0] != 200:
            upload["checksum_algorithm"] = algorithm
            return answer
        version = answer[1].get("x-amz-version-id")
        stored = [s3._ensure_bucket(bucket)["objects"][key]]
        stored += [v for v in s3._object_versions.get((bucket, key), []) if v.get("version_id") == version]
        for record in stored:
            record.update(checksums={algorithm: computed}, checksum_type="FULL_OBJECT")
        return answer

    return complete


def _with_default_key(theirs: Any) -> Any:
    """A write that asks for aws:kms and names no key gets the bucket's, else the account's `aws/s3`, as on S3."""
    algorithm, key = "x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id"

    def resolve(headers: dict[str, str], bucket: str) -> Any:
        if headers.get(algorithm) == "aws:kms" and not headers.get(key):
            default = s3._bucket_default_sse_headers(bucket).get(key)
            managed = f"arn:aws:kms:{get_region()}:{get_account_id()}:alias/aws/s3"
            headers = {**headers, key: default or managed}
        return theirs(headers, bucket)

    return resolve
