"""RecoveryTest: restores a recovery point into isolation, queries it, reports, and always cleans up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aws_cdk import Duration, RemovalPolicy, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_rds as rds
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from aurora_backup.baseline import BaselineIncomplete
from aurora_backup.database_role import ROLE
from aurora_backup.tags import RECOVERY_TEST
from cdk_aurora_backup.functions import DatabaseNetwork
from cdk_aurora_backup.recovery_permissions import (
    connect_to_restored,
    delete_test_copies,
    describe,
    documents,
    read_own_secret,
    restore,
)
from cdk_aurora_backup.restore_states import LAMBDA_LIMIT, NOW, CleanUpPath, loop, step
from cdk_aurora_backup.workflow import Workflow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aws_cdk import aws_lambda as lambda_
    from aws_cdk import aws_scheduler as scheduler

    from cdk_aurora_backup.alerts import BackupAlerts
    from cdk_aurora_backup.baselines import Baselines
    from cdk_aurora_backup.functions import BackupFunctions
    from cdk_aurora_backup.permissions import Statement

_NAME = "RecoveryTest"


class TestIsolation(Construct):
    """Where restored test copies live: own security group without a way out, and functions that reach only them.

    instance_class: of the one instance of a copy. Default: db.t4g.medium.
    """

    __test__ = False  # pytest: not a test

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        functions: BackupFunctions,
        network: DatabaseNetwork,
        instance_class: str = "db.t4g.medium",
    ) -> None:
        super().__init__(scope, construct_id)
        self._group = ec2.SecurityGroup(
            self,
            "Copies",
            vpc=network.vpc,
            description="Restored test copies: only the reader of tests comes in, nothing goes out",
            allow_all_outbound=False,
        )
        self._network = DatabaseNetwork(
            self,
            "Network",
            vpc=network.vpc,
            target=functions.target,
            opens=ec2.Connections(security_groups=[self._group]),
            subnets=network.subnets,
            create_endpoints=network.creates_endpoints,
        )
        self._subnets = rds.SubnetGroup(
            self,
            "Subnets",
            vpc=network.vpc,
            vpc_subnets=network.subnets,
            description="Restored test copies",
            removal_policy=RemovalPolicy.DESTROY,
        )
        self._instance_class = instance_class

    @property
    def network(self) -> DatabaseNetwork:
        """For the functions that read test copies."""
        return self._network

    @property
    def environment(self) -> dict[str, str]:
        """What the planning function is told."""
        told = {
            "subnet_group": self._subnets.subnet_group_name,
            "security_groups": [self._group.security_group_id],
            "instance_class": self._instance_class,
        }
        return {"TEST_ISOLATION": Stack.of(self).to_json_string(told)}


class RecoveryTest(Construct):
    """A workflow: choose the tier's newest recovery point, take a baseline, restore, read, judge, clean up, notify.

    It starts on the policy's schedule, each time with the tier whose last test is the oldest, or by anybody with
    `{"tier": "weekly"}`. Whatever happens, what it made is removed before it ends; the janitor takes what a crash left.

    databases: names. Default: all but `rdsadmin` and templates, found at run time.
    environment: the caller's validation rules and the lineage. Default: none.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        functions: BackupFunctions,
        alerts: BackupAlerts,
        baselines: Baselines,
        isolation: TestIsolation,
        databases: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        keep = documents(functions.bucket)
        told = {**(environment or {}), **isolation.environment}

        def add(construct_id: str, handler: str, description: str, statements: list[Statement]) -> lambda_.Function:
            return functions.add(
                self, construct_id, handler, description=description, statements=statements, environment=told
            )

        plan = add(
            "Plan",
            "plan_recovery_test",
            "Chooses the recovery point to test",
            [*describe(self, "cluster", "cluster-snapshot"), *keep],
        )
        advance = add(
            "Step",
            "restore_step",
            "Takes the next step of restoring a test copy",
            [*describe(self, "cluster", "db"), *restore(functions, RECOVERY_TEST), *keep],
        )
        judge = add("Judge", "judge_restored", "Holds a test copy against the baselines", keep)
        clean = add(
            "CleanUp",
            "clean_up",
            "Removes a test copy",
            [
                *describe(self, "cluster", "db"),
                delete_test_copies(functions),
                *documents(functions.bucket, write=False),
            ],
        )
        read = reader(self, functions, isolation, databases, told)

        self._workflow = flow = Workflow(self, "Workflow", name=_NAME, topic=alerts.topic, key=functions.key)
        begin, accepted = flow.begin()
        planned = {"plan.$": "$.planned.plan"}
        choose = step(flow, "Choose a recovery point", plan, None, result_path="$.planned")
        remember, baseline = baselines.states(flow, catch=False)
        restoring = step(flow, "Restore", advance, {**planned, **NOW}, result_path="$.restored", catch=False)
        reading = step(
            flow,
            "Read the copy",
            read,
            {**planned, "restored.$": "$.restored"},
            result_path="$.read",
            timeout=LAMBDA_LIMIT,
            catch=False,
        )
        judging = step(
            flow, "Judge", judge, {**planned, **NOW, "read.$": "$.read"}, result_path="$.judged", catch=False
        )
        clean_up = CleanUpPath(flow, _NAME, clean, then=self._end(flow))
        # What is not in the baseline is UNKNOWN in the report; the rest is tested all the same.
        baseline.add_catch(restoring, errors=[BaselineIncomplete.__name__], result_path="$.baseline")
        for state in (remember, baseline, restoring, reading, judging):
            clean_up.catch(state)
        accepted.next(choose).next(remember).next(baseline).next(restoring)
        loop(flow, restoring, result="$.restored", done="done", then=reading)
        reading.next(judging).next(clean_up.start)
        hours = functions.policy.recovery_testing.lifetime_hours
        flow.define(sfn.Chain.start(begin), timeout=Duration.hours(hours + 2))
        alerts.watch_workflow("RecoveryTestEnds", flow.machine)
        self._schedule = flow.schedule(
            "Schedule", functions.policy.recovery_testing.schedule, {}, dead_letters=functions.dead_letters
        )

    @property
    def machine(self) -> sfn.StateMachine:
        """The workflow. Input: `{}`, or `{"tier": "automated" | "weekly" | "monthly" | "on-demand"}`."""
        return self._workflow.machine

    @property
    def schedule(self) -> scheduler.Schedule:
        """When it starts by itself."""
        return self._schedule

    def _end(self, flow: Workflow) -> sfn.IChainable:
        passed = flow.notify("Notify", "Recovery test passed", {"workflow": _NAME, "result.$": "$.judged"})
        passed.next(sfn.Succeed(self, "Done"))
        return unless_restored(self, flow, _NAME, passed)


