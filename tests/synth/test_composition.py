"""AuroraBackup in other people's stacks: what they bring along, twice in a stack, across stacks, and its endpoints."""

from __future__ import annotations

import json
import re

import aws_cdk as cdk
import pytest
from aws_cdk import aws_backup as backup
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_rds as rds
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns
from constructs import Construct

from cdk_aurora_backup import AuroraBackup, BackupAlerts, SynthError
from cdk_aurora_backup.naming import owner_of
from tests.synth.synthesis import (
    ACCOUNT,
    REGION,
    Synthesised,
    backed_up,
    imported_cluster,
    new_app,
    new_stack,
    some_clients,
    some_cluster,
    some_secret,
    some_vpc,
)

KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555"


@pytest.fixture(scope="module")
def plain() -> Synthesised:
    """Of an imported cluster without a secret: logins are by IAM."""
    stack = new_stack()
    backed_up(stack)
    return Synthesised.of(stack)


@pytest.fixture(scope="module")
def brought() -> Synthesised:
    """With a key, a bucket, a vault and a topic of the caller's, all imported."""
    stack = new_stack()
    key = kms.Key.from_key_arn(stack, "MyKey", KEY)
    topic_key = kms.Key.from_key_arn(stack, "MyTopicKey", f"{KEY}0")
    backed_up(
        stack,
        key=key,
        bucket=s3.Bucket.from_bucket_attributes(stack, "MyBucket", bucket_name="mine", encryption_key=key),
        vault=backup.BackupVault.from_backup_vault_name(stack, "MyVault", "mine"),
        topic=sns.Topic.from_topic_attributes(
            stack, "MyTopic", topic_arn=f"arn:aws:sns:{REGION}:{ACCOUNT}:mine", key_arn=topic_key.key_arn
        ),
        alert_emails=[],
    )
    return Synthesised.of(stack)


@pytest.mark.parametrize("kind", ["AWS::KMS::Key", "AWS::S3::Bucket", "AWS::Backup::BackupVault", "AWS::SNS::Topic"])
def test_what_the_caller_brings_is_used_and_not_made_again(brought, kind):
    assert brought.ids(kind) == []


def test_the_brought_things_are_where_the_backups_go(brought):
    rules = brought.one("AWS::Backup::BackupPlan")["BackupPlan"]["BackupPlanRule"]
    assert {r["TargetBackupVault"] for r in rules} == {"mine"}
    told = brought.named("AWS::Lambda::Function", "Dump")["Environment"]["Variables"]
    assert (told["BACKUP_BUCKET"], told["BACKUP_KEY_ARN"]) == ("mine", KEY)


def test_an_existing_key_cannot_be_edited_so_its_statements_are_said(brought):
    said = brought.said("info")
    text = said[said.index("It must hold these statements: ") :].partition(": ")[2].splitlines()[0]
    statements, _ = json.JSONDecoder().raw_decode(text)
    assert {s["Sid"] for s in statements} == {"LogGroups", "Events", "Alarms"}


def test_an_existing_bucket_keeps_its_settings_so_the_least_it_must_keep_is_said(brought):
    assert "logical-backups/ 90, compliance-backups/ 2192" in brought.said("info")


def test_who_publishes_to_an_existing_topic_may_use_its_key(brought):
    sids = {s["Sid"]: s for name, s in brought.policies() if "Workflow" in name}
    assert sids["UseTopicKey"]["Resource"] == f"{KEY}0"


def test_an_existing_topic_cannot_be_edited_so_the_statements_of_its_policy_and_key_are_said(brought):
    said = brought.said("info")
    assert "The policy of an existing topic cannot be edited from here" in said
    assert [said.count(f'"Sid": "{sid}"') for sid in ("PublishAlarms", "PublishVaultEvents", "PublishEvents")] == [
        1
    ] * 3
    assert [said.count(f'"Sid": "{sid}"') for sid in ("LogGroups", "Events", "Alarms")] == [1, 2, 2], "of both keys"


def test_an_existing_topic_is_somebody_who_hears(brought):
    assert "Nobody hears" not in brought.said("warning")


GLASS = f"arn:aws:iam::{ACCOUNT}:role/Glass"


