"""The retention manager's first step: what there is, what may go, why the rest stays. Outside the VPC, scheduled."""

from __future__ import annotations

import json
from typing import Any

from aurora_backup import deployment
from aurora_backup.recovery_edges import Edges, utc_now
from aurora_backup.retention import Action, Kind
from aurora_backup.retention_edges import quota, sweeper
from aurora_backup.retention_metrics import metrics

_MANUAL = {Kind.SNAPSHOT.value, Kind.RECOVERY_POINT.value}
_FEW = 10  # a state may carry little: the document, by its key, has everything


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Return `{plan, mode, refused, deletions, findings, guard, unguard, ahead_of_clock}`; plan is the document's key.

    event: `{execution, started}`, and `"ahead_of_clock": true` to decide by a time that has not come. started is the
    time that is decided by; the same execution gives the same plan.
    """
    now, ahead = deployment.moment("started", event["started"]), event.get("ahead_of_clock") is True
    key, document = sweeper(Edges.from_environment()).plan(execution=str(event["execution"]), now=now, ahead=ahead)
    manual = sum(d["kind"] in _MANUAL for d in document["decisions"])
    for line in metrics(document, utc_now(), used=manual, quota=quota()):
        print(json.dumps(line))  # noqa: T201  CloudWatch reads it from the log
    return {
        "plan": key,
        "mode": document["mode"],
        "refused": document["refused"][:_FEW],
        "deletions": sum(d["action"] == Action.DELETE.value for d in document["decisions"]),
        "findings": document["findings"][:_FEW],
        "guard": len(document["guard"]),
        "unguard": document["unguard"][: 10 * _FEW],
        "ahead_of_clock": ahead,
    }
