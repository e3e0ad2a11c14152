"""Workflow: how every state machine of this package is made: logged, traced, timed, ending in an alert on failure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_scheduler_targets as scheduler_targets
from aws_cdk import aws_stepfunctions as sfn
from aws_cdk import aws_stepfunctions_tasks as tasks
from constructs import Construct

from cdk_aurora_backup.permissions import ServiceRole, log_delivery, statement, tracing, use_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aws_cdk import aws_kms as kms
    from aws_cdk import aws_lambda as lambda_
    from aws_cdk import aws_sns as sns
    from aws_cdk import aws_sqs as sqs

    from cdk_aurora_backup.permissions import Statement

_TRANSIENT = [
    "Lambda.ServiceException",
    "Lambda.AWSLambdaException",
    "Lambda.SdkClientException",
    "Lambda.TooManyRequestsException",
    "Lambda.ClientExecutionTimeoutException",
    "TransientError",
]


class Workflow(Construct):
    """Builds one Standard state machine. Make states with `task`, then call `define` once.

    Every task has a timeout, retries what is transient, and on anything else goes to one failure path, which publishes
    the workflow, the step and the cause, and ends the execution as failed.

    name: as people read it in alerts, for example "LogicalBackup".
    """

    def __init__(self, scope: Construct, construct_id: str, *, name: str, topic: sns.ITopic, key: kms.IKey) -> None:
        super().__init__(scope, construct_id)
        self._name, self._topic, self._key = name, topic, key
        self._functions: list[lambda_.IFunction] = []
        self._machine: sfn.StateMachine | None = None
        self._failed = self._failure_path()

    @property
    def machine(self) -> sfn.StateMachine:
        """The state machine, once defined."""
        if self._machine is None:
            raise RuntimeError(f"workflow {self._name} is not defined yet: call define first")
        return self._machine

    @property
    def failed(self) -> sfn.Chain:
        """The failure path, for states that clean up first. Takes {workflow, step, error, cause, execution}."""
        return self._failed

    def begin(self) -> tuple[sfn.Pass, sfn.Pass]:
        """Two states that lay the input over {execution, started}; returns the first and the last of them.

        A schedule gives `started` itself, so that a repeated delivery repeats the same run.
        """
        defaults = sfn.Pass(
            self,
            "Identify",
            parameters={
                "defaults": {"execution.$": "$$.Execution.Name", "started.$": "$$.Execution.StartTime"},
                "input.$": "$",
            },
        )
        merge = sfn.Pass(
            self,
            "Accept",
            parameters={"merged.$": "States.JsonMerge($.defaults, $.input, false)"},
            output_path="$.merged",
        )
        defaults.next(merge)
        return defaults, merge

    def task(
        self,
        name: str,
        function: lambda_.IFunction,
        *,
        payload: Mapping[str, Any] | None = None,
        result_path: str | None = "$",
        timeout: Duration | None = None,
        catch: bool = True,
    ) -> tasks.LambdaInvoke:
        """A state that calls a function. payload: Default: the whole state. catch: False: the caller does it."""
        self._functions.append(function)
        state = tasks.LambdaInvoke(
            self,
            name,
            lambda_function=function,
            payload=sfn.TaskInput.from_object(dict(payload)) if payload else None,
            payload_response_only=True,
            retry_on_service_exceptions=False,
            result_path=result_path or sfn.JsonPath.DISCARD,
            task_timeout=sfn.Timeout.duration(timeout or Duration.minutes(2)),
        )
        state.add_retry(
            errors=_TRANSIENT,
            interval=Duration.seconds(2),
            max_attempts=6,
            backoff_rate=2,
            jitter_strategy=sfn.JitterType.FULL,
        )
        if catch:
            self.catch(state)
        return state

    def catch(self, state: sfn.TaskStateBase | sfn.Map | sfn.Parallel) -> None:
        """Send what the state could not recover from to the failure path, with the state's name."""
        named = sfn.Pass(
            self,
            f"{state.id} failed",
            parameters={
                "workflow": self._name,
                "step": state.id,
                "error.$": "$.error.Error",
                "cause.$": "$.error.Cause",
                "execution.$": "$$.Execution.Id",
            },
        )
        named.next(self._failed)
        state.add_catch(named, result_path="$.error")

    def notify(self, name: str, subject: str, message: Mapping[str, Any]) -> tasks.SnsPublish:
        """A state that publishes a message to the topic."""
        state = tasks.SnsPublish(
            self,
            name,
            topic=self._topic,
            subject=subject,
            message=sfn.TaskInput.from_object(dict(message)),
            result_path=sfn.JsonPath.DISCARD,
            task_timeout=sfn.Timeout.duration(Duration.minutes(1)),
        )
        state.add_retry(max_attempts=3)
        self.catch(state)
        return state

    def define(
        self, start: sfn.IChainable, *, timeout: Duration, statements: Sequence[Statement] = ()
    ) -> sfn.StateMachine:
        """Make the state machine. statements: for the AWS calls that its states make themselves."""
        group = logs.LogGroup(
            self,
            "Logs",
            encryption_key=self._key,
            retention=logs.RetentionDays.ONE_YEAR,
            removal_policy=RemovalPolicy.DESTROY,
        )
        arns = sorted({function.function_arn for function in self._functions})
        role = ServiceRole(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal("states.amazonaws.com"),
            description=f"The {self._name} workflow",
            statements=[
                *([statement("Invoke", ["lambda:InvokeFunction"], arns)] if arns else []),
                statement("Notify", ["sns:Publish"], [self._topic.topic_arn]),
                use_key(self._key),
                *self._topic_key(),
                *statements,
                log_delivery(),
                tracing(),
            ],
        )
        self._machine = sfn.StateMachine(
            self,
            "Machine",
            definition_body=sfn.DefinitionBody.from_chainable(start),
            role=role.role,
            timeout=timeout,
            tracing_enabled=True,
            logs=sfn.LogOptions(destination=group, level=sfn.LogLevel.ALL, include_execution_data=False),
        )
        self._machine.node.add_dependency(role.policy)
        return self._machine

    def schedule(
        self, construct_id: str, expression: str, data: Mapping[str, Any], *, dead_letters: sqs.IQueue
    ) -> scheduler.Schedule:
        """Start the workflow at an AWS cron time, UTC, with this input and `started`, the time that was scheduled.

        dead_letters: where the start goes when Scheduler gives up on it; the queue's own alarm tells of it.
        """
        role = ServiceRole(
            self,
            f"{construct_id}Role",
            assumed_by=iam.ServicePrincipal("scheduler.amazonaws.com"),
            description=f"Starts the {self._name} workflow",
            statements=[
                statement("Start", ["states:StartExecution"], [self.machine.state_machine_arn]),
                statement("DeadLetter", ["sqs:SendMessage"], [dead_letters.queue_arn]),
                use_key(self._key),
            ],
        )
        target = scheduler_targets.StepFunctionsStartExecution(
            self.machine,
            role=role.role,
            dead_letter_queue=dead_letters,
            input=scheduler.ScheduleTargetInput.from_object(
                {**data, "started": scheduler.ContextAttribute.scheduled_time}
            ),
        )
        made = scheduler.Schedule(
            self,
            construct_id,
            schedule=scheduler.ScheduleExpression.expression(expression),
            target=target,
            key=self._key,
            description=f"Starts the {self._name} workflow",
        )
        made.node.add_dependency(role.policy)
        return made

    def _topic_key(self) -> list[Statement]:
        """An existing topic can have a key of its own; who publishes uses it."""
        key = self._topic.master_key
        if key is None or key is self._key:
            return []
        return [statement("UseTopicKey", ["kms:Decrypt", "kms:GenerateDataKey"], [key.key_arn])]

    def _failure_path(self) -> sfn.Chain:
        publish = tasks.SnsPublish(
            self,
            "Alert",
            topic=self._topic,
            subject=f"{self._name} failed",
            message=sfn.TaskInput.from_json_path_at("$"),
            result_path=sfn.JsonPath.DISCARD,
            task_timeout=sfn.Timeout.duration(Duration.minutes(1)),
        )
        failed = sfn.Fail(self, "Failed", error_path="$.error", cause_path="$.cause")
        publish.add_retry(max_attempts=3)
        publish.add_catch(failed, result_path="$.alert")
        return publish.next(failed)
