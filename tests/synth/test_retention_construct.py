"""RetentionManager: the workflow, its schedule and alarms, and how little each of its functions may do."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest
from aws_cdk import aws_backup as backup

from aurora_backup.policy import RetentionPolicy
from aurora_backup.retention_metrics import metrics
from cdk_aurora_backup.alerts import BackupAlerts
from cdk_aurora_backup.backup_bucket import BackupBucket
from cdk_aurora_backup.backup_key import BackupKey
from cdk_aurora_backup.functions import BackupFunctions
from cdk_aurora_backup.retention import RetentionManager
from tests.synth.synthesis import Synthesised, imported_cluster, new_stack, some_clients, states

EMPTY = ("refused", "decisions", "findings", "tiers")


def managed(policy=None, *, vaults=("some-vault",), lineage=()):
    """A manager and the least that it needs."""
    stack = new_stack()
    policy = policy or RetentionPolicy.hipaa()
    target = imported_cluster(stack)
    key = BackupKey(stack, "Key").key
    RetentionManager(
        stack,
        "Sweep",
        functions=BackupFunctions(
            stack,
            "Functions",
            target=target,
            policy=policy,
            bucket=BackupBucket(stack, "Storage", key=key, policy=policy).bucket,
            key=key,
            clients=some_clients(stack),
        ),
        alerts=BackupAlerts(stack, "SweepAlerts", key=key, cluster=target.cluster),
        vaults=[backup.BackupVault.from_backup_vault_name(stack, name, name) for name in vaults],
        lineage=lineage,
        snapshot_quota=250,
    )
    return Synthesised.of(stack)


@pytest.fixture(scope="module")
def made():
    return managed(lineage=["cluster-BEFORE"])


def granted(made, function):
    """Statements by sid of the policy of one of the three functions."""
    (name,) = [n for n, _ in made.policies() if re.match(rf"Sweep{function}Role", n)][:1]
    return {stmt["Sid"]: stmt for policy, stmt in made.policies() if policy == name}


def environment(made, function):
    return made.named("AWS::Lambda::Function", f"Sweep{function}")["Environment"]["Variables"]


def actions(made, function):
    found = set()
    for stmt in granted(made, function).values():
        found |= {stmt["Action"]} if isinstance(stmt["Action"], str) else set(stmt["Action"])
    return found


def test_the_workflow_plans_acts_releases_guards_and_tells(made):
    definition = next(d for name, d in made.state_machines().items() if name.startswith("Sweep"))
    found = dict(states(definition))

    assert {"Plan", "Act", "Release guards", "Tell", "Done"} <= set(found)
    assert found["Accept"]["Next"] == "Plan"
    assert found["Plan"]["Next"] == "Act"
    assert "Parameters" not in found["Plan"]  # the whole input, `ahead_of_clock` too
    given = ("plan", "findings", "ahead_of_clock")
    assert found["Act"]["Parameters"] == {f"{field}.$": f"$.plan.{field}" for field in given}
    assert found["Release guards"]["Parameters"]["action"] == "release-guards"
    assert all("TimeoutSeconds" in s and s["Catch"] for s in found.values() if s["Type"] == "Task" and "Alert" not in s)


def test_it_runs_at_the_time_that_the_policy_says_and_is_given_that_time(made):
    schedule = next(p for p in made.all("AWS::Scheduler::Schedule") if "Retention" in p["Description"])

    assert schedule["ScheduleExpression"] == RetentionPolicy.hipaa().sweep.schedule
    assert json.loads(schedule["Target"]["Input"]) == {"started": "<aws.scheduler.scheduled-time>"}


def test_only_the_act_deletes_and_no_function_deletes_a_version_or_a_recovery_point(made):
    deleting = {f: {a for a in actions(made, f) if ":Delete" in a} for f in ("Plan", "Act", "LegalHold")}

    assert deleting == {
        "Plan": set(),
        "Act": {"rds:DeleteDBClusterSnapshot", "s3:DeleteObject"},
        "LegalHold": set(),
    }


def test_a_held_snapshot_or_anothers_cannot_be_deleted_by_the_act(made):
    stmt = granted(made, "Act")["DeleteSnapshots"]

    owner = stmt["Condition"]["StringEquals"]["aws:ResourceTag/aurora-backup:owner"]
    assert owner
    assert stmt["Condition"]["Null"] == {"aws:ResourceTag/aurora-backup:legal-hold": "true"}
    assert stmt["Resource"].endswith(":cluster-snapshot:on-demand-*")
    deny = granted(made, "Act")["KeepHeldSnapshots"]
    assert (deny["Effect"], deny["Action"]) == ("Deny", "rds:DeleteDBClusterSnapshot")
    assert deny["Condition"] == {"Null": {"aws:ResourceTag/aurora-backup:legal-hold": "false"}}
    assert deny["Resource"].endswith(":cluster-snapshot:*")


def test_the_act_can_hide_sets_and_close_records_and_reaches_no_evidence(made):
    resources = granted(made, "Act")["HideSets"]["Resource"]
    owner = environment(made, "Act")["OWNER"]

    assert len(resources) == 6
    for resource in resources:
        assert re.search(
            rf"/((automated|manual|logical|compliance)-backups/cluster-\*|ledger/(set|cluster-snapshot)/{owner}/\*)$",
            resource,
        )


def test_neither_step_can_write_the_second_yes_that_it_needs(made):
    for function in ("Plan", "Act", "LegalHold"):
        statements = granted(made, function).values()
        written = [s["Resource"] for s in statements if "s3:PutObject" in (s["Action"], *s["Action"])]
        flat = [r for rs in written for r in ([rs] if isinstance(rs, str) else rs)]
        wanted = {"Plan": r"retention/\*", "Act": r"(retention|holds)/\*", "LegalHold": r"holds/\*"}[function]
        assert all(re.search(rf"/(compliance-backups/evidence|registers)/{wanted}$", r) for r in flat), flat


def test_the_act_can_hold_and_never_release(made):
    stmt = granted(made, "Act")["GuardSets"]

    assert stmt["Condition"] == {"StringEquals": {"s3:object-lock-legal-hold": "ON"}}
    assert "s3:PutObjectLegalHold" not in actions(made, "Plan")
    assert "Condition" not in granted(made, "LegalHold")["HoldSets"]


def test_the_hold_function_changes_no_other_tag(made):
    assert granted(made, "LegalHold")["TagSnapshots"]["Condition"] == {
        "ForAllValues:StringEquals": {"aws:TagKeys": ["aurora-backup:legal-hold"]}
    }


def test_no_function_may_bypass_object_lock_or_touch_a_vault(made):
    for function in ("Plan", "Act", "LegalHold"):
        found = actions(made, function)
        assert not {
            a for a in found if re.search(r"Bypass|DeleteObjectVersion|backup:(?!List)|rds:Modify|s3:PutBucket", a)
        }


def test_aurora_backup_has_a_manager_that_looks_at_its_own_vault(default):
    environment = default.named("AWS::Lambda::Function", "BackupRetentionPlan")["Environment"]["Variables"]

    (vault,) = json.loads(environment["BACKUP_VAULTS"])
    assert re.match(r"<BackupSnapshots\w*Vault", vault)


def test_the_functions_know_vaults_and_lineage(made):
    assert json.loads(environment(made, "Plan")["BACKUP_VAULTS"]) == ["some-vault"]
    for function in ("Plan", "Act", "LegalHold"):
        assert json.loads(environment(made, function)["LINEAGE"]) == ["cluster-BEFORE"]


def test_the_plan_knows_the_quota(made):
    assert environment(made, "Plan")["SNAPSHOT_QUOTA"] == "250"


def test_without_vaults_none_is_listed():
    made = managed(vaults=())

    assert "backup:ListRecoveryPointsByBackupVault" not in actions(made, "Plan")


@pytest.mark.parametrize(
    ("name", "metric", "statistic", "threshold", "missing"),
    [
        ("NoPlan", "Findings", "SampleCount", 1, "breaching"),
        ("PlanRefused", "PlanRefused", "Maximum", 1, "notBreaching"),
        ("GoneEarly", "Vanished", "Maximum", 1, "notBreaching"),
        ("Quota", "SnapshotQuotaUsed", "Maximum", 90, "notBreaching"),
    ],
)
def test_each_alarm_watches_what_it_says_and_reaches_the_topic(made, name, metric, statistic, threshold, missing):
    alarm = made.named("AWS::CloudWatch::Alarm", f"Sweep{name}")

    assert (alarm["MetricName"], alarm["Threshold"], alarm["TreatMissingData"]) == (metric, threshold, missing)
    assert alarm["Namespace"] == "AuroraBackup"
    assert (alarm["Statistic"], alarm["Period"], alarm["EvaluationPeriods"]) == (statistic, 86400, 1)
    (plan,) = [f for f in made.all("AWS::Lambda::Function") if f["Handler"].endswith("plan_retention.handler")]
    owner = plan["Environment"]["Variables"]["OWNER"]
    assert alarm["Dimensions"] == [{"Name": "Owner", "Value": owner}]
    emitted = metrics({"owner": owner, **dict.fromkeys(EMPTY, ())}, datetime.now(UTC), used=0, quota=100)
    assert metric in next(iter(emitted))
    assert len(alarm["AlarmActions"]) == 1
    below = name == "NoPlan"
    assert alarm["ComparisonOperator"] == ("LessThan" if below else "GreaterThanOrEqualTo") + "Threshold"


def test_a_plan_is_missed_only_after_the_longest_gap_of_its_schedule():
    policy = RetentionPolicy.hipaa().with_changes({"sweep": {"schedule": "cron(0 5 ? * MON *)"}})

    assert managed(policy).named("AWS::CloudWatch::Alarm", "SweepNoPlan")["EvaluationPeriods"] == 7
