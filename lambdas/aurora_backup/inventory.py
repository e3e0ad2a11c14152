"""What recovery points there are: every page of every listing, read as `RecoveryPoint`s.

Translating what a service said is pure (`snapshot_point`, `aws_backup_points`, `set_points`); `Inventory` reads.
A source that could not be read to its end is named in `unknown`, and then nothing is deleted. Nothing is read object by
object here, but the verification records of the newest sets, which decide what counts as a good copy.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from aurora_backup import tags
from aurora_backup.errors import ManifestError, cause
from aurora_backup.ledger import record_key
from aurora_backup.manifest import NAME, VERIFICATION_NAME, parse_set_key
from aurora_backup.policy import Prefix, RetentionPolicy, Tier
from aurora_backup.retention import Kind, RecoveryPoint, Status, Verified, minimum_copies
from aurora_backup.verify import SCHEMA as VERIFICATION_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from aurora_backup.rds import Rds
    from aurora_backup.s3 import Bucket

SNAPSHOT_RECORDS, SET_RECORDS = "cluster-snapshot", "set"  # kinds of creation records
EVIDENCE = f"{Prefix.COMPLIANCE.value}/evidence/"
PREFIX_TIERS = {
    Prefix.AUTOMATED: Tier.AUTOMATED,
    Prefix.MANUAL: Tier.ON_DEMAND,
    Prefix.LOGICAL: Tier.LOGICAL,
    Prefix.COMPLIANCE: Tier.MONTHLY,
}
_PAGE = 1000
_RDS_STATUS = {
    "available": Status.AVAILABLE,
    "creating": Status.PENDING,
    "copying": Status.PENDING,
    "deleting": Status.DELETING,
    "failed": Status.FAILED,
}
_BACKUP_STATUS = {
    "COMPLETED": Status.AVAILABLE,
    "AVAILABLE": Status.AVAILABLE,
    "CREATING": Status.PENDING,
    "PARTIAL": Status.FAILED,
    "DELETING": Status.DELETING,
}


def moment(value: object) -> datetime | None:
    """A time with its zone, from a datetime or ISO 8601 text; None for anything else, which is then undated."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return None
    return found if isinstance(found, datetime) and found.tzinfo is not None else None


def snapshot_point(described: Mapping[str, Any], owner: str, recorded: Collection[str]) -> RecoveryPoint:
    """A cluster snapshot that RDS described, manual or automated. recorded: names with a creation record of ours."""
    labels = tags.tags_of(described)
    manual = described.get("SnapshotType") == "manual"
    return RecoveryPoint(
        kind=Kind.SNAPSHOT if manual else Kind.AUTOMATED,
        tier=Tier.ON_DEMAND if manual else Tier.AUTOMATED,
        identifier=str(described["DBClusterSnapshotArn"]),
        cluster_resource_id=described.get("DbClusterResourceId"),
        created=moment(described.get("SnapshotCreateTime")),
        status=_RDS_STATUS.get(str(described.get("Status")), Status.UNKNOWN),
        expires=moment(labels.get(tags.EXPIRES)),
        size=_bytes(described),
        encrypted=described.get("StorageEncrypted"),
        tagged=labels.get(tags.OWNER) == owner,
        recorded=described.get("DBClusterSnapshotIdentifier") in recorded,
        held=tags.LEGAL_HOLD in labels,
    )


def _bytes(described: Mapping[str, Any]) -> int:
    """RDS tells GiB, rounded; of some Aurora snapshots 0 or 1, whatever their size."""
    return int(described.get("AllocatedStorage") or 0) << 30


def aws_backup_points(
    listed: Iterable[Mapping[str, Any]], snapshots: Iterable[Mapping[str, Any]], policy: RetentionPolicy
) -> list[RecoveryPoint]:
    """AWS Backup's recovery points. snapshots: RDS's of type awsbackup, which know the cluster's resource id."""
    known = {str(s["DBClusterSnapshotArn"]): s for s in snapshots}
    found = []
    for point in listed:
        arn = str(point["RecoveryPointArn"])
        snapshot = known.get(arn, {})
        found.append(
            RecoveryPoint(
                kind=Kind.RECOVERY_POINT,
                tier=_backup_tier(point, tags.tags_of(snapshot), policy),
                identifier=arn,
                cluster_resource_id=snapshot.get("DbClusterResourceId"),
                created=moment(point.get("CreationDate")),
                status=_BACKUP_STATUS.get(str(point.get("Status")), Status.UNKNOWN),
                expires=moment((point.get("CalculatedLifecycle") or {}).get("DeleteAt")),
                size=int(point.get("BackupSizeInBytes") or 0) or _bytes(snapshot),  # of Aurora it says 0
                encrypted=point.get("IsEncrypted"),
            )
        )
    return found


