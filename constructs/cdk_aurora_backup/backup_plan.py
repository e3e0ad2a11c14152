"""BackupPlan: the snapshots that AWS Backup takes of the cluster, in a locked vault, and their copies elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from aws_cdk import Aws, Duration, RemovalPolicy, Stack
from aws_cdk import aws_backup as backup
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from constructs import Construct

from cdk_aurora_backup.backup_role import snapshot_role
from cdk_aurora_backup.backup_vault import GOVERNANCE, BackupVault, VaultLock
from cdk_aurora_backup.checks import SynthError, known
from cdk_aurora_backup.copies import Copy, check_reach
from cdk_aurora_backup.naming import owner_of
from cdk_aurora_backup.permissions import add_to_key_policy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aws_cdk import aws_kms as kms
    from aws_cdk import aws_sns as sns

    from aurora_backup.policy import RetentionPolicy
    from cdk_aurora_backup.cluster import ClusterDetails
    from cdk_aurora_backup.permissions import ServiceRole

_START_WINDOW = Duration.hours(1)
_COMPLETION_WINDOW = Duration.hours(12)
_OPERATORS = ("StringEquals", "StringLike", "StringNotEquals", "StringNotLike")
_TAG_KEY = "aws:ResourceTag/"
# AWS: "Service-linked roles for AWS Backup"; copies into an account are made by this role of it.
_SERVICE_ROLE = "aws-service-role/backup.amazonaws.com/AWSServiceRoleForBackup"


@dataclass(frozen=True, kw_only=True)
class Selection:
    """More that the plan protects, beside the cluster: Aurora clusters by ARN or by tag.

    arns: cluster ARNs, `*` allowed. not_arns: left out of them. any_tag: tags of which one is enough.
    conditions: all of which must hold, {"StringEquals": {"aws:ResourceTag/stage": "production"}}.
    keys: the customer keys of those clusters. role: Default: one is made, for just these resources.
    """

    arns: tuple[str, ...] = ()
    not_arns: tuple[str, ...] = ()
    any_tag: Mapping[str, str] = field(default_factory=dict)
    conditions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    keys: tuple[kms.IKey, ...] = ()
    role: iam.IRole | None = None

    def __post_init__(self) -> None:
        if not (self.arns or self.any_tag or self.conditions):
            raise SynthError("Selection must have arns, any_tag or conditions: without one it selects nothing")
        for operator, wanted in self.conditions.items():
            if operator not in _OPERATORS:
                raise SynthError(f"Selection.conditions must use {', '.join(_OPERATORS)}, got {operator!r}")
            for key in wanted:
                if not key.startswith(_TAG_KEY):
                    raise SynthError(f"Selection.conditions must speak of {_TAG_KEY}<key>, got {key!r}")


class BackupPlan(Construct):
    """A locked vault under the customer key, a rule for each snapshot tier of the policy, a selection of the cluster.

    Snapshots only: Aurora's own continuous backup gives point-in-time recovery, and AWS Backup's would fight it over
    `BackupRetentionPeriod`. AWS Backup skips Aurora, silently, where the Region has not opted in for it.

    vault: an existing vault. Default: a `BackupVault` is made, under `key`, with RETAIN.
    vault_name: of the vault that is made. Default: from the stack's name and the construct's path.
    lock: of the vault that is made. Default: governance mode, bounds from the rules. None locks nothing.
    break_glass, topic: as for `BackupVault`, which has neither lock nor policy when removal_policy is DESTROY.
    rules: more rules, beside the policy's. selections: more resources, by id. copies: where recovery points go too.
    start_window, completion_window: of the policy's rules. Default: 1 hour and 12 hours.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        target: ClusterDetails,
        key: kms.IKey,
        policy: RetentionPolicy,
        vault: backup.IBackupVault | None = None,
        vault_name: str | None = None,
        lock: VaultLock | None = GOVERNANCE,
        break_glass: Sequence[iam.IRole] = (),
        topic: sns.ITopic | None = None,
        rules: Sequence[backup.BackupPlanRule] = (),
        selections: Mapping[str, Selection] | None = None,
        copies: Sequence[Copy] = (),
        start_window: Duration = _START_WINDOW,
        completion_window: Duration = _COMPLETION_WINDOW,
        removal_policy: RemovalPolicy = RemovalPolicy.RETAIN,
    ) -> None:
        super().__init__(scope, construct_id)
        if vault is not None and vault_name is not None:
            raise SynthError(
                f"BackupPlan.vault_name is of a vault that is made here, not of an existing one, got {vault_name!r}"
            )
        if "Cluster" in (selections or {}):
            raise SynthError("BackupPlan.selections must not have the name 'Cluster', which is the cluster's own")
        of_policy = {rule.name: rule.delete_after_days for rule in policy.snapshot_rules()}
        kept = {**of_policy, **_kept_by(rules, of_policy)}
        for copy in copies:
            copy.kept(kept)
        vaults = [*(copy.vault for copy in copies), *_copied_to(rules)]
        self._destinations = list(dict.fromkeys(vault.backup_vault_arn for vault in vaults))
        accounts = sorted({account for vault in vaults if (account := check_reach(self, vault)[0])})
        _check_own_copies(rules, copies)
        made = (
            None
            if vault
            else BackupVault(
                self,
                "Vault",
                key=key,
                rules={name: days for name, days in kept.items() if name not in _elsewhere(rules)},
                lock=lock if kept else None,
                break_glass=break_glass,
                protected=removal_policy is not RemovalPolicy.DESTROY,
                name=vault_name,
                topic=topic,
                removal_policy=removal_policy,
            )
        )
        self._vault: backup.IBackupVault = vault or cast("BackupVault", made).vault
        self._bounds = made.bounds if made else None
        self._rules = tuple(name for name in kept if name not in of_policy)
        keys = (key, *([target.key] if target.key else []))
        chosen = (key for selection in (selections or {}).values() for key in selection.keys)
        self._share_keys([*keys, *chosen], accounts)
        self._written_by_rules = [vault.backup_vault_arn for vault in _own_vaults(rules)]
        self._copy_keys = [copy.key for copy in copies if copy.key]
        self._plan = backup.BackupPlan(self, "Plan", backup_vault=self._vault) if kept else None
        for rule in policy.snapshot_rules():
            self._add(
                backup.BackupPlanRule(
                    rule_name=rule.name,
                    schedule_expression=events.Schedule.expression(rule.schedule),
                    start_window=start_window,
                    completion_window=completion_window,
                    delete_after=Duration.days(rule.delete_after_days),
                    recovery_point_tags={
                        "aurora-backup:tier": rule.name,
                        "aurora-backup:owner": owner_of(self.node.scope or self),
                    },
                    copy_actions=[
                        backup.BackupPlanCopyActionProps(
                            destination_backup_vault=copy.vault, delete_after=Duration.days(days)
                        )
                        for copy in copies
                        if (days := copy.kept(kept).get(rule.name))
                    ]
                    or None,
                )
            )
        for extra in rules:
            self._add(extra)
        for name, selection in {"Cluster": Selection(arns=(target.arn,), keys=keys), **(selections or {})}.items():
            self._select(name, selection)

    @property
    def vault(self) -> backup.IBackupVault:
        """Where the recovery points lie."""
        return self._vault

    @property
    def plan(self) -> backup.BackupPlan | None:
        """The plan itself; None when neither the policy nor the caller has a rule for it."""
        return self._plan

    @property
    def bounds(self) -> tuple[int, int] | None:
        """The least and the most days of the lock of a vault that was made here; None without one."""
        return self._bounds

    @property
    def rules(self) -> tuple[str, ...]:
        """The names of the caller's own rules."""
        return self._rules

    def _add(self, rule: backup.BackupPlanRule) -> None:
        if self._plan:
            self._plan.add_rule(rule)

    def _share_keys(self, keys: Sequence[kms.IKey], accounts: Sequence[str]) -> None:
        for key in dict.fromkeys(keys):
            for account in accounts:
                add_to_key_policy(self, key, _let_copy(account), note=f"copy-key-policy-{account}")

    def _select(self, construct_id: str, selection: Selection) -> None:
        if not self._plan:
            return
        made = None if selection.role else self._backup_role(f"{construct_id}Backup", selection)
        role = selection.role.role_arn if selection.role else made.arn if made else ""
        resource = backup.CfnBackupSelection(
            self,
            f"{construct_id}Selection",
            backup_plan_id=self._plan.backup_plan_id,
            backup_selection=backup.CfnBackupSelection.BackupSelectionResourceTypeProperty(
                iam_role_arn=role,
                selection_name=construct_id,
                resources=list(selection.arns) or None,
                not_resources=list(selection.not_arns) or None,
                list_of_tags=[
                    backup.CfnBackupSelection.ConditionResourceTypeProperty(
                        condition_type="STRINGEQUALS", condition_key=key, condition_value=value
                    )
                    for key, value in selection.any_tag.items()
                ]
                or None,
                conditions={
                    operator: [{"ConditionKey": key, "ConditionValue": value} for key, value in wanted.items()]
                    for operator, wanted in selection.conditions.items()
                }
                or None,
            ),
        )
        if made:
            resource.node.add_dependency(made.policy)

    def _backup_role(self, construct_id: str, selection: Selection) -> ServiceRole:
        here = Stack.of(self).region
        regions = [region for arn in self._destinations if (region := _region(arn)) and region != here]
        return snapshot_role(
            self,
            construct_id,
            clusters=selection.arns,
            any_tag=selection.any_tag,
            conditions=selection.conditions,
            keys=[*selection.keys, *self._copy_keys],
            vaults=list(dict.fromkeys([self._vault.backup_vault_arn, *self._written_by_rules, *self._destinations])),
            copy_regions=sorted(set(regions)),
        )


