"""BackupRetentionChecks on apps that are not ours in style: bare L1, the L2 cluster, and an imported template."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import aws_cdk as cdk
import pytest
from aws_cdk import aws_backup as backup
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_rds as rds
from aws_cdk import aws_s3 as s3
from aws_cdk import cloudformation_include as include
from hypothesis import given, settings
from hypothesis import strategies as st

from aurora_backup.policy import RetentionPolicy
from cdk_aurora_backup.retention_checks import NAME, BackupRetentionChecks
from cdk_aurora_backup.retention_rules import RULES, check

DOCS = Path(__file__).parent.parent.parent / "docs"
GOOD = {
    "Engine": "aurora-postgresql",
    "BackupRetentionPeriod": 35,
    "DeletionProtection": True,
    "StorageEncrypted": True,
    "KmsKeyId": "arn:key",
    "CopyTagsToSnapshot": True,
    "PreferredBackupWindow": "03:00-04:00",
    "PreferredMaintenanceWindow": "mon:04:00-mon:05:00",
}


# CDK's own rules cost seconds, and have opinions of their own about these apps.
CONTEXT = {
    "@aws-cdk/core:validateAgainstDefaultRules": False,
    "@aws-cdk/core:validationReportPrettyPrint": False,
}


def synthesised(app: cdk.App) -> dict:
    """Synthesise with the plugin; what it found, from the report that CDK writes. A finding fails the synthesis."""
    cdk.Validations.of(app).add_plugins(BackupRetentionChecks())
    try:
        app.synth()
        failed = False
    except RuntimeError as error:
        assert "ValidationFailed" in str(error)  # noqa: PT017  nothing else may have failed
        failed = True
    report = json.loads((Path(app.outdir) / "validation-report.json").read_text())
    # CDK leaves out a plugin that found nothing at all.
    found = {r["pluginName"]: r for r in report["pluginReports"]}.get(NAME, {"conclusion": "success"})
    assert (found["conclusion"] == "failure") == failed
    return found


def rules(report: dict) -> dict[str, list[str]]:
    """Rule -> the construct paths that break it, acknowledged ones left out."""
    found: dict[str, list[str]] = {}
    for violation in report.get("violations", []):
        paths = [r.get("constructPath") or r["resourceLogicalId"] for r in violation["violatingConstructs"]]
        found.setdefault(violation["ruleName"], []).extend(paths)
    return {rule: sorted(set(paths)) for rule, paths in sorted(found.items())}


# --- Three apps ------------------------------------------------------------------------------------------------------


def test_a_bare_l1_cluster_with_nothing_set_breaks_every_rule_about_clusters(tmp_path):
    app = cdk.App(outdir=str(tmp_path), context=CONTEXT)
    stack = cdk.Stack(app, "Bare")
    rds.CfnDBCluster(stack, "Db", engine="aurora-postgresql")
    report = synthesised(app)
    assert report["conclusion"] == "failure"
    assert rules(report) == {rule: ["Bare/Db"] for rule in ("BR01", "BR02", "BR03", "BR05", "BR06", "BR08")}


def test_an_l2_cluster_as_people_write_it(tmp_path):
    app = cdk.App(outdir=str(tmp_path), context=CONTEXT)
    stack = cdk.Stack(app, "Shop")
    rds.DatabaseCluster(
        stack,
        "Orders",
        engine=rds.DatabaseClusterEngine.aurora_postgres(version=rds.AuroraPostgresEngineVersion.VER_16_6),
        vpc=ec2.Vpc(stack, "Vpc", max_azs=2),
        writer=rds.ClusterInstance.serverless_v2("writer"),
        storage_encrypted=True,
        backup=rds.BackupProps(retention=cdk.Duration.days(7), preferred_window="03:00-04:00"),
        preferred_maintenance_window="sun:03:30-sun:04:30",
        removal_policy=cdk.RemovalPolicy.DESTROY,
    )
    plan = backup.BackupPlan.daily35_day_retention(stack, "Plan")
    plan.add_selection("All", resources=[backup.BackupResource.from_tag("backup", "yes")])
    bucket = s3.Bucket(stack, "Dumps")
    bucket.node.default_child.lifecycle_configuration = {  # what CDK's own types let through, too
        "rules": [
            {
                "status": "Enabled",
                "prefix": "dumps/",
                "expirationInDays": 35,
                "transitions": [{"storageClass": "GLACIER", "transitionInDays": 90}],
            }
        ]
    }
    iam.PolicyStatement(actions=["rds:*"], resources=["*"])
    iam.Role(
        stack,
        "Ops",
        assumed_by=iam.AccountRootPrincipal(),
        inline_policies={
            "all": iam.PolicyDocument(statements=[iam.PolicyStatement(actions=["rds:*"], resources=["*"])])
        },
    )
    cluster, vault = ["Shop/Orders/Resource"], ["Shop/Plan/Vault/Resource"]
    assert rules(synthesised(app)) == {
        "BR01": cluster,  # the tag is on no cluster
        "BR02": cluster,
        "BR03": cluster,
        "BR04": cluster,
        "BR05": cluster,
        "BR07": cluster,
        "BR08": cluster,
        "BR09": vault,
        "BR10": vault,
        "BR11": ["Shop/Plan/Resource"],
        "BR13": ["Shop/Dumps/Resource"],
        "BR14": ["Shop/Ops/Resource"],
    }


TEMPLATE = """
Resources:
  Ledger:
    Type: AWS::RDS::DBCluster
    DeletionPolicy: Retain
    UpdateReplacePolicy: Retain
    Properties:
      Engine: aurora-postgresql
      BackupRetentionPeriod: 14
      StorageEncrypted: true
      KmsKeyId: {Ref: KeyArn}
      DeletionProtection: true
      CopyTagsToSnapshot: true
      PreferredBackupWindow: 03:00-03:20
      PreferredMaintenanceWindow: mon:05:00-mon:06:00
  Legacy:
    Type: AWS::RDS::DBCluster
    Properties: {Engine: aurora-mysql, SnapshotIdentifier: old, BackupRetentionPeriod: {Ref: Days}}
  Other:
    Type: AWS::RDS::DBCluster
    Properties: {Engine: postgres}
  Vault:
    Type: AWS::Backup::BackupVault
    Properties:
      BackupVaultName: ledger
      EncryptionKeyArn: {Ref: KeyArn}
      LockConfiguration: {MinRetentionDays: 7}
  Plan:
    Type: AWS::Backup::BackupPlan
    Properties:
      BackupPlan:
        BackupPlanName: ledger
        BackupPlanRule:
          - RuleName: keep
            TargetBackupVault: {Ref: Vault}
            EnableContinuousBackup: true
            Lifecycle: {DeleteAfterDays: 2192}
  Selection:
    Type: AWS::Backup::BackupSelection
    Properties:
      BackupPlanId: {Ref: Plan}
      BackupSelection:
        SelectionName: ledger
        IamRoleArn: arn:role
        Resources: [!Sub "arn:${AWS::Partition}:rds:${AWS::Region}:${AWS::AccountId}:cluster:${Ledger}"]
  Failures:
    Type: AWS::Events::Rule
    Properties:
      EventPattern: {source: [aws.backup], detail-type: [Backup Job State Change]}
      Targets: [{Id: topic, Arn: "arn:aws:sns:eu-west-1:111122223333:failed"}]
