"""The two compliance functions on the local AWS: facts gathered from it, evidence locked in its S3, replays, drift."""

from __future__ import annotations

import json
import secrets
import time
from datetime import UTC, datetime, timedelta

import pytest

from aurora_backup.cli import main
from aurora_backup.evidence import Rules, verify
from aurora_backup.evidence_store import EvidenceNotWritten, EvidenceStore
from aurora_backup.handlers import gather_compliance, report_compliance
from aurora_backup.policy import RetentionPolicy
from tests import recording

OWNER = "Compliance-Test"
POLICY = RetentionPolicy.dev()


@pytest.fixture(scope="module")
def deployed(local_aws):
    """A cluster, a key, a topic and a locked bucket with the policy's lifecycle; the functions' environment."""
    kms, s3, rds = (local_aws.client(name) for name in ("kms", "s3", "rds"))
    key = kms.create_key()["KeyMetadata"]["Arn"]
    kms.enable_key_rotation(KeyId=key)
    bucket, name = f"compliance-{secrets.token_hex(4)}", f"clinic-{secrets.token_hex(4)}"
    where = {"CreateBucketConfiguration": {"LocationConstraint": local_aws.region}}
    s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True, **where)
    default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
    encryption = {"Rules": [{"ApplyServerSideEncryptionByDefault": default}]}
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=encryption)
    rules = [
        {
            "ID": rule.prefix,
            "Status": "Enabled",
            "Filter": {"Prefix": rule.prefix},
            "Expiration": {"Days": rule.expire_days},
            "NoncurrentVersionExpiration": {"NoncurrentDays": rule.noncurrent_days},
            "Transitions": [{"Days": t.days, "StorageClass": t.storage_class.value} for t in rule.transitions],
        }
        for rule in POLICY.lifecycle_rules()
    ]
    for rule in rules:
        rule["Transitions"] or rule.pop("Transitions")
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})
    cluster = rds.create_db_cluster(
        DBClusterIdentifier=name,
        Engine="aurora-postgresql",
        MasterUsername="postgres",
        ManageMasterUserPassword=True,
        StorageEncrypted=True,
        KmsKeyId=key,
        BackupRetentionPeriod=1,
        CopyTagsToSnapshot=True,
        DeletionProtection=True,
    )["DBCluster"]
    deadline = time.monotonic() + 60
    while rds.describe_db_clusters(DBClusterIdentifier=name)["DBClusters"][0]["Status"] != "available":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    environment = {
        **local_aws.env(),
        "OWNER": OWNER,
        "CLUSTER_ID": name,
        "CLUSTER_RESOURCE_ID": cluster["DbClusterResourceId"],
        "BACKUP_BUCKET": bucket,
        "BACKUP_KEY_ARN": key,
        "RETENTION_POLICY": POLICY.to_json(),
        "COMPLIANCE": json.dumps({"workflows": {}, "log_groups": []}),
        "EVIDENCE_LOCK": "GOVERNANCE",
    }
    yield environment
    rds.modify_db_cluster(DBClusterIdentifier=name, DeletionProtection=False, ApplyImmediately=True)
    rds.delete_db_cluster(DBClusterIdentifier=name, SkipFinalSnapshot=True)


@pytest.fixture
def run(deployed, monkeypatch):
    for name, value in deployed.items():
        monkeypatch.setenv(name, value)

    def report(execution=None, **told):
        environment = deployed | {"COMPLIANCE": json.dumps({**json.loads(deployed["COMPLIANCE"]), **told})}
        monkeypatch.setenv("COMPLIANCE", environment["COMPLIANCE"])
        event = {"execution": execution or f"run-{secrets.token_hex(4)}", "started": datetime.now(UTC).isoformat()}
        with recording.listening("Gather", "gather_compliance", environment):
            facts = gather_compliance.handler(event, None)
        with recording.listening("Report", "report_compliance", environment):
            return report_compliance.handler(facts, None)

    return report


def report_of(local_aws, deployed, answer):
    key = answer["attachments"]["report.json"]
    return json.loads(local_aws.client("s3").get_object(Bucket=deployed["BACKUP_BUCKET"], Key=key)["Body"].read())


