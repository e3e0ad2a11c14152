"""Reads the first bytes of stored objects, to show that whoever runs this can. What was read goes nowhere."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from aurora_backup.errors import cause

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aurora_backup.s3 import Bucket

LIMIT_SECONDS = 180  # thousands of objects
_READERS = 8
_FIRST_BYTES = "bytes=0-15"


def read_back(bucket: Bucket, keys: Iterable[str]) -> list[dict[str, Any]]:
    """Return `[{key, readable, restore_required, problem}]`, in the order of the keys.

    restore_required: S3 says that the object is archived (Glacier, or an archive tier of Intelligent-Tiering).
    """
    client, name = bucket.client, bucket.name

    def read(key: str) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        answer = {"key": key, "readable": False, "restore_required": False}
        try:
            body = client.get_object(Bucket=name, Key=key, Range=_FIRST_BYTES)["Body"].read()
        except ClientError as error:
            archived = error.response.get("Error", {}).get("Code") == "InvalidObjectState"
            return answer | {"restore_required": archived, "problem": cause(error)}
        except (BotoCoreError, OSError) as error:
            return answer | {"problem": cause(error)}
        return answer | {"readable": bool(body), "problem": None if body else "it is empty"}

    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(read, keys))
