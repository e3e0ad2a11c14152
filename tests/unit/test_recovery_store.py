from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from aurora_backup.baseline import Facts
from aurora_backup.errors import ObjectExists
from aurora_backup.policy import Tier
from aurora_backup.recovery import Plan, Point, Purpose
from aurora_backup.recovery_store import RecoveryStore
from aurora_backup.s3 import NoSuchObject

T0 = datetime(2026, 11, 1, 12, tzinfo=UTC)


class MemoryBucket:
    """A bucket in memory, with S3's conditional write."""

    def __init__(self):
        self.objects = {}

    def write(self, key, body, *, once):
        if once and self.objects.get(key, body) != body:
            raise ObjectExists(key)
        self.objects[key] = body

    def read(self, key):
        if key not in self.objects:
            raise NoSuchObject(key)
        return self.objects[key].encode()

    def read_json(self, key):
        return json.loads(self.objects[key]) if key in self.objects else None

    def keys(self, prefix):
        return sorted(key for key in self.objects if key.startswith(prefix))


@pytest.fixture
def bucket():
    return MemoryBucket()


@pytest.fixture
def store(bucket):
    return RecoveryStore(bucket)


def facts(minutes):
    taken = T0 + timedelta(minutes=minutes)
    return Facts(taken=taken, finished=taken + timedelta(seconds=10), server=minutes)


def plan(**changes):
    told = {
        "purpose": Purpose.TEST,
        "owner": "me",
        "execution": "run/1",
        "started": T0,
        "deadline": T0,
        "expires": T0,
        "source": "prod",
        "source_resource_id": "cluster-A",
        "point": Point(tier="weekly", moment=T0),
        "target": "copy",
        "operation": None,
        "parameters": {},
        "settings": {},
        "instances": (),
    }
    return Plan(**{**told, **changes})


def test_the_baselines_around_a_moment_are_those_of_the_same_cluster(store):
    for minutes in (0, 10, 20):
        store.keep_baseline("cluster-A", facts(minutes))
    store.keep_baseline("cluster-B", facts(11))
    before, after = store.baselines("cluster-A", T0 + timedelta(minutes=12))
    assert (before.server, after.server) == (10, 20)
    assert store.baselines("cluster-A", T0 - timedelta(days=1))[0] is None
    assert store.baselines("cluster-C", T0) == (None, None)


def test_a_replay_keeps_the_first_plan(store):
    key = store.keep_plan(plan())
    assert store.keep_plan(plan(target="another")) == key
    assert store.plan(key).target == "copy"


def test_a_report_is_never_replaced_by_another_executions(store, bucket):
    key = store.keep_test_report(plan(), {"execution": "run/1", "outcome": "RESTORED"})
    store.keep_test_report(plan(), {"execution": "run/1", "outcome": "DAMAGED"})
    assert store.report(key)["outcome"] == "RESTORED"
    bucket.objects[key] = json.dumps({"execution": "somebody else's"})
    with pytest.raises(ObjectExists):
        store.keep_test_report(plan(), {"execution": "run/1"})


def test_when_a_tier_was_tested_last_is_read_from_the_reports(store):
    for day in (1, 3, 2):
        moment = T0 + timedelta(days=day)
        store.keep_test_report(plan(started=moment, execution=f"run-{day}"), {"execution": f"run-{day}"})
    assert store.last_tests() == {Tier.WEEKLY: T0 + timedelta(days=3)}


def test_a_cluster_is_remembered_again_only_when_something_that_matters_changed(store):
    cluster = {"Port": 5432, "LatestRestorableTime": T0, "ClusterCreateTime": T0}
    assert store.remember("cluster-A", cluster, [])
    assert not store.remember("cluster-A", {**cluster, "LatestRestorableTime": T0 + timedelta(minutes=5)}, [])
    assert store.remember("cluster-A", {**cluster, "Port": 5433}, [])
    assert store.remembered("cluster-A")[0]["Port"] == 5433
    assert store.remembered("cluster-B") is None
