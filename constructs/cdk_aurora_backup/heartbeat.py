"""Heartbeat: one small row every few minutes, which shows after any restore what the last surviving write was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_scheduler_targets as targets
from constructs import Construct

from aurora_backup.metrics import HEARTBEATS, NAMESPACE
from cdk_aurora_backup.checks import SynthError
from cdk_aurora_backup.permissions import ServiceRole, statement, use_key

if TYPE_CHECKING:
    from aws_cdk import aws_lambda as lambda_

    from cdk_aurora_backup.alerts import BackupAlerts
    from cdk_aurora_backup.functions import BackupFunctions, DatabaseNetwork

_MISSED = 3  # periods without a beat before the alarm


class Heartbeat(Construct):
    """A function that writes one row, on a schedule (the policy's `recovery_testing.heartbeat_minutes`), and an alarm.

    It writes into the schema `aurora_backup` of one database. A Serverless v2 cluster that may pause at zero capacity
    never does while this runs: leave it out there, and give the recovery test a recency query instead.

    database: Default: "postgres".
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        functions: BackupFunctions,
        network: DatabaseNetwork,
        alerts: BackupAlerts,
        database: str = "postgres",
    ) -> None:
        super().__init__(scope, construct_id)
        minutes = functions.policy.recovery_testing.heartbeat_minutes
        target = functions.target
        if not target.endpoint:
            raise SynthError(
                "Heartbeat needs ClusterDetails.endpoint of an imported cluster, got none: give it, or heartbeat=False"
            )
        self._function = functions.add(
            self,
            "Function",
            "heartbeat",
            description="Writes one heartbeat into the database",
            statements=[],
            network=network,
        )
        role = ServiceRole(
            self,
            "ScheduleRole",
            assumed_by=iam.ServicePrincipal("scheduler.amazonaws.com"),
            description="Starts the heartbeat",
            statements=[
                statement("Invoke", ["lambda:InvokeFunction"], [self._function.function_arn]),
                statement("DeadLetter", ["sqs:SendMessage"], [functions.dead_letters.queue_arn]),
                use_key(functions.key),
            ],
        )
        where = {"host": target.endpoint, "port": target.listens_on}
        self._schedule = scheduler.Schedule(
            self,
            "Schedule",
            schedule=scheduler.ScheduleExpression.rate(Duration.minutes(minutes)),
            target=targets.LambdaInvoke(
                self._function,
                role=role.role,
                dead_letter_queue=functions.dead_letters,
                max_event_age=Duration.minutes(max(1, minutes)),
                retry_attempts=1,
                input=scheduler.ScheduleTargetInput.from_object({"database_endpoint": where, "database": database}),
            ),
            key=functions.key,
            description="Starts the heartbeat",
        )
        self._schedule.node.add_dependency(role.policy, target.cluster)
        beats = cloudwatch.Metric(
            namespace=NAMESPACE,
            metric_name=HEARTBEATS,
            dimensions_map={"Owner": functions.owner},
            statistic="Sum",
            period=Duration.minutes(minutes),
        )
        self._alarm = cloudwatch.Alarm(
            self,
            "Missing",
            metric=beats,
            threshold=1,
            evaluation_periods=_MISSED,
            comparison_operator=cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD,
            treat_missing_data=cloudwatch.TreatMissingData.BREACHING,
            alarm_description=f"No heartbeat was written for {_MISSED} times {minutes} minutes",
        )
        alerts.watch_alarm(self._alarm)

    @property
    def function(self) -> lambda_.Function:
        """The function that writes."""
        return self._function

    @property
    def schedule(self) -> scheduler.Schedule:
        """When it writes."""
        return self._schedule

    @property
    def alarm(self) -> cloudwatch.Alarm:
        """Tells of missing heartbeats."""
        return self._alarm
