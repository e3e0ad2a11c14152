"""The gatherer: what AWS says becomes facts, what fails becomes an observation that failed, and nothing is guessed."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from aurora_backup import compliance_settings
from aurora_backup.checks import CHECKS
from aurora_backup.compliance import Status, assess
from aurora_backup.compliance_gather import SERVICES, Gatherer
from aurora_backup.errors import SettingsError
from aurora_backup.evidence import ROOT, sha256
from aurora_backup.evidence_store import EvidenceStore
from aurora_backup.policy import RetentionPolicy
from aurora_backup.read_back import read_back
from aurora_backup.s3 import Bucket
from aurora_backup.validation import Verdict
from tests.unit.healthy_facts import EXPECTED, NOW

BUCKET, REGION = "backups", "eu-west-1"


def refusal(code="AccessDenied", status=403):
    response = {"Error": {"Code": code, "Message": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "Operation")


class Broken:
    """A service that refuses every call."""

    def __getattr__(self, name):
        def call(*_, **__):
            raise refusal()

        return call


class NoHolds:
    @staticmethod
    def holds():
        return ()


def gatherer(clients=None, bucket=None, expected=EXPECTED):
    bucket = bucket or Bucket(Broken(), BUCKET)
    return Gatherer(
        {service: Broken() for service in SERVICES} | (clients or {}),
        bucket,
        expected,
        evidence=EvidenceStore(bucket.client, BUCKET, expected.owner, keep=expected.policy.evidence_keep, mode=None),
        holds=NoHolds(),
        clock=lambda: NOW,
    )


def test_where_every_call_is_refused_every_observation_says_so_and_nothing_passes():
    facts = gatherer().gather()
    failed = {name for name, o in facts["observations"].items() if not o["ok"]}
    assert set(facts["observations"]) - failed == {"legal-holds", "keys"}
    assert all("AccessDenied" in key["problem"] for key in facts["observations"]["keys"]["value"])
    assert all("value" not in facts["observations"][name] for name in failed)
    assert all(facts["observations"][name]["error"] for name in failed)
    assessment = assess(facts, EXPECTED, NOW, checks=CHECKS)
    assert {r.verdict for r in assessment.results} == {Verdict.UNKNOWN}
    assert assessment.status is Status.INCOMPLETE


def test_every_observation_names_its_call_as_iam_does():
    for name, observation in gatherer().gather()["observations"].items():
        for call in observation["call"].split(", "):
            service, _, action = call.partition(":")
            assert service in {"rds", "backup", "kms", "sns", "logs", "states", "s3", "iam", "lambda"}, name
            assert action[0].isupper(), name


def test_every_check_reads_only_what_is_gathered():
    gathered = set(gatherer().gather()["observations"])
    for result in assess({}, EXPECTED, NOW, checks=CHECKS).results:
        assert {e.name for e in result.evidence} <= gathered, result.spec.id


class Paged:
    """A service whose listing answers its first page, and fails on the second."""

    def __init__(self, operation, page):
        self._operation, self._page = operation, page

    def get_paginator(self, name):
        class Pages:
            @staticmethod
            def paginate(**_):
                if name != self._operation:
                    raise refusal()
                yield self._page
                raise refusal("ThrottlingException", 400)

        return Pages

    def __getattr__(self, name):
        def call(*_, **__):
            raise refusal()

        return call


@pytest.mark.parametrize(
    ("name", "service", "operation", "page"),
    [
        ("log-groups", "logs", "describe_log_groups", {"logGroups": [{"logGroupName": "Stack-x", "kmsKeyId": "k"}]}),
        ("backup-jobs", "backup", "list_backup_jobs", {"BackupJobs": []}),
        ("copies", "backup", "list_recovery_points_by_backup_vault", {"RecoveryPoints": []}),
        ("selections", "backup", "list_backup_selections", {"BackupSelectionsList": []}),
    ],
)
def test_a_listing_whose_last_page_was_not_read_is_no_observation(name, service, operation, page):
    observation = gatherer({service: Paged(operation, page)}).gather()["observations"][name]
    assert (observation["ok"], "ThrottlingException" in observation["error"]) == (False, True)


@pytest.fixture
def aws():
    with mock_aws():
        yield lambda service: boto3.client(service, region_name=REGION)


def bucket_of(aws, **options):
    s3 = aws("s3")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION}, **options)
    return Bucket(s3, BUCKET)


def test_a_bucket_without_settings_is_observed_to_have_none(aws):
    found = gatherer(bucket=bucket_of(aws)).gather()["observations"]
    assert found["bucket-lifecycle"]["value"] == []
    assert found["bucket-policy"]["value"] == {"document": None}
    assert found["bucket-versioning"]["value"] == {"status": ""}
    assert found["bucket-lock"]["value"] == {"enabled": False}
    assert set(found["bucket-public-access"]["value"].values()) == {False}
    assert found["previous"]["value"] == {"created": None, "points": [], "documents": []}
    assert found["documents"]["value"] == []
    assert (found["sets"]["value"], found["objects"]["value"]) == ([], [])


def test_a_bucket_s_settings_are_observed_as_they_are(aws):
    bucket = bucket_of(aws, ObjectLockEnabledForBucket=True)
    rule = {
        "ID": "x",
        "Status": "Enabled",
        "Filter": {"Prefix": "logical-backups/"},
        "Expiration": {"Days": 90},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 30},
        "Transitions": [{"Days": 30, "StorageClass": "GLACIER"}],
    }
    bucket.client.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration={"Rules": [rule]})
    default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "arn:key"}
    encryption = {"Rules": [{"ApplyServerSideEncryptionByDefault": default}]}
    bucket.client.put_bucket_encryption(Bucket=BUCKET, ServerSideEncryptionConfiguration=encryption)
    found = gatherer(bucket=bucket).gather()["observations"]
    assert found["bucket-encryption"]["value"] == {"algorithm": "aws:kms", "key": "arn:key"}
    assert found["bucket-versioning"]["value"] == {"status": "Enabled"}
    assert found["bucket-lock"]["value"] == {"enabled": True}
    assert found["bucket-lifecycle"]["value"] == [
        {
            "status": "Enabled",
            "prefix": "logical-backups/",
            "narrowed_by": [],
            "expire_days": 90,
            "expire_date": None,
            "noncurrent_days": 30,
            "transitions": [{"days": 30, "date": None, "storage_class": "GLACIER"}],
            "noncurrent_transitions": [],
        }
    ]


class Answers:
    """A service that knows one answer for each operation, and lists in one page."""

    def __init__(self, **answers):
        self._answers = answers

    def __getattr__(self, name):
        answer = self._answers.get(name, refusal())

        def call(**_):
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call

    def get_paginator(self, name):
        class Pages:
            paginate = staticmethod(lambda **_: [getattr(self, name)()])

        return Pages


def test_a_lifecycle_rule_s_date_tags_sizes_and_old_versions_are_observed():
    date = datetime(2026, 12, 1, tzinfo=UTC)
    conditions = {"Prefix": "logical-backups/", "Tags": [{"Key": "stage", "Value": "test"}], "ObjectSizeLessThan": 9}
    rules = [
        {"Status": "Enabled", "Filter": {"And": conditions}, "Expiration": {"Date": date}},
        {"Status": "Enabled", "Filter": {"Tag": {"Key": "a", "Value": "b"}}}
        | {"NoncurrentVersionTransitions": [{"NoncurrentDays": 1, "StorageClass": "GLACIER"}]}
        | {"Transitions": [{"Date": date, "StorageClass": "DEEP_ARCHIVE"}]},
    ]
    s3 = Answers(get_bucket_lifecycle_configuration={"Rules": rules})
    first, second = gatherer(bucket=Bucket(s3, BUCKET)).gather()["observations"]["bucket-lifecycle"]["value"]
    assert (first["prefix"], first["narrowed_by"]) == ("logical-backups/", ["stage=test", "ObjectSizeLessThan 9"])
    assert (first["expire_days"], first["expire_date"]) == (None, date.isoformat())
    assert (second["prefix"], second["narrowed_by"]) == ("", ["a=b"])
    assert second["transitions"] == [{"days": None, "date": date.isoformat(), "storage_class": "DEEP_ARCHIVE"}]
    assert second["noncurrent_transitions"] == [{"days": 1, "storage_class": "GLACIER"}]


def test_what_a_selection_leaves_out_is_observed():
    condition = {"StringEquals": [{"ConditionKey": "aws:ResourceTag/a", "ConditionValue": "b"}]}
    selection = {
        "SelectionName": "Cluster",
        "Resources": ["arn"],
        "NotResources": ["other"],
        "ListOfTags": [{"ConditionType": "STRINGEQUALS", "ConditionKey": "c", "ConditionValue": "d"}],
        "Conditions": condition,
    }
    backup = Answers(
        list_backup_selections={"BackupSelectionsList": [{"SelectionId": "1"}]},
        get_backup_selection={"BackupSelection": selection},
    )
    assert gatherer({"backup": backup}).gather()["observations"]["selections"]["value"] == [
        {
            "name": "Cluster",
            "resources": ["arn"],
            "not_resources": ["other"],
            "narrowed_by": ["c=d", "StringEquals aws:ResourceTag/a b"],
        }
    ]


class Keys(Answers):
    """KMS that knows some keys by name."""

    def __init__(self, **states):
        self._states = states

    def describe_key(self, KeyId):  # noqa: N803
        state = self._states[KeyId.replace("/", "_").rpartition(":")[2]]
        if isinstance(state, Exception):
            raise state
        return {"KeyMetadata": {"Arn": "arn:x", "KeyManager": "AWS", "KeyState": state}}


def test_each_key_is_described_by_the_name_that_it_was_given_and_one_refusal_hides_no_other():
    topic = "arn:aws:kms:eu-west-1:111122223333:alias/sns"
    sns = Answers(get_topic_attributes={"Attributes": {"KmsMasterKeyId": topic}})
    for error, state in ((refusal("NotFoundException", 400), "missing"), (refusal(), None)):
        kms = Keys(key_backup=error, alias_sns="Enabled")
        keys = gatherer({"sns": sns, "kms": kms}).gather()["observations"]["keys"]["value"]
        found = {key["arn"]: (key["manager"], key["state"], key["problem"] is None) for key in keys}
        assert found == {topic: ("AWS", "Enabled", True), EXPECTED.key_arn: (None, state, state is not None)}


class Clusters(Answers):
    """RDS with the cluster, and with AWS Backup's snapshots of some clusters."""

    def __init__(self, arn, snapshots):
        cluster = {"DBClusterArn": arn, "DBClusterIdentifier": "clinic", "KmsKeyId": EXPECTED.key_arn}
        super().__init__(describe_db_clusters={"DBClusters": [cluster]})
        self._snapshots = snapshots

    def describe_db_cluster_snapshots(self, SnapshotType, **_):  # noqa: N803
        return {"DBClusterSnapshots": self._snapshots if SnapshotType == "awsbackup" else []}