def _backup_tier(point: Mapping[str, Any], labels: Mapping[str, str], policy: RetentionPolicy) -> Tier | None:
    rules = policy.snapshot_rules()
    named = (labels.get(tags.TIER), (point.get("CreatedBy") or {}).get("BackupRuleName"))
    days = (point.get("Lifecycle") or {}).get("DeleteAfterDays")
    matches = [r.name for r in rules if r.name in named] or [r.name for r in rules if r.delete_after_days == days]
    return Tier(matches[0]) if len(matches) == 1 else None


@dataclass
class _Objects:
    """The objects of one set: newest versions that can be read, and what is behind delete markers."""

    current: list[Mapping[str, Any]]
    behind: int = 0


def set_points(pages: Iterable[Mapping[str, Any]], recorded: Collection[str]) -> list[RecoveryPoint]:
    """Dump sets and strays, from pages of ListObjectVersions. recorded: keys of sets with a creation record of ours."""
    sets: defaultdict[str, _Objects] = defaultdict(lambda: _Objects([]))
    strays: dict[str, Mapping[str, Any]] = {}
    for page in pages:
        for version in page.get("Versions", ()):
            key = str(version["Key"])
            if key.startswith(EVIDENCE):
                continue
            try:
                parent = _set_of(key)
            except ManifestError:
                strays.setdefault(key, version)
                continue
            if version.get("IsLatest"):
                sets[parent].current.append(version)
            else:
                sets[parent].behind += 1
    return [_set_point(key, objects, recorded) for key, objects in sets.items()] + [
        RecoveryPoint(
            kind=Kind.STRAY,
            tier=None,
            identifier=key,
            cluster_resource_id=None,
            created=moment(version.get("LastModified")),
            status=Status.INCOMPLETE,
            size=int(version.get("Size") or 0),
        )
        for key, version in strays.items()
    ]


def _set_of(key: str) -> str:
    """The set that an object belongs to. Raises ManifestError when it is none of ours."""
    parent = key.rpartition("/")[0] + "/"
    if parse_set_key(parent)[0] not in {prefix.value for prefix in Prefix}:
        raise ManifestError(f"not under a prefix of ours: {key!r}")
    return parent


def _set_point(key: str, objects: _Objects, recorded: Collection[str]) -> RecoveryPoint:
    prefix, resource_id, database, started = parse_set_key(key)
    committed = any(str(o["Key"]) == key + NAME for o in objects.current)
    hidden = Status.HIDDEN if not objects.current else Status.INCOMPLETE
    # The name says when it began; S3 says when it was written, and that cannot be forged by choosing a name.
    written = [
        m for o in objects.current if str(o["Key"]) != key + VERIFICATION_NAME and (m := moment(o["LastModified"]))
    ]
    return RecoveryPoint(
        kind=Kind.SET,
        tier=PREFIX_TIERS[Prefix(prefix)],
        identifier=key,
        cluster_resource_id=resource_id,
        created=max([started, *written]),
        status=Status.AVAILABLE if committed else hidden,
        series=database,
        size=sum(int(o.get("Size") or 0) for o in objects.current),
        tagged=True,  # its place is its tag; the manifest's owner is read before it is deleted
        recorded=key in recorded,
    )


def upload_points(pages: Iterable[Mapping[str, Any]]) -> list[RecoveryPoint]:
    """Unfinished multipart uploads, from pages of ListMultipartUploads."""
    return [
        RecoveryPoint(
            kind=Kind.UPLOAD,
            tier=None,
            identifier=f"{upload['Key']}?uploadId={upload['UploadId']}",
            cluster_resource_id=None,
            created=moment(upload.get("Initiated")),
            status=Status.INCOMPLETE,
        )
        for page in pages
        for upload in page.get("Uploads", ())
    ]


def verified(bucket: Bucket, key: str) -> Verified:
    """What the verification record beside a set says; UNKNOWN without one, FAILED when it makes no sense.

    Raises BackupError when S3 does not give it: a record that nobody could read may say anything.
    """
    try:
        document = bucket.read_json(key + VERIFICATION_NAME)
        if document is None:
            return Verified.UNKNOWN
        if document["schema"] != VERIFICATION_SCHEMA or document["set"] != key:
            return Verified.FAILED
        outcomes = [tier["ok"] for tier in document["tiers"].values()]
        if not outcomes or any(outcome is not None and not isinstance(outcome, bool) for outcome in outcomes):
            return Verified.FAILED
    except (ValueError, KeyError, TypeError, AttributeError):
        return Verified.FAILED
    if False in outcomes:
        return Verified.FAILED
    return Verified.GOOD if True in outcomes else Verified.UNKNOWN


