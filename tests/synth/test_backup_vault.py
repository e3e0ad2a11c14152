"""Vaults: lock bounds against every rule, the acknowledgements, and the policy that keeps everybody out."""

from __future__ import annotations

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns

from cdk_aurora_backup import SynthError
from cdk_aurora_backup.backup_vault import (
    PROTECTED_ACTIONS,
    AirGappedVault,
    BackupVault,
    VaultLock,
    air_gapped_acknowledgement,
    compliance_acknowledgement,
)
from tests.synth.synthesis import ACCOUNT, Synthesised, new_stack

RULES = {"weekly": 180, "monthly": 2192}


def vaulted(stack=None, **options):
    stack = stack or new_stack()
    BackupVault(stack, "Vault", key=kms.Key(stack, "Key"), rules=RULES, **options)
    return Synthesised.of(stack).one("AWS::Backup::BackupVault")


def denials(vault):
    return {stmt["Sid"]: stmt for stmt in vault["AccessPolicy"]["Statement"] if stmt["Effect"] == "Deny"}


def test_the_default_is_a_governance_lock_with_bounds_from_the_rules():
    assert vaulted()["LockConfiguration"] == {"MinRetentionDays": 180, "MaxRetentionDays": 2192}


def test_a_compliance_lock_needs_the_sentence_with_the_vaults_name_and_the_days():
    lock = VaultLock.compliance(cooling_off_days=14, acknowledgement=compliance_acknowledgement("clinic", 14))
    assert vaulted(name="clinic", lock=lock)["LockConfiguration"]["ChangeableForDays"] == 14


@pytest.mark.parametrize(
    "said", ["", "yes", compliance_acknowledgement("other", 14), compliance_acknowledgement("clinic", 15)]
)
def test_any_other_sentence_is_refused_and_the_right_one_is_shown(said):
    lock = VaultLock.compliance(cooling_off_days=14, acknowledgement=said)
    with pytest.raises(SynthError, match="Nobody can unlock vault clinic after 14 days, ever"):
        vaulted(name="clinic", lock=lock)


@pytest.mark.parametrize(
    ("lock", "said"),
    [
        ({"min_days": 0}, "min_days must be within 1-36500, got 0"),
        ({"max_days": 36501}, "max_days must be within 1-36500, got 36501"),
        ({"min_days": 30, "max_days": 20}, "max_days 20, got 30"),
        ({"cooling_off_days": 2}, "cooling_off_days must be within 3-36500, got 2"),
    ],
)
def test_bounds_that_aws_backup_would_refuse_are_refused(lock, said):
    with pytest.raises(SynthError, match=said):
        VaultLock(**lock)


@pytest.mark.parametrize(
    ("bounds", "said"),
    [({"min_days": 181}, "'weekly' keeps for 180 days"), ({"max_days": 2191}, "'monthly' keeps for 2192 days")],
)
def test_a_rule_outside_the_lock_is_refused_because_each_of_its_jobs_would_fail(bounds, said):
    with pytest.raises(SynthError, match=said):
        vaulted(lock=VaultLock.governance(**bounds))


def test_the_policy_denies_deletion_and_policy_changes_to_all_but_break_glass():
    stack = new_stack()
    role = iam.Role.from_role_arn(stack, "Glass", f"arn:aws:iam::{ACCOUNT}:role/glass")
    stmt = denials(vaulted(stack, break_glass=[role]))["DenyDeletionOutsideBreakGlass"]
    assert (stmt["Effect"], stmt["Principal"], stmt["Resource"]) == ("Deny", {"AWS": "*"}, "*")
    assert sorted(stmt["Action"]) == sorted(PROTECTED_ACTIONS)
    assert stmt["Condition"] == {"ArnNotEquals": {"aws:PrincipalArn": [f"arn:aws:iam::{ACCOUNT}:role/glass"]}}


@pytest.mark.parametrize("lock", [VaultLock.governance(), None])
def test_nobody_makes_a_vault_without_a_compliance_lock_into_one_with_it(lock):
    stmt = denials(vaulted(lock=lock))["DenyComplianceLock"]
    assert (stmt["Principal"], stmt["Resource"]) == ({"AWS": "*"}, "*")
    assert stmt["Action"] == "backup:PutBackupVaultLockConfiguration"
    assert stmt["Condition"] == {"Null": {"backup:ChangeableForDays": "false"}}


