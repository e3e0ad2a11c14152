"""BackupPlan: rules, windows, selections and copies, and what it refuses."""

from __future__ import annotations

import aws_cdk as cdk
import pytest
from aws_cdk import aws_backup as backup
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms

from cdk_aurora_backup import BackupPlan, RetentionPolicy, SynthError
from cdk_aurora_backup.backup_plan import Selection
from cdk_aurora_backup.copies import Copy
from tests.synth.synthesis import ACCOUNT, REGION, Synthesised, imported_cluster, new_stack

OTHER_ACCOUNT, OTHER_REGION = "444455556666", "eu-central-1"
ENV = cdk.Environment(account=ACCOUNT, region=REGION)


def elsewhere(stack, *, account=ACCOUNT, region=REGION, name="copies"):
    arn = f"arn:aws:backup:{region}:{account}:backup-vault:{name}"
    return backup.BackupVault.from_backup_vault_arn(stack, f"{name}{account}{region}", arn)


def rule(name="hourly", **changes):
    options = {
        "rule_name": name,
        "schedule_expression": events.Schedule.expression("cron(0 * * * ? *)"),
        "delete_after": cdk.Duration.days(200),
        **changes,
    }
    return backup.BackupPlanRule(**options)


def planned(stack=None, **options):
    stack = stack or new_stack(env=ENV)
    key = options.pop("key", None) or kms.Key(stack, "Key")
    policy = options.pop("policy", RetentionPolicy.hipaa())
    BackupPlan(stack, "Plan", target=imported_cluster(stack), key=key, policy=policy, **options)
    return Synthesised.of(stack)


def rules_of(found):
    return {r["RuleName"]: r for r in found.one("AWS::Backup::BackupPlan")["BackupPlan"]["BackupPlanRule"]}


def test_rules_of_the_callers_own_stand_beside_the_policys():
    found = rules_of(planned(rules=[rule("hourly"), rule("nightly")]))
    assert sorted(found) == ["hourly", "monthly", "nightly", "weekly"]


def test_the_policys_rules_take_the_windows_that_are_asked_for():
    found = rules_of(planned(start_window=cdk.Duration.hours(2), completion_window=cdk.Duration.hours(20)))
    assert {(r["StartWindowMinutes"], r["CompletionWindowMinutes"]) for r in found.values()} == {(120, 1200)}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"enable_continuous_backup": True, "delete_after": cdk.Duration.days(35)}, "point-in-time recovery owns"),
        ({"move_to_cold_storage_after": cdk.Duration.days(30)}, "no cold storage, got 30 days"),
        ({"delete_after": None}, "nothing ever expires"),
        ({"rule_name": "weekly"}, "rule_name of its own, got 'weekly'"),
        ({"rule_name": None}, "rule_name of its own, got None"),
    ],
)
def test_a_rule_that_aurora_or_the_policy_cannot_have_is_refused_with_the_reason(changes, said):
    with pytest.raises(SynthError, match=said):
        planned(rules=[rule(**changes)])


def test_a_dev_policy_without_snapshot_tiers_makes_a_vault_and_no_plan():
    found = planned(policy=RetentionPolicy.dev(), removal_policy=cdk.RemovalPolicy.DESTROY)
    assert found.all("AWS::Backup::BackupPlan") == []
    assert "AccessPolicy" not in found.one("AWS::Backup::BackupVault")


# Copies.


def test_recovery_points_are_copied_to_several_vaults_each_rule_as_asked():
    stack = new_stack(env=ENV)
    to = [
        Copy(to=elsewhere(stack, account=OTHER_ACCOUNT)),
        Copy(to=elsewhere(stack, region=OTHER_REGION), rules=("monthly",), keep_days=400),
    ]
    found = rules_of(planned(stack, copies=to))
    assert [c["Lifecycle"]["DeleteAfterDays"] for c in found["weekly"]["CopyActions"]] == [180]
    assert [c["Lifecycle"]["DeleteAfterDays"] for c in found["monthly"]["CopyActions"]] == [2192, 400]


def test_a_copy_to_another_account_and_another_region_at_once_is_refused_with_the_remedy():
    stack = new_stack(env=ENV)
    both = elsewhere(stack, account=OTHER_ACCOUNT, region=OTHER_REGION)
    with pytest.raises(SynthError, match=f"vault of {OTHER_ACCOUNT} in this Region"):
        planned(stack, copies=[Copy(to=both)])


