"""The option sets that the attack table compares, from a plain AWS Backup to everything this package offers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
from aws_cdk import aws_backup as backup
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from cdk_nag import AwsSolutionsChecks, HIPAASecurityChecks, NIST80053R5Checks, PCIDSS321Checks

from cdk_aurora_backup import AuroraBackup, ProtectedCluster, RetentionPolicy
from cdk_aurora_backup.backup_key import BackupKey
from cdk_aurora_backup.backup_vault import VaultLock, air_gapped_acknowledgement, compliance_acknowledgement
from cdk_aurora_backup.vault_account import VAULT_NAME, BackupVaultAccount
from tests.synth.resolution import Resolved
from tests.synth.synthesis import new_app, some_clients

if TYPE_CHECKING:
    from collections.abc import Callable

PROTECTED, KEEPER, REGION = "111122223333", "444455556666", "eu-west-1"
POLICY = RetentionPolicy.hipaa()
BREAK_GLASS = f"arn:aws:iam::{PROTECTED}:role/break-glass"
COOLING_OFF = 7
# The name that is made of the stack's name and the path: a compliance lock's acknowledgement repeats it.
MAIN_VAULT = "Protected-Backup-Snapshots-Vault-E666CEBC"


@dataclass(frozen=True)
class App:
    """A synthesised app: the protected account's stack, and the second account's where there is one."""

    protected: Resolved
    keeper: Resolved | None
    directory: Path


def _stack(app: cdk.App) -> cdk.Stack:
    return cdk.Stack(app, "Protected", env=cdk.Environment(account=PROTECTED, region=REGION))


def _vpc(stack: cdk.Stack, key: kms.IKey) -> ec2.Vpc:
    subnets = [ec2.SubnetConfiguration(name="Data", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED)]
    zones = [f"{REGION}a", f"{REGION}b"]
    vpc = ec2.Vpc(
        stack, "Vpc", nat_gateways=0, availability_zones=zones, subnet_configuration=subnets,
        restrict_default_security_group=True,
    )  # fmt: skip
    group = logs.LogGroup(stack, "FlowLogs", encryption_key=key, retention=logs.RetentionDays.ONE_YEAR)
    role = iam.Role(stack, "FlowLogsRole", assumed_by=iam.ServicePrincipal("vpc-flow-logs.amazonaws.com"))
    destination = ec2.FlowLogDestination.to_cloud_watch_logs(group, role.without_policy_updates())
    vpc.add_flow_log("FlowLog", destination=destination)
    return vpc


def _strategy(stack: cdk.Stack, key: kms.IKey, **options: Any) -> AuroraBackup:
    vpc = _vpc(stack, key)
    cluster = ProtectedCluster(stack, "Database", vpc=vpc, key=key, policy=POLICY)
    return AuroraBackup(
        stack, "Backup", cluster=cluster.details, vpc=vpc, policy=POLICY, key=key, clients=some_clients(stack),
        alert_emails=["oncall@example.org"], **options,
    )  # fmt: skip


def _break_glass(stack: cdk.Stack) -> list[iam.IRole]:
    return [iam.Role.from_role_arn(stack, "BreakGlass", BREAK_GLASS)]


def plain(app: cdk.App) -> None:
    """What most accounts have: AWS's default policy on the key, none and no lock on the vault, nobody who watches."""
    stack = _stack(app)
    key = kms.Key(stack, "Key", enable_key_rotation=True)
    vault = backup.BackupVault(stack, "Plain", encryption_key=key)
    alerts = _strategy(stack, key, vault=vault).alerts
    for rule in alerts.rules:  # nobody hears of calls by default
        if "Calls" in rule.node.id:
            alerts.node.try_remove_child(rule.node.id)


def default(app: cdk.App) -> None:
    """This package without any option: governance lock, vault and key closed to all but the root user."""
    stack = _stack(app)
    _strategy(stack, BackupKey(stack, "Key").key)


def compliance(app: cdk.App) -> None:
    """With a break-glass role and a compliance lock, after its cooling-off days."""
    stack = _stack(app)
    roles = _break_glass(stack)
    lock = VaultLock.compliance(
        cooling_off_days=COOLING_OFF, acknowledgement=compliance_acknowledgement(MAIN_VAULT, COOLING_OFF)
    )
    _strategy(stack, BackupKey(stack, "Key", break_glass=roles).key, break_glass=roles, vault_lock=lock)


def second_account(app: cdk.App) -> None:
    """The default, with copies of recovery points and dump sets in a second account."""
    stack = _stack(app)
    keeper = BackupVaultAccount(
        app, "Keeper", env=cdk.Environment(account=KEEPER, region=REGION), policy=POLICY, copies_from=[PROTECTED]
    )
    stack.add_stack_dependency(keeper)
    _strategy(
        stack,
        BackupKey(stack, "Key").key,
        copies=[keeper.copy_from(stack, "Copies")],
        replicate_to=[keeper.replicate_to],
    )


def strongest(app: cdk.App) -> None:
    """Compliance lock; air-gapped vault and locked bucket in a second account; audited, and restore-tested."""
    stack = _stack(app)
    kept = [rule.delete_after_days for rule in POLICY.snapshot_rules()]
    keeper = BackupVaultAccount(
        app, "Keeper", env=cdk.Environment(account=KEEPER, region=REGION), policy=POLICY, copies_from=[PROTECTED],
        air_gapped=(min(kept), max(kept), air_gapped_acknowledgement(VAULT_NAME, min(kept), max(kept))),
        break_glass_role_arns=[f"arn:aws:iam::{KEEPER}:role/break-glass"],
    )  # fmt: skip
    stack.add_stack_dependency(keeper)
    roles = _break_glass(stack)
    lock = VaultLock.compliance(
        cooling_off_days=COOLING_OFF, acknowledgement=compliance_acknowledgement(MAIN_VAULT, COOLING_OFF)
    )
    _strategy(
        stack,
        BackupKey(stack, "Key", break_glass=roles).key,
        break_glass=roles,
        vault_lock=lock,
        copies=[keeper.copy_from(stack, "Copies")],
        replicate_to=[keeper.replicate_to],
        audit=True,
        restore_testing=True,
    )


OPTION_SETS: dict[str, Callable[[cdk.App], None]] = {
    "plain": plain,
    "default": default,
    "compliance lock": compliance,
    "second account": second_account,
    "strongest": strongest,
}


_ALL_PACKS = (HIPAASecurityChecks, NIST80053R5Checks, PCIDSS321Checks, AwsSolutionsChecks)
# The compliance packs that each option set is held against; a finding fails the synthesis. test_app.py holds the
# default against all of them too.
PACKS: dict[str, tuple[Callable[[cdk.App], Any], ...]] = {
    **dict.fromkeys(OPTION_SETS, (HIPAASecurityChecks,)),
    "strongest": _ALL_PACKS,
}


@cache
def synthesised(name: str) -> App:
    """An option set, synthesised once for all tests, through its compliance packs."""
    app = new_app()
    OPTION_SETS[name](app)
    cdk.Validations.of(app).add_plugins(*(pack(app) for pack in PACKS[name]))
    assembly = app.synth()
    templates = {
        s.stack_name: Resolved(
            s.stack_name, s.environment.account, REGION, json.loads(Path(s.template_full_path).read_text())
        )
        for s in assembly.stacks
    }
    return App(templates["Protected"], templates.get("Keeper"), Path(assembly.directory))
