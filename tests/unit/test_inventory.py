"""What the services say, read as recovery points: every page, and a failed one makes the listing unknown."""

from datetime import UTC, datetime, timedelta

import pytest

from aurora_backup import tags
from aurora_backup.inventory import aws_backup_points, moment, set_points, snapshot_point, verified
from aurora_backup.policy import Tier
from aurora_backup.retention import Kind, Status, Verified
from tests.unit.retention_world import ARN, NOW, OWNER, POLICY, US, make_world

KEY = f"logical-backups/{US}/clinic/20261121T020000Z/"
STARTED = datetime(2026, 11, 21, 2, tzinfo=UTC)


@pytest.fixture
def world():
    with make_world() as made:
        yield made


def described(**changes):
    return {
        "DBClusterSnapshotIdentifier": "one",
        "DBClusterSnapshotArn": ARN + "one",
        "SnapshotType": "manual",
        "DbClusterResourceId": US,
        "SnapshotCreateTime": NOW,
        "Status": "available",
        "StorageEncrypted": True,
        "AllocatedStorage": 2,
        "TagList": tags.tag_list({tags.OWNER: OWNER, tags.EXPIRES: "2027-01-01T00:00:00+00:00"}),
        **changes,
    }


def test_a_snapshot_is_read_whole():
    point = snapshot_point(described(), OWNER, {"one"})

    assert (point.kind, point.tier, point.identifier) == (Kind.SNAPSHOT, Tier.ON_DEMAND, ARN + "one")
    assert (point.cluster_resource_id, point.created, point.size, point.encrypted) == (US, NOW, 2 << 30, True)
    assert point.expires == datetime(2027, 1, 1, tzinfo=UTC)
    assert (point.ours, point.held, point.status) == (True, False, Status.AVAILABLE)


@pytest.mark.parametrize(
    ("changes", "recorded", "field", "value"),
    [
        ({"TagList": []}, {"one"}, "tagged", False),
        ({"TagList": [{"Key": tags.OWNER, "Value": "Somebody"}]}, {"one"}, "tagged", False),
        ({}, {"two"}, "recorded", False),
        ({"TagList": tags.tag_list({tags.LEGAL_HOLD: "Doe"})}, (), "held", True),
        ({"TagList": tags.tag_list({tags.EXPIRES: "soon"})}, (), "expires", None),
        ({"TagList": tags.tag_list({tags.EXPIRES: "2027-01-01T00:00:00"})}, (), "expires", None),
        ({"SnapshotCreateTime": None}, (), "created", None),
        ({"Status": "creating"}, (), "status", Status.PENDING),
        ({"Status": "copying"}, (), "status", Status.PENDING),
        ({"Status": "deleting"}, (), "status", Status.DELETING),
        ({"Status": "failed"}, (), "status", Status.FAILED),
        ({"Status": "incompatible-something"}, (), "status", Status.UNKNOWN),
        ({"Status": None}, (), "status", Status.UNKNOWN),
        ({"SnapshotType": "automated"}, (), "kind", Kind.AUTOMATED),
        ({"SnapshotType": "automated"}, (), "tier", Tier.AUTOMATED),
        ({"DbClusterResourceId": None}, (), "cluster_resource_id", None),
    ],
)
def test_each_fact_of_a_snapshot_is_read(changes, recorded, field, value):
    assert getattr(snapshot_point(described(**changes), OWNER, recorded), field) == value


def recovery_point(**changes):
    return {
        "RecoveryPointArn": ARN + "awsbackup:job-1",
        "ResourceType": "Aurora",
        "Status": "COMPLETED",
        "CreationDate": NOW,
        "BackupSizeInBytes": 7,
        "IsEncrypted": True,
        "CalculatedLifecycle": {"DeleteAt": NOW + timedelta(days=180)},
        "Lifecycle": {"DeleteAfterDays": 180},
        **changes,
    }


def test_a_recovery_point_gets_its_cluster_from_rds():
    snapshot = described(DBClusterSnapshotArn=ARN + "awsbackup:job-1", SnapshotType="awsbackup")
    (point,) = aws_backup_points([recovery_point()], [snapshot], POLICY)

    assert (point.kind, point.tier, point.cluster_resource_id) == (Kind.RECOVERY_POINT, Tier.WEEKLY, US)
    assert (point.size, point.encrypted, point.expires) == (7, True, NOW + timedelta(days=180))
    assert aws_backup_points([recovery_point()], [], POLICY)[0].cluster_resource_id is None


