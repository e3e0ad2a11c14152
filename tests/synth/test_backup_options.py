"""Every option of the AWS Backup constructs, each in a stack of its own, through all four compliance packs at once."""

from __future__ import annotations

import json
from pathlib import Path

import aws_cdk as cdk
import pytest
from aws_cdk import aws_backup as backup
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from cdk_nag import AwsSolutionsChecks, HIPAASecurityChecks, NIST80053R5Checks, PCIDSS321Checks

from aurora_backup.policy import RetentionPolicy
from cdk_aurora_backup.alerts import BackupAlerts
from cdk_aurora_backup.audit_framework import AuditFramework
from cdk_aurora_backup.backup_bucket import BackupBucket
from cdk_aurora_backup.backup_key import BackupKey
from cdk_aurora_backup.backup_plan import BackupPlan, Selection
from cdk_aurora_backup.backup_vault import (
    AirGappedVault,
    BackupVault,
    VaultLock,
    air_gapped_acknowledgement,
    compliance_acknowledgement,
    vault_arn,
)
from cdk_aurora_backup.copies import Copy, seen_from
from cdk_aurora_backup.replication import Replica, ReplicateTo, Replication
from cdk_aurora_backup.report_plans import ReportPlans
from cdk_aurora_backup.restore_testing import RestoreTesting
from cdk_aurora_backup.tamper_alerts import TamperAlerts
from cdk_aurora_backup.vault_account import VAULT_NAME, BackupVaultAccount
from tests import programs
from tests.synth.synthesis import ACCOUNT, REGION, imported_cluster, new_app

POLICY = RetentionPolicy.hipaa()
OTHER, ELSEWHERE = "444455556666", "eu-central-1"
DAYS = sorted(rule.delete_after_days for rule in POLICY.snapshot_rules())
PACKS = (HIPAASecurityChecks, NIST80053R5Checks, PCIDSS321Checks, AwsSolutionsChecks)


def plan(stack, **options):
    key = BackupKey(stack, "Key").key
    return BackupPlan(stack, "Plan", target=imported_cluster(stack, key=key), key=key, policy=POLICY, **options)


def vault(stack, account, region, name="copies"):
    return backup.BackupVault.from_backup_vault_arn(
        stack, f"{account}{region}", vault_arn(stack, name, account=account, region=region)
    )


def bucket(stack, key):
    return BackupBucket(stack, "Storage", key=key, policy=POLICY).bucket


def rules(stack):
    extra = backup.BackupPlanRule(
        rule_name="quarterly",
        schedule_expression=events.Schedule.expression("cron(0 5 1 */3 ? *)"),
        delete_after=cdk.Duration.days(400),
    )
    plan(stack, rules=[extra])


def windows(stack):
    plan(stack, start_window=cdk.Duration.hours(2), completion_window=cdk.Duration.hours(10))


def selection_by_arn(stack):
    plan(stack, selections={"More": Selection(arns=(f"arn:aws:rds:{REGION}:{ACCOUNT}:cluster:other",))})


def selection_by_tag(stack):
    plan(stack, selections={"Tagged": Selection(any_tag={"backup": "yes"})})


def selection_by_condition(stack):
    conditions = {"StringLike": {"aws:ResourceTag/stage": "prod*"}, "StringNotEquals": {"aws:ResourceTag/tmp": "yes"}}
    plan(stack, selections={"Stage": Selection(conditions=conditions)})


def copy_to_region(stack):
    plan(stack, copies=[Copy(to=vault(stack, ACCOUNT, ELSEWHERE))])


def copy_to_account(stack):
    plan(stack, copies=[Copy(to=vault(stack, OTHER, REGION))])


def several_copies(stack):
    plan(stack, copies=[Copy(to=vault(stack, OTHER, REGION)), Copy(to=vault(stack, ACCOUNT, ELSEWHERE), keep_days=90)])


