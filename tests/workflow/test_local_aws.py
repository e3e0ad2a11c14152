"""What we rely on the local AWS for. When MiniStack's pin changes, this file says what broke."""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.metadata
import io
import json
import os
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pg8000.native
import pytest
from botocore.exceptions import ClientError

from local import seams
from local.processes import ProcessDiedError
from local.protocol import AwsError
from local.rds.rules import page
from local.rds.snapshots import check_quota
from local.rds.state import MANUAL_SNAPSHOT_QUOTA, Region, Snapshot
from local.server import REPOSITORY, LocalAws

ROLE = "arn:aws:iam::000000000000:role/anything"
ENGINE = "aurora-postgresql"


# --- helpers
def eventually(check, seconds: float = 30, every: float = 0.05):
    """Poll `check` until it returns something true; return that."""
    deadline = time.monotonic() + seconds
    while not (result := check()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(every)
    return result


def refusal(call, *arguments, **parameters) -> tuple[str, str]:
    """The code and message that the call is refused with."""
    with pytest.raises(ClientError) as caught:
        call(*arguments, **parameters)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


@dataclass
class Database:
    """An Aurora cluster with one instance, and what it takes to talk to it."""

    aws: LocalAws
    name: str

    @property
    def rds(self) -> Any:
        return self.aws.client("rds")

    def describe(self) -> dict[str, Any]:
        return self.rds.describe_db_clusters(DBClusterIdentifier=self.name)["DBClusters"][0]

    def secret(self) -> dict[str, str]:
        arn = self.describe()["MasterUserSecret"]["SecretArn"]
        return json.loads(self.aws.client("secretsmanager").get_secret_value(SecretId=arn)["SecretString"])

    def run(self, sql: str, password: str | None = None, user: str | None = None, database: str = "app"):
        at = self.describe()
        secret = self.secret() if password is None else {"username": "master", "password": password}
        with contextlib.closing(
            pg8000.native.Connection(
                user or secret["username"],
                host=at["Endpoint"],
                port=at["Port"],
                database=database,
                password=secret["password"],
                ssl_context=ssl.create_default_context(cafile=str(self.aws.ca)),
            ),
        ) as connection:
            return connection.run(sql)

    def live_data(self) -> Path:
        return self.aws.live_directory(self.describe()["DbClusterResourceId"])


def available(aws: LocalAws, cluster: str) -> dict[str, Any]:
    def done():
        found = aws.client("rds").describe_db_clusters(DBClusterIdentifier=cluster)["DBClusters"][0]
        assert found["Status"] != "failed"
        return found if found["Status"] == "available" else None

    return eventually(done)


def add_instance(aws: LocalAws, cluster: str, name: str | None = None) -> str:
    rds, name = aws.client("rds"), name or f"{cluster}-1"
    rds.create_db_instance(
        DBInstanceIdentifier=name,
        DBClusterIdentifier=cluster,
        Engine=ENGINE,
        DBInstanceClass="db.r6g.large",
    )
    eventually(
        lambda: (
            rds.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"][0]["DBInstanceStatus"] == "available"
        ),
    )
    return name


def new_cluster(aws: LocalAws, **settings: Any) -> Database:
    name = f"c{secrets.token_hex(4)}"
    aws.client("rds").create_db_cluster(
        **{
            "DBClusterIdentifier": name,
            "Engine": ENGINE,
            "MasterUsername": "master",
            "ManageMasterUserPassword": True,
            "DatabaseName": "app",
            "BackupRetentionPeriod": 35,
            **settings,
        },
    )
    available(aws, name)
    return Database(aws, name)


def snapshot_done(aws: LocalAws, name: str) -> dict[str, Any]:
    def done():
        found = aws.client("rds").describe_db_cluster_snapshots(DBClusterSnapshotIdentifier=name)["DBClusterSnapshots"][
            0
        ]
        assert found["Status"] != "failed"
        return found if found["Status"] == "available" else None

    return eventually(done)


@pytest.fixture(scope="module")
def source(local_aws):
    """A cluster with 1000 rows in `orders` and tags that snapshots take over. Tests leave it as they found it."""
    database = new_cluster(local_aws, CopyTagsToSnapshot=True, Tags=[{"Key": "owner", "Value": "clinic"}])
    add_instance(local_aws, database.name)
    database.run("create table orders (id int primary key); insert into orders select generate_series(1, 1000)")
    return database


@pytest.fixture(scope="module")
def queue(local_aws):
    """An SQS queue that gets every event of aws.rds, aws.backup; `events()` returns what came since."""
    sqs, events = local_aws.client("sqs"), local_aws.client("events")
    url = sqs.create_queue(QueueName="watched")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.put_rule(Name="watched", EventPattern=json.dumps({"source": ["aws.rds", "aws.backup"]}))
    events.put_targets(Rule="watched", Targets=[{"Id": "queue", "Arn": arn}])
    seen: list[dict[str, Any]] = []

    def read() -> list[dict[str, Any]]:
        while got := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            for message in got:
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
                seen.append(json.loads(message["Body"]))
        return seen

    return read


# --- the seams
def test_ministack_is_the_version_and_has_the_names_that_we_were_written_against():
    seams.check()
    assert importlib.metadata.version("ministack") == seams.VERSION


def test_another_ministack_fails_with_one_message(monkeypatch):
    monkeypatch.setattr(seams, "VERSION", "0.0.1")
    monkeypatch.setitem(seams.READ, "ministack.services.rds", ("_no_such_name",))
    with pytest.raises(seams.SeamError, match=r"0\.0\.1.*lacks ministack\.services\.rds\._no_such_name"):
        seams.check()


# --- clusters
def test_a_managed_secret_opens_the_database_over_verified_tls_and_the_master_is_no_superuser(source):
    assert source.secret()["username"] == "master"
    assert source.run("select ssl from pg_stat_ssl where pid = pg_backend_pid()") == [[True]]
    assert source.run("select rolsuper from pg_roles where rolname = current_user") == [[False]]


def test_rdsadmin_is_listed_and_refuses_the_master_user(source):
    assert ["rdsadmin"] in source.run("select datname::text from pg_database")
    with pytest.raises(pg8000.exceptions.DatabaseError, match="permission denied"):
        source.run("select 1", database="rdsadmin")


def test_extensions_of_aurora_can_be_created_by_the_master_user(source):
    source.run("create extension amcheck; create extension pgcrypto")


def test_members_of_rds_iam_come_in_with_a_token_only_when_iam_authentication_is_on(local_aws, source):
    source.run("create role app_iam login; grant rds_iam to app_iam")
    with pytest.raises(pg8000.exceptions.DatabaseError, match="rejects connection"):
        source.run("select 1", user="app_iam")
    source.rds.modify_db_cluster(DBClusterIdentifier=source.name, EnableIAMDatabaseAuthentication=True)
    assert eventually(lambda: source.run("select current_user::text", user="app_iam")) == [["app_iam"]]
    source.rds.modify_db_cluster(DBClusterIdentifier=source.name, EnableIAMDatabaseAuthentication=False)


@pytest.mark.parametrize("days", [0, 36, -1])
def test_a_retention_outside_1_to_35_days_is_refused(local_aws, days):
    code, message = refusal(new_cluster, local_aws, BackupRetentionPeriod=days)
    assert code == "InvalidParameterValue"
    assert str(days) in message


@pytest.mark.parametrize("name", ["1st", "two--hyphens", "ends-", "under_score", "a" * 64, ""])
def test_a_bad_identifier_is_refused(local_aws, name):
    rds = local_aws.client("rds")
    code, _ = refusal(
        rds.create_db_cluster,
        DBClusterIdentifier=name,
        Engine=ENGINE,
        MasterUsername="master",
        ManageMasterUserPassword=True,
    )
    assert code == "InvalidParameterValue"


def test_identifiers_are_kept_in_lower_case_and_found_in_any(source):
    assert source.rds.describe_db_clusters(DBClusterIdentifier=source.name.upper())["DBClusters"]


@pytest.mark.parametrize(
    ("backup", "maintenance", "reason"),
    [
        ("03:00-03:20", "sun:05:00-sun:06:00", "at least 30 minutes"),
        ("03:00-04:00", "mon:03:30-mon:04:30", "must not overlap"),
        ("23:30-00:30", "mon:00:00-mon:01:00", "must not overlap"),
        ("3am-4am", "sun:05:00-sun:06:00", "Invalid backup window"),
        ("03:00-04:00", "sunday:05:00-06:00", "Invalid maintenance window"),
    ],
)
def test_bad_windows_are_refused(local_aws, backup, maintenance, reason):
    code, message = refusal(
        new_cluster,
        local_aws,
        PreferredBackupWindow=backup,
        PreferredMaintenanceWindow=maintenance,
    )
    assert code == "InvalidParameterValue"
    assert reason in message


def test_a_managed_password_given_to_a_cluster_without_an_instance_holds_from_its_first_start(local_aws):
    database = new_cluster(local_aws, ManageMasterUserPassword=False, MasterUserPassword="first-password")
    add_instance(local_aws, database.name)
    database.rds.delete_db_instance(DBInstanceIdentifier=f"{database.name}-1")
    eventually(lambda: not database.describe()["DBClusterMembers"])
    database.rds.modify_db_cluster(DBClusterIdentifier=database.name, ManageMasterUserPassword=True)
    add_instance(local_aws, database.name)
    assert database.run("select 1") == [[1]]
    with pytest.raises(pg8000.exceptions.DatabaseError, match="password authentication failed"):
        database.run("select 1", password="first-password")


def test_a_log_export_that_aurora_does_not_have_is_refused(local_aws):
    code, message = refusal(new_cluster, local_aws, EnableCloudwatchLogsExports=["upgrade"])
    assert code == "InvalidParameterCombination"
    assert "upgrade" in message


def test_deleting_a_cluster_needs_no_instance_no_protection_and_a_word_about_the_final_snapshot(local_aws, queue):
    database = new_cluster(local_aws, DeletionProtection=True)
    rds, name = database.rds, database.name
    instance = add_instance(local_aws, name)
    code, message = refusal(rds.delete_db_cluster, DBClusterIdentifier=name, SkipFinalSnapshot=True)
    assert (code, "deletion protection" in message) == ("InvalidParameterCombination", True)
    rds.modify_db_cluster(DBClusterIdentifier=name, DeletionProtection=False)
    code, message = refusal(rds.delete_db_cluster, DBClusterIdentifier=name, SkipFinalSnapshot=True)
    assert (code, "DB instances" in message) == ("InvalidDBClusterStateFault", True)
    rds.delete_db_instance(DBInstanceIdentifier=instance)
    eventually(lambda: not rds.describe_db_clusters(DBClusterIdentifier=name)["DBClusters"][0]["DBClusterMembers"])
    code, _ = refusal(rds.delete_db_cluster, DBClusterIdentifier=name)
    assert code == "InvalidParameterCombination"
    secret = database.describe()["MasterUserSecret"]["SecretArn"]
    rds.delete_db_cluster(DBClusterIdentifier=name, SkipFinalSnapshot=True)
    eventually(lambda: name not in {c["DBClusterIdentifier"] for c in rds.describe_db_clusters()["DBClusters"]})
    assert refusal(rds.describe_db_clusters, DBClusterIdentifier=name)[0] == "DBClusterNotFoundFault"
    assert (
        refusal(local_aws.client("secretsmanager").get_secret_value, SecretId=secret)[0] == "ResourceNotFoundException"
    )
    eventually(lambda: [e for e in queue() if e["detail"].get("EventID") == "RDS-EVENT-0171"])


def test_describe_calls_filter_page_and_refuse_page_sizes_outside_20_to_100(local_aws, source):
    rds = source.rds
    found = rds.describe_db_clusters(Filters=[{"Name": "db-cluster-id", "Values": [source.name]}])["DBClusters"]
    assert [cluster["DBClusterIdentifier"] for cluster in found] == [source.name]
    found = rds.describe_db_instances(Filters=[{"Name": "db-cluster-id", "Values": [source.name]}])["DBInstances"]
    assert len(found) == 1
    assert refusal(rds.describe_db_clusters, MaxRecords=19)[0] == "InvalidParameterValue"
    assert refusal(rds.describe_db_clusters, MaxRecords=101)[0] == "InvalidParameterValue"


def test_tags_can_be_added_listed_and_removed_and_are_in_describe(source):
    arn = source.describe()["DBClusterArn"]
    source.rds.add_tags_to_resource(ResourceName=arn, Tags=[{"Key": "tier", "Value": "gold"}])
    assert {"Key": "tier", "Value": "gold"} in source.describe()["TagList"]
    source.rds.remove_tags_from_resource(ResourceName=arn, TagKeys=["tier"])
    assert source.rds.list_tags_for_resource(ResourceName=arn)["TagList"] == [{"Key": "owner", "Value": "clinic"}]


# --- snapshots and restores
def test_a_snapshot_is_creating_first_and_restores_from_its_own_bytes(local_aws, queue):
    database = new_cluster(local_aws, CopyTagsToSnapshot=True, Tags=[{"Key": "owner", "Value": "clinic"}])
    rds, name, password = database.rds, database.name, None
    add_instance(local_aws, name)
    database.run("create table orders (id int); insert into orders select generate_series(1, 1000)")
    password = database.secret()["password"]
    snapshot = f"{name}-snap"
    first = rds.create_db_cluster_snapshot(DBClusterIdentifier=name, DBClusterSnapshotIdentifier=snapshot)
    assert first["DBClusterSnapshot"]["Status"] == "creating"
    assert first["DBClusterSnapshot"]["PercentProgress"] < 100
    assert "SnapshotCreateTime" not in first["DBClusterSnapshot"]
    done = snapshot_done(local_aws, snapshot)
    assert (done["PercentProgress"], done["SnapshotType"]) == (100, "manual")
    assert {"Key": "owner", "Value": "clinic"} in done["TagList"]
    eventually(lambda: [e for e in queue() if e["detail"].get("EventID") == "RDS-EVENT-0075" and snapshot in str(e)])

    database.run("delete from orders")
    shutil.rmtree(database.live_data())  # a restore that looked at the source would now fail

    rds.restore_db_cluster_from_snapshot(DBClusterIdentifier=f"{name}-r", SnapshotIdentifier=snapshot, Engine=ENGINE)
    restored = Database(local_aws, f"{name}-r")
    assert restored.describe()["Status"] == "creating"
    described = available(local_aws, restored.name)
    assert described["DBClusterMembers"] == []
    assert described["BackupRetentionPeriod"] == 1, "a restore does not carry the settings of the source"
    with pytest.raises(pg8000.exceptions.InterfaceError):
        restored.run("select 1", password=password)
    add_instance(local_aws, restored.name)
    assert restored.run("select count(*) from orders", password=password) == [[1000]]


def test_point_in_time_recovery_stops_at_the_moment_asked_for_even_when_the_source_is_gone(local_aws):
    database = new_cluster(local_aws)
    rds, name = database.rds, database.name
    add_instance(local_aws, name)
    database.run("create table orders (id int); insert into orders select generate_series(1, 1000)")
    password, resource = database.secret()["password"], database.describe()["DbClusterResourceId"]
    moment = database.run("select clock_timestamp()")[0][0].astimezone(dt.UTC)
    time.sleep(0.05)
    database.run("delete from orders where id > 10")
    described = eventually(lambda: d if (d := database.describe())["LatestRestorableTime"] >= moment else None)
    assert described["EarliestRestorableTime"] <= moment

    restore = rds.restore_db_cluster_to_point_in_time
    target = {"DBClusterIdentifier": f"{name}-p"}
    too_early = described["EarliestRestorableTime"] - dt.timedelta(minutes=1)
    too_late = described["LatestRestorableTime"] + dt.timedelta(minutes=1)
    for bad in (too_early, too_late):
        code, message = refusal(restore, **target, SourceDBClusterIdentifier=name, RestoreToTime=bad)
        assert (code, "restorable window" in message) == ("InvalidParameterValue", True)
    for both in ({}, {"RestoreToTime": moment, "UseLatestRestorableTime": True}):
        code, _ = refusal(restore, **target, SourceDBClusterIdentifier=name, **both)
        assert code == "InvalidParameterCombination"

    # The cluster goes; its automated backups were asked to stay.
    rds.delete_db_instance(DBInstanceIdentifier=f"{name}-1")
    rds.delete_db_cluster(DBClusterIdentifier=name, SkipFinalSnapshot=True, DeleteAutomatedBackups=False)
    eventually(lambda: name not in {c["DBClusterIdentifier"] for c in rds.describe_db_clusters()["DBClusters"]})
    assert not local_aws.live_directory(resource).exists()
    kept = rds.describe_db_cluster_automated_backups(DbClusterResourceId=resource)["DBClusterAutomatedBackups"]
    assert [backup["Status"] for backup in kept] == ["retained"]

    restore(**target, SourceDbClusterResourceId=resource, RestoreToTime=moment)
    restore(DBClusterIdentifier=f"{name}-l", SourceDbClusterResourceId=resource, UseLatestRestorableTime=True)
    for restored, rows in ((f"{name}-p", 1000), (f"{name}-l", 10)):
        available(local_aws, restored)
        add_instance(local_aws, restored)
        assert Database(local_aws, restored).run("select count(*) from orders", password=password) == [[rows]]
    rds.delete_db_cluster_automated_backup(DbClusterResourceId=resource)
    code, _ = refusal(rds.describe_db_cluster_automated_backups, DbClusterResourceId=resource)
    assert code == "DBClusterAutomatedBackupNotFoundFault"


def test_automated_snapshots_are_listed_need_their_type_to_be_found_and_cannot_be_deleted(source):
    rds = source.rds
    found = rds.describe_db_cluster_snapshots(DBClusterIdentifier=source.name, SnapshotType="automated")
    name = found["DBClusterSnapshots"][0]["DBClusterSnapshotIdentifier"]
    assert name.startswith(f"rds:{source.name}-")
    by_name = {"DBClusterSnapshotIdentifier": name}
    assert refusal(rds.describe_db_cluster_snapshots, **by_name)[0] == "DBClusterSnapshotNotFoundFault"
    assert rds.describe_db_cluster_snapshots(**by_name, SnapshotType="automated")["DBClusterSnapshots"]
    code, message = refusal(rds.delete_db_cluster_snapshot, **by_name)
    assert code == "InvalidDBClusterSnapshotStateFault"
    assert "Only manual snapshots may be deleted" in message


def test_a_snapshot_can_be_copied_shared_and_deleted(local_aws, source):
    rds, one, two = source.rds, f"{source.name}-one", f"{source.name}-two"
    rds.create_db_cluster_snapshot(DBClusterIdentifier=source.name, DBClusterSnapshotIdentifier=one)
    assert refusal(rds.delete_db_cluster_snapshot, DBClusterSnapshotIdentifier=one)[0].startswith("InvalidDBCluster")
    arn = snapshot_done(local_aws, one)["DBClusterSnapshotArn"]
    copy = {"SourceDBClusterSnapshotIdentifier": arn, "TargetDBClusterSnapshotIdentifier": two, "CopyTags": True}
    rds.copy_db_cluster_snapshot(**copy)
    assert refusal(rds.copy_db_cluster_snapshot, **copy)[0] == "DBClusterSnapshotAlreadyExistsFault"
    copied = snapshot_done(local_aws, two)
    assert copied["SourceDBClusterSnapshotArn"] == arn
    assert copied["TagList"] == [{"Key": "owner", "Value": "clinic"}]
    by_name = {"DBClusterSnapshotIdentifier": one}
    rds.modify_db_cluster_snapshot_attribute(**by_name, AttributeName="restore", ValuesToAdd=["all"])
    attributes = rds.describe_db_cluster_snapshot_attributes(**by_name)["DBClusterSnapshotAttributesResult"]
    assert attributes["DBClusterSnapshotAttributes"] == [{"AttributeName": "restore", "AttributeValues": ["all"]}]
    for name in (one, two):
        rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier=name)
    assert refusal(rds.describe_db_cluster_snapshots, **by_name)[0] == "DBClusterSnapshotNotFoundFault"


