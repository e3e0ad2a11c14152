"""Compliance: a daily report on the backups, stored as evidence that cannot be changed unseen."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from aws_cdk import ArnFormat, Aws, Duration, Stack
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from aurora_backup.policy import MANUAL_SNAPSHOT_QUOTA, Keep
from aurora_backup.read_back import LIMIT_SECONDS
from cdk_aurora_backup.checks import SynthError
from cdk_aurora_backup.compliance_watch import ComplianceWatch
from cdk_aurora_backup.permissions import statement
from cdk_aurora_backup.workflow import Workflow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aws_cdk import aws_iam as iam
    from aws_cdk import aws_lambda as lambda_
    from aws_cdk import aws_scheduler as scheduler

    from cdk_aurora_backup.alerts import BackupAlerts
    from cdk_aurora_backup.backup_plan import BackupPlan
    from cdk_aurora_backup.functions import BackupFunctions
    from cdk_aurora_backup.permissions import Statement

_DAILY = "cron(0 6 * * ? *)"
_GATHER_LIMIT = Duration.minutes(15)
_REPORT_LIMIT = Duration.minutes(3)
_EVIDENCE = "compliance-backups/evidence"
_LEAST_YEARS = 6  # HIPAA 164.316(b)(2)(i)
_PREFIXES = ("automated-backups", "manual-backups", "logical-backups", "compliance-backups")
_WHO_CAN_DELETE = (
    "IAM names no resource for it. It is the one call that reads every identity policy, so that the report can say who "
    "can delete; only names are kept."
)
_READS_ONLY = "Only reads, in this account and Region; what there is to be read is known at run time."


@dataclass(frozen=True)
class EvidenceLock:
    """S3 Object Lock of each piece of evidence, for as long as the policy keeps evidence (six years by default).

    Made with `governance`, `compliance` or `none`.
    """

    mode: str
    years: int | None = None

    def check(self, keep: Keep) -> None:
        """Refuse a policy that keeps evidence for less than six years, or not for the years that were acknowledged."""
        if self.mode == "NONE":
            return
        least = Keep.for_years(_LEAST_YEARS).most_days
        if keep.most_days < least:
            raise SynthError(f"policy.evidence_keep must be {least} days (six years) or more, got {keep}")
        if self.years is not None and Keep.for_years(self.years).most_days != keep.most_days:
            raise SynthError(
                f"EvidenceLock.compliance(years=...) must be as long as policy.evidence_keep {keep}, got {self.years}"
            )

    @classmethod
    def governance(cls) -> Self:
        """Nobody deletes it without s3:BypassGovernanceRetention, which no role of this package has."""
        return cls("GOVERNANCE")

    @classmethod
    def compliance(cls, *, acknowledgement: str, years: int = 6) -> Self:
        """Nobody deletes it, the account's root user and AWS included. acknowledgement: says so, word for word."""
        wanted = (
            f"I understand that evidence in compliance mode cannot be deleted by anybody for {years} years, "
            "and is paid for until then."
        )
        if acknowledgement != wanted:
            raise SynthError(
                f"EvidenceLock.acknowledgement must say, word for word, {wanted!r}, got {acknowledgement!r}"
            )
        return cls("COMPLIANCE", years)

    @classmethod
    def none(cls) -> Self:
        """For a bucket without Object Lock, and for stacks that are torn down: a changed report is still found."""
        return cls("NONE")


