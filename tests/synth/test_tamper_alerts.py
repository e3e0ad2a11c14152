"""TamperAlerts: which calls are told, whose resources, and what is left out."""

from __future__ import annotations

import json

import aws_cdk as cdk
import pytest
from aws_cdk import aws_s3 as s3
from moto.events.models import EventPattern

from cdk_aurora_backup.alerts import BackupAlerts
from cdk_aurora_backup.backup_key import BackupKey
from cdk_aurora_backup.tamper_alerts import TamperAlerts
from tests.synth import hardened
from tests.synth.resolution import Resolved
from tests.synth.synthesis import imported_cluster, new_stack


@pytest.fixture(scope="module")
def stack():
    return hardened.synthesised("default").protected


@pytest.fixture(scope="module")
def patterns(stack):
    return heard_by(stack)


def heard_by(stack):
    rules = [p["EventPattern"] for _, p in stack.of("AWS::Events::Rule")]
    return [EventPattern.load(json.dumps(p)) for p in rules if p["detail-type"] == ["AWS API Call via CloudTrail"]]


def told(patterns, service, call, source="203.0.113.7", **parameters):
    detail = {
        "eventSource": f"{service}.amazonaws.com", "eventName": call, "sourceIPAddress": source,
        "requestParameters": parameters,
    }  # fmt: skip
    event = {"source": f"aws.{service}", "detail-type": "AWS API Call via CloudTrail", "detail": detail}
    return sum(pattern.matches_event(event) for pattern in patterns)


def test_only_our_bucket_is_watched(stack, patterns):
    ours = next(stack.name(n) for n, _ in stack.of("AWS::S3::Bucket") if "StorageBucket" in n)
    assert told(patterns, "s3", "PutBucketLifecycle", bucketName=ours) == 1
    assert told(patterns, "s3", "PutBucketLifecycle", bucketName="somebody-elses") == 0


def test_a_function_is_ours_by_name_and_by_arn(patterns):
    name = "Protected-BackupLogicalDump-X"
    arn = f"arn:aws:lambda:{hardened.REGION}:{hardened.PROTECTED}:function:{name}"
    for given in (name, arn):
        assert told(patterns, "lambda", "UpdateFunctionCode20150331v2", functionName=given) == 1
    assert told(patterns, "lambda", "UpdateFunctionCode20150331v2", functionName="other") == 0


def test_two_rules_watch_the_rules(patterns):
    assert told(patterns, "events", "DeleteRule", name="Protected-BackupAlerts-X") == 2
    assert told(patterns, "events", "RemoveTargets", rule="Protected-BackupAlerts-X") == 2
    assert told(patterns, "events", "DeleteRule", name="Other-Rule") == 0


@pytest.mark.parametrize(
    ("service", "call", "parameter", "heard"),
    [
        ("events", "PutTargets", "rule", 2),
        ("sns", "SetSubscriptionAttributes", "subscriptionArn", 1),
        ("sns", "PutDataProtectionPolicy", "resourceArn", 1),
        ("s3", "PutBucketLogging", "bucketName", 1),
        ("s3", "PutBucketPublicAccessBlock", "bucketName", 1),
        ("s3", "DeleteBucketPublicAccessBlock", "bucketName", 1),
    ],
)
def test_what_silences_alerts_without_deleting_anything_is_told(stack, patterns, service, call, parameter, heard):
    (topic,) = [stack.arn(n) for n, _ in stack.of("AWS::SNS::Topic")]
    ours = {
        "rule": "Protected-BackupAlerts-X",
        "subscriptionArn": f"{topic}:1f8c0ab2-0000-4000-8000-000000000000",
        "resourceArn": topic,
        "bucketName": next(stack.name(n) for n, _ in stack.of("AWS::S3::Bucket") if "StorageBucket" in n),
    }
    assert told(patterns, service, call, **{parameter: ours[parameter]}) == heard


def test_a_deployment_is_told_once_and_not_call_by_call(patterns):
    by_hand = {"functionName": "Protected-BackupLogicalDump-X"}
    assert told(patterns, "lambda", "UpdateFunctionCode20150331v2", "cloudformation.amazonaws.com", **by_hand) == 0
    assert told(patterns, "cloudformation", "ExecuteChangeSet", stackName="Protected", changeSetName="cdk-deploy") == 1


