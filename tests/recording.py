"""The AWS calls that handlers make while tests drive them, and how calls are written down (tests/data/calls.json).

Three places are listened at: the in-memory world of the recovery tests, boto3's clients in handlers that run in this
process, and `calls.jsonl` of a local AWS, where every deployed function's calls are. What is random in a call (names of
executions, times, account) is replaced, what comes from the function's environment is written as its variable.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING, Any
from unittest import mock

from botocore import xform_name
from botocore.client import BaseClient

from aurora_backup.tags import OWNER, PURPOSE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

HEARD: list[dict[str, Any]] = []
"""What was heard in this process: `{"function", "handler", "environment", "calls"}`, as in `calls.jsonl`."""

_running: list[dict[str, Any]] = []
_OURS = re.compile(r"(on-demand-|recovery-test-|awsbackup-restore-test-|awsbackup:)")  # of names that policies know
_RESTORED_SECRET = re.compile(r"arn:secret:|arn:aws:secretsmanager:[\w-]*:\d*:secret:rds!cluster-")
_DEPTHS = {"ledger": 2, "registers": 2, "compliance-backups/evidence": 3}  # how many segments of a key say what it is


@contextlib.contextmanager
def listening(function: str, handler: str, environment: Mapping[str, str]) -> Iterator[None]:
    """Take every call that is noted inside for this function's."""
    about: dict[str, Any] = {"function": function, "handler": handler, "environment": dict(environment), "calls": []}
    HEARD.append(about)
    _running.append(about)
    try:
        yield
    finally:
        _running.pop()


def note(service: str, operation: str, parameters: Mapping[str, Any]) -> None:
    """Note a call, when a handler is running."""
    if _running:
        _running[-1]["calls"].append([service, operation, {k: v for k, v in parameters.items() if k != "Body"}])


@contextlib.contextmanager
def of_clients() -> Iterator[None]:
    """Note what boto3's clients of this process call."""
    make = BaseClient._make_api_call

    def noted(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
        note(client.meta.service_model.service_name, operation, parameters)
        return make(client, operation, parameters)

    with mock.patch.object(BaseClient, "_make_api_call", noted):
        yield


def normalised(
    invocation: Mapping[str, Any], wanted: Mapping[str, Iterable[str]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(call, parameters) of an invocation; wanted: which parameters of each call are kept, by the call's name.

    Raises KeyError for a call that is not among the wanted.
    """
    names = {value: f"<{path}>" for path, value in reversed(variables(invocation["environment"]).items())}
    for _service, operation, parameters in invocation["calls"]:
        call = xform_name(operation)
        kept = {key: parameters[key] for key in wanted[call] if parameters.get(key) not in (None, "", False)}
        yield call, {key: _normal(key, value, names) for key, value in sorted(kept.items())}


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The value of everything in an environment, by its path: `BACKUP_BUCKET`, `BACKUP_VAULTS.0`."""
    return {path: value for variable, text in environment.items() for path, value in _leaves(variable, text)}


def _leaves(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str) and value[:1] in {"{", "["}:
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(f"{path}.{key}", inner)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _leaves(f"{path}.{number}", inner)
    elif isinstance(value, str):
        yield path, value


def _normal(parameter: str, value: Any, names: Mapping[str, str]) -> Any:
    """A value without what differs from run to run, and without what no policy looks at."""
    if parameter == "Tags":
        tags = {tag["Key"]: tag["Value"] for tag in value}
        return {key: names.get(tags[key], tags[key]) for key in (OWNER, PURPOSE) if key in tags}
    if parameter == "LegalHold":
        return value["Status"]
    if parameter == "IfNoneMatch":
        return value
    if not isinstance(value, str) or parameter == "VersionId":
        return True
    if value in names:
        return names[value]
    return _key(value, names) if parameter == "Key" else _named(value)


def _named(value: str) -> str:
    if _RESTORED_SECRET.match(value):
        return "<restored-secret>"
    if value.startswith("arn:"):
        _, _, service, region, _, kind = value.split(":", 5)
        kind, mark, name = re.split(r"([:/])", kind, maxsplit=1) if re.search("[:/]", kind) else ("", "", kind)
        return f"arn:aws:{service}:{region and '<region>'}:<account>:{kind}{mark}{_name(name)}"
    return _name(value)


def _name(name: str) -> str:
    ours = _OURS.match(name)
    return f"{ours[1]}0" if ours else "any"


def _key(key: str, names: Mapping[str, str]) -> str:
    """An object's key as its kind: `ledger/cluster/0/0.json`, `logical-backups/<CLUSTER_RESOURCE_ID>/0/0.dump`."""
    parts = key.split("/")
    depth = next((n for prefix, n in _DEPTHS.items() if key.startswith(f"{prefix}/")), 0)
    if not depth:  # a set, under a prefix and the cluster's resource id
        depth, parts[1] = 2, names.get(parts[1], "cluster-0")
    tail = parts[-1]
    if parts[0] == "ledger" or not re.fullmatch(r"[a-z]+\.[a-z]+", tail):
        tail = f"0.{tail.rpartition('.')[2]}"
    return "/".join(
        [*parts[:depth], *(["0"] if len(parts) > depth + 1 else []), *([tail] if len(parts) > depth else [])]
    )
