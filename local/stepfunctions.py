"""Step Functions: `aws-sdk:rds` and `aws-sdk:backup` with the names and errors of AWS, and limits that MiniStack lacks.

An execution's clock counts the waits of its own thread in full, though they are slept through faster
(`SFN_WAIT_SCALE`), so that a state machine's `TimeoutSeconds` means what it says.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ministack.services import stepfunctions

from local.protocol import AwsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from local.protocol import Api

_PAYLOAD_LIMIT = 256 * 1024
_TIMED_OUT = "States.Timeout"


@dataclass
class _Clock:
    limit: float | None
    started: float
    waited: float = 0.0
    ran_out: bool = False

    def check(self) -> None:
        """Raise when the execution has taken longer than its state machine allows."""
        if self.limit is not None and time.monotonic() - self.started + self.waited > self.limit:
            self.ran_out = True
            raise stepfunctions._ExecutionError(_TIMED_OUT, f"The execution took longer than {self.limit:g} seconds")


_here = threading.local()


def install(apis: Mapping[str, Api]) -> None:
    """Answer the operations in `apis` (by the SDK's name of the service), and enforce the limits."""
    _integrations(apis)
    _empty_parameters()
    _timeouts()
    _payloads()


def _integrations(apis: Mapping[str, Api]) -> None:
    theirs = stepfunctions._invoke_aws_sdk_integration

    def invoke(resource: str, parameters: Any) -> Any:
        service, action = resource.rsplit(":aws-sdk:", maxsplit=1)[-1].split(":")[:2]
        api = apis.get(service)
        if api is None or action[0].upper() + action[1:] not in api.operations:
            return theirs(resource, parameters)
        try:
            return api.step_functions(action, parameters or {})
        except AwsError as error:
            cause = f"{error.message} (Service: {service.capitalize()}, Status Code: {error.status})"
            raise stepfunctions._ExecutionError(api.step_functions_error(error), cause) from error
        except ValueError as error:
            raise stepfunctions._ExecutionError("States.Runtime", f"{resource}: {error}") from error

    stepfunctions._invoke_aws_sdk_integration = invoke


def _empty_parameters() -> None:
    """`Parameters: {}` passes nothing; MiniStack passes the whole state instead."""
    theirs = stepfunctions._apply_parameters

    def apply(state: dict[str, Any], data: Any, context: Any = None) -> Any:
        return {} if state.get("Parameters") == {} else theirs(state, data, context)

    stepfunctions._apply_parameters = apply


def _timeouts() -> None:
    run, fail, sleep = stepfunctions._run_execution, stepfunctions._fail_execution, stepfunctions._scaled_sleep

    def run_with_clock(arn: str) -> None:
        execution = stepfunctions._executions.get(arn) or {}
        machine = stepfunctions._state_machines.get(execution.get("stateMachineArn", "")) or {}
        limit = json.loads(machine.get("definition", "{}")).get("TimeoutSeconds")
        _here.clock = _Clock(limit, time.monotonic())
        run(arn)

    def fail_or_time_out(execution: dict[str, Any], error: str, cause: str) -> None:
        fail(execution, error, cause)
        if getattr(_here, "clock", None) and _here.clock.ran_out:
            execution["status"] = "TIMED_OUT"

    def count_and_sleep(seconds: float) -> None:
        if getattr(_here, "clock", None):
            _here.clock.waited += float(seconds)
        sleep(seconds)

    stepfunctions._run_execution = run_with_clock
    stepfunctions._fail_execution = fail_or_time_out
    stepfunctions._scaled_sleep = count_and_sleep


def _payloads() -> None:
    theirs = stepfunctions._add_event

    def add(execution: Any, kind: str, details: dict[str, Any] | None = None) -> Any:
        answer = theirs(execution, kind, details)
        if kind.endswith("StateEntered") and getattr(_here, "clock", None):
            _here.clock.check()
        if kind.endswith("StateExited"):
            size = len((details or {}).get("stateExitedEventDetails", {}).get("output", "").encode())
            if size > _PAYLOAD_LIMIT:
                raise stepfunctions._ExecutionError(
                    "States.DataLimitExceeded",
                    f"The state's output is {size} bytes, and may be {_PAYLOAD_LIMIT}",
                )
        return answer

    stepfunctions._add_event = add
