"""AuroraBackup: the whole strategy for one cluster. Composition only: it reads as the architecture."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from aws_cdk import Annotations, RemovalPolicy, Stack
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from aurora_backup.policy import MANUAL_SNAPSHOT_QUOTA, RetentionPolicy
from cdk_aurora_backup.alerts import BackupAlerts
from cdk_aurora_backup.audit_framework import AuditFramework
from cdk_aurora_backup.backup_bucket import BackupBucket
from cdk_aurora_backup.backup_key import BackupKey
from cdk_aurora_backup.backup_plan import BackupPlan
from cdk_aurora_backup.backup_vault import GOVERNANCE
from cdk_aurora_backup.checks import SynthError, check_cluster, check_databases, warn_about_quota
from cdk_aurora_backup.cluster import ClusterDetails
from cdk_aurora_backup.compliance import Compliance, EvidenceLock
from cdk_aurora_backup.copies import seen_from
from cdk_aurora_backup.database_role import DatabaseRole
from cdk_aurora_backup.functions import BackupFunctions, DatabaseNetwork
from cdk_aurora_backup.logical_backup import LogicalBackup
from cdk_aurora_backup.permissions import allow_services
from cdk_aurora_backup.recovery import Recovery
from cdk_aurora_backup.replication import Replication
from cdk_aurora_backup.report_plans import ReportPlans
from cdk_aurora_backup.restore_testing import RestoreTesting
from cdk_aurora_backup.retention import RetentionManager
from cdk_aurora_backup.tamper_alerts import TamperAlerts
from cdk_aurora_backup.trial_restore import TrialRestore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aws_cdk import aws_backup as backup
    from aws_cdk import aws_ec2 as ec2
    from aws_cdk import aws_iam as iam
    from aws_cdk import aws_lambda as lambda_
    from aws_cdk import aws_rds as rds
    from aws_cdk import aws_sns as sns

    from cdk_aurora_backup.backup_plan import Selection
    from cdk_aurora_backup.backup_vault import VaultLock
    from cdk_aurora_backup.copies import Copy
    from cdk_aurora_backup.functions import DatabaseAuth
    from cdk_aurora_backup.replication import ReplicateTo


class AuroraBackup(Construct):
    """Backs up one Aurora PostgreSQL cluster, as the policy says.

    cluster: a cluster of the same app, or `ClusterDetails` for an imported one.
    vpc: where the cluster is. subnets: for the functions that open PostgreSQL. Default: isolated subnets.
    create_endpoints: make the VPC endpoints that those functions call. Default: True.
    policy: Default: `RetentionPolicy.hipaa()`.
    alert_emails, topic: who hears of failures. Default: a topic without subscribers, with a warning.
    key, bucket, vault, clients, architecture: what the caller already has. Default: each is made; the key is the
        bucket's, where a bucket of this app is given.
    break_glass: the only roles that may delete the key and the vault's content. Default: the account's root user.
    vault_name: of the vault that is made. Default: from the stack's name and the construct's path.
    vault_lock: of the vault that is made. Default: governance mode, bounds from the policy. None locks nothing.
    backup_rules, selections, copies: what AWS Backup does beside the policy; `BackupPlan` says how.
    replicate_to: other accounts' buckets that dump sets and evidence are copied to. Default: none.
    evidence_lock: S3 Object Lock of compliance evidence. Default: governance mode, and none where removal_policy is
        DESTROY. An existing bucket needs Object Lock, or `EvidenceLock.none()`.
    friends: account numbers, and ids of organisations, that may see snapshots and objects. Default: nobody outside.
    controls_key: an own table of controls for the compliance report, JSON, in the bucket. Default: HIPAA and NIST.
    audit: AWS Backup's audit framework and report plans; AWS Config must record. Default: False.
    restore_testing: AWS Backup's own restore tests, beside the recovery tests. Default: False.
    heartbeat: one small row every few minutes, to tell by what survived. Default: True for a cluster of the same app.
    validation: tolerances, recency queries and checks of one's own for recovery tests; docs/recovery.md has the shape.
    lineage: resource ids of the clusters that this one was recovered from (`aurora-backup adopt` prints them).
    test_instance_class: of a recovery test's instance. Default: db.t4g.medium.
    databases: names. Default: found at run time.
    database_auth: "secret" dumps as the data's owner; "iam" as the role `aurora_backup`, which needs no secret, and
        cannot read tables with row-level security. Default: "secret" where the cluster has one.
    root_certificates: path of a PEM with the authorities of the database's certificate; GovCloud's are not shipped.
    content_digest: dumps also digest the contents of every table. Default: False.
    snapshot_quota: the Region's quota of manual cluster snapshots. Default: 100.
    reserved_concurrency: of each function; None for accounts with a small pool. Default: 2.
    removal_policy: for everything that holds data. Default: RETAIN.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        cluster: rds.IDatabaseCluster | ClusterDetails,
        vpc: ec2.IVpc,
        subnets: ec2.SubnetSelection | None = None,
        create_endpoints: bool = True,
        policy: RetentionPolicy | None = None,
        alert_emails: Sequence[str] = (),
        topic: sns.ITopic | None = None,
        key: kms.IKey | None = None,
        break_glass: Sequence[iam.IRole] = (),
        bucket: s3.IBucket | None = None,
        vault: backup.IBackupVault | None = None,
        vault_name: str | None = None,
        vault_lock: VaultLock | None = GOVERNANCE,
        backup_rules: Sequence[backup.BackupPlanRule] = (),
        selections: Mapping[str, Selection] | None = None,
        copies: Sequence[Copy] = (),
        replicate_to: Sequence[ReplicateTo] = (),
        evidence_lock: EvidenceLock | None = None,
        friends: Sequence[str] = (),
        controls_key: str | None = None,
        audit: bool = False,
        restore_testing: bool = False,
        heartbeat: bool | None = None,
        validation: Mapping[str, Any] | None = None,
        lineage: Sequence[str] = (),
        test_instance_class: str = "db.t4g.medium",
        clients: lambda_.ILayerVersion | None = None,
        architecture: lambda_.Architecture | None = None,
        databases: Sequence[str] = (),
        database_auth: DatabaseAuth | None = None,
        root_certificates: str | None = None,
        content_digest: bool = False,
        snapshot_quota: int = MANUAL_SNAPSHOT_QUOTA,
        reserved_concurrency: int | None = 2,
        removal_policy: RemovalPolicy = RemovalPolicy.RETAIN,
    ) -> None:
        super().__init__(scope, construct_id)
        policy = policy or RetentionPolicy.hipaa()
        target = cluster if isinstance(cluster, ClusterDetails) else ClusterDetails.of(cluster)
        check_cluster(target.cluster, policy)
        check_databases("AuroraBackup.databases", databases)
        warn_about_quota(self, policy, snapshot_quota)
        kept = removal_policy is not RemovalPolicy.DESTROY

        self._target, self._policy = target, policy
        key = key or (bucket.encryption_key if bucket else None)
        self._key = (
            key or BackupKey(self, "Key", break_glass=break_glass, protected=kept, removal_policy=removal_policy).key
        )
        _check_bucket_key(self, bucket, self._key)
        allow_services(self, self._key)
        self._bucket = (
            bucket or BackupBucket(self, "Storage", key=self._key, policy=policy, removal_policy=removal_policy).bucket
        )
        self._alerts = BackupAlerts(
            self, "Alerts", key=self._key, cluster=target.cluster, emails=alert_emails, topic=topic
        )
        self._plan = BackupPlan(
            self,
            "Snapshots",
            target=target,
            key=self._key,
            policy=policy,
            vault=vault,
            vault_name=vault_name,
            lock=vault_lock,
            break_glass=break_glass,
            topic=self._alerts.topic,
            rules=backup_rules,
            selections=selections,
            copies=copies,
            removal_policy=removal_policy,
        )
        self._replication = self._replicate(replicate_to) if replicate_to else None
        self._framework = (
            AuditFramework(self, "Audit", target=target, policy=policy, break_glass=break_glass) if audit else None
        )
        if self._framework:
            ReportPlans(self, "Reports", bucket=self._bucket, key=self._key, framework=self._framework)
        self._restore_testing = (
            RestoreTesting(
                self,
                "RestoreTesting",
                target=target,
                policy=policy,
                vault=self._plan.vault,
                key=self._key,
                vpc=vpc,
                subnets=subnets,
            )
            if restore_testing
            else None
        )
        self._network = DatabaseNetwork(
            self, "Network", vpc=vpc, target=target, subnets=subnets, create_endpoints=create_endpoints
        )
        self._functions = BackupFunctions(
            self,
            "Functions",
            target=target,
            policy=policy,
            bucket=self._bucket,
            key=self._key,
            architecture=architecture,
            clients=clients,
            database_auth=database_auth,
            root_certificates=root_certificates,
            reserved_concurrency=reserved_concurrency,
        )
        if target.secret and target.endpoint:
            self._database_role = DatabaseRole(self, "Role", functions=self._functions, network=self._network)
        self._logical_backup = LogicalBackup(
            self,
            "Logical",
            functions=self._functions,
            network=self._network,
            alerts=self._alerts,
            databases=databases,
            long_running=clients is None,
            content_digest=content_digest,
        )
        self._trial_restore = TrialRestore(self, "Trial", functions=self._functions, alerts=self._alerts)
        self._recovery = Recovery(
            self,
            "Recovery",
            functions=self._functions,
            network=self._network,
            alerts=self._alerts,
            databases=databases,
            heartbeat=heartbeat,
            validation=validation,
            lineage=lineage,
            test_instance_class=test_instance_class,
            restore_testing=self._restore_testing,
        )
        self._retention = RetentionManager(
            self,
            "Retention",
            functions=self._functions,
            alerts=self._alerts,
            vaults=[self._plan.vault],
            lineage=lineage,
            snapshot_quota=snapshot_quota,
        )
        locked = kept and vault is None and vault_lock is not None
        # The denials of an imported key or vault spare whom their owner says.
        ours = kept and vault is None and isinstance(self._key, kms.Key)
        self._compliance = Compliance(
            self,
            "Compliance",
            functions=self._functions,
            alerts=self._alerts,
            plan=self._plan,
            workflows={
                "LogicalBackup": self._logical_backup.machine,
                "TrialRestore": self._trial_restore.machine,
                "RecoveryTest": self._recovery.recovery_test.machine,
            },
            restore=self._trial_restore.restore_function,
            lock=evidence_lock or (EvidenceLock.governance() if kept else EvidenceLock.none()),
            vault_locked=locked,
            vault_denies_deletion=kept and vault is None,
            deletion_protection=kept,
            databases=databases,
            copy_vaults=seen_from(self, copies),
            friends=friends,
            controls_key=controls_key,
            deleters=[f.role for f in (self._retention.act_function, self._recovery.janitor.function) if f.role],
            break_glass=break_glass if break_glass or ours else None,
            lineage=lineage,
            snapshot_quota=snapshot_quota,
        )
        self._alerts.watch_alarm(self._functions.undelivered)
        TamperAlerts(self, "Tampering", alerts=self._alerts, bucket=self._bucket, break_glass=break_glass)
        self._say_what_is_left(bucket, alert_emails, topic)

    @property
    def policy(self) -> RetentionPolicy:
        """The policy that everything here is derived from."""
        return self._policy

    @property
    def target(self) -> ClusterDetails:
        """The cluster."""
        return self._target

    @property
    def key(self) -> kms.IKey:
        """The customer key."""
        return self._key

    @property
    def bucket(self) -> s3.IBucket:
        """Dump sets, evidence and creation records."""
        return self._bucket

    @property
    def alerts(self) -> BackupAlerts:
        """The topic, and what feeds it."""
        return self._alerts

    @property
    def plan(self) -> BackupPlan:
        """AWS Backup's plan, vault and selection."""
        return self._plan

    @property
    def logical_backup(self) -> LogicalBackup:
        """The dump workflow."""
        return self._logical_backup

    @property
    def trial_restore(self) -> TrialRestore:
        """The workflow that restores dump sets for real."""
        return self._trial_restore

    @property
    def recovery(self) -> Recovery:
        """Snapshots on demand, point-in-time recovery, recovery tests, and what they need."""
        return self._recovery

    @property
    def retention(self) -> RetentionManager:
        """The retention manager, and legal holds."""
        return self._retention

    @property
    def compliance(self) -> Compliance:
        """The daily report, its evidence, alarms and dashboard."""
        return self._compliance

    @property
    def functions(self) -> BackupFunctions:
        """How functions are made, for workflows of one's own beside these."""
        return self._functions

    @property
    def network(self) -> DatabaseNetwork:
        """The way to PostgreSQL."""
        return self._network

    @property
    def restore_testing(self) -> RestoreTesting | None:
        """AWS Backup's own restore tests, to be given a validation; None when they were not asked for."""
        return self._restore_testing

    @property
    def replication(self) -> Replication | None:
        """The replication to other accounts; None when none was asked for."""
        return self._replication

    def _replicate(self, to: Sequence[ReplicateTo]) -> Replication:
        if not isinstance(self._bucket, s3.Bucket):
            raise SynthError(
                f"AuroraBackup.replicate_to needs a bucket of the same app, got {self._bucket.bucket_name}: the "
                "replication of an existing bucket cannot be set from here"
            )
        made = Replication(self, "Replication", bucket=self._bucket, key=self._key, to=to)
        for alarm in made.alarms:
            self._alerts.watch_alarm(alarm)
        return made

    def _say_what_is_left(self, bucket: s3.IBucket | None, emails: Sequence[str], topic: sns.ITopic | None) -> None:
        notes = Annotations.of(self)
        if bucket is not None:
            days = ", ".join(f"{rule.prefix} {rule.expire_days}" for rule in self._policy.lifecycle_rules())
            notes.add_info_v2(
                "cdk-aurora-backup:bucket-lifecycle",
                "An existing bucket keeps its own settings. It must be versioned, and its lifecycle must not expire "
                f"objects before these days: {days}; nothing under ledger/ or registers/ may expire: without its "
                "creation record nothing is deleted, and legal holds and second yeses lie under registers/.",
            )
        if not (self._target.secret and self._target.endpoint):
            notes.add_warning_v2(
                "cdk-aurora-backup:database-role",
                "The database role aurora_backup is not made from here, because ClusterDetails has no secret or no "
                "endpoint: run the statements of docs/logical-backup.md once.",
            )
        if not emails and topic is None:
            notes.add_warning_v2(
                "cdk-aurora-backup:no-subscriber", "Nobody hears of a failed backup: set alert_emails or topic."
            )


def _check_bucket_key(scope: Construct, bucket: s3.IBucket | None, key: kms.IKey) -> None:
    """Refuse a bucket of this app under another key: its policy may refuse every object that is put under ours."""
    own = bucket.encryption_key if bucket else None
    arns = [json.dumps(Stack.of(scope).resolve(each.key_arn)) for each in (own, key) if each]
    if len(set(arns)) > 1:
        raise SynthError(
            f"AuroraBackup.key must be the key of the bucket that is given, {arns[0]}, got {arns[1]}: "
            "leave it out to take the bucket's"
        )
