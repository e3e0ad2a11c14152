"""OnDemandSnapshot: a manual cluster snapshot when somebody asks, watched to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aws_cdk import Duration
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from cdk_aurora_backup.recovery_permissions import describe, documents, snapshot
from cdk_aurora_backup.restore_states import NOW, loop, step
from cdk_aurora_backup.workflow import Workflow

if TYPE_CHECKING:
    from cdk_aurora_backup.alerts import BackupAlerts
    from cdk_aurora_backup.baselines import Baselines
    from cdk_aurora_backup.functions import BackupFunctions


class OnDemandSnapshot(Construct):
    """A workflow: take a baseline, check the quota and start, watch, notify. Input: `{"description": "why"}`.

    The snapshot's name comes from the execution's, so a repeated start makes one. Nothing is deleted to make room. A
    baseline that cannot be taken is said in the notification and does not keep the snapshot from being made.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        functions: BackupFunctions,
        alerts: BackupAlerts,
        baselines: Baselines,
    ) -> None:
        super().__init__(scope, construct_id)
        start = functions.add(
            self,
            "Start",
            "start_snapshot",
            description="Starts a cluster snapshot on demand",
            statements=[
                *describe(self, "cluster", "cluster-snapshot", quotas=True),
                *snapshot(functions.target, self),
                *documents(functions.bucket),
            ],
        )
        observe = functions.add(
            self,
            "Observe",
            "observe_snapshot",
            description="Watches a snapshot on demand",
            statements=describe(self, "cluster-snapshot"),
        )
        name = "OnDemandSnapshot"
        self._workflow = flow = Workflow(self, "Workflow", name=name, topic=alerts.topic, key=functions.key)
        begin, accepted = flow.begin()
        common = {f"{field}.$": f"$.{field}" for field in ("execution", "started")}
        making = step(flow, "Start", start, {**common, "description.$": "$.description"}, result_path="$.made")
        watching = step(flow, "Watch", observe, {**common, **NOW, "made.$": "$.made"}, result_path="$.snapshot")
        told = {"workflow": name, "made.$": "$.made", "snapshot.$": "$.snapshot", "baseline.$": "$.baseline"}
        notify = flow.notify("Notify", "Snapshot on demand done", told)
        without = sfn.Pass(
            self, "Go on without a baseline", parameters={"failed.$": "$.error"}, result_path="$.baseline"
        )
        remember, baseline = baselines.states(flow, catch=False)
        for state in (remember, baseline):
            state.add_catch(without, result_path="$.error")
        accepted.next(remember).next(baseline).next(making)
        without.next(making)
        loop(flow, watching, result="$.snapshot", done="available", then=notify)
        making.next(watching)
        notify.next(sfn.Succeed(self, "Done"))
        flow.define(sfn.Chain.start(begin), timeout=Duration.hours(13))
        alerts.watch_workflow("OnDemandSnapshotEnds", flow.machine)

    @property
    def machine(self) -> sfn.StateMachine:
        """The workflow. Input: `{"description": "why"}`."""
        return self._workflow.machine