def verdicts(report):
    return {c["id"]: c["verdict"] for c in report["checks"]}


def store_of(local_aws, deployed):
    return EvidenceStore(
        local_aws.client("s3"), deployed["BACKUP_BUCKET"], OWNER, keep=POLICY.evidence_keep, mode="GOVERNANCE"
    )


def test_facts_come_from_the_local_aws_and_what_is_not_there_is_unknown(local_aws, deployed, run):
    answer = run()
    found = verdicts(report_of(local_aws, deployed, answer))
    for check in ("encryption.cluster", "encryption.bucket", "encryption.key", "encryption.key-rotation"):
        assert found[check] == "PASS", check
    for check in ("retention.cluster", "retention.deletion-protection", "retention.lifecycle", "retention.versions"):
        assert found[check] == "PASS", check
    for check in ("encryption.key-policy", "accessibility.bucket"):
        assert found[check] == "FAIL", check  # nobody denied anything here
    assert found["integrity.recovery-test"] == "UNKNOWN"
    assert answer["compliance_status"] == "FAIL"
    assert answer["remediation_needed"] is True


@pytest.fixture
def restoring(local_aws, deployed, package):
    """The functions that restore sets and read them back, under one role: `{restore, read_back}`, their ARNs."""
    client, suffix = local_aws.client("lambda"), secrets.token_hex(4)
    names = ("BACKUP_BUCKET", "BACKUP_KEY_ARN", "OWNER", "CLUSTER_ID", "CLUSTER_RESOURCE_ID", "RETENTION_POLICY")
    made = {
        name: client.create_function(
            FunctionName=f"{name}-{suffix}",
            Runtime="python3.13",
            Role="arn:aws:iam::000000000000:role/restore",
            Handler=f"aurora_backup.handlers.{handler}.handler",
            Code={"ZipFile": package},
            Timeout=60,
            Environment={"Variables": {**{name: deployed[name] for name in names}, "DB_AUTH": "iam", "DB_USER": "x"}},
        )["FunctionArn"]
        for name, handler in (("restore", "verify"), ("read_back", "read_back"))
    }
    yield made
    for arn in made.values():
        client.delete_function(FunctionName=arn)


def test_archives_are_read_back_by_the_deployed_function_under_the_restoring_role(local_aws, deployed, run, restoring):
    s3, bucket = local_aws.client("s3"), deployed["BACKUP_BUCKET"]
    key = f"logical-backups/{deployed['CLUSTER_RESOURCE_ID']}/clinic/20261121T020000Z/"
    stored = [
        {"Key": key + name, "VersionId": s3.put_object(Bucket=bucket, Key=key + name, Body=body)["VersionId"]}
        for name, body in (("0000.dump", b"PGDMP"), ("manifest.json", b"{}"))
    ]

    def archives():
        return next(
            c for c in report_of(local_aws, deployed, run(**restoring))["checks"] if c["id"] == "accessibility.archives"
        )

    def archived():
        put = s3.put_object(Bucket=bucket, Key=key + "0000.dump", Body=b"PGDMP", StorageClass="GLACIER")
        stored.append({"Key": key + "0000.dump", "VersionId": put["VersionId"]})
        return archives()

    client, config = local_aws.client("lambda"), {"FunctionName": restoring["restore"]}
    try:
        found = archives()
        assert (found["verdict"], "2 objects" in found["reason"]) == ("PASS", True), found["reason"]
        assert "were read under arn:aws:iam::000000000000:role/restore" in found["reason"]
        found = archived()
        assert (found["verdict"], "1 are archived" in found["reason"]) == ("PASS", True), found["reason"]
        client.update_function_configuration(**config, Role="arn:aws:iam::000000000000:role/another")
        assert (archives()["verdict"], archives()["evidence"][0]["name"]) == ("UNKNOWN", "read-back")
    finally:
        s3.delete_objects(Bucket=bucket, Delete={"Objects": stored})


