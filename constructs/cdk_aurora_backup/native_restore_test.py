"""NativeRestoreTest: validates what AWS Backup's own restore testing restored, and answers with the result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aws_cdk import Aws, Duration
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from aurora_backup.baseline import BaselineIncomplete
from cdk_aurora_backup.permissions import ServiceRole, add_to_key_policy, statement
from cdk_aurora_backup.recovery_permissions import add_instance, delete_added_instances, describe, documents
from cdk_aurora_backup.recovery_test import reader, unless_restored
from cdk_aurora_backup.restore_states import LAMBDA_LIMIT, NOW, CleanUpPath, loop, step
from cdk_aurora_backup.workflow import Workflow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aws_cdk import aws_lambda as lambda_

    from cdk_aurora_backup.alerts import BackupAlerts
    from cdk_aurora_backup.baselines import Baselines
    from cdk_aurora_backup.functions import BackupFunctions
    from cdk_aurora_backup.permissions import Statement
    from cdk_aurora_backup.recovery_test import TestIsolation
    from cdk_aurora_backup.restore_testing import RestoreTesting

_NAME = "NativeRestoreTest"


class NativeRestoreTest(Construct):
    """A workflow for each completed job of a restore testing plan: add an instance, read, judge, answer, remove it.

    AWS Backup restores a cluster without an instance, so nothing ever opens it unless one is added; and it deletes the
    cluster after the validation window, which an instance of ours would prevent.

    restore_testing: whose jobs are validated. Where it was given security groups, they must let the validation in.
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
        restore_testing: RestoreTesting,
        databases: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        keep = documents(functions.bucket)
        told = {**(environment or {}), **isolation.environment}
        jobs = "AWS Backup names restore jobs at run time."

        def add(construct_id: str, handler: str, description: str, statements: list[Statement]) -> lambda_.Function:
            return functions.add(
                self, construct_id, handler, description=description, statements=statements, environment=told
            )

        job = statement("RestoreJob", ["backup:DescribeRestoreJob"], ["*"], wildcard=jobs)
        plan = add(
            "Plan",
            "plan_native_test",
            "Finds what a restore test restored",
            [job, *describe(self, "cluster", "cluster-snapshot"), *keep],
        )
        advance = add(
            "Step",
            "restore_step",
            "Adds an instance to a restore test's cluster",
            [*describe(self, "cluster", "db"), add_instance(functions), *keep],
        )
        judge = add("Judge", "judge_restored", "Holds a restore test's cluster against the baselines", keep)
        put = statement("Answer", ["backup:PutRestoreValidationResult"], ["*"], wildcard=jobs)
        answer = add("Answer", "answer_native_test", "Tells AWS Backup how its restore test ended", [put])
        clean = add(
            "CleanUp",
            "clean_up",
            "Removes the added instance",
            [
                *describe(self, "cluster", "db"),
                delete_added_instances(functions),
                *documents(functions.bucket, write=False),
            ],
        )
        read = reader(self, functions, isolation, databases, told, own_secret=False)

        self._workflow = flow = Workflow(self, "Workflow", name=_NAME, topic=alerts.topic, key=functions.key)
        begin, accepted = flow.begin()
        planned = {"plan.$": "$.planned.plan"}
        find = step(flow, "Find the restored cluster", plan, None, result_path="$.planned")
        remember, baseline = baselines.states(flow, catch=False)
        adding = step(flow, "Add an instance", advance, {**planned, **NOW}, result_path="$.restored", catch=False)
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
        job_id = {"restore_job.$": "$.planned.restore_job"}
        answering = step(
            flow, "Answer", answer, {**job_id, "judged.$": "$.judged"}, result_path="$.answered", catch=False
        )
        refusing = step(
            flow,
            "Answer that it failed",
            answer,
            {**job_id, "failure.$": "$.failure"},
            result_path="$.answered",
            catch=False,
        )
        passed = sfn.Succeed(self, "Done")
        clean_up = CleanUpPath(flow, _NAME, clean, then=unless_restored(self, flow, _NAME, passed))
        clean_up.catch(answering)
        refusing.add_catch(clean_up.start, result_path="$.error").next(clean_up.start)
        clean_up.entrance = refusing
        # What is not in the baseline is UNKNOWN in the report; the rest is tested all the same.
        baseline.add_catch(adding, errors=[BaselineIncomplete.__name__], result_path="$.baseline")
        for state in (remember, baseline, adding, reading, judging):
            clean_up.catch(state)
        accepted.next(find).next(remember).next(baseline).next(adding)
        loop(flow, adding, result="$.restored", done="done", then=reading)
        reading.next(judging).next(answering).next(clean_up.start)
        hours = functions.policy.recovery_testing.lifetime_hours
        flow.define(sfn.Chain.start(begin), timeout=Duration.hours(hours + 2))
        alerts.watch_workflow("NativeRestoreTestEnds", flow.machine)
        self._rule = self._listen(functions, restore_testing)
        if restore_testing.security_group:
            isolation.network.security_group.connections.allow_to(
                restore_testing.security_group, ec2.Port.tcp(functions.target.port), "The validation reads the copy"
            )

    @property
    def machine(self) -> sfn.StateMachine:
        """The workflow. Input: `{"restore_job": id}`."""
        return self._workflow.machine

    @property
    def rule(self) -> events.Rule:
        """What starts it."""
        return self._rule

    def _listen(self, functions: BackupFunctions, restore_testing: RestoreTesting) -> events.Rule:
        role = ServiceRole(
            self,
            "EventRole",
            assumed_by=iam.ServicePrincipal("events.amazonaws.com"),
            description="Starts the validation of a native restore test",
            statements=[statement("Start", ["states:StartExecution"], [self.machine.state_machine_arn])],
        )
        add_to_key_policy(self, functions.key, [_let_rules_reach_queues()], note="dead-letter-key-policy")
        target = targets.SfnStateMachine(
            self.machine,
            role=role.role,
            dead_letter_queue=functions.dead_letters,
            input=events.RuleTargetInput.from_object(
                {"restore_job": events.EventField.from_path("$.detail.restoreJobId")}
            ),
        )
        return restore_testing.validate_with("Completed", target)


def _let_rules_reach_queues() -> iam.PolicyStatement:
    """What a key's policy must allow so that EventBridge can put what it could not deliver into an encrypted queue."""
    own_queues = f"arn:{Aws.PARTITION}:sqs:{Aws.REGION}:{Aws.ACCOUNT_ID}:*"
    return iam.PolicyStatement(
        sid="DeadLettersOfRules",
        principals=[iam.ServicePrincipal("events.amazonaws.com")],
        actions=["kms:Decrypt", "kms:GenerateDataKey*"],
        resources=["*"],
        conditions={"ArnLike": {"kms:EncryptionContext:aws:sqs:arn": own_queues}},
    )
