"""Copies of recovery points in other vaults: where they may go, checked as AWS Backup would for Aurora."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aws_cdk import Annotations, Stack

from cdk_aurora_backup.backup_vault import AirGappedVault, BackupVault, VaultLock
from cdk_aurora_backup.checks import SynthError, known

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aws_cdk import aws_backup as backup
    from aws_cdk import aws_kms as kms
    from constructs import Construct


_ARN_PARTS = 7  # arn:partition:backup:region:account:backup-vault:name


@dataclass(frozen=True, kw_only=True)
class Copy:
    """Copy every recovery point of these rules into another vault.

    to: the vault. One of another account or Region is `backup.BackupVault.from_backup_vault_arn`.
    rules: names of the plan's rules. Default: all.
    keep_days: Default: as long as the original.
    bounds: least and most days of the destination's lock, where it is locked. Default: those of a vault made here.
    key: the destination vault's customer key, where the vault is in another Region of this account: the copy is
        encrypted under it by the plan's role. Default: the role is given none.
    """

    to: BackupVault | AirGappedVault | backup.IBackupVault
    rules: tuple[str, ...] = ()
    keep_days: int | None = None
    bounds: tuple[int, int] | None = None
    key: kms.IKey | None = None

    @property
    def vault(self) -> backup.IBackupVault:
        """The vault that receives the copies."""
        return self.to.vault if isinstance(self.to, (BackupVault, AirGappedVault)) else self.to

    def kept(self, rules: Mapping[str, int]) -> dict[str, int]:
        """The days that the copies of each of the plan's rules are kept, by rule name.

        Raises SynthError for a rule that the plan has not, and for one that the destination's lock would fail.
        """
        if unknown := sorted(set(self.rules) - set(rules)):
            raise SynthError(f"Copy.rules: the plan has no rule {unknown[0]!r}, it has {', '.join(sorted(rules))}")
        found = {name: self.keep_days or days for name, days in rules.items() if not self.rules or name in self.rules}
        self.check_bounds(found)
        return found

    def check_bounds(self, kept: Mapping[str, int]) -> None:
        """Raises SynthError for copies, days kept by rule name, that the destination's lock would fail."""
        bounds = self.bounds or (self.to.bounds if isinstance(self.to, (BackupVault, AirGappedVault)) else None)
        if bounds:
            VaultLock(min_days=bounds[0], max_days=bounds[1]).within({f"copy of {n}": d for n, d in kept.items()})


def check_reach(scope: Construct, vault: backup.IBackupVault) -> tuple[str | None, str | None]:
    """The (account, Region) of a copy's destination where they differ from the stack's, each None where they do not.

    Raises SynthError when both differ: AWS Backup copies an Aurora snapshot to another account or to another Region in
    one action, never to both. Where the stack is not known at synth, a destination that is known is taken for another
    account, which costs a statement in a key's policy that nobody needs, and is said; its Region is then not checked.
    """
    stack = Stack.of(scope)
    their_account, their_region = _whereabouts(vault)
    account = _other(their_account, stack.account)
    region = _other(their_region, stack.region)
    if known(their_account) and not known(stack.account):
        Annotations.of(scope).add_warning_v2(
            "cdk-aurora-backup:copy-reach",
            f"The stack names no account and Region, so nothing was checked of its copies to {their_region} in account "
            f"{their_account}: an Aurora snapshot is copied to another account or to another Region, not to both.",
        )
        account = their_account
    if account and region:
        raise SynthError(
            f"copy to {region} in account {account}: an Aurora snapshot is copied to another account or to another "
            f"Region in one action, not to both. Copy it to a vault of {account} in this Region, where a plan of that "
            "account can copy it on; or to this account's own vault in that Region"
        )
    return account, region


def seen_from(scope: Construct, copies: Sequence[Copy]) -> list[str]:
    """The names of the destinations that are certainly in the stack's account and Region, whose copies are looked at.

    Not of air-gapped vaults: those are under a key that AWS owns, by design.
    """
    stack = Stack.of(scope)
    here = (stack.account, stack.region)
    vaults = [copy.vault for copy in copies if not isinstance(copy.to, AirGappedVault)]
    return list(dict.fromkeys(v.backup_vault_name for v in vaults if (v.env.account, v.env.region) == here))


def _whereabouts(vault: backup.IBackupVault) -> tuple[str, str]:
    """The (account, Region) of a vault, by its ARN where that says them."""
    arn = vault.backup_vault_arn
    parts = arn.split(":") if known(arn) else []
    if len(parts) < _ARN_PARTS:
        return vault.env.account, vault.env.region
    return parts[4], parts[3]


def _other(theirs: str, ours: str) -> str | None:
    return theirs if theirs != ours and known(theirs) and known(ours) else None