def test_drift_is_found_in_the_next_report_and_gone_in_the_one_after(local_aws, deployed, run):
    rds, name = local_aws.client("rds"), deployed["CLUSTER_ID"]
    rds.modify_db_cluster(DBClusterIdentifier=name, DeletionProtection=False, ApplyImmediately=True)
    try:
        drifted = verdicts(report_of(local_aws, deployed, run()))
    finally:
        rds.modify_db_cluster(DBClusterIdentifier=name, DeletionProtection=True, ApplyImmediately=True)
    assert drifted["retention.deletion-protection"] == "FAIL"
    assert verdicts(report_of(local_aws, deployed, run()))["retention.deletion-protection"] == "PASS"


def test_reports_are_chained_locked_and_written_once(local_aws, deployed, run):
    first = run("the-first")
    run()
    assert run("the-first")["head"] == first["head"]  # a replay
    store = store_of(local_aws, deployed)
    objects = store.objects()
    rules = Rules(keep_days=2191, now=datetime.now(UTC), longest_gap=timedelta(hours=26), gap_kind="compliance-report")
    outcome = verify(objects, OWNER, rules, store.locks(list(objects)))
    assert outcome.problems == ()
    assert outcome.records >= 2


def test_a_changed_report_is_found_by_the_command_in_s3(local_aws, deployed, run, capsys):
    run()
    where = ["--bucket", deployed["BACKUP_BUCKET"], "--endpoint-url", local_aws.endpoint_url]
    assert main(["evidence", "verify", "--json", *where]) == 0
    s3, bucket = local_aws.client("s3"), deployed["BACKUP_BUCKET"]
    key = next(k for k in store_of(local_aws, deployed).objects() if k.endswith("report.html"))
    before = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    version = s3.put_object(Bucket=bucket, Key=key, Body=before.replace(b"FAIL", b"PASS", 1))["VersionId"]
    assert main(["evidence", "verify", "--json", *where]) == 1
    told = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    problems = " ".join(told["owners"][OWNER]["problems"])
    assert "was altered" in problems
    assert "2 versions" in problems
    s3.delete_object(Bucket=bucket, Key=key, VersionId=version)
    assert main(["evidence", "verify", "--json", *where]) == 0


def test_evidence_under_another_key_is_found_by_the_command_in_s3(local_aws, deployed, run, capsys):
    run()
    s3, bucket, key = local_aws.client("s3"), deployed["BACKUP_BUCKET"], deployed["BACKUP_KEY_ARN"]
    where = ["evidence", "verify", "--json", "--bucket", bucket, "--endpoint-url", local_aws.endpoint_url]
    assert main([*where, "--key", key]) == 0
    assert main([*where, "--key", key.rpartition("/")[0] + "/another"]) == 1
    assert f"is under {key}, not" in capsys.readouterr().out
    name = next(k for k in store_of(local_aws, deployed).objects() if k.endswith("report.html"))
    body = s3.get_object(Bucket=bucket, Key=name)["Body"].read()
    version = s3.put_object(Bucket=bucket, Key=name, Body=body, ServerSideEncryption="AES256")["VersionId"]
    assert main(where) == 1
    assert f"{name}: it is encrypted by AES256, not under a KMS key" in capsys.readouterr().out
    s3.delete_object(Bucket=bucket, Key=name, VersionId=version)
    assert main([*where, "--key", key]) == 0


