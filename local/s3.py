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