def test_a_change_set_that_is_executed_by_its_arn_is_told_because_it_may_be_of_our_stack(patterns):
    arn = f"arn:aws:cloudformation:{hardened.REGION}:{hardened.PROTECTED}:changeSet/quiet/1f8c0ab2"
    assert told(patterns, "cloudformation", "ExecuteChangeSet", changeSetName=arn) == 1
    assert told(patterns, "cloudformation", "ExecuteChangeSet", changeSetName=arn, stackName="Protected") == 1
    assert told(patterns, "cloudformation", "ExecuteChangeSet", changeSetName="release", stackName="Other") == 0


def test_a_change_of_the_stacks_roles_or_policies_is_told(patterns):
    arn = f"arn:aws:iam::{hardened.PROTECTED}:policy/Protected-Dump-X"
    assert told(patterns, "iam", "PutRolePolicy", roleName="Protected-Dump-X") == 1
    assert told(patterns, "iam", "CreatePolicyVersion", policyArn=arn) == 1
    assert told(patterns, "iam", "PutRolePolicy", roleName="somebody-elses") == 0


def test_a_change_of_the_break_glass_role_is_told():
    rules = hardened.synthesised("compliance lock").protected.of("AWS::Events::Rule")
    roles = [EventPattern.load(json.dumps(p["EventPattern"])) for name, p in rules if "RoleCalls" in name]
    assert told(roles, "iam", "UpdateAssumeRolePolicy", roleName="break-glass") == 1


LONG = "Clinic-111122223333-eu-west-1"
CALLS = {  # by type: the call, and what its event says of a resource
    "AWS::Events::Rule": ("events", "DisableRule", lambda stack, n: {"name": stack.name(n)}),
    "AWS::IAM::ManagedPolicy": ("iam", "CreatePolicyVersion", lambda stack, n: {"policyArn": stack.arn(n)}),
    "AWS::IAM::Role": ("iam", "PutRolePolicy", lambda stack, n: {"roleName": stack.name(n)}),
    "AWS::Lambda::Function": (
        "lambda", "UpdateFunctionCode20150331v2", lambda stack, n: {"functionName": stack.arn(n)},
    ),
    "AWS::Scheduler::Schedule": ("scheduler", "UpdateSchedule", lambda stack, n: {"name": stack.name(n)}),
    "AWS::StepFunctions::StateMachine": (
        "states", "UpdateStateMachine", lambda stack, n: {"stateMachineArn": stack.arn(n)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CALLS)
def test_every_resource_is_watched_also_where_cloudformation_cuts_the_stacks_name(many_accounts, kind):
    template = json.loads((many_accounts / f"{LONG}.template.json").read_text())
    stack = Resolved(LONG, hardened.PROTECTED, hardened.REGION, template)
    service, call, said = CALLS[kind]
    patterns = heard_by(stack)
    names = [n for n, _ in stack.of(kind)]
    assert len(names) > 5
    assert [n for n in names if not told(patterns, service, call, **said(stack, n))] == []


def test_no_pattern_is_longer_than_eventbridge_takes(many_accounts, stack):
    template = json.loads((many_accounts / f"{LONG}.template.json").read_text())
    for deployed in (stack, Resolved(LONG, hardened.PROTECTED, hardened.REGION, template)):
        lengths = [len(json.dumps(p["EventPattern"])) for _, p in deployed.of("AWS::Events::Rule")]
        assert max(lengths) <= 2048


def test_in_a_nested_stack_the_name_that_the_deployment_gave_is_watched():
    inner = cdk.NestedStack(new_stack("Outer"), "Inner")
    key = BackupKey(inner, "Key").key
    alerts = BackupAlerts(inner, "Alerts", key=key, cluster=imported_cluster(inner).cluster)
    TamperAlerts(inner, "Tampering", alerts=alerts, bucket=s3.Bucket.from_bucket_name(inner, "Bucket", "sets"))
    (rule,) = [r for r in alerts.rules if r.node.id == "FunctionCalls"]
    pattern = inner.resolve(rule.node.default_child.event_pattern)
    assert "*:function:Outer-*" in json.dumps(pattern)


def test_looking_is_not_told(patterns):
    assert told(patterns, "rds", "DescribeDBClusters") == 0
    assert told(patterns, "backup", "ListRecoveryPointsByBackupVault") == 0


def test_every_rule_tells_the_topic(stack):
    (topic,) = [stack.arn(n) for n, _ in stack.of("AWS::SNS::Topic")]
    for name, rule in stack.of("AWS::Events::Rule"):
        if "Calls" in name:
            assert [target["Arn"] for target in rule["Targets"]] == [topic]