def test_points_are_the_cluster_s_by_resource_id_also_after_a_recovery_under_another_name_and_so_are_copies():
    cluster = f"arn:aws:rds:{REGION}:111122223333:cluster:clinic"

    def snapshot(name, resource_id):
        arn = f"arn:aws:rds:{REGION}:111122223333:cluster-snapshot:awsbackup:{name}"
        return {"DBClusterSnapshotArn": arn, "DBClusterSnapshotIdentifier": name, "DbClusterResourceId": resource_id}

    snapshots = [snapshot("before", EXPECTED.lineage[0]), snapshot("reused", "cluster-OTHER")]
    points = [
        {"RecoveryPointArn": s["DBClusterSnapshotArn"], "ResourceArn": arn, "EncryptionKeyArn": "arn:k"}
        for s, arn in zip(snapshots, (cluster + "-before", cluster), strict=True)
    ]
    points.append({"RecoveryPointArn": "arn:not-in-rds", "ResourceArn": cluster, "IsEncrypted": True})
    backup = Answers(list_recovery_points_by_backup_vault={"RecoveryPoints": points})
    found = gatherer({"rds": Clusters(cluster, snapshots), "backup": backup}).gather()["observations"]
    for name in ("recovery-points", "copies"):
        assert [p["arn"] for p in found[name]["value"]] == [snapshots[0]["DBClusterSnapshotArn"], "arn:not-in-rds"]
    assert "arn:k" in {key["arn"] for key in found["keys"]["value"]}


