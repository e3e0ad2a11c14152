"""Look at a snapshot on demand, until it is available or will not become so."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from aurora_backup import deployment, tags
from aurora_backup.errors import BackupError
from aurora_backup.recovery_edges import Edges, now_of

_DEADLINE = timedelta(hours=12)


class SnapshotFailed(BackupError):  # noqa: N818  names say what happened, as in errors.py
    """A snapshot failed, disappeared, or was not available in time."""


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Return `{state: "available" | "creating", percent, arn, encrypted}`. event: `{execution, started, now, made}`.

    Raises:
        SnapshotFailed: it cannot become available any more, or is not this execution's.

    """
    edges = Edges.from_environment()
    name = str(event["made"]["snapshot"])
    found = edges.rds.snapshot(name)
    if found is None:
        raise SnapshotFailed(f"snapshot {name} does not exist")
    if tags.tags_of(found).get(tags.EXECUTION) != event["execution"]:
        raise SnapshotFailed(f"snapshot {name} was not made by execution {event['execution']}")
    status, percent = str(found.get("Status")), int(found.get("PercentProgress") or 0)
    if status not in {"creating", "available"}:
        raise SnapshotFailed(f"snapshot {name} is {status} at {percent} per cent")
    if status == "creating" and now_of(event) > deployment.moment("started", event["started"]) + _DEADLINE:
        raise SnapshotFailed(f"snapshot {name} is still {status} at {percent} per cent after {_DEADLINE}")
    return {
        "state": status,
        "percent": percent,
        "arn": found["DBClusterSnapshotArn"],
        "encrypted": bool(found.get("StorageEncrypted")),
    }
