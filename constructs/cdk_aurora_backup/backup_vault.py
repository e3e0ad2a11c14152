"""Backup vaults that an administrator cannot simply empty: locked, closed by policy, or air-gapped."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from aws_cdk import Duration, Names, RemovalPolicy, Stack
from aws_cdk import aws_backup as backup
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sns as sns
from constructs import Construct

from cdk_aurora_backup.checks import SynthError, known
from cdk_aurora_backup.permissions import deny_outside, let_services_publish

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aws_cdk import aws_kms as kms

COOLING_OFF_MINIMUM = 3  # days: AWS Backup's own minimum for a compliance lock
_LOCK_DAYS = 36_500
_AIR_GAPPED_MINIMUM = 7  # days: AWS's minimum for a logically air-gapped vault
_NAME_LENGTH = 50
_NAME = re.compile(rf"[a-zA-Z0-9_-]{{2,{_NAME_LENGTH}}}")

# A vault's policy takes no wildcard in an action. PutBackupVaultLockConfiguration and PutBackupVaultNotifications are
# left out on purpose: CloudFormation puts both after this policy when it makes the vault. A lock with cooling-off days,
# which is a compliance lock, is denied by itself where none was asked for.
PROTECTED_ACTIONS = (
    "backup:DeleteBackupVault",
    "backup:DeleteBackupVaultAccessPolicy",
    "backup:DeleteBackupVaultLockConfiguration",
    "backup:DeleteBackupVaultNotifications",
    "backup:DeleteRecoveryPoint",
    "backup:DisassociateRecoveryPoint",
    "backup:PutBackupVaultAccessPolicy",
    "backup:UpdateRecoveryPointLifecycle",
)
# AWS Backup sends no BACKUP_JOB_FAILED, BACKUP_JOB_EXPIRED or RESTORE_JOB_FAILED any more: the message of a job that is
# over carries its state, good or bad.
VAULT_EVENTS = (
    backup.BackupVaultEvents.BACKUP_JOB_COMPLETED,
    backup.BackupVaultEvents.COPY_JOB_FAILED,
    backup.BackupVaultEvents.RESTORE_JOB_COMPLETED,
    backup.BackupVaultEvents.RECOVERY_POINT_MODIFIED,
)


@dataclass(frozen=True, kw_only=True)
class VaultLock:
    """AWS Backup vault lock: nobody deletes early, and jobs that keep for less or more than its bounds fail.

    Made with `VaultLock.governance` or `VaultLock.compliance`. min_days, max_days: 1-36500; None takes the shortest and
    the longest retention of the rules that write into the vault. cooling_off_days: None is governance mode.
    """

    min_days: int | None = None
    max_days: int | None = None
    cooling_off_days: int | None = None
    acknowledgement: str | None = None

    def __post_init__(self) -> None:
        for name, value in (("min_days", self.min_days), ("max_days", self.max_days)):
            if value is not None and not 1 <= value <= _LOCK_DAYS:
                raise SynthError(f"VaultLock.{name} must be within 1-{_LOCK_DAYS}, got {value}")
        if self.min_days and self.max_days and self.min_days > self.max_days:
            raise SynthError(
                f"VaultLock.min_days must not be greater than VaultLock.max_days {self.max_days}, got {self.min_days}"
            )
        if self.cooling_off_days is not None and not COOLING_OFF_MINIMUM <= self.cooling_off_days <= _LOCK_DAYS:
            raise SynthError(
                f"VaultLock.cooling_off_days must be within {COOLING_OFF_MINIMUM}-{_LOCK_DAYS}, "
                f"got {self.cooling_off_days}"
            )

    @classmethod
    def governance(cls, *, min_days: int | None = None, max_days: int | None = None) -> Self:
        """A lock that whoever may call DeleteBackupVaultLockConfiguration can remove."""
        return cls(min_days=min_days, max_days=max_days)

    @classmethod
    def compliance(
        cls,
        *,
        cooling_off_days: int,
        acknowledgement: str,
        min_days: int | None = None,
        max_days: int | None = None,
    ) -> Self:
        """A lock that nobody, AWS included, can remove once the cooling-off days have passed.

        acknowledgement: the sentence of `compliance_acknowledgement`, with the vault's name and the days.
        """
        return cls(
            min_days=min_days, max_days=max_days, cooling_off_days=cooling_off_days, acknowledgement=acknowledgement
        )

    def check_acknowledged(self, vault_name: str) -> None:
        """Refuse a compliance lock whose acknowledgement does not repeat this vault's name and the days."""
        if self.cooling_off_days is None:
            return
        wanted = compliance_acknowledgement(vault_name, self.cooling_off_days)
        if self.acknowledgement != wanted:
            raise SynthError(
                "VaultLock.acknowledgement must say, word for word, "
                f"{wanted!r}, got {self.acknowledgement!r}: a compliance lock cannot be undone by anybody, and the "
                "vault is billed until its last recovery point expires"
            )

    def within(self, rules: Mapping[str, int]) -> tuple[int, int]:
        """The bounds (least and most days) for the rules that write into the vault: name to days kept.

        Raises SynthError for a rule outside them, because each of its jobs would fail.
        """
        if not rules and (self.min_days is None or self.max_days is None):
            raise SynthError("VaultLock.min_days and max_days must be given for a vault that no rule writes into")
        least = self.min_days if self.min_days is not None else min(rules.values())
        # A lock needs two bounds that differ, also where only one rule writes.
        most = self.max_days if self.max_days is not None else max(*rules.values(), least + 1)
        for name, days in rules.items():
            if not least <= days <= most:
                raise SynthError(
                    f"rule {name!r} keeps for {days} days, outside the vault lock's {least}-{most} days: every job of "
                    "it would fail"
                )
        return least, most


