"""Day one in somebody's account: partitions, boundaries, tags, flags, environments, imports, and tearing it down."""

from __future__ import annotations

import json
import re

import aws_cdk as cdk
import pytest

from cdk_aurora_backup import SynthError
from cdk_aurora_backup.app_config import read_context
from cdk_aurora_backup.stack import AuroraBackupStack
from tests.synth.synthesis import ACCOUNT, REGION, STATEFUL, Synthesised, deployable, new_app

CLUSTER = {
    "identifier": "clinic",
    "resource_id": "cluster-ABCDEFGHIJKLMNOP",
    "security_group_ids": ["sg-0123456789abcdef0"],
    "secret_arn": f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:clinic-AbCdEf",
    "key_arn": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555",
}
VPC = {
    "vpc_id": "vpc-0123456789abcdef0",
    "availability_zones": ["eu-west-1a", "eu-west-1b"],
    "isolated_subnet_ids": ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"],
    "isolated_route_table_ids": ["rtb-0123456789abcdef0", "rtb-0123456789abcdef1"],
}


KEY = f"arn:aws-cn:kms:cn-north-1:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555"
OF_A_TEAM = {"account": ACCOUNT, "permissions-boundary": "Team", "tags": {"team": "dba"}}


@pytest.fixture(scope="module")
def imported() -> Synthesised:
    """Of a cluster and a VPC that exist already, and with somebody to alert."""
    return deployable({"imported-cluster": CLUSTER, "imported-vpc": VPC, "alert-emails": "oncall@example.org"})


@pytest.fixture(scope="module")
def government() -> Synthesised:
    """A team's, in GovCloud, with the settings that no other setting depends on."""
    return deployable(
        {
            **OF_A_TEAM,
            "region": "us-gov-west-1",
            "architecture": "x86_64",
            "reserved-concurrency": "none",
            "engine-version": "16.11",
            "readers": 2,
            "capacity": {"min": 1, "max": 64},
            "heartbeat": False,
            "lineage": ["cluster-BEFORE"],
            "test-instance-class": "db.r8g.large",
            "validation": {"tolerances": {"clinic.visits": 0.5}},
        }
    )


@pytest.fixture(scope="module")
def china() -> Synthesised:
    """A team's, in China, to be torn down, under a key that exists already."""
    return deployable({**OF_A_TEAM, "region": "cn-north-1", "profile": "dev", "key-arn": KEY})


@pytest.fixture(scope="module", params=["government", "china"])
def of_a_team(request) -> Synthesised:
    return request.getfixturevalue(request.param)


def test_other_partitions_get_no_arn_of_the_commercial_one(of_a_team):
    assert "arn:aws:" not in json.dumps(of_a_team.template)
    assert len(of_a_team.resources) > 60


def test_a_stack_that_knows_no_region_has_no_arn_of_any_partition(default):
    text = json.dumps(default.template)
    assert "arn:aws" not in text


def test_a_permissions_boundary_is_on_every_role_also_on_cdks_own(of_a_team):
    roles = [body for body in of_a_team.resources.values() if body["Type"] == "AWS::IAM::Role"]
    assert len(roles) > 10
    boundary = rf"arn:aws-(cn|us-gov):iam::{ACCOUNT}:policy/Team"
    for role in roles:
        assert re.fullmatch(boundary, role["Properties"]["PermissionsBoundary"])


def test_tags_reach_everything_that_costs_or_holds_data(government):
    for kind in (*STATEFUL, "AWS::Lambda::Function", "AWS::StepFunctions::StateMachine", "AWS::IAM::Role"):
        assert government.all(kind), kind
        for properties in government.all(kind):
            tags = properties.get("Tags") or properties.get("BackupVaultTags")
            tags = tags if isinstance(tags, dict) else {t["Key"]: t["Value"] for t in tags}
            assert tags["team"] == "dba", kind


def test_it_synthesises_without_any_feature_flag_too(default):
    without, with_flags = deployable(flags=False), default
    for kind in STATEFUL:
        assert without.ids(kind) == with_flags.ids(kind)
    for name in without.ids("AWS::IAM::Role"):
        assert "Policies" not in without.resources[name]["Properties"], name
    assert without.ids("AWS::IAM::Policy") == []


def test_each_environment_is_a_stack_of_its_own_also_in_a_stage():
    context = {
        "backup:environments": {
            "prod": {"account": ACCOUNT, "region": REGION},
            "test": {"account": ACCOUNT, "region": "eu-central-1", "profile": "dev"},
        }
    }
    stage = cdk.Stage(new_app(), "Clinic")
    for config in read_context(context):
        AuroraBackupStack(stage, config)
    stacks = {s.stack_name: s.environment.region for s in stage.synth().stacks}
    assert stacks == {"Clinic-AuroraBackup-prod": REGION, "Clinic-AuroraBackup-test": "eu-central-1"}


def test_an_imported_cluster_is_backed_up_and_no_cluster_vpc_or_subnet_is_made(imported):
    for kind in ("AWS::RDS::DBCluster", "AWS::RDS::DBInstance", "AWS::EC2::VPC", "AWS::EC2::Subnet"):
        assert imported.ids(kind) == [], kind
    (resource,) = imported.one("AWS::Backup::BackupSelection")["BackupSelection"]["Resources"]
    assert resource.endswith(":cluster:clinic")
    ingress = [r for r in imported.all("AWS::EC2::SecurityGroupIngress") if r["GroupId"] == "sg-0123456789abcdef0"]
    assert [(r["FromPort"], r["ToPort"]) for r in ingress] == [(5432, 5432)]


