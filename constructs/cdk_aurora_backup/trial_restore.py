"""TrialRestore: on a schedule, the newest dump set of each database is restored for real, and compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aws_cdk import Duration
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from cdk_aurora_backup.logical_backup import list_sets, read_sets, write_sets
from cdk_aurora_backup.workflow import Workflow

if TYPE_CHECKING:
    from aws_cdk import aws_lambda as lambda_

    from cdk_aurora_backup.alerts import BackupAlerts
    from cdk_aurora_backup.functions import BackupFunctions

_LAMBDA_LIMIT = Duration.minutes(15)
_SCRATCH_MB = 10_240  # the most that a function can have
_MEMORY_MB = 3538  # two vCPUs


class TrialRestore(Construct):
    """A workflow: find the newest sets, restore each into a PostgreSQL inside the function, compare, conclude, notify.

    What does not fit into a function (10 GB of scratch space, 15 minutes) or needs an extension that the server here
    lacks is reported as not run, never as proved. Started by the policy's `logical.trial_restore`, or on demand with
    `{"prefix": "manual-backups"}`.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, functions: BackupFunctions, alerts: BackupAlerts
    ) -> None:
        super().__init__(scope, construct_id)
        bucket = functions.bucket
        self._find = functions.add(
            self,
            "NewestSets",
            "newest_sets",
            description="Finds the newest dump set of each database",
            statements=[list_sets(bucket)],
        )
        self._restore = functions.add(
            self,
            "Restore",
            "verify",
            description="Restores a dump set into a throw-away PostgreSQL and compares it with its manifest",
            statements=[*read_sets(bucket), *write_sets(bucket, archives=False)],
            layers=[functions.server],
            timeout=_LAMBDA_LIMIT,
            memory_mb=_MEMORY_MB,
            storage_mb=_SCRATCH_MB,
        )
        self._conclude = functions.add(
            self,
            "Conclude",
            "conclude_trial_restore",
            description="Says which sets were restored, and fails when one was not",
            statements=[],
        )
        self._workflow = Workflow(self, "Workflow", name="TrialRestore", topic=alerts.topic, key=functions.key)
        self._workflow.define(self._definition(), timeout=Duration.hours(6))
        alerts.watch_workflow("TrialRestoreEnds", self._workflow.machine)
        logical = functions.policy.logical
        if logical and logical.trial_restore:
            self._workflow.schedule(
                "Schedule", logical.trial_restore, {"prefix": "logical-backups"}, dead_letters=functions.dead_letters
            )

    @property
    def machine(self) -> sfn.StateMachine:
        """The workflow, for starting it on demand."""
        return self._workflow.machine

    @property
    def restore_function(self) -> lambda_.Function:
        """The function that restores a set, under the role that reads every set back."""
        return self._restore

    def _definition(self) -> sfn.IChainable:
        flow = self._workflow
        begin, accepted = flow.begin()
        each = sfn.Map(
            self,
            "Every set",
            items_path="$.sets",
            max_concurrency=1,
            item_selector={"set.$": "$$.Map.Item.Value.set", "database.$": "$$.Map.Item.Value.database"},
            result_path="$.results",
        )
        restore = flow.task(
            "Restore",
            self._restore,
            payload={"set.$": "$.set", "tiers": ["trial-restore"]},
            result_path="$.verified",
            timeout=_LAMBDA_LIMIT,
            catch=False,
        )
        failed = sfn.Pass(
            self,
            "This set was not restored",
            parameters={"database.$": "$.database", "error.$": "$.error.Error", "cause.$": "$.error.Cause"},
        )
        restore.add_catch(failed, result_path="$.error")
        each.item_processor(restore)
        flow.catch(each)
        find = flow.task("Find the newest sets", self._find)
        conclude = flow.task("Conclude", self._conclude)
        notify = flow.notify("Notify", "Trial restore done", {"workflow": "TrialRestore", "result.$": "$"})
        accepted.next(find).next(each).next(conclude).next(notify).next(sfn.Succeed(self, "Done"))
        return sfn.Chain.start(begin)