def test_a_legal_hold_that_is_rewritten_is_found_by_the_next_report_and_by_the_command(
    local_aws, deployed, run, capsys, tmp_path
):
    s3, bucket = local_aws.client("s3"), deployed["BACKUP_BUCKET"]
    key = f"registers/holds/{OWNER}/20261123T020003.000000Z-{secrets.token_hex(6)}.json"
    event = {
        "schema": 1, "matter": "2026-17", "action": "placed", "at": "2026-11-23T02:00:03+00:00", "who": "counsel",
        "why": "a case", "owner": OWNER, "points": ["logical-backups/x/y/z/"],
    }  # fmt: skip
    s3.put_object(Bucket=bucket, Key=key, Body=json.dumps(event).encode())
    assert verdicts(report_of(local_aws, deployed, run()))["integrity.documents"] == "PASS"
    released = json.dumps(event | {"points": ["another/"]}).encode()
    version = s3.put_object(Bucket=bucket, Key=key, Body=released)["VersionId"]
    for _ in range(2):  # until it is put right
        report = report_of(local_aws, deployed, run())
        (found,) = (c for c in report["checks"] if c["id"] == "integrity.documents")
        assert (found["verdict"], f"{key} was written again" in found["reason"]) == ("FAIL", True)
    where = ["--bucket", bucket, "--endpoint-url", local_aws.endpoint_url]
    assert main(["evidence", "verify", "--json", *where]) == 1
    assert f"{key} was altered" in capsys.readouterr().out
    s3.delete_object(Bucket=bucket, Key=key, VersionId=version)
    assert main(["evidence", "verify", "--json", *where]) == 0
    assert verdicts(report_of(local_aws, deployed, run()))["integrity.documents"] == "PASS"
    for name, data in store_of(local_aws, deployed).objects().items():  # and from a copy, without AWS
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    assert main(["evidence", "verify", "--json", "--directory", str(tmp_path)]) == 0
    (tmp_path / key).unlink()
    assert main(["evidence", "verify", "--json", "--directory", str(tmp_path)]) == 1
    assert f"{key} is missing" in capsys.readouterr().out


def test_an_owner_whose_whole_chain_was_deleted_is_still_known(local_aws, deployed, run, capsys):
    run()
    s3, bucket = local_aws.client("s3"), deployed["BACKUP_BUCKET"]
    prefix = "compliance-backups/evidence/chain/"
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]]
    markers = [(key, s3.delete_object(Bucket=bucket, Key=key)["VersionId"]) for key in keys]
    assert main(["evidence", "verify", "--json", "--bucket", bucket, "--endpoint-url", local_aws.endpoint_url]) == 1
    assert f"there is no evidence of {OWNER}" in capsys.readouterr().out
    for key, version in markers:
        s3.delete_object(Bucket=bucket, Key=key, VersionId=version)


def test_who_can_delete_is_read_from_the_deployed_identity_policies(local_aws, deployed, run, capsys):
    iam, name = local_aws.client("iam"), f"operator-{secrets.token_hex(4)}"
    allowed = {
        "Effect": "Allow",
        "Action": "s3:DeleteObject*",
        "Resource": f"arn:aws:s3:::{deployed['BACKUP_BUCKET']}/*",
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)["Role"]["Arn"]
    iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=document)
    admin = iam.create_role(RoleName=f"{name}-admin", AssumeRolePolicyDocument=document)["Role"]["Arn"]
    managed = "arn:aws:iam::aws:policy/AdministratorAccess"
    iam.attach_role_policy(RoleName=f"{name}-admin", PolicyArn=managed)
    where = ["--key", deployed["BACKUP_KEY_ARN"], "--bucket", deployed["BACKUP_BUCKET"], "--cluster", "clinic"]
    try:
        report = report_of(local_aws, deployed, run())
        capsys.readouterr()
        assert main(["who-can-delete", "--json", *where, "--endpoint-url", local_aws.endpoint_url]) == 0
        live = {row["what"]: row["who"] for row in json.loads(capsys.readouterr().out)["who_can_delete"]}
    finally:
        iam.detach_role_policy(RoleName=f"{name}-admin", PolicyArn=managed)
        iam.delete_role_policy(RoleName=name, PolicyName="p")
        for role in (name, f"{name}-admin"):
            iam.delete_role(RoleName=role)
    rows = {row["what"]: row["who"] for row in report["who_can_delete"]}
    assert {arn, admin} <= set(rows["dump sets and evidence, with every version"])
    assert (arn in rows["the backup key"], admin in rows["the backup key"]) == (False, True)
    assert verdicts(report)["accessibility.deletion"] == "PASS"
    assert {what: sorted(who) for what, who in live.items()}.items() <= rows.items()


def test_a_report_that_cannot_be_stored_fails_the_workflow(run, monkeypatch):
    event = {"execution": "refused", "started": datetime.now(UTC).isoformat()}
    facts = gather_compliance.handler(event, None)

    def refuse(*_, **__):
        raise EvidenceNotWritten("S3 refused")

    monkeypatch.setattr(EvidenceStore, "append", refuse)
    with pytest.raises(EvidenceNotWritten):
        report_compliance.handler(facts, None)
