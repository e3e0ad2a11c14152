"""The deployable stack of app.py: a cluster, made or imported, and AuroraBackup beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aws_cdk import CfnOutput, Environment, PermissionsBoundary, RemovalPolicy, Stack, Tags
from aws_cdk import aws_backup as backup
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_rds as rds
from aws_cdk import aws_secretsmanager as secretsmanager

from cdk_aurora_backup.aurora_backup import AuroraBackup
from cdk_aurora_backup.backup_key import BackupKey
from cdk_aurora_backup.backup_vault import GOVERNANCE, VaultLock
from cdk_aurora_backup.checks import SynthError
from cdk_aurora_backup.cluster import ClusterDetails
from cdk_aurora_backup.copies import Copy
from cdk_aurora_backup.permissions import ServiceRole, statement
from cdk_aurora_backup.protected_cluster import ProtectedCluster
from cdk_aurora_backup.replication import Replica, ReplicateTo

if TYPE_CHECKING:
    from constructs import Construct

    from cdk_aurora_backup.app_config import AppConfig

_POSTGRES_PORT = 5432


class AuroraBackupStack(Stack):
    """One environment: VPC, cluster and backups, as its AppConfig says."""

    def __init__(self, scope: Construct, config: AppConfig) -> None:
        boundary = config.permissions_boundary
        super().__init__(
            scope,
            config.stack_name,
            env=Environment(account=config.account, region=config.region),
            permissions_boundary=PermissionsBoundary.from_name(boundary) if boundary else None,
            description="Backups and data retention of an Aurora PostgreSQL cluster (cdk-aurora-backup)",
        )
        for name, value in (config.tags or {}).items():
            Tags.of(self).add(name, value)
        if config.imported_cluster and not config.imported_vpc:
            raise SynthError("backup:imported-vpc is needed with backup:imported-cluster: the way to the database")
        removal = RemovalPolicy.DESTROY if config.is_dev else RemovalPolicy.RETAIN
        break_glass = [
            iam.Role.from_role_arn(self, f"BreakGlass{n}", arn) for n, arn in enumerate(config.break_glass_role_arns)
        ]
        key: kms.IKey = (
            kms.Key.from_key_arn(self, "Key", config.key_arn)
            if config.key_arn
            else BackupKey(
                self, "Key", break_glass=break_glass, protected=not config.is_dev, removal_policy=removal
            ).key
        )
        vpc = self._imported_vpc(config.imported_vpc) if config.imported_vpc else self._vpc(key, removal)
        target = (
            self._imported_cluster(config.imported_cluster)
            if config.imported_cluster
            else ProtectedCluster(
                self,
                "Database",
                vpc=vpc,
                key=key,
                policy=config.effective_policy,
                database_name=config.database_name,
                version=_version(config.engine_version),
                readers=config.readers,
                **_capacity(config.capacity),
                deletion_protection=not config.is_dev,
                removal_policy=removal,
            ).details
        )
        self.backup = AuroraBackup(
            self,
            "Backup",
            cluster=target,
            vpc=vpc,
            create_endpoints=config.create_endpoints,
            policy=config.effective_policy,
            alert_emails=config.alert_emails,
            key=key,
            architecture=lambda_.Architecture.X86_64
            if config.architecture == "x86_64"
            else lambda_.Architecture.ARM_64,
            databases=config.databases,
            root_certificates=config.root_certificates,
            content_digest=config.content_digest,
            snapshot_quota=config.snapshot_quota,
            reserved_concurrency=config.reserved_concurrency,
            break_glass=break_glass,
            vault_name=config.vault_name,
            vault_lock=_vault_lock(config.vault_lock),
            copies=[self._copy(n, given) for n, given in enumerate(config.copy_to)],
            replicate_to=[_replica(given) for given in config.replicate_to],
            audit=config.audit,
            restore_testing=config.restore_testing,
            heartbeat=config.heartbeat,
            validation=config.validation,
            lineage=config.lineage,
            test_instance_class=config.test_instance_class,
            removal_policy=removal,
        )
        self._outputs(target)

    def _outputs(self, target: ClusterDetails) -> None:
        backup = self.backup
        values = {
            "ClusterIdentifier": target.cluster.cluster_identifier,
            "ClusterResourceId": target.resource_id,
            "BackupBucket": backup.bucket.bucket_name,
            "BackupVault": backup.plan.vault.backup_vault_name,
            "AlertTopic": backup.alerts.topic.topic_arn,
            "LogicalBackupWorkflow": backup.logical_backup.machine.state_machine_arn,
            "RetentionWorkflow": backup.retention.machine.state_machine_arn,
            "TrialRestoreWorkflow": backup.trial_restore.machine.state_machine_arn,
            "BaselineWorkflow": backup.recovery.baselines.machine.state_machine_arn,
            "OnDemandSnapshotWorkflow": backup.recovery.on_demand_snapshot.machine.state_machine_arn,
            "PointInTimeRecoveryWorkflow": backup.recovery.point_in_time_recovery.machine.state_machine_arn,
            "RecoveryTestWorkflow": backup.recovery.recovery_test.machine.state_machine_arn,
        }
        for name, value in values.items():
            CfnOutput(self, name, value=value)

    def _copy(self, number: int, given: Any) -> Copy:
        bounds = given.get("bounds")
        return Copy(
            to=backup.BackupVault.from_backup_vault_arn(self, f"CopyTo{number}", given["vault_arn"]),
            rules=tuple(given.get("rules", ())),
            keep_days=given.get("keep_days"),
            bounds=(bounds[0], bounds[1]) if bounds else None,
        )

    def _vpc(self, key: kms.IKey, removal: RemovalPolicy) -> ec2.Vpc:
        """Isolated subnets only: the database has no way out and none in."""
        vpc = ec2.Vpc(
            self,
            "Vpc",
            max_azs=2,
            nat_gateways=0,
            restrict_default_security_group=True,
            subnet_configuration=[
                ec2.SubnetConfiguration(name="Database", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED, cidr_mask=24)
            ],
        )
        group = logs.LogGroup(
            self, "VpcFlowLogs", encryption_key=key, retention=logs.RetentionDays.ONE_YEAR, removal_policy=removal
        )
        role = ServiceRole(
            self,
            "VpcFlowLogsRole",
            assumed_by=iam.ServicePrincipal("vpc-flow-logs.amazonaws.com"),
            description="VPC flow logs",
            statements=[
                statement(
                    "Write",
                    ["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"],
                    [group.log_group_arn],
                )
            ],
        )
        vpc.add_flow_log("FlowLogs", destination=ec2.FlowLogDestination.to_cloud_watch_logs(group, role.role))
        return vpc

    def _imported_vpc(self, given: Any) -> ec2.IVpc:
        return ec2.Vpc.from_vpc_attributes(
            self,
            "Vpc",
            vpc_id=given["vpc_id"],
            availability_zones=given["availability_zones"],
            isolated_subnet_ids=given["isolated_subnet_ids"],
            isolated_subnet_route_table_ids=given.get("isolated_route_table_ids"),
        )

    def _imported_cluster(self, given: Any) -> ClusterDetails:
        groups = [
            ec2.SecurityGroup.from_security_group_id(self, f"ClusterGroup{n}", group)
            for n, group in enumerate(given["security_group_ids"])
        ]
        cluster = rds.DatabaseCluster.from_database_cluster_attributes(
            self,
            "Database",
            cluster_identifier=given["identifier"],
            cluster_resource_identifier=given["resource_id"],
            port=given.get("port", _POSTGRES_PORT),
            security_groups=groups,
        )
        secret, key = given.get("secret_arn"), given.get("key_arn")
        return ClusterDetails(
            cluster=cluster,
            resource_id=given["resource_id"],
            engine_version=given.get("engine_version"),
            endpoint=given.get("endpoint"),
            port=given.get("port", _POSTGRES_PORT),
            secret=secretsmanager.Secret.from_secret_complete_arn(self, "Secret", secret) if secret else None,
            key=kms.Key.from_key_arn(self, "ClusterKey", key) if key else None,
        )


def _capacity(given: Any) -> dict[str, Any]:
    return {f"{bound}_capacity": units for bound, units in (given or {}).items()}


def _version(given: str | None) -> rds.AuroraPostgresEngineVersion | None:
    return rds.AuroraPostgresEngineVersion.of(given, given.partition(".")[0]) if given else None


def _vault_lock(given: Any) -> VaultLock | None:
    if given is None:
        return GOVERNANCE
    values = {name: value for name, value in given.items() if name != "mode"}
    return None if given["mode"] == "none" else VaultLock(**values)


def _replica(given: Any) -> ReplicateTo:
    values = {name: value for name, value in given.items() if name != "prefixes"}
    replica = Replica(**values)
    return (
        ReplicateTo(to=replica, prefixes=tuple(given["prefixes"])) if "prefixes" in given else ReplicateTo(to=replica)
    )
