"""The edges of the retention functions, as their environment describes them."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from aurora_backup import deployment
from aurora_backup.errors import SettingsError
from aurora_backup.holds import HoldKeeper
from aurora_backup.inventory import Inventory
from aurora_backup.policy import MANUAL_SNAPSHOT_QUOTA
from aurora_backup.recovery_edges import utc_now
from aurora_backup.sweep import Sweeper

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aurora_backup.recovery_edges import Edges


def vaults(environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """BACKUP_VAULTS: a JSON list of AWS Backup vault names; absent means none. Raises SettingsError: malformed."""
    text = (os.environ if environment is None else environment).get("BACKUP_VAULTS") or "[]"
    try:
        names = json.loads(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise SettingsError(f"BACKUP_VAULTS must be a JSON list of vault names, got {text!r}")
    return tuple(names)


def quota(environment: Mapping[str, str] | None = None) -> int:
    """SNAPSHOT_QUOTA: the Region's quota of manual cluster snapshots; absent means AWS's default, 100.

    Raises SettingsError: malformed.
    """
    text = (os.environ if environment is None else environment).get("SNAPSHOT_QUOTA") or str(MANUAL_SNAPSHOT_QUOTA)
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise SettingsError(f"SNAPSHOT_QUOTA must be a whole number above 0, got {text!r}")
    return int(text)


def keeper(edges: Edges) -> HoldKeeper:
    """Legal holds, with the edges of one invocation."""
    bucket = deployment.bucket(edges.settings)
    return HoldKeeper(bucket=bucket, rds=edges.rds, owner=edges.settings.owner)


def sweeper(edges: Edges) -> Sweeper:
    """The sweep, with the edges of one invocation. RDS is asked for the cluster's resource id when it is not known."""
    settings, policy = edges.settings, edges.options.policy
    bucket = deployment.bucket(settings)
    known = settings.cluster_resource_id or _observed(edges)
    return Sweeper(
        inventory=Inventory(
            rds=edges.rds,
            backup=_backup_client(),
            bucket=bucket,
            owner=settings.owner,
            policy=policy,
            vaults=vaults(),
        ),
        keeper=keeper(edges),
        ledger=edges.ledger,
        rds=edges.rds,
        bucket=bucket,
        owner=settings.owner,
        policy=policy,
        lineage=edges.lineage(known) if known else (),
        region=os.environ.get("AWS_REGION", ""),
        clock=utc_now,
        quota=quota(),
    )


def _backup_client() -> Any:
    import boto3

    return boto3.client("backup")


def _observed(edges: Edges) -> str | None:
    source, resource_id = edges.source()
    return resource_id if source else None
