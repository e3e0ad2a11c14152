"""The retention manager's two steps: plan, and act on the plan. Outside the VPC, scheduled, time given."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from aurora_backup import deployment
from aurora_backup.errors import SettingsError
from aurora_backup.policy import MANUAL_SNAPSHOT_QUOTA
from aurora_backup.recovery_edges import Edges
from aurora_backup.retention import Kind
from aurora_backup.retention_edges import sweeper
from aurora_backup.retention_metrics import metrics

if TYPE_CHECKING:
    from collections.abc import Mapping


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Take one step; documents are passed by key. The same execution gives the same plan.

    event: `{"step": "plan", execution, started}` gives `{plan, mode, refused, deletions, findings, guard, unguard}`.
    event: `{"step": "act", plan}` gives `{result, mode, refused, deleted, kept, failed, guarded, unheld}`; `failed`
    names each deletion that did not happen, and `unheld` each last good set that could not be held.

    Raises:
        SettingsError: another step.
        PlanNotActedOn: the plan is not one of this owner's.

    """
    edges = Edges.from_environment()
    if event.get("step") == "plan":
        now = deployment.moment("started", event["started"])
        key, document = sweeper(edges).plan(execution=str(event["execution"]), now=now)
        for line in metrics(document, now, used=_manual(document), quota=MANUAL_SNAPSHOT_QUOTA):
            print(json.dumps(line))  # noqa: T201  CloudWatch reads it from the log
        return {"plan": key, **summary(document)}
    if event.get("step") == "act":
        result = sweeper(edges).act(str(event["plan"]))
        of = {s: [o["identifier"] for o in result["outcomes"] if o["state"] == s] for s in ("deleted", "kept")}
        return {
            "result": str(event["plan"]).removesuffix("plan.json") + "result.json",
            "mode": result["mode"],
            "refused": result["refused"][:10],
            "deleted": len(of["deleted"]),
            "kept": len(of["kept"]),
            "failed": [o for o in result["outcomes"] if o["state"] == "failed"][:10],
            "guarded": len(result["guarded"]),
            "unheld": [o for o in result["guarded"] if o["state"] == "failed"][:10],
        }
    raise SettingsError(f"step must be plan or act, got {event.get('step')!r}")


def summary(document: Mapping[str, Any]) -> dict[str, Any]:
    """What a state machine and a notification need of a plan: it may be long, so that lists are cut at ten."""
    return {
        "mode": document["mode"],
        "refused": document["refused"][:10],
        "deletions": sum(d["action"] == "delete" for d in document["decisions"]),
        "findings": document["findings"][:10],
        "guard": len(document["guard"]),
        "unguard": document["unguard"][:100],
    }


def _manual(document: Mapping[str, Any]) -> int:
    return sum(d["kind"] in {Kind.SNAPSHOT, Kind.RECOVERY_POINT} for d in document["decisions"])
