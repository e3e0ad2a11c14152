"""BackupKey: who may delete it, and which services may use it."""

from __future__ import annotations

import pytest
from aws_cdk import RemovalPolicy
from aws_cdk import aws_iam as iam

from cdk_aurora_backup import BackupKey, SynthError
from tests.synth.synthesis import ACCOUNT, Synthesised, new_stack

ROLE = f"arn:aws:iam::{ACCOUNT}:role/BreakGlass"
ROOT = "arn:<AWS::Partition>:iam::<AWS::AccountId>:root"


def statements(**options):
    stack = new_stack()
    roles = [iam.Role.from_role_arn(stack, f"Role{n}", arn) for n, arn in enumerate(options.pop("break_glass", []))]
    BackupKey(stack, "Key", break_glass=roles, **options)
    template = Synthesised.of(stack)
    return {s.get("Sid"): s for s in template.one("AWS::KMS::Key")["KeyPolicy"]["Statement"]}, template


@pytest.mark.parametrize(
    ("break_glass", "spared"), [([], [ROOT]), ([ROLE], [ROLE]), ([ROLE, ROLE + "2"], [ROLE, ROLE + "2"])]
)
def test_deletion_and_disabling_are_denied_to_everyone_but_break_glass_or_else_root(break_glass, spared):
    denial = statements(break_glass=break_glass)[0]["DenyDeletionOutsideBreakGlass"]
    assert denial["Effect"] == "Deny"
    assert denial["Principal"] in ("*", {"AWS": "*"})
    assert {"kms:ScheduleKeyDeletion", "kms:DisableKey"} <= set(denial["Action"])
    assert denial["Condition"] == {"ArnNotEquals": {"aws:PrincipalArn": spared}}


def test_it_rotates_waits_thirty_days_and_outlives_the_stack():
    template = statements()[1]
    key = template.one("AWS::KMS::Key")
    assert (key["EnableKeyRotation"], key["PendingWindowInDays"]) == (True, 30)
    assert template.resources[template.ids("AWS::KMS::Key")[0]]["DeletionPolicy"] == "Retain"


def test_eventbridge_is_bound_by_the_topic_because_it_sends_no_source_account():
    # Asked for aws:SourceAccount, EventBridge delivers nothing to an encrypted topic, and says so nowhere.
    condition = statements()[0]["Events"]["Condition"]
    topics = "arn:<AWS::Partition>:sns:<AWS::Region>:<AWS::AccountId>:*"
    assert condition == {"ArnLike": {"kms:EncryptionContext:aws:sns:topicArn": topics}}


def test_alarms_and_log_groups_of_this_account_only_may_use_it():
    found = statements()[0]
    assert found["Alarms"]["Condition"] == {"StringEquals": {"aws:SourceAccount": "<AWS::AccountId>"}}
    groups = "arn:<AWS::Partition>:logs:<AWS::Region>:<AWS::AccountId>:log-group:*"
    assert found["LogGroups"]["Condition"] == {"ArnLike": {"kms:EncryptionContext:aws:logs:arn": groups}}
    assert found["LogGroups"]["Principal"] == {"Service": "logs.<AWS::Region>.<AWS::URLSuffix>"}


def test_a_protected_key_that_is_destroyed_with_its_stack_is_refused_because_deployment_would_get_stuck():
    with pytest.raises(
        SynthError, match=r"BackupKey\.removal_policy must be RETAIN while protected is True.*got DESTROY"
    ):
        BackupKey(new_stack(), "Key", removal_policy=RemovalPolicy.DESTROY)


def test_an_unprotected_key_can_be_destroyed():
    found, template = statements(protected=False, removal_policy=RemovalPolicy.DESTROY)
    assert "DenyDeletionOutsideBreakGlass" not in found
    assert template.resources[template.ids("AWS::KMS::Key")[0]]["DeletionPolicy"] == "Delete"
