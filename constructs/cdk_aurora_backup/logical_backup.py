"""LogicalBackup: pg_dump sets of every database of the cluster, in S3, on the policy's schedules and on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aws_cdk import ArnFormat, Duration, Stack
from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_stepfunctions as sfn
from aws_cdk import aws_stepfunctions_tasks as tasks
from constructs import Construct

from aurora_backup.policy import Prefix
from cdk_aurora_backup.checks import SynthError
from cdk_aurora_backup.long_running_dump import LongRunningDump
from cdk_aurora_backup.permissions import statement
from cdk_aurora_backup.workflow import Workflow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aws_cdk import aws_lambda as lambda_
    from aws_cdk import aws_s3 as s3
    from aws_cdk import aws_scheduler as scheduler

    from cdk_aurora_backup.alerts import BackupAlerts
    from cdk_aurora_backup.functions import BackupFunctions, DatabaseNetwork
    from cdk_aurora_backup.permissions import Statement

_LAMBDA_LIMIT = Duration.minutes(15)
_WORKFLOW_LIMIT = Duration.hours(36)  # several databases, one after the other, each up to the long-running engine's 8 h
_OBJECTS = "Objects are named after databases and times; they are limited to this package's own prefixes."
_PREFIXES = tuple(prefix.value for prefix in Prefix)


class LogicalBackup(Construct):
    """A workflow: find an instance, preflight, dump each database, verify each set, conclude, notify.

    It is started by the policy's schedules, or by anybody with `{"prefix": "manual-backups"}`. One failing database
    fails the run loudly and does not stop the others.

    databases: names. Default: all databases of the cluster, found at run time, but `rdsadmin` and templates.
    long_running: also make the engine for dumps that take longer than a function may. Without it such a dump fails,
        and says so. Default: True.
    content_digest: also digest the contents of every table under the snapshot, so that a restore can be compared
        value for value; reads every table once more. Default: False.
    dump_memory_mb: memory, and with it CPU, of the dump function, 512-10240. Default: 3538, two vCPUs.
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
        dump_memory_mb: int = 3538,
        long_running: bool = True,
        content_digest: bool = False,
    ) -> None:
        super().__init__(scope, construct_id)
        if long_running and functions.brings_own_clients:
            raise SynthError(
                "LogicalBackup.long_running must be False with a layer of one's own clients: the long-running engine "
                "runs the clients that this package brings, got True"
            )
        bucket = functions.bucket
        self._find = functions.add(
            self,
            "FindInstance",
            "find_instance",
            description="Chooses the instance that a dump reads from",
            statements=[_describe(functions)],
        )
        self._preflight = functions.add(
            self,
            "Preflight",
            "preflight",
            description="Finds the databases, their sizes, and what would keep a dump from succeeding",
            statements=read_sets(bucket),
            network=network,
            layers=[functions.clients],
            databases=databases,
        )
        self._dump = functions.add(
            self,
            "Dump",
            "dump",
            description="Streams one database's dump set to S3",
            statements=[*read_sets(bucket), *write_sets(bucket)],
            network=network,
            layers=[functions.clients],
            environment={"CONTENT_DIGEST": "true"} if content_digest else None,
            databases=databases,
            timeout=_LAMBDA_LIMIT,
            memory_mb=dump_memory_mb,
        )
        self._verify = functions.add(
            self,
            "Verify",
            "verify",
            description="Reads a dump set back and decodes it",
            statements=[*read_sets(bucket), *write_sets(bucket, archives=False)],
            layers=[functions.clients],
            timeout=_LAMBDA_LIMIT,
            memory_mb=dump_memory_mb,
        )
        self._conclude = functions.add(
            self,
            "Conclude",
            "conclude_logical_backup",
            description="Says which databases were backed up, and fails when one was not",
            statements=[],
        )
        self._long_running = (
            LongRunningDump(
                self,
                "LongRunning",
                functions=functions,
                network=network,
                environment={
                    **functions.environment(),
                    **({"CONTENT_DIGEST": "true"} if content_digest else {}),
                },
                statements=[*functions.database_statements(), *read_sets(bucket), *write_sets(bucket)],
            )
            if long_running
            else None
        )
        self._workflow = Workflow(self, "Workflow", name="LogicalBackup", topic=alerts.topic, key=functions.key)
        self._workflow.define(
            self._definition(),
            timeout=_WORKFLOW_LIMIT,
            statements=LongRunningDump.start_statements(self._long_running.project) if self._long_running else (),
        )
        alerts.watch_workflow("LogicalBackupEnds", self._workflow.machine)
        self._schedules = [
            self._workflow.schedule(
                f"{s.name.title()}Schedule",
                s.schedule,
                {"prefix": s.prefix.value},
                dead_letters=functions.dead_letters,
            )
            for s in functions.policy.dump_schedules()
        ]

    @property
    def machine(self) -> sfn.StateMachine:
        """The workflow, for starting it on demand."""
        return self._workflow.machine

    @property
    def long_running(self) -> LongRunningDump | None:
        """The engine for long dumps."""
        return self._long_running

    @property
    def schedules(self) -> list[scheduler.Schedule]:
        """When it starts by itself."""
        return list(self._schedules)

    @property
    def dump_function(self) -> lambda_.Function:
        """The function that dumps."""
        return self._dump

    def _definition(self) -> sfn.IChainable:
        flow = self._workflow
        begin, accepted = flow.begin()
        find = flow.task("Find an instance", self._find)
        preflight = flow.task("Preflight", self._preflight)
        each = sfn.Map(
            self,
            "Every database",
            items_path="$.databases",
            max_concurrency=1,
            item_selector={
                **{f"{name}.$": f"$.{name}" for name in ("execution", "started", "prefix", "cluster", "instance")},
                "database.$": "$$.Map.Item.Value",
            },
            result_path="$.results",
        )
        each.item_processor(self._one_database())
        flow.catch(each)
        conclude = flow.task("Conclude", self._conclude)
        notify = flow.notify("Notify", "Logical backup done", {"workflow": "LogicalBackup", "result.$": "$"})
        elsewhere = flow.notify(
            "Notify of no backup",
            "Logical backup left to another run, which says how it ends",
            {"workflow": "LogicalBackup", "result.$": "$"},
        )
        end = sfn.Succeed(self, "Done")
        made = sfn.Choice(self, "Made here?").when(
            sfn.Condition.string_equals("$.state", "elsewhere"), elsewhere.next(end)
        )
        accepted.next(find).next(preflight).next(each).next(conclude).next(made.otherwise(notify.next(end)))
        return sfn.Chain.start(begin)

    def _one_database(self) -> sfn.IChainable:
        flow = self._workflow
        failed = sfn.Pass(
            self,
            "This database failed",
            parameters={"database.$": "$.database.name", "error.$": "$.error.Error", "cause.$": "$.error.Cause"},
        )
        dump = flow.task("Dump", self._dump, result_path="$.dump", timeout=_LAMBDA_LIMIT, catch=False)
        verify = flow.task(
            "Verify",
            self._verify,
            payload={"set.$": "$.database.set", "reuse": True},
            result_path="$.verified",
            timeout=_LAMBDA_LIMIT,
            catch=False,
        )
        done = sfn.Pass(
            self,
            "This database is backed up",
            parameters={"database.$": "$.database.name", "dump.$": "$.dump", "verified.$": "$.verified"},
        )
        elsewhere = sfn.Pass(
            self,
            "Another run makes this set",
            parameters={"database.$": "$.database.name", "dump.$": "$.dump"},
        )
        for state in (dump, verify):
            state.add_catch(failed, result_path="$.error")
        verify.next(done)
        dumped = sfn.Choice(self, "Dumped?").when(
            sfn.Condition.and_(
                sfn.Condition.string_equals("$.dump.state", "already-done"),
                sfn.Condition.is_null("$.dump.manifest_key"),
            ),
            elsewhere,
        )
        dump.next(dumped)
        if not self._long_running:
            dumped.otherwise(verify)
            return dump
        long = self._long_dump(self._long_running)
        long.add_catch(failed, result_path="$.error")
        long.next(dump)  # which finds the set made, and says what is in it
        dumped.when(sfn.Condition.string_equals("$.dump.state", "handover"), long).otherwise(verify)
        return (
            sfn.Choice(self, "Fits a function?")
            .when(sfn.Condition.string_equals("$.database.engine", "lambda"), dump)
            .otherwise(long)
        )

    def _long_dump(self, engine: LongRunningDump) -> tasks.CodeBuildStartBuild:
        build = tasks.CodeBuildStartBuild(
            self,
            "Long-running dump",
            project=engine.project,
            integration_pattern=sfn.IntegrationPattern.RUN_JOB,
            environment_variables_override={
                "EVENT": codebuild.BuildEnvironmentVariable(
                    value=sfn.JsonPath.json_to_string(sfn.JsonPath.object_at("$"))
                )
            },
            result_path=sfn.JsonPath.DISCARD,
            task_timeout=sfn.Timeout.duration(engine.limit),
        )
        # Only what kept the build from starting: a build that failed has dumped for hours, and says why.
        build.add_retry(
            errors=["CodeBuild.AWSCodeBuildException", "CodeBuild.AccountLimitExceededException"],
            interval=Duration.minutes(1),
            max_attempts=5,
        )
        return build


