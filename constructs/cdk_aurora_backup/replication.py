"""Dump sets and evidence copied, as they are written, to a bucket that this account's administrators do not own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aws_cdk import Aws, Duration, RemovalPolicy, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from aurora_backup.evidence import REGISTERS
from aurora_backup.policy import Prefix
from cdk_aurora_backup.backup_bucket import BackupBucket
from cdk_aurora_backup.backup_key import BackupKey
from cdk_aurora_backup.checks import SynthError, known
from cdk_aurora_backup.permissions import ServiceRole, Statement, statement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aurora_backup.policy import RetentionPolicy

EVIDENCE_PREFIX = f"{Prefix.COMPLIANCE.value}/evidence"
REGISTERS_PREFIX = REGISTERS.rstrip("/")
_PREFIXES = (*(prefix.value for prefix in Prefix), REGISTERS_PREFIX)
_MOST_RULES = 1000  # S3's limit for one bucket


@dataclass(frozen=True, kw_only=True)
class Replica:
    """Where objects are copied to: a bucket by name, in an account and a Region, under a key known by its alias.

    An alias, not a key's ARN, because the ARN of a key in another account is not known before it is deployed.
    """

    bucket_name: str
    account: str
    region: str
    key_alias: str

    @property
    def bucket_arn(self) -> str:
        """The bucket's ARN."""
        return f"arn:{Aws.PARTITION}:s3:::{self.bucket_name}"

    @property
    def key_arn(self) -> str:
        """The ARN of the key's alias, which S3 takes for a key."""
        return f"arn:{Aws.PARTITION}:kms:{self.region}:{self.account}:{self.key_alias}"


@dataclass(frozen=True, kw_only=True)
class ReplicateTo:
    """One destination, and the prefixes that go there. Default: dump sets, evidence, reports, registers of holds."""

    to: Replica
    prefixes: tuple[str, ...] = _PREFIXES


class ReplicaBucket(Construct):
    """The receiving end, in another account: a bucket with its own key, where nothing locked can be deleted.

    Every version that arrives without a retention of its own, as dump sets do, is locked in S3 Object Lock's compliance
    mode for `locked_days`: no principal of either account deletes it sooner. Each lock ends by itself, so no
    acknowledgement is asked for. S3 replicates a retention that the source has, and it takes the place of this default:
    evidence arrives in the mode of the source's `EvidenceLock`, and in governance mode an administrator of this account
    can delete it. Senders may add versions, never delete, and delete markers are not replicated. What a sender
    overwrites is kept as long as if it had not been.

    copies_from: the accounts that send. name: as the senders know it. policy: gives the lifecycle.
    locked_days: Default: as long as the policy keeps its weekly dump sets.
    break_glass: the only roles of this account that may delete the key. Default: the account's root user.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        copies_from: Sequence[str],
        policy: RetentionPolicy,
        locked_days: int | None = None,
        break_glass: Sequence[iam.IRole] = (),
        removal_policy: RemovalPolicy = RemovalPolicy.RETAIN,
    ) -> None:
        super().__init__(scope, construct_id)
        stack = Stack.of(self)
        if not known(stack.account) or not known(stack.region):
            raise SynthError(f"{self.node.path}: the stack of a replica bucket must name its account and Region")
        if not copies_from:
            raise SynthError("ReplicaBucket.copies_from must name the accounts that send, got none")
        days = locked_days or policy.prefix_keep(Prefix.LOGICAL).most_days
        self._key = BackupKey(
            self,
            "Key",
            break_glass=break_glass,
            protected=removal_policy is not RemovalPolicy.DESTROY,
            removal_policy=removal_policy,
        ).key
        alias = f"alias/{name}"
        kms.Alias(self, "Alias", alias_name=alias, target_key=self._key, removal_policy=removal_policy)
        self._bucket = BackupBucket(
            self,
            "Storage",
            key=self._key,
            policy=policy,
            name=name,
            locked_days=days,
            keep_overwritten=True,
            not_replicated="This bucket is the replica.",
            removal_policy=removal_policy,
        ).bucket
        senders = [iam.AccountPrincipal(account) for account in copies_from]
        self._bucket.add_to_resource_policy(
            iam.PolicyStatement(
                sid="ReceiveObjects",
                principals=senders,
                actions=["s3:ReplicateObject", "s3:ReplicateTags", "s3:ObjectOwnerOverrideToBucketOwner"],
                resources=[self._bucket.arn_for_objects("*")],
            )
        )
        self._bucket.add_to_resource_policy(
            iam.PolicyStatement(
                sid="ReceiverIsVersioned",
                principals=senders,
                actions=["s3:GetBucketVersioning"],
                resources=[self._bucket.bucket_arn],
            )
        )
        self._key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="EncryptReplicas",
                principals=senders,
                actions=["kms:Encrypt", "kms:GenerateDataKey"],
                resources=["*"],
                conditions={"StringEquals": {"kms:ViaService": f"s3.{stack.region}.{Aws.URL_SUFFIX}"}},
            )
        )
        self._replica = Replica(bucket_name=name, account=stack.account, region=stack.region, key_alias=alias)

    @property
    def bucket(self) -> s3.Bucket:
        """The bucket itself."""
        return self._bucket

    @property
    def key(self) -> kms.Key:
        """The key of this account."""
        return self._key

    @property
    def replica(self) -> Replica:
        """The bucket as the senders name it."""
        return self._replica


class Replication(Construct):
    """S3 replication of the backup bucket's prefixes, with an alarm for each destination that an object did not reach.

    The destination must exist first: its stack is a dependency of this one. Objects written before replication was
    switched on are not copied (S3 Batch Replication does that once).
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, bucket: s3.Bucket, key: kms.IKey, to: Sequence[ReplicateTo]
    ) -> None:
        super().__init__(scope, construct_id)
        pairs = [(each.to, prefix.rstrip("/")) for each in to for prefix in each.prefixes]
        if not 0 < len(pairs) <= _MOST_RULES:
            raise SynthError(f"Replication.to must hold 1-{_MOST_RULES} prefixes, got {len(pairs)}")
        own = Stack.of(self).account
        for replica in {replica for replica, _ in pairs}:
            if known(own) and replica.account == own:
                raise SynthError(
                    f"replica {replica.bucket_name} must be in another account than {own}: what one administrator can "
                    "delete twice is one copy"
                )
        role = ServiceRole(
            self,
            "Replication",
            assumed_by=iam.ServicePrincipal("s3.amazonaws.com"),
            description="S3 replicates dump sets and evidence to another account",
            statements=_statements(bucket, key, [each.to for each in to]),
        )
        resource = bucket.node.default_child
        if not isinstance(resource, s3.CfnBucket):
            raise TypeError(f"the bucket's resource must be a CfnBucket, got {resource!r}")
        resource.replication_configuration = s3.CfnBucket.ReplicationConfigurationProperty(
            role=role.arn, rules=[_rule(n, replica, prefix) for n, (replica, prefix) in enumerate(pairs)]
        )
        self._alarms = [self._alarm(n, bucket, replica, prefix) for n, (replica, prefix) in enumerate(pairs)]

    @property
    def alarms(self) -> list[cloudwatch.Alarm]:
        """One for each destination and prefix: an object did not arrive."""
        return list(self._alarms)

    def _alarm(self, number: int, bucket: s3.Bucket, replica: Replica, prefix: str) -> cloudwatch.Alarm:
        failed = cloudwatch.Metric(
            namespace="AWS/S3",
            metric_name="OperationsFailedReplication",
            dimensions_map={
                "SourceBucket": bucket.bucket_name,
                "DestinationBucket": replica.bucket_name,
                "RuleId": _rule_id(number, prefix),
            },
            statistic="Sum",
            period=Duration.minutes(5),
        )
        return failed.create_alarm(
            self,
            f"Failed{number}",
            alarm_description=f"Objects under {prefix}/ did not reach {replica.bucket_name} in {replica.account}",
            threshold=1,
            evaluation_periods=1,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )


