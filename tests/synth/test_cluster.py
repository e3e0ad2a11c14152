"""ClusterDetails: what is known of a cluster, however it came to be known."""

from __future__ import annotations

import pytest
from aws_cdk import aws_rds as rds

from cdk_aurora_backup import ClusterDetails, SynthError
from tests.synth.synthesis import imported_cluster, new_stack, some_cluster, some_secret, some_vpc


def test_a_cluster_of_the_same_app_is_read():
    stack = new_stack()
    cluster = some_cluster(stack, some_vpc(stack), port=5433)
    details = ClusterDetails.of(cluster)
    assert (details.port, details.engine_version) == (5433, "16.6")
    assert stack.resolve(details.resource_id) == stack.resolve(cluster.cluster_resource_identifier)
    assert details.secret is not None


def test_a_cluster_restored_from_a_snapshot_in_the_same_app_is_read_too():
    stack = new_stack()
    vpc = some_vpc(stack)
    cluster = rds.DatabaseClusterFromSnapshot(
        stack,
        "Restored",
        engine=rds.DatabaseClusterEngine.aurora_postgres(version=rds.AuroraPostgresEngineVersion.VER_16_6),
        snapshot_identifier="before",
        writer=rds.ClusterInstance.serverless_v2("writer"),
        vpc=vpc,
        vpc_subnets={"subnets": vpc.isolated_subnets},
    )
    assert ClusterDetails.of(cluster).engine_version == "16.6"


def test_an_imported_cluster_must_be_described_because_it_does_not_know_itself():
    stack = new_stack()
    cluster = rds.DatabaseCluster.from_database_cluster_attributes(stack, "Imported", cluster_identifier="clinic")
    with pytest.raises(SynthError, match=r"cluster Mine/Imported is imported: say .* ClusterDetails\(cluster=\.\.\."):
        ClusterDetails.of(cluster)


@pytest.mark.parametrize("given", ["clinic", "db-ABC", ""])
def test_a_resource_id_that_is_a_name_is_refused_because_names_are_reused(given):
    with pytest.raises(SynthError, match=rf"resource_id must be the DbClusterResourceId.*got '{given}'"):
        imported_cluster(new_stack(), resource_id=given)


def test_an_identifier_that_rds_would_refuse_is_refused():
    stack = new_stack()
    cluster = rds.DatabaseCluster.from_database_cluster_attributes(stack, "Imported", cluster_identifier="cli--nic")
    with pytest.raises(SynthError, match=r"must be 1-63 letters.*got 'cli--nic'"):
        ClusterDetails(cluster=cluster, resource_id="cluster-ABC")


def test_the_arn_is_in_the_stacks_own_partition():
    stack = new_stack()
    arn = stack.resolve(imported_cluster(stack, secret=some_secret(stack)).arn)
    assert arn["Fn::Join"][1][:2] == ["arn:", {"Ref": "AWS::Partition"}]
    assert arn["Fn::Join"][1][-1] == ":cluster:clinic"
