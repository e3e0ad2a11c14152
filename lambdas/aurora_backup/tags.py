"""The tags that say what is ours, and until when. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

PREFIX = "aurora-backup:"
OWNER = PREFIX + "owner"
EXECUTION = PREFIX + "execution"
EXPIRES = PREFIX + "expires"
PURPOSE = PREFIX + "purpose"
TIER = PREFIX + "tier"
LEGAL_HOLD = PREFIX + "legal-hold"  # the matters that hold it; nothing deletes a snapshot that carries it
RECOVERY_TEST = "recovery-test"
POINT_IN_TIME_RECOVERY = "point-in-time-recovery"
_LONGEST = 256
_REFUSED = re.compile(r"[^\w .:/=+@-]")  # what RDS does not take in a tag's value


def ours(owner: str, execution: str, *, purpose: str | None = None, expires: datetime | None = None) -> dict[str, str]:
    """Make the tags of something that an execution makes."""
    tags = {OWNER: owner, EXECUTION: execution}
    if purpose:
        tags[PURPOSE] = purpose
    if expires:
        tags[EXPIRES] = expires.isoformat()
    return tags


def value(text: str) -> str:
    """Make any text a tag's value: other characters become spaces, at most 256 of them."""
    return _REFUSED.sub(" ", text).strip()[:_LONGEST]


def theirs(tags: dict[str, str]) -> dict[str, str]:
    """Leave out ours and AWS's own: what a restored cluster should carry on."""
    return {key: text for key, text in tags.items() if not key.startswith((PREFIX, "aws:"))}


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Give tags as RDS takes them."""
    return [{"Key": key, "Value": text} for key, text in sorted(tags.items())]


def tags_of(described: Mapping[str, Any]) -> dict[str, str]:
    """Read the tags of anything that RDS described."""
    return {str(tag["Key"]): str(tag.get("Value", "")) for tag in described.get("TagList") or []}