def test_another_cluster_s_recovery_test_proves_nothing_of_ours(aws):
    bucket = bucket_of(aws)
    report = {"finished": NOW.isoformat(), "outcome": "RESTORED", "recovery_point": {"tier": "weekly"}}
    report |= {"rto_seconds": 1, "rpo_seconds": 1, "owner": "Other", "source": {"resource_id": "cluster-OTHER"}}
    bucket.write(f"{ROOT}recovery-tests/weekly/1_test.json", json.dumps(report), once=True)

    def tests():
        return gatherer(bucket=bucket).gather()["observations"]["recovery-tests"]["value"]

    assert tests() == []
    ours = report | {"source": {"resource_id": EXPECTED.lineage[0]}, "outcome": "DAMAGED"}
    bucket.write(f"{ROOT}recovery-tests/weekly/0_test.json", json.dumps(ours), once=True)
    assert [t["outcome"] for t in tests()] == ["DAMAGED"]


def test_a_set_with_an_altered_manifest_is_seen_and_its_archives_cannot_be_judged(aws):
    bucket = bucket_of(aws)
    key = f"logical-backups/{EXPECTED.lineage[0]}/clinic/20261121T020000Z/"
    bucket.write(key + "0000.dump", "PGDMP", once=True)
    bucket.write(key + "manifest.json", '{"format_version": 1, "digest": "0"}', once=True)
    facts = gatherer(bucket=bucket).gather()
    (found,) = facts["observations"]["sets"]["value"]
    assert (found["database"], found["newest"], found["verification"]) == ("clinic", True, None)
    assert (found["manifest"]["ok"], "altered" in found["manifest"]["problem"]) == (False, True)
    objects = {item["key"]: item for item in facts["observations"]["objects"]["value"]}
    assert objects[key + "0000.dump"]["recorded"] == {"bytes": None, "crc32": None, "version": None}
    verdicts = {r.spec.id: r.verdict for r in assess(facts, EXPECTED, NOW, checks=CHECKS).results}
    assert verdicts["integrity.manifests"] is Verdict.FAIL
    assert verdicts["integrity.archives"] is Verdict.UNKNOWN