@pytest.mark.parametrize(
    ("changes", "labels", "tier"),
    [
        ({"Lifecycle": {"DeleteAfterDays": 2192}}, {}, Tier.MONTHLY),
        ({"Lifecycle": {"DeleteAfterDays": 90}}, {}, None),
        ({"Lifecycle": None}, {}, None),
        ({"CreatedBy": {"BackupRuleName": "monthly"}}, {}, Tier.MONTHLY),
        ({}, {tags.TIER: "monthly"}, Tier.MONTHLY),
        ({"CreatedBy": {"BackupRuleName": "monthly"}}, {tags.TIER: "weekly"}, None),
        ({"CreatedBy": {"BackupRuleName": "yearly"}}, {}, Tier.WEEKLY),
    ],
)
def test_a_recovery_point_gets_its_tier_from_tag_rule_or_lifetime(changes, labels, tier):
    snapshot = described(DBClusterSnapshotArn=ARN + "awsbackup:job-1", TagList=tags.tag_list(labels))

    assert aws_backup_points([recovery_point(**changes)], [snapshot], POLICY)[0].tier is tier


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("AVAILABLE", Status.AVAILABLE),
        ("CREATING", Status.PENDING),
        ("PARTIAL", Status.FAILED),
        ("DELETING", Status.DELETING),
        ("EXPIRED", Status.UNKNOWN),
        ("STOPPED", Status.UNKNOWN),
    ],
)
def test_each_status_of_a_recovery_point_is_read(said, status):
    assert aws_backup_points([recovery_point(Status=said)], [], POLICY)[0].status is status


def version(key, *, latest=True, at=STARTED, size=5):
    return {"Key": key, "IsLatest": latest, "LastModified": at, "Size": size, "VersionId": "v"}


def read(*versions, recorded=(KEY,)):
    return set_points([{"Versions": [v]} for v in versions], recorded)


def test_a_set_is_read_from_pages_of_versions():
    (point,) = read(
        version(KEY + "0000.dump", latest=False), version(KEY + "0000.dump"), version(KEY + "manifest.json")
    )

    assert (point.kind, point.tier, point.identifier, point.series) == (Kind.SET, Tier.LOGICAL, KEY, "clinic")
    assert (point.cluster_resource_id, point.created, point.size) == (US, STARTED, 10)
    assert (point.status, point.ours) == (Status.AVAILABLE, True)


@pytest.mark.parametrize(
    ("versions", "status"),
    [
        ([version(KEY + "0000.dump")], Status.INCOMPLETE),
        ([version(KEY + "0000.dump"), version(KEY + "manifest.json", latest=False)], Status.INCOMPLETE),
        ([version(KEY + "0000.dump", latest=False), version(KEY + "manifest.json", latest=False)], Status.HIDDEN),
    ],
)
def test_a_set_without_a_current_manifest_is_no_backup(versions, status):
    assert read(*versions)[0].status is status


def test_a_set_is_as_young_as_its_youngest_object_but_for_its_verification():
    later = STARTED + timedelta(days=1)

    assert read(version(KEY + "0000.dump", at=later), version(KEY + "manifest.json"))[0].created == later
    assert read(version(KEY + "manifest.json"), version(KEY + "verification.json", at=later))[0].created == STARTED
    assert read(version(KEY + "manifest.json", at=STARTED - timedelta(days=900)))[0].created == STARTED


@pytest.mark.parametrize(
    ("prefix", "tier"),
    [
        ("automated-backups", Tier.AUTOMATED),
        ("manual-backups", Tier.ON_DEMAND),
        ("logical-backups", Tier.LOGICAL),
        ("compliance-backups", Tier.MONTHLY),
    ],
)
def test_a_sets_tier_is_its_prefix(prefix, tier):
    assert read(version(KEY.replace("logical-backups", prefix) + "manifest.json"))[0].tier is tier


def test_what_is_no_part_of_a_set_is_a_stray():
    for key in ("logical-backups/notes.txt", "logical-backups/a/b/yesterday/manifest.json", f"x/{KEY}manifest.json"):
        (point,) = read(version(key))
        assert (point.kind, point.identifier, point.cluster_resource_id) == (Kind.STRAY, key, None)


def test_evidence_is_no_recovery_point():
    assert read(version(f"compliance-backups/evidence/{US}/clinic/20261121T020000Z/manifest.json")) == []


def test_a_set_without_record_is_not_ours():
    assert not read(version(KEY + "manifest.json"), recorded=())[0].ours


