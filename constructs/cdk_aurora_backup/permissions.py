"""Roles and IAM statements: plain functions, each statement with a sid that says what it is for.

Every role is explicit and carries one customer-managed policy: CDK's automatic grants would add inline policies, which
the compliance packs refuse, so `without_policy_updates` keeps them away and every permission stands in our code.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aws_cdk import Acknowledgment, Annotations, Aws, Stack, Validations
from aws_cdk import aws_iam as iam
from constructs import Construct

from cdk_aurora_backup.checks import SynthError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aws_cdk import aws_kms as kms
    from aws_cdk import aws_sns as sns
    from constructs import IConstruct

_PREFIXES = {
    "hipaa": "HIPAA.Security::HIPAA.Security-",
    "nist": "NIST.800.53.R5::NIST.800.53.R5-",
    "pci": "PCI.DSS.321::PCI.DSS.321-",
    "solutions": "AwsSolutions::AwsSolutions-",
}
COMPLIANCE_PACKS = ("hipaa", "nist", "pci")
_OWN_ACCOUNT = {"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}}


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A statement for an identity policy. deny: it takes away what another allows; Default: it allows.

    wildcard: why a resource of it holds a `*`; the reason goes into the compliance report, so a wildcard needs one.
    """

    sid: str
    actions: Sequence[str]
    resources: Sequence[str]
    conditions: Mapping[str, Any] = field(default_factory=dict)
    wildcard: str | None = None
    deny: bool = False

    def to_json(self) -> dict[str, Any]:
        """The statement in IAM's JSON."""
        return {
            "Sid": self.sid,
            "Effect": "Deny" if self.deny else "Allow",
            "Action": list(self.actions),
            "Resource": list(self.resources),
            **({"Condition": dict(self.conditions)} if self.conditions else {}),
        }


def statement(
    sid: str,
    actions: Sequence[str],
    resources: Sequence[str],
    conditions: Mapping[str, Any] | None = None,
    *,
    wildcard: str | None = None,
) -> Statement:
    """An Allow statement for an identity policy; `Statement` says what each is."""
    return Statement(sid=sid, actions=actions, resources=resources, conditions=conditions or {}, wildcard=wildcard)


def acknowledge(scope: IConstruct, rule: str, reason: str, packs: Sequence[str]) -> None:
    """Acknowledge one rule of the named packs at this scope, by prefixed id, so that it stays in the report."""
    Validations.of(scope).acknowledge(*(Acknowledgment(id=f"{_PREFIXES[pack]}{rule}", reason=reason) for pack in packs))


def deny_outside(sid: str, actions: Sequence[str], break_glass: Sequence[iam.IRole]) -> iam.PolicyStatement:
    """Deny the actions to every principal but these roles; without roles, to all but the account's root user."""
    root = f"arn:{Aws.PARTITION}:iam::{Aws.ACCOUNT_ID}:root"
    return iam.PolicyStatement(
        sid=sid,
        effect=iam.Effect.DENY,
        principals=[iam.AnyPrincipal()],
        actions=list(actions),
        resources=["*"],
        conditions={"ArnNotEquals": {"aws:PrincipalArn": [role.role_arn for role in break_glass] or [root]}},
    )


def use_key(key: kms.IKey, *actions: str) -> Statement:
    """The statement for calls that AWS services make with the customer key on the role's behalf."""
    return statement(
        "UseBackupKey", [f"kms:{action}" for action in actions or ("Decrypt", "GenerateDataKey")], [key.key_arn]
    )


def network_interfaces() -> list[Statement]:
    """What Lambda needs to put a function into a VPC. EC2 knows no resource to name for these calls."""
    actions = ["CreateNetworkInterface", "DescribeNetworkInterfaces", "DescribeSubnets", "DeleteNetworkInterface"]
    actions += ["AssignPrivateIpAddresses", "UnassignPrivateIpAddresses"]
    return [
        statement(
            "JoinVpc",
            [f"ec2:{action}" for action in actions],
            ["*"],
            wildcard="EC2 names no resource for the network interfaces that Lambda makes in a VPC.",
        )
    ]


