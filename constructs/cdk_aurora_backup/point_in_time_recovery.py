"""PointInTimeRecovery: a new cluster with the data of a past moment, settled, validated and handed over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aws_cdk import Duration
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from aurora_backup.database_role import ROLE
from aurora_backup.tags import POINT_IN_TIME_RECOVERY
from cdk_aurora_backup.recovery_permissions import (
    connect_to_restored,
    describe,
    documents,
    pass_monitoring_role,
    read_own_secret,
    restore,
)
from cdk_aurora_backup.restore_states import LAMBDA_LIMIT, NOW, loop, step
from cdk_aurora_backup.workflow import Workflow

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aws_cdk import aws_lambda as lambda_

    from cdk_aurora_backup.alerts import BackupAlerts
    from cdk_aurora_backup.functions import BackupFunctions, DatabaseNetwork
    from cdk_aurora_backup.permissions import Statement

_NAME = "PointInTimeRecovery"


class PointInTimeRecovery(Construct):
    """A workflow: check the request, restore, settle, make instances, read, judge, hand over, notify.

    Input: `{"target_cluster_id": ..., "target_time": ISO 8601 with a zone}` or `"latest": true`. The source is never
    touched. What a failure leaves is tagged and stays for the operator; nothing here can delete.

    environment: the caller's validation rules and the lineage. Default: none.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        functions: BackupFunctions,
        network: DatabaseNetwork,
        alerts: BackupAlerts,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        keep = documents(functions.bucket)

        def add(construct_id: str, handler: str, description: str, statements: list[Statement]) -> lambda_.Function:
            return functions.add(
                self, construct_id, handler, description=description, statements=statements, environment=environment
            )

        plan = add(
            "Plan",
            "plan_recovery",
            "Checks a recovery request and plans it",
            [*describe(self, "cluster", "db", "cluster-auto-backup", "subgrp", quotas=True), *keep],
        )
        advance = add(
            "Step",
            "restore_step",
            "Takes the next step of a recovery",
            [
                *describe(self, "cluster", "db"),
                *restore(functions, POINT_IN_TIME_RECOVERY),
                pass_monitoring_role(functions),
                *keep,
            ],
        )
        judge = add("Judge", "judge_restored", "Holds a recovered cluster against the baselines", keep)
        give = add("HandOver", "hand_over", "Writes the hand-over document", [*describe(self, "cluster"), *keep])
        read = functions.add(
            self,
            "Read",
            "read_restored",
            description="Reads a recovered cluster",
            statements=[
                *keep,
                *read_own_secret(functions, test=False),
                connect_to_restored(functions, ROLE),
            ],
            network=network,
            environment=environment,
            timeout=LAMBDA_LIMIT,
        )
        self._workflow = flow = Workflow(self, "Workflow", name=_NAME, topic=alerts.topic, key=functions.key)
        begin, accepted = flow.begin()
        planned = {"plan.$": "$.planned.plan"}
        check = step(flow, "Check the request", plan, None, result_path="$.planned")
        restoring = step(flow, "Restore", advance, {**planned, **NOW}, result_path="$.restored")
        reading = step(
            flow,
            "Read the recovered cluster",
            read,
            {**planned, "restored.$": "$.restored"},
            result_path="$.read",
            timeout=LAMBDA_LIMIT,
        )
        judging = step(flow, "Judge", judge, {**planned, **NOW, "read.$": "$.read"}, result_path="$.judged")
        handing = step(flow, "Hand over", give, {**planned, "judged.$": "$.judged"}, result_path="$.handed")
        notify = flow.notify("Notify", "Point-in-time recovery done", {"workflow": _NAME, "result.$": "$.handed"})
        damaged = sfn.Pass(
            self,
            "Say what is damaged",
            parameters={
                "workflow": _NAME,
                "step": "Judge",
                "error": "RecoveredDataDamaged",
                "cause.$": "States.Format('the recovered cluster is there and handed over, but is damaged: {}', "
                "$.handed.report)",
                "execution.$": "$$.Execution.Id",
            },
        )
        damaged.next(flow.failed)
        outcome = (
            sfn.Choice(self, "Is the data sound?")
            .when(sfn.Condition.string_equals("$.judged.outcome", "DAMAGED"), damaged)
            .otherwise(notify)
        )
        accepted.next(check).next(restoring)
        loop(flow, restoring, result="$.restored", done="done", then=reading)
        reading.next(judging).next(handing).next(outcome)
        notify.next(sfn.Succeed(self, "Done"))
        hours = functions.policy.recovery_testing.lifetime_hours
        flow.define(sfn.Chain.start(begin), timeout=Duration.hours(hours + 2))
        alerts.watch_workflow("PointInTimeRecoveryEnds", flow.machine)

    @property
    def machine(self) -> sfn.StateMachine:
        """The workflow; docs/recovery.md has its input."""
        return self._workflow.machine
