"""Invoke exactly what a deployed schedule would: its target, with its own input."""

from __future__ import annotations

import datetime as dt
import json
import re
import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

CONTEXT = re.compile(r"<aws\.scheduler\.([a-z-]+)>")


class UnsupportedTargetError(Exception):
    """The schedule's target is of a kind that is not invoked here."""


def run(client: Callable[[str], Any], name: str, group: str = "default") -> dict[str, Any]:
    """Invoke the target of the EventBridge Scheduler schedule `name` now, and return what the service answered.

    A function is invoked synchronously, and its decoded answer is under `Payload`; Scheduler itself would not wait.
    `client` makes a boto3 client for a service.
    """
    schedule = client("scheduler").get_schedule(Name=name, GroupName=group)
    target, execution = schedule["Target"], str(uuid.uuid4())
    values = {
        "schedule-arn": schedule["Arn"],
        "scheduled-time": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "execution-id": execution,
        "attempt-number": "1",
    }
    text = CONTEXT.sub(lambda match: values[match[1]], target.get("Input") or "{}")
    return invoke(client, target["Arn"], text, execution)


def invoke(client: Callable[[str], Any], arn: str, text: str, execution: str) -> dict[str, Any]:
    """Send `text` to the target `arn` as Scheduler's templated and universal targets do."""
    universal = re.fullmatch(r"arn:[\w-]+:scheduler:::aws-sdk:(\w+):(\w+)", arn)
    if universal:
        service = {"sfn": "stepfunctions"}.get(universal[1], universal[1])
        operation = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", universal[2]).lower()
        return _plain(getattr(client(service), operation)(**json.loads(text)))
    service = arn.split(":")[2]
    if service == "lambda":
        answer = client("lambda").invoke(FunctionName=arn, Payload=text.encode())
        return {**_plain(answer), "Payload": json.loads(answer["Payload"].read() or b"null")}
    if service == "states":
        return _plain(client("stepfunctions").start_execution(stateMachineArn=arn, name=execution, input=text))
    if service == "sns":
        return _plain(client("sns").publish(TopicArn=arn, Message=text))
    raise UnsupportedTargetError(f"a schedule's target {arn} is not invoked here")


def _plain(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key != "ResponseMetadata"}
