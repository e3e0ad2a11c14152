"""ProtectedCluster: an Aurora PostgreSQL cluster with the backup settings that the policy asks for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aws_cdk import Aws, Duration, RemovalPolicy
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_rds as rds
from constructs import Construct

from cdk_aurora_backup.checks import SynthError, known
from cdk_aurora_backup.cluster import ClusterDetails
from cdk_aurora_backup.permissions import COMPLIANCE_PACKS, ServiceRole, acknowledge, statement

if TYPE_CHECKING:
    from aws_cdk import aws_kms as kms

    from aurora_backup.policy import RetentionPolicy

_MONITORING_INTERVAL = Duration.seconds(60)
_PORT = 5432
_DISPOSABLE = (
    "The caller switched deletion protection off, so that the cluster can be torn down: no cluster to rely on."
)
# What Aurora PostgreSQL can export. The strategy document's "upgrade" exists for other engines only.
LOG_EXPORTS = ("postgresql", "instance", "iam-db-auth-error")


class ProtectedCluster(Construct):
    """Aurora PostgreSQL Serverless v2 in isolated subnets: encrypted, TLS only, IAM authentication, kept on deletion.

    vpc: has isolated subnets (or the subnets that `subnets` selects) in two Availability Zones or more.
    key: encrypts storage, the master secret and Performance Insights.
    policy: gives retention and windows.
    version: Default: Aurora PostgreSQL 17.9.
    readers: Serverless v2 readers beside the writer. Default: 1: where to fail over, and where to dump.
    min_capacity, max_capacity: Aurora capacity units, 0-256. Default: 0.5 to 8. The heartbeat prevents pausing.
    deletion_protection: Default: True.
    removal_policy: Default: RETAIN. Automated backups are kept when the cluster is deleted, whatever this says.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        vpc: ec2.IVpc,
        key: kms.IKey,
        policy: RetentionPolicy,
        subnets: ec2.SubnetSelection | None = None,
        version: rds.AuroraPostgresEngineVersion | None = None,
        database_name: str | None = None,
        readers: int = 1,
        min_capacity: float = 0.5,
        max_capacity: float = 8,
        deletion_protection: bool = True,
        removal_policy: RemovalPolicy = RemovalPolicy.RETAIN,
    ) -> None:
        super().__init__(scope, construct_id)
        if not 0 <= readers <= 14:  # noqa: PLR2004  Aurora has one writer and 15 instances at the most
            raise SynthError(f"ProtectedCluster.readers must be within 0-14, got {readers}")
        if known(database_name) and not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,62}", database_name or ""):
            raise SynthError(
                "ProtectedCluster.database_name must be 1-63 letters, digits and underscores, a letter first; "
                f"got {database_name!r}"
            )
        engine = rds.DatabaseClusterEngine.aurora_postgres(version=version or rds.AuroraPostgresEngineVersion.VER_17_9)
        monitoring = self._monitoring_role()
        self._cluster = rds.DatabaseCluster(
            self,
            "Cluster",
            engine=engine,
            vpc=vpc,
            vpc_subnets=subnets or ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_ISOLATED),
            port=_PORT,
            writer=self._instance("writer", key),
            readers=[self._instance(f"reader{n}", key, scale_with_writer=n == 1) for n in range(1, readers + 1)],
            serverless_v2_min_capacity=min_capacity,
            serverless_v2_max_capacity=max_capacity,
            default_database_name=database_name,
            parameter_group=rds.ParameterGroup(
                self,
                "Parameters",
                engine=engine,
                description="TLS for every connection",
                parameters={"rds.force_ssl": "1", "log_connections": "1", "log_disconnections": "1"},
            ),
            manage_master_user_password=True,
            credentials=rds.Credentials.from_username("postgres", encryption_key=key),
            iam_authentication=True,
            storage_encrypted=True,
            storage_encryption_key=key,
            backup=rds.BackupProps(
                retention=Duration.days(policy.automated.keep_days),
                preferred_window=policy.automated.backup_window,
            ),
            preferred_maintenance_window=policy.automated.maintenance_window.lower(),
            copy_tags_to_snapshot=True,
            cloudwatch_logs_exports=list(LOG_EXPORTS),
            enable_performance_insights=True,
            performance_insight_encryption_key=key,
            monitoring_interval=_MONITORING_INTERVAL,
            monitoring_role=monitoring.role,
            deletion_protection=deletion_protection,
            delete_automated_backups=False,
            removal_policy=removal_policy,
        )
        self._cluster.node.add_dependency(monitoring.policy)
        if not deletion_protection:
            for rule, packs in (("RDSInstanceDeletionProtectionEnabled", ("hipaa", "nist")), ("RDS10", ("solutions",))):
                acknowledge(self._cluster, rule, _DISPOSABLE, packs)
        for instance in self._cluster.node.find_all():
            if isinstance(instance, rds.CfnDBInstance):
                acknowledge(
                    instance,
                    "RDSInBackupPlan",
                    "The rule looks at DB instances; AWS Backup protects Aurora as a cluster, and the plan selects it.",
                    COMPLIANCE_PACKS,
                )

    @property
    def cluster(self) -> rds.DatabaseCluster:
        """The cluster itself."""
        return self._cluster

    @property
    def details(self) -> ClusterDetails:
        """The cluster as the other constructs take it."""
        return ClusterDetails.of(self._cluster)

    def _instance(self, name: str, key: kms.IKey, *, scale_with_writer: bool = False) -> rds.IClusterInstance:
        return rds.ClusterInstance.serverless_v2(
            name,
            publicly_accessible=False,
            auto_minor_version_upgrade=True,
            enable_performance_insights=True,
            performance_insight_encryption_key=key,
            scale_with_writer=scale_with_writer,
        )

    def _monitoring_role(self) -> ServiceRole:
        groups = f"arn:{Aws.PARTITION}:logs:{Aws.REGION}:{Aws.ACCOUNT_ID}:log-group:RDSOSMetrics"
        return ServiceRole(
            self,
            "Monitoring",
            assumed_by=iam.ServicePrincipal("monitoring.rds.amazonaws.com"),
            description="Enhanced monitoring of the Aurora instances",
            statements=[
                statement("CreateGroup", ["logs:CreateLogGroup", "logs:PutRetentionPolicy"], [groups]),
                statement(
                    "WriteStreams",
                    ["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams", "logs:GetLogEvents"],
                    [f"{groups}:log-stream:*"],
                    wildcard="RDS names its log streams after instances that do not exist yet, in its own group only.",
                ),
            ],
        )