def test_what_was_written_of_late_is_grouped_by_its_encryption_and_what_is_gone_is_left_out(aws, monkeypatch):
    bucket, now = bucket_of(aws), datetime.now(UTC)
    key = boto3.client("kms", region_name=REGION).create_key()["KeyMetadata"]["Arn"]
    kms = Bucket(bucket.client, BUCKET, kms_key=key)
    plain = ["automated-backups/a", *(f"compliance-backups/{n}" for n in range(4)), "registers/holds/x.json"]
    for name in ("logical-backups/a", "manual-backups/a", "registers/holds/y.json"):
        kms.write(name, "x", once=True)
    for name in (*plain, "elsewhere/a", "compliance-backups/gone", "compliance-backups/refused"):
        bucket.write(name, "x", once=True)
    answers = {"compliance-backups/gone": refusal("404", 404), "compliance-backups/refused": refusal("400", 400)}
    head = bucket.client.head_object

    def answer(**given):
        if given["Key"] in answers:
            raise answers[given["Key"]]
        return head(**given)

    monkeypatch.setattr(bucket.client, "head_object", answer)

    def recent(at):
        asking = gatherer(bucket=bucket)
        monkeypatch.setattr(asking, "_clock", lambda: at)
        found = asking.gather()["observations"]["recent-objects"]["value"]
        return found, {(g["encryption"], g["key"]): (g["objects"], g["some"]) for g in found["groups"]}

    found, groups = recent(now)
    assert found["since"] == (now - timedelta(days=8)).isoformat()
    assert groups == {
        (None, None): (6, plain[:3]),
        ("aws:kms", key): (3, ["logical-backups/a", "manual-backups/a", "registers/holds/y.json"]),
    }
    (refused,) = found["unread"]
    assert (refused["key"], "400" in refused["problem"]) == ("compliance-backups/refused", True)
    assert recent(now + timedelta(days=7.9))[1] == groups
    found, groups = recent(now + timedelta(days=8.1))
    assert (groups, found["unread"]) == ({}, [])


