"""BackupBucket: where dump sets, evidence and creation records live."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from aws_cdk import Aws, Duration, RemovalPolicy
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from cdk_aurora_backup.checks import SynthError
from cdk_aurora_backup.permissions import COMPLIANCE_PACKS, acknowledge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aws_cdk import aws_kms as kms

    from aurora_backup.policy import LifecycleRule, RetentionPolicy, StorageClass

_ABORT_UPLOADS_AFTER = Duration.days(3)
_ACCESS_LOG_PREFIX = "backup-bucket/"
_NOT_REPLICATED = "Replication needs a second account or Region, which only the caller can name."
_FOREVER = ("ledger/", "registers/")  # without a creation record nothing is deleted; without a hold, too much is


class BackupBucket(Construct):
    """A versioned, TLS-only, customer-key bucket whose lifecycle is the policy's, with access logs.

    key: encrypts every object; puts that name another key or another kind of encryption, name KMS and no key, or bring
        a key of their own (SSE-C) are refused.
    policy: gives the lifecycle of the four prefixes.
    lifecycle: rules of the caller's own for other prefixes, checked as S3 would. Default: none.
    object_lock: True switches S3 Object Lock on, which cannot be done later; legal holds and evidence locks need it.
        No default retention is set: what is locked, and for how long, is decided object by object. Default: True.
    name: Default: CloudFormation's own. A replica in another account needs one that is known there.
    locked_days: every version that comes without a retention of its own is locked in compliance mode for this long.
        Default: none is, unless asked for.
    keep_overwritten: keep a version that is overwritten as long as its prefix's own copies, in place of the policy's
        `archive.noncurrent_days`: in a replica nobody of this account overwrites anything. Default: False.
    not_replicated: why the bucket replicates nowhere, for the compliance report.
    access_logs: an existing bucket for access logs. Default: one is made, under SSE-S3, because S3's log delivery
        does not write to a bucket under a customer key.
    removal_policy: Default: RETAIN. DESTROY also empties the buckets, so that the stack can be deleted.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        key: kms.IKey,
        policy: RetentionPolicy,
        lifecycle: Sequence[LifecycleRule] = (),
        object_lock: bool = True,
        name: str | None = None,
        locked_days: int | None = None,
        keep_overwritten: bool = False,
        not_replicated: str = _NOT_REPLICATED,
        access_logs: s3.IBucket | None = None,
        removal_policy: RemovalPolicy = RemovalPolicy.RETAIN,
    ) -> None:
        super().__init__(scope, construct_id)
        derived = [
            replace(rule, noncurrent_days=max(rule.noncurrent_days, rule.expire_days)) if keep_overwritten else rule
            for rule in policy.lifecycle_rules()
        ]
        _keep_apart(derived, lifecycle)
        disposable = removal_policy is RemovalPolicy.DESTROY
        logs = access_logs or self._access_log_bucket(policy, removal_policy)
        self._bucket = s3.Bucket(
            self,
            "Bucket",
            bucket_name=name,
            versioned=True,
            encryption=s3.BucketEncryption.KMS,
            encryption_key=key,
            bucket_key_enabled=True,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            object_lock_enabled=object_lock or None,
            object_lock_default_retention=s3.ObjectLockRetention.compliance(Duration.days(locked_days))
            if locked_days
            else None,
            lifecycle_rules=[_expiry(rule) for rule in (*derived, *lifecycle)] + [_housekeeping()],
            transition_default_minimum_object_size=s3.TransitionDefaultMinimumObjectSize.ALL_STORAGE_CLASSES_128_K,
            removal_policy=removal_policy,
            auto_delete_objects=disposable,
        )
        self._log_access_to(logs)
        self._refuse_other_encryption(key)
        acknowledge(
            self._bucket,
            "S3BucketReplicationEnabled",
            not_replicated,
            COMPLIANCE_PACKS,
        )

    @property
    def bucket(self) -> s3.Bucket:
        """The bucket itself."""
        return self._bucket

    def _access_log_bucket(self, policy: RetentionPolicy, removal_policy: RemovalPolicy) -> s3.Bucket:
        logs = s3.Bucket(
            self,
            "AccessLogs",
            versioned=True,
            encryption=s3.BucketEncryption.S3_MANAGED,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            lifecycle_rules=[
                s3.LifecycleRule(
                    id="expire",
                    expiration=Duration.days(policy.evidence_keep.most_days),
                    noncurrent_version_expiration=Duration.days(30),
                ),
                _housekeeping(),
            ],
            removal_policy=removal_policy,
            auto_delete_objects=removal_policy is RemovalPolicy.DESTROY,
        )
        acknowledge(
            logs,
            "S3BucketReplicationEnabled",
            "Access logs are delivered on a best-effort basis and nothing is restored from them: one copy is kept. "
            "Where a record of every access is needed, switch on CloudTrail's data events.",
            COMPLIANCE_PACKS,
        )
        acknowledge(
            logs, "S3DefaultEncryptionKMS", "S3 delivers access logs only to buckets under SSE-S3.", COMPLIANCE_PACKS
        )
        return logs

    def _log_access_to(self, logs: s3.IBucket) -> None:
        # By hand: what CDK does here depends on the consumer's feature flags, and one way uses access control lists.
        resource = self._bucket.node.default_child
        if not isinstance(resource, s3.CfnBucket):
            raise TypeError(f"the bucket's resource must be a CfnBucket, got {resource!r}")
        resource.logging_configuration = s3.CfnBucket.LoggingConfigurationProperty(
            destination_bucket_name=logs.bucket_name, log_file_prefix=_ACCESS_LOG_PREFIX
        )
        logs.add_to_resource_policy(
            iam.PolicyStatement(
                sid="DeliverAccessLogs",
                principals=[iam.ServicePrincipal("logging.s3.amazonaws.com")],
                actions=["s3:PutObject"],
                resources=[logs.arn_for_objects(f"{_ACCESS_LOG_PREFIX}*")],
                conditions={"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}},
            )
        )

    def _refuse_other_encryption(self, key: kms.IKey) -> None:
        # Only where a header is sent: a put without any gets the bucket's default, which is this key. One that says
        # aws:kms and names no key would get the account's aws/s3, by S3's documentation of PutObject.
        kind = "s3:x-amz-server-side-encryption"
        named, brought = f"{kind}-aws-kms-key-id", f"{kind}-customer-algorithm"
        rules: dict[str, dict[str, dict[str, str]]] = {
            "DenyOtherEncryption": {"StringNotEquals": {kind: "aws:kms"}, "Null": {kind: "false"}},
            "DenyOtherKeys": {"StringNotEquals": {named: key.key_arn}, "Null": {named: "false"}},
            "DenyUnnamedKey": {"Null": {kind: "false", named: "true"}},
            "DenyBroughtKeys": {"Null": {brought: "false"}},
        }
        for sid, conditions in rules.items():
            self._bucket.add_to_resource_policy(
                iam.PolicyStatement(
                    sid=sid,
                    effect=iam.Effect.DENY,
                    principals=[iam.AnyPrincipal()],
                    actions=["s3:PutObject"],
                    resources=[self._bucket.arn_for_objects("*")],
                    conditions=conditions,
                )
            )


def _keep_apart(derived: Sequence[LifecycleRule], own: Sequence[LifecycleRule]) -> None:
    """Refuse a rule of the caller's that reaches the policy's objects: S3 obeys whichever expires first."""
    for rule in own:
        for other in (*(d.prefix for d in derived), *_FOREVER):
            if rule.prefix.startswith(other) or other.startswith(rule.prefix):
                raise SynthError(
                    f"BackupBucket.lifecycle: the prefix of a rule of one's own must not overlap {other!r}, which the "
                    f"retention policy decides on, got {rule.prefix!r}"
                )


def _expiry(rule: LifecycleRule) -> s3.LifecycleRule:
    return s3.LifecycleRule(
        id=rule.prefix.strip("/"),
        prefix=rule.prefix,
        expiration=Duration.days(rule.expire_days),
        noncurrent_version_expiration=Duration.days(rule.noncurrent_days),
        transitions=[
            s3.Transition(storage_class=_storage_class(t.storage_class), transition_after=Duration.days(t.days))
            for t in rule.transitions
        ]
        or None,
    )


def _housekeeping() -> s3.LifecycleRule:
    return s3.LifecycleRule(
        id="housekeeping",
        abort_incomplete_multipart_upload_after=_ABORT_UPLOADS_AFTER,
        expired_object_delete_marker=True,
    )


def _storage_class(name: StorageClass) -> s3.StorageClass:
    return s3.StorageClass(name.value)
