"""The janitor: removes test copies past their lifetime, and says what is still there. Outside the VPC, scheduled."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from aurora_backup import metrics, tags
from aurora_backup.errors import BackupError, cause
from aurora_backup.recovery_edges import Edges, now_of
from aurora_backup.removal import CLUSTER, INSTANCE, RemovalRefused, State

if TYPE_CHECKING:
    from datetime import datetime

_log = logging.getLogger(__name__)


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Take one step for each leftover; return `{left: [...], removed: [...], problems: [...]}`. event: `{now}`.

    The next sweep goes on where this one stopped. How many are left over or were not removed, for example because a tag
    is gone, is published as a metric, which an alarm watches.
    """
    edges = Edges.from_environment()
    now = now_of(event)
    removed, problems = _sweep(edges, now)
    left = _left(edges, now)
    count = len({*left, *problems})
    print(metrics.line(metrics.LEFT_OVER, count, edges.settings.owner, now))  # noqa: T201  that is how it is sent
    told = [f"{name}: {why}" for name, why in problems.items()]
    return {"left": left, "removed": removed, "problems": told}


def _sweep(edges: Edges, now: datetime) -> tuple[list[str], dict[str, str]]:
    removed: list[str] = []
    problems: dict[str, str] = {}
    remover, owner = edges.remover(), edges.settings.owner
    clusters = {r.identifier for r in edges.ledger.records(CLUSTER, owner) if r.is_expired(now)}
    for record in (r for kind in (INSTANCE, CLUSTER) for r in edges.ledger.records(kind, owner) if r.is_expired(now)):
        name = record.identifier
        try:
            if record.kind == CLUSTER:
                state = remover.step(name)
            else:
                instance = edges.rds.instance(name)
                cluster = str(instance.get("DBClusterIdentifier", "")) if instance else ""
                if cluster in clusters:
                    continue  # goes with its cluster
                if instance and not cluster:
                    raise RemovalRefused(f"not deleted: instance {name}: it belongs to no cluster")
                state = remover.step(cluster, only=frozenset({name})) if instance else State.GONE
            if state is State.GONE:
                edges.ledger.close(record.kind, owner, name)
                removed.append(name)
        except BackupError as error:
            _log.warning("leftover %s: %s", name, cause(error))
            problems[name] = cause(error)
    return removed, problems


def _left(edges: Edges, now: datetime) -> list[str]:
    """Every cluster and instance that carries our test tag past its expiry, with a record or without one."""
    found = [*edges.rds.clusters(), *edges.rds.instances()]
    names = []
    for thing in found:
        labels = tags.tags_of(thing)
        mine = labels.get(tags.OWNER) == edges.settings.owner and labels.get(tags.PURPOSE) == tags.RECOVERY_TEST
        if mine and labels.get(tags.EXPIRES, "") <= now.isoformat():
            names.append(str(thing.get("DBInstanceIdentifier") or thing["DBClusterIdentifier"]))
    return sorted(names)
