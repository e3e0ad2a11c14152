"""Janitor: removes what a crashed recovery test left, and alarms while anything of it is still there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_scheduler_targets as targets
from constructs import Construct

from aurora_backup.metrics import LEFT_OVER, NAMESPACE
from cdk_aurora_backup.permissions import ServiceRole, statement, use_key
from cdk_aurora_backup.recovery_permissions import (
    delete_added_instances,
    delete_test_copies,
    describe,
    documents,
    forget_records,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aws_cdk import aws_lambda as lambda_

    from cdk_aurora_backup.alerts import BackupAlerts
    from cdk_aurora_backup.functions import BackupFunctions

_EVERY = Duration.minutes(30)


class Janitor(Construct):
    """A function that sweeps every half hour, and an alarm on restored copies that are past their lifetime.

    It deletes only what carries our tag and our creation record, and never what belongs to production.

    environment: the lineage. Default: none.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        functions: BackupFunctions,
        alerts: BackupAlerts,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        self._function = functions.add(
            self,
            "Function",
            "sweep_leftovers",
            description="Removes test copies past their lifetime",
            statements=[
                *describe(self, "cluster", "db"),
                delete_test_copies(functions),
                delete_added_instances(functions),
                *documents(functions.bucket, write=False),
                forget_records(functions.bucket),
            ],
            environment=environment,
            timeout=Duration.minutes(5),
        )
        role = ServiceRole(
            self,
            "ScheduleRole",
            assumed_by=iam.ServicePrincipal("scheduler.amazonaws.com"),
            description="Starts the janitor",
            statements=[
                statement("Invoke", ["lambda:InvokeFunction"], [self._function.function_arn]),
                statement("DeadLetter", ["sqs:SendMessage"], [functions.dead_letters.queue_arn]),
                use_key(functions.key),
            ],
        )
        self._schedule = scheduler.Schedule(
            self,
            "Schedule",
            schedule=scheduler.ScheduleExpression.rate(_EVERY),
            target=targets.LambdaInvoke(
                self._function,
                role=role.role,
                dead_letter_queue=functions.dead_letters,
                input=scheduler.ScheduleTargetInput.from_object({"now": scheduler.ContextAttribute.scheduled_time}),
            ),
            key=functions.key,
            description="Starts the janitor",
        )
        self._schedule.node.add_dependency(role.policy)
        left = cloudwatch.Metric(
            namespace=NAMESPACE,
            metric_name=LEFT_OVER,
            dimensions_map={"Owner": functions.owner},
            statistic="Maximum",
            period=_EVERY,
        )
        # Three periods: sweeps after the expiry delete the instance, then the cluster, and see it gone. A janitor that
        # says nothing is as bad as one that finds something.
        self._alarm = cloudwatch.Alarm(
            self,
            "LeftOver",
            metric=left,
            threshold=1,
            evaluation_periods=3,
            datapoints_to_alarm=3,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            treat_missing_data=cloudwatch.TreatMissingData.BREACHING,
            alarm_description="A restored copy of production data is past its lifetime, or the janitor does not run",
        )
        alerts.watch_alarm(self._alarm)

    @property
    def function(self) -> lambda_.Function:
        """The function that sweeps."""
        return self._function

    @property
    def schedule(self) -> scheduler.Schedule:
        """When it sweeps."""
        return self._schedule

    @property
    def alarm(self) -> cloudwatch.Alarm:
        """Tells of copies that are left over."""
        return self._alarm
