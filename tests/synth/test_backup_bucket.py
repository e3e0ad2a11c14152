"""BackupBucket: how objects get in, how they get out, and which lifecycles are refused."""

from __future__ import annotations

import pytest
from aws_cdk import RemovalPolicy
from aws_cdk import aws_s3 as s3

from cdk_aurora_backup import (
    BackupBucket,
    BackupKey,
    LifecycleRule,
    RetentionPolicy,
    StorageClass,
    SynthError,
    Transition,
)
from tests.synth import attacks, hardened
from tests.synth.synthesis import CDKS_OWN, Synthesised, new_stack


def made(*, flags: bool = True, **options) -> Synthesised:
    stack = new_stack(flags=flags)
    if options.pop("own_logs", False):
        options["access_logs"] = s3.Bucket(stack, "Logs")
    key = BackupKey(stack, "Key").key
    BackupBucket(stack, "Storage", key=key, policy=RetentionPolicy.hipaa(), **options)
    return Synthesised.of(stack)


@pytest.fixture(scope="module")
def bucket() -> Synthesised:
    return made()


def statements(template: Synthesised) -> list[dict]:
    return template.named("AWS::S3::BucketPolicy", "StorageBucketPolicy")["PolicyDocument"]["Statement"]


def test_it_is_versioned_private_owned_and_encrypted_under_the_customer_key(bucket):
    found = bucket.named("AWS::S3::Bucket", "StorageBucket")
    (key,) = bucket.ids("AWS::KMS::Key")
    (encryption,) = found["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert encryption["ServerSideEncryptionByDefault"] == {"KMSMasterKeyID": f"<{key}.Arn>", "SSEAlgorithm": "aws:kms"}
    assert encryption["BucketKeyEnabled"] is True
    assert found["VersioningConfiguration"] == {"Status": "Enabled"}
    assert set(found["PublicAccessBlockConfiguration"].values()) == {True}
    assert found["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    assert found["ObjectLockEnabled"] is True
    assert "ObjectLockConfiguration" not in found, "what is locked is decided object by object"


def test_plain_http_and_old_tls_are_denied(bucket):
    denials = [s for s in statements(bucket) if s["Effect"] == "Deny" and s["Action"] == "s3:*"]
    conditions = [s["Condition"] for s in denials]
    assert {"Bool": {"aws:SecureTransport": "false"}} in conditions
    assert {"NumericLessThan": {"s3:TlsVersion": 1.2}} in conditions


@pytest.mark.parametrize(
    ("sid", "header", "wanted"),
    [
        ("DenyOtherEncryption", "s3:x-amz-server-side-encryption", "aws:kms"),
        ("DenyOtherKeys", "s3:x-amz-server-side-encryption-aws-kms-key-id", None),
    ],
)
def test_a_put_that_names_another_encryption_or_key_is_denied_and_one_that_names_none_is_not(
    bucket, sid, header, wanted
):
    (denial,) = [s for s in statements(bucket) if s.get("Sid") == sid]
    (key,) = bucket.ids("AWS::KMS::Key")
    assert (denial["Effect"], denial["Action"]) == ("Deny", "s3:PutObject")
    assert denial["Condition"] == {"StringNotEquals": {header: wanted or f"<{key}.Arn>"}, "Null": {header: "false"}}


HEADER = "s3:x-amz-server-side-encryption"
PUTS = {  # what a put says of its encryption, and whether the bucket takes it
    "nothing": ({}, "Allowed"),
    "this key": ({HEADER: "aws:kms", f"{HEADER}-aws-kms-key-id": "<key>"}, "Allowed"),
    "S3's own": ({HEADER: "AES256"}, "ExplicitlyDenied"),
    "another key": ({HEADER: "aws:kms", f"{HEADER}-aws-kms-key-id": "other"}, "ExplicitlyDenied"),
    "KMS, and no key": ({HEADER: "aws:kms"}, "ExplicitlyDenied"),
    "a key that it brings": ({f"{HEADER}-customer-algorithm": "AES256"}, "ExplicitlyDenied"),
}


def test_what_an_engine_makes_of_each_way_to_encrypt_a_put():
    app = hardened.synthesised("default").protected
    found = attacks.targets(hardened.synthesised("default"))
    target, key = found["object"], found["key"].arn
    asked = [
        {
            "id": name,
            "request": {
                "principal": f"arn:aws:iam::{app.account}:role/writer",
                "action": "s3:PutObject",
                "resource": {"resource": target.arn, "accountId": app.account},
                "contextVariables": {
                    "aws:SecureTransport": "true",
                    "s3:TlsVersion": "1.3",
                    **{header: key if value == "<key>" else value for header, value in headers.items()},
                },
            },
            "identityPolicies": [{"name": "administrator", "policy": attacks.ADMINISTRATOR}],
            "serviceControlPolicies": [],
            "resourceControlPolicies": [],
            "resourcePolicy": target.policy,
        }
        for name, (headers, _) in PUTS.items()
    ]
    decided = {name: answer["decision"] for name, answer in attacks.evaluate(asked).items()}
    assert decided == {name: wanted for name, (_, wanted) in PUTS.items()}


def test_access_is_logged_to_a_bucket_that_s3_can_write_to(bucket):
    logs = bucket.named("AWS::S3::Bucket", "StorageAccessLogs")
    (encryption,) = logs["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert encryption["ServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    (log_bucket,) = [n for n in bucket.ids("AWS::S3::Bucket") if "AccessLogs" in n]
    logging = bucket.named("AWS::S3::Bucket", "StorageBucket")["LoggingConfiguration"]
    assert logging == {"DestinationBucketName": f"<{log_bucket}>", "LogFilePrefix": "backup-bucket/"}
    policy = bucket.named("AWS::S3::BucketPolicy", "AccessLogs")["PolicyDocument"]["Statement"]
    (delivery,) = [s for s in policy if s.get("Sid") == "DeliverAccessLogs"]
    assert delivery["Resource"] == f"<{log_bucket}.Arn>/backup-bucket/*"


@pytest.mark.parametrize("flags", [True, False])
def test_access_logs_never_use_access_control_lists_whatever_the_consumers_flags(flags):
    assert all("AccessControl" not in b for b in made(flags=flags).all("AWS::S3::Bucket"))


def test_an_existing_bucket_for_access_logs_is_used():
    template = made(own_logs=True)
    (logs,) = [n for n in template.ids("AWS::S3::Bucket") if n.startswith("Logs")]
    assert len(template.ids("AWS::S3::Bucket")) == 2
    assert template.named("AWS::S3::Bucket", "Storage")["LoggingConfiguration"]["DestinationBucketName"] == f"<{logs}>"


def test_a_rule_of_the_callers_own_for_another_prefix_is_added():
    rule = LifecycleRule("exports/", 400, (Transition(30, StorageClass.STANDARD_IA),))
    rules = made(lifecycle=[rule]).named("AWS::S3::Bucket", "StorageBucket")["LifecycleConfiguration"]["Rules"]
    (found,) = [r for r in rules if r.get("Prefix") == "exports/"]
    assert found["ExpirationInDays"] == 400
    assert found["Transitions"] == [{"StorageClass": "STANDARD_IA", "TransitionInDays": 30}]


@pytest.mark.parametrize(
    "prefix", ["logical-backups/", "logical-backups/clinic/", "logical", "", "ledger/", "registers/"]
)
def test_a_rule_of_the_callers_own_that_reaches_the_policys_objects_is_refused(prefix):
    # S3 would obey whichever expires first: ten days instead of the ninety that the policy promises.
    with pytest.raises(SynthError, match=rf"BackupBucket\.lifecycle: .*must not overlap .*got '{prefix}'"):
        made(lifecycle=[LifecycleRule(prefix, 10)])


def test_a_bucket_that_goes_with_its_stack_is_emptied_first():
    template = made(removal_policy=RemovalPolicy.DESTROY)
    for name in template.ids("AWS::S3::Bucket"):
        assert template.resources[name]["DeletionPolicy"] == "Delete"
    emptied = [p["BucketName"] for p in template.all("Custom::S3AutoDeleteObjects")]
    assert sorted(emptied) == sorted(f"<{name}>" for name in template.ids("AWS::S3::Bucket"))


def test_a_bucket_that_stays_has_nothing_near_it_that_could_empty_it(bucket):
    assert bucket.ids("Custom::S3AutoDeleteObjects") == []
    assert not [n for n in bucket.resources if n.startswith(CDKS_OWN)]
