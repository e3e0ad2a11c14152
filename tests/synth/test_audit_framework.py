"""AuditFramework: AWS's controls with the policy's numbers."""

from __future__ import annotations

import re

import pytest
from aws_cdk import aws_iam as iam

from cdk_aurora_backup import RetentionPolicy, SynthError
from cdk_aurora_backup.audit_framework import AuditFramework
from tests.synth.synthesis import ACCOUNT, Synthesised, imported_cluster, new_stack


def audited(policy=None, *, break_glass=False):
    stack = new_stack()
    roles = [iam.Role.from_role_arn(stack, "Glass", f"arn:aws:iam::{ACCOUNT}:role/glass")] if break_glass else []
    policy = policy or RetentionPolicy.hipaa()
    AuditFramework(stack, "Audit", target=imported_cluster(stack), policy=policy, break_glass=roles)
    return Synthesised.of(stack).one("AWS::Backup::Framework")


def inputs(framework, control):
    (found,) = [c for c in framework["FrameworkControls"] if c["ControlName"] == control]
    return {p["ParameterName"]: p["ParameterValue"] for p in found.get("ControlInputParameters", [])}


def test_there_are_exactly_the_confirmed_controls():
    assert {c["ControlName"] for c in audited()["FrameworkControls"]} == {
        "BACKUP_RESOURCES_PROTECTED_BY_BACKUP_PLAN",
        "BACKUP_PLAN_MIN_FREQUENCY_AND_MIN_RETENTION_CHECK",
        "BACKUP_RECOVERY_POINT_ENCRYPTED",
        "BACKUP_RECOVERY_POINT_MINIMUM_RETENTION_CHECK",
        "BACKUP_RECOVERY_POINT_MANUAL_DELETION_DISABLED",
        "BACKUP_LAST_RECOVERY_POINT_CREATED",
    }


def test_the_numbers_are_the_hipaa_policys_and_not_awss_daily_defaults():
    framework = audited()
    assert inputs(framework, "BACKUP_PLAN_MIN_FREQUENCY_AND_MIN_RETENTION_CHECK") == {
        "requiredFrequencyUnit": "days", "requiredFrequencyValue": "7", "requiredRetentionDays": "180",
    }  # fmt: skip
    assert inputs(framework, "BACKUP_RECOVERY_POINT_MINIMUM_RETENTION_CHECK") == {"requiredRetentionDays": "180"}
    # A week and the start window: a point that is seven days and an hour old is not late.
    assert inputs(framework, "BACKUP_LAST_RECOVERY_POINT_CREATED") == {
        "recoveryPointAgeUnit": "days", "recoveryPointAgeValue": "8",
    }  # fmt: skip


def test_a_monthly_policy_stays_within_what_the_controls_accept():
    framework = audited(RetentionPolicy.hipaa().with_changes({"weekly": None}))
    assert inputs(framework, "BACKUP_PLAN_MIN_FREQUENCY_AND_MIN_RETENTION_CHECK")["requiredFrequencyValue"] == "31"
    assert inputs(framework, "BACKUP_LAST_RECOVERY_POINT_CREATED")["recoveryPointAgeValue"] == "31"


def test_the_break_glass_role_is_left_out_of_the_deletion_control():
    control = "BACKUP_RECOVERY_POINT_MANUAL_DELETION_DISABLED"
    assert inputs(audited(break_glass=True), control) == {"principalArnList": f"arn:aws:iam::{ACCOUNT}:role/glass"}
    assert inputs(audited(), control) == {}


def test_the_controls_on_the_cluster_look_at_this_cluster_only():
    scopes = [c["ControlScope"] for c in audited()["FrameworkControls"] if "ControlScope" in c]
    assert (
        scopes == [{"ComplianceResourceTypes": ["Aurora"], "ComplianceResourceIds": ["cluster-ABCDEFGHIJKLMNOP"]}] * 2
    )


def test_the_name_has_no_hyphen_because_aws_backup_takes_none():
    assert re.fullmatch(r"[a-zA-Z][_a-zA-Z0-9]*", audited()["FrameworkName"])


def test_a_policy_without_snapshots_has_nothing_to_audit_and_is_refused():
    with pytest.raises(SynthError, match="got neither"):
        audited(RetentionPolicy.dev())
