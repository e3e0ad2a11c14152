"""A small AWS for the tests of retention: S3 by moto, snapshots and vaults as dictionaries that page like AWS."""

# ruff: noqa: N803  the arguments are named as AWS names them

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache

import boto3
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.core import DEFAULT_ACCOUNT_ID as ACCOUNT
from moto.s3.models import s3_backends

from aurora_backup import tags
from aurora_backup.holds import HoldKeeper
from aurora_backup.inventory import Inventory
from aurora_backup.ledger import CreationRecord, Ledger
from aurora_backup.manifest import Archive, Facts, Manifest, set_key
from aurora_backup.policy import RetentionPolicy
from aurora_backup.rds import Rds
from aurora_backup.s3 import Bucket
from aurora_backup.sweep import Sweeper

OWNER, BUCKET = "Stack/Backup", "backups"
US = "cluster-OURS"
NOW = datetime(2026, 11, 23, 5, 30, tzinfo=UTC)
POLICY = RetentionPolicy.hipaa().with_changes({"sweep": {"enforce": True, "max_share": 1.0}})
ARN = "arn:aws:rds:eu-west-1:111122223333:cluster-snapshot:"


def throttled(operation):
    return ClientError({"Error": {"Code": "Throttling", "Message": "Rate exceeded"}}, operation)


class RdsClient:
    """describe, tag and delete cluster snapshots. fail_page: the number of the page that is throttled."""

    def __init__(self):
        self.snapshots: dict[str, dict] = {}
        self.page_size, self.fail_page, self.pages = 100, None, 0
        self.deleted: list[str] = []
        self.before_describe = lambda _name: None
        self.deletes_nothing = False

    def describe_db_cluster_snapshots(self, *, DBClusterSnapshotIdentifier=None, SnapshotType=None, Marker="0", **_):
        if DBClusterSnapshotIdentifier:
            self.before_describe(DBClusterSnapshotIdentifier)
            found = self.snapshots.get(DBClusterSnapshotIdentifier)
            if found is None:
                raise ClientError({"Error": {"Code": "DBClusterSnapshotNotFoundFault", "Message": "gone"}}, "Describe")
            return {"DBClusterSnapshots": [found]}
        self.pages += 1
        if self.pages == self.fail_page:
            raise throttled("DescribeDBClusterSnapshots")
        found = [s for s in self.snapshots.values() if s["SnapshotType"] == SnapshotType]
        start = int(Marker)
        more = {"Marker": str(start + self.page_size)} if start + self.page_size < len(found) else {}
        return {"DBClusterSnapshots": found[start : start + self.page_size], **more}

    def add_tags_to_resource(self, *, ResourceName, Tags):
        tagged = self.snapshots[ResourceName.rpartition(":")[2]]["TagList"]
        tagged[:] = [t for t in tagged if t["Key"] not in {n["Key"] for n in Tags}] + Tags

    def remove_tags_from_resource(self, *, ResourceName, TagKeys):
        tagged = self.snapshots[ResourceName.rpartition(":")[2]]["TagList"]
        tagged[:] = [t for t in tagged if t["Key"] not in TagKeys]

    def delete_db_cluster_snapshot(self, *, DBClusterSnapshotIdentifier):
        self.deleted.append(DBClusterSnapshotIdentifier)
        if not self.deletes_nothing:
            del self.snapshots[DBClusterSnapshotIdentifier]


class BackupClient:
    """Vaults of recovery points, and legal holds."""

    def __init__(self):
        self.points: dict[str, list[dict]] = {}
        self.holds: list[dict] = []
        self.cancelled: list[dict] = []
        self.page_size, self.pages = 1000, 0

    def get_paginator(self, operation):
        return _Paginator(self, operation)

    def create_legal_hold(self, **parameters):
        self.holds.append({"LegalHoldId": f"hold-{len(self.holds)}", "Status": "ACTIVE", **parameters})
        return self.holds[-1]

    def cancel_legal_hold(self, **parameters):
        self.cancelled.append(parameters)


@dataclass
class _Paginator:
    client: BackupClient
    operation: str

    def paginate(self, *, BackupVaultName=None, **_):
        if self.operation == "list_legal_holds":
            yield {"LegalHolds": self.client.holds}
            return
        if BackupVaultName not in self.client.points:
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no such vault"}}, "List")
        points = self.client.points[BackupVaultName]
        for start in range(0, max(1, len(points)), self.client.page_size):
            self.client.pages += 1
            yield {"RecoveryPoints": points[start : start + self.client.page_size]}


