"""The next step of a restore, from its plan and what RDS shows now. Pure.

The workflow asks again and again: each answer is one call, or a reason to wait, or the end. A step that was carried out
and whose answer was lost is seen as done the next time, so nothing is made twice and a crash at any point is continued.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from aurora_backup import tags
from aurora_backup.cluster_settings import changes
from aurora_backup.errors import BackupError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from aurora_backup.recovery import Plan

# "Viewing DB cluster status" and "Viewing DB instance status": what does not become available by waiting.
_LOST = {
    "cloning-failed",
    "failed",
    "inaccessible-encryption-credentials",
    "incompatible-create",
    "incompatible-network",
    "incompatible-option-group",
    "incompatible-parameters",
    "incompatible-restore",
    "insufficient-capacity",
    "migration-failed",
    "restore-error",
    "storage-full",
}


class ClusterRestoreFailed(BackupError):  # noqa: N818  names say what happened, as in errors.py
    """RDS gave the restore up, or the deadline passed; the message names the thing, its status and the deadline."""


class Action(StrEnum):
    """What to do now."""

    RESTORE = "restore"
    MODIFY = "modify"
    CREATE_INSTANCE = "create-instance"
    WAIT = "wait"
    DONE = "done"


@dataclass(frozen=True)
class Step:
    """One step, its subject's identifier and why. parameters: of the call, for those that make one."""

    action: Action
    subject: str
    reason: str
    parameters: dict[str, Any] = field(default_factory=dict)


def next_step(
    plan: Plan, cluster: Mapping[str, Any] | None, instances: Mapping[str, Mapping[str, Any]], now: datetime
) -> Step:
    """Decide the next step. instances: the cluster's, by identifier.

    Raises:
        ClusterRestoreFailed: it cannot succeed any more, or the cluster is somebody else's.

    """
    step = _cluster_step(plan, cluster) or _instance_step(plan, instances) or _last_step(plan, cluster or {})
    if step.action is not Action.DONE and now > plan.deadline:
        raise ClusterRestoreFailed(f"deadline {plan.deadline.isoformat()} passed while {step.reason}")
    return step


def _cluster_step(plan: Plan, cluster: Mapping[str, Any] | None) -> Step | None:
    if cluster is None:
        if plan.operation is None:
            raise ClusterRestoreFailed(f"cluster {plan.target} does not exist any more")
        reason = f"restoring {plan.point.tier} to cluster {plan.target}"
        return Step(Action.RESTORE, plan.target, reason, dict(plan.parameters))
    if plan.operation is not None and tags.tags_of(cluster).get(tags.EXECUTION) != plan.execution:
        raise ClusterRestoreFailed(f"cluster {plan.target} exists and was not made by execution {plan.execution}")
    status = str(cluster.get("Status"))
    if status in _LOST:
        raise ClusterRestoreFailed(f"cluster {plan.target} is {status}")
    if status != "available":
        return Step(Action.WAIT, plan.target, f"cluster {plan.target} is {status}")
    if needed := changes(plan.settings, cluster, on_instance=False):
        return Step(Action.MODIFY, plan.target, f"setting {', '.join(sorted(needed))} of {plan.target}", needed)
    return None


def _last_step(plan: Plan, cluster: Mapping[str, Any]) -> Step:
    if needed := changes(plan.settings, cluster, on_instance=True):
        return Step(Action.MODIFY, plan.target, f"setting {', '.join(sorted(needed))} of {plan.target}", needed)
    state = (cluster.get("MasterUserSecret") or {}).get("SecretStatus", "active")
    if state != "active":
        return Step(Action.WAIT, plan.target, f"the master secret of {plan.target} is {state}")
    return Step(Action.DONE, plan.target, f"cluster {plan.target} and its instances are available")


def _instance_step(plan: Plan, instances: Mapping[str, Mapping[str, Any]]) -> Step | None:
    for wanted in plan.instances:  # the writer is the first, and the others wait for it
        identifier = str(wanted["DBInstanceIdentifier"])
        found = instances.get(identifier)
        if found is None:
            return Step(Action.CREATE_INSTANCE, identifier, f"making instance {identifier}", dict(wanted))
        status = str(found.get("DBInstanceStatus"))
        if status in _LOST:
            raise ClusterRestoreFailed(f"instance {identifier} is {status}")
        if status != "available":
            is_writer = wanted is plan.instances[0]
            missing = [w for w in plan.instances if w["DBInstanceIdentifier"] not in instances]
            if is_writer or not missing:
                return Step(Action.WAIT, identifier, f"instance {identifier} is {status}")
    return None
