"""Put provisioners into MiniStack's table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ministack.services.cloudformation import provisioners, stacks

from local.protocol import AwsError

if TYPE_CHECKING:
    from collections.abc import Callable

Properties = dict[str, Any]
Created = tuple[str, dict[str, Any]]

_ours: set[str] = set()


@dataclass(frozen=True)
class Provisioner:
    """How one resource type is made, changed and deleted; `snapshot` is for `DeletionPolicy: Snapshot`."""

    create: Callable[[str, Properties, str], Created]
    delete: Callable[[str, Properties], None]
    update: Callable[[str, Properties, Properties, str], Created] | None = None
    snapshot: Callable[[str, Properties], None] | None = None


def register(resource_type: str, provisioner: Provisioner) -> None:
    """Use `provisioner` for `resource_type`, in a worker thread."""
    entry: dict[str, Any] = {"create": _explained(provisioner.create), "delete": _explained(provisioner.delete)}
    if provisioner.update:
        entry["update"] = _explained(provisioner.update)
    if provisioner.snapshot:
        entry["snapshot"] = _explained(provisioner.snapshot)
    provisioners._RESOURCE_HANDLERS[resource_type] = entry
    _ours.add(resource_type)


def use_worker_threads() -> None:
    """Have CloudFormation run our provisioners where they may block and call other services."""
    theirs = stacks._runs_on_worker_thread
    stacks._runs_on_worker_thread = lambda resource_type: resource_type in _ours or theirs(resource_type)


def physical_name(stack: str, logical_id: str, *, longest: int, lowercase: bool = False) -> str:
    """A name as CloudFormation makes it up: the stack's, the logical id's, and a suffix that stays the same."""
    return str(provisioners._physical_name(stack, logical_id, lowercase=lowercase, max_len=longest))


def _explained(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a service's refusal into the reason of the failed resource."""

    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except AwsError as error:
            raise ValueError(f"{error.message} (Service: {error.name})") from error

    return call
