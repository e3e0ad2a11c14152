"""The documents that recovery leaves: a test's report and a recovery's hand-over. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from aurora_backup.cluster_settings import by_hand, differences
from aurora_backup.recovery import Purpose
from aurora_backup.validation import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from aurora_backup.recovery import Plan
    from aurora_backup.validation import Result

SCHEMA = 1
_CLAIMS = {
    Outcome.RESTORED: "restored: the copy was opened and queried, and every check passed",
    Outcome.DAMAGED: "restored and queried, and at least one check failed",
    Outcome.NOT_PROVED: "restored and queried, but at least one check could not decide",
}


def restore_report(plan: Plan, result: Result, *, first_query: datetime, finished: datetime) -> dict[str, Any]:
    """Describe one restore that was queried. rto_seconds: from the start to the first answered query."""
    return {
        "schema": SCHEMA,
        "kind": plan.purpose.value,
        "execution": plan.execution,
        "owner": plan.owner,
        "evidence_level": "restored",
        "claim": _CLAIMS[result.outcome],
        "source": {"cluster": plan.source, "resource_id": plan.source_resource_id},
        "recovery_point": {
            "tier": plan.point.tier,
            "moment": plan.point.moment.isoformat(),
            "identifier": plan.point.identifier,
        },
        "target": plan.target,
        "started": plan.started.isoformat(),
        "first_query": first_query.isoformat(),
        "finished": finished.isoformat(),
        "rto_seconds": math.ceil((first_query - plan.started).total_seconds()),
        "not_tested": plan.skipped,
        **result.to_dict(),
    }


def hand_over(
    plan: Plan,
    report: Mapping[str, Any],
    source: Mapping[str, Any] | None,
    restored: Mapping[str, Any],
    lineage: frozenset[str],
    bucket: str,
) -> dict[str, Any]:
    """Tell the operator what there is now, how it differs from the source, and what is still to do.

    source: the cluster as it is or was remembered; None when nothing is known of it, which is said.
    """
    known = source or {}
    todo = by_hand(known) if source else ["the source's settings were not known: compare every setting by hand"]
    ids = " ".join(f"--previous {resource_id}" for resource_id in sorted(lineage))
    adopt = f"aurora-backup adopt --bucket {bucket} --owner {plan.owner} --cluster {plan.target} {ids}"
    return {
        **report,
        "kind": Purpose.RECOVERY.value,
        "endpoint": restored.get("Endpoint"),
        "reader_endpoint": restored.get("ReaderEndpoint"),
        "port": restored.get("Port"),
        "resource_id": restored.get("DbClusterResourceId"),
        "secret_arn": (restored.get("MasterUserSecret") or {}).get("SecretArn"),
        "instances": [instance["DBInstanceIdentifier"] for instance in plan.instances],
        "differences": differences(known, restored) if source else {},
        "to_do": [*todo, f"put the new cluster under the same strategy: {adopt} (docs/recovery.md, Adoption)"],
        "lineage": sorted(lineage),
    }