@pytest.fixture(scope="module")
def beside() -> Synthesised:
    """Beside a cluster, two keys, a break-glass role and an S3 endpoint of the same app."""
    stack = new_stack()
    login = rds.Credentials.from_generated_secret("master", encryption_key=kms.Key(stack, "SecretKey"))
    vpc = some_vpc(stack)
    vpc.add_gateway_endpoint("Theirs", service=ec2.GatewayVpcEndpointAwsService.S3)
    backed_up(
        stack,
        vpc=vpc,
        cluster=some_cluster(stack, vpc, credentials=login),
        key=kms.Key(stack, "Mine"),
        break_glass=[iam.Role.from_role_arn(stack, "Glass", GLASS)],
    )
    return Synthesised.of(stack)


def test_a_key_of_the_same_app_gets_the_statements_once(beside):
    sids = [s.get("Sid") for s in beside.named("AWS::KMS::Key", "Mine")["KeyPolicy"]["Statement"]]
    assert [sids.count(sid) for sid in ("LogGroups", "Events", "Alarms")] == [1, 1, 1]
    assert "must hold these statements" not in beside.said("info")


def test_break_glass_beside_an_existing_key_still_guards_the_vault(beside):
    assert GLASS in json.dumps(beside.one("AWS::Backup::BackupVault")["AccessPolicy"])


def test_an_endpoint_that_the_vpc_has_already_is_used(beside):
    gateways = [e for e in beside.all("AWS::EC2::VPCEndpoint") if e["VpcEndpointType"] == "Gateway"]
    assert len(gateways) == 1


def test_two_in_one_stack_share_the_vpcs_endpoints_and_nothing_else():
    stack = new_stack()
    vpc, clients, secret = some_vpc(stack), some_clients(stack), some_secret(stack)
    for n in ("One", "Two"):
        cluster = imported_cluster(stack, f"Cluster{n}", secret=secret)
        backed_up(stack, n, vpc=vpc, cluster=cluster, clients=clients)
    template = Synthesised.of(stack)
    services = sorted(e["ServiceName"].rpartition(".")[2] for e in template.all("AWS::EC2::VPCEndpoint"))
    assert len(services) == len(set(services))
    assert {"s3", "secretsmanager"} <= set(services)
    owners = {f["Environment"]["Variables"]["OWNER"] for f in template.all("AWS::Lambda::Function")}
    assert len(owners) == 2
    assert len(template.ids("AWS::S3::Bucket")) == 4
    endpoint = next(e for e in template.all("AWS::EC2::VPCEndpoint") if e["ServiceName"].endswith("secretsmanager"))
    (group,) = endpoint["SecurityGroupIds"]
    sources = [
        r["SourceSecurityGroupId"] for r in template.all("AWS::EC2::SecurityGroupIngress") if r["GroupId"] == group
    ]
    functions = {
        g for f in template.all("AWS::Lambda::Function") for g in f.get("VpcConfig", {}).get("SecurityGroupIds", [])
    }
    assert set(sources) >= functions, "each backup's functions are let in"
    assert len(sources) == len(set(sources))


def test_the_owner_differs_between_stacks_and_stays_for_one_stack():
    found = [owner_of(Construct(new_stack(name), "Backup")) for name in ("A", "B", "A")]
    assert found[0] == found[2] != found[1]
    assert all(re.fullmatch(r"[A-Za-z0-9-]{1,60}", owner) for owner in found)


def test_a_cluster_and_a_vpc_of_another_stack_make_no_cycle():
    app = new_app()
    env = cdk.Environment(account=ACCOUNT, region=REGION)
    there, here = cdk.Stack(app, "There", env=env), cdk.Stack(app, "Here", env=env)
    vpc = some_vpc(there)
    cluster = some_cluster(there, vpc)
    AuroraBackup(
        here, "Backup", cluster=cluster, vpc=vpc, clients=some_clients(here), alert_emails=["oncall@example.org"]
    )
    template = Synthesised.of(here)
    assert [r for r in template.all("AWS::EC2::SecurityGroupIngress") if r["IpProtocol"] == "tcp"], "the rule is ours"
    assert not [d for d in there.dependencies if d is here]


def test_without_a_secret_no_endpoint_for_secrets_is_made_and_functions_log_in_as_the_role(plain):
    services = {e["ServiceName"].rpartition(".")[2] for e in plain.all("AWS::EC2::VPCEndpoint")}
    assert "s3" in services
    assert "secretsmanager" not in services
    told = plain.named("AWS::Lambda::Function", "Dump")["Environment"]["Variables"]
    assert (told["DB_AUTH"], told["DB_USER"]) == ("iam", "aurora_backup")
    (connect,) = {json.dumps(s["Resource"]) for n, s in plain.policies() if s["Sid"] == "ConnectByIam" and "Dump" in n}
    assert connect.endswith(':dbuser:cluster-ABCDEFGHIJKLMNOP/aurora_backup"')


