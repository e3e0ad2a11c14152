"""What a compliance report says as CloudWatch metrics, in the embedded metric format. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NAMESPACE = "AuroraBackup"


def metrics(document: Mapping[str, Any], facts: Mapping[str, Any], now: datetime) -> Iterator[dict[str, Any]]:
    """Log lines that CloudWatch reads as metrics of the owner, and of each tier. now: of the report.

    CompliancePassed is 1 or 0. What is not known is left out, so that an alarm sees it missing.
    """
    owner, counts = {"Owner": document["owner"]}, {"FAIL": 0, "UNKNOWN": 0}
    for check in document["checks"]:
        counts[check["verdict"]] = counts.get(check["verdict"], 0) + 1
    values = {
        "CompliancePassed": (float(document["compliance_status"] == "PASS"), "Count"),
        "ComplianceFailed": (float(counts["FAIL"]), "Count"),
        "ComplianceUnknown": (float(counts["UNKNOWN"]), "Count"),
    }
    tests = document["recovery_tests"]
    if tests:
        age = now - datetime.fromisoformat(tests[0]["finished"])
        values["RecoveryTestAge"] = (age.total_seconds(), "Seconds")
        values["RecoveryTestPassed"] = (float(tests[0]["outcome"] == "RESTORED"), "Count")
    measured = next((t["rto_seconds"] for t in tests if t["rto_seconds"] is not None), None)
    if measured is not None:
        values["RecoveryTime"] = (float(measured), "Seconds")
    values |= _dumps(facts)
    yield _line(owner, values, now)
    for row in document["objectives"]:
        if row["rpo_seconds"] is not None:
            yield _line(
                owner | {"Stream": row["stream"]}, {"RecoveryPointAge": (float(row["rpo_seconds"]), "Seconds")}, now
            )


def _dumps(facts: Mapping[str, Any]) -> dict[str, tuple[float, str]]:
    """Bytes, duration and rate of the newest sets together."""
    observation = facts["observations"].get("sets") or {}
    newest = [s["manifest"] for s in observation.get("value") or [] if s["newest"] and s["manifest"]["ok"]]
    size, seconds = sum(m["bytes"] for m in newest), sum(m["seconds"] for m in newest)
    if not newest or seconds <= 0:
        return {}
    return {
        "DumpBytes": (float(size), "Bytes"),
        "DumpDuration": (float(seconds), "Seconds"),
        "DumpRate": (size / seconds, "Bytes/Second"),
    }


def _line(dimensions: Mapping[str, str], values: Mapping[str, tuple[float, str]], now: datetime) -> dict[str, Any]:
    return {
        "_aws": {
            "Timestamp": int(now.timestamp() * 1000),
            "CloudWatchMetrics": [
                {
                    "Namespace": NAMESPACE,
                    "Dimensions": [list(dimensions)],
                    "Metrics": [{"Name": name, "Unit": unit} for name, (_, unit) in values.items()],
                }
            ],
        },
        **dimensions,
        **{name: value for name, (value, _) in values.items()},
    }
