"""RetentionManager: a daily plan of what may go, acted on only when told to, and legal holds."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote

from aws_cdk import ArnFormat, Duration, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from aurora_backup.evidence import REGISTERS
from aurora_backup.inventory import SET_RECORDS, SNAPSHOT_RECORDS
from aurora_backup.policy import MANUAL_SNAPSHOT_QUOTA, Prefix
from aurora_backup.recovery import SNAPSHOT_PREFIX
from aurora_backup.retention import QUOTA_SHARE
from aurora_backup.retention_metrics import NAMESPACE
from aurora_backup.schedule import Schedule
from aurora_backup.tags import LEGAL_HOLD, OWNER
from cdk_aurora_backup.permissions import Statement, statement
from cdk_aurora_backup.restore_states import LAMBDA_LIMIT, step
from cdk_aurora_backup.workflow import Workflow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aws_cdk import aws_backup as backup
    from aws_cdk import aws_lambda as lambda_
    from aws_cdk import aws_scheduler as scheduler

    from cdk_aurora_backup.alerts import BackupAlerts
    from cdk_aurora_backup.functions import BackupFunctions

_PLANS = "compliance-backups/evidence/retention"
_HOLDS = f"{REGISTERS}holds"
_DAY = Duration.days(1)
_LONGEST_ALARM = 7  # CloudWatch looks at seven days at most
_NAMES = "Objects and snapshots are named at run time; limited to this package's own prefixes."
_READS = "Only reads, in this account and Region; what there is to be read is known at run time."


class RetentionManager(Construct):
    """A workflow: observe and decide, act, release guards that are no longer needed, tell when a person should look.

    Nothing is deleted unless the policy says `sweep.enforce` and somebody confirmed it once (`aurora-backup retention
    confirm`). What it may delete at all: snapshots on demand that carry our owner's tag and no legal hold, and current
    versions of dump sets, which can be brought back until S3 removes noncurrent versions.

    vaults: AWS Backup vaults whose recovery points are looked at. lineage: resource ids of the clusters that this one
    was recovered from. snapshot_quota: the Region's quota of manual cluster snapshots. Default: 100.

    Starting the workflow with `{"started": time, "ahead_of_clock": true}` decides by a time that has not come: whoever
    may do so may shorten retention, so guard states:StartExecution. Without the second key such a time is refused.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        functions: BackupFunctions,
        alerts: BackupAlerts,
        vaults: Sequence[backup.IBackupVault] = (),
        lineage: Sequence[str] = (),
        snapshot_quota: int = MANUAL_SNAPSHOT_QUOTA,
    ) -> None:
        super().__init__(scope, construct_id)
        self._functions = functions
        stack = Stack.of(self)
        environment = {
            "BACKUP_VAULTS": stack.to_json_string([vault.backup_vault_name for vault in vaults]),
            "LINEAGE": stack.to_json_string(list(lineage)),
            "SNAPSHOT_QUOTA": str(snapshot_quota),
        }
        self._plan = functions.add(
            self,
            "Plan",
            "plan_retention",
            description="Decides which recovery points may go, and deletes nothing",
            statements=[
                *self._observe(),
                self._list_uploads(),
                *self._list_vaults(vaults),
                self._write("WriteRetention", _PLANS),
            ],
            environment=environment,
            timeout=LAMBDA_LIMIT,
            memory_mb=1024,
        )
        self._act = functions.add(
            self,
            "Act",
            "act_on_retention",
            description="Deletes what a plan lets go, looking again before each",
            statements=[
                *self._observe(),
                self._write("WriteRetention", _PLANS),
                self._write("WriteHolds", _HOLDS),
                *self._delete(),
                self._guard(),
            ],
            environment=environment,
            timeout=LAMBDA_LIMIT,
        )
        self._hold = functions.add(
            self,
            "LegalHold",
            "legal_hold",
            description="Places, lists and releases legal holds",
            statements=[*self._observe(), self._write("WriteHolds", _HOLDS), *self._hold_anything()],
            environment={"LINEAGE": environment["LINEAGE"]},
            timeout=Duration.minutes(5),
        )
        self._workflow = Workflow(self, "Workflow", name="Retention", topic=alerts.topic, key=functions.key)
        self._workflow.define(self._definition(), timeout=Duration.hours(2))
        alerts.watch_workflow("RetentionEnds", self._workflow.machine)
        expression = functions.policy.sweep.schedule
        self._schedule = self._workflow.schedule("Schedule", expression, {}, dead_letters=functions.dead_letters)
        self._alarms = self._make_alarms(Schedule(expression))
        for alarm in self._alarms:
            alerts.watch_alarm(alarm)

    @property
    def machine(self) -> sfn.StateMachine:
        """The workflow, for a plan on demand."""
        return self._workflow.machine

    @property
    def schedule(self) -> scheduler.Schedule:
        """When it starts by itself."""
        return self._schedule

    @property
    def act_function(self) -> lambda_.Function:
        """Deletes what a plan lets go; its role is the only one here that may."""
        return self._act

    @property
    def legal_hold_function(self) -> lambda_.Function:
        """Places, lists and releases legal holds; grant lambda:InvokeFunction to who may."""
        return self._hold

    @property
    def alarms(self) -> list[cloudwatch.Alarm]:
        """On a refused or missing plan, a point gone early, and the quota."""
        return list(self._alarms)

    def _definition(self) -> sfn.IChainable:
        flow = self._workflow
        begin, accepted = flow.begin()
        # The whole input: `ahead_of_clock` is there only when somebody gave it.
        plan = step(flow, "Plan", self._plan, None, result_path="$.plan", timeout=LAMBDA_LIMIT)
        given = {f"{field}.$": f"$.plan.{field}" for field in ("plan", "findings", "ahead_of_clock")}
        act = step(flow, "Act", self._act, given, result_path="$.done", timeout=LAMBDA_LIMIT)
        release = step(
            flow,
            "Release guards",
            self._hold,
            {"action": "release-guards", "points.$": "$.plan.unguard", "started.$": "$.started"},
            result_path="$.released",
            timeout=Duration.minutes(5),
        )
        told = {"workflow": "Retention", "plan.$": "$.plan", "done.$": "$.done"}
        tell = flow.notify("Tell", "Retention needs a look", told)
        done = sfn.Succeed(self, "Done")
        look = sfn.Choice(self, "Should somebody look?")
        look.when(sfn.Condition.boolean_equals("$.done.tell", value=True), tell.next(done)).otherwise(done)
        replaced = sfn.Choice(self, "Is a guard replaced?")
        replaced.when(sfn.Condition.is_present("$.plan.unguard[0]"), release.next(look)).otherwise(look)
        accepted.next(plan).next(act).next(replaced)
        return sfn.Chain.start(begin)

    def _make_alarms(self, schedule: Schedule) -> list[cloudwatch.Alarm]:
        days = min(_LONGEST_ALARM, math.ceil(schedule.longest_gap() / timedelta(days=1)))
        at_least = cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD
        breaching, ignored = cloudwatch.TreatMissingData.BREACHING, cloudwatch.TreatMissingData.NOT_BREACHING
        rows = (
            ("NoPlan", "Findings", "SampleCount", 1, breaching, "The retention manager made no plan"),
            (
                "PlanRefused",
                "PlanRefused",
                "Maximum",
                1,
                ignored,
                "The retention manager refused its plan: read it",
            ),
            ("GoneEarly", "Vanished", "Maximum", 1, ignored, "A recovery point is gone that had to stay"),
            ("Quota", "SnapshotQuotaUsed", "Maximum", 100 * QUOTA_SHARE, ignored, "Cluster snapshots near their quota"),
        )
        below = cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD
        return [
            cloudwatch.Alarm(
                self,
                name,
                metric=cloudwatch.Metric(
                    namespace=NAMESPACE,
                    metric_name=metric,
                    dimensions_map={"Owner": self._functions.owner},
                    statistic=statistic,
                    period=_DAY,
                ),
                threshold=threshold,
                comparison_operator=below if statistic == "SampleCount" else at_least,
                evaluation_periods=days if statistic == "SampleCount" else 1,
                treat_missing_data=missing,
                alarm_description=told,
            )
            for name, metric, statistic, threshold, missing, told in rows
        ]

    # --- What each function may do

    def _objects(self, *patterns: str) -> list[str]:
        return [self._functions.bucket.arn_for_objects(pattern) for pattern in patterns]

    def _sets(self) -> list[str]:
        """Objects of dump sets only: a resource id begins with `cluster-`, and evidence does not."""
        return self._objects(*(f"{prefix.value}/cluster-*" for prefix in Prefix))

    def _snapshots(self, name: str) -> str:
        return Stack.of(self).format_arn(
            service="rds",
            resource="cluster-snapshot",
            resource_name=name,
            arn_format=ArnFormat.COLON_RESOURCE_NAME,
        )

    def _observe(self) -> list[Statement]:
        lists = ("ListBucket", "ListBucketVersions")
        read = [*self._sets(), *self._objects(f"{_PLANS}/*", f"{REGISTERS}*", "ledger/*")]
        return [
            statement(
                "ReadSnapshots",
                ["rds:DescribeDBClusterSnapshots"],
                [self._snapshots("*")],
                wildcard=_READS,
            ),
            statement("ListObjects", [f"s3:{name}" for name in lists], [self._functions.bucket.bucket_arn]),
            statement("ReadObjects", ["s3:GetObject"], read, wildcard=_READS),
            statement("ReadHolds", ["s3:GetObjectLegalHold"], self._sets(), wildcard=_READS),
        ]

    def _list_uploads(self) -> Statement:
        return statement("ListUploads", ["s3:ListBucketMultipartUploads"], [self._functions.bucket.bucket_arn])

    def _list_vaults(self, vaults: Sequence[backup.IBackupVault]) -> list[Statement]:
        arns = [vault.backup_vault_arn for vault in vaults]
        return [statement("ListRecoveryPoints", ["backup:ListRecoveryPointsByBackupVault"], arns)] if arns else []

    def _write(self, sid: str, place: str) -> Statement:
        """Nobody here may write under `registers/confirmations/`: the second yes is a person's."""
        return statement(sid, ["s3:PutObject"], self._objects(f"{place}/*"), wildcard=_NAMES)

    def _delete(self) -> list[Statement]:
        """No version of an object, nothing that is held, nothing of another owner, nothing automated."""
        ours = {
            "StringEquals": {f"aws:ResourceTag/{OWNER}": self._functions.owner},
            "Null": {f"aws:ResourceTag/{LEGAL_HOLD}": "true"},
        }
        owner = quote(self._functions.owner, safe="")
        records = self._objects(*(f"ledger/{kind}/{owner}/*" for kind in (SNAPSHOT_RECORDS, SET_RECORDS)))
        mine = self._snapshots(f"{SNAPSHOT_PREFIX}-*")
        delete = ["rds:DeleteDBClusterSnapshot"]
        return [
            statement("DeleteSnapshots", delete, [mine], ours, wildcard=_NAMES),
            # What is held stays, whatever else this role, or a policy that somebody attaches to it, comes to allow.
            Statement(
                sid="KeepHeldSnapshots",
                actions=delete,
                resources=[self._snapshots("*")],
                conditions={"Null": {f"aws:ResourceTag/{LEGAL_HOLD}": "false"}},
                wildcard=_NAMES,
                deny=True,
            ),
            statement("HideSets", ["s3:DeleteObject"], [*self._sets(), *records], wildcard=_NAMES),
        ]

    def _guard(self) -> Statement:
        """Hold sets, and never release one."""
        only_on = {"StringEquals": {"s3:object-lock-legal-hold": "ON"}}
        return statement("GuardSets", ["s3:PutObjectLegalHold"], self._sets(), only_on, wildcard=_NAMES)

    def _hold_anything(self) -> list[Statement]:
        only = {"ForAllValues:StringEquals": {"aws:TagKeys": [LEGAL_HOLD]}}
        actions = ["rds:AddTagsToResource", "rds:RemoveTagsFromResource"]
        return [
            statement("TagSnapshots", actions, [self._snapshots("*")], only, wildcard=_NAMES),
            statement("HoldSets", ["s3:PutObjectLegalHold"], self._sets(), wildcard=_NAMES),
        ]
