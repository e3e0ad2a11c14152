"""What a plan says, as CloudWatch's embedded metric format. Pure.

Namespace AuroraBackup. By Owner: PlanRefused (0 or 1), PlannedDeletions, Vanished, Findings, SnapshotQuotaUsed
(percent). By Owner, Tier and Kind: NewestAge (seconds: the recovery point that would be lost to, today; the worst of a
tier's databases; none without a copy), GoodCopies (the fewest of its databases; 0 for what the policy makes and is
not there), Size (bytes, all together; RDS may not know an
Aurora snapshot's), MonthlyCost (what a month of it costs, in the price table's currency; none without prices).
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

NAMESPACE = "AuroraBackup"


def metrics(document: Mapping[str, Any], at: datetime, *, used: int, quota: int) -> Iterator[dict[str, Any]]:
    """One document for the plan, and one for each tier and kind. used: manual cluster snapshots in the Region.

    at: what the clock says, not the time that was decided by: CloudWatch drops what is two hours ahead, and a plan that
    was refused because its time is ahead must be heard of.
    """
    owner = {"Owner": document["owner"]}
    found = document["findings"]
    values = {
        "PlanRefused": (int(bool(document["refused"])), "Count"),
        "PlannedDeletions": (sum(d["action"] == "delete" for d in document["decisions"]), "Count"),
        "Vanished": (sum(f["rule"] == "vanished" for f in found), "Count"),
        "Findings": (len(found), "Count"),
        "SnapshotQuotaUsed": (round(100 * used / quota, 1), "Percent"),
    }
    yield _line(owner, values, at)
    tiers: defaultdict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for facts in document["tiers"]:
        if not facts["tier"]:
            continue  # a recovery point of no tier: CloudWatch refuses an empty dimension
        tiers[facts["tier"], facts["kind"]].append(facts)
    costs = {(c["tier"], c["kind"]): c["cost"] for c in document.get("costs", {}).get("tiers", ())}
    for (tier, kind), series in sorted(tiers.items()):
        ages = [f["newest_age_seconds"] for f in series if f["newest_age_seconds"] is not None]
        values = {
            **({"NewestAge": (max(ages), "Seconds")} if ages else {}),
            "GoodCopies": (min(f["good"] for f in series), "Count"),
            "Size": (sum(f["size"] for f in series), "Bytes"),
            **({"MonthlyCost": (costs[tier, kind], "None")} if (tier, kind) in costs else {}),
        }
        yield _line({**owner, "Tier": tier, "Kind": kind}, values, at)


def _line(dimensions: Mapping[str, str], values: Mapping[str, tuple[float, str]], at: datetime) -> dict[str, Any]:
    about = {
        "Namespace": NAMESPACE,
        "Dimensions": [list(dimensions)],
        "Metrics": [{"Name": name, "Unit": unit} for name, (_, unit) in values.items()],
    }
    return {
        "_aws": {"Timestamp": int(at.timestamp() * 1000), "CloudWatchMetrics": [about]},
        **dimensions,
        **{name: value for name, (value, _) in values.items()},
    }
