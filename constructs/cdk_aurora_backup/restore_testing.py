"""RestoreTesting: AWS Backup's own restore tests of the cluster's recovery points, handed to a validation of ours."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aws_cdk import Names, RemovalPolicy
from aws_cdk import aws_backup as backup
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_rds as rds
from constructs import Construct

from cdk_aurora_backup.backup_role import BACKUP_SERVICE, FIND, rds_arn, use_keys_through_rds
from cdk_aurora_backup.checks import SynthError
from cdk_aurora_backup.permissions import ServiceRole, Statement, statement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aws_cdk import aws_kms as kms

    from aurora_backup.policy import RetentionPolicy
    from cdk_aurora_backup.cluster import ClusterDetails

_NAME = re.compile(r"[A-Za-z0-9_]{1,50}")
_VALIDATION_HOURS = (0, 168)
_START_HOURS = (1, 168)
_WINDOW_DAYS = (1, 365)
_RESTORED = "awsbackup-restore-test-*"
_NOT_YET = "AWS Backup chooses the name of what it restores; its prefix is fixed."


class RestoreTesting(Construct):
    """A restore testing plan and a selection of the cluster, restored where nothing else can reach it.

    AWS Backup restores a cluster without an instance, so nothing opens a connection unless somebody adds one: that is
    what `validate_with` starts. Whatever it starts must answer with PutRestoreValidationResult (`answer` is the
    permission) and delete its instance before the validation window ends, because AWS Backup then deletes the cluster.

    vault: whose recovery points are tested. key: under which they are, beside the cluster's own.
    vpc, subnets: where the copy is restored. Default: isolated subnets.
    security_groups: Default: one is made that lets nothing in or out; the validation adds what it needs.
    schedule: AWS cron, UTC. Default: the policy's recovery tests.
    start_window_hours, validation_window_hours: Default: 8 and 4. look_back_days: a random recovery point of these
        last days is tested. Default: 365, the most that AWS Backup takes.
    overrides: more restore metadata, for example {"dbClusterParameterGroupName": "..."}.
    name: Default: made from the construct's path. Letters, digits and underscores only: AWS Backup takes no hyphen.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        target: ClusterDetails,
        policy: RetentionPolicy,
        vault: backup.IBackupVault,
        key: kms.IKey,
        vpc: ec2.IVpc,
        subnets: ec2.SubnetSelection | None = None,
        security_groups: Sequence[ec2.ISecurityGroup] = (),
        schedule: str | None = None,
        start_window_hours: int = 8,
        validation_window_hours: int = 4,
        look_back_days: int = 365,
        overrides: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        name = name or Names.unique_resource_name(self, max_length=50, separator="_")
        if not _NAME.fullmatch(name):
            raise SynthError(f"RestoreTesting.name must be 1-50 letters, digits and underscores, got {name!r}")
        for field, value, (low, high) in (
            ("validation_window_hours", validation_window_hours, _VALIDATION_HOURS),
            ("start_window_hours", start_window_hours, _START_HOURS),
            ("look_back_days", look_back_days, _WINDOW_DAYS),
        ):
            if not low <= value <= high:
                raise SynthError(f"RestoreTesting.{field} must be within {low}-{high}, got {value}")
        self._group = (
            None
            if security_groups
            else ec2.SecurityGroup(
                self, "Group", vpc=vpc, description="Restored copies under test", allow_all_outbound=False
            )
        )
        groups = [*security_groups, *([self._group] if self._group else [])]
        subnet_group = rds.SubnetGroup(
            self,
            "Subnets",
            vpc=vpc,
            vpc_subnets=subnets or ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_ISOLATED),
            description="Where AWS Backup restores copies under test",
            removal_policy=RemovalPolicy.DESTROY,
        )
        role = self._restore_role([key, *([target.key] if target.key else [])], subnet_group)
        self._plan = backup.CfnRestoreTestingPlan(
            self,
            "Plan",
            restore_testing_plan_name=name,
            schedule_expression=schedule or policy.recovery_testing.schedule,
            schedule_expression_timezone="UTC",
            start_window_hours=start_window_hours,
            recovery_point_selection=backup.CfnRestoreTestingPlan.RestoreTestingRecoveryPointSelectionProperty(
                algorithm="RANDOM_WITHIN_WINDOW",
                include_vaults=[vault.backup_vault_arn],
                recovery_point_types=["SNAPSHOT"],
                selection_window_days=look_back_days,
            ),
        )
        selection = backup.CfnRestoreTestingSelection(
            self,
            "Selection",
            restore_testing_plan_name=self._plan.ref,
            restore_testing_selection_name=name,
            iam_role_arn=role.arn,
            protected_resource_type="Aurora",
            protected_resource_arns=[target.arn],
            restore_metadata_overrides={
                "dbSubnetGroupName": subnet_group.subnet_group_name,
                "vpcSecurityGroupIds": _json_list([group.security_group_id for group in groups]),
                "enableIamDatabaseAuthentication": "true",
                **(overrides or {}),
            },
            validation_window_hours=validation_window_hours,
        )
        selection.node.add_dependency(role.policy)

    @property
    def plan(self) -> backup.CfnRestoreTestingPlan:
        """The restore testing plan."""
        return self._plan

    @property
    def security_group(self) -> ec2.SecurityGroup | None:
        """The group that was made around restored copies; None when groups were brought along."""
        return self._group

    def validate_with(self, construct_id: str, target: events.IRuleTarget) -> events.Rule:
        """Start the target with AWS Backup's event when a test restore is done: `detail.createdResourceArn` is it."""
        return events.Rule(
            self,
            construct_id,
            description="A test restore is done: validate it, and answer",
            event_pattern=events.EventPattern(
                source=["aws.backup"],
                detail_type=["Restore Job State Change"],
                detail={"status": ["COMPLETED"], "restoreTestingPlanArn": [self._plan.attr_restore_testing_plan_arn]},
            ),
            targets=[target],
        )

    def answer(self) -> Statement:
        """What the function that answers with PutRestoreValidationResult needs."""
        return statement(
            "AnswerRestoreTest",
            ["backup:PutRestoreValidationResult"],
            ["*"],
            wildcard="AWS Backup names no resource for restore jobs.",
        )

    def _restore_role(self, keys: Sequence[kms.IKey], subnet_group: rds.ISubnetGroup) -> ServiceRole:
        restored = rds_arn(self, "cluster", _RESTORED)
        return ServiceRole(
            self,
            "Restore",
            assumed_by=iam.ServicePrincipal(BACKUP_SERVICE),
            description="AWS Backup restores copies of the Aurora cluster for tests",
            statements=[
                statement(
                    "Restore",
                    ["rds:RestoreDBClusterFromSnapshot", "rds:AddTagsToResource", *FIND],
                    [restored],
                    wildcard=_NOT_YET,
                ),
                statement(
                    "FromSnapshot",
                    ["rds:RestoreDBClusterFromSnapshot", "rds:DescribeDBClusterSnapshots", "rds:ListTagsForResource"],
                    [rds_arn(self, "cluster-snapshot", "awsbackup:*")],
                    wildcard="AWS Backup names its snapshots awsbackup:<job>, and no job exists yet.",
                ),
                statement(
                    "Into",
                    ["rds:RestoreDBClusterFromSnapshot", "rds:DescribeDBSubnetGroups"],
                    [rds_arn(self, "subgrp", subnet_group.subnet_group_name)],
                ),
                statement(
                    "WithParameters",
                    ["rds:RestoreDBClusterFromSnapshot"],
                    [rds_arn(self, "cluster-pg", "*"), rds_arn(self, "og", "*")],
                    wildcard="A restore names the parameter and option groups that the recovery point says.",
                ),
                statement(
                    "LookAtNetwork",
                    ["ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeVpcs"],
                    ["*"],
                    wildcard="EC2 names no resource for these calls.",
                ),
                *use_keys_through_rds(keys),
            ],
        )


def _json_list(values: Sequence[str]) -> str:
    """A JSON list of text. Each value may be a token, which holds no character that JSON would escape."""
    return "[" + ",".join(f'"{value}"' for value in values) + "]"
