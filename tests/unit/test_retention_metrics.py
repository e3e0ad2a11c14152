"""What a plan says in CloudWatch: each number by itself, so that no alarm can watch one that never moves."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from aurora_backup.retention_metrics import metrics

NOW = datetime(2026, 11, 23, 5, 30, tzinfo=UTC)


def facts(**changes):
    usual = {"tier": "logical", "kind": "set", "series": "clinic", "good": 5, "size": 100, "newest_age_seconds": 60.0}
    return {**usual, **changes}


PLAN = {
    "owner": "Stack/Backup",
    "refused": [],
    "decisions": [{"action": "keep"}, {"action": "delete"}, {"action": "delete"}, {"action": "wait"}],
    "findings": [{"rule": "vanished"}, {"rule": "stale"}, {"rule": "vanished"}],
    "tiers": [
        facts(),
        facts(series="billing", good=2, size=40, newest_age_seconds=90.0),
        facts(tier="weekly", kind="recovery-point", series=""),
    ],
    "costs": {"tiers": [{"tier": "logical", "kind": "set", "cost": 1.25}]},
}


def told(**changes):
    """The plan's document, and those of its tiers by tier and kind."""
    whole, *tiers = metrics({**PLAN, **changes}, NOW, used=45, quota=150)
    return whole, {(t["Tier"], t["Kind"]): t for t in tiers}


def test_the_plan_is_counted():
    whole, _ = told()
    names = ("Owner", "PlanRefused", "PlannedDeletions", "Vanished", "Findings", "SnapshotQuotaUsed")
    assert {name: whole[name] for name in names} == {
        "Owner": "Stack/Backup",
        "PlanRefused": 0,
        "PlannedDeletions": 2,
        "Vanished": 2,
        "Findings": 3,
        "SnapshotQuotaUsed": 30.0,
    }


def test_a_refused_plan_is_one_and_a_plan_without_findings_is_none():
    whole, _ = told(refused=["page 2", "the clock"], findings=[])
    assert (whole["PlanRefused"], whole["Vanished"], whole["Findings"]) == (1, 0, 0)


def test_a_tier_is_as_old_as_its_oldest_database_and_has_as_many_copies_as_the_poorest():
    _, tiers = told()
    logical, weekly = tiers["logical", "set"], tiers["weekly", "recovery-point"]
    assert (logical["NewestAge"], logical["GoodCopies"], logical["Size"]) == (90.0, 2, 140)
    assert (weekly["NewestAge"], weekly["GoodCopies"], weekly["Size"]) == (60.0, 5, 100)


def test_a_tier_without_a_copy_has_none_and_no_age_and_a_point_of_no_tier_is_no_dimension():
    empty = facts(tier="monthly", kind="recovery-point", series="", good=0, size=0, newest_age_seconds=None)
    _, tiers = told(tiers=[empty, facts(tier="", kind="recovery-point")])
    assert list(tiers) == [("monthly", "recovery-point")]
    assert tiers["monthly", "recovery-point"]["GoodCopies"] == 0
    assert "NewestAge" not in json.dumps(tiers["monthly", "recovery-point"])


def test_a_tier_has_a_cost_where_there_is_one():
    _, tiers = told()
    assert tiers["logical", "set"]["MonthlyCost"] == 1.25
    assert "MonthlyCost" not in json.dumps(tiers["weekly", "recovery-point"])


@pytest.mark.parametrize("line", [0, 1, 2])
def test_every_line_is_in_the_embedded_metric_format(line):
    document = list(metrics(PLAN, NOW, used=0, quota=100))[line]
    (about,) = document["_aws"]["CloudWatchMetrics"]
    assert document["_aws"]["Timestamp"] == 1795411800000
    assert about["Namespace"] == "AuroraBackup"
    assert about["Dimensions"] == [["Owner"]] if line == 0 else [["Owner", "Tier", "Kind"]]
    assert all(isinstance(document[metric["Name"]], (int, float)) for metric in about["Metrics"])
    assert all(isinstance(document[name], str) for name in about["Dimensions"][0])
    assert {m["Unit"] for m in about["Metrics"]} <= {"Count", "Percent", "Seconds", "Bytes", "None"}
