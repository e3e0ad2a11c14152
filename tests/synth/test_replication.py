"""Replication of dump sets and evidence: rules, roles, locks and the alarm on what did not arrive."""

from __future__ import annotations

import aws_cdk as cdk
import pytest
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3

from cdk_aurora_backup import RetentionPolicy, SynthError
from cdk_aurora_backup.replication import Replica, ReplicaBucket, ReplicateTo, Replication
from tests.synth import hardened
from tests.synth.synthesis import Synthesised, backed_up, new_stack

ENV = cdk.Environment(account=hardened.PROTECTED, region=hardened.REGION)
FAR = Replica(bucket_name="far", account=hardened.KEEPER, region="eu-central-1", key_alias="alias/far")
PREFIXES = {"automated-backups", "manual-backups", "logical-backups", "compliance-backups", "registers"}


@pytest.fixture(scope="module")
def strongest():
    return hardened.synthesised("strongest")


@pytest.fixture(scope="module")
def rules(strongest):
    (bucket,) = [p for n, p in strongest.protected.of("AWS::S3::Bucket") if "StorageBucket" in n]
    return bucket["ReplicationConfiguration"]["Rules"]


def received(strongest):
    return next((n, p) for n, p in strongest.keeper.of("AWS::S3::Bucket") if "StorageBucket" in n)


def test_every_prefix_that_holds_a_copy_of_record_is_replicated(rules):
    assert {rule["Filter"]["Prefix"].rstrip("/") for rule in rules} == PREFIXES
    assert len({rule["Priority"] for rule in rules}) == len(rules)


def test_a_deletion_is_never_replicated(rules):
    assert {rule["DeleteMarkerReplication"]["Status"] for rule in rules} == {"Disabled"}


def test_what_is_encrypted_under_the_first_key_is_encrypted_again_under_the_second_accounts(strongest, rules):
    (alias,) = [p for _, p in strongest.keeper.of("AWS::KMS::Alias")]
    for rule in rules:
        assert rule["SourceSelectionCriteria"]["SseKmsEncryptedObjects"]["Status"] == "Enabled"
        key = rule["Destination"]["EncryptionConfiguration"]["ReplicaKmsKeyID"]
        assert key == f"arn:aws:kms:{hardened.REGION}:{hardened.KEEPER}:{alias['AliasName']}"


def test_the_replica_belongs_to_the_account_that_keeps_it(strongest, rules):
    name = strongest.keeper.name(received(strongest)[0])
    for rule in rules:
        assert rule["Destination"]["Bucket"] == f"arn:aws:s3:::{name}"
        assert rule["Destination"]["Account"] == hardened.KEEPER
        assert rule["Destination"]["AccessControlTranslation"] == {"Owner": "Destination"}


def test_every_version_that_arrives_is_locked_as_long_as_the_policy_keeps_weekly_sets(strongest):
    lock = received(strongest)[1]["ObjectLockConfiguration"]
    assert lock["Rule"]["DefaultRetention"] == {"Mode": "COMPLIANCE", "Days": 90}


def test_what_the_first_account_overwrites_is_kept_as_long_as_if_it_had_not_been(strongest):
    rules = received(strongest)[1]["LifecycleConfiguration"]["Rules"]
    kept = {
        r["Prefix"].rstrip("/"): (r["NoncurrentVersionExpiration"]["NoncurrentDays"], r["ExpirationInDays"])
        for r in rules
        if "Prefix" in r
    }
    assert set(kept) == PREFIXES - {"registers"}, "of the registers nothing expires"
    assert all(noncurrent >= current for noncurrent, current in kept.values())


def test_each_destination_and_prefix_has_an_alarm_that_tells_the_topic(strongest, rules):
    alarms = [p for _, p in strongest.protected.of("AWS::CloudWatch::Alarm") if p.get("Namespace") == "AWS/S3"]
    watched = {d["Value"] for p in alarms for d in p["Dimensions"] if d["Name"] == "RuleId"}
    assert watched == {rule["Id"] for rule in rules}
    assert all(p["AlarmActions"] for p in alarms)


def test_the_role_may_use_another_accounts_key_only_by_its_alias(strongest):
    documents = [
        p["PolicyDocument"] for n, p in strongest.protected.of("AWS::IAM::ManagedPolicy") if "Replication" in n
    ]
    (encrypt,) = [s for d in documents for s in d["Statement"] if s["Sid"].startswith("Encrypt")]
    assert encrypt["Condition"]["ForAnyValue:StringEquals"]["kms:ResourceAliases"] == [
        f"alias/aurora-backup-copies-{hardened.KEEPER}-{hardened.REGION}"
    ]


def test_the_role_may_not_replicate_deletions(strongest):
    assert "ReplicateDelete" not in str(list(strongest.protected.of("AWS::IAM::ManagedPolicy")))
    assert "ReplicateDelete" not in str(list(strongest.keeper.of("AWS::S3::BucketPolicy")))


def replicated(to):
    stack = new_stack(env=ENV)
    Replication(stack, "Away", bucket=s3.Bucket(stack, "Bucket", versioned=True), key=kms.Key(stack, "Key"), to=to)
    return Synthesised.of(stack)


def test_evidence_can_go_to_one_account_and_dump_sets_to_another():
    audit = Replica(bucket_name="audit", account="777788889999", region=hardened.REGION, key_alias="alias/audit")
    to = [
        ReplicateTo(to=FAR, prefixes=("logical-backups",)),
        ReplicateTo(to=audit, prefixes=("compliance-backups/evidence",)),
    ]
    found = replicated(to).one("AWS::S3::Bucket")["ReplicationConfiguration"]["Rules"]
    assert [(r["Filter"]["Prefix"], r["Destination"]["Account"]) for r in found] == [
        ("logical-backups/", hardened.KEEPER), ("compliance-backups/evidence/", "777788889999"),
    ]  # fmt: skip


def test_a_replica_in_the_same_account_is_refused_because_one_administrator_deletes_both():
    own = Replica(bucket_name="near", account=hardened.PROTECTED, region="eu-central-1", key_alias="alias/near")
    with pytest.raises(SynthError, match=f"another account than {hardened.PROTECTED}"):
        replicated([ReplicateTo(to=own)])


def test_replication_of_nothing_is_refused():
    with pytest.raises(SynthError, match="got 0"):
        replicated([])


def test_the_replication_of_an_existing_bucket_is_refused_because_it_cannot_be_set_from_here():
    stack = new_stack(env=ENV)
    bucket = s3.Bucket.from_bucket_name(stack, "Theirs", "theirs")
    with pytest.raises(SynthError, match="got theirs"):
        backed_up(stack, bucket=bucket, replicate_to=[ReplicateTo(to=FAR)])


def test_a_replica_bucket_in_a_stack_without_an_account_is_refused():
    with pytest.raises(SynthError, match="must name its account and Region"):
        ReplicaBucket(new_stack(), "Far", name="far", copies_from=[hardened.PROTECTED], policy=RetentionPolicy.hipaa())
