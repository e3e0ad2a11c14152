from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from aurora_backup.policy import Tier
from aurora_backup.recovery import (
    FROM_SNAPSHOT,
    Isolation,
    NoRecoveryPoint,
    Plan,
    PlanError,
    Point,
    Purpose,
    RecoveryRefused,
    Situation,
    check_request,
    choose_point,
    next_tier,
    plan_native_test,
    plan_recovery,
    plan_test,
)

NOW = datetime(2026, 11, 2, 9, tzinfo=UTC)
SOURCE = {
    "DBClusterIdentifier": "prod",
    "DbClusterResourceId": "cluster-PROD",
    "DBSubnetGroup": "data",
    "VpcSecurityGroups": [{"VpcSecurityGroupId": "sg-1"}],
    "DBClusterParameterGroup": "tuned",
    "DeletionProtection": True,
    "BackupRetentionPeriod": 35,
    "LatestRestorableTime": NOW - timedelta(minutes=5),
    "DBClusterMembers": [
        {"DBInstanceIdentifier": "prod-b", "IsClusterWriter": True},
        {"DBInstanceIdentifier": "prod-a", "IsClusterWriter": False},
    ],
    "TagList": [{"Key": "team", "Value": "clinic"}, {"Key": "aws:cloudformation:stack-name", "Value": "x"}],
}
INSTANCES = (
    {"DBInstanceIdentifier": "prod-a", "DBInstanceClass": "db.r8g.large", "PromotionTier": 2},
    {"DBInstanceIdentifier": "prod-b", "DBInstanceClass": "db.r8g.2xlarge", "PromotionTier": 1},
)
SITUATION = Situation(
    source=SOURCE,
    source_instances=INSTANCES,
    earliest=NOW - timedelta(days=35),
    latest=NOW - timedelta(minutes=5),
    taken=frozenset({"taken"}),
    subnet_groups=frozenset({"data"}),
    quota={"DBClusters": 5, "DBInstances": 5},
)
REQUEST = {"target_cluster_id": "rescued", "target_time": "2026-11-02T08:00:00Z"}


def refusals(request=REQUEST, situation=SITUATION):
    return [str(refusal) for refusal in check_request(request, situation, "prod", NOW)]


def plan(request=REQUEST, situation=SITUATION):
    return plan_recovery(
        request,
        situation,
        owner="me",
        source_id="prod",
        source_resource_id="cluster-PROD",
        execution="run-1",
        started=NOW,
        lifetime=timedelta(hours=12),
    )


def test_a_good_request_is_not_refused():
    assert refusals() == []
    assert refusals({"target_cluster_id": "rescued", "latest": True}) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"target_time": "2026-11-02T08:00:00"}, "target_time must have a time zone"),
        ({"target_time": "tomorrow"}, "target_time must be an ISO 8601 time"),
        ({"target_time": "2026-11-02T10:00:00Z"}, "target_time must not be in the future"),
        ({"target_time": "2026-11-02T08:58:00Z"}, "target_time must be within the restorable window"),
        ({"target_time": "2026-09-02T08:00:00Z"}, "target_time must be within the restorable window"),
        ({"latest": True}, "target_time must be given, or latest be true, and not both"),
        ({"target_time": None}, "target_time must be given, or latest be true, and not both"),
        ({"latest": "yes"}, "latest must be true or false"),
        ({"target_cluster_id": "prod"}, "target_cluster_id must differ from the source's"),
        ({"target_cluster_id": "PROD"}, "target_cluster_id must differ from the source's"),
        ({"target_cluster_id": "taken"}, "target_cluster_id must be free"),
        ({"target_cluster_id": "no--good"}, "target_cluster_id must be an RDS identifier"),
        ({"target_cluster_id": None}, "target_cluster_id must be an RDS identifier"),
        ({"subnet_group": "elsewhere"}, "subnet_group must exist"),
        ({"security_groups": []}, "security_groups must be a list"),
        ({"security_groups": "sg-1"}, "security_groups must be a list"),
        ({"tagret_time": "x"}, "tagret_time must be one of"),
    ],
)
def test_a_request_is_refused_with_field_rule_and_value(change, says):
    request = {**REQUEST, **change}
    (found,) = refusals(request)
    assert found.startswith(says)
    name = next(iter(change))
    assert repr(change[name]) in found or repr(str(change[name]).lower()) in found or name == "tagret_time"
    with pytest.raises(RecoveryRefused, match="nothing was created"):
        plan(request)