def _describe(functions: BackupFunctions) -> Statement:
    stack = Stack.of(functions)
    instances = stack.format_arn(
        service="rds", resource="db", resource_name="*", arn_format=ArnFormat.COLON_RESOURCE_NAME
    )
    return statement(
        "Describe",
        ["rds:DescribeDBClusters", "rds:DescribeDBInstances"],
        [functions.target.arn, instances],
        wildcard="Which instances the cluster has is known at run time only; they are described, nothing more.",
    )


def write_sets(bucket: s3.IBucket, *, archives: bool = True) -> list[Statement]:
    """What writing dump sets and creation records needs; archives: False writes small documents only."""
    return [
        statement(
            "WriteSets",
            ["s3:PutObject", *(["s3:AbortMultipartUpload"] if archives else [])],
            [bucket.arn_for_objects(f"{prefix}/*") for prefix in (*_PREFIXES, "ledger")],
            wildcard=_OBJECTS,
        ),
    ]


def read_sets(bucket: s3.IBucket) -> list[Statement]:
    """What reading dump sets back needs."""
    return [
        statement(
            "ReadSets",
            ["s3:GetObject", "s3:GetObjectVersion"],
            [bucket.arn_for_objects(f"{prefix}/*") for prefix in (*_PREFIXES, "ledger")],
            wildcard=_OBJECTS,
        ),
        list_sets(bucket),
    ]


def list_sets(bucket: s3.IBucket) -> Statement:
    """What finding dump sets needs."""
    return statement("ListSets", ["s3:ListBucket"], [bucket.bucket_arn])
