"""Runs one invocation inside the function's interpreter, as Lambda's Python runtime does.

    python -I lambda_bootstrap.py INVOCATION RESULT CALLS

INVOCATION is a JSON file with the event and what the context shows; RESULT is where the answer goes, and CALLS where
every call to AWS is noted. The interpreter that runs this file has nothing but the standard library and what Lambda's
runtime has, so it imports nothing else.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
import time
import traceback
from pathlib import Path
from typing import Any


class Context:
    """What a handler gets as its second argument."""

    def __init__(self, about: dict[str, Any]) -> None:
        """Take what the invocation says about the function."""
        self.aws_request_id = about["request_id"]
        self.function_name = about["function_name"]
        self.function_version = about["function_version"]
        self.invoked_function_arn = about["function_arn"]
        self.memory_limit_in_mb = about["memory"]
        self.log_group_name = f"/aws/lambda/{about['function_name']}"
        self.log_stream_name = about["request_id"]
        self.identity = None
        self.client_context = None
        self._deadline = about["deadline"]

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the invocation is killed."""
        return max(0, int((self._deadline - time.time()) * 1000))


def _note_calls(path: Path) -> None:
    """Write `[service, operation, parameters]` for every call to AWS, a line each; what is no JSON is left out."""
    from botocore.client import BaseClient  # the runtime's, found only when `sys.path` is as Lambda's

    make = BaseClient._make_api_call

    def noted(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
        told = {name: value for name, value in parameters.items() if name != "Body"}
        line = json.dumps([client.meta.service_model.service_name, operation, told], default=lambda _: None)
        with path.open("a") as file:
            file.write(line + "\n")
        return make(client, operation, parameters)

    BaseClient._make_api_call = noted


def _failure(kind: str, message: str, request_id: str, trace: list[str]) -> dict[str, Any]:
    error = {"errorMessage": message, "errorType": kind, "requestId": request_id, "stackTrace": trace}
    return {"ok": False, "body": error}


def run(invocation: dict[str, Any]) -> dict[str, Any]:
    """Import the handler, call it, and describe how that went."""
    request_id = invocation["context"]["request_id"]
    module, _, function = invocation["handler"].rpartition(".")
    try:
        handler = getattr(importlib.import_module(module.replace("/", ".")), function)
    except ImportError as error:
        return _failure("Runtime.ImportModuleError", f"Unable to import module '{module}': {error}", request_id, [])
    except AttributeError:
        message = f"Handler '{function}' missing on module '{module}'"
        return _failure("Runtime.HandlerNotFound", message, request_id, [])
    try:
        result = handler(invocation["event"], Context(invocation["context"]))
    except Exception as error:  # noqa: BLE001 - whatever the handler raised is its answer
        traceback.print_exc()
        frames = traceback.format_list(traceback.extract_tb(error.__traceback__)[1:])
        return _failure(type(error).__name__, str(error), request_id, frames)
    try:
        json.dumps(result)
    except (TypeError, ValueError) as error:
        return _failure("Runtime.MarshalError", f"Unable to marshal response: {error}", request_id, [])
    return {"ok": True, "body": result}


def shorten_pauses(scale: float) -> None:
    """Let botocore pause for less between two tries; every other sleep is as long as it says."""
    sleep = time.sleep

    def scaled(seconds: Any) -> None:
        retrying = sys._getframe(1).f_globals.get("__name__") == "botocore.endpoint"
        sleep(seconds * scale if retrying else seconds)

    time.sleep = scaled


def main() -> None:
    """Read, run, write."""
    source, target, calls = map(Path, sys.argv[1:4])
    invocation = json.loads(source.read_text())
    shorten_pauses(invocation["pause_scale"])
    sys.path[:0] = invocation["path"]
    logging.basicConfig(stream=sys.stdout, format="[%(levelname)s]\t%(message)s")
    _note_calls(calls)
    target.write_text(json.dumps(run(invocation)))


if __name__ == "__main__":
    main()