def test_every_reason_is_named_at_once():
    with pytest.raises(RecoveryRefused) as caught:
        plan({"target_cluster_id": "prod", "target_time": "2026-11-02T08:00:00", "subnet_group": "no"})
    assert str(caught.value).count(" must ") == 3


@pytest.mark.parametrize(("quota", "left"), [("DBClusters", 0), ("DBInstances", 1)])
def test_a_recovery_that_the_quota_has_no_room_for_is_refused(quota, left):
    (found,) = refusals(situation=replace(SITUATION, quota={**SITUATION.quota, quota: left}))
    assert found.startswith(f"quota {quota} must have room")


def test_a_source_of_which_nothing_is_known_needs_its_place_and_size_said():
    unknown = replace(SITUATION, source=None, source_instances=(), deleted=True)
    assert [r.split(" must")[0] for r in refusals(situation=unknown)] == [
        "subnet_group",
        "security_groups",
        "instance_class",
    ]
    told = {**REQUEST, "subnet_group": "data", "security_groups": ["sg-9"], "instance_class": "db.r8g.large"}
    made = plan(told, unknown)
    assert made.parameters["SourceDbClusterResourceId"] == "cluster-PROD"
    assert "SourceDBClusterIdentifier" not in made.parameters
    assert made.parameters["VpcSecurityGroupIds"] == ["sg-9"]


def test_an_empty_window_is_refused():
    (found,) = refusals({"target_cluster_id": "rescued", "latest": True}, replace(SITUATION, latest=None))
    assert found.startswith("latest must have a restorable window")


def test_a_plan_restores_to_exactly_one_time_with_the_sources_settings_and_tags():
    made = plan()
    assert made.parameters["RestoreToTime"] == "2026-11-02T08:00:00+00:00"
    assert "UseLatestRestorableTime" not in made.parameters
    tags = {tag["Key"]: tag["Value"] for tag in made.parameters["Tags"]}
    assert tags == {
        "team": "clinic",
        "aurora-backup:owner": "me",
        "aurora-backup:execution": "run-1",
        "aurora-backup:purpose": "point-in-time-recovery",
    }
    assert made.parameters["DBSubnetGroupName"] == "data"
    assert made.settings["BackupRetentionPeriod"] == 35
    assert "BackupRetentionPeriod" not in made.parameters, "older SDKs and emulators refuse it there"
    assert made.expires is None, "the janitor never takes what an operator recovered"


def test_instances_are_like_the_sources_with_the_writer_first_and_never_public():
    classes = [(i["DBInstanceIdentifier"], i["DBInstanceClass"], i["PubliclyAccessible"]) for i in plan().instances]
    assert classes == [("rescued-1", "db.r8g.2xlarge", False), ("rescued-2", "db.r8g.large", False)]


def test_latest_becomes_a_time_so_that_a_replay_asks_for_the_same():
    made = plan({"target_cluster_id": "rescued", "latest": True})
    assert made.point.moment == SITUATION.latest
    assert made.parameters["RestoreToTime"] == SITUATION.latest.isoformat()


