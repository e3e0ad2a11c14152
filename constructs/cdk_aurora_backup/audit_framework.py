"""AuditFramework: AWS Backup Audit Manager's own controls, with the policy's numbers in place of its daily defaults."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from aws_cdk import Names
from aws_cdk import aws_backup as backup
from constructs import Construct

from aurora_backup.schedule import Schedule
from cdk_aurora_backup.checks import SynthError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aws_cdk import aws_iam as iam

    from aurora_backup.policy import RetentionPolicy
    from cdk_aurora_backup.cluster import ClusterDetails

_RESOURCE_TYPE = "Aurora"
_MOST_DAYS = 31  # the largest age and frequency that the controls accept
_START_WINDOW = timedelta(hours=1)


class AuditFramework(Construct):
    """Six controls over the cluster, its plans and its recovery points.

    AWS Config must record in the Region (AWS::RDS::DBCluster and the AWS::Backup types); without it the framework
    deploys and evaluates nothing.

    break_glass: the roles that the vault's policy lets delete, and that the deletion control therefore leaves out.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        target: ClusterDetails,
        policy: RetentionPolicy,
        break_glass: Sequence[iam.IRole] = (),
    ) -> None:
        super().__init__(scope, construct_id)
        rules = policy.snapshot_rules()
        if not rules:
            raise SynthError("AuditFramework.policy must have a weekly or a monthly tier of snapshots, got neither")
        gap, frequent = min((Schedule(rule.schedule).longest_gap(), rule) for rule in rules)
        days = min(math.ceil(gap / timedelta(days=1)), _MOST_DAYS)
        age = min(math.ceil((gap + _START_WINDOW) / timedelta(days=1)), _MOST_DAYS)
        cluster = {"ComplianceResourceTypes": [_RESOURCE_TYPE], "ComplianceResourceIds": [target.resource_id]}
        arns = ",".join(role.role_arn for role in break_glass)
        self._framework = backup.CfnFramework(
            self,
            "Framework",
            framework_name=Names.unique_resource_name(self, max_length=100, separator="_"),
            framework_description="Backups of an Aurora PostgreSQL cluster, as the retention policy says",
            framework_controls=[
                _control("BACKUP_RESOURCES_PROTECTED_BY_BACKUP_PLAN", scope=cluster),
                _control(
                    "BACKUP_PLAN_MIN_FREQUENCY_AND_MIN_RETENTION_CHECK",
                    requiredFrequencyUnit="days",
                    requiredFrequencyValue=str(days),
                    requiredRetentionDays=str(frequent.delete_after_days),
                ),
                _control("BACKUP_RECOVERY_POINT_ENCRYPTED"),
                _control(
                    "BACKUP_RECOVERY_POINT_MINIMUM_RETENTION_CHECK",
                    requiredRetentionDays=str(min(rule.delete_after_days for rule in rules)),
                ),
                _control("BACKUP_RECOVERY_POINT_MANUAL_DELETION_DISABLED", principalArnList=arns),
                _control(
                    "BACKUP_LAST_RECOVERY_POINT_CREATED",
                    scope=cluster,
                    recoveryPointAgeUnit="days",
                    recoveryPointAgeValue=str(age),
                ),
            ],
        )

    @property
    def arn(self) -> str:
        """The framework's ARN, for report plans."""
        return self._framework.attr_framework_arn


def _control(name: str, *, scope: dict[str, Any] | None = None, **parameters: str) -> Any:
    return backup.CfnFramework.FrameworkControlProperty(
        control_name=name,
        control_scope=scope,
        control_input_parameters=[
            backup.CfnFramework.ControlInputParameterProperty(parameter_name=key, parameter_value=value)
            for key, value in parameters.items()
            if value
        ]
        or None,
    )
