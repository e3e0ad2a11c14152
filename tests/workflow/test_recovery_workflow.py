"""The synthesised recovery workflows against the local AWS: real PostgreSQL behind each cluster, real restores.

The definitions and handlers run in this process; RDS, S3, secrets and the databases are the local AWS's.
"""

from __future__ import annotations

import contextlib
import json
import time
from datetime import UTC, datetime
from unittest import mock

import boto3
import pytest

from aurora_backup import s3
from aurora_backup.postgres import Session, Target
from tests.recovery_stack import environment_of, machine
from tests.recovery_world import Killed, invoke_handler

BUCKET = "recovery-workflows"


class RealClock:
    def iso(self):
        return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def advance(self, _seconds):
        time.sleep(0.1)


class LocalWorld:
    """The local AWS, as far as `Machine` needs a world."""

    def __init__(self, aws, cluster):
        self.aws, self.cluster, self.clock, self.state, self.published = aws, cluster, RealClock(), "", []

    def client(self, service, **options):
        if service == "sns":
            return mock.Mock(publish=lambda **p: self.published.append(p))
        session = boto3.Session("local", "local", region_name=self.aws.region)
        return session.client(service, **{**options, "endpoint_url": self.aws.endpoint_url, "region_name": None})

    @contextlib.contextmanager
    def inhabited(self):
        with mock.patch.object(boto3, "client", self.client), mock.patch.object(s3, "_create", self.client):
            yield

    def environment(self, told):
        return {
            **told,
            "BACKUP_BUCKET": BUCKET,
            "BACKUP_KEY_ARN": "",
            "CLUSTER_ID": self.cluster["DBClusterIdentifier"],
            "CLUSTER_RESOURCE_ID": self.cluster["DbClusterResourceId"],
            "DB_SECRET_ARN": self.cluster["MasterUserSecret"]["SecretArn"],
            "DATABASES": '["clinic"]',
            "PGSSLROOTCERT": str(self.aws.ca),
            **({"TEST_ISOLATION": ISOLATION} if "TEST_ISOLATION" in told else {}),
        }

    def run(self, workflow, payload, execution, on_state=None):
        driven = machine(workflow)
        driven.functions = {arn: (h, self.environment(told)) for arn, (h, told) in driven.functions.items()}
        if on_state:
            driven.on_state = on_state
        return driven.run(self, payload, execution)

    def invoke(self, handler, event):
        return invoke_handler(self, handler, self.environment(environment_of(handler)), event)

    def sql(self, text, identifier=None):
        found = self.describe(identifier or self.cluster["DBClusterIdentifier"])
        arn = found["MasterUserSecret"]["SecretArn"]
        secret = json.loads(self.aws.client("secretsmanager").get_secret_value(SecretId=arn)["SecretString"])
        target = Target(
            host=found["Endpoint"],
            port=found["Port"],
            dbname="clinic",
            user=secret["username"],
            password=lambda: secret["password"],
            sslrootcert=str(self.aws.ca),
        )
        with Session(target) as session:
            return session.run(text)

    def describe(self, identifier):
        return self.aws.client("rds").describe_db_clusters(DBClusterIdentifier=identifier)["DBClusters"][0]

    def names(self):
        return {c["DBClusterIdentifier"] for c in self.aws.client("rds").describe_db_clusters()["DBClusters"]}


ISOLATION = json.dumps({"subnet_group": "default", "security_groups": ["sg-tests"], "instance_class": "db.t4g.medium"})


