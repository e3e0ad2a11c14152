"""TamperAlerts: which calls are told, whose resources, and what is left out."""

from __future__ import annotations

import json

import pytest
from moto.events.models import EventPattern

from tests.synth import hardened


@pytest.fixture(scope="module")
def stack():
    return hardened.synthesised("default").protected


@pytest.fixture(scope="module")
def patterns(stack):
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


def test_a_deployment_is_told_once_and_not_call_by_call(patterns):
    by_hand = {"functionName": "Protected-BackupLogicalDump-X"}
    assert told(patterns, "lambda", "UpdateFunctionCode20150331v2", "cloudformation.amazonaws.com", **by_hand) == 0
    assert told(patterns, "cloudformation", "ExecuteChangeSet", stackName="Protected") == 1


def test_a_change_of_the_stacks_roles_or_policies_is_told(patterns):
    arn = f"arn:aws:iam::{hardened.PROTECTED}:policy/Protected-Dump-X"
    assert told(patterns, "iam", "PutRolePolicy", roleName="Protected-Dump-X") == 1
    assert told(patterns, "iam", "CreatePolicyVersion", policyArn=arn) == 1
    assert told(patterns, "iam", "PutRolePolicy", roleName="somebody-elses") == 0


def test_a_change_of_the_break_glass_role_is_told():
    rules = hardened.synthesised("compliance lock").protected.of("AWS::Events::Rule")
    roles = [EventPattern.load(json.dumps(p["EventPattern"])) for name, p in rules if "RoleCalls" in name]
    assert told(roles, "iam", "UpdateAssumeRolePolicy", roleName="break-glass") == 1


def test_looking_is_not_told(patterns):
    assert told(patterns, "rds", "DescribeDBClusters") == 0
    assert told(patterns, "backup", "ListRecoveryPointsByBackupVault") == 0


def test_every_rule_tells_the_topic(stack):
    (topic,) = [stack.arn(n) for n, _ in stack.of("AWS::SNS::Topic")]
    for name, rule in stack.of("AWS::Events::Rule"):
        if "Calls" in name:
            assert [target["Arn"] for target in rule["Targets"]] == [topic]
