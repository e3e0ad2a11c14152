"""Step Functions: `aws-sdk:rds` and `aws-sdk:backup` go to our operations, with the names and errors of AWS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ministack.services import stepfunctions

from local.protocol import AwsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from local.protocol import Api


def install(apis: Mapping[str, Api]) -> None:
    """Answer the operations in `apis` (by SDK name of the service); MiniStack keeps the rest."""
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