Parameters:
  KeyArn: {Type: String}
  Days: {Type: Number, Default: 7}
"""


def test_an_imported_template(tmp_path):
    file = tmp_path / "ledger.yaml"
    file.write_text(TEMPLATE)
    app = cdk.App(outdir=str(tmp_path / "out"), context=CONTEXT)
    include.CfnInclude(cdk.Stack(app, "Old"), "Template", template_file=str(file))
    assert rules(synthesised(app)) == {
        "BR01": ["Old/Template/Legacy"],
        "BR02": ["Old/Template/Ledger"],  # Legacy's days are a parameter: known only at deployment
        "BR03": ["Old/Template/Legacy"],
        "BR06": ["Old/Template/Legacy"],
        "BR07": ["Old/Template/Ledger"],
        "BR12": ["Old/Template/Plan"],
    }


def test_a_well_kept_app_has_no_finding_also_when_the_plan_is_in_another_stack(tmp_path):
    app = cdk.App(outdir=str(tmp_path), context=CONTEXT)
    data, care = cdk.Stack(app, "Data"), cdk.Stack(app, "Care")
    key = kms.Key(data, "Key")
    cluster = rds.CfnDBCluster(
        data,
        "Db",
        engine="aurora-postgresql",
        backup_retention_period=35,
        deletion_protection=True,
        storage_encrypted=True,
        kms_key_id=key.key_arn,
        copy_tags_to_snapshot=True,
        preferred_backup_window="03:00-04:00",
        preferred_maintenance_window="mon:04:00-mon:05:00",
    )
    vault = backup.BackupVault(
        care,
        "Vault",
        encryption_key=key,
        lock_configuration=backup.LockConfiguration(min_retention=cdk.Duration.days(7)),
    )
    plan = backup.BackupPlan(care, "Plan", backup_vault=vault)
    plan.add_rule(
        backup.BackupPlanRule(
            schedule_expression=events.Schedule.expression("cron(0 1 1 * ? *)"), delete_after=cdk.Duration.days(2192)
        )
    )
    arn = care.format_arn(
        service="rds", resource="cluster", resource_name=cluster.ref, arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME
    )
    plan.add_selection("Db", resources=[backup.BackupResource.from_arn(arn)])
    target = events.CfnRule.TargetProperty(arn="arn:aws:sns:eu-west-1:111122223333:failed", id="topic")
    events.CfnRule(care, "Failed", event_pattern={"source": ["aws.backup"]}, targets=[target])
    report = synthesised(app)
    assert (report["conclusion"], rules(report)) == ("success", {})


# --- Two odd ones ----------------------------------------------------------------------------------------------------


def plan_of(scope, *resources):
    """A plan that keeps long enough, and a selection of these, as bare L1."""
    rule = {"ruleName": "r", "targetBackupVault": "v", "lifecycle": {"deleteAfterDays": 2192}}
    plan = backup.CfnBackupPlan(scope, "Plan", backup_plan={"backupPlanName": "x", "backupPlanRule": [rule]})
    chosen = {"selectionName": "s", "iamRoleArn": "arn", "resources": list(resources)}
    backup.CfnBackupSelection(scope, "Selection", backup_plan_id=plan.ref, backup_selection=chosen)


def bare(scope, name, **more):
    """A cluster that breaks BR03, BR05, BR06 and BR08, whatever chooses it."""
    return rds.CfnDBCluster(scope, name, engine="aurora-postgresql", backup_retention_period=35, **more)


def test_nested_stacks_are_looked_into_and_references_are_followed_in_and_out(tmp_path):
    app = cdk.App(outdir=str(tmp_path), context=CONTEXT)
    out, into = cdk.Stack(app, "Out"), cdk.Stack(app, "In")
    inner = bare(cdk.NestedStack(out, "Data"), "Chosen")
    bare(cdk.NestedStack(out, "More"), "Missed")
    arn = "arn:aws:rds:${AWS::Region}:${AWS::AccountId}:cluster:${Db}"
    plan_of(out, cdk.Fn.sub(arn, {"Db": inner.ref}))  # through an output
    outer = bare(into, "Chosen")
    bare(into, "Missed")
    plan_of(cdk.NestedStack(cdk.NestedStack(into, "Care"), "Deep"), outer.attr_db_cluster_arn)  # through parameters
    everything = ["In/Chosen", "In/Missed", "Out/Data/Chosen", "Out/More/Missed"]
    assert rules(synthesised(app)) == {
        "BR01": ["In/Missed", "Out/More/Missed"],
        **dict.fromkeys(("BR03", "BR05", "BR06", "BR08"), everything),
    }


def test_a_stage_and_a_cluster_that_is_all_tokens(tmp_path):
    app = cdk.App(outdir=str(tmp_path), context=CONTEXT)
    stage = cdk.Stage(app, "Prod")
    data, care = cdk.Stack(stage, "Data"), cdk.Stack(stage, "Care")
    plan_of(care, bare(data, "Db").attr_db_cluster_arn)  # through an export
    stack = cdk.Stack(app, "Tokens")

    def told(name, kind="String"):
        return cdk.CfnParameter(stack, name, type=kind)

    cdk.CfnCondition(stack, "IsProd", expression=cdk.Fn.condition_equals(told("Stage").value_as_string, "prod"))
    rds.CfnDBCluster(
        stack,
        "Db",
        engine=told("Engine").value_as_string,
        backup_retention_period=told("Days", "Number").value_as_number,
        deletion_protection=cdk.Fn.condition_if("IsProd", True, False),
        storage_encrypted=True,
        kms_key_id=told("Key").value_as_string,
        copy_tags_to_snapshot=cdk.Fn.condition_if("IsProd", True, False),
        preferred_backup_window=told("Window").value_as_string,
        preferred_maintenance_window="mon:04:00-mon:05:00",
        tags=[cdk.CfnTag(key="backup", value=told("Tag").value_as_string)],
    )
    plan_of(stack)
    in_stage = ["Prod/Data/Db"]
    assert rules(synthesised(app)) == {
        "BR01": ["Tokens/Db"],
        **dict.fromkeys(("BR03", "BR05", "BR06"), in_stage),
        "BR08": [*in_stage, "Tokens/Db"],
    }


# --- The form of a plugin --------------------------------------------------------------------------------------------


def test_an_acknowledged_finding_stays_in_the_report_with_its_reason(tmp_path):
    app = cdk.App(outdir=str(tmp_path), context=CONTEXT)
    stack = cdk.Stack(app, "Bare")
    cluster = rds.CfnDBCluster(stack, "Db", engine="aurora-postgresql")
    for rule in ("BR01", "BR02", "BR03", "BR05", "BR06"):
        cdk.Validations.of(cluster).acknowledge(cdk.Acknowledgment(id=f"{NAME}::{rule}", reason=f"why {rule}"))
    cdk.Validations.of(stack).acknowledge(cdk.Acknowledgment(id=f"{NAME}::BR08", reason="a test cluster"))
    report = synthesised(app)
    assert report["conclusion"] == "success"
    assert "a test cluster" in (tmp_path / "validation-report.json").read_text()


def test_the_policy_is_the_caller_s():
    template = {
        "Resources": {"Db": {"Type": "AWS::RDS::DBCluster", "Properties": {**GOOD, "BackupRetentionPeriod": 3}}}
    }
    found = {f.rule for f in check({"t": template}, RetentionPolicy.dev())}
    assert "BR02" not in found
    assert "BR02" in {f.rule for f in check({"t": template}, RetentionPolicy.hipaa())}


def test_this_package_s_own_app_breaks_no_rule(default):
    assert [(f.rule, f.resource.logical_id) for f in check({"t": default.template}, RetentionPolicy.hipaa())] == []


def test_every_rule_is_documented_and_every_documented_rule_exists():
    text = (DOCS / "rules.md").read_text()
    assert re.findall(r"^## (BR\d\d) ", text, re.MULTILINE) == [rule.id for rule in RULES]
    for rule in RULES:
        assert f"## {rule.id} {rule.title}\n" in text


# --- Each rule, on a template that breaks it and on one that does not ------------------------------------------------


def app_of(**resources):
    return {"t": {"Resources": {name: {"Type": kind, "Properties": body} for name, (kind, body) in resources.items()}}}


def breaks(rule, **resources):
    return [f.resource.logical_id for f in check(app_of(**resources), RetentionPolicy.hipaa()) if f.rule == rule]


CLUSTER = "AWS::RDS::DBCluster"


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("BR02", {"BackupRetentionPeriod": 34}),
        ("BR02", {"BackupRetentionPeriod": "7"}),
        ("BR02", {"BackupRetentionPeriod": None}),
        ("BR03", {"DeletionProtection": False}),
        ("BR03", {"DeletionProtection": "false"}),
        ("BR05", {"StorageEncrypted": False}),
        ("BR05", {"KmsKeyId": None}),
        ("BR06", {"CopyTagsToSnapshot": None}),
        ("BR07", {"PreferredBackupWindow": "04:30-05:30"}),
        ("BR07", {"PreferredBackupWindow": "23:50-00:10"}),
    ],
)
def test_a_rule_about_clusters_finds_its_own_damage_only(rule, changes):
    body = {k: v for k, v in {**GOOD, **changes}.items() if v is not None}
    found = {f.rule for f in check(app_of(Db=(CLUSTER, body)), RetentionPolicy.hipaa())}
    assert found == {rule, "BR01", "BR08"}


@pytest.mark.parametrize("name", [n for n in GOOD if n not in ("Engine", "KmsKeyId")])
def test_what_is_known_only_at_deployment_is_not_judged(name):
    found = {f.rule for f in check(app_of(Db=(CLUSTER, {**GOOD, name: {"Ref": "P"}})), RetentionPolicy.hipaa())}
    assert found == {"BR01", "BR08"}


SELECT = "AWS::Backup::BackupSelection"
STAGE = {"ConditionKey": "aws:ResourceTag/stage"}
ARN = {"Fn::Join": ["", ["arn:", {"Ref": "AWS::Partition"}, ":rds:r:a:cluster:", {"Ref": "Db"}]]}


@pytest.mark.parametrize(
    ("selection", "chosen"),
    [
        ({"Resources": [ARN]}, True),
        ({"Resources": ["*"]}, True),
        ({"Resources": ["arn:aws:rds:*:*:cluster:*"]}, True),
        ({"Resources": ["arn:aws:rds:eu-west-1:111122223333:db:x"]}, False),
        ({"Resources": ["arn:aws:rds:region:account:cluster:clinic"]}, True),
        ({"Resources": ["*"], "NotResources": [ARN]}, False),
        ({"Resources": ["*"], "Conditions": {"StringEquals": [{**STAGE, "ConditionValue": "prod"}]}}, True),
        ({"Resources": ["*"], "Conditions": {"StringEquals": [{**STAGE, "ConditionValue": "dev"}]}}, False),
        ({"ListOfTags": [{"ConditionType": "STRINGEQUALS", "ConditionKey": "stage", "ConditionValue": "prod"}]}, True),
        ({"ListOfTags": [{"ConditionType": "STRINGEQUALS", "ConditionKey": "stage", "ConditionValue": "dev"}]}, False),
        ({"Resources": [{"Fn::GetAtt": ["Table", "Arn"]}]}, False),
        ({"Resources": [{"Ref": "SomeParameter"}]}, True),
    ],
)  # fmt: skip
def test_a_cluster_is_planned_when_a_selection_chooses_it(selection, chosen):
    body = {**GOOD, "DBClusterIdentifier": "clinic", "Tags": [{"Key": "stage", "Value": "prod"}]}
    found = breaks("BR01", Db=(CLUSTER, body), S=(SELECT, {"BackupSelection": selection}))
    assert found == ([] if chosen else ["Db"])


def test_a_selection_of_another_cluster_does_not_count():
    other = {"Resources": [{"Fn::GetAtt": ["Other", "DBClusterArn"]}]}
    found = breaks("BR01", Db=(CLUSTER, GOOD), Other=(CLUSTER, GOOD), S=(SELECT, {"BackupSelection": other}))
    assert found == ["Db"]


def policy(action, resource):
    document = {"Statement": [{"Effect": "Allow", "Action": action, "Resource": resource}]}
    return ("AWS::IAM::Policy", {"PolicyDocument": document})


def test_only_a_permission_on_every_snapshot_is_sharing():
    name = "rds:ModifyDBClusterSnapshotAttribute"
    assert breaks("BR14", P=policy([name], ["*"])) == ["P"]
    assert breaks("BR14", P=policy("*", "*")) == ["P"]
    assert breaks("BR14", P=policy("rds:Describe*", "*")) == []
    assert breaks("BR14", P=policy(name, "arn:aws:rds:r:a:cluster-snapshot:awsbackup:*")) == []


def test_a_permission_is_read_however_it_is_written():
    name = "rds:ModifyDBClusterSnapshotAttribute"
    one = {"Effect": "Allow", "Action": name, "Resource": "*"}
    assert breaks("BR14", P=("AWS::IAM::ManagedPolicy", {"PolicyDocument": {"Statement": one}})) == ["P"]
    but = {"Effect": "Allow", "Resource": "*"}
    for spared, found in ((["iam:*"], ["P"]), (["rds:*"], []), (["rds:ModifyDB*"], [])):
        document = {"Statement": [{**but, "NotAction": spared}]}
        assert breaks("BR14", P=("AWS::IAM::Policy", {"PolicyDocument": document})) == found
    assert breaks("BR14", P=policy(name, "arn:aws:rds:*:*:cluster-snapshot:*")) == ["P"]
    joined = {"Fn::Join": ["", ["arn:", {"Ref": "AWS::Partition"}, ":rds:r:a:snapshot:*"]]}
    assert breaks("BR14", P=policy(name, [joined])) == ["P"]


@pytest.mark.parametrize(
    ("source", "heard"),
    [(["aws.backup"], True), ([{"prefix": "aws.b"}], True), ([{"prefix": "aws.rds"}], False), (["aws.rds"], False),
     ([{"anything-but": ["aws.ec2"]}], True), ({"Ref": "P"}, False), (None, False)],
)  # fmt: skip
def test_failures_are_heard_of_by_whatever_pattern_lets_them_through(source, heard):
    rule = ("AWS::Events::Rule", {"EventPattern": {"source": source}, "Targets": [{"Arn": "x"}]})
    assert breaks("BR08", Db=(CLUSTER, GOOD), R=rule) == ([] if heard else ["Db"])


def test_a_vault_s_notifications_and_an_alarm_tell_of_failures_too():
    vault = "AWS::Backup::BackupVault"
    for event, found in (("BACKUP_JOB_COMPLETED", []), ("BACKUP_JOB_FAILED", ["Db"])):
        told = {"Notifications": {"BackupVaultEvents": [event], "SNSTopicArn": "x"}}
        assert breaks("BR08", Db=(CLUSTER, GOOD), V=(vault, told)) == found
    for namespace, found in (("AWS/Backup", []), ("AWS/RDS", ["Db"])):
        alarm = {"Namespace": namespace, "AlarmActions": ["x"]}
        assert breaks("BR08", Db=(CLUSTER, GOOD), A=("AWS::CloudWatch::Alarm", alarm)) == found
    unheard = ("AWS::CloudWatch::Alarm", {"Namespace": "AWS/Backup"})
    assert breaks("BR08", Db=(CLUSTER, GOOD), A=unheard) == ["Db"]


@pytest.mark.parametrize(
    ("change", "heard"),
    [({}, True), ({"State": "DISABLED"}, False), ({"State": "ENABLED"}, True), ({"Targets": []}, False),
     ({"detail-type": ["Copy Job State Change"]}, False), ({"detail-type": ["Backup Job State Change"]}, True),
     ({"detail": {"state": ["COMPLETED"]}}, False), ({"detail": {"state": ["FAILED", "ABORTED"]}}, True),
     ({"detail": {"state": [{"anything-but": "COMPLETED"}]}}, True), ({"detail-type": {"Ref": "P"}}, True)],
)  # fmt: skip
def test_a_rule_tells_of_failures_when_it_is_on_has_a_target_and_lets_them_through(change, heard):
    pattern = {"source": ["aws.backup"], **{k: v for k, v in change.items() if k in ("detail-type", "detail")}}
    rest = {k: v for k, v in change.items() if k in ("State", "Targets")}
    rule = ("AWS::Events::Rule", {"EventPattern": pattern, "Targets": [{"Arn": "x"}], **rest})
    assert breaks("BR08", Db=(CLUSTER, GOOD), R=rule) == ([] if heard else ["Db"])


@pytest.mark.parametrize(("window", "found"), [("03:00-03:10", ["Db"]), ("03:00-03:30", []), ("nonsense", ["Db"])])
def test_a_backup_window_is_judged_also_without_a_maintenance_window(window, found):
    properties = {k: v for k, v in GOOD.items() if k != "PreferredMaintenanceWindow"}
    assert breaks("BR07", Db=(CLUSTER, {**properties, "PreferredBackupWindow": window})) == found


@pytest.mark.parametrize(
    "rule",
    [
        {"ExpirationInDays": 35, "Transition": {"TransitionInDays": 90, "StorageClass": "GLACIER"}},
        {"NoncurrentVersionExpirationInDays": 30}
        | {"NoncurrentVersionTransition": {"TransitionInDays": 30, "StorageClass": "GLACIER"}},
        {"NoncurrentVersionExpiration": {"NoncurrentDays": 30}}
        | {"NoncurrentVersionTransitions": [{"TransitionInDays": 60, "StorageClass": "GLACIER"}]},
    ],
)
def test_a_lifecycle_is_read_however_it_is_written(rule):
    bucket = ("AWS::S3::Bucket", {"LifecycleConfiguration": {"Rules": [rule]}})
    assert breaks("BR13", B=bucket) == ["B"]


ODD = [None, "", 0, -1, True, [], {}, [None], [[]], {"Ref": "P"}, {"Ref": ["x"]}, {"Fn::GetAtt": "Db.Arn"},
       {"Fn::GetAtt": ["Db"]}, {"Fn::GetAtt": {"a": 1}}, {"Fn::If": ["C", {"Ref": "Db"}, {"Ref": "AWS::NoValue"}]},
       {"Fn::Sub": ["${Db}", {"Db": {"Ref": "Db"}}]}, {"Fn::ImportValue": {"Fn::Sub": "x"}}, "x" * 300]  # fmt: skip
EVERYTHING = app_of(
    Db=(CLUSTER, {**GOOD, "DBClusterIdentifier": "clinic", "Tags": [{"Key": "stage", "Value": "prod"}]}),
    S=(
        SELECT,
        {
            "BackupSelection": {
                "Resources": [ARN, "*"],
                "NotResources": [ARN],
                "ListOfTags": [{**STAGE, "ConditionValue": "dev"}],
                "Conditions": {"StringEquals": [{**STAGE, "ConditionValue": "prod"}]},
            }
        },
    ),
    V=("AWS::Backup::BackupVault", {"LockConfiguration": {"MinRetentionDays": 7}}),
    P=("AWS::Backup::BackupPlan", {"BackupPlan": {"BackupPlanRule": [{"Lifecycle": {"DeleteAfterDays": 35}}]}}),
    B=(
        "AWS::S3::Bucket",
        {
            "LifecycleConfiguration": {
                "Rules": [
                    {"ExpirationInDays": 35, "Transitions": [{"TransitionInDays": 90, "StorageClass": "GLACIER"}]}
                ]
            }
        },
    ),
    I=policy("rds:*", "*"),
    R=("AWS::IAM::Role", {"Policies": [{"PolicyDocument": {"Statement": []}}]}),
    E=("AWS::Events::Rule", {"EventPattern": {"source": ["aws.backup"]}}),
    N=("AWS::CloudFormation::Stack", {"TemplateURL": "x", "Parameters": {"P": {"Ref": "Db"}}}),
)


def paths_into(value, path=()):
    """Every path into a document but its root."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield from paths_into(item, (*path, name))


