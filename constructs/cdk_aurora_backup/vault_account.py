"""BackupVaultAccount: the companion stack in a second account, which keeps copies that the first cannot delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aws_cdk import Environment, RemovalPolicy, Stack
from aws_cdk import aws_backup as backup
from aws_cdk import aws_iam as iam

from cdk_aurora_backup.backup_key import BackupKey
from cdk_aurora_backup.backup_vault import GOVERNANCE, AirGappedVault, BackupVault, VaultLock, vault_arn
from cdk_aurora_backup.checks import SynthError
from cdk_aurora_backup.copies import Copy
from cdk_aurora_backup.replication import ReplicaBucket, ReplicateTo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from constructs import Construct

    from aurora_backup.policy import RetentionPolicy

VAULT_NAME = "aurora-backup-copies"


class BackupVaultAccount(Stack):
    """A locked vault and a locked bucket in another account, under a key of that account.

    Deploy it first; the protected stacks depend on it. Both accounts must be in one AWS Organization with cross-account
    backup switched on in its management account.

    env: the account and the Region of the protected clusters: a copy of an Aurora snapshot changes one of the two.
    policy: of the protected clusters, whose retentions the lock's bounds are checked against.
    copies_from: the accounts that are protected. vault_name, bucket_name: must be known to them.
    lock: of the vault. Default: governance mode, which an administrator of *this* account can remove.
    air_gapped: (least days, most days, acknowledgement) of a logically air-gapped vault in place of the ordinary one,
        under `vault_name`. Default: none.
    locked_days: of the bucket. Default: as long as weekly dump sets are kept.
    break_glass_role_arns: roles of this account. Default: its root user.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        env: Environment,
        policy: RetentionPolicy,
        copies_from: Sequence[str],
        vault_name: str = VAULT_NAME,
        bucket_name: str | None = None,
        lock: VaultLock | None = GOVERNANCE,
        air_gapped: tuple[int, int, str] | None = None,
        locked_days: int | None = None,
        break_glass_role_arns: Sequence[str] = (),
    ) -> None:
        super().__init__(scope, construct_id, env=env, description="Copies of Aurora backups (cdk-aurora-backup)")
        if not env.account or not env.region:
            raise SynthError(f"BackupVaultAccount.env must name the account and the Region, got {env}")
        if env.account in copies_from:
            raise SynthError(f"BackupVaultAccount.copies_from must be other accounts than its own, got {env.account}")
        break_glass = [
            iam.Role.from_role_arn(self, f"BreakGlass{n}", arn) for n, arn in enumerate(break_glass_role_arns)
        ]
        rules = {rule.name: rule.delete_after_days for rule in policy.snapshot_rules()}
        self._vault_name = vault_name
        self._vault: BackupVault | AirGappedVault
        if air_gapped:
            least, most, acknowledgement = air_gapped
            self._vault = AirGappedVault(
                self,
                "Vault",
                name=vault_name,
                min_days=least,
                max_days=most,
                rules=rules,
                acknowledgement=acknowledgement,
                copies_from=copies_from,
            )
        else:
            self._vault = BackupVault(
                self,
                "Vault",
                key=BackupKey(self, "Key", break_glass=break_glass).key,
                rules=rules,
                lock=lock,
                break_glass=break_glass,
                copies_from=copies_from,
                name=vault_name,
                removal_policy=RemovalPolicy.RETAIN,
            )
        self._replica = ReplicaBucket(
            self,
            "Sets",
            name=bucket_name or f"{VAULT_NAME}-{env.account}-{env.region}",
            copies_from=copies_from,
            policy=policy,
            locked_days=locked_days,
            break_glass=break_glass,
        )

    @property
    def vault(self) -> BackupVault | AirGappedVault:
        """The vault, for use in this stack."""
        return self._vault

    @property
    def sets(self) -> ReplicaBucket:
        """The bucket, for use in this stack."""
        return self._replica

    @property
    def replicate_to(self) -> ReplicateTo:
        """Dump sets and evidence to here, for `AuroraBackup(replicate_to=...)` of a protected stack."""
        return ReplicateTo(to=self._replica.replica)

    def copy_from(self, scope: Construct, construct_id: str, *, rules: Sequence[str] = ()) -> Copy:
        """Recovery points to here, for `AuroraBackup(copies=...)` of a protected stack. rules: Default: all."""
        arn = vault_arn(self, self._vault_name)
        return Copy(
            to=backup.BackupVault.from_backup_vault_arn(scope, construct_id, arn),
            rules=tuple(rules),
            bounds=self._vault.bounds,
        )