def test_clients_of_the_callers_own_are_used_and_ours_are_not_made(plain):
    (server,) = plain.ids("AWS::Lambda::LayerVersion")  # for trial restores
    assert "Server" in server
    layers = plain.named("AWS::Lambda::Function", "Dump")["Layers"]
    assert [layer.rpartition(":layer:")[2] for layer in layers] == ["clients:1"]


def test_a_secret_under_a_key_of_its_own_can_be_read(beside):
    (secrets_key,) = [name for name in beside.ids("AWS::KMS::Key") if name.startswith("SecretKey")]
    decrypt = {s["Sid"]: s for name, s in beside.policies() if "Dump" in name}["DecryptSecret"]
    assert (decrypt["Action"], decrypt["Resource"]) == ("kms:Decrypt", f"<{secrets_key}.Arn>")


@pytest.mark.parametrize("address", ["oncall", "@example.org", "oncall@", "a@b@c"])
def test_an_address_that_is_none_is_refused(address):
    stack = new_stack()
    cluster = imported_cluster(stack).cluster
    with pytest.raises(SynthError, match=rf"BackupAlerts\.emails must be e-mail addresses, got '{address}'"):
        BackupAlerts(stack, "Alerts", key=kms.Key(stack, "Key"), cluster=cluster, emails=[address])


# BackupAlerts.


@pytest.mark.parametrize(("kind", "field"), [("Backup Job", "state"), ("Copy Job", "state"), ("Restore Job", "status")])
def test_jobs_of_aws_backup_that_fail_are_heard_of(plain, kind, field):
    patterns = [r["EventPattern"] for r in plain.all("AWS::Events::Rule")]
    (pattern,) = [p for p in patterns if p["detail-type"] == [f"{kind} State Change"]]
    assert set(pattern["detail"][field]) == {"FAILED", "ABORTED", "EXPIRED", "PARTIAL"}


def test_calls_that_would_end_the_key_are_heard_of(plain):
    names = set()
    for rule in plain.all("AWS::Events::Rule"):
        if "aws.kms" in rule["EventPattern"].get("source", []):
            names |= set(rule["EventPattern"]["detail"]["eventName"])
    assert {"ScheduleKeyDeletion", "DisableKey", "PutKeyPolicy"} <= names


def test_the_clusters_backups_and_failovers_are_heard_of(plain):
    patterns = [r["EventPattern"] for r in plain.all("AWS::Events::Rule")]
    (pattern,) = [p for p in patterns if p["detail-type"] == ["RDS DB Cluster Event"]]
    assert pattern["detail"]["SourceIdentifier"] == ["clinic"]
    assert {"backup", "failover"} <= set(pattern["detail"]["EventCategories"])


def test_of_snapshots_everything_is_heard_of_but_what_happens_every_day(plain):
    patterns = [r["EventPattern"] for r in plain.all("AWS::Events::Rule")]
    (pattern,) = [p for p in patterns if p["detail-type"] == ["RDS DB Cluster Snapshot Event"]]
    # "Amazon RDS event categories and event messages for Aurora": an automated snapshot is being made, was made.
    (asked,) = pattern["detail"]["EventID"]
    assert {"RDS-EVENT-0168", "RDS-EVENT-0169"} <= set(asked["anything-but"])
    assert "RDS-EVENT-0075" not in asked["anything-but"], "a manual snapshot is a copy that somebody made"


def test_the_topic_is_encrypted_takes_tls_only_and_lets_in_this_accounts_events(plain):
    (key,) = plain.ids("AWS::KMS::Key")
    assert plain.one("AWS::SNS::Topic")["KmsMasterKeyId"].strip("<>").startswith(key)
    statements = plain.one("AWS::SNS::TopicPolicy")["PolicyDocument"]["Statement"]
    assert [
        s for s in statements if s["Effect"] == "Deny" and s["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    ]
    found = {s["Sid"]: s.get("Condition") for s in statements if s["Effect"] == "Allow"}
    own_account = {"StringEquals": {"aws:SourceAccount": "<AWS::AccountId>"}}
    # EventBridge delivers nothing to a topic whose policy puts a condition on it.
    assert found == {"PublishAlarms": own_account, "PublishVaultEvents": own_account, "PublishEvents": None}