class Compliance(Construct):
    """A workflow: gather facts by reading, judge them, store the report and its page, tell when it is not a pass.

    plan: AWS Backup's plan, where the policy takes snapshots. workflows: whose runs are looked at, by name.
    restore: the function that restores dump sets (`TrialRestore.restore_function`), under whose role archives are read
    back.
    lock: of the evidence. Default: governance mode.
    vault_locked, vault_denies_deletion, deletion_protection: what the deployment asks for, and the report holds it to.
    copy_vaults: names of vaults of this account and Region that hold copies. friends: account numbers, and ids of
    organisations, that may see snapshots and objects. deleters: roles of this app that delete what has expired, for
    the report.
    break_glass: the roles that the policies of key and vault spare from their denials of deletion; none of them is the
    account's root user. Default: not looked at, as for an imported key or vault.
    controls_key: an own table of controls, JSON, in the backup bucket. Default: HIPAA and NIST SP 800-53.
    lineage: resource ids of the clusters that this one was recovered from. schedule: Default: daily at 06:00 UTC.
    snapshot_quota: the Region's quota of manual cluster snapshots, for the forecast. Default: 100.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        functions: BackupFunctions,
        alerts: BackupAlerts,
        plan: BackupPlan | None = None,
        workflows: Mapping[str, sfn.IStateMachine],
        restore: lambda_.Function,
        lock: EvidenceLock | None = None,
        vault_locked: bool = True,
        vault_denies_deletion: bool = True,
        deletion_protection: bool = True,
        databases: Sequence[str] = (),
        copy_vaults: Sequence[str] = (),
        friends: Sequence[str] = (),
        deleters: Sequence[iam.IRole] = (),
        break_glass: Sequence[iam.IRole] | None = None,
        controls_key: str | None = None,
        lineage: Sequence[str] = (),
        snapshot_quota: int = MANUAL_SNAPSHOT_QUOTA,
        schedule: str = _DAILY,
    ) -> None:
        super().__init__(scope, construct_id)
        if "LogicalBackup" not in workflows:
            raise SynthError(f"Compliance.workflows must name LogicalBackup, got {', '.join(sorted(workflows))}")
        (lock or EvidenceLock.governance()).check(functions.policy.evidence_keep)
        self._functions, self._alerts = functions, alerts
        self._read_back = functions.add(
            self,
            "ReadBack",
            "read_back",
            description="Reads the first bytes of archives, under the role that restores them",
            under=restore,
            timeout=Duration.seconds(LIMIT_SECONDS),
        )
        backed_up = plan if plan and plan.plan else None
        told: dict[str, Any] = {
            "topic_arn": alerts.topic.topic_arn,
            "log_groups": [_log_group_prefix(functions)],
            "workflows": {name: machine.state_machine_arn for name, machine in workflows.items()},
            "databases": list(databases),
            "copy_vaults": list(copy_vaults),
            "friends": list(friends),
            "deleters": [role.role_arn for role in deleters],
            "deletion_protection": deletion_protection,
            "snapshot_quota": snapshot_quota,
            "break_glass": [] if break_glass is None else [role.role_arn for role in break_glass] or [_root()],
        }
        if backed_up and backed_up.plan:
            told |= {
                "vault": backed_up.vault.backup_vault_name,
                "plan_id": backed_up.plan.backup_plan_id,
                "rules": list(backed_up.rules),
                "lock_days": list(backed_up.bounds or ()),
                "vault_locked": vault_locked,
                "vault_denies_deletion": vault_denies_deletion,
            }
        stack = Stack.of(self)
        asked = {"read_back": self._read_back.function_arn, "restore": restore.function_arn}
        environment = {"COMPLIANCE": stack.to_json_string(told), "LINEAGE": stack.to_json_string(list(lineage))}
        self._gather = functions.add(
            self,
            "Gather",
            "gather_compliance",
            description="Asks AWS what a compliance report rests on",
            statements=[
                *self._read_aws(list(workflows.values())),
                *self._read_bucket(),
                statement("ReadBack", ["lambda:InvokeFunction"], [self._read_back.function_arn]),
                statement(
                    "ReadRoles",
                    ["lambda:GetFunctionConfiguration"],
                    [self._read_back.function_arn, restore.function_arn],
                ),
            ],
            environment={**environment, "COMPLIANCE": stack.to_json_string({**told, **asked})},
            timeout=_GATHER_LIMIT,
            memory_mb=1024,
        )
        own = {"CONTROLS_KEY": controls_key} if controls_key else {}
        self._report = functions.add(
            self,
            "Report",
            "report_compliance",
            description="Judges the facts and stores the report as evidence",
            statements=self._write_evidence(controls_key),
            environment={**environment, **own, "EVIDENCE_LOCK": (lock or EvidenceLock.governance()).mode},
            timeout=_REPORT_LIMIT,
        )
        self._workflow = Workflow(self, "Workflow", name="Compliance", topic=alerts.topic, key=functions.key)
        self._workflow.define(self._definition(), timeout=Duration.hours(1))
        alerts.watch_workflow("ComplianceEnds", self._workflow.machine)
        self._schedule = self._workflow.schedule("Daily", schedule, {}, dead_letters=functions.dead_letters)
        self._watch = ComplianceWatch(self, "Watch", functions=functions, alerts=alerts)

    @property
    def machine(self) -> sfn.StateMachine:
        """The workflow, for a report on demand."""
        return self._workflow.machine

    @property
    def schedule(self) -> scheduler.Schedule:
        """When it starts by itself."""
        return self._schedule

    @property
    def watch(self) -> ComplianceWatch:
        """The alarms and the dashboard."""
        return self._watch

    def _definition(self) -> sfn.IChainable:
        flow = self._workflow
        begin, accepted = flow.begin()
        gather = flow.task("Gather facts", self._gather, timeout=_GATHER_LIMIT)
        report = flow.task("Judge and store", self._report, timeout=_REPORT_LIMIT)
        done = sfn.Succeed(self, "Done")
        tell = flow.notify("Tell", "Backups are not shown to be compliant", {"workflow": "Compliance", "report.$": "$"})
        verdict = sfn.Choice(self, "Is it a pass?")
        verdict.when(sfn.Condition.string_equals("$.compliance_status", "PASS"), done).otherwise(tell.next(done))
        accepted.next(gather).next(report).next(verdict)
        return sfn.Chain.start(begin)

    def _read_aws(self, machines: Sequence[sfn.IStateMachine]) -> list[Statement]:
        def rds(kind: str) -> str:
            colon = ArnFormat.COLON_RESOURCE_NAME
            return Stack.of(self).format_arn(service="rds", resource=kind, resource_name="*", arn_format=colon)

        keys = Stack.of(self).format_arn(service="kms", resource="key", resource_name="*")
        key = self._functions.key.key_arn
        arns = [machine.state_machine_arn for machine in machines]
        describe = ("Clusters", "ClusterSnapshots", "ClusterSnapshotAttributes", "ClusterParameters")
        vault = ("DescribeBackupVault", "GetBackupVaultAccessPolicy", "ListRecoveryPointsByBackupVault")
        plan = ("GetBackupPlan", "ListBackupSelections", "GetBackupSelection")
        lists = ("DescribeRegionSettings", "ListBackupJobs")
        return [
            statement(
                "ReadClusters",
                [f"rds:DescribeDB{name}" for name in describe],
                [rds(kind) for kind in ("cluster", "cluster-snapshot", "cluster-pg")],
                wildcard=_READS_ONLY,
            ),
            statement(
                "ReadBackups",
                [f"backup:{name}" for name in (*vault, *plan, *lists)],
                ["*"],
                wildcard="AWS Backup names no resource for its settings and jobs. " + _READS_ONLY,
            ),
            statement("DescribeKeys", ["kms:DescribeKey"], [keys], wildcard=_READS_ONLY),
            statement("ReadKey", ["kms:GetKeyPolicy", "kms:GetKeyRotationStatus"], [key]),
            statement("ReadIdentities", ["iam:GetAccountAuthorizationDetails"], ["*"], wildcard=_WHO_CAN_DELETE),
            statement("ReadTopic", ["sns:GetTopicAttributes"], [self._alerts.topic.topic_arn]),
            statement("ReadLogGroups", ["logs:DescribeLogGroups"], ["*"], wildcard=_READS_ONLY),
            statement("ReadRuns", ["states:DescribeStateMachine", "states:ListExecutions"], arns),
        ]

    def _read_bucket(self) -> list[Statement]:
        bucket = self._functions.bucket
        names = ["EncryptionConfiguration", "LifecycleConfiguration", "BucketVersioning", "BucketPolicy"]
        names += ["BucketObjectLockConfiguration", "BucketPublicAccessBlock"]
        objects = [bucket.arn_for_objects(f"{prefix}/*") for prefix in (*_PREFIXES, "registers")]
        facts = [bucket.arn_for_objects(f"{_EVIDENCE}/facts/*")]
        return [
            statement("ReadBucket", ["s3:ListBucket", *(f"s3:Get{name}" for name in names)], [bucket.bucket_arn]),
            statement("ReadObjects", ["s3:GetObject"], objects, wildcard=_READS_ONLY),
            statement("WriteFacts", ["s3:PutObject"], facts, wildcard="Facts are named after the execution."),
        ]

    def _write_evidence(self, controls_key: str | None) -> list[Statement]:
        bucket = self._functions.bucket
        read = [
            bucket.arn_for_objects(f"{_EVIDENCE}/*"),
            *([bucket.arn_for_objects(controls_key)] if controls_key else []),
        ]
        kept = [bucket.arn_for_objects(f"{_EVIDENCE}/{part}/*") for part in ("chain", "attachments", "unchained")]
        named = "Records are named after their number."
        return [
            statement("ListEvidence", ["s3:ListBucket"], [bucket.bucket_arn]),
            statement("ReadEvidence", ["s3:GetObject"], read, wildcard=named),
            # Only writes that would replace nothing, which S3 itself checks.
            statement("KeepEvidence", ["s3:PutObject"], kept, {"Null": {"s3:if-none-match": "false"}}, wildcard=named),
            statement("LockEvidence", ["s3:PutObjectRetention"], kept, wildcard=named),
        ]


def _root() -> str:
    """The account's root user, which a denial without break-glass roles spares."""
    return f"arn:{Aws.PARTITION}:iam::{Aws.ACCOUNT_ID}:root"


def _log_group_prefix(functions: BackupFunctions) -> str:
    """How the names of this package's log groups begin: CloudFormation names them after stack and logical id."""
    stack = Stack.of(functions)
    path = functions.node.path.removeprefix(stack.node.path).split("/")[:-1]
    # CDK leaves out of a logical id what the name before ends with, and these two.
    parts: list[str] = []
    for part in path:
        if part and part != "Default" and not (parts and parts[-1].endswith(part)):
            parts.append(part)
    return f"{stack.stack_name}-" + "".join(re.sub(r"[^A-Za-z0-9]", "", part) for part in parts if part != "Resource")