def tracing() -> Statement:
    """X-Ray segments; X-Ray knows no resources."""
    return statement(
        "Trace",
        ["xray:PutTraceSegments", "xray:PutTelemetryRecords"],
        ["*"],
        wildcard="X-Ray knows no resources.",
    )


def log_delivery() -> Statement:
    """What Step Functions needs to deliver its log; CloudWatch Logs names no resource for log deliveries."""
    names = ["CreateLogDelivery", "GetLogDelivery", "UpdateLogDelivery", "DeleteLogDelivery", "ListLogDeliveries"]
    names += ["PutResourcePolicy", "DescribeResourcePolicies", "DescribeLogGroups"]
    return statement(
        "DeliverLogs",
        [f"logs:{name}" for name in names],
        ["*"],
        wildcard="CloudWatch Logs names no resource for log deliveries.",
    )


def key_service_statements() -> list[iam.PolicyStatement]:
    """What a key's policy must allow for this package: a key that we make has them, an existing key needs them.

    Each is bound to this account, so that no service can be made to use the key for somebody else.
    """
    own_logs = f"arn:{Aws.PARTITION}:logs:{Aws.REGION}:{Aws.ACCOUNT_ID}:log-group:*"
    return [
        iam.PolicyStatement(
            sid="LogGroups",
            principals=[iam.ServicePrincipal(f"logs.{Aws.REGION}.{Aws.URL_SUFFIX}")],
            actions=["kms:Encrypt*", "kms:Decrypt*", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:Describe*"],
            resources=["*"],
            conditions={"ArnLike": {"kms:EncryptionContext:aws:logs:arn": own_logs}},
        ),
        *topic_key_statements(),
    ]


def topic_key_statements() -> list[iam.PolicyStatement]:
    """What the key of an encrypted topic must allow, so that the services that publish to it can.

    EventBridge is bound by the topic: it sends no source account, and delivers nothing to a topic whose key asks for
    one ("Key management" of Amazon SNS). A key of the topic's owner therefore serves topics of this account only.
    """
    own_topics = f"arn:{Aws.PARTITION}:sns:{Aws.REGION}:{Aws.ACCOUNT_ID}:*"
    use = ["kms:Decrypt", "kms:GenerateDataKey*"]
    return [
        iam.PolicyStatement(
            sid="Events",
            principals=[iam.ServicePrincipal(name) for name in ("events.amazonaws.com", "backup.amazonaws.com")],
            actions=use,
            resources=["*"],
            conditions={"ArnLike": {"kms:EncryptionContext:aws:sns:topicArn": own_topics}},
        ),
        iam.PolicyStatement(
            sid="Alarms",
            principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
            actions=use,
            resources=["*"],
            conditions=_OWN_ACCOUNT,
        ),
    ]


def topic_service_statements(topic_arn: str) -> list[iam.PolicyStatement]:
    """What a topic's policy must allow: alarms and vault events of this account, and EventBridge.

    EventBridge has no condition, because it delivers nothing where there is one ("You can't use Condition blocks in
    Amazon SNS topic policies for EventBridge", in its guide's page on resource-based policies). So what comes by way
    of EventBridge proves nothing by itself: each alert names the account of its event. Nothing can be read by this
    way, and the topic's key serves topics of this account only.
    """
    publishers = {
        "PublishAlarms": ("cloudwatch.amazonaws.com", _OWN_ACCOUNT),
        "PublishVaultEvents": ("backup.amazonaws.com", _OWN_ACCOUNT),
        "PublishEvents": ("events.amazonaws.com", None),
    }
    return [
        iam.PolicyStatement(
            sid=sid,
            principals=[iam.ServicePrincipal(service)],
            actions=["sns:Publish"],
            resources=[topic_arn],
            conditions=conditions,
        )
        for sid, (service, conditions) in publishers.items()
    ]


def let_services_publish(scope: Construct, topic: sns.ITopic) -> None:
    """Put `topic_service_statements` into the topic's policy, or say that somebody must, where it cannot be edited."""
    statements = topic_service_statements(topic.topic_arn)
    added = [topic.add_to_resource_policy(stmt).statement_added for stmt in statements]
    if not all(added):
        _say_statements(scope, "topic", statements, note="topic-policy")


def allow_services(scope: Construct, key: kms.IKey) -> None:
    """Put `key_service_statements` into the key's policy, or say that somebody must, where it cannot be edited."""
    add_to_key_policy(scope, key, key_service_statements(), note="key-policy")


def add_to_key_policy(scope: Construct, key: kms.IKey, statements: Sequence[iam.PolicyStatement], *, note: str) -> None:
    """Put statements into the key's policy; where it cannot be edited, say under this note that somebody must."""
    added = [key.add_to_resource_policy(stmt).statement_added for stmt in statements]
    if not all(added):
        _say_statements(scope, "key", statements, note=note)


def _say_statements(scope: Construct, what: str, statements: Sequence[iam.PolicyStatement], *, note: str) -> None:
    document = iam.PolicyDocument(statements=list(statements))
    text = json.dumps(Stack.of(scope).resolve(document)["Statement"], sort_keys=True)
    Annotations.of(scope).add_info_v2(
        f"cdk-aurora-backup:{note}",
        f"The policy of an existing {what} cannot be edited from here. It must hold these statements: {text}",
    )


class ServiceRole(Construct):
    """A role for one AWS service, with exactly the statements it is given, in one customer-managed policy.

    Raises SynthError for a statement with a wildcard that gives no reason for it.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        assumed_by: iam.IPrincipal,
        description: str,
        statements: Sequence[Statement],
    ) -> None:
        super().__init__(scope, construct_id)
        self._role = iam.Role(self, "Role", assumed_by=assumed_by, description=description)
        self._policy = iam.ManagedPolicy(
            self,
            "Policy",
            description=description,
            # As JSON: each object on CDK's side costs calls across two languages.
            document=iam.PolicyDocument.from_json(
                {"Version": "2012-10-17", "Statement": [s.to_json() for s in statements]}
            ),
        )
        self._policy.attach_to_role(self._role)
        found = [
            Acknowledgment(id=f"{_PREFIXES['solutions']}IAM5[Resource::{resource}]", reason=" ".join(reasons))
            for resource, reasons in self._wildcards(statements).items()
        ]
        if found:
            Validations.of(self._policy).acknowledge(*found)

    @property
    def role(self) -> iam.IRole:
        """The role, closed to grants from elsewhere."""
        return self._role.without_policy_updates()

    @property
    def arn(self) -> str:
        """The role's ARN."""
        return self._role.role_arn

    @property
    def policy(self) -> iam.ManagedPolicy:
        """The policy; whatever uses the role depends on it, so that nothing runs before it may."""
        return self._policy

    def _wildcards(self, statements: Sequence[Statement]) -> dict[str, list[str]]:
        """The reasons for each resource with a wildcard, resources as cdk-nag writes them."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        wild = [(each, [r for r in each.resources if "*" in r]) for each in statements]
        for (each, _), resolved in zip(wild, Stack.of(self).resolve([some for _, some in wild]), strict=True):
            for resource in sorted({_as_finding(one) for one in resolved}):
                if not each.wildcard:
                    raise SynthError(
                        f"{self.node.path}: statement {each.sid} must say why it needs the wildcard in {resource!r}"
                    )
                if each.wildcard not in found[resource]:
                    found[resource].append(each.wildcard)
        return dict(found)


def _as_finding(resolved: Any) -> str:
    """A resolved resource as cdk-nag writes it into a finding: references become <LogicalId>, <LogicalId.Attribute>."""
    if isinstance(resolved, str):
        return resolved
    if "Fn::Join" in resolved:
        delimiter, items = resolved["Fn::Join"]
        return str(delimiter).join(_as_finding(item) for item in items)
    if "Fn::GetAtt" in resolved:
        return f"<{'.'.join(resolved['Fn::GetAtt'])}>"
    return f"<{resolved['Ref']}>" if "Ref" in resolved else json.dumps(resolved)
