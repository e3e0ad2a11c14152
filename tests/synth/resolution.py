"""Templates with every reference replaced by the ARN or name that a deployment could give, for policy evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ARNS = {
    "AWS::Backup::BackupVault": "arn:aws:backup:{region}:{account}:backup-vault:{name}",
    "AWS::Backup::LogicallyAirGappedBackupVault": "arn:aws:backup:{region}:{account}:backup-vault:{name}",
    "AWS::Backup::BackupPlan": "arn:aws:backup:{region}:{account}:backup-plan:{name}",
    "AWS::Backup::Framework": "arn:aws:backup:{region}:{account}:framework:{name}",
    "AWS::Backup::RestoreTestingPlan": "arn:aws:backup:{region}:{account}:restore-testing-plan:{name}",
    "AWS::CloudWatch::Alarm": "arn:aws:cloudwatch:{region}:{account}:alarm:{name}",
    "AWS::CodeBuild::Project": "arn:aws:codebuild:{region}:{account}:project/{name}",
    "AWS::Events::Rule": "arn:aws:events:{region}:{account}:rule/{name}",
    "AWS::IAM::ManagedPolicy": "arn:aws:iam::{account}:policy/{name}",
    "AWS::IAM::Role": "arn:aws:iam::{account}:role/{name}",
    "AWS::KMS::Key": "arn:aws:kms:{region}:{account}:key/{name}",
    "AWS::Lambda::Function": "arn:aws:lambda:{region}:{account}:function:{name}",
    "AWS::Logs::LogGroup": "arn:aws:logs:{region}:{account}:log-group:{name}:*",
    "AWS::RDS::DBCluster": "arn:aws:rds:{region}:{account}:cluster:{name}",
    "AWS::S3::Bucket": "arn:aws:s3:::{name}",
    "AWS::SNS::Topic": "arn:aws:sns:{region}:{account}:{name}",
    "AWS::SQS::Queue": "arn:aws:sqs:{region}:{account}:{name}",
    "AWS::Scheduler::Schedule": "arn:aws:scheduler:{region}:{account}:schedule/default/{name}",
    "AWS::StepFunctions::StateMachine": "arn:aws:states:{region}:{account}:stateMachine:{name}",
}
_REF_IS_ARN = ("AWS::SNS::Topic", "AWS::StepFunctions::StateMachine", "AWS::IAM::ManagedPolicy")
_OTHER_ATTRIBUTES = {
    "DBClusterResourceId": "cluster-ABCDEFGHIJKLMNOP",
    "MasterUserSecret.SecretArn": "arn:aws:secretsmanager:{region}:{account}:secret:{name}-AbCdEf",
    "Endpoint.Port": "5432",
}
_NAMES = {
    "AWS::Backup::BackupVault": "BackupVaultName",
    "AWS::Backup::LogicallyAirGappedBackupVault": "BackupVaultName",
    "AWS::S3::Bucket": "BucketName",
}
# Characters that the service takes of a name; what is longer is cut. A state machine's and a schedule's name begin with
# the logical id.
_MOST = {"AWS::Events::Rule": 64, "AWS::IAM::Role": 64, "AWS::Lambda::Function": 64, "AWS::IAM::ManagedPolicy": 128}
_WITHOUT_STACK = ("AWS::StepFunctions::StateMachine", "AWS::Scheduler::Schedule")
_RANDOM = "AbCdEf012345"
_LOWER = ("AWS::S3::Bucket", "AWS::RDS::DBCluster", "AWS::RDS::DBSubnetGroup")


@dataclass(frozen=True)
class Resolved:
    """One stack's template as if it were deployed."""

    stack: str
    account: str
    region: str
    template: dict[str, Any]

    @cached_property
    def resources(self) -> dict[str, dict[str, Any]]:
        """Every resource by logical id, with no reference left."""
        return {name: self._value(body) for name, body in self.template["Resources"].items()}

    def of(self, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """(logical id, properties) of every resource of a type."""
        for logical_id, body in self.resources.items():
            if body["Type"] == kind:
                yield logical_id, body.get("Properties", {})

    def name(self, logical_id: str) -> str:
        """The physical name."""
        body = self.template["Resources"][logical_id]
        given = body.get("Properties", {}).get(_NAMES.get(body["Type"], ""))
        if isinstance(given, str):
            return given
        made = self._made(body["Type"], logical_id)
        return made.lower() if body["Type"] in _LOWER else made

    def _made(self, kind: str, logical_id: str) -> str:
        """A name as CloudFormation makes it, as far as it has been seen to: without the stack's where a type's is so,
        and where a service takes few characters, cut to 24 of the stack's name and what is left for the logical id.
        """
        if kind in _WITHOUT_STACK:
            return f"{logical_id[:67]}-{_RANDOM}"
        most = _MOST.get(kind)
        name = f"{self.stack}-{logical_id}"
        if most is None or len(name) + len(_RANDOM) + 1 <= most:
            return name
        stack = self.stack[:24]
        return f"{stack}-{logical_id[: most - len(stack) - len(_RANDOM) - 2]}-{_RANDOM}"

    def arn(self, logical_id: str) -> str:
        """The ARN."""
        kind = self.template["Resources"][logical_id]["Type"]
        return self._fill(_ARNS[kind], logical_id)

    def _fill(self, text: str, logical_id: str) -> str:
        return text.format(region=self.region, account=self.account, name=self.name(logical_id))

    def _value(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._value(item) for item in value if item != {"Ref": "AWS::NoValue"}]
        if not isinstance(value, dict):
            return value
        functions: dict[str, Callable[[Any], Any]] = {
            "Ref": self._ref,
            "Fn::GetAtt": lambda given: self._attribute(*given),
            "Fn::Join": lambda given: str(given[0]).join(str(part) for part in self._value(given[1])),
            "Fn::Split": lambda given: str(self._value(given[1])).split(given[0]),
            "Fn::Select": lambda given: self._value(given[1])[int(given[0])],
            "Fn::GetAZs": lambda _: [f"{self.region}{letter}" for letter in "abc"],
        }
        function, given = next(iter(value.items()), ("", None))
        if function in functions:
            return functions[function](given)
        return {key: self._value(item) for key, item in value.items()}

    def _ref(self, name: str) -> str:
        pseudo = {
            "AWS::AccountId": self.account,
            "AWS::Region": self.region,
            "AWS::Partition": "aws",
            "AWS::URLSuffix": "amazonaws.com",
            "AWS::StackName": self.stack,
            "AWS::StackId": f"arn:aws:cloudformation:{self.region}:{self.account}:stack/{self.stack}/1",
        }
        if name in pseudo:
            return pseudo[name]
        if name not in self.template["Resources"]:
            return f"parameter-{name}"
        kind = self.template["Resources"][name]["Type"]
        return self.arn(name) if kind in _REF_IS_ARN else self.name(name)

    def _attribute(self, name: str, attribute: str) -> str:
        if attribute in _OTHER_ATTRIBUTES:
            return self._fill(_OTHER_ATTRIBUTES[attribute], name)
        kind = self.template["Resources"][name]["Type"]
        if attribute.endswith("Arn") and kind in _ARNS:
            return self.arn(name)
        return self.name(name) if attribute.endswith("Name") else f"{self.name(name)}.{attribute}"
