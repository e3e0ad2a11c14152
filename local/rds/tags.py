"""Tags of clusters, instances and cluster snapshots."""

from __future__ import annotations

from typing import Any

from local.rds.state import here, put_tags


def add_tags(request: dict[str, Any]) -> None:
    """AddTagsToResource."""
    put_tags(here().tagged(request["ResourceName"]), request["Tags"])


def remove_tags(request: dict[str, Any]) -> None:
    """RemoveTagsFromResource."""
    tags = here().tagged(request["ResourceName"])
    tags[:] = [tag for tag in tags if tag["Key"] not in request["TagKeys"]]


def list_tags(request: dict[str, Any]) -> dict[str, Any]:
    """ListTagsForResource."""
    return {"TagList": list(here().tagged(request["ResourceName"]))}
