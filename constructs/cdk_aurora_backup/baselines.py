"""Baselines: what the source holds, read on a schedule, so that a restored copy can be held against it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aws_cdk import Duration
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from cdk_aurora_backup.recovery_permissions import describe, documents
from cdk_aurora_backup.restore_states import LAMBDA_LIMIT, step
from cdk_aurora_backup.workflow import Workflow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aws_cdk import aws_stepfunctions_tasks as tasks

    from cdk_aurora_backup.alerts import BackupAlerts
    from cdk_aurora_backup.functions import BackupFunctions, DatabaseNetwork

_SCHEDULE = "cron(15 0/6 * * ? *)"


class Baselines(Construct):
    """A workflow that remembers the cluster's settings and takes a baseline of its data: counts, heartbeat, catalogue.

    databases: names. Default: all but `rdsadmin` and templates, found at run time.
    environment: of the reading function, for example the caller's recency queries. Default: none.
    schedule: AWS cron, UTC. Default: every six hours. The closer two baselines, the tighter they bound a restored copy.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        functions: BackupFunctions,
        network: DatabaseNetwork,
        alerts: BackupAlerts,
        databases: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        schedule: str = _SCHEDULE,
    ) -> None:
        super().__init__(scope, construct_id)
        self._remember = functions.add(
            self,
            "Remember",
            "remember_cluster",
            description="Keeps what RDS says of the cluster, for the day when it is deleted",
            statements=[*describe(self, "cluster", "db"), *documents(functions.bucket)],
        )
        self._read = functions.add(
            self,
            "Read",
            "take_baseline",
            description="Reads counts, heartbeat and catalogue of the source",
            statements=documents(functions.bucket),
            network=network,
            environment=environment,
            databases=databases,
            timeout=LAMBDA_LIMIT,
        )
        self._workflow = flow = Workflow(self, "Workflow", name="Baseline", topic=alerts.topic, key=functions.key)
        begin, accepted = flow.begin()
        remember, read = self.states(flow)
        accepted.next(remember).next(read).next(sfn.Succeed(self, "Done"))
        flow.define(sfn.Chain.start(begin), timeout=Duration.hours(2))
        alerts.watch_workflow("BaselineEnds", flow.machine)
        flow.schedule("Schedule", schedule, {}, dead_letters=functions.dead_letters)

    @property
    def machine(self) -> sfn.StateMachine:
        """The workflow, for taking a baseline on demand."""
        return self._workflow.machine

    def states(self, flow: Workflow, *, catch: bool = True) -> tuple[tasks.LambdaInvoke, tasks.LambdaInvoke]:
        """Two states of another workflow, to be run one after the other. They leave `$.source` and `$.baseline`."""
        remember = step(flow, "Remember the source", self._remember, None, result_path="$.source", catch=catch)
        read = step(
            flow,
            "Take a baseline",
            self._read,
            {"database_endpoint.$": "$.source.database_endpoint"},
            result_path="$.baseline",
            timeout=LAMBDA_LIMIT,
            catch=catch,
        )
        return remember, read