GOVERNANCE = VaultLock()


def compliance_acknowledgement(vault_name: str, cooling_off_days: int) -> str:
    """The sentence that whoever asks for a compliance lock has to write."""
    return f"Nobody can unlock vault {vault_name} after {cooling_off_days} days, ever"


def check_vault_name(field: str, name: str) -> str:
    """A vault's name: 2-50 letters, digits, hyphens and underscores."""
    if known(name) and not _NAME.fullmatch(name):
        raise SynthError(f"{field} must be 2-50 letters, digits, hyphens and underscores, got {name!r}")
    return name


def default_vault_name(scope: Construct) -> str:
    """The name of a vault that was given none, made from the stack's name and the construct's path.

    AWS Backup demands a name at creation. A stack's name is unique in its account and Region, so two apps that have the
    same constructs at the same path make vaults of different names.
    """
    return Names.unique_resource_name(scope, max_length=_NAME_LENGTH, separator="-")


class BackupVault(Construct):
    """A vault under a customer key, locked, whose policy denies deletion and policy changes outside break-glass.

    The policy stands in the way of everybody, CloudFormation too: once it is there, only break-glass changes it. Unless
    the lock is a compliance lock, it also denies everybody, break-glass too, to make it one, which nobody could undo:
    whoever wants to later changes the policy first.

    rules: days kept, by name, of the rules that write here; the lock's bounds are checked against each.
    lock: Default: governance mode, bounds from the rules. None locks nothing.
    break_glass: the only roles that the policy lets delete. Default: the account's root user.
    protected: False leaves out lock and policy, for stacks that are torn down. Default: True.
    copies_from: accounts that may copy into the vault. Default: none but its own.
    name: Default: `default_vault_name`. A vault in another account needs one that is known there.
    topic: hears of jobs that are over, with their state, failed copies and modified recovery points. Default: none.
    removal_policy: Default: RETAIN.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        key: kms.IKey,
        rules: Mapping[str, int],
        lock: VaultLock | None = GOVERNANCE,
        break_glass: Sequence[iam.IRole] = (),
        protected: bool = True,
        copies_from: Sequence[str] = (),
        name: str | None = None,
        topic: sns.ITopic | None = None,
        removal_policy: RemovalPolicy = RemovalPolicy.RETAIN,
    ) -> None:
        super().__init__(scope, construct_id)
        if protected and removal_policy is RemovalPolicy.DESTROY:
            raise SynthError(
                "BackupVault.removal_policy must be RETAIN while protected is True: CloudFormation could not delete a "
                "vault whose policy denies deletion; got DESTROY"
            )
        name = check_vault_name("BackupVault.name", name or default_vault_name(self))
        self._lock = lock if protected else None
        if self._lock:
            self._lock.check_acknowledged(name)
        self._bounds = self._lock.within(rules) if self._lock else None
        statements = (
            [deny_outside("DenyDeletionOutsideBreakGlass", PROTECTED_ACTIONS, break_glass)] if protected else []
        )
        if protected and (lock is None or lock.cooling_off_days is None):
            statements.append(_deny_compliance_lock())
        if copies_from:
            statements.append(allow_copies(copies_from))
        if topic:
            let_services_publish(self, topic)
        # By its ARN, because CDK would let AWS Backup of every account publish, and use the key.
        published = sns.Topic.from_topic_arn(self, "Published", topic.topic_arn) if topic else None
        self._vault = backup.BackupVault(
            self,
            "Vault",
            backup_vault_name=name,
            encryption_key=key,
            access_policy=iam.PolicyDocument(statements=statements) if statements else None,
            lock_configuration=self._lock_configuration(),
            notification_topic=published,
            notification_events=list(VAULT_EVENTS) if topic else None,
            removal_policy=removal_policy,
        )

    @property
    def vault(self) -> backup.BackupVault:
        """The vault itself."""
        return self._vault

    @property
    def bounds(self) -> tuple[int, int] | None:
        """The least and the most days that the lock lets a recovery point be kept; None without a lock."""
        return self._bounds

    def _lock_configuration(self) -> backup.LockConfiguration | None:
        if not self._lock or not self._bounds:
            return None
        least, most = self._bounds
        days = self._lock.cooling_off_days
        return backup.LockConfiguration(
            min_retention=Duration.days(least),
            max_retention=Duration.days(most),
            changeable_for=Duration.days(days) if days is not None else None,
        )


class AirGappedVault(Construct):
    """A logically air-gapped vault: always in compliance mode, from the first second, and under a key that AWS owns.

    No administrator of the account can delete what is in it before its retention ends, or delete its key. It receives
    copies; its bounds cannot be changed later, so they are written out and acknowledged like a compliance lock.

    rules: days kept, by name, of the copies that come here. copies_from: other accounts that may copy into it.
    acknowledgement: the sentence of `air_gapped_acknowledgement`.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        min_days: int,
        max_days: int,
        rules: Mapping[str, int],
        acknowledgement: str,
        copies_from: Sequence[str] = (),
        topic: sns.ITopic | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        check_vault_name("AirGappedVault.name", name)
        if min_days < _AIR_GAPPED_MINIMUM:
            raise SynthError(f"AirGappedVault.min_days must be {_AIR_GAPPED_MINIMUM} or more, got {min_days}")
        wanted = air_gapped_acknowledgement(name, min_days, max_days)
        if acknowledgement != wanted:
            raise SynthError(
                f"AirGappedVault.acknowledgement must say, word for word, {wanted!r}, got {acknowledgement!r}: its "
                "retention bounds cannot be undone by anybody"
            )
        self._bounds = VaultLock(min_days=min_days, max_days=max_days).within(rules)
        resource = backup.CfnLogicallyAirGappedBackupVault(
            self,
            "Vault",
            backup_vault_name=name,
            min_retention_days=min_days,
            max_retention_days=max_days,
            access_policy=iam.PolicyDocument(statements=[allow_copies(copies_from)]).to_json() if copies_from else None,
            notifications=backup.CfnLogicallyAirGappedBackupVault.NotificationObjectTypeProperty(
                backup_vault_events=[event.value for event in VAULT_EVENTS], sns_topic_arn=topic.topic_arn
            )
            if topic
            else None,
        )
        resource.apply_removal_policy(RemovalPolicy.RETAIN)
        self._vault = backup.BackupVault.from_backup_vault_arn(self, "Imported", resource.attr_backup_vault_arn)

    @property
    def vault(self) -> backup.IBackupVault:
        """The vault, as a destination of copies."""
        return self._vault

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the most days that a recovery point can be kept here."""
        return self._bounds


def _deny_compliance_lock() -> iam.PolicyStatement:
    """Deny a lock with cooling-off days to everybody: one call of it locks a governance vault for ever."""
    return iam.PolicyStatement(
        sid="DenyComplianceLock",
        effect=iam.Effect.DENY,
        principals=[iam.AnyPrincipal()],
        actions=["backup:PutBackupVaultLockConfiguration"],
        resources=["*"],
        conditions={"Null": {"backup:ChangeableForDays": "false"}},
    )


def air_gapped_acknowledgement(name: str, min_days: int, max_days: int) -> str:
    """The sentence that whoever asks for an air-gapped vault has to write."""
    return f"Nothing in vault {name} can be deleted early, and its {min_days}-{max_days} days can never change"


def allow_copies(accounts: Iterable[str]) -> iam.PolicyStatement:
    """Let other accounts copy into a vault: the only call that AWS Backup takes from outside the account."""
    return iam.PolicyStatement(
        sid="AllowCopies",
        principals=[iam.AccountPrincipal(account) for account in accounts],
        actions=["backup:CopyIntoBackupVault"],
        resources=["*"],
    )


def vault_arn(scope: Construct, name: str, *, account: str | None = None, region: str | None = None) -> str:
    """The ARN of a vault by name, in the stack's partition; account, region: Default: the stack's."""
    stack = Stack.of(scope)
    return f"arn:{stack.partition}:backup:{region or stack.region}:{account or stack.account}:backup-vault:{name}"