def test_a_rule_of_the_callers_own_is_held_to_the_same_reach():
    stack = new_stack(env=ENV)
    both = elsewhere(stack, account=OTHER_ACCOUNT, region=OTHER_REGION)
    action = backup.BackupPlanCopyActionProps(destination_backup_vault=both)
    with pytest.raises(SynthError, match="not to both"):
        planned(stack, rules=[rule(copy_actions=[action])])


def test_a_copy_of_a_rule_that_the_plan_has_not_is_refused():
    stack = new_stack(env=ENV)
    with pytest.raises(SynthError, match="no rule 'daily', it has monthly, weekly"):
        planned(stack, copies=[Copy(to=elsewhere(stack, account=OTHER_ACCOUNT), rules=("daily",))])


def test_a_copy_outside_the_destinations_lock_is_refused():
    stack = new_stack(env=ENV)
    short = Copy(to=elsewhere(stack, account=OTHER_ACCOUNT), keep_days=7, bounds=(30, 3000))
    with pytest.raises(SynthError, match="copy of weekly' keeps for 7 days, outside the vault lock's 30-3000"):
        planned(stack, copies=[short])


def test_the_key_lets_the_other_accounts_backup_service_read_and_nobody_else_of_it():
    stack = new_stack(env=ENV)
    found = planned(stack, copies=[Copy(to=elsewhere(stack, account=OTHER_ACCOUNT))])
    statements = {s.get("Sid"): s for s in found.one("AWS::KMS::Key")["KeyPolicy"]["Statement"]}
    for sid in (f"CopyTo{OTHER_ACCOUNT}", f"GrantTo{OTHER_ACCOUNT}"):
        role = statements[sid]["Condition"]["ArnEquals"]["aws:PrincipalArn"]
        assert role.endswith(f"{OTHER_ACCOUNT}:role/aws-service-role/backup.amazonaws.com/AWSServiceRoleForBackup")
    assert "kms:ScheduleKeyDeletion" not in str(statements[f"CopyTo{OTHER_ACCOUNT}"]["Action"])