def existing_vault(stack):
    plan(stack, vault=vault(stack, ACCOUNT, REGION, "ours"))


def named_vault(stack):
    plan(stack, vault_name="clinic-snapshots")


def no_lock(stack):
    plan(stack, lock=None)


def governance_lock_with_bounds(stack):
    plan(stack, lock=VaultLock.governance(min_days=30, max_days=4000))


def compliance_lock(stack):
    said = compliance_acknowledgement("clinic-snapshots", 14)
    plan(stack, vault_name="clinic-snapshots", lock=VaultLock.compliance(cooling_off_days=14, acknowledgement=said))


def break_glass(stack):
    plan(stack, break_glass=[iam.Role.from_role_arn(stack, "Glass", f"arn:aws:iam::{ACCOUNT}:role/glass")])


def notified_vault_with_copies_from_elsewhere(stack):
    key = BackupKey(stack, "Key").key
    alerts = BackupAlerts(stack, "Alerts", key=key, cluster=imported_cluster(stack).cluster, emails=["a@example.org"])
    BackupVault(stack, "Vault", key=key, rules={"weekly": 180}, topic=alerts.topic, copies_from=[OTHER])


def disposable(stack):
    plan(stack, removal_policy=cdk.RemovalPolicy.DESTROY)


def air_gapped(stack):
    said = air_gapped_acknowledgement("gapped", *DAYS)
    gapped = AirGappedVault(
        stack, "Gapped", name="gapped", min_days=DAYS[0], max_days=DAYS[1], rules={}, acknowledgement=said
    )
    plan(stack, copies=[Copy(to=gapped)])


def audited_and_reported(stack):
    key = BackupKey(stack, "Key").key
    framework = AuditFramework(stack, "Audit", target=imported_cluster(stack), policy=POLICY)
    ReportPlans(stack, "Reports", bucket=bucket(stack, key), key=key, framework=framework)


def restore_tested(stack):
    vpc = ec2.Vpc.from_vpc_attributes(
        stack,
        "Vpc",
        vpc_id="vpc-0123456789abcdef0",
        availability_zones=[f"{REGION}a", f"{REGION}b"],
        isolated_subnet_ids=["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"],
        isolated_subnet_route_table_ids=["rtb-0123456789abcdef0", "rtb-0123456789abcdef0"],
    )
    made = plan(stack)
    key = BackupKey(stack, "Keys").key
    RestoreTesting(
        stack,
        "Testing",
        target=imported_cluster(stack, "Tested"),
        policy=POLICY,
        vault=made.vault,
        key=key,
        vpc=vpc,
        overrides={"dbClusterParameterGroupName": "tuned"},
    )


def replicated(stack):
    key = BackupKey(stack, "Key").key
    to = Replica(bucket_name="sets-elsewhere", account=OTHER, region=REGION, key_alias="alias/sets")
    made = bucket(stack, key)
    assert isinstance(made, s3.Bucket)
    replication = Replication(stack, "Replication", bucket=made, key=key, to=[ReplicateTo(to=to)])
    alerts = BackupAlerts(stack, "Alerts", key=key, cluster=imported_cluster(stack).cluster, emails=["a@example.org"])
    for alarm in replication.alarms:
        alerts.watch_alarm(alarm)


def tamper_alerted(stack):
    key = BackupKey(stack, "Key").key
    alerts = BackupAlerts(stack, "Alerts", key=key, cluster=imported_cluster(stack).cluster, emails=["a@example.org"])
    TamperAlerts(stack, "Tampering", alerts=alerts, bucket=bucket(stack, key))


