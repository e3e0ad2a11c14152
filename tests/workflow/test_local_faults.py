"""The faults of the local AWS: what is refused, how often, in which words, and that nothing stays wrong afterwards."""

from __future__ import annotations

import io
import json
import secrets
import time
import zipfile

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.handlers import remove_bucket_from_url_paths_from_model

from local import lambda_bootstrap, requests
from local.faults import Fault, Faults
from local.requests import Request

ONCE = Config(retries={"total_max_attempts": 1})
LISTED = "s3:ListObjectVersions"


@pytest.fixture(scope="module")
def bucket(local_aws):
    """A versioned bucket with five objects."""
    s3, name = local_aws.client("s3"), f"faults-{secrets.token_hex(4)}"
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": local_aws.region})
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    for number in range(5):
        s3.put_object(Bucket=name, Key=f"k{number}", Body=b"x")
    return name


def code(call, **parameters):
    with pytest.raises(ClientError) as refused:
        call(**parameters)
    answer = refused.value.response
    return answer["Error"]["Code"], answer["Error"]["Message"], answer["ResponseMetadata"]["HTTPStatusCode"]


@pytest.mark.parametrize(
    ("service", "operation", "call", "parameters"),
    [
        ("rds", "DescribeDBClusters", "describe_db_clusters", {}),
        ("s3", "ListBuckets", "list_buckets", {}),
        ("backup", "ListBackupVaults", "list_backup_vaults", {}),
        ("kms", "ListKeys", "list_keys", {}),
        ("stepfunctions", "ListStateMachines", "list_state_machines", {}),
    ],
)
def test_a_fault_answers_as_its_service_does_and_ends(local_aws, service, operation, call, parameters):
    client = local_aws.client(service, config=ONCE)
    with local_aws.faulty(Fault(operation=f"{service}:{operation}", code="SlowDown", message="<later>", status=503)):
        assert code(getattr(client, call), **parameters) == ("SlowDown", "<later>", 503)
    getattr(client, call)(**parameters)


def test_calls_before_and_after_a_fault_go_through(local_aws):
    rds = local_aws.client("rds", config=ONCE)
    with local_aws.faulty(Fault(operation="rds:DescribeDBClusters", after=1, times=2)):
        rds.describe_db_clusters()
        assert code(rds.describe_db_clusters)[0] == "Throttling"
        assert code(rds.describe_db_clusters)[0] == "Throttling"
        rds.describe_db_clusters()
        rds.describe_db_instances()


def test_only_the_pages_after_the_first_fail_when_asked(local_aws, bucket):
    pages = local_aws.client("s3", config=ONCE).get_paginator("list_object_versions")
    with local_aws.faulty(Fault(operation=LISTED, sends="key-marker", code="InternalError", status=500), page_size=2):
        seen = []
        with pytest.raises(ClientError, match="InternalError"):
            seen.extend(len(page["Versions"]) for page in pages.paginate(Bucket=bucket))
    assert seen == [2]


def test_short_pages_lead_to_the_same_listing(local_aws, bucket):
    s3 = local_aws.client("s3")
    for operation, field in (("list_object_versions", "Versions"), ("list_objects_v2", "Contents")):
        with local_aws.faulty(page_size=2):
            pages = list(s3.get_paginator(operation).paginate(Bucket=bucket))
        assert [len(page[field]) for page in pages] == [2, 2, 1]
        assert [o["Key"] for page in pages for o in page[field]] == [f"k{n}" for n in range(5)]


def test_an_object_is_read_and_written_as_ever_while_another_operation_fails(local_aws, bucket):
    s3, body = local_aws.client("s3"), secrets.token_bytes(200_000)
    with local_aws.faulty(Fault(operation="s3:GetObjectLegalHold")):
        s3.put_object(Bucket=bucket, Key="large", Body=body)
        assert s3.get_object(Bucket=bucket, Key="large")["Body"].read() == body
    s3.delete_object(Bucket=bucket, Key="large")


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "operation"),
    [
        ("GET", "/b", {"versions": ""}, {}, "ListObjectVersions"),
        ("GET", "/b", {"list-type": "2", "prefix": "x"}, {}, "ListObjectsV2"),
        ("GET", "/b", {"uploads": ""}, {}, "ListMultipartUploads"),
        ("GET", "/b/a/b", {}, {}, "GetObject"),
        ("GET", "/b/a/b", {"legal-hold": ""}, {}, "GetObjectLegalHold"),
        ("PUT", "/b/a", {}, {}, "PutObject"),
        ("PUT", "/b/a", {}, {"x-amz-copy-source": "c"}, "CopyObject"),
        ("PUT", "/b/a", {"partNumber": "1", "uploadId": "u"}, {}, "UploadPart"),
        ("DELETE", "/b/a", {"uploadId": "u"}, {}, "AbortMultipartUpload"),
        ("DELETE", "/b/a", {"versionId": "v"}, {}, "DeleteObject"),
    ],
)
def test_a_request_is_named_as_botocore_names_it(method, path, query, headers, operation):
    signed = {"authorization": "AWS4-HMAC-SHA256 Credential=local/20261123/eu-west-1/s3/aws4_request, x", **headers}
    assert Request(method, path, query, signed).operation == f"s3:{operation}"
    assert Request(method, path, query, headers).operation is None


