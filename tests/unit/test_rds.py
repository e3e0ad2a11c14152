from __future__ import annotations

import boto3
import pytest
from botocore.stub import Stubber

from aurora_backup.rds import Rds, RdsBusy, RdsError, RdsUnavailable


@pytest.fixture
def stub():
    client = boto3.client("rds", region_name="eu-west-1")
    with Stubber(client) as stubber:
        yield Rds(client), stubber
        stubber.assert_no_pending_responses()


def test_every_page_is_read(stub):
    rds, answers = stub
    answers.add_response(
        "describe_db_clusters", {"DBClusters": [{"DBClusterIdentifier": "a"}], "Marker": "m"}, {"MaxRecords": 100}
    )
    answers.add_response(
        "describe_db_clusters", {"DBClusters": [{"DBClusterIdentifier": "b"}]}, {"MaxRecords": 100, "Marker": "m"}
    )
    assert [c["DBClusterIdentifier"] for c in rds.clusters()] == ["a", "b"]


@pytest.mark.parametrize(
    ("method", "operation", "code"),
    [
        ("cluster", "describe_db_clusters", "DBClusterNotFoundFault"),
        ("instance", "describe_db_instances", "DBInstanceNotFound"),
        ("snapshot", "describe_db_cluster_snapshots", "DBClusterSnapshotNotFoundFault"),
        ("automated_backup", "describe_db_cluster_automated_backups", "DBClusterAutomatedBackupNotFoundFault"),
        ("subnet_group", "describe_db_subnet_groups", "DBSubnetGroupNotFoundFault"),
    ],
)
def test_what_does_not_exist_is_none(stub, method, operation, code):
    rds, answers = stub
    answers.add_client_error(operation, code)
    assert getattr(rds, method)("x") is None


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("AccessDenied", 403, RdsError),
        ("Throttling", 400, RdsUnavailable),
        ("InternalFailure", 500, RdsUnavailable),
        ("Whatever", 503, RdsUnavailable),
        ("InvalidDBClusterStateFault", 400, RdsBusy),
    ],
)
def test_errors_are_told_apart_by_what_can_be_done_about_them(stub, code, status, kind):
    rds, answers = stub
    answers.add_client_error("modify_db_cluster", code, http_status_code=status)
    with pytest.raises(RdsError) as caught:
        rds.modify_cluster("x", {})
    assert type(caught.value) is kind
    assert caught.value.code == code


def test_creating_what_is_there_already_is_left_to_the_caller_to_look_at(stub):
    rds, answers = stub
    answers.add_client_error("create_db_instance", "DBInstanceAlreadyExists")
    rds.create_instance({"DBInstanceIdentifier": "x", "DBInstanceClass": "c", "Engine": "e"})
    answers.add_client_error("create_db_cluster_snapshot", "SnapshotQuotaExceeded")
    with pytest.raises(RdsError, match="SnapshotQuotaExceeded"):
        rds.create_snapshot("s", "c", {})


def test_a_test_copy_is_deleted_with_its_automated_backups_and_without_a_final_snapshot(stub):
    rds, answers = stub
    expected = {"DBClusterIdentifier": "x", "SkipFinalSnapshot": True, "DeleteAutomatedBackups": True}
    answers.add_response("delete_db_cluster", {}, expected)
    rds.delete_cluster("x")


def test_quotas_are_what_is_left(stub):
    rds, answers = stub
    quotas = [{"AccountQuotaName": "DBClusters", "Used": 38, "Max": 40}]
    answers.add_response("describe_account_attributes", {"AccountQuotas": quotas}, {})
    assert rds.quota_left() == {"DBClusters": 2}