def _let_copy(account: str) -> list[iam.PolicyStatement]:
    """What the cluster's key must allow: the copy is made by the other account's AWS Backup, which reads the snapshot.

    The account is the principal, because its role need not exist yet; the condition names the role.
    """
    role = {"ArnEquals": {"aws:PrincipalArn": f"arn:{Aws.PARTITION}:iam::{account}:role/{_SERVICE_ROLE}"}}
    return [
        iam.PolicyStatement(
            sid=f"CopyTo{account}",
            principals=[iam.AccountPrincipal(account)],
            actions=["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKeyWithoutPlaintext"],
            resources=["*"],
            conditions=role,
        ),
        iam.PolicyStatement(
            sid=f"GrantTo{account}",
            principals=[iam.AccountPrincipal(account)],
            actions=["kms:CreateGrant"],
            resources=["*"],
            conditions={**role, "Bool": {"kms:GrantIsForAWSResource": "true"}},
        ),
    ]


def _kept_by(rules: Sequence[backup.BackupPlanRule], taken: Mapping[str, int]) -> dict[str, int]:
    """Days kept by each rule of the caller's own, by name. Raises SynthError for what Aurora or the policy refuses."""
    kept: dict[str, int] = {}
    for rule in rules:
        props = rule.props
        name = props.rule_name
        if not name or name in taken or name in kept:
            raise SynthError(f"BackupPlan.rules must each have a rule_name of its own, got {name!r}")
        if props.enable_continuous_backup:
            raise SynthError(
                f"rule {name!r}: enable_continuous_backup must be off: Aurora's own point-in-time recovery owns "
                "BackupRetentionPeriod, and AWS Backup's continuous backup would change it behind CloudFormation"
            )
        if props.move_to_cold_storage_after is not None:
            raise SynthError(
                f"rule {name!r}: move_to_cold_storage_after must be left out: Aurora snapshots have no cold storage, "
                f"got {_days(props.move_to_cold_storage_after)} days; keep old backups cheaply as dump sets"
            )
        if props.delete_after is None:
            raise SynthError(f"rule {name!r}: delete_after must be given: without it nothing ever expires")
        kept[name] = _days(props.delete_after)
    return kept