@dataclass(frozen=True)
class Observed:
    """Every point that was found, and what could not be read to its end."""

    points: tuple[RecoveryPoint, ...]
    unknown: tuple[str, ...]


class Inventory:
    """Reads the recovery points of one account and Region. vaults: names of AWS Backup vaults. backup: its client."""

    def __init__(
        self, *, rds: Rds, backup: Any, bucket: Bucket, owner: str, policy: RetentionPolicy, vaults: Collection[str]
    ) -> None:
        self._rds, self._backup, self._bucket = rds, backup, bucket
        self._owner, self._policy, self._vaults = owner, policy, tuple(vaults)

    def observe(self) -> Observed:
        """Read everything. A listing that fails is named; what the others found is still given."""
        sources: tuple[tuple[str, Callable[[], list[RecoveryPoint]]], ...] = (
            ("RDS cluster snapshots", self._snapshots),
            ("AWS Backup recovery points", self._recovery_points),
            ("dump sets", self._sets),
            ("unfinished uploads", self._uploads),
        )
        points: list[RecoveryPoint] = []
        unknown: list[str] = []
        for name, read in sources:
            try:
                points += read()
            except Exception as error:  # noqa: BLE001  whatever it is, this source is not known completely
                unknown.append(f"{name}: {cause(error)}")
        return Observed(tuple(points), tuple(unknown))

    def recorded(self, kind: str) -> frozenset[str]:
        """What the ledger names, by listing its keys; the records themselves are read before anything is deleted."""
        prefix = record_key(kind, self._owner, "").removesuffix(".json")
        return frozenset(unquote(key.removeprefix(prefix).removesuffix(".json")) for key in self._bucket.keys(prefix))

    def _snapshots(self) -> list[RecoveryPoint]:
        recorded = self.recorded(SNAPSHOT_RECORDS)
        described = [s for kind in ("manual", "automated") for s in self._rds.snapshots(kind)]
        return [snapshot_point(s, self._owner, recorded) for s in described]

    def _recovery_points(self) -> list[RecoveryPoint]:
        listed = [point for vault in self._vaults for point in self._vault(vault)]
        return aws_backup_points(listed, self._rds.snapshots("awsbackup") if listed else (), self._policy)

    def _vault(self, name: str) -> Iterator[dict[str, Any]]:
        pages = self._backup.get_paginator("list_recovery_points_by_backup_vault").paginate(
            BackupVaultName=name, PaginationConfig={"PageSize": _PAGE}
        )
        for page in pages:
            # Other services' points can share a vault: only Aurora's are looked at.
            yield from (p for p in page["RecoveryPoints"] if p.get("ResourceType") == "Aurora")

    def _sets(self) -> list[RecoveryPoint]:
        recorded = self.recorded(SET_RECORDS)
        paginator = self._bucket.client.get_paginator("list_object_versions")
        pages = (
            page
            for prefix in Prefix
            for page in paginator.paginate(Bucket=self._bucket.name, Prefix=f"{prefix.value}/")
        )
        return self._with_verification(set_points(pages, recorded))

    def _with_verification(self, points: list[RecoveryPoint]) -> list[RecoveryPoint]:
        """Read the records of the newest sets of each series, until as many are good as must always stay."""
        series: defaultdict[tuple[str | None, str, str], list[RecoveryPoint]] = defaultdict(list)
        for point in points:
            if point.kind is Kind.SET and point.status is Status.AVAILABLE and point.created:
                series[(point.cluster_resource_id, *point.series_key[::2])].append(point)
        known: dict[str, Verified] = {}
        for copies in series.values():
            tier = copies[0].tier
            wanted = max(1, minimum_copies(self._policy, tier) if tier else 1)
            for point in sorted(copies, key=lambda p: (p.created, p.identifier), reverse=True):
                known[point.identifier] = verified(self._bucket, point.identifier)
                wanted -= known[point.identifier] is not Verified.FAILED
                if not wanted:
                    break
        return [replace(p, verified=known.get(p.identifier, p.verified)) for p in points]

    def _uploads(self) -> list[RecoveryPoint]:
        paginator = self._bucket.client.get_paginator("list_multipart_uploads")
        return upload_points(
            page
            for prefix in Prefix
            for page in paginator.paginate(Bucket=self._bucket.name, Prefix=f"{prefix.value}/")
        )