class Functions:
    """Lambda, where the function that reads back is ours, run on the spot; restores: the role of the other one."""

    def __init__(self, bucket=None, restores="arn:role/restore", error=None):
        self._bucket, self._error = bucket, error
        self._roles = {EXPECTED.read_back: "arn:role/restore", EXPECTED.restore: restores}

    def get_function_configuration(self, FunctionName):  # noqa: N803
        return {"Role": self._roles[FunctionName]}

    def invoke(self, FunctionName, Payload):  # noqa: N803
        assert FunctionName == EXPECTED.read_back
        if self._error:
            said = {"errorType": "Sandbox.Timedout", "errorMessage": "Task timed out"}
            return {"FunctionError": "Unhandled", "Payload": io.BytesIO(json.dumps(said).encode())}
        said = {"objects": read_back(self._bucket, json.loads(Payload)["objects"])}
        return {"Payload": io.BytesIO(json.dumps(said).encode())}


def read_back_of(bucket, functions):
    """The observation, and how the check ends."""
    facts = gatherer({"lambda": functions}, bucket=bucket).gather()
    results = {r.spec.id: r for r in assess(facts, EXPECTED, NOW, checks=CHECKS).results}
    return facts["observations"]["read-back"], results["accessibility.archives"]


def test_archives_are_read_back_by_the_function_of_the_restoring_role_and_each_role_is_named(aws):
    bucket = bucket_of(aws)
    key = f"logical-backups/{EXPECTED.lineage[0]}/clinic/20261121T020000Z/"
    for name, data in (("0000.dump", "PGDMP"), ("manifest.json", "{}")):
        bucket.write(key + name, data, once=True)
    observation, result = read_back_of(bucket, Functions(bucket))
    assert (observation["value"]["role"], observation["value"]["restores_under"]) == ("arn:role/restore",) * 2
    fine = {"state": "read", "problem": None}
    answers = {item.pop("key").removeprefix(key): item for item in observation["value"]["objects"]}
    assert answers == {"manifest.json": fine, "0000.dump": fine}
    assert (result.verdict, "under arn:role/restore" in result.reason) == (Verdict.PASS, True)
    _, result = read_back_of(bucket, Functions(bucket, restores="arn:role/changed"))
    assert (result.verdict, "arn:role/changed" in result.reason) == (Verdict.UNKNOWN, True)


def test_an_object_that_s3_refuses_to_describe_hides_no_other_and_is_read_back_all_the_same(aws, monkeypatch):
    bucket = bucket_of(aws)
    key = f"logical-backups/{EXPECTED.lineage[0]}/clinic/20261121T020000Z/"
    for name in ("0000.dump", "manifest.json"):
        bucket.write(key + name, "{}", once=True)
    head = bucket.client.head_object

    def answer(**given):
        if given["Key"].endswith(".dump"):
            raise refusal("400", 400)
        return head(**given)

    monkeypatch.setattr(bucket.client, "head_object", answer)
    observations = gatherer({"lambda": Functions(bucket)}, bucket=bucket).gather()["observations"]
    found = {o["key"].removeprefix(key): o for o in observations["objects"]["value"]}
    assert (found["0000.dump"]["found"], "400" in found["0000.dump"]["problem"]) == (None, True)
    assert (found["manifest.json"]["problem"], found["manifest.json"]["found"]["bytes"]) == (None, 2)
    assert {o["state"] for o in observations["read-back"]["value"]["objects"]} == {"read"}
    assert len(observations["read-back"]["value"]["objects"]) == 2