OPTIONS = (
    rules, windows, selection_by_arn, selection_by_tag, selection_by_condition, copy_to_region, copy_to_account,
    several_copies, existing_vault, named_vault, no_lock, governance_lock_with_bounds, compliance_lock, break_glass,
    notified_vault_with_copies_from_elsewhere, disposable, air_gapped, audited_and_reported, restore_tested, replicated,
    tamper_alerted,
)  # fmt: skip
ACCOUNTS = {
    "keeper": {},
    "keeper_with_an_air_gapped_vault": {
        "air_gapped": (*DAYS, air_gapped_acknowledgement(VAULT_NAME, *DAYS)), "bucket_name": "another",
    },
    "keeper_with_break_glass": {"break_glass_role_arns": [f"arn:aws:iam::{OTHER}:role/glass"]},
}  # fmt: skip


@pytest.fixture(scope="module")
def assembly():
    """The directory of one app with a stack for each option, and one with a deliberate fault."""
    app = new_app()
    for option in OPTIONS:
        option(cdk.Stack(app, _name(option.__name__), env=cdk.Environment(account=ACCOUNT, region=REGION)))
    for name, options in ACCOUNTS.items():
        env = cdk.Environment(account=OTHER, region=REGION)
        BackupVaultAccount(app, _name(name), env=env, policy=POLICY, copies_from=[ACCOUNT], **options)
    s3.Bucket(cdk.Stack(app, "Deliberate"), "Open", encryption=s3.BucketEncryption.S3_MANAGED)
    cdk.Validations.of(app).add_plugins(*(pack(app) for pack in PACKS))
    with pytest.raises(RuntimeError):
        app.synth()
    return Path(app.outdir)


@pytest.fixture(scope="module")
def report(assembly):
    """The packs' report."""
    return json.loads((assembly / "validation-report.json").read_text())


def _name(option):
    return option.replace("_", "-")


def findings(report, stack):
    """(rule, construct) of every finding in a stack."""
    return [
        (violation["ruleName"], construct["constructPath"])
        for plugin in report["pluginReports"]
        for violation in plugin["violations"]
        for construct in violation["violatingConstructs"]
        if construct["constructPath"].split("/")[0] == stack
    ]


@pytest.mark.parametrize("option", [*(o.__name__ for o in OPTIONS), *ACCOUNTS])
def test_every_option_is_clean_under_all_four_packs(report, option):
    assert findings(report, _name(option)) == []


def test_control_the_packs_looked(report):
    assert "HIPAA.Security-S3DefaultEncryptionKMS" in str(findings(report, "Deliberate"))


def test_the_copies_that_the_report_looks_at_are_those_of_this_account_and_region():
    stack = cdk.Stack(new_app(), "Copies", env=cdk.Environment(account=ACCOUNT, region=REGION))
    places = ((ACCOUNT, REGION), (OTHER, REGION), (ACCOUNT, ELSEWHERE))
    vaults = [vault(stack, account, region, name=f"copies-{account}-{region}") for account, region in places]
    sentence = air_gapped_acknowledgement("gapped", 7, 3000)
    gapped = AirGappedVault(
        stack, "Gapped", name="gapped", min_days=7, max_days=3000, rules={"x": 7}, acknowledgement=sentence
    )
    here = f"copies-{ACCOUNT}-{REGION}"
    assert seen_from(stack, [Copy(to=v) for v in (*vaults, vaults[0], gapped)]) == [here]
    anywhere = cdk.Stack(new_app(), "Anywhere")
    assert seen_from(anywhere, [Copy(to=vault(anywhere, ACCOUNT, REGION))]) == []  # nobody can say, at synth
    assert seen_from(anywhere, [Copy(to=backup.BackupVault(anywhere, "Vault"))])


def test_every_option_is_valid_against_cloudformations_own_schemas(assembly):
    templates = [path for path in assembly.glob("*.template.json") if not path.name.startswith("Deliberate")]
    assert len(templates) == len(OPTIONS) + len(ACCOUNTS)
    # W3005: CDK writes dependencies that a reference already makes. test_app.py has the default's.
    done = programs.run("cfn-lint", "--ignore-checks", "W3005", "--template", *templates)
    assert (done.stdout, done.returncode) == ("", 0)
