"""Adoption: a recovered (or blue/green) cluster takes its predecessor's place, and the line of resource ids is kept.

A new cluster has a new resource id, so without this its predecessor's recovery points would count for nothing. Pure,
except `Adoptions`, which keeps the documents.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from aurora_backup import tags
from aurora_backup.errors import BackupError
from aurora_backup.recovery_store import ADOPTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from aurora_backup.s3 import Bucket

SCHEMA = 1


class AdoptionRefused(BackupError):  # noqa: N818  names say what happened, as in errors.py
    """A cluster cannot be adopted as it is. The message names the field, the rule and the value."""


@dataclass(frozen=True, kw_only=True)
class Adoption:
    """One cluster, and every resource id that its recovery points may carry: its predecessors', oldest first."""

    owner: str
    cluster: str
    resource_id: str
    endpoint: str
    lineage: tuple[str, ...]
    adopted: str

    def to_dict(self) -> dict[str, Any]:
        """The document that is kept."""
        return {"schema": SCHEMA, "kind": "adoption", **asdict(self)}

    def construct_arguments(self) -> str:
        """The lines that put the cluster under the same strategy."""
        lineage = ", ".join(f'"{resource_id}"' for resource_id in self.lineage)
        return (
            f'cluster=ClusterDetails(cluster=..., resource_id="{self.resource_id}", endpoint="{self.endpoint}", ...),\n'
            f"lineage=[{lineage}],"
        )


def adopt(
    cluster: Mapping[str, Any] | None,
    previous: Sequence[str],
    known: Mapping[str, Sequence[str]],
    *,
    owner: str,
    now: datetime,
    instances: Sequence[Mapping[str, Any]] = (),
) -> Adoption:
    """Adopt a described cluster after its predecessors. known: resource id -> the lineage that it was adopted with.

    instances: the cluster's, described; the janitor looks at each one's own tags.

    Raises:
        AdoptionRefused: no such cluster, one that is not available, a temporary copy, one that is not protected from
            deletion, or a line that leads back to itself.

    """
    if cluster is None:
        raise AdoptionRefused("cluster must exist, got none of that name")
    if cluster.get("Status") != "available":
        raise AdoptionRefused(f"cluster must be available, got {cluster.get('Status')!r}")
    if temporary := [text for each in (cluster, *instances) if (text := _temporary(each))]:
        raise AdoptionRefused(
            "cluster must not be a recovery test's copy, which the janitor deletes under whatever name it has now, got "
            f"{'; '.join(temporary)}. Remove these tags first, from the cluster and from every instance "
            "(aws rds remove-tags-from-resource)"
        )
    if not (protection := cluster.get("DeletionProtection")):
        raise AdoptionRefused(
            f"cluster must have DeletionProtection, got {protection!r}. Switch it on first "
            "(aws rds modify-db-cluster --deletion-protection)"
        )
    resource_id = str(cluster["DbClusterResourceId"])
    lineage = tuple(dict.fromkeys(i for one in previous for i in (*known.get(one, ()), one)))
    if not lineage or not all(one.startswith("cluster-") for one in lineage):
        raise AdoptionRefused(f"previous must be DbClusterResourceIds, which begin with 'cluster-', got {lineage!r}")
    if resource_id in lineage:
        raise AdoptionRefused(f"previous must not hold the adopted cluster's own resource id, got {resource_id!r}")
    return Adoption(
        owner=owner,
        cluster=str(cluster["DBClusterIdentifier"]),
        resource_id=resource_id,
        endpoint=str(cluster.get("Endpoint", "")),
        lineage=lineage,
        adopted=now.isoformat(),
    )


def _temporary(described: Mapping[str, Any]) -> str | None:
    """Name a cluster or an instance with the tags by which it would be deleted; None when it has none."""
    labels = tags.tags_of(described)
    found = [f"{tags.EXPIRES}={labels[tags.EXPIRES]}"] if tags.EXPIRES in labels else []
    if labels.get(tags.PURPOSE) == tags.RECOVERY_TEST:
        found.append(f"{tags.PURPOSE}={tags.RECOVERY_TEST}")
    kind = "DBInstanceIdentifier" if "DBInstanceIdentifier" in described else "DBClusterIdentifier"
    return f"{described[kind]} with {' and '.join(found)}" if found else None


class Adoptions:
    """The adoption documents in the backup bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def lineage(self, resource_id: str) -> tuple[str, ...]:
        """Read the lineage that a cluster was adopted with; empty when it was not."""
        found = self._bucket.read_json(f"{ADOPTIONS}/{resource_id}.json")
        return tuple(map(str, found["lineage"])) if found else ()

    def keep(self, adoption: Adoption) -> str:
        """Write an adoption, once; the same one again is fine. Returns its key."""
        key = f"{ADOPTIONS}/{adoption.resource_id}.json"
        earlier = self._bucket.read_json(key)
        if earlier and tuple(earlier["lineage"]) == adoption.lineage:
            return key
        self._bucket.write(key, json.dumps(adoption.to_dict(), indent=1, sort_keys=True), once=True)
        return key