@settings(max_examples=400, deadline=None)
@given(path=st.sampled_from([p for p in paths_into(EVERYTHING["t"]) if len(p) > 2]), odd=st.sampled_from(ODD))
def test_no_template_however_odd_breaks_a_rule_s_check(path, odd):
    templates = copy.deepcopy(EVERYTHING)
    holder = templates["t"]
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = odd
    check({**templates, "inner": EVERYTHING["t"]}, RetentionPolicy.hipaa(), {("t", "N"): "inner"})


def test_a_rule_that_keeps_for_ever_is_long_enough():
    plan = "AWS::Backup::BackupPlan"

    def of(*lifecycles):
        return (plan, {"BackupPlan": {"BackupPlanRule": [{"Lifecycle": lifecycle} for lifecycle in lifecycles]}})

    assert breaks("BR11", P=of({"DeleteAfterDays": 35})) == ["P"]
    assert breaks("BR11", P=of({"DeleteAfterDays": 35}, {"DeleteAfterDays": 2192})) == []
    assert breaks("BR11", P=of({})) == []
    # A long plan of something else keeps no Aurora cluster.
    chosen = {"BackupPlanId": {"Ref": "Long"}, "BackupSelection": {"Resources": ["arn:aws:dynamodb:r:a:table/t"]}}
    found = {"Db": (CLUSTER, GOOD), "P": of({"DeleteAfterDays": 35}), "Long": of({"DeleteAfterDays": 2192})}
    assert breaks("BR11", **found, S=(SELECT, chosen)) == ["P"]
    assert breaks("BR11", **found, S=(SELECT, {**chosen, "BackupSelection": {"Resources": ["*"]}})) == []