def test_pages_hold_what_was_asked_for_and_lead_to_the_next():
    items = [{"Id": f"s{number:02}"} for number in range(41)]
    marker, sizes, seen = None, [], []
    while True:
        found, marker = page({"MaxRecords": 20, "Marker": marker}, items, "Id")
        sizes.append(len(found))
        seen += found
        if marker is None:
            break
    assert (sizes, seen) == ([20, 20, 1], items)


def test_a_disabled_key_makes_the_snapshots_under_it_unreadable(local_aws):
    kms = local_aws.client("kms")
    key = kms.create_key()["KeyMetadata"]
    database = new_cluster(local_aws, StorageEncrypted=True, KmsKeyId=key["KeyId"])
    assert database.describe()["KmsKeyId"] == key["Arn"]
    snapshot = f"{database.name}-snap"
    by_name = {"DBClusterSnapshotIdentifier": snapshot}
    database.rds.create_db_cluster_snapshot(DBClusterIdentifier=database.name, **by_name)
    snapshot_done(local_aws, snapshot)
    share = {"AttributeName": "restore", "ValuesToAdd": ["all"], **by_name}
    code, _ = refusal(database.rds.modify_db_cluster_snapshot_attribute, **share)
    assert code == "InvalidDBClusterSnapshotStateFault"
    kms.disable_key(KeyId=key["KeyId"])
    code, _ = refusal(
        database.rds.restore_db_cluster_from_snapshot,
        DBClusterIdentifier=f"{database.name}-r",
        SnapshotIdentifier=snapshot,
        Engine=ENGINE,
    )
    assert code == "KMSKeyNotAccessibleFault"


