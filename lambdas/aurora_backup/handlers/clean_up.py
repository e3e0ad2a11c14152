"""Take the next step of removing what a recovery test made. Outside the VPC; deletes test copies of ours only."""

from __future__ import annotations

from typing import Any

from aurora_backup.recovery import Purpose
from aurora_backup.recovery_edges import Edges, now_of
from aurora_backup.removal import RemovalRefused, State


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Return `{state: "gone" | "going"}`. event: `{plan, now}`.

    Raises:
        RemovalRefused: something is not shown to be ours, or it is still there when its lifetime has ended.

    """
    edges = Edges.from_environment()
    plan = edges.store.plan(event["plan"])
    if plan.purpose is Purpose.RECOVERY:
        raise RemovalRefused(f"not deleted: {plan.target} was made by a recovery, which is the operator's")
    names = frozenset(str(instance["DBInstanceIdentifier"]) for instance in plan.instances)
    native = plan.purpose is Purpose.NATIVE_TEST
    state = edges.remover().step(plan.target, only=names if native else None)
    if state is State.GOING and plan.expires and now_of(event) > plan.expires:
        raise RemovalRefused(f"{plan.target} is still there at {plan.expires.isoformat()}; the janitor goes on")
    return {"state": state.value}
