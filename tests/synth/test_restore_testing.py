"""RestoreTesting: the plan, the selection with Aurora's overrides, and the hand-over to a validation."""

from __future__ import annotations

import json
import re

import pytest
from aws_cdk import aws_backup as backup
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns

from cdk_aurora_backup import RetentionPolicy, SynthError
from cdk_aurora_backup.restore_testing import RestoreTesting
from tests.synth import hardened
from tests.synth.synthesis import Synthesised, imported_cluster, new_stack, some_vpc


@pytest.fixture(scope="module")
def strongest():
    return hardened.synthesised("strongest").protected


@pytest.fixture(scope="module")
def selection(strongest):
    (found,) = [p for _, p in strongest.of("AWS::Backup::RestoreTestingSelection")]
    return found


def made(stack, **changes):
    options = {
        "target": imported_cluster(stack), "policy": RetentionPolicy.hipaa(), "key": kms.Key(stack, "Key"),
        "vault": backup.BackupVault(stack, "Vault"), "vpc": some_vpc(stack), **changes,
    }  # fmt: skip
    return RestoreTesting(stack, "Testing", **options)


def test_a_random_recovery_point_of_the_vault_is_tested_on_the_policys_schedule(strongest):
    (plan,) = [p for _, p in strongest.of("AWS::Backup::RestoreTestingPlan")]
    (vault,) = [name for name, _ in strongest.of("AWS::Backup::BackupVault")]
    assert plan["ScheduleExpression"] == hardened.POLICY.recovery_testing.schedule
    assert plan["RecoveryPointSelection"] == {
        "Algorithm": "RANDOM_WITHIN_WINDOW", "IncludeVaults": [strongest.arn(vault)],
        "RecoveryPointTypes": ["SNAPSHOT"], "SelectionWindowDays": 365,
    }  # fmt: skip


def test_the_restore_goes_where_nothing_else_can_reach_it(strongest, selection):
    overrides = selection["RestoreMetadataOverrides"]
    (subnets,) = [n for n, _ in strongest.of("AWS::RDS::DBSubnetGroup") if "RestoreTesting" in n]
    (group,) = [n for n, _ in strongest.of("AWS::EC2::SecurityGroup") if "RestoreTesting" in n]
    assert overrides["dbSubnetGroupName"] == strongest.name(subnets)
    assert json.loads(overrides["vpcSecurityGroupIds"]) == [f"{strongest.name(group)}.GroupId"]
    assert overrides["enableIamDatabaseAuthentication"] == "true"
    rules = strongest.resources[group]["Properties"]
    assert "SecurityGroupIngress" not in rules
    assert [rule["CidrIp"] for rule in rules["SecurityGroupEgress"]] == ["255.255.255.255/32"]


def test_only_the_cluster_is_selected(selection):
    assert selection["ProtectedResourceType"] == "Aurora"
    assert len(selection["ProtectedResourceArns"]) == 1
    assert selection["ValidationWindowHours"] == 4


def test_names_have_no_hyphen_because_aws_backup_takes_none(strongest, selection):
    (plan,) = [p for _, p in strongest.of("AWS::Backup::RestoreTestingPlan")]
    for name in (plan["RestoreTestingPlanName"], selection["RestoreTestingSelectionName"]):
        assert re.fullmatch(r"[A-Za-z0-9_]{1,50}", name)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "with-hyphen"}, "got 'with-hyphen'"),
        ({"validation_window_hours": 169}, "validation_window_hours must be within 0-168, got 169"),
        ({"start_window_hours": 0}, "start_window_hours must be within 1-168, got 0"),
        ({"look_back_days": 366}, "look_back_days must be within 1-365, got 366"),
    ],
)
def test_what_aws_backup_refuses_at_deployment_is_refused_at_synth(changes, said):
    with pytest.raises(SynthError, match=said):
        made(new_stack(), **changes)


def test_a_validation_is_started_when_this_plans_restore_is_done():
    stack = new_stack()
    testing = made(stack)
    testing.validate_with("Validate", targets.SnsTopic(sns.Topic(stack, "Topic")))
    pattern = Synthesised.of(stack).one("AWS::Events::Rule")["EventPattern"]
    assert pattern["detail-type"] == ["Restore Job State Change"]
    assert pattern["detail"]["status"] == ["COMPLETED"]
    assert pattern["detail"]["restoreTestingPlanArn"][0].endswith(".RestoreTestingPlanArn>")


def test_whoever_validates_is_given_the_permission_to_answer():
    answer = made(new_stack()).answer()
    assert answer.actions == ["backup:PutRestoreValidationResult"]
    assert answer.wildcard


def test_the_restore_role_makes_only_clusters_that_bear_the_tests_prefix(strongest):
    documents = [p["PolicyDocument"] for n, p in strongest.of("AWS::IAM::ManagedPolicy") if "RestoreTesting" in n]
    clusters = {
        arn
        for d in documents
        for s in d["Statement"]
        for arn in ([s["Resource"]] if isinstance(s["Resource"], str) else s["Resource"])
        if ":cluster:" in arn
    }
    assert {arn.rpartition(":")[2] for arn in clusters} == {"awsbackup-restore-test-*"}


def test_aurora_backup_hands_every_completed_restore_test_to_its_own_validation(strongest):
    (rule,) = [p for _, p in strongest.of("AWS::Events::Rule") if "restoreTestingPlanArn" in str(p["EventPattern"])]
    (plan,) = [n for n, _ in strongest.of("AWS::Backup::RestoreTestingPlan")]
    (machine,) = [n for n, _ in strongest.of("AWS::StepFunctions::StateMachine") if "NativeRestoreTest" in n]
    assert rule["EventPattern"]["detail"] == {"status": ["COMPLETED"], "restoreTestingPlanArn": [strongest.arn(plan)]}
    (target,) = rule["Targets"]
    assert target["Arn"] == strongest.arn(machine)
    assert target["InputTransformer"]["InputPathsMap"] == {"detail-restoreJobId": "$.detail.restoreJobId"}
    assert '"restore_job":<detail-restoreJobId>' in target["InputTransformer"]["InputTemplate"]


def test_what_the_rule_cannot_deliver_reaches_the_encrypted_queue(strongest):
    keys = [p["KeyPolicy"]["Statement"] for _, p in strongest.of("AWS::KMS::Key")]
    (stmt,) = [s for statements in keys for s in statements if s.get("Sid") == "DeadLettersOfRules"]
    assert stmt["Principal"] == {"Service": "events.amazonaws.com"}
    context = stmt["Condition"]["ArnLike"]["kms:EncryptionContext:aws:sqs:arn"]
    assert context.startswith(f"arn:aws:sqs:{strongest.region}:{strongest.account}:")