def unless_restored(scope: Construct, flow: Workflow, workflow: str, passed: sfn.IChainable) -> sfn.Choice:
    """Go on when the copy was called RESTORED; otherwise fail, with the verdicts and the report."""
    not_restored = sfn.Pass(
        scope,
        "Say what is not proved",
        parameters={
            "workflow": workflow,
            "step": "Judge",
            "error.$": "States.Format('RecoveryTest {}', $.judged.outcome)",
            "cause.$": "States.Format('{}; report {}', States.JsonToString($.judged.checks), $.judged.report)",
            "execution.$": "$$.Execution.Id",
        },
    )
    not_restored.next(flow.failed)
    restored = sfn.Condition.string_equals("$.judged.outcome", "RESTORED")
    return sfn.Choice(scope, "Was it restored?").when(restored, passed).otherwise(not_restored)


def reader(
    scope: Construct,
    functions: BackupFunctions,
    isolation: TestIsolation,
    databases: Sequence[str],
    environment: Mapping[str, str],
    *,
    own_secret: bool = True,
) -> lambda_.Function:
    """Make the function that opens test copies, and nothing else. own_secret: copies may have a master secret."""
    return functions.add(
        scope,
        "Read",
        "read_restored",
        description="Reads a restored test copy",
        statements=[
            *documents(functions.bucket),
            *(read_own_secret(functions, test=True) if own_secret else []),
            connect_to_restored(functions, ROLE),
        ],
        network=isolation.network,
        environment=environment,
        databases=databases,
        timeout=LAMBDA_LIMIT,
    )
