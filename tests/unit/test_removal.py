from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from aurora_backup.ledger import CreationRecord
from aurora_backup.rds import RdsBusy
from aurora_backup.removal import CLUSTER, INSTANCE, Production, RemovalRefused, Remover, State, refusal

NOW = datetime(2026, 11, 2, 9, tzinfo=UTC)
PRODUCTION = Production(clusters=frozenset({"prod"}), resource_ids=frozenset({"cluster-PROD", "cluster-OLD"}))
TAGS = {"aurora-backup:owner": "me", "aurora-backup:execution": "run-1", "aurora-backup:purpose": "recovery-test"}


def tag_list(**changes):
    tags = {**TAGS, **{f"aurora-backup:{key}": value for key, value in changes.items()}}
    return [{"Key": key, "Value": value} for key, value in tags.items() if value is not None]


def cluster(**changes):
    return {
        "DBClusterIdentifier": "recovery-test-1",
        "DbClusterResourceId": "cluster-COPY",
        "ClusterCreateTime": NOW,
        "Status": "available",
        "TagList": tag_list(),
        **changes,
    }


def instance(**changes):
    return {
        "DBInstanceIdentifier": "recovery-test-1-1",
        "DBClusterIdentifier": "recovery-test-1",
        "InstanceCreateTime": NOW,
        "DBInstanceStatus": "available",
        "TagList": tag_list(),
        **changes,
    }


def record(kind=CLUSTER, **changes):
    names = {CLUSTER: "recovery-test-1", INSTANCE: "recovery-test-1-1"}
    told = {"kind": kind, "identifier": names[kind], "owner": "me", "execution": "run-1", "created": NOW}
    return CreationRecord(**{**told, **changes})


def test_a_test_copy_with_tag_and_record_may_go():
    assert refusal(CLUSTER, cluster(), record(), "me", PRODUCTION) is None
    assert refusal(INSTANCE, instance(), record(INSTANCE), "me", PRODUCTION) is None


@pytest.mark.parametrize(
    ("described", "made", "says"),
    [
        (cluster(DBClusterIdentifier="prod"), record(identifier="prod"), "production"),
        (cluster(DbClusterResourceId="cluster-PROD"), record(), "its resource id is production's"),
        (cluster(DbClusterResourceId="cluster-OLD"), record(), "its resource id is production's"),
        (cluster(TagList=[]), record(), "its tag aurora-backup:owner is None"),
        (cluster(TagList=tag_list(owner="you")), record(), "its tag aurora-backup:owner is 'you'"),
        (cluster(TagList=tag_list(purpose=None)), record(), "its tag aurora-backup:purpose is None"),
        (cluster(TagList=tag_list(purpose="point-in-time-recovery")), record(), "is 'point-in-time-recovery'"),
        (cluster(), None, "no creation record"),
        (cluster(), record(identifier="recovery-test-2"), "no creation record"),
        (cluster(), record(owner="you"), "no creation record"),
        (cluster(), record(kind=INSTANCE), "no creation record"),
        (cluster(), record(execution="run-2"), "name different executions"),
        (cluster(ClusterCreateTime=NOW - timedelta(hours=1)), record(), "older than its creation record"),
        (cluster(DeletionProtection=True), record(), "protected from deletion"),
    ],
)
def test_anything_that_is_not_shown_to_be_a_test_copy_of_ours_is_refused(described, made, says):
    assert says in refusal(CLUSTER, described, made, "me", PRODUCTION)


def test_an_instance_of_production_is_refused_whatever_it_carries():
    theirs = instance(DBClusterIdentifier="prod")
    assert "belongs to, production" in refusal(INSTANCE, theirs, record(INSTANCE), "me", PRODUCTION)


class FakeRds:
    def __init__(self, found, members):
        self.found, self.members, self.deleted = found, members, []

    def cluster(self, _):
        return self.found

    def instances(self, _):
        return self.members

    def delete_instance(self, name):
        self.deleted.append(name)

    def delete_cluster(self, name):
        self.deleted.append(name)


class FakeLedger:
    def __init__(self, *records):
        self.records = {(r.kind, r.identifier): r for r in records}

    def get(self, kind, _owner, identifier):
        return self.records.get((kind, identifier))


def remover(found, members, *records):
    rds = FakeRds(found, members)
    return rds, Remover(rds, FakeLedger(*records), "me", PRODUCTION)


def test_instances_go_first_then_the_cluster_then_it_is_gone():
    rds, remove = remover(cluster(), [instance()], record(), record(INSTANCE))
    assert remove.step("recovery-test-1") is State.GOING
    assert rds.deleted == ["recovery-test-1-1"]
    rds.members = [instance(DBInstanceStatus="deleting")]
    assert remove.step("recovery-test-1") is State.GOING
    rds.members = []
    assert remove.step("recovery-test-1") is State.GOING
    rds.found = cluster(Status="deleting")
    assert remove.step("recovery-test-1") is State.GOING
    rds.found = None
    assert remove.step("recovery-test-1") is State.GONE
    assert rds.deleted == ["recovery-test-1-1", "recovery-test-1"]


def test_an_instance_that_somebody_attached_keeps_the_whole_copy_from_being_touched():
    strange = instance(DBInstanceIdentifier="somebodys", TagList=[])
    rds, remove = remover(cluster(), [instance(), strange], record(), record(INSTANCE))
    with pytest.raises(RemovalRefused, match="instance somebodys"):
        remove.step("recovery-test-1")
    assert rds.deleted == []


def test_of_a_cluster_that_is_not_ours_only_our_instance_goes():
    native = cluster(DBClusterIdentifier="awsbackup-restore-test-1", TagList=[])
    mine, theirs = instance(DBClusterIdentifier="awsbackup-restore-test-1"), instance(DBInstanceIdentifier="theirs")
    rds, remove = remover(native, [mine, theirs], record(INSTANCE))
    only = frozenset({"recovery-test-1-1"})
    assert remove.step("awsbackup-restore-test-1", only=only) is State.GOING
    assert rds.deleted == ["recovery-test-1-1"]
    rds.members = [theirs]
    assert remove.step("awsbackup-restore-test-1", only=only) is State.GONE


def test_a_copy_that_is_busy_is_tried_again_later():
    rds, remove = remover(cluster(), [], record())

    def busy(_):
        raise RdsBusy("not now", "InvalidDBClusterStateFault")

    rds.delete_cluster = busy
    assert remove.step("recovery-test-1") is State.GOING