def test_a_plan_is_the_same_after_json_and_others_are_refused():
    made = plan()
    assert Plan.from_json(made.to_json()) == made
    with pytest.raises(PlanError):
        Plan.from_json(made.to_json().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(PlanError):
        Plan.from_json("{}")


def snapshot(name, hours, **changes):
    return {
        "DBClusterSnapshotIdentifier": name,
        "DBClusterSnapshotArn": f"arn:{name}",
        "SnapshotType": "awsbackup",
        "SnapshotCreateTime": NOW - timedelta(hours=hours),
        "Status": "available",
        "DbClusterResourceId": "cluster-PROD",
        "TagList": [{"Key": "aurora-backup:tier", "Value": "weekly"}],
        **changes,
    }


LINEAGE = frozenset({"cluster-PROD", "cluster-OLD"})
SNAPSHOTS = [
    snapshot("older", 9),
    snapshot("newest-but-creating", 1, Status="creating"),
    snapshot("of-another-cluster", 2, DbClusterResourceId="cluster-X"),
    snapshot("without-a-time", 2, SnapshotCreateTime=None),
    snapshot("monthly", 3, TagList=[{"Key": "aurora-backup:tier", "Value": "monthly"}]),
    snapshot("of-the-lineage", 5, DbClusterResourceId="cluster-OLD"),
    snapshot("by-hand", 4, SnapshotType="manual", TagList=[]),
]


@pytest.mark.parametrize(
    ("tier", "chosen"),
    [
        (Tier.WEEKLY, "arn:of-the-lineage"),
        (Tier.MONTHLY, "arn:monthly"),
        (Tier.ON_DEMAND, "by-hand"),
    ],
)
def test_the_newest_available_snapshot_of_the_tier_and_lineage_is_chosen(tier, chosen):
    assert choose_point(tier, SOURCE, SNAPSHOTS, LINEAGE).identifier == chosen


def test_the_automated_tier_is_the_newest_time_that_can_be_restored():
    assert choose_point(Tier.AUTOMATED, SOURCE, [], LINEAGE).moment == SOURCE["LatestRestorableTime"]
    assert choose_point(Tier.AUTOMATED, None, [], LINEAGE) is None


def test_tiers_take_turns_and_one_without_a_recovery_point_is_passed_over():
    point = Point(tier="x", moment=NOW)
    points = {Tier.AUTOMATED: point, Tier.WEEKLY: None, Tier.MONTHLY: point, Tier.ON_DEMAND: point}
    tested = {Tier.AUTOMATED: NOW, Tier.MONTHLY: NOW - timedelta(days=9)}
    assert next_tier(points, tested) is Tier.ON_DEMAND
    assert next_tier(points, {**tested, Tier.ON_DEMAND: NOW}) is Tier.MONTHLY
    with pytest.raises(NoRecoveryPoint, match="weekly"):
        next_tier({Tier.WEEKLY: None}, {})


ISOLATION = Isolation(subnet_group="tests", security_groups=("sg-t",), instance_class="db.t4g.medium", iam=False)


def test_a_test_copy_is_isolated_named_after_the_execution_and_expires():
    made = plan_test(
        Point(tier="weekly", moment=NOW, identifier="arn:s"),
        SOURCE,
        ISOLATION,
        owner="me",
        source_id="prod",
        source_resource_id="cluster-PROD",
        execution="run-1",
        started=NOW,
        lifetime=timedelta(hours=12),
        skipped={},
    )
    assert (made.operation, made.target) == (FROM_SNAPSHOT, "recovery-test-prod-run-1")
    assert made.parameters["VpcSecurityGroupIds"] == ["sg-t"]
    assert made.parameters["DBSubnetGroupName"] == "tests"
    assert made.parameters["DeletionProtection"] is False
    assert made.settings == {"ManageMasterUserPassword": True}
    (instance,) = made.instances
    assert (instance["DBInstanceClass"], instance["PubliclyAccessible"]) == ("db.t4g.medium", False)
    assert made.deadline < made.expires == NOW + timedelta(hours=12)
    assert made.tags["aurora-backup:expires"] == made.expires.isoformat()


def test_a_native_test_only_adds_an_instance():
    made = plan_native_test(
        Point(tier="native", moment=NOW, identifier="arn:s"),
        {"DBClusterIdentifier": "awsbackup-restore-test-7"},
        restore_job="job",
        instance_class="db.t4g.medium",
        owner="me",
        source_id="prod",
        source_resource_id="cluster-PROD",
        execution="run-1",
        started=NOW,
        lifetime=timedelta(hours=12),
    )
    assert made.operation is None
    assert made.purpose is Purpose.NATIVE_TEST
    assert made.instances[0]["DBClusterIdentifier"] == "awsbackup-restore-test-7"
    assert made.tags["aurora-backup:purpose"] == "recovery-test", "so that the janitor may take it"
