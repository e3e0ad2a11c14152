"""Start a cluster snapshot on demand: the quota first, then the creation record, then the snapshot."""

from __future__ import annotations

from typing import Any

from aurora_backup import deployment, tags
from aurora_backup.errors import BackupError
from aurora_backup.identifiers import derive
from aurora_backup.ledger import CreationRecord
from aurora_backup.policy import MANUAL_SNAPSHOT_QUOTA
from aurora_backup.recovery import SNAPSHOT_PREFIX
from aurora_backup.recovery_edges import Edges

KIND = "cluster-snapshot"


class SnapshotRefused(BackupError):  # noqa: N818  names say what happened, as in errors.py
    """A snapshot was not started, and nothing was deleted to make room."""


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Return `{snapshot, expires}`. event: `{execution, started, description}`; the same execution, the same snapshot.

    Raises:
        SnapshotRefused: no description, no cluster, or no room within the quota.

    """
    edges = Edges.from_environment()
    settings, execution = edges.settings, str(event["execution"])
    started = deployment.moment("started", event["started"])
    description = event.get("description")
    if not isinstance(description, str) or not tags.value(description):
        raise SnapshotRefused(f"description must be a text that says why, got {description!r}")
    source, resource_id = edges.source()
    if source is None:
        raise SnapshotRefused(f"cluster {settings.cluster_id} with resource id {resource_id} does not exist")
    name = derive(SNAPSHOT_PREFIX, f"{settings.cluster_id}-{execution}")
    expires = edges.options.policy.on_demand.keep.until(started)
    if edges.rds.snapshot(name) is None:
        _check_room(edges)
        edges.ledger.put(
            CreationRecord(
                kind=KIND,
                identifier=name,
                owner=settings.owner,
                execution=execution,
                created=started,
                expires=expires,
            )
        )
        labels = {"BackupType": "Manual", "Description": tags.value(description)}
        edges.rds.create_snapshot(
            name, settings.cluster_id, {**labels, **tags.ours(settings.owner, execution, expires=expires)}
        )
    return {"snapshot": name, "expires": expires.isoformat()}


def _check_room(edges: Edges) -> None:
    left = edges.rds.quota_left().get("ManualClusterSnapshots")
    if left is None:
        left = MANUAL_SNAPSHOT_QUOTA - len(edges.rds.snapshots("manual"))
    if left < 1:
        raise SnapshotRefused("quota ManualClusterSnapshots must have room for 1 more, got 0: raise it, or delete one")
