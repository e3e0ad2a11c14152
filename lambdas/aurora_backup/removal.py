"""Deleting what a recovery test made: the only module of this package that deletes a cluster or an instance.

Everything is refused that is not shown to be a test copy of ours: by its tags, by the creation record that was written
before it was made, and by not being (or belonging to) production. The decision is pure; `Remover` carries it out.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from aurora_backup import tags
from aurora_backup.errors import BackupError
from aurora_backup.rds import RdsBusy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aurora_backup.ledger import CreationRecord, Ledger
    from aurora_backup.rds import Rds

CLUSTER, INSTANCE = "cluster", "instance"
_DELETING = "deleting"
_SKEW = timedelta(minutes=5)  # between RDS's clock and the one that the record's time came from


class RemovalRefused(BackupError):  # noqa: N818  names say what happened, as in errors.py
    """A cluster or an instance was not deleted, because it is not shown to be a test copy of ours."""


@dataclass(frozen=True)
class Production:
    """What must never be deleted: by name, and by resource id, which survives a renaming."""

    clusters: frozenset[str]
    resource_ids: frozenset[str]


def refusal(
    kind: str,
    described: Mapping[str, Any],
    record: CreationRecord | None,
    owner: str,
    production: Production,
) -> str | None:
    """Say why a cluster or an instance must not be deleted, or None when it may."""
    name = str(described.get("DBInstanceIdentifier" if kind == INSTANCE else "DBClusterIdentifier"))
    labels = tags.tags_of(described)
    made = described.get("InstanceCreateTime" if kind == INSTANCE else "ClusterCreateTime")
    rules: tuple[tuple[bool, str], ...] = (
        (described.get("DBClusterIdentifier") in production.clusters, "it is, or belongs to, production"),
        (described.get("DbClusterResourceId") in production.resource_ids, "its resource id is production's"),
        (labels.get(tags.OWNER) != owner, f"its tag {tags.OWNER} is {labels.get(tags.OWNER)!r}, not {owner!r}"),
        (
            labels.get(tags.PURPOSE) != tags.RECOVERY_TEST,
            f"its tag {tags.PURPOSE} is {labels.get(tags.PURPOSE)!r}, not {tags.RECOVERY_TEST!r}",
        ),
        (record is None or not record.claims(kind, name, owner), "it has no creation record of ours"),
        (
            record is not None and labels.get(tags.EXECUTION) != record.execution,
            "its tag and its creation record name different executions",
        ),
        (
            record is not None and isinstance(made, datetime) and made < record.created - _SKEW,
            "it is older than its creation record: the name was used before",
        ),
        (bool(described.get("DeletionProtection")), "it is protected from deletion"),
    )
    reason = next((text for broken, text in rules if broken), None)
    return f"{kind} {name}: {reason}" if reason else None


class State(StrEnum):
    """How far a removal has come."""

    GONE = "gone"
    GOING = "going"


class Remover:
    """Deletes test copies step by step; call `step` until it says GONE. Every call looks again at what is there."""

    def __init__(self, rds: Rds, ledger: Ledger, owner: str, production: Production) -> None:
        self._rds, self._ledger, self._owner, self._production = rds, ledger, owner, production

    def step(self, cluster: str, *, only: frozenset[str] | None = None) -> State:
        """Take the next step of removing a cluster with its instances, or `only` these instances of it.

        The creation records stay: a cluster whose creation was under way may appear late, and is then still ours.

        Raises:
            RemovalRefused: something is not shown to be ours. Nothing of a refused cluster is touched.

        """
        found = self._rds.cluster(cluster)
        members = {str(i["DBInstanceIdentifier"]): i for i in self._rds.instances(cluster)}
        doomed = {name: i for name, i in members.items() if only is None or name in only}
        if found and only is None:
            self._check(CLUSTER, cluster, found)
        for name, instance in doomed.items():
            self._check(INSTANCE, name, instance)
        with suppress(RdsBusy):  # the next step tries again
            for name, instance in doomed.items():
                if instance.get("DBInstanceStatus") != _DELETING:
                    self._rds.delete_instance(name)
            if found and only is None and not doomed and found.get("Status") != _DELETING:
                self._rds.delete_cluster(cluster)
        return State.GOING if doomed or (found and only is None) else State.GONE

    def _check(self, kind: str, name: str, described: Mapping[str, Any]) -> None:
        record = self._ledger.get(kind, self._owner, name)
        if reason := refusal(kind, described, record, self._owner, self._production):
            raise RemovalRefused(f"not deleted: {reason}")
