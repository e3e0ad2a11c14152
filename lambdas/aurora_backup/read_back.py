"""Reads the first bytes of stored objects, to show that whoever runs this can. What was read goes nowhere."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from aurora_backup.errors import cause

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from botocore.exceptions import ClientError

    from aurora_backup.s3 import Bucket

LIMIT_SECONDS = 180  # thousands of objects
READ, ARCHIVED, REFUSED, UNKNOWN = "read", "archived", "refused", "unknown"
_READERS = 8
_FIRST_BYTES = "bytes=0-15"
_SERVER_ERROR = 500
_PASSING = {"NoSuchKey", "NoSuchVersion", "404", "SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout"}


def read_back(bucket: Bucket, objects: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return `[{key, state, problem}]` of `[{key, version}]`, in their order. problem: null only for what was read.

    version: the one that a restore would read; null for the current one.
    state: "read"; "archived" (Glacier, or an archive tier of Intelligent-Tiering); "refused"; "unknown": nobody said
    that it may not be read, but it was not.
    """
    client, name = bucket.client, bucket.name

    def read(one: Mapping[str, Any]) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        version = {"VersionId": one["version"]} if one["version"] is not None else {}
        try:
            body = client.get_object(Bucket=name, Key=one["key"], Range=_FIRST_BYTES, **version)["Body"].read()
        except ClientError as error:
            return {"key": one["key"], "state": _state(error), "problem": cause(error)}
        except (BotoCoreError, OSError) as error:
            return {"key": one["key"], "state": UNKNOWN, "problem": cause(error)}
        if not body:
            return {"key": one["key"], "state": REFUSED, "problem": "it is empty"}
        return {"key": one["key"], "state": READ, "problem": None}

    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(read, objects))


def _state(error: ClientError) -> str:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code == "InvalidObjectState":
        return ARCHIVED
    return UNKNOWN if code in _PASSING or "Throttl" in code or status >= _SERVER_ERROR else REFUSED
