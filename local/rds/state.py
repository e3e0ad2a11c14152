"""The records of one account and Region, in the shapes that boto3 shows, and how they are found."""

from __future__ import annotations

import datetime as dt
import secrets
import shutil
import string
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ministack.core.responses import get_account_id, get_region

from local.protocol import AwsError

if TYPE_CHECKING:
    from pathlib import Path

    from local.rds.engine import Engine

MANUAL_SNAPSHOT_QUOTA = 100


@dataclass
class Cluster:
    """A DB cluster: its record and its PostgreSQL."""

    record: dict[str, Any]
    engine: Engine

    @property
    def resource_id(self) -> str:
        """Never reused, unlike the identifier."""
        return str(self.record["DbClusterResourceId"])


@dataclass
class Snapshot:
    """A cluster snapshot: its record, where its bytes are, and what a restore needs that the record does not say."""

    record: dict[str, Any]
    data: Path
    master: str
    password: str
    database: str | None
    shared_with: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The snapshot's identifier."""
        return str(self.record["DBClusterSnapshotIdentifier"])

    def delete_bytes(self) -> None:
        """Delete the base backup."""
        shutil.rmtree(self.data.parent, ignore_errors=True)


@dataclass
class Retained:
    """The automated backups of a deleted cluster."""

    record: dict[str, Any]
    cluster: Cluster


@dataclass
class Region:
    """Everything in one account and Region."""

    clusters: dict[str, Cluster] = field(default_factory=dict)
    instances: dict[str, dict[str, Any]] = field(default_factory=dict)
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    retained: dict[str, Retained] = field(default_factory=dict)

    def cluster(self, identifier: str) -> Cluster:
        """The cluster with this identifier or ARN."""
        name = identifier.rsplit(":cluster:", 1)[-1].lower()
        if name not in self.clusters:
            raise AwsError("DBClusterNotFoundFault", f"DBCluster {identifier} not found.")
        return self.clusters[name]

    def instance(self, identifier: str) -> dict[str, Any]:
        """The record of the instance with this identifier or ARN."""
        name = identifier.rsplit(":db:", 1)[-1].lower()
        if name not in self.instances:
            raise AwsError("DBInstanceNotFoundFault", f"DBInstance {identifier} not found.")
        return self.instances[name]

    def snapshot(self, identifier: str) -> Snapshot:
        """The snapshot with this identifier or ARN."""
        name = identifier.split(":cluster-snapshot:", 1)[-1].lower()
        if name not in self.snapshots:
            raise AwsError("DBClusterSnapshotNotFoundFault", f"DBClusterSnapshot {identifier} not found.")
        return self.snapshots[name]

    def members(self, cluster: Cluster) -> list[dict[str, Any]]:
        """The records of the cluster's instances."""
        name = cluster.record["DBClusterIdentifier"]
        return [record for record in self.instances.values() if record["DBClusterIdentifier"] == name]

    def tagged(self, arn: str) -> list[dict[str, str]]:
        """The tag list of the cluster, instance or snapshot that `arn` names, to read or to change."""
        if ":cluster:" in arn:
            record = self.cluster(arn).record
        elif ":db:" in arn:
            record = self.instance(arn)
        elif ":cluster-snapshot:" in arn:
            record = self.snapshot(arn).record
        else:
            raise AwsError("InvalidParameterValue", f"Invalid resource name: {arn}")
        tags: list[dict[str, str]] = record["TagList"]
        return tags


_regions: dict[tuple[str, str], Region] = {}


def here() -> Region:
    """The Region (of the account) that the current request is for."""
    return _regions.setdefault((get_account_id(), get_region()), Region())


def regions() -> list[Region]:
    """All of them."""
    return list(_regions.values())


def arn(kind: str, name: str, service: str = "rds") -> str:
    """The ARN of an RDS resource in the current account and Region; `kind` is `cluster`, `db`, `cluster-snapshot`."""
    return f"arn:aws:{service}:{get_region()}:{get_account_id()}:{kind}:{name}"


def resource_id(prefix: str) -> str:
    """A new resource id: `cluster-` or `db-` and 26 characters."""
    return prefix + "-" + "".join(secrets.choice(string.ascii_uppercase + string.digits) for _ in range(26))


def now() -> dt.datetime:
    """Aware, in UTC, to the millisecond."""
    moment = dt.datetime.now(dt.UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def put_tags(tags: list[dict[str, str]], new: list[dict[str, str]]) -> None:
    """Add `new` to `tags`, replacing the values of keys that are there."""
    keys = {tag["Key"] for tag in new}
    tags[:] = [tag for tag in tags if tag["Key"] not in keys] + [
        {"Key": tag["Key"], "Value": tag.get("Value", "")} for tag in new
    ]
