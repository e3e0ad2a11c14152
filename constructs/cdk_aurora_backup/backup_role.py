"""The roles that AWS Backup assumes: what Aurora uses of AWS's own managed policies, on named resources only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aws_cdk import ArnFormat, Aws, Stack
from aws_cdk import aws_iam as iam

from cdk_aurora_backup.permissions import ServiceRole, Statement, statement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aws_cdk import aws_kms as kms
    from constructs import Construct

BACKUP_SERVICE = "backup.amazonaws.com"
FIND = ("rds:DescribeDBClusters", "rds:ListTagsForResource")
_OWN_SNAPSHOTS = "AWS Backup names its snapshots awsbackup:<job>, and no job exists yet."
_ANY_CLUSTER = "The selection is by tag: clusters are not known yet, and the condition holds them to the tag."
_FIND_ANY = "Describe calls list every cluster before the tag is seen."
_ARNS = "The caller's selection names its clusters with a wildcard."


def rds_arn(scope: Construct, resource: str, name: str, region: str | None = None) -> str:
    """An RDS ARN in the stack's partition and account; region: Default: the stack's."""
    return Stack.of(scope).format_arn(
        service="rds",
        region=region,
        resource=resource,
        resource_name=name,
        arn_format=ArnFormat.COLON_RESOURCE_NAME,
    )


def snapshot_role(
    scope: Construct,
    construct_id: str,
    *,
    clusters: Sequence[str],
    any_tag: Mapping[str, str] | None = None,
    conditions: Mapping[str, Mapping[str, str]] | None = None,
    keys: Sequence[kms.IKey],
    vaults: Sequence[str],
    copy_regions: Sequence[str] = (),
) -> ServiceRole:
    """A role that snapshots these clusters into the first vault and copies into the others.

    clusters: ARNs. any_tag: tags of which a cluster has one. conditions: on `aws:ResourceTag/...`, by operator, all of
    which hold. vaults: ARNs, the plan's own first. copy_regions: other Regions that copies go to.
    """
    statements = []
    if clusters:
        wildcard = _ARNS if any("*" in arn for arn in clusters) else None
        statements.append(
            statement("Snapshot", ["rds:CreateDBClusterSnapshot", *FIND], list(clusters), wildcard=wildcard)
        )
    tags: list[Mapping[str, Mapping[str, str]]] = [
        {"StringEquals": {f"aws:ResourceTag/{key}": value}} for key, value in (any_tag or {}).items()
    ]
    if conditions:  # one statement, whose conditions IAM takes together
        tags.append(conditions)
    if tags:
        everywhere = [rds_arn(scope, "cluster", "*")]
        statements += [
            statement(
                f"SnapshotTagged{n}",
                ["rds:CreateDBClusterSnapshot"],
                everywhere,
                {operator: dict(wanted) for operator, wanted in condition.items()},
                wildcard=_ANY_CLUSTER,
            )
            for n, condition in enumerate(tags)
        ]
        statements.append(statement("FindClusters", FIND, everywhere, wildcard=_FIND_ANY))
    statements += [
        statement(
            "OwnSnapshots",
            [
                "rds:CreateDBClusterSnapshot",
                "rds:CopyDBClusterSnapshot",
                "rds:DescribeDBClusterSnapshots",
                "rds:DeleteDBClusterSnapshot",
                "rds:ModifyDBClusterSnapshotAttribute",
                "rds:AddTagsToResource",
                "rds:ListTagsForResource",
            ],
            [rds_arn(scope, "cluster-snapshot", "awsbackup:*", region) for region in (None, *copy_regions)],
            wildcard=_OWN_SNAPSHOTS,
        ),
        statement("Vault", ["backup:DescribeBackupVault", "backup:CopyIntoBackupVault"], list(vaults)),
        statement("FindTagged", ["tag:GetResources"], ["*"], wildcard="tag:GetResources knows no resources."),
        *use_keys_through_rds(keys, copy_regions),
    ]
    return ServiceRole(
        scope,
        construct_id,
        assumed_by=iam.ServicePrincipal(BACKUP_SERVICE),
        description="AWS Backup takes snapshots of the Aurora cluster",
        statements=statements,
    )


def use_keys_through_rds(keys: Sequence[kms.IKey], regions: Sequence[str] = ()) -> list[Statement]:
    """What a snapshot, a copy or a restore needs of a customer key, only when RDS asks on the role's behalf."""
    arns = list(dict.fromkeys(key.key_arn for key in keys))
    if not arns:
        return []
    through = {"kms:ViaService": [f"rds.{region}.{Aws.URL_SUFFIX}" for region in (Aws.REGION, *regions)]}
    use = ["kms:DescribeKey", "kms:Decrypt", "kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext"]
    granting = {"Bool": {"kms:GrantIsForAWSResource": "true"}}
    return [
        statement("Key", use, arns, {"StringEquals": through}),
        statement("KeyGrants", ["kms:CreateGrant"], arns, granting),
    ]