def test_a_compliance_lock_is_not_denied_where_it_was_asked_for():
    lock = VaultLock.compliance(cooling_off_days=14, acknowledgement=compliance_acknowledgement("clinic", 14))
    assert list(denials(vaulted(name="clinic", lock=lock))) == ["DenyDeletionOutsideBreakGlass"]


def test_the_policy_satisfies_the_audit_control_on_manual_deletion():
    # BACKUP_RECOVERY_POINT_MANUAL_DELETION_DISABLED looks for these three, with `*` as principal and resource.
    assert {
        "backup:DeleteRecoveryPoint", "backup:UpdateRecoveryPointLifecycle", "backup:PutBackupVaultAccessPolicy",
    } <= set(PROTECTED_ACTIONS)  # fmt: skip


def test_the_policy_holds_no_action_wildcard_because_vault_policies_take_none():
    assert not [action for action in PROTECTED_ACTIONS if "*" in action]


def test_the_policy_leaves_alone_what_cloudformation_puts_after_it():
    assert "backup:PutBackupVaultLockConfiguration" not in PROTECTED_ACTIONS
    assert "backup:PutBackupVaultNotifications" not in PROTECTED_ACTIONS


def test_an_unprotected_vault_has_neither_lock_nor_policy_so_that_it_can_go():
    found = vaulted(protected=False, removal_policy=cdk.RemovalPolicy.DESTROY)
    assert "LockConfiguration" not in found
    assert "AccessPolicy" not in found


def test_a_protected_vault_that_would_be_destroyed_is_refused():
    with pytest.raises(SynthError, match="removal_policy must be RETAIN"):
        vaulted(removal_policy=cdk.RemovalPolicy.DESTROY)


def test_the_topic_hears_of_failed_jobs_and_changed_recovery_points():
    stack = new_stack()
    found = vaulted(stack, topic=sns.Topic(stack, "Topic"))
    events = set(found["Notifications"]["BackupVaultEvents"])
    assert {"BACKUP_JOB_COMPLETED", "COPY_JOB_FAILED", "RECOVERY_POINT_MODIFIED"} <= events
    # "PutBackupVaultNotifications": what is left out of the list of supported events is sent by nobody.
    assert not events & {"BACKUP_JOB_FAILED", "BACKUP_JOB_EXPIRED", "BACKUP_JOB_SUCCESSFUL", "RESTORE_JOB_FAILED"}


@pytest.mark.parametrize("name", ["a", "has space", "x" * 51])
def test_a_name_that_aws_backup_refuses_is_refused(name):
    with pytest.raises(SynthError, match="2-50 letters"):
        vaulted(name=name)


# The air-gapped vault.


def air_gapped(**changes):
    stack = new_stack()
    options = {
        "name": "gap", "min_days": 180, "max_days": 2192, "rules": RULES,
        "acknowledgement": air_gapped_acknowledgement("gap", 180, 2192), **changes,
    }  # fmt: skip
    AirGappedVault(stack, "Gap", **options)
    return Synthesised.of(stack)


def test_an_air_gapped_vault_outlives_its_stack_and_lets_the_other_account_copy_in():
    found = air_gapped(copies_from=[ACCOUNT])
    (name,) = found.ids("AWS::Backup::LogicallyAirGappedBackupVault")
    assert found.resources[name]["DeletionPolicy"] == "Retain"
    (stmt,) = found.resources[name]["Properties"]["AccessPolicy"]["Statement"]
    assert (stmt["Effect"], stmt["Action"]) == ("Allow", "backup:CopyIntoBackupVault")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"min_days": 6}, "7 or more, got 6"),
        ({"acknowledgement": "yes"}, "Nothing in vault gap can be deleted early"),
        ({"rules": {"daily": 35}}, "'daily' keeps for 35 days"),
    ],
)
def test_an_air_gapped_vault_that_would_refuse_its_copies_is_refused(changes, said):
    with pytest.raises(SynthError, match=said):
        air_gapped(**changes)


def test_two_apps_with_the_same_constructs_at_the_same_path_make_vaults_of_different_names():
    names = [vaulted(new_stack("Mine", stack_name=name))["BackupVaultName"] for name in ("clinic-one", "clinic-two")]
    assert len(set(names)) == 2
    assert all(2 <= len(name) <= 50 for name in names)


def test_a_default_name_is_cut_to_what_aws_backup_takes_and_stays_its_own():
    long = [vaulted(new_stack("Mine", stack_name=f"{'clinic-' * 10}{n}"))["BackupVaultName"] for n in "ab"]
    assert len(set(long)) == 2
    assert max(map(len, long)) <= 50