def test_an_existing_key_is_told_what_copies_need_of_it():
    stack = new_stack(env=ENV)
    key = kms.Key.from_key_arn(stack, "Mine", f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1234")
    found = planned(stack, key=key, copies=[Copy(to=elsewhere(stack, account=OTHER_ACCOUNT))])
    assert f"CopyTo{OTHER_ACCOUNT}" in found.said("info")


def test_a_copy_to_another_region_of_this_account_shares_no_key():
    stack = new_stack(env=ENV)
    found = planned(stack, copies=[Copy(to=elsewhere(stack, region=OTHER_REGION))])
    assert "CopyTo" not in str(found.one("AWS::KMS::Key")["KeyPolicy"])
    snapshots = [s for _, s in found.policies() if s["Sid"] == "OwnSnapshots"]
    assert any(OTHER_REGION in arn for arn in snapshots[0]["Resource"])


def test_a_stack_that_names_no_account_lets_the_vaults_account_read_and_says_that_nothing_was_checked():
    stack = new_stack()
    found = planned(stack, copies=[Copy(to=elsewhere(stack, account=OTHER_ACCOUNT, region=OTHER_REGION))])
    assert f"CopyTo{OTHER_ACCOUNT}" in str(found.one("AWS::KMS::Key")["KeyPolicy"])
    assert "names no account and Region" in found.said("warning")


def test_the_keys_of_more_selections_are_shared_with_the_account_that_receives_copies():
    stack = new_stack(env=ENV)
    theirs = kms.Key(stack, "Theirs")
    more = Selection(arns=(f"arn:aws:rds:{REGION}:{ACCOUNT}:cluster:one",), keys=(theirs,))
    to = [Copy(to=elsewhere(stack, account=OTHER_ACCOUNT))]
    found = planned(stack, copies=to, selections={"More": more})
    assert f"CopyTo{OTHER_ACCOUNT}" in str(found.named("AWS::KMS::Key", "Theirs")["KeyPolicy"])


def test_the_role_may_use_the_key_of_the_vault_that_it_copies_into_in_another_region():
    stack = new_stack(env=ENV)
    arn = f"arn:aws:kms:{OTHER_REGION}:{ACCOUNT}:key/far"
    to = Copy(to=elsewhere(stack, region=OTHER_REGION), key=kms.Key.from_key_arn(stack, "Far", arn))
    statements = [s for _, s in planned(stack, copies=[to]).policies()]
    assert all(arn in s["Resource"] for s in statements if s["Sid"] in {"Key", "KeyGrants"})


def test_a_copy_of_the_callers_own_rule_is_held_to_the_bounds_of_the_vault():
    stack = new_stack(env=ENV)
    to = Copy(to=elsewhere(stack, account=OTHER_ACCOUNT), rules=("weekly",), bounds=(30, 3000))
    for days, said in (
        (cdk.Duration.days(7), "copy of hourly' keeps for 7 days"),
        (None, "delete_after must be given"),
    ):
        action = backup.BackupPlanCopyActionProps(destination_backup_vault=to.vault, delete_after=days)
        with pytest.raises(SynthError, match=said):
            planned(new_stack(env=ENV), rules=[rule(copy_actions=[action])], copies=[to])


def test_a_rule_that_writes_into_a_vault_of_its_own_may_and_does_not_move_the_plans_lock():
    stack = new_stack(env=ENV)
    own = elsewhere(stack, name="own")
    found = planned(stack, rules=[rule(backup_vault=own, delete_after=cdk.Duration.days(3))])
    assert found.one("AWS::Backup::BackupVault")["LockConfiguration"]["MinRetentionDays"] == 180
    (vaults,) = [s["Resource"] for _, s in found.policies() if s["Sid"] == "Vault"]
    assert own.backup_vault_arn in vaults


# Selections.


def test_a_selection_of_the_callers_never_takes_the_clusters_place():
    with pytest.raises(SynthError, match="selections must not have the name 'Cluster'"):
        planned(selections={"Cluster": Selection(any_tag={"backup": "yes"})})


def test_selections_by_tag_and_condition_get_a_role_that_is_bound_to_the_tag():
    more = Selection(any_tag={"backup": "yes"}, conditions={"StringLike": {"aws:ResourceTag/stage": "prod*"}})
    found = planned(selections={"Tagged": more})
    chosen = found.named("AWS::Backup::BackupSelection", "Tagged")["BackupSelection"]
    assert chosen["ListOfTags"] == [
        {"ConditionType": "STRINGEQUALS", "ConditionKey": "backup", "ConditionValue": "yes"}
    ]
    assert chosen["Conditions"] == {
        "StringLike": [{"ConditionKey": "aws:ResourceTag/stage", "ConditionValue": "prod*"}]
    }
    may = [s for _, s in found.policies() if s["Sid"].startswith("SnapshotTagged")]
    assert [s["Condition"] for s in may] == [
        {"StringEquals": {"aws:ResourceTag/backup": "yes"}},
        {"StringLike": {"aws:ResourceTag/stage": "prod*"}},
    ]


def test_a_selection_by_arn_takes_the_callers_role_when_there_is_one():
    stack = new_stack(env=ENV)
    role = iam.Role.from_role_arn(stack, "Theirs", f"arn:aws:iam::{ACCOUNT}:role/theirs")
    arns = (f"arn:aws:rds:{REGION}:{ACCOUNT}:cluster:one",)
    found = planned(stack, selections={"One": Selection(arns=arns, not_arns=(f"{arns[0]}-test",), role=role)})
    chosen = found.named("AWS::Backup::BackupSelection", "One")["BackupSelection"]
    assert chosen["IamRoleArn"].endswith(":role/theirs")
    assert chosen["Resources"] == list(arns)
    assert chosen["NotResources"] == [f"{arns[0]}-test"]


def test_conditions_that_must_all_hold_are_one_statement_of_the_role():
    conditions = {"StringLike": {"aws:ResourceTag/stage": "prod*"}, "StringNotEquals": {"aws:ResourceTag/tmp": "yes"}}
    found = planned(selections={"Stage": Selection(conditions=conditions)})
    (may,) = [s for _, s in found.policies() if s["Sid"].startswith("SnapshotTagged")]
    assert may["Condition"] == conditions


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "selects nothing"),
        ({"conditions": {"DateEquals": {"aws:ResourceTag/a": "b"}}}, "got 'DateEquals'"),
        ({"conditions": {"StringEquals": {"stage": "b"}}}, "got 'stage'"),
    ],
)
def test_a_selection_that_aws_backup_would_refuse_is_refused(given, said):
    with pytest.raises(SynthError, match=said):
        Selection(**given)
