"""Reading back: the first bytes of each object, what S3 says where it refuses, and nothing of any contents."""

from __future__ import annotations

import io

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from aurora_backup import deployment
from aurora_backup.handlers import read_back as handler
from aurora_backup.policy import RetentionPolicy
from aurora_backup.s3 import Bucket

ANSWERS = {
    "whole": b"a secret of a row",
    "empty": b"",
    "denied": "AccessDenied",
    "no-key": "KMS.DisabledException",
    "cold": "InvalidObjectState",
    "tiered": ClientError(
        {
            "Error": {
                "Code": "InvalidObjectState",
                "Message": "The operation is not valid for the object's access tier",
            },
            "StorageClass": "INTELLIGENT_TIERING",
            "AccessTier": "ARCHIVE_ACCESS",
        },
        "GetObject",
    ),
    "unreachable": EndpointConnectionError(endpoint_url="https://s3"),
    "busy": "SlowDown",
    "keys-busy": "KMS.ThrottlingException",
    "broken": ClientError(
        {"Error": {"Code": "Whatever", "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": 503}}, "GetObject"
    ),
    "gone": "NoSuchVersion",
}


class S3:
    """Answers by key, and keeps the ranges that were asked for."""

    def __init__(self):
        self.ranges = set()
        self.versions = {}

    def get_object(self, Bucket, Key, Range, **version):  # noqa: N803
        assert Bucket == "backups"
        self.ranges.add(Range)
        self.versions[Key] = version
        answer = ANSWERS[Key]
        if isinstance(answer, str):
            raise ClientError({"Error": {"Code": answer, "Message": answer}}, "GetObject")
        if isinstance(answer, Exception):
            raise answer
        return {"Body": io.BytesIO(answer)}


@pytest.fixture
def s3(monkeypatch):
    client = S3()
    environment = {"BACKUP_BUCKET": "backups", "OWNER": "Stack/Backup", "CLUSTER_ID": "main", "DB_AUTH": "iam"}
    environment |= {"DB_USER": "aurora_backup", "RETENTION_POLICY": RetentionPolicy.hipaa().to_json()}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(deployment, "bucket", lambda _settings: Bucket(client, "backups"))
    return client


def asked(*keys, version=None):
    return {"objects": [{"key": key, "version": version} for key in keys]}


def test_each_object_is_read_archived_or_refused_and_a_failure_to_ask_is_no_refusal(s3):
    found = {o["key"]: o for o in handler.handler(asked(*ANSWERS), None)["objects"]}
    assert list(found) == list(ANSWERS)
    states = {state: {key for key, o in found.items() if o["state"] == state} for state in ("read", "archived")}
    assert states == {"read": {"whole"}, "archived": {"cold", "tiered"}}
    assert {key for key, o in found.items() if o["state"] == "refused"} == {"empty", "denied", "no-key"}
    unknown = {"unreachable", "busy", "keys-busy", "broken", "gone"}
    assert {key for key, o in found.items() if o["state"] == "unknown"} == unknown
    assert {key for key, o in found.items() if o["problem"] is None} == {"whole"}
    for key, says in (("denied", "AccessDenied"), ("no-key", "KMS.Disabled"), ("unreachable", "https://s3")):
        assert says in found[key]["problem"]
    assert found["empty"]["problem"] == "it is empty"


def test_the_version_that_a_restore_would_read_is_read(s3):
    handler.handler({"objects": [{"key": "whole", "version": "v1"}, {"key": "empty", "version": None}]}, None)
    assert s3.versions == {"whole": {"VersionId": "v1"}, "empty": {}}


def test_only_the_first_bytes_are_asked_for_and_none_is_told(s3):
    answer = handler.handler(asked("whole"), None)
    assert s3.ranges == {"bytes=0-15"}
    assert "secret" not in str(answer)
    assert handler.handler({"objects": []}, None) == {"objects": []}
