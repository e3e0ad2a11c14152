"""How the synth tests read templates: plain dictionaries, references flattened to readable text."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_rds as rds
from aws_cdk import aws_secretsmanager as secretsmanager

from cdk_aurora_backup import AuroraBackup, ClusterDetails
from cdk_aurora_backup.app_config import read_context
from cdk_aurora_backup.stack import AuroraBackupStack

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).parent.parent.parent
FLAGS: dict[str, Any] = json.loads((ROOT / "cdk.json").read_text())["context"]
# CDK's own validator costs seconds; `test_app.py` runs it once, through the CLI.
del FLAGS["@aws-cdk/core:validateAgainstDefaultRules"]
# Assets are hashed but not copied, and what CDK writes goes away with the process.
OUT = Path(tempfile.mkdtemp(prefix="aurora-backup-synth-"))
atexit.register(shutil.rmtree, OUT, ignore_errors=True)
_UNSTAGED = {"aws:cdk:disable-asset-staging": True}
ACCOUNT, REGION = "111122223333", "eu-west-1"

# Made by CDK itself (closing the default security group, emptying a bucket): not ours to shape.
CDKS_OWN = ("CustomVpcRestrictDefaultSG", "CustomS3AutoDeleteObjects")

# What holds data or identity: replacing one of these would lose backups, or the way to them.
STATEFUL = (
    "AWS::KMS::Key",
    "AWS::RDS::DBCluster",
    "AWS::RDS::DBInstance",
    "AWS::S3::Bucket",
    "AWS::Backup::BackupVault",
    "AWS::SNS::Topic",
    "AWS::SQS::Queue",
    "AWS::EC2::VPC",
    "AWS::EC2::Subnet",
)


def pinned(file: Path, found: dict[str, list[str]]) -> dict[str, list[str]]:
    """What the file pins. With UPDATE_PINS=1 in the environment the file is written first: read its diff."""
    if os.environ.get("UPDATE_PINS"):
        file.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")
    return json.loads(file.read_text())


def flat(value: Any) -> Any:
    """The value with references as text: {"Ref": "AWS::Partition"} is "<AWS::Partition>", GetAtt "<Id.Attribute>"."""
    if isinstance(value, list):
        return [flat(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "Fn::Join" in value:
        separator, parts = value["Fn::Join"]
        return str(separator).join(str(flat(part)) for part in parts)
    if "Fn::GetAtt" in value:
        return f"<{'.'.join(value['Fn::GetAtt'])}>"
    if set(value) == {"Ref"}:
        return f"<{value['Ref']}>"
    return {key: flat(item) for key, item in value.items()}


@dataclass(frozen=True)
class Synthesised:
    """One synthesised stack."""

    template: dict[str, Any]
    messages: tuple[tuple[str, str], ...]
    directory: Path

    @classmethod
    def of(cls, stack: cdk.Stack) -> Synthesised:
        """Synthesise the stack's app."""
        artifact = cdk.App.of(stack).synth().get_stack_artifact(stack.artifact_id)
        messages = tuple((m.level.name.lower(), str(m.entry.data)) for m in artifact.messages)
        template = Path(artifact.template_full_path)
        return cls(json.loads(template.read_text()), messages, template.parent)

    @cached_property
    def resources(self) -> dict[str, dict[str, Any]]:
        """Every resource by logical id, flattened."""
        return {name: flat(body) for name, body in self.template["Resources"].items()}

    def ids(self, kind: str) -> list[str]:
        """Logical ids of our resources of a type."""
        return [n for n, body in self.resources.items() if body["Type"] == kind and not n.startswith(CDKS_OWN)]

    def all(self, kind: str) -> list[dict[str, Any]]:
        """Properties of our resources of a type."""
        return [self.resources[name].get("Properties", {}) for name in self.ids(kind)]

    def one(self, kind: str) -> dict[str, Any]:
        """Properties of the only resource of a type."""
        (found,) = self.all(kind)
        return found

    def named(self, kind: str, part: str) -> dict[str, Any]:
        """Properties of the only resource of a type whose logical id contains the text."""
        (found,) = [name for name in self.ids(kind) if part in name]
        return self.resources[found].get("Properties", {})

    def policies(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every statement of our identity policies, with its policy's logical id."""
        for name in self.ids("AWS::IAM::ManagedPolicy"):
            for stmt in self.resources[name]["Properties"]["PolicyDocument"]["Statement"]:
                yield name, stmt

    def state_machines(self) -> dict[str, dict[str, Any]]:
        """The definitions of the state machines, parsed; references in them are text."""
        return {n: json.loads(self.resources[n]["Properties"]["DefinitionString"]) for n in self.ids(SFN)}

    def said(self, level: str) -> str:
        """The annotations of a level, joined."""
        return "\n".join(text for kind, text in self.messages if kind == level)


SFN = "AWS::StepFunctions::StateMachine"


def states(definition: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every state of a definition, also inside Map and Parallel."""
    for name, state in definition["States"].items():
        yield name, state
        for inner in [state.get("ItemProcessor"), state.get("Iterator"), *state.get("Branches", [])]:
            if inner:
                yield from states(inner)


def new_app(*, flags: bool = True) -> cdk.App:
    """An app, with cdk.json's feature flags or without any."""
    context = {**(FLAGS if flags else {}), **_UNSTAGED}
    return cdk.App(context=context, analytics_reporting=False, outdir=tempfile.mkdtemp(dir=OUT))


def deployable(
    context: Mapping[str, Any] | None = None, *, flags: bool = True, packs: Sequence[Any] = ()
) -> Synthesised:
    """The stack of app.py under a context, with cdk.json's feature flags or without any.

    packs: of cdk-nag; a finding of theirs fails the synth.
    """
    given = {f"backup:{key}": value for key, value in (context or {}).items()}
    (config,) = read_context(given)
    app = new_app(flags=flags)
    for pack in packs:
        cdk.Validations.of(app).add_plugins(pack(app))
    return Synthesised.of(AuroraBackupStack(app, config))


def new_stack(name: str = "Mine", *, flags: bool = True, **stack: Any) -> cdk.Stack:
    """An empty stack of a consumer's own app."""
    return cdk.Stack(new_app(flags=flags), name, **stack)


def some_clients(scope: cdk.Stack, construct_id: str = "SomeClients") -> lambda_.ILayerVersion:
    """A layer of the caller's own, so that nothing is downloaded."""
    arn = f"arn:{cdk.Aws.PARTITION}:lambda:{cdk.Aws.REGION}:{ACCOUNT}:layer:clients:1"
    return lambda_.LayerVersion.from_layer_version_arn(scope, construct_id, arn)


def some_vpc(scope: cdk.Stack, construct_id: str = "Vpc") -> ec2.Vpc:
    """A VPC with isolated subnets."""
    subnets = [ec2.SubnetConfiguration(name="Data", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED)]
    return ec2.Vpc(scope, construct_id, nat_gateways=0, max_azs=2, subnet_configuration=subnets)


def some_cluster(scope: cdk.Stack, vpc: ec2.IVpc, construct_id: str = "Cluster", **changes: Any) -> rds.DatabaseCluster:
    """A cluster that the caller made, good enough for the HIPAA policy unless changed."""
    options: dict[str, Any] = {
        "engine": rds.DatabaseClusterEngine.aurora_postgres(version=rds.AuroraPostgresEngineVersion.VER_16_6),
        "writer": rds.ClusterInstance.serverless_v2("writer"),
        "vpc": vpc,
        "vpc_subnets": ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_ISOLATED),
        "storage_encrypted": True,
        "backup": rds.BackupProps(retention=cdk.Duration.days(35)),
    }
    return rds.DatabaseCluster(scope, construct_id, **{**options, **changes})


def imported_cluster(scope: cdk.Stack, construct_id: str = "Imported", **changes: Any) -> ClusterDetails:
    """A cluster that exists already, described by hand."""
    group = ec2.SecurityGroup.from_security_group_id(scope, f"{construct_id}Group", "sg-0123456789abcdef0")
    cluster = rds.DatabaseCluster.from_database_cluster_attributes(
        scope, construct_id, cluster_identifier="clinic", port=5432, security_groups=[group]
    )
    return ClusterDetails(**{"cluster": cluster, "resource_id": "cluster-ABCDEFGHIJKLMNOP", **changes})


def some_secret(scope: cdk.Stack) -> secretsmanager.ISecret:
    """A secret that exists already."""
    arn = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:clinic-AbCdEf"
    return secretsmanager.Secret.from_secret_complete_arn(scope, "Secret", arn)


def backed_up(stack: cdk.Stack, construct_id: str = "Backup", **changes: Any) -> AuroraBackup:
    """AuroraBackup in a consumer's stack, of an imported cluster and without downloads unless changed."""
    options: dict[str, Any] = dict(changes)
    options.setdefault("vpc", None)
    options["vpc"] = options["vpc"] or some_vpc(stack)
    options.setdefault("cluster", None)
    options["cluster"] = options["cluster"] or imported_cluster(stack)
    options.setdefault("clients", None)
    options["clients"] = options["clients"] or some_clients(stack)
    options.setdefault("alert_emails", ["oncall@example.org"])
    return AuroraBackup(stack, construct_id, **options)