@pytest.fixture(scope="module")
def world(local_aws):
    """A cluster with a little data, beats and a baseline. The last test deletes it."""
    name = f"clinic-{time.monotonic_ns() % 10**9}"
    rds, s3 = local_aws.client("rds"), local_aws.client("s3")
    with contextlib.suppress(s3.exceptions.BucketAlreadyOwnedByYou):
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": local_aws.region})
    subnets = [subnet["SubnetId"] for subnet in local_aws.client("ec2").describe_subnets()["Subnets"]][:2]
    rds.create_db_subnet_group(DBSubnetGroupName="recovery", DBSubnetGroupDescription="for recovery", SubnetIds=subnets)
    rds.create_db_cluster(
        DBSubnetGroupName="recovery",
        DBClusterIdentifier=name,
        Engine="aurora-postgresql",
        MasterUsername="master",
        ManageMasterUserPassword=True,
        DatabaseName="clinic",
        VpcSecurityGroupIds=["sg-production"],
        BackupRetentionPeriod=7,
    )
    rds.get_waiter("db_cluster_available").wait(DBClusterIdentifier=name, WaiterConfig={"Delay": 1})
    rds.create_db_instance(
        DBInstanceIdentifier=f"{name}-1",
        DBClusterIdentifier=name,
        Engine="aurora-postgresql",
        DBInstanceClass="db.r8g.large",
    )
    rds.get_waiter("db_instance_available").wait(DBInstanceIdentifier=f"{name}-1", WaiterConfig={"Delay": 1})
    made = LocalWorld(local_aws, rds.describe_db_clusters(DBClusterIdentifier=name)["DBClusters"][0])
    made.sql("CREATE EXTENSION amcheck SCHEMA public")
    made.sql("CREATE TABLE public.patients (id int PRIMARY KEY)")
    made.sql("INSERT INTO public.patients SELECT generate_series(1, 500)")
    found = made.describe(name)
    endpoint = {"host": found["Endpoint"], "port": found["Port"]}
    for _ in range(3):
        made.invoke("heartbeat", {"database_endpoint": endpoint, "database": "clinic"})
    assert made.run("Baselines", {}, f"baseline-{name}")["status"] == "SUCCEEDED"
    return made


def report(world, record):
    key = json.loads(record["output"])["judged"]["report"]
    return json.loads(world.aws.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read())


def test_a_recovery_test_restores_the_newest_snapshot_reads_it_and_leaves_nothing(world):
    before = world.names()
    name = world.cluster["DBClusterIdentifier"]
    made = world.run("OnDemandSnapshot", {"description": "for the test"}, f"snapshot-{name}")
    assert made["status"] == "SUCCEEDED", made.get("cause")
    record = world.run("RecoveryTest", {"tier": "on-demand"}, f"test-{name}")
    assert record["status"] == "SUCCEEDED", record.get("cause")
    found = report(world, record)
    assert found["outcome"] == "RESTORED"
    assert found["queried"]["tables_counted"] == 1
    assert found["queried"]["objects_checked_by_amcheck"] == 2
    assert world.names() == before


def test_what_a_killed_test_leaves_the_janitor_takes_and_production_stays(world):
    name = world.cluster["DBClusterIdentifier"]
    before = world.names()

    def killed(state, _attempt, moment):
        if (state, moment) == ("Read the copy", "after"):
            raise Killed

    record = world.run("RecoveryTest", {"tier": "automated"}, f"killed-{name}", on_state=killed)
    assert record["status"] == "ABORTED"
    (left,) = world.names() - before
    assert left.startswith("recovery-test-")
    tomorrow = datetime.now(UTC).replace(year=datetime.now(UTC).year + 1).isoformat()
    for _ in range(200):
        swept = world.invoke("sweep_leftovers", {"now": tomorrow})
        assert not swept["problems"]
        if world.names() == before:
            break
        time.sleep(0.1)
    assert world.names() == before
    assert world.describe(name)["Status"] == "available"


def test_a_deleted_cluster_comes_back_by_its_resource_id_with_its_rows_and_settings(world):
    name, resource_id = world.cluster["DBClusterIdentifier"], world.cluster["DbClusterResourceId"]
    rds = world.aws.client("rds")
    rds.delete_db_instance(DBInstanceIdentifier=f"{name}-1", SkipFinalSnapshot=True)
    rds.delete_db_cluster(DBClusterIdentifier=name, SkipFinalSnapshot=True, DeleteAutomatedBackups=False)
    while name in world.names():
        time.sleep(0.2)
    request = {"target_cluster_id": f"{name}-again", "latest": True, "source_resource_id": resource_id}
    record = world.run("PointInTimeRecovery", request, f"recovery-{name}")
    assert record["status"] == "SUCCEEDED", record.get("cause")
    assert world.sql("SELECT count(*) FROM public.patients", f"{name}-again") == [[500]]
    found = world.describe(f"{name}-again")
    assert found["BackupRetentionPeriod"] == 7
    assert [g["VpcSecurityGroupId"] for g in found["VpcSecurityGroups"]] == ["sg-production"]