def test_after_a_gap_in_the_reports_what_was_written_since_the_last_one_is_looked_at(aws):
    bucket = bucket_of(aws)
    store = EvidenceStore(bucket.client, BUCKET, EXPECTED.owner, keep=EXPECTED.policy.evidence_keep, mode=None)
    store.append(
        kind="compliance-report",
        execution="run",
        created=NOW - timedelta(days=30),
        body={"documents": []},
        attachments={"report.json": json.dumps({"points": []}).encode()},
    )
    found = gatherer(bucket=bucket).gather()["observations"]["recent-objects"]["value"]
    assert found["since"] == (NOW - timedelta(days=32)).isoformat()


@pytest.mark.parametrize(("functions", "says"), [(Functions(error=True), "Task timed out"), (Broken(), "AccessDenied")])
def test_where_the_reading_function_fails_nothing_was_read_back(aws, functions, says):
    observation, result = read_back_of(bucket_of(aws), functions)
    assert (observation["ok"], says in observation["error"]) == (False, True)
    assert result.verdict is Verdict.UNKNOWN


def test_an_altered_report_is_not_what_the_next_one_builds_on(aws):
    bucket = bucket_of(aws)
    store = EvidenceStore(bucket.client, BUCKET, EXPECTED.owner, keep=EXPECTED.policy.evidence_keep, mode=None)
    written = store.append(
        kind="compliance-report",
        execution="run",
        created=NOW - timedelta(days=1),
        body={},
        attachments={"report.json": json.dumps({"points": [{"id": "x"}]}).encode()},
    )
    assert gatherer(bucket=bucket).gather()["observations"]["previous"]["value"] == {
        "created": (NOW - timedelta(days=1)).isoformat(),
        "points": [{"id": "x"}],
        "documents": [],
    }
    bucket.write(written.record.attachments[0].key, json.dumps({"points": []}), once=False)
    observation = gatherer(bucket=bucket).gather()["observations"]["previous"]
    assert (observation["ok"], "was altered" in observation["error"]) == (False, True)


def test_documents_beside_the_chain_are_listed_since_the_last_report_and_what_it_named_is_looked_at_again(aws):
    bucket = bucket_of(aws)
    hold = f"registers/holds/{EXPECTED.owner}/20261107T020003.000000Z-a.json"
    bucket.write(hold, "{}", once=True)
    bucket.write(f"{ROOT}retention/{EXPECTED.owner}/latest.json", "{}", once=True)
    store = EvidenceStore(bucket.client, BUCKET, EXPECTED.owner, keep=EXPECTED.policy.evidence_keep, mode=None)

    def documents():
        return gatherer(bucket=bucket).gather()["observations"]["documents"]["value"]

    first = documents()
    assert first == [{"key": hold, "sha256": sha256(b"{}"), "bytes": 2}]

    def report(n, body):
        # Long after the hold was written, as S3 dates it: it is looked at only because it is named.
        attached = {"report.json": json.dumps({"points": []}).encode()}
        created = datetime.now(UTC) + timedelta(days=10 + n)
        store.append(kind="compliance-report", execution=f"run-{n}", created=created, body=body, attachments=attached)

    report(1, {"documents": first})
    bucket.write(hold, "[]", once=False)
    observations = gatherer(bucket=bucket).gather()["observations"]
    assert observations["documents"]["value"] == [{"key": hold, "sha256": sha256(b"[]"), "bytes": 2}]
    assert observations["previous"]["value"]["documents"] == first
    report(2, {"documents": None})  # it could not list them, so the next one lists all
    observations = gatherer(bucket=bucket).gather()["observations"]
    assert observations["previous"]["value"]["documents"] == first, "what was named before it is not forgotten"
    assert [d["key"] for d in observations["documents"]["value"]] == [hold]
    report(3, {"documents": []})
    assert documents() == []


