"""What is deployed: CDK constructs that back up Aurora PostgreSQL, and prove it by restoring."""

from aurora_backup.policy import (
    Archive,
    AutomatedTier,
    Keep,
    LifecycleRule,
    LogicalTier,
    MonthlyStore,
    OnDemandTier,
    PolicyError,
    RetentionPolicy,
    SnapshotTier,
    StorageClass,
    Tier,
    Transition,
)
from cdk_aurora_backup.alerts import BackupAlerts
from cdk_aurora_backup.aurora_backup import AuroraBackup
from cdk_aurora_backup.backup_bucket import BackupBucket
from cdk_aurora_backup.backup_key import BackupKey
from cdk_aurora_backup.backup_plan import BackupPlan
from cdk_aurora_backup.checks import SynthError
from cdk_aurora_backup.cluster import ClusterDetails
from cdk_aurora_backup.functions import BackupFunctions, DatabaseNetwork
from cdk_aurora_backup.logical_backup import LogicalBackup
from cdk_aurora_backup.protected_cluster import ProtectedCluster
from cdk_aurora_backup.workflow import Workflow

__all__ = [
    "Archive",
    "AuroraBackup",
    "AutomatedTier",
    "BackupAlerts",
    "BackupBucket",
    "BackupFunctions",
    "BackupKey",
    "BackupPlan",
    "ClusterDetails",
    "DatabaseNetwork",
    "Keep",
    "LifecycleRule",
    "LogicalBackup",
    "LogicalTier",
    "MonthlyStore",
    "OnDemandTier",
    "PolicyError",
    "ProtectedCluster",
    "RetentionPolicy",
    "SnapshotTier",
    "StorageClass",
    "SynthError",
    "Tier",
    "Transition",
    "Workflow",
]