def test_the_101st_manual_snapshot_is_refused():
    region = Region()
    for number in range(MANUAL_SNAPSHOT_QUOTA):
        record = {"DBClusterSnapshotIdentifier": f"s{number}", "SnapshotType": "manual"}
        region.snapshots[f"s{number}"] = Snapshot(record, Path(), "master", "password", None)
    check_quota(region, "awsbackup")
    with pytest.raises(AwsError, match="more than 100 manual snapshots"):
        check_quota(region, "manual")


# --- CloudFormation
def deploy(aws: LocalAws, resources: dict[str, Any], **options: Any) -> dict[str, str]:
    """Create a stack and return the physical id of each resource; fail with the stack's own reasons."""
    cloudformation, name = aws.client("cloudformation"), f"stack-{secrets.token_hex(4)}"
    cloudformation.create_stack(StackName=name, TemplateBody=json.dumps({"Resources": resources}), **options)

    def ended():
        status = cloudformation.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"]
        return status if not status.endswith("IN_PROGRESS") else None

    status = eventually(ended, 60)
    events = cloudformation.describe_stack_events(StackName=name)["StackEvents"]
    reasons = [event.get("ResourceStatusReason", "") for event in events if event["ResourceStatus"] == "CREATE_FAILED"]
    if status != "CREATE_COMPLETE":
        raise StackError("; ".join(reasons))
    described = cloudformation.describe_stack_resources(StackName=name)["StackResources"]
    return {"": name, **{found["LogicalResourceId"]: found["PhysicalResourceId"] for found in described}}