def test_only_who_may_delete_is_kept_of_the_account_s_policies(aws):
    iam = aws("iam")
    arn = iam.create_role(RoleName="ops", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    statement = {"Effect": "Allow", "Action": "rds:Delete*", "Resource": "*", "Condition": {"Bool": {"a:b": "c"}}}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_role_policy(RoleName="ops", PolicyName="p", PolicyDocument=document)
    found = gatherer({"iam": iam}).gather()["observations"]["identities"]
    assert found["value"] == {
        "principals": [{"arn": arn, "may": {"snapshots": "sometimes", "cluster": "sometimes"}}],
        "unread": [],
    }


def test_size_and_costs_are_those_that_the_last_retention_plan_saw(aws):
    bucket = bucket_of(aws)

    def storage():
        return gatherer(bucket=bucket).gather()["observations"]["storage"]

    assert storage()["value"] == {"bytes": None, "costs": None}
    prefix = f"{ROOT}retention/{EXPECTED.owner}/"
    plan = {"now": NOW.isoformat(), "lineage": [], "decisions": [], "costs": {"problem": None, "tiers": []}}
    bucket.write(f"{prefix}2026-11-23-run/plan.json", json.dumps(plan), once=True)
    bucket.write(f"{prefix}latest.json", json.dumps({"plan": f"{prefix}2026-11-23-run/plan.json"}), once=True)
    assert storage()["value"]["costs"] == {"at": NOW.isoformat(), "problem": None, "tiers": []}
    bucket.write(f"{prefix}latest.json", '{"plan": 5}', once=False)
    assert storage()["ok"] is False


# --- Settings --------------------------------------------------------------------------------------------------------

ENVIRONMENT = {
    "OWNER": "Stack-Backup",
    "CLUSTER_ID": "clinic",
    "CLUSTER_RESOURCE_ID": "cluster-A",
    "BACKUP_BUCKET": BUCKET,
    "BACKUP_KEY_ARN": "arn:key",
    "RETENTION_POLICY": RetentionPolicy.hipaa().to_json(),
    "COMPLIANCE": json.dumps({"vault": "v", "databases": ["clinic"], "vault_locked": True, "workflows": {"X": "arn"}}),
    "LINEAGE": '["cluster-B"]',
}


def test_what_is_expected_comes_from_the_environment():
    found = compliance_settings.expected(ENVIRONMENT)
    assert found.lineage == ("cluster-A", "cluster-B")
    assert (found.vault, found.databases, found.vault_locked) == ("v", ("clinic",), True)
    assert found.policy == RetentionPolicy.hipaa()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OWNER", ""), ("BACKUP_KEY_ARN", ""), ("RETENTION_POLICY", "{}"), ("COMPLIANCE", "["), ("COMPLIANCE", "[]"),
        ("COMPLIANCE", '{"owner": "x"}'), ("COMPLIANCE", '{"unknown": 1}'), ("LINEAGE", '"x"'), ("LINEAGE", "[1]"),
    ],
)  # fmt: skip
def test_a_malformed_environment_is_refused_and_the_variable_named(name, value):
    with pytest.raises(SettingsError, match=name):
        compliance_settings.expected({**ENVIRONMENT, name: value})


def test_the_lock_is_governance_unless_said_otherwise():
    assert compliance_settings.lock_mode({}) == "GOVERNANCE"
    assert compliance_settings.lock_mode({"EVIDENCE_LOCK": "COMPLIANCE"}) == "COMPLIANCE"
    assert compliance_settings.lock_mode({"EVIDENCE_LOCK": "NONE"}) is None
    with pytest.raises(SettingsError, match="EVIDENCE_LOCK"):
        compliance_settings.lock_mode({"EVIDENCE_LOCK": "OFF"})


def test_times_of_calls_are_aware():
    assert datetime.fromisoformat(gatherer().gather()["observations"]["vault"]["at"]).tzinfo == UTC
