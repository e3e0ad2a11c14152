from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from aurora_backup import cli
from aurora_backup.adoption import Adoption, AdoptionRefused, Adoptions, adopt
from aurora_backup.errors import ObjectExists
from tests.recovery_world import PROD_ID, World

NOW = datetime(2026, 11, 2, 9, tzinfo=UTC)
CLUSTER = {
    "DBClusterIdentifier": "rescued",
    "DbClusterResourceId": "cluster-NEW",
    "Status": "available",
    "Endpoint": "rescued.example",
}


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


def test_the_command_records_the_adoption_once_and_a_different_one_never_replaces_it(monkeypatch, capsys):
    world = World()
    world._add_cluster("rescued", {"DbClusterResourceId": "cluster-NEW"}, ready=True)
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
