"""The edges of the recovery functions, as their environment describes them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from aurora_backup import deployment
from aurora_backup.ledger import CreationRecord, Ledger
from aurora_backup.rds import Rds, make_client
from aurora_backup.recovery_settings import RecoverySettings
from aurora_backup.recovery_store import RecoveryStore
from aurora_backup.removal import Production, Remover
from aurora_backup.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aurora_backup.recovery import Plan


@dataclass(frozen=True, kw_only=True)
class Edges:
    """Settings and edges of one invocation; nothing is opened before it is used."""

    settings: Settings
    options: RecoverySettings
    store: RecoveryStore
    ledger: Ledger
    rds: Rds

    @classmethod
    def from_environment(cls) -> Self:
        """Read the environment, once, at the start of a handler."""
        settings = Settings.from_environment()
        bucket = deployment.bucket(settings)
        return cls(
            settings=settings,
            options=RecoverySettings.from_environment(),
            store=RecoveryStore(bucket),
            ledger=Ledger(bucket),
            rds=Rds(make_client()),
        )

    def source(self) -> tuple[dict[str, Any] | None, str]:
        """Describe the protected cluster, and give its resource id.

        The name may belong to another cluster now, or to none: then the cluster is None and the id the known one.
        """
        found = self.rds.cluster(self.settings.cluster_id)
        known = self.settings.cluster_resource_id
        if found and known in {None, found["DbClusterResourceId"]}:
            return found, str(found["DbClusterResourceId"])
        return None, str(known)

    def lineage(self, resource_id: str) -> frozenset[str]:
        """The resource ids that count as this cluster: its own, and those it was recovered from."""
        return self.options.lineage | {resource_id}

    def remover(self) -> Remover:
        """The one thing that deletes, told what production is."""
        known = self.settings.cluster_resource_id
        production = Production(
            clusters=frozenset({self.settings.cluster_id}),
            resource_ids=self.options.lineage | ({known} if known else frozenset()),
        )
        return Remover(self.rds, self.ledger, self.settings.owner, production)

    def record(self, plan: Plan, kind: str, identifier: str) -> None:
        """Claim a name for the plan's execution, before the thing is made."""
        self.ledger.put(
            CreationRecord(
                kind=kind,
                identifier=identifier,
                owner=plan.owner,
                execution=plan.execution,
                created=plan.started,
                expires=plan.expires,
            )
        )


def now_of(event: Mapping[str, Any]) -> datetime:
    """The time of this step: the state machine sends it, so that deadlines are judged by one clock."""
    return deployment.moment("now", event["now"])


def utc_now() -> datetime:
    """Read the clock: for measuring, at an edge, never in a decision."""
    return datetime.now(UTC)
