"""Read the first bytes of objects, under the role that restores dump sets: can that role read them now?"""

from __future__ import annotations

from typing import Any

from aurora_backup import deployment, read_back
from aurora_backup.settings import Settings


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Return `{objects: [{key, state, problem}]}` of event's `{objects: [{key, version}]}`, and nothing of contents."""
    bucket = deployment.bucket(Settings.from_environment())
    return {"objects": read_back.read_back(bucket, event["objects"])}
