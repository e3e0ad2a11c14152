"""Runs one invocation inside the function's interpreter, as Lambda's Python runtime does.

    python -I lambda_bootstrap.py INVOCATION RESULT

INVOCATION is a JSON file with the event and what the context shows; RESULT is where the answer goes. The interpreter
that runs this file has nothing but the standard library, so it imports nothing else.
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


def main() -> None:
    """Read, run, write."""
    source, target = map(Path, sys.argv[1:3])
    invocation = json.loads(source.read_text())
    sys.path[:0] = invocation["path"]
    logging.basicConfig(stream=sys.stdout, format="[%(levelname)s]\t%(message)s")
    target.write_text(json.dumps(run(invocation)))


if __name__ == "__main__":
    main()
