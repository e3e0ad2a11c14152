from __future__ import annotations

from aurora_backup.cluster_settings import (
    by_hand,
    changes,
    desired,
    differences,
    instance_parameters,
    restore_parameters,
)

SOURCE = {
    "DBSubnetGroup": "data",
    "DBClusterParameterGroup": "tuned",
    "VpcSecurityGroups": [{"VpcSecurityGroupId": "sg-b"}, {"VpcSecurityGroupId": "sg-a"}],
    "IAMDatabaseAuthenticationEnabled": True,
    "EnabledCloudwatchLogsExports": ["postgresql"],
    "DeletionProtection": True,
    "BackupRetentionPeriod": 35,
    "ServerlessV2ScalingConfiguration": {"MinCapacity": 0.5, "MaxCapacity": 8.0, "Unknown": 1},
    "MasterUserSecret": {"SecretArn": "arn", "KmsKeyId": "key"},
    "TagList": [{"Key": "team", "Value": "clinic"}, {"Key": "aurora-backup:owner", "Value": "x"}],
}
BARE = {
    "DBSubnetGroup": "data",
    "DBClusterParameterGroup": "default.aurora-postgresql17",
    "VpcSecurityGroups": [{"VpcSecurityGroupId": "sg-default"}],
    "IAMDatabaseAuthenticationEnabled": False,
    "DeletionProtection": False,
    "BackupRetentionPeriod": 1,
    "EnabledCloudwatchLogsExports": ["instance"],
}


def test_what_a_restore_does_not_carry_is_found_and_each_change_is_modifys_own_parameter():
    assert changes(desired(SOURCE), BARE, on_instance=False) == {
        "DBClusterParameterGroupName": "tuned",
        "VpcSecurityGroupIds": ["sg-a", "sg-b"],
        "EnableIAMDatabaseAuthentication": True,
        "CloudwatchLogsExportConfiguration": {"EnableLogTypes": ["postgresql"], "DisableLogTypes": ["instance"]},
        "DeletionProtection": True,
        "ServerlessV2ScalingConfiguration": {"MinCapacity": 0.5, "MaxCapacity": 8.0},
        "BackupRetentionPeriod": 35,
    }
    assert changes(desired(SOURCE), BARE, on_instance=True) == {
        "ManageMasterUserPassword": True,
        "MasterUserSecretKmsKeyId": "key",
    }


def test_a_cluster_like_the_source_needs_no_change_and_shows_no_difference():
    assert changes(desired(SOURCE), SOURCE, on_instance=False) == {}
    assert changes(desired(SOURCE), SOURCE, on_instance=True) == {}
    assert differences(SOURCE, SOURCE) == {}


def test_what_is_pending_is_not_asked_for_again():
    pending = {**SOURCE, "BackupRetentionPeriod": 1, "PendingModifiedValues": {"BackupRetentionPeriod": 35}}
    assert changes(desired(SOURCE), pending, on_instance=False) == {}


def test_the_restore_call_gets_only_what_it_takes():
    taken = restore_parameters(desired(SOURCE))
    assert "BackupRetentionPeriod" not in taken
    assert "ManageMasterUserPassword" not in taken
    assert taken["DBSubnetGroupName"] == "data"


def test_differences_name_both_values_and_leave_our_own_tags_out():
    found = differences(SOURCE, {**SOURCE, "Port": 5433, "TagList": [{"Key": "aurora-backup:owner", "Value": "y"}]})
    assert found == {
        "Port": {"source": None, "restored": 5433},
        "Tags": {"source": {"team": "clinic"}, "restored": {}},
    }


def test_the_operator_is_told_what_no_call_sets_again():
    assert by_hand({}) == ["point applications to the new endpoint (DNS record, parameter, or rename the clusters)"]
    told = " ".join(by_hand({**SOURCE, "AssociatedRoles": [1], "ActivityStreamStatus": "started"}))
    assert "IAM roles" in told
    assert "activity stream" in told


def test_an_instance_takes_over_monitoring_and_insights_but_never_public_access():
    made = instance_parameters(
        {
            "DBInstanceClass": "db.r8g.large",
            "PubliclyAccessible": True,
            "MonitoringInterval": 60,
            "MonitoringRoleArn": "role",
            "PerformanceInsightsEnabled": True,
            "PerformanceInsightsRetentionPeriod": 465,
            "DBParameterGroups": [{"DBParameterGroupName": "pg"}],
        }
    )
    assert made == {
        "DBInstanceClass": "db.r8g.large",
        "PubliclyAccessible": False,
        "MonitoringInterval": 60,
        "MonitoringRoleArn": "role",
        "EnablePerformanceInsights": True,
        "PerformanceInsightsRetentionPeriod": 465,
        "DBParameterGroupName": "pg",
    }
