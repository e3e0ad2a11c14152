"""Checks at synth: what CDK and CloudFormation would let pass, refused with the field, the rule and the value.

A value that is an unresolved token is passed on purpose: it is not known yet. `known` says so at each place.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from aws_cdk import Annotations, Token
from aws_cdk import aws_rds as rds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from constructs import IConstruct

    from aurora_backup.policy import RetentionPolicy

_QUOTA_SHARE = 0.9
_LONGEST_NAME = 63  # bytes: PostgreSQL's NAMEDATALEN
_NOT_DUMPED = ("rdsadmin", "template0", "template1")
_IDENTIFIER = re.compile(r"[a-zA-Z](?!.*--)[a-zA-Z0-9-]{0,62}(?<!-)")


class SynthError(ValueError):
    """A construct was given what would fail, or protect less than the policy says. Names field, rule and value."""


def known(value: Any) -> bool:
    """Whether a value can be checked now: not None, and not a token that CloudFormation resolves at deployment."""
    return value is not None and not Token.is_unresolved(value)


def check_identifier(name: str, value: str) -> str:
    """An RDS identifier: 1-63 letters, digits and hyphens; a letter first; no double or trailing hyphen."""
    if known(value) and not _IDENTIFIER.fullmatch(value):
        raise SynthError(
            f"{name} must be 1-63 letters, digits and hyphens, beginning with a letter, with no double or trailing "
            f"hyphen; got {value!r}"
        )
    return value


def check_databases(field: str, names: Sequence[str]) -> None:
    """Names of databases that can be dumped: 1-63 bytes, and none of RDS's or PostgreSQL's own."""
    if isinstance(names, str):
        raise SynthError(f"{field} must be a list of names, got the text {names!r}")
    for name in names:
        if known(name) and (not 1 <= len(name.encode()) <= _LONGEST_NAME or "\0" in name or name in _NOT_DUMPED):
            raise SynthError(
                f"{field} must be names of 1-{_LONGEST_NAME} bytes, and none of {', '.join(_NOT_DUMPED)}; got {name!r}"
            )


def check_cluster(cluster: rds.IDatabaseCluster, policy: RetentionPolicy) -> None:
    """Refuse a cluster of the same app that is not encrypted, or keeps backups for less than the policy says.

    A cluster that is only imported shows none of this at synth: preflight and compliance ask AWS about it.
    """
    for resource in [cluster, *cluster.node.find_all()]:
        if not isinstance(resource, rds.CfnDBCluster):
            continue
        from_snapshot = resource.snapshot_identifier is not None  # which is as encrypted as its source
        if resource.storage_encrypted is False or (resource.storage_encrypted is None and not from_snapshot):
            raise SynthError(
                f"cluster {cluster.node.path}: StorageEncrypted must be true, got "
                f"{resource.storage_encrypted!r}; an existing cluster is encrypted by restoring a snapshot of it"
            )
        kept = resource.backup_retention_period
        wanted = policy.automated.keep_days
        if (kept is None or known(kept)) and (kept or 1) < wanted:
            raise SynthError(
                f"cluster {cluster.node.path}: BackupRetentionPeriod must be at least the policy's "
                f"automated.keep_days {wanted}, got {int(kept or 1)}"
            )


def warn_about_quota(scope: IConstruct, policy: RetentionPolicy, quota: int) -> None:
    """Warn, never refuse, when the policy's snapshots come near the Region's quota: the quota can be raised."""
    count = policy.projected_snapshots()
    if count >= _QUOTA_SHARE * quota:
        Annotations.of(scope).add_warning_v2(
            "cdk-aurora-backup:snapshot-quota",
            f"The policy will hold {count} cluster snapshots at one time, and the Region's quota of manual cluster "
            f"snapshots is {quota}: ask for more before it is reached, or keep the monthly tier as dump sets "
            "(monthly.store = 'sets'). Nothing is ever deleted to make room.",
        )