class StackError(Exception):
    """The stack failed, for these reasons."""


def test_a_stack_makes_a_cluster_that_keeps_its_properties_and_runs(local_aws):
    key = local_aws.client("kms").create_key()["KeyMetadata"]["Arn"]
    made = deploy(
        local_aws,
        {
            "Cluster": {
                "Type": "AWS::RDS::DBCluster",
                "DeletionPolicy": "Delete",
                "Properties": {
                    "Engine": ENGINE,
                    "EngineVersion": "17.4",
                    "MasterUsername": "master",
                    "ManageMasterUserPassword": True,
                    "MasterUserSecret": {"KmsKeyId": key},
                    "DatabaseName": "app",
                    "BackupRetentionPeriod": 35,
                    "PreferredBackupWindow": "03:00-04:00",
                    "PreferredMaintenanceWindow": "mon:04:00-mon:05:00",
                    "StorageEncrypted": "true",
                    "KmsKeyId": key,
                    "EnableIAMDatabaseAuthentication": True,
                    "EnableCloudwatchLogsExports": ["postgresql"],
                    "ServerlessV2ScalingConfiguration": {"MinCapacity": 0.5, "MaxCapacity": "4"},
                    "CopyTagsToSnapshot": True,
                    "Tags": [{"Key": "tier", "Value": "gold"}],
                },
            },
            "Writer": {
                "Type": "AWS::RDS::DBInstance",
                "Properties": {
                    "Engine": ENGINE,
                    "DBClusterIdentifier": {"Ref": "Cluster"},
                    "DBInstanceClass": "db.serverless",
                },
            },
        },
    )
    database = Database(local_aws, made["Cluster"])
    kept = database.describe()
    assert kept["KmsKeyId"] == key
    assert kept["BackupRetentionPeriod"] == 35
    assert kept["EnabledCloudwatchLogsExports"] == ["postgresql"]
    assert kept["ServerlessV2ScalingConfiguration"] == {"MinCapacity": 0.5, "MaxCapacity": 4.0}
    assert kept["IAMDatabaseAuthenticationEnabled"]
    assert {"Key": "tier", "Value": "gold"} in kept["TagList"]
    assert database.run("select 1") == [[1]]
    local_aws.client("cloudformation").delete_stack(StackName=made[""])
    eventually(lambda: not any(c["DBClusterIdentifier"] == made["Cluster"] for c in all_clusters(local_aws)), 60)