@dataclass
class World:
    """Everything one owner has. Make it with `make_world`."""

    bucket: Bucket
    rds_client: RdsClient = field(default_factory=RdsClient)
    backup: BackupClient = field(default_factory=BackupClient)
    policy: RetentionPolicy = POLICY
    vaults: tuple[str, ...] = ()
    lineage: tuple[str, ...] = (US,)
    clock: datetime = datetime(2100, 1, 1, tzinfo=UTC)  # later than any time that tests decide by

    def __post_init__(self):
        self.rds, self.ledger = Rds(self.rds_client), Ledger(self.bucket)
        self.keeper = HoldKeeper(bucket=self.bucket, rds=self.rds, owner=OWNER)

    @property
    def inventory(self):
        return Inventory(
            rds=self.rds,
            backup=self.backup,
            bucket=self.bucket,
            owner=OWNER,
            policy=self.policy,
            vaults=self.vaults,
        )

    @property
    def sweeper(self):
        return Sweeper(
            inventory=self.inventory,
            keeper=self.keeper,
            ledger=self.ledger,
            rds=self.rds,
            bucket=self.bucket,
            owner=OWNER,
            policy=self.policy,
            lineage=self.lineage,
            region="eu-west-1",
            clock=lambda: self.clock,
        )

    def snapshot(self, name, age, *, recorded=True, kind="manual", labels=None, **changes):
        """A cluster snapshot, `age` days old at NOW; returns its ARN."""
        created = NOW - timedelta(days=age)
        labels = {**tags.ours(OWNER, f"run-{name}"), **(labels or {})} if kind == "manual" else labels or {}
        self.rds_client.snapshots[name] = {
            "DBClusterSnapshotIdentifier": name,
            "DBClusterSnapshotArn": ARN + name,
            "SnapshotType": kind,
            "DbClusterResourceId": US,
            "SnapshotCreateTime": created,
            "Status": "available",
            "StorageEncrypted": True,
            "AllocatedStorage": 2,
            "TagList": tags.tag_list(labels),
            **changes,
        }
        if recorded and kind == "manual":
            self.record("cluster-snapshot", name, f"run-{name}", created)
        return ARN + name

    def record(self, kind, identifier, execution, created):
        self.ledger.put(
            CreationRecord(kind=kind, identifier=identifier, owner=OWNER, execution=execution, created=created)
        )

    def dump_set(
        self, started, *, database="clinic", prefix="logical-backups", recorded=True, manifest=True, owner=OWNER
    ):
        """A set with one archive; returns its key. Its objects are as old as S3's clock says."""
        key = set_key(prefix, US, database, started)
        if recorded:
            self.record("set", key, f"run-{key}", started)
        self.bucket.write(key + "0000.dump", "rows", once=True)
        if manifest:
            self.bucket.write(key + "manifest.json", manifest_of(key, owner).to_json(), once=True)
        self.age(key, started)
        return key

    def age(self, prefix, moment):
        """Make what is under a prefix as old as that: S3's clock cannot be chosen."""
        for name, versions in s3_backends[ACCOUNT]["aws"].buckets[BUCKET].keys.lists():
            if name.startswith(prefix):
                for number, version in enumerate(versions):  # moto tells by their times which is the latest
                    version.last_modified = moment.replace(tzinfo=None) + timedelta(milliseconds=number)

    def objects(self, prefix):
        """What can be read under a prefix."""
        return self.bucket.keys(prefix)

    def verification(self, key, ok):
        tiers = {"full-decode": {"name": "full-decode", "ok": ok, "detail": "", "seconds": 0}}
        self.bucket.write(key + "verification.json", json.dumps({"schema": 1, "set": key, "tiers": tiers}), once=False)


def manifest_of(key, owner):
    """A manifest that holds nothing."""
    facts = Facts(
        tables=(), sequences=(), large_objects=0, large_objects_digest=None, extensions={}, schema={}, server_major=17
    )
    return Manifest(
        set=key,
        owner=owner,
        execution="run",
        started="",
        finished="",
        snapshot_time="",
        snapshot_lsn=None,
        compression="zstd:3",
        server_version="17",
        client_version="17",
        source={},
        archives=(Archive(key=key + "0000.dump", version_id=None, bytes=4, crc32="", tables=(), seconds=0),),
        facts=facts,
        roles={},
        not_covered=(),
    )


@cache
def _client():
    """One client for all tests: making it costs more than most of them."""
    return boto3.client("s3", region_name="eu-west-1")


@contextmanager
def make_world(*, object_lock=True):
    """A World whose bucket is versioned, with or without S3 Object Lock."""
    with mock_aws():
        client = _client()
        client.create_bucket(
            Bucket=BUCKET,
            CreateBucketConfiguration={"LocationConstraint": "eu-west-1"},
            ObjectLockEnabledForBucket=object_lock,
        )
        client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        yield World(Bucket(client, BUCKET))
