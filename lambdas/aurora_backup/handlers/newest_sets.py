"""Find the newest set of each database of the cluster: what a trial restore should prove."""

from __future__ import annotations

from typing import Any

from aurora_backup import deployment
from aurora_backup.errors import SettingsError
from aurora_backup.manifest import parse_set_key
from aurora_backup.policy import Prefix
from aurora_backup.sets import set_keys
from aurora_backup.settings import Settings


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Add `sets`: `[{set, database}]`, the newest manifested set of each database under `event["prefix"]`.

    event: `{prefix?, cluster_resource_id?}`; by default the weekly sets of the function's own cluster.

    Raises:
        SettingsError: the cluster's resource id is neither in the event nor in the environment.

    """
    settings = Settings.from_environment()
    resource_id = event.get("cluster_resource_id") or settings.cluster_resource_id
    if not resource_id:
        raise SettingsError("CLUSTER_RESOURCE_ID (or cluster_resource_id in the event) must be given, and is missing")
    prefix = event.get("prefix") or Prefix.LOGICAL.value
    newest = {}
    for key in set_keys(deployment.bucket(settings), f"{prefix}/{resource_id}/"):
        newest[parse_set_key(key)[2]] = key  # oldest first, so that the last one stays
    return {**event, "sets": [{"set": key, "database": name} for name, key in sorted(newest.items())]}