def all_clusters(aws: LocalAws) -> list[dict[str, Any]]:
    return aws.client("rds").describe_db_clusters()["DBClusters"]


def bucket(**properties: Any) -> dict[str, Any]:
    return {"Bucket": {"Type": "AWS::S3::Bucket", "Properties": properties}}


def test_a_stack_keeps_a_buckets_lifecycle_encryption_and_lock(local_aws):
    rules = [
        {
            "Id": "sets",
            "Status": "Enabled",
            "Prefix": "compliance-backups/",
            "ObjectSizeGreaterThan": "131072",
            "ExpirationInDays": 2192,
            "Transitions": [{"StorageClass": "GLACIER", "TransitionInDays": 90}],
            "NoncurrentVersionExpiration": {"NoncurrentDays": 30},
        },
        {
            "Id": "uploads",
            "Status": "Enabled",
            "ExpiredObjectDeleteMarker": True,
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
        },
    ]
    encryption = {
        "ServerSideEncryptionConfiguration": [
            {
                "BucketKeyEnabled": True,
                "ServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "alias/backup"},
            },
        ],
    }
    name = deploy(
        local_aws,
        bucket(
            LifecycleConfiguration={"Rules": rules},
            BucketEncryption=encryption,
            VersioningConfiguration={"Status": "Enabled"},
            ObjectLockEnabled=True,
            Tags=[{"Key": "holds", "Value": "phi"}],
        ),
    )["Bucket"]
    s3 = local_aws.client("s3")
    sets, uploads = s3.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
    assert sets["Expiration"] == {"Days": 2192}
    assert sets["Transitions"] == [{"Days": 90, "StorageClass": "GLACIER"}]
    assert sets["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    assert sets["Filter"]["And"] == {"Prefix": "compliance-backups/", "ObjectSizeGreaterThan": 131072}
    assert uploads["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert uploads["Expiration"] == {"ExpiredObjectDeleteMarker": True}
    default = s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert default["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"] == "alias/backup"
    assert s3.get_object_lock_configuration(Bucket=name)["ObjectLockConfiguration"] == {"ObjectLockEnabled": "Enabled"}
    assert s3.get_bucket_versioning(Bucket=name)["Status"] == "Enabled"
    assert s3.get_bucket_tagging(Bucket=name)["TagSet"] == [{"Key": "holds", "Value": "phi"}]


GLACIER = [{"StorageClass": "GLACIER", "TransitionInDays": 90}]
WARM_AND_COLD = [
    {"StorageClass": "STANDARD_IA", "TransitionInDays": 30},
    {"StorageClass": "GLACIER", "TransitionInDays": 40},
]
REFUSED_RULES = [
    ({"ExpirationInDays": 90, "Transitions": GLACIER}, "must be greater than 'Days' in the Transition action"),
    ({"Transitions": [{"StorageClass": "STANDARD_IA", "TransitionInDays": 29}]}, "greater than or equal to 30"),
    ({"Transitions": WARM_AND_COLD}, "must be 30 days more"),
    ({}, "At least one action"),
]


@pytest.mark.parametrize(("rule", "reason"), REFUSED_RULES)
def test_a_lifecycle_that_s3_refuses_fails_the_stack_and_the_call(local_aws, rule, reason):
    configuration = {"Rules": [{"Status": "Enabled", "Prefix": "logical-backups/", **rule}]}
    with pytest.raises(StackError, match=reason):
        deploy(local_aws, bucket(LifecycleConfiguration=configuration))


def test_a_refused_lifecycle_leaves_the_one_that_was_there(local_aws):
    name, s3 = deploy(local_aws, bucket())["Bucket"], local_aws.client("s3")
    good = {"ID": "a", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 35}}
    s3.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": [good]})
    bad = {**good, "Transitions": [{"Days": 35, "StorageClass": "GLACIER"}]}
    code, _ = refusal(s3.put_bucket_lifecycle_configuration, Bucket=name, LifecycleConfiguration={"Rules": [bad]})
    assert code == "InvalidRequest"
    assert s3.get_bucket_lifecycle_configuration(Bucket=name)["Rules"] == [good]


# --- AWS Backup
def backup_stack(aws: LocalAws, **lock: Any) -> dict[str, str]:
    name = f"vault{secrets.token_hex(4)}"
    vault = {"BackupVaultName": name, **({"LockConfiguration": lock} if lock else {})}
    rule = {
        "RuleName": "weekly",
        "TargetBackupVault": {"Ref": "Vault"},
        "ScheduleExpression": "cron(0 2 ? * SUN *)",
        "Lifecycle": {"DeleteAfterDays": 180},
    }
    selection = {"SelectionName": "cluster", "IamRoleArn": ROLE, "Resources": ["arn:aws:rds:*:*:cluster:*"]}
    unique = secrets.token_hex(4)
    return deploy(
        aws,
        {
            "Vault": {"Type": "AWS::Backup::BackupVault", "Properties": vault},
            "Plan": {
                "Type": "AWS::Backup::BackupPlan",
                "Properties": {"BackupPlan": {"BackupPlanName": "plan", "BackupPlanRule": [rule]}},
            },
            "Selection": {
                "Type": "AWS::Backup::BackupSelection",
                "Properties": {"BackupPlanId": {"Ref": "Plan"}, "BackupSelection": selection},
            },
            "Framework": {
                "Type": "AWS::Backup::Framework",
                "Properties": {
                    "FrameworkName": f"f_{unique}",
                    "FrameworkControls": [{"ControlName": "BACKUP_RECOVERY_POINT_ENCRYPTED"}],
                },
            },
            "Testing": {
                "Type": "AWS::Backup::RestoreTestingPlan",
                "Properties": {
                    "RestoreTestingPlanName": f"t_{unique}",
                    "ScheduleExpression": "cron(0 5 ? * SUN *)",
                    "RecoveryPointSelection": {
                        "Algorithm": "LATEST_WITHIN_WINDOW",
                        "RecoveryPointTypes": ["SNAPSHOT"],
                        "IncludeVaults": ["*"],
                    },
                },
            },
            "Tested": {
                "Type": "AWS::Backup::RestoreTestingSelection",
                "Properties": {
                    "RestoreTestingPlanName": {"Ref": "Testing"},
                    "RestoreTestingSelectionName": "aurora",
                    "ProtectedResourceType": "Aurora",
                    "IamRoleArn": ROLE,
                },
            },
            "Missing": {
                "Type": "AWS::CloudWatch::Alarm",
                "Properties": {
                    "Metrics": [{"Id": "e", "Expression": "FILL(m, 0)"}],
                    "Threshold": 1,
                    "ComparisonOperator": "LessThanThreshold",
                    "EvaluationPeriods": 1,
                },
            },
            "Both": {
                "Type": "AWS::CloudWatch::CompositeAlarm",
                "Properties": {"AlarmName": f"both-{unique}", "AlarmRule": "FALSE"},
            },
        },
    )


def run_backup(aws: LocalAws, vault: str, resource: str, days: int) -> dict[str, Any]:
    backup = aws.client("backup")
    job = backup.start_backup_job(
        BackupVaultName=vault,
        ResourceArn=resource,
        IamRoleArn=ROLE,
        Lifecycle={"DeleteAfterDays": days},
        RecoveryPointTags={"tier": "weekly"},
    )["BackupJobId"]

    def ended():
        found = backup.describe_backup_job(BackupJobId=job)
        return found if found["State"] in ("COMPLETED", "FAILED") else None

    return eventually(ended)


def test_a_backup_job_leaves_a_recovery_point_that_restores(local_aws, source, queue):
    backup, rds = local_aws.client("backup"), local_aws.client("rds")
    made = backup_stack(local_aws)
    arn = source.describe()["DBClusterArn"]
    job = run_backup(local_aws, made["Vault"], arn, 180)
    assert job["State"] == "COMPLETED"
    assert job["BackupSizeInBytes"] > 1_000_000
    (point,) = backup.list_recovery_points_by_backup_vault(BackupVaultName=made["Vault"])["RecoveryPoints"]
    assert point["RecoveryPointArn"] == job["RecoveryPointArn"]
    assert point["CalculatedLifecycle"]["DeleteAt"] - point["CreationDate"] == dt.timedelta(days=180)
    assert ":cluster-snapshot:awsbackup:job-" in point["RecoveryPointArn"]
    by_resource = backup.list_recovery_points_by_resource(ResourceArn=arn)["RecoveryPoints"]
    assert point["RecoveryPointArn"] in {found["RecoveryPointArn"] for found in by_resource}
    states = [e["detail"]["state"] for e in queue() if e["detail"].get("backupJobId") == job["BackupJobId"]]
    assert states == ["CREATED", "RUNNING", "COMPLETED"]
    snapshots = rds.describe_db_cluster_snapshots(SnapshotType="awsbackup")["DBClusterSnapshots"]
    assert point["RecoveryPointArn"] in {found["DBClusterSnapshotArn"] for found in snapshots}
    by_arn = {"DBClusterSnapshotIdentifier": point["RecoveryPointArn"]}
    assert refusal(rds.delete_db_cluster_snapshot, **by_arn)[0] == "InvalidDBClusterSnapshotStateFault"

    name = f"c{secrets.token_hex(4)}"
    restore = backup.start_restore_job(
        RecoveryPointArn=point["RecoveryPointArn"],
        IamRoleArn=ROLE,
        Metadata={"DBClusterIdentifier": name, "Engine": ENGINE},
    )["RestoreJobId"]
    eventually(lambda: backup.describe_restore_job(RestoreJobId=restore)["Status"] == "COMPLETED")
    backup.put_restore_validation_result(RestoreJobId=restore, ValidationStatus="SUCCESSFUL")
    add_instance(local_aws, name)
    rows = Database(local_aws, name).run("select count(*) from orders", password=source.secret()["password"])
    assert rows == [[1000]]
    backup.delete_recovery_point(BackupVaultName=made["Vault"], RecoveryPointArn=point["RecoveryPointArn"])
    assert backup.list_recovery_points_by_backup_vault(BackupVaultName=made["Vault"])["RecoveryPoints"] == []


def test_a_locked_vault_refuses_other_retentions_and_keeps_its_recovery_points(local_aws, source):
    made = backup_stack(local_aws, MinRetentionDays=90, MaxRetentionDays=200)
    backup, vault, arn = local_aws.client("backup"), made["Vault"], source.describe()["DBClusterArn"]
    assert backup.describe_backup_vault(BackupVaultName=vault)["Locked"]
    for days in (30, 400):
        job = run_backup(local_aws, vault, arn, days)
        assert job["State"] == "FAILED"
        assert "vault lock" in job["StatusMessage"]
    point = run_backup(local_aws, vault, arn, 180)["RecoveryPointArn"]
    code, _ = refusal(backup.delete_recovery_point, BackupVaultName=vault, RecoveryPointArn=point)
    assert code == "InvalidRequestException"
    assert refusal(backup.delete_backup_vault, BackupVaultName=vault)[0] == "InvalidRequestException"


def test_aurora_must_be_opted_in(local_aws, source):
    backup = local_aws.client("backup")
    made = backup_stack(local_aws)
    backup.update_region_settings(ResourceTypeOptInPreference={"Aurora": False})
    try:
        assert backup.describe_region_settings()["ResourceTypeOptInPreference"]["Aurora"] is False
        code, _ = refusal(
            backup.start_backup_job,
            BackupVaultName=made["Vault"],
            ResourceArn=source.describe()["DBClusterArn"],
            IamRoleArn=ROLE,
        )
        assert code == "InvalidRequestException"
    finally:
        backup.update_region_settings(ResourceTypeOptInPreference={"Aurora": True})


# --- Lambda and Step Functions
HANDLER = """
import importlib.util, os, shutil, subprocess
class PatientDataError(Exception):
    pass
def handler(event, context):
    what = event["do"]
    if what == "raise":
        raise PatientDataError("no such patient")
    if what == "sleep":
        import time; time.sleep(60)
    if what == "exit":
        os._exit(3)
    if what == "import":
        import pg8000
    if what == "unserialisable":
        return object()
    import boto3, extra
    buckets = boto3.client("s3").list_buckets()
    return {
        "extra": extra.VALUE,
        "tool": subprocess.run(["tool"], capture_output=True, text=True).stdout.strip(),
        "ca": os.environ["PGSSLROOTCERT"],
        "root": os.geteuid() == 0,
        "of_the_host": shutil.which("ls"),
        "left": context.get_remaining_time_in_millis(),
        "library": os.environ["LD_LIBRARY_PATH"],
        "found": [name for name in ("moto", "ministack", "pytest", "pip") if importlib.util.find_spec(name)],
        "buckets": buckets["ResponseMetadata"]["HTTPStatusCode"],
    }
"""


def archive(files: dict[str, str]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as out:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o755 if name.startswith("bin/") else 0o644) << 16
            out.writestr(entry, text)
    return target.getvalue()


@pytest.fixture(scope="module")
def function(local_aws):
    """A function with a layer that has a package and a program."""
    client = local_aws.client("lambda")
    layer = archive({"python/extra.py": "VALUE = 7\n", "bin/tool": "#!/bin/sh\necho from the layer\n"})
    arn = client.publish_layer_version(LayerName="extra", Content={"ZipFile": layer})["LayerVersionArn"]
    client.create_function(
        FunctionName="probe",
        Runtime="python3.12",
        Role=ROLE,
        Handler="index.handler",
        Code={"ZipFile": archive({"index.py": HANDLER})},
        Layers=[arn],
        Timeout=10,
        Environment={"Variables": {"PGSSLROOTCERT": "/the/bundle/of/rds.pem"}},
    )
    client.create_function(
        FunctionName="hasty",
        Runtime="python3.12",
        Role=ROLE,
        Handler="index.handler",
        Code={"ZipFile": archive({"index.py": HANDLER})},
        Timeout=1,
    )
    return "probe"


def invoke(aws: LocalAws, name: str, **event: Any) -> tuple[str | None, Any]:
    answer = aws.client("lambda").invoke(FunctionName=name, Payload=json.dumps(event))
    return answer.get("FunctionError"), json.loads(answer["Payload"].read())


def test_a_function_has_its_layers_boto3_and_nothing_of_ours(local_aws, function):
    error, answer = invoke(local_aws, function, do="look")
    assert error is None, answer
    assert answer["extra"] == 7
    assert answer["tool"] == "from the layer"
    assert answer["library"].endswith("/lib")
    assert answer["ca"] == str(local_aws.ca)
    assert 0 < answer["left"] <= 10_000
    assert answer["found"] == []
    assert not answer["root"], "PostgreSQL would refuse to run in it"
    assert answer["of_the_host"] is None, "a function may not find the host's own programs"
    assert answer["buckets"] == 200


FAILURES = [
    ("probe", "raise", "PatientDataError", "no such patient"),
    ("probe", "exit", "Runtime.ExitError", "Runtime exited"),
    ("probe", "unserialisable", "Runtime.MarshalError", "Unable to marshal response"),
    ("probe", "import", "ModuleNotFoundError", "No module named 'pg8000'"),
    ("hasty", "sleep", "Sandbox.Timedout", "Task timed out after 1.00 seconds"),
]


@pytest.mark.parametrize(("name", "do", "kind", "message"), FAILURES)
def test_errors_of_functions_keep_their_type_and_message(local_aws, function, name, do, kind, message):
    error, answer = invoke(local_aws, name, do=do)
    assert error
    assert answer["errorType"] == kind
    assert message in answer["errorMessage"]


def run_machine(
    aws: LocalAws, states: dict[str, Any], start: str, given: dict[str, Any], **more: Any
) -> dict[str, Any]:
    client = aws.client("stepfunctions")
    definition = json.dumps({"StartAt": start, "States": states, **more})
    machine = client.create_state_machine(name=f"m{secrets.token_hex(4)}", definition=definition, roleArn=ROLE)
    execution = client.start_execution(stateMachineArn=machine["stateMachineArn"], input=json.dumps(given))

    def ended():
        found = client.describe_execution(executionArn=execution["executionArn"])
        return found if found["status"] != "RUNNING" else None

    return eventually(ended, 60)


def test_a_state_machine_catches_a_functions_exception_by_its_class_name(local_aws, function):
    call = {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Parameters": {"FunctionName": function, "Payload": {"do": "raise"}},
        "Catch": [{"ErrorEquals": ["PatientDataError"], "ResultPath": "$.error", "Next": "Caught"}],
        "End": True,
    }
    ended = run_machine(local_aws, {"Call": call, "Caught": {"Type": "Succeed"}}, "Call", {})
    assert ended["status"] == "SUCCEEDED"
    error = json.loads(ended["output"])["error"]
    assert error["Error"] == "PatientDataError"
    assert json.loads(error["Cause"])["errorMessage"] == "no such patient"


def test_a_state_machine_snapshots_restores_and_cleans_up_with_the_names_of_the_sdk(local_aws, source):
    def task(service: str, action: str, parameters: dict[str, Any], following: str, **more: Any) -> dict[str, Any]:
        resource = f"arn:aws:states:::aws-sdk:{service}:{action}"
        ending = {"Next": following} if following else {"End": True}
        return {
            "Type": "Task",
            "Resource": resource,
            "Parameters": parameters,
            "ResultPath": "$.last",
            **ending,
            **more,
        }

    def wait(name: str, look: dict[str, Any], status: str, following: str) -> dict[str, Any]:
        choice = {"Variable": f"$.last.{status}", "StringEquals": "available", "Next": following}
        return {
            f"{name}Wait": {"Type": "Wait", "Seconds": 30, "Next": f"{name}Look"},
            f"{name}Look": {**look, "Next": f"{name}Done"},
            f"{name}Done": {"Type": "Choice", "Choices": [choice], "Default": f"{name}Wait"},
        }

    snapshot, cluster = {"DbClusterSnapshotIdentifier.$": "$.run"}, {"DbClusterIdentifier.$": "$.run"}
    states = {
        "Snap": task(
            "rds",
            "createDBClusterSnapshot",
            {"DbClusterIdentifier": source.name, "Tags": [{"Key": "run", "Value.$": "$.run"}], **snapshot},
            "SnapWait",
        ),
        **wait(
            "Snap",
            task("rds", "describeDBClusterSnapshots", snapshot, "-"),
            "DbClusterSnapshots[0].Status",
            "Restore",
        ),
        "Restore": task(
            "rds",
            "restoreDBClusterFromSnapshot",
            {**cluster, "SnapshotIdentifier.$": "$.run", "Engine": ENGINE},
            "RestoreWait",
        ),
        **wait("Restore", task("rds", "describeDBClusters", cluster, "-"), "DbClusters[0].Status", "Drop"),
        "Drop": task("rds", "deleteDBCluster", {**cluster, "SkipFinalSnapshot": True}, "DropSnapshot"),
        "DropSnapshot": task("rds", "deleteDBClusterSnapshot", snapshot, "Missing"),
        "Missing": task(
            "rds",
            "describeDBClusters",
            {"DbClusterIdentifier": "never-was"},
            "",
            Catch=[
                {"ErrorEquals": ["Rds.DbClusterNotFoundException"], "ResultPath": "$.error", "Next": "Points"},
            ],
        ),
        "Points": task("backup", "describeRegionSettings", {}, ""),
    }
    ended = run_machine(local_aws, states, "Snap", {"run": f"run-{secrets.token_hex(4)}"})
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    assert json.loads(ended["output"])["last"]["ResourceTypeOptInPreference"]["Aurora"] is True


def test_a_parameter_that_step_functions_does_not_know_fails_the_execution(local_aws):
    look = {
        "Type": "Task",
        "Resource": "arn:aws:states:::aws-sdk:rds:describeDBClusters",
        "Parameters": {"DBClusterIdentifier": "wrong-case"},
        "End": True,
    }
    ended = run_machine(local_aws, {"Look": look}, "Look", {})
    assert ended["status"] == "FAILED"
    assert "DBClusterIdentifier" in ended["cause"]


def test_a_state_machine_that_waits_longer_than_its_timeout_is_timed_out(local_aws):
    states = {"Wait": {"Type": "Wait", "Seconds": 60, "Next": "Again"}, "Again": {"Type": "Pass", "End": True}}
    assert run_machine(local_aws, states, "Wait", {}, TimeoutSeconds=50)["status"] == "TIMED_OUT"
    assert run_machine(local_aws, states, "Wait", {}, TimeoutSeconds=70)["status"] == "SUCCEEDED"


def test_a_state_cannot_pass_on_more_than_256_kilobytes(local_aws):
    big = {"Type": "Pass", "Parameters": {"a": "x" * 140_000, "b": "y" * 140_000}, "End": True}
    ended = run_machine(local_aws, {"Big": big}, "Big", {})
    assert (ended["status"], ended["error"]) == ("FAILED", "States.DataLimitExceeded")


def test_a_schedule_runs_its_own_target_with_its_own_input(local_aws, function):
    arn = local_aws.client("lambda").get_function(FunctionName=function)["Configuration"]["FunctionArn"]
    local_aws.client("scheduler").create_schedule(
        Name="weekly",
        ScheduleExpression="cron(0 2 ? * SAT *)",
        FlexibleTimeWindow={"Mode": "OFF"},
        Target={"Arn": arn, "RoleArn": ROLE, "Input": '{"do": "raise", "at": "<aws.scheduler.scheduled-time>"}'},
    )
    answer = local_aws.run_schedule("weekly")
    assert answer["Payload"]["errorType"] == "PatientDataError"


# --- processes
def children(pid: int) -> set[int]:
    """The process and everything it started, as far as the process table says."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
    found, size = {pid}, 0
    while size != len(found):
        size = len(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return found


def listening(pids: set[int]) -> set[str]:
    """The addresses (hexadecimal, as the kernel tells them) that these processes listen on."""
    sockets = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for handle in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    sockets.add(str(handle.readlink()))
    addresses = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                addresses.add(fields[1].split(":")[0])
    return addresses


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def gone(pids: set[int]) -> bool:
    def state(pid: int) -> str:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return "X"

    return all(state(pid) in "XZ" for pid in pids)


def test_everything_listens_on_loopback_only(source):
    assert listening(children(os.getpid())) == {"0100007F"}


STANDALONE = """
import sys, time
from pathlib import Path
from local.server import LocalAws
aws = LocalAws(Path(sys.argv[1]), creating_seconds=0)
aws.start()
rds = aws.client("rds")
aurora = {"DBClusterIdentifier": "c", "Engine": "aurora-postgresql"}
rds.create_db_cluster(**aurora, MasterUsername="master", MasterUserPassword="not-so-secret")
while rds.describe_db_clusters()["DBClusters"][0]["Status"] != "available": time.sleep(0.05)
rds.create_db_instance(**aurora, DBInstanceIdentifier="c-1", DBInstanceClass="db.r6g.large")
while rds.describe_db_instances()["DBInstances"][0]["DBInstanceStatus"] != "available": time.sleep(0.05)
print("up", flush=True)
if sys.argv[2] == "stop":
    sys.stdin.readline()
    aws.stop()
    print("stopped", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the process table of Linux")
@pytest.mark.parametrize("how", ["stop", "SIGINT", "SIGKILL"])
def test_no_process_is_left_however_it_ends(tmp_path, how):
    parent = subprocess.Popen(
        [sys.executable, "-c", STANDALONE, str(tmp_path / "aws"), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    try:
        assert parent.stdout.readline() == "up\n"
        started = children(parent.pid) - {parent.pid}
        assert any(name_of(pid) == "postgres" for pid in started)
        if how == "stop":
            parent.stdin.write("\n")
            parent.stdin.flush()
            assert parent.stdout.readline() == "stopped\n"
        else:
            parent.send_signal(getattr(signal, how))
        eventually(lambda: gone(started), 30)
    finally:
        parent.kill()
        parent.wait()
        parent.stdin.close()
        parent.stdout.close()


def test_a_server_that_cannot_start_says_why(tmp_path, local_aws):
    taken = LocalAws(tmp_path / "aws", region="eu-west-1", creating_seconds=float("nan"))
    taken._wait_scale = "not a number"
    with pytest.raises(ProcessDiedError, match="invalid float value"):
        taken.start()
