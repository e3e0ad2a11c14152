"""Take the next step of a restore. Outside the VPC: RDS and the creation records. It can create, and not delete."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aurora_backup.rds import RdsBusy
from aurora_backup.recovery_edges import Edges, now_of
from aurora_backup.removal import CLUSTER, INSTANCE
from aurora_backup.restoring import Action, next_step

if TYPE_CHECKING:
    from aurora_backup.recovery import Plan
    from aurora_backup.restoring import Step


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Return `{state: "done" | "working", step, host, port, secret}`. event: `{plan, now}`.

    Raises:
        ClusterRestoreFailed: RDS gave up, the deadline passed, or the target is somebody else's.

    """
    edges = Edges.from_environment()
    plan = edges.store.plan(event["plan"])
    cluster = edges.rds.cluster(plan.target)
    instances = {str(i["DBInstanceIdentifier"]): i for i in edges.rds.instances(plan.target)} if cluster else {}
    step = next_step(plan, cluster, instances, now_of(event))
    with suppress(RdsBusy):  # the next round tries again, until the deadline
        act(edges, plan, step)
    writer = instances.get(str(plan.instances[0]["DBInstanceIdentifier"]), {}).get("Endpoint") or {}
    return {
        "state": "done" if step.action is Action.DONE else "working",
        "step": step.reason,
        "host": writer.get("Address"),
        "port": writer.get("Port"),
        "secret": ((cluster or {}).get("MasterUserSecret") or {}).get("SecretArn"),
    }


def act(edges: Edges, plan: Plan, step: Step) -> None:
    """Carry out one step; a creation record comes before whatever is created."""
    if step.action is Action.RESTORE and plan.operation:
        edges.record(plan, CLUSTER, plan.target)
        edges.rds.restore(plan.operation, step.parameters)
    elif step.action is Action.MODIFY:
        edges.rds.modify_cluster(plan.target, step.parameters)
    elif step.action is Action.CREATE_INSTANCE:
        edges.record(plan, INSTANCE, step.subject)
        edges.rds.create_instance(step.parameters)
