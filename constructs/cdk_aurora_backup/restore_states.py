"""The states that every restoring workflow shares: step by step until done, with waiting between, and cleaning up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aws_cdk import Duration
from aws_cdk import aws_stepfunctions as sfn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aws_cdk import aws_lambda as lambda_
    from aws_cdk import aws_stepfunctions_tasks as tasks

    from cdk_aurora_backup.workflow import Workflow

LAMBDA_LIMIT = Duration.minutes(15)
PAUSE = Duration.seconds(30)
NOW = {"now.$": "$$.State.EnteredTime"}
# Our functions can be repeated, so what may pass is tried again: an AWS service out of breath, a copy's DNS not there
# yet, a function that died. ClientError is what is left of AWS SDK calls whose failure nobody named better.
_PASSING = ["RdsUnavailable", "S3Failed", "ConnectionFailed", "ClientError", "Lambda.Unknown", "States.Timeout"]


def step(
    flow: Workflow,
    name: str,
    function: lambda_.IFunction,
    payload: Mapping[str, Any] | None,
    *,
    result_path: str | None = None,
    timeout: Duration | None = None,
    catch: bool = True,
) -> tasks.LambdaInvoke:
    """One task whose function can be repeated. payload: None is the whole state. result_path: None discards."""
    state = flow.task(
        name, function, payload=payload, result_path=result_path, timeout=timeout or Duration.minutes(2), catch=catch
    )
    state.add_retry(
        errors=_PASSING,
        interval=Duration.seconds(15),
        max_attempts=5,
        backoff_rate=2,
        jitter_strategy=sfn.JitterType.FULL,
    )
    return state


def loop(
    flow: Workflow, state: sfn.TaskStateBase, *, result: str, done: str, then: sfn.IChainable
) -> sfn.TaskStateBase:
    """Repeat a task, with a pause, until `result`.state is `done`; then go on. Returns the task, where it begins."""
    pause = sfn.Wait(flow, f"Wait for {state.id[0].lower()}{state.id[1:]}", time=sfn.WaitTime.duration(PAUSE))
    finished = sfn.Condition.string_equals(f"{result}.state", done)
    state.next(sfn.Choice(flow, f"{state.id}: done?").when(finished, then).otherwise(pause))
    pause.next(state)
    return state


class CleanUpPath:
    """Removes what a workflow made, whatever happened before, and only then ends: well, or in an alert.

    Send failures here with `catch`; go to `start` when all went well.
    """

    def __init__(self, flow: Workflow, workflow: str, function: lambda_.IFunction, *, then: sfn.IChainable) -> None:
        self._flow, self._workflow = flow, workflow
        a_step_failed = sfn.Condition.is_present("$.failure")
        told = {f"{field}.$": f"$.failure.{field}" for field in ("step", "error", "cause")}
        ended = (
            sfn.Choice(flow, "Did a step fail?")
            .when(a_step_failed, self._alert("Say what failed", told))
            .otherwise(then)
        )
        clean = step(
            flow, "Clean up", function, {"plan.$": "$.planned.plan", **NOW}, result_path="$.cleaned", catch=False
        )
        not_cleaned = {"step": clean.id, "error.$": "$.error.Error", "cause.$": "$.error.Cause"}
        both = "States.Format('{} Before that, {} failed: {}', $.error.Cause, $.failure.step, $.failure.cause)"
        stuck = (
            sfn.Choice(flow, "Had a step failed before?")
            .when(a_step_failed, self._alert("Say both", {**not_cleaned, "cause.$": both}))
            .otherwise(self._alert("Say what is left", not_cleaned))
        )
        clean.add_catch(stuck, result_path="$.error")
        self.start = loop(flow, clean, result="$.cleaned", done="gone", then=ended)
        self.entrance: sfn.IChainable = self.start

    def _alert(self, name: str, told: Mapping[str, str]) -> sfn.Pass:
        common = {"workflow": self._workflow, "execution.$": "$$.Execution.Id"}
        state = sfn.Pass(self._flow, name, parameters={**common, **told})
        state.next(self._flow.failed)
        return state

    def catch(self, state: sfn.TaskStateBase) -> None:
        """Clean up after what this state could not recover from, and then fail with its name and cause."""
        named = sfn.Pass(
            self._flow,
            f"{state.id} failed",
            parameters={"step": state.id, "error.$": "$.error.Error", "cause.$": "$.error.Cause"},
            result_path="$.failure",
        )
        named.next(self.entrance)
        state.add_catch(named, result_path="$.error")