def test_an_imported_vpcs_route_tables_get_the_s3_endpoint(imported):
    (gateway,) = [e for e in imported.all("AWS::EC2::VPCEndpoint") if e["ServiceName"].endswith(".s3")]
    assert sorted(gateway["RouteTableIds"]) == ["rtb-0123456789abcdef0", "rtb-0123456789abcdef1"]


def test_an_imported_vpc_without_route_tables_is_refused_when_the_endpoint_is_wanted():
    vpc = {k: v for k, v in VPC.items() if k != "isolated_route_table_ids"}
    with pytest.raises(SynthError, match=r"need their route tables.*or create_endpoints must be False"):
        deployable({"imported-cluster": CLUSTER, "imported-vpc": vpc})
    template = deployable({"imported-cluster": CLUSTER, "imported-vpc": vpc, "create-endpoints": False})
    assert template.ids("AWS::EC2::VPCEndpoint") == []


def test_an_imported_cluster_without_the_vpc_it_is_in_is_refused():
    with pytest.raises(SynthError, match="backup:imported-vpc is needed with backup:imported-cluster"):
        deployable({"imported-cluster": CLUSTER})


def test_an_imported_key_is_used_and_its_statements_are_printed(china):
    assert china.ids("AWS::KMS::Key") == []
    assert china.named("AWS::S3::Bucket", "StorageBucket")["BucketEncryption"]["ServerSideEncryptionConfiguration"][0][
        "ServerSideEncryptionByDefault"
    ] == {"KMSMasterKeyID": KEY, "SSEAlgorithm": "aws:kms"}
    assert "It must hold these statements:" in china.said("info")


# The dev profile goes away with `cdk destroy`, and leaves nothing that costs.


def test_the_dev_profile_leaves_nothing_behind(dev):
    kept = [n for n, body in dev.resources.items() if body.get("DeletionPolicy") not in (None, "Delete")]
    assert kept == []


def test_the_dev_profile_has_nothing_that_would_refuse_to_go(dev):
    assert dev.one("AWS::RDS::DBCluster")["DeletionProtection"] is False
    denials = [s for s in dev.one("AWS::KMS::Key")["KeyPolicy"]["Statement"] if s["Effect"] == "Deny"]
    assert denials == []
    emptied = {p["BucketName"] for p in dev.all("Custom::S3AutoDeleteObjects")}
    assert emptied == {f"<{name}>" for name in dev.ids("AWS::S3::Bucket")}
    assert dev.ids("AWS::Backup::BackupPlan") == [], "recovery points would keep the vault from being deleted"
    for vault in dev.all("AWS::Backup::BackupVault"):
        assert "LockConfiguration" not in vault


def test_the_dev_profile_keeps_little(dev):
    assert dev.one("AWS::RDS::DBCluster")["BackupRetentionPeriod"] == 1


def test_outputs_name_what_an_operator_asks_for(default):
    assert {
        "ClusterIdentifier",
        "ClusterResourceId",
        "BackupBucket",
        "BackupVault",
        "AlertTopic",
        "LogicalBackupWorkflow",
    } <= set(default.template["Outputs"])


def test_nobody_to_alert_is_a_warning_and_an_address_silences_it(default, imported):
    assert "Nobody hears of a failed backup" in default.said("warning")
    assert "Nobody hears" not in imported.said("warning")
    assert imported.one("AWS::SNS::Subscription")["Endpoint"] == "oncall@example.org"


def test_the_other_architecture_is_used_throughout(government):
    assert {tuple(f["Architectures"]) for f in government.all("AWS::Lambda::Function")} == {("x86_64",)}
    assert {tuple(layer["CompatibleArchitectures"]) for layer in government.all("AWS::Lambda::LayerVersion")} == {
        ("x86_64",)
    }


def test_a_new_cluster_has_the_size_and_the_version_that_are_asked_for(government):
    cluster = government.one("AWS::RDS::DBCluster")
    assert cluster["EngineVersion"] == "16.11"
    assert cluster["ServerlessV2ScalingConfiguration"] == {"MinCapacity": 1, "MaxCapacity": 64}
    assert len(government.ids("AWS::RDS::DBInstance")) == 3


def test_recovery_tests_are_as_the_settings_say(government):
    told = [f["Environment"]["Variables"] for f in government.all("AWS::Lambda::Function")]
    assert {v["LINEAGE"] for v in told if "LINEAGE" in v} == {'["cluster-BEFORE"]'}
    assert {v["VALIDATION"] for v in told if "VALIDATION" in v} == {'{"tolerances":{"clinic.visits":0.5}}'}
    (isolation,) = {v["TEST_ISOLATION"] for v in told if "TEST_ISOLATION" in v}
    assert '"instance_class":"db.r8g.large"' in isolation
    assert not [n for n in government.ids("AWS::Lambda::Function") if "Heartbeat" in n]


def test_an_account_with_a_small_pool_of_concurrency_can_use_it_unreserved(government):
    assert all("ReservedConcurrentExecutions" not in f for f in government.all("AWS::Lambda::Function"))