def _copied_to(rules: Sequence[backup.BackupPlanRule]) -> list[backup.IBackupVault]:
    return [
        cast("backup.IBackupVault", action.destination_backup_vault)
        for rule in rules
        for action in rule.props.copy_actions or []
    ]


def _check_own_copies(rules: Sequence[backup.BackupPlanRule], copies: Sequence[Copy]) -> None:
    """Hold the copies of the caller's own rules to the bounds of a destination that `copies` knows."""
    by_arn = {copy.vault.backup_vault_arn: copy for copy in copies}
    for rule in rules:
        for action in rule.props.copy_actions or []:
            copy = by_arn.get(cast("backup.IBackupVault", action.destination_backup_vault).backup_vault_arn)
            if action.delete_after is None:
                raise SynthError(
                    f"copy of rule {rule.props.rule_name!r}: delete_after must be given, or it never expires"
                )
            if copy:
                copy.check_bounds({str(rule.props.rule_name): _days(action.delete_after)})


def _own_vaults(rules: Sequence[backup.BackupPlanRule]) -> list[backup.IBackupVault]:
    """The vaults of rules that do not write into the plan's."""
    return [cast("backup.IBackupVault", rule.props.backup_vault) for rule in rules if rule.props.backup_vault]


def _elsewhere(rules: Sequence[backup.BackupPlanRule]) -> set[str]:
    """The names of rules that do not write into the plan's vault, whose lock they therefore never meet."""
    return {str(rule.props.rule_name) for rule in rules if rule.props.backup_vault}


def _region(arn: str) -> str | None:
    parts = arn.split(":")
    return parts[3] if len(parts) > 3 and known(parts[3]) else None  # noqa: PLR2004  arn:partition:service:region


def _days(duration: Any) -> int:
    return int(duration.to_days())