def _rule_id(number: int, prefix: str) -> str:
    return f"{prefix.replace('/', '-')}-{number}"


def _rule(number: int, replica: Replica, prefix: str) -> s3.CfnBucket.ReplicationRuleProperty:
    bucket = s3.CfnBucket
    return bucket.ReplicationRuleProperty(
        id=_rule_id(number, prefix),
        status="Enabled",
        priority=number,
        filter=bucket.ReplicationRuleFilterProperty(prefix=f"{prefix}/"),
        delete_marker_replication=bucket.DeleteMarkerReplicationProperty(status="Disabled"),
        source_selection_criteria=bucket.SourceSelectionCriteriaProperty(
            sse_kms_encrypted_objects=bucket.SseKmsEncryptedObjectsProperty(status="Enabled")
        ),
        destination=bucket.ReplicationDestinationProperty(
            bucket=replica.bucket_arn,
            account=replica.account,
            access_control_translation=bucket.AccessControlTranslationProperty(owner="Destination"),
            encryption_configuration=bucket.EncryptionConfigurationProperty(replica_kms_key_id=replica.key_arn),
            metrics=bucket.MetricsProperty(status="Enabled"),
        ),
    )


def _statements(bucket: s3.Bucket, key: kms.IKey, replicas: Sequence[Replica]) -> list[Statement]:
    """What S3 asks of a replication role ("Setting up permissions for live replication")."""
    region = Stack.of(bucket).region
    objects = "S3 replicates objects that do not exist yet; the rules limit it to the prefixes."
    read = ["GetObjectVersionForReplication", "GetObjectVersionAcl", "GetObjectVersionTagging"]
    read += ["GetObjectRetention", "GetObjectLegalHold"]
    found = [
        statement("ReadRules", ["s3:GetReplicationConfiguration", "s3:ListBucket"], [bucket.bucket_arn]),
        statement("Read", [f"s3:{name}" for name in read], [bucket.arn_for_objects("*")], wildcard=objects),
        statement(
            "Decrypt",
            ["kms:Decrypt"],
            [key.key_arn],
            {"StringEquals": {"kms:ViaService": f"s3.{region}.{Aws.URL_SUFFIX}"}},
        ),
    ]
    for n, replica in enumerate(dict.fromkeys(replicas)):
        found += [
            statement(
                f"Write{n}",
                ["s3:ReplicateObject", "s3:ReplicateTags", "s3:ObjectOwnerOverrideToBucketOwner"],
                [f"{replica.bucket_arn}/*"],
                wildcard=objects,
            ),
            statement(
                f"Encrypt{n}",
                ["kms:Encrypt", "kms:GenerateDataKey"],
                [f"arn:{Aws.PARTITION}:kms:{replica.region}:{replica.account}:key/*"],
                {
                    "ForAnyValue:StringEquals": {"kms:ResourceAliases": [replica.key_alias]},
                    "StringEquals": {"kms:ViaService": f"s3.{replica.region}.{Aws.URL_SUFFIX}"},
                },
                wildcard="A key of another account is known by its alias only, and the condition names the alias.",
            ),
        ]
    return found