@pytest.mark.parametrize(
    ("text", "found"), [("2026-01-01T00:00:00Z", True), ("2026-01-01", False), (None, False), (5, False)]
)
def test_only_times_with_a_zone_are_times(text, found):
    assert (moment(text) is not None) is found


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (None, Verified.UNKNOWN),
        ('{"schema": 1, "set": "KEY", "tiers": {"a": {"ok": true}}}', Verified.GOOD),
        ('{"schema": 1, "set": "KEY", "tiers": {"a": {"ok": true}, "b": {"ok": false}}}', Verified.FAILED),
        ('{"schema": 1, "set": "KEY", "tiers": {"a": {"ok": null}}}', Verified.UNKNOWN),
        ('{"schema": 1, "set": "another/", "tiers": {"a": {"ok": true}}}', Verified.FAILED),
        ('{"schema": 9, "set": "KEY", "tiers": {"a": {"ok": true}}}', Verified.FAILED),
        ('{"schema": 1, "set": "KEY", "tiers": {}}', Verified.FAILED),
        ('{"schema": 1, "set": "KEY", "tiers": {"a": {"ok": "false"}}}', Verified.FAILED),
        ('{"schema": 1, "set": "KEY", "tiers": {"a": {"ok": 1}}}', Verified.FAILED),
        ("{}", Verified.FAILED),
        ("[]", Verified.FAILED),
        ("nonsense", Verified.FAILED),
    ],
)
def test_a_verification_record_is_read_strictly(world, record, says):
    if record:
        world.bucket.write(KEY + "verification.json", record.replace("KEY", KEY), once=True)

    assert verified(world.bucket, KEY) is says


# --- Everything together


def test_everything_is_found_on_every_page(world):
    world.rds_client.page_size = 2
    world.vaults, world.backup.page_size = ("vault",), 1
    for n in range(5):
        world.snapshot(f"manual-{n}", n)
        world.snapshot(f"rds:auto-{n}", n, kind="automated")
        world.snapshot(f"awsbackup:job-{n}", n, kind="awsbackup")
        world.dump_set(STARTED - timedelta(days=7 * n))
    world.backup.points["vault"] = [recovery_point(RecoveryPointArn=f"{ARN}awsbackup:job-{n}") for n in range(5)]
    world.backup.points["vault"].append(recovery_point(ResourceType="EBS"))
    world.bucket.client.create_multipart_upload(Bucket="backups", Key="logical-backups/a/b/20261121T020000Z/0000.dump")
    observed = world.inventory.observe()

    kinds = [p.kind for p in observed.points]
    assert observed.unknown == ()
    assert {kind: kinds.count(kind) for kind in Kind} == {
        Kind.SNAPSHOT: 5,
        Kind.AUTOMATED: 5,
        Kind.RECOVERY_POINT: 5,
        Kind.SET: 5,
        Kind.UPLOAD: 1,
        Kind.STRAY: 0,
    }
    assert all(p.ours for p in observed.points if p.kind in {Kind.SET, Kind.SNAPSHOT})
    assert all(p.cluster_resource_id == US for p in observed.points if p.kind is not Kind.UPLOAD)


def test_a_page_that_fails_makes_its_source_unknown_and_nothing_else(world):
    world.rds_client.page_size, world.rds_client.fail_page = 2, 2
    for n in range(5):
        world.snapshot(f"manual-{n}", n)
    world.dump_set(STARTED)
    observed = world.inventory.observe()

    assert [p.kind for p in observed.points] == [Kind.SET]
    assert len(observed.unknown) == 1
    assert observed.unknown[0].startswith("RDS cluster snapshots: RdsUnavailable: ")
    assert "Rate exceeded" in observed.unknown[0]


def test_a_vault_that_cannot_be_read_is_unknown(world):
    world.vaults = ("missing",)

    assert [text.split(":")[0] for text in world.inventory.observe().unknown] == ["AWS Backup recovery points"]


def test_verification_is_read_for_as_many_newest_sets_as_must_stay(world, monkeypatch):
    keys = [world.dump_set(STARTED - timedelta(days=7 * n)) for n in range(4)]
    world.verification(keys[0], ok=False)
    world.verification(keys[1], ok=True)
    world.verification(keys[3], ok=False)
    asked = []
    monkeypatch.setattr("aurora_backup.inventory.verified", lambda b, k: asked.append(k) or verified(b, k))
    found = {p.identifier: p.verified for p in world.inventory.observe().points}

    assert asked == keys[:2]
    assert [found[k] for k in keys] == [Verified.FAILED, Verified.GOOD, Verified.UNKNOWN, Verified.UNKNOWN]
