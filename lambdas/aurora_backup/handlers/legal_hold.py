"""Place, list and release legal holds, and release what the retention manager held for itself. Outside the VPC."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from aurora_backup import deployment
from aurora_backup.holds import Applied, HoldRefused
from aurora_backup.recovery_edges import Edges, utc_now
from aurora_backup.retention import GUARD_MATTER
from aurora_backup.retention_edges import keeper, sweeper


class HoldNotApplied(HoldRefused):
    """The register holds (or still holds) the points, and a store did not follow; the message names each."""


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Return `{"holds": [...]}` in force, or `{"matter", "points": [{point, ok, detail}]}`.

    event: `{"action": "list"}`; `{"action": "place" | "release", matter, points, who, why, started}`;
    `{"action": "release-guards", points, started}`, which releases only what the retention manager held, and only after
    looking at what replaces it again. The register's times are not ahead of the clock.

    Raises:
        HoldRefused: a field is malformed, a point does not exist, or a matter is not in force.
        HoldNotApplied: a store did not follow.

    """
    edges = Edges.from_environment()
    holds, action = keeper(edges), event.get("action")
    if action == "list":
        return {"holds": [{**asdict(h), "since": h.since.isoformat()} for h in holds.holds()]}
    points, started = [str(p) for p in event.get("points") or ()], deployment.moment("started", event["started"])
    at = min(started, utc_now())
    if action == "place":
        matter = str(event["matter"])
        done = holds.place(matter, points, who=str(event["who"]), why=str(event["why"]), at=at)
    elif action == "release":
        matter = str(event["matter"])
        done = holds.release(matter, points, who=str(event["who"]), why=str(event["why"]), at=at)
    elif action == "release-guards":
        matter = GUARD_MATTER
        done = sweeper(edges).release_guards(points, now=started)
    else:
        raise HoldRefused(f"action must be place, list, release or release-guards, got {action!r}")
    return {"matter": matter, "points": [asdict(each) for each in _all_applied(matter, done)]}


def _all_applied(matter: str, done: tuple[Applied, ...]) -> tuple[Applied, ...]:
    failed = [f"{each.point}: {each.detail}" for each in done if not each.ok]
    if failed:
        raise HoldNotApplied(
            f"matter {matter!r} stays held in the register, and not in every store: {'; '.join(failed)}"
        )
    return done
