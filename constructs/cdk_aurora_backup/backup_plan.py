"""BackupPlan: the weekly and monthly snapshots that AWS Backup takes of the cluster, in an encrypted vault."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aws_cdk import ArnFormat, Aws, Duration, RemovalPolicy, Stack
from aws_cdk import aws_backup as backup
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from constructs import Construct

from cdk_aurora_backup.permissions import ServiceRole, statement

if TYPE_CHECKING:
    from aws_cdk import aws_kms as kms

    from aurora_backup.policy import RetentionPolicy
    from cdk_aurora_backup.cluster import ClusterDetails

_START_WINDOW = Duration.hours(1)
_COMPLETION_WINDOW = Duration.hours(12)


class BackupPlan(Construct):
    """A vault under the customer key, a rule for each snapshot tier of the policy, and a selection of just the cluster.

    Snapshots only: Aurora's own continuous backup gives point-in-time recovery, and AWS Backup's would fight it over
    `BackupRetentionPeriod`. AWS Backup skips Aurora, silently, where the Region has not opted in for it.

    vault: an existing vault. Default: one is made, under `key`, with RETAIN.
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
        removal_policy: RemovalPolicy = RemovalPolicy.RETAIN,
    ) -> None:
        super().__init__(scope, construct_id)
        self._vault = vault or backup.BackupVault(self, "Vault", encryption_key=key, removal_policy=removal_policy)
        self._plan = backup.BackupPlan(self, "Plan", backup_vault=self._vault)
        for rule in policy.snapshot_rules():
            self._plan.add_rule(
                backup.BackupPlanRule(
                    rule_name=rule.name,
                    schedule_expression=events.Schedule.expression(rule.schedule),
                    start_window=_START_WINDOW,
                    completion_window=_COMPLETION_WINDOW,
                    delete_after=Duration.days(rule.delete_after_days),
                    recovery_point_tags={"aurora-backup:tier": rule.name, "aurora-backup:owner": self.node.addr},
                )
            )
        self._role = self._backup_role(target, key)
        selection = self._plan.add_selection(
            "Cluster",
            resources=[backup.BackupResource.from_arn(target.arn)],
            role=self._role.role,
            disable_default_backup_policy=True,
        )
        selection.node.add_dependency(self._role.policy)

    @property
    def vault(self) -> backup.IBackupVault:
        """Where the recovery points lie."""
        return self._vault

    @property
    def plan(self) -> backup.BackupPlan:
        """The plan itself."""
        return self._plan

    def _backup_role(self, target: ClusterDetails, key: kms.IKey) -> ServiceRole:
        """The part of AWS's own backup policy that Aurora snapshots use, on this cluster and this vault only."""
        ours = Stack.of(self).format_arn(
            service="rds",
            resource="cluster-snapshot",
            resource_name="awsbackup:*",
            arn_format=ArnFormat.COLON_RESOURCE_NAME,
        )
        keys = [key.key_arn, *([target.key.key_arn] if target.key else [])]
        via = {"StringEquals": {"kms:ViaService": f"rds.{Aws.REGION}.{Aws.URL_SUFFIX}"}}
        return ServiceRole(
            self,
            "Backup",
            assumed_by=iam.ServicePrincipal("backup.amazonaws.com"),
            description="AWS Backup takes snapshots of the Aurora cluster",
            statements=[
                statement(
                    "Snapshot",
                    ["rds:CreateDBClusterSnapshot", "rds:DescribeDBClusters", "rds:ListTagsForResource"],
                    [target.arn],
                ),
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
                    [ours],
                ),
                statement(
                    "Vault",
                    ["backup:DescribeBackupVault", "backup:CopyIntoBackupVault"],
                    [self._vault.backup_vault_arn],
                ),
                statement("Key", ["kms:DescribeKey", "kms:Decrypt", "kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext"], keys, via),
                statement("KeyGrants", ["kms:CreateGrant"], keys, {"Bool": {"kms:GrantIsForAWSResource": "true"}}),
                statement("FindTagged", ["tag:GetResources"], ["*"]),
            ],
            wildcards="AWS Backup names its snapshots awsbackup:<job>; tag:GetResources knows no resources.",
        )
