"""The retention manager's second step: do what the plan says, looking again before each deletion. Outside the VPC."""

from __future__ import annotations

from typing import Any

from aurora_backup.recovery_edges import Edges
from aurora_backup.retention_edges import sweeper
from aurora_backup.sweep import UNCONFIRMED

_FEW = 10


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Return `{result, mode, deleted, kept, failed, unheld, tell}`; result is the key of the document.

    event: `{plan, findings, ahead_of_clock}`, as the first step gave them. failed: each deletion that did not happen.
    unheld: each last good set that could not be held. tell: whether a person should look.

    Raises:
        PlanNotActedOn: the plan is not one of this owner's, or of a time that has not come.

    """
    ahead = event.get("ahead_of_clock") is True
    result = sweeper(Edges.from_environment()).act(str(event["plan"]), ahead=ahead)
    counts = {state: sum(o["state"] == state for o in result["outcomes"]) for state in ("deleted", "kept")}
    failed = [o for o in result["outcomes"] if o["state"] == "failed"][:_FEW]
    unheld = [o for o in result["guarded"] if o["state"] == "failed"][:_FEW]
    waiting = result["mode"] == UNCONFIRMED and result["planned"] > 0
    return {
        "result": str(event["plan"]).removesuffix("plan.json") + "result.json",
        "mode": result["mode"],
        **counts,
        "failed": failed,
        "unheld": unheld,
        "tell": bool(result["refused"] or failed or unheld or waiting or event.get("findings")),
    }