def test_a_request_is_named_also_when_a_client_has_changed_the_model():
    operation = requests.service_model("s3").operation_model("ListObjectVersions")
    whole = requests._routed(operation)
    remove_bucket_from_url_paths_from_model({}, operation, {})

    assert operation.http["requestUri"] != "/{Bucket}?versions"
    assert requests._routed(operation) == whole


def test_faults_are_read_as_they_were_written(tmp_path):
    wrong = Faults(refuse=(Fault(operation=LISTED, times=2),), page_size=3, creating=("s",))
    wrong.write(tmp_path)
    found = Faults.read(tmp_path / "faults.json")
    assert (found.refuse, found.page_size, found.creating) == (wrong.refuse, 3, ("s",))
    assert Faults.read(tmp_path / "none.json") == Faults()


CODE = """
import boto3
def handler(event, context):
    try:
        boto3.client("rds").describe_db_clusters()
    except Exception as error:
        return error.response["Error"]["Code"]
    return "answered"
"""


def test_only_the_pauses_between_two_tries_are_shortened(monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    lambda_bootstrap.shorten_pauses(0.01)
    sdk = {"__name__": "botocore.endpoint"}
    exec("import time\ndef pause(): time.sleep(2)", sdk)
    sdk["pause"]()
    time.sleep(2)
    assert slept == [0.02, 2]


def test_a_functions_sdk_tries_again(local_aws):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as out:
        out.writestr("index.py", CODE)
    lambda_ = local_aws.client("lambda")
    name = lambda_.create_function(
        FunctionName=f"tries-{secrets.token_hex(4)}",
        Runtime="python3.13",
        Role="arn:aws:iam::000000000000:role/anything",
        Handler="index.handler",
        Code={"ZipFile": target.getvalue()},
        Timeout=30,
    )["FunctionName"]

    def said():
        return json.loads(lambda_.invoke(FunctionName=name, Payload=b"{}")["Payload"].read())

    with local_aws.faulty(Fault(operation="rds:DescribeDBClusters", times=3)):
        answered = said()
    with local_aws.faulty(Fault(operation="rds:DescribeDBClusters")):
        refused = said()
    assert (answered, refused) == ("answered", "Throttling")


def test_a_snapshot_stays_creating_until_it_is_let_go(local_aws):
    rds, name = local_aws.client("rds"), f"stuck{secrets.token_hex(4)}"
    rds.create_db_cluster(
        DBClusterIdentifier=name, Engine="aurora-postgresql", MasterUsername="m", ManageMasterUserPassword=True
    )
    rds.get_waiter("db_cluster_available").wait(DBClusterIdentifier=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})

    def described():
        (found,) = rds.describe_db_cluster_snapshots(DBClusterSnapshotIdentifier=name)["DBClusterSnapshots"]
        return found

    def status():
        return described()["Status"], "SnapshotCreateTime" in described()

    with local_aws.faulty(creating=[name]):
        rds.create_db_cluster_snapshot(DBClusterSnapshotIdentifier=f"{name}-2", DBClusterIdentifier=name)
        rds.create_db_cluster_snapshot(DBClusterSnapshotIdentifier=name, DBClusterIdentifier=name)
        while described()["PercentProgress"] < 90:
            time.sleep(0.1)
        time.sleep(1)  # more than things stay in their first state here
        assert status() == ("creating", False)
    rds.get_waiter("db_cluster_snapshot_available").wait(
        DBClusterSnapshotIdentifier=name, WaiterConfig={"Delay": 1, "MaxAttempts": 30}
    )
    assert status() == ("available", True)
    pages = rds.get_paginator("describe_db_cluster_snapshots")
    with local_aws.faulty(page_size=1):  # RDS itself takes no less than 20
        found = [page["DBClusterSnapshots"] for page in pages.paginate(DBClusterIdentifier=name)]
    assert [[s["DBClusterSnapshotIdentifier"] for s in page] for page in found] == [[name], [f"{name}-2"]]
    for each in (name, f"{name}-2"):
        rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier=each)
    rds.delete_db_cluster(DBClusterIdentifier=name, SkipFinalSnapshot=True)
