from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from aurora_backup import cli, tags
from aurora_backup.adoption import Adoption, AdoptionRefused, Adoptions, adopt
from aurora_backup.errors import ObjectExists
from aurora_backup.ledger import CreationRecord
from aurora_backup.removal import CLUSTER as CLUSTER_KIND
from aurora_backup.removal import INSTANCE, Production, refusal
from tests.recovery_world import PROD_ID, World

NOW = datetime(2026, 11, 2, 9, tzinfo=UTC)
CLUSTER = {
    "DBClusterIdentifier": "rescued",
    "DbClusterResourceId": "cluster-NEW",
    "Status": "available",
    "Endpoint": "rescued.example",
    "DeletionProtection": True,
}
PURPOSE = {"Key": "aurora-backup:purpose", "Value": "recovery-test"}
EXPIRES = {"Key": "aurora-backup:expires", "Value": "2026-11-02T21:00:00+00:00"}


def made(previous=("cluster-OLD",), known=None, **changes):
    return adopt({**CLUSTER, **changes}, previous, known or {}, owner="me", now=NOW)


def test_the_lineage_of_a_predecessor_is_carried_on_oldest_first():
    assert made(["cluster-B"], {"cluster-B": ("cluster-0", "cluster-A")}).lineage == (
        "cluster-0",
        "cluster-A",
        "cluster-B",
    )


def test_the_construct_gets_the_resource_id_and_the_lineage():
    text = made().construct_arguments()
    assert 'resource_id="cluster-NEW"' in text
    assert 'lineage=["cluster-OLD"]' in text


@pytest.mark.parametrize(
    ("change", "previous", "says"),
    [
        ({"Status": "creating"}, ["cluster-OLD"], "cluster must be available, got 'creating'"),
        (
            {"DeletionProtection": False},
            ["cluster-OLD"],
            "must have DeletionProtection, got False. .*modify-db-cluster",
        ),
        ({"TagList": [PURPOSE]}, ["cluster-OLD"], "got rescued with aurora-backup:purpose=recovery-test. Remove these"),
        ({"TagList": [EXPIRES]}, ["cluster-OLD"], "got rescued with aurora-backup:expires=2026-11-02T21"),
        ({}, ["cluster-NEW"], "own resource id"),
        ({}, ["prod"], "begin with 'cluster-'"),
        ({}, [], "begin with 'cluster-'"),
    ],
)
def test_a_cluster_that_cannot_be_adopted_is_refused(change, previous, says):
    with pytest.raises(AdoptionRefused, match=says):
        made(previous, **change)


def test_a_cluster_that_does_not_exist_is_refused():
    with pytest.raises(AdoptionRefused, match="cluster must exist"):
        adopt(None, ["cluster-OLD"], {}, owner="me", now=NOW)


def test_an_instance_that_still_carries_a_tests_tags_is_named():
    instance = {"DBInstanceIdentifier": "rescued-1", "DBClusterIdentifier": "rescued", "TagList": [EXPIRES, PURPOSE]}
    with pytest.raises(AdoptionRefused, match=r"rescued-1 with .*expires=.* and .*purpose=recovery-test\. Remove"):
        adopt(CLUSTER, ["cluster-OLD"], {}, owner="me", now=NOW, instances=[instance])


def test_what_a_point_in_time_recovery_made_is_adopted_with_its_tags():
    assert made(TagList=[{"Key": "aurora-backup:purpose", "Value": "point-in-time-recovery"}]).cluster == "rescued"


def test_a_copy_that_loses_the_tags_that_are_named_is_out_of_the_janitors_reach():
    """Even under the name, the record and without the protection that a test copy has."""
    execution, owner = {"Key": tags.EXECUTION, "Value": "run"}, {"Key": tags.OWNER, "Value": "me"}
    nothing = Production(frozenset(), frozenset())
    for kind, name in ((CLUSTER_KIND, "DBClusterIdentifier"), (INSTANCE, "DBInstanceIdentifier")):
        record = CreationRecord(kind=kind, identifier="x", owner="me", execution="run", created=NOW)
        described = {"DBClusterIdentifier": "x", name: "x", "TagList": [execution, owner, PURPOSE, EXPIRES]}
        assert refusal(kind, described, record, "me", nothing) is None
        described["TagList"] = [execution, owner]
        assert "its tag aurora-backup:purpose is None" in refusal(kind, described, record, "me", nothing)


def test_the_command_looks_at_the_instances_too(monkeypatch, capsys):
    world = World()
    world._add_cluster("rescued", {"DeletionProtection": True}, ready=True)
    world._add_instance("rescued-1", "rescued", {"TagList": [PURPOSE]}, ready=True)
    monkeypatch.setattr("boto3.client", world.client)
    monkeypatch.setattr("aurora_backup.s3._create", world.client)
    command = ["adopt", "--bucket", "b", "--owner", "me", "--cluster", "rescued", "--previous", PROD_ID]
    assert cli.main(command) == 1
    assert "rescued-1 with aurora-backup:purpose=recovery-test" in "".join(capsys.readouterr())
    assert not world.objects


def test_the_command_records_the_adoption_once_and_a_different_one_never_replaces_it(monkeypatch, capsys):
    world = World()
    world._add_cluster("rescued", {"DbClusterResourceId": "cluster-NEW", "DeletionProtection": True}, ready=True)
    monkeypatch.setattr("boto3.client", world.client)
    monkeypatch.setattr("aurora_backup.s3._create", world.client)
    command = ["adopt", "--bucket", "b", "--owner", "me", "--cluster", "rescued", "--previous"]
    for _ in range(2):
        assert cli.main([*command, PROD_ID, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["lineage"] == [PROD_ID]
    stored = json.loads(world.objects["compliance-backups/evidence/adoptions/cluster-NEW.json"])
    assert (stored["resource_id"], stored["lineage"]) == ("cluster-NEW", [PROD_ID])
    assert cli.main([*command, "cluster-OTHER", "--json"]) == 1
    assert cli.main(["adopt", "--bucket", "b", "--owner", "me", "--cluster", "none", "--previous", PROD_ID]) == 1


def test_the_lineage_of_a_cluster_that_was_never_adopted_is_empty():
    class Empty:
        def read_json(self, _):
            return None

        def write(self, *_, **__):
            raise ObjectExists("taken")

    assert Adoptions(Empty()).lineage("cluster-NEW") == ()
    with pytest.raises(ObjectExists):
        Adoptions(Empty()).keep(
            Adoption(owner="me", cluster="c", resource_id="r", endpoint="e", lineage=("cluster-A",), adopted="now")
        )
