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
from cdk_aurora_backup.audit_framework import AuditFramework
from cdk_aurora_backup.aurora_backup import AuroraBackup
from cdk_aurora_backup.backup_bucket import BackupBucket
from cdk_aurora_backup.backup_key import BackupKey
from cdk_aurora_backup.backup_plan import BackupPlan, Selection
from cdk_aurora_backup.backup_vault import AirGappedVault, BackupVault, VaultLock
from cdk_aurora_backup.checks import SynthError
from cdk_aurora_backup.cluster import ClusterDetails
from cdk_aurora_backup.compliance import Compliance, EvidenceLock
from cdk_aurora_backup.copies import Copy
from cdk_aurora_backup.functions import BackupFunctions, DatabaseNetwork
from cdk_aurora_backup.logical_backup import LogicalBackup
from cdk_aurora_backup.protected_cluster import ProtectedCluster
from cdk_aurora_backup.replication import Replica, ReplicaBucket, ReplicateTo, Replication
from cdk_aurora_backup.report_plans import ReportPlans
from cdk_aurora_backup.restore_testing import RestoreTesting
from cdk_aurora_backup.retention import RetentionManager
from cdk_aurora_backup.retention_checks import BackupRetentionChecks
from cdk_aurora_backup.tamper_alerts import TamperAlerts
from cdk_aurora_backup.trial_restore import TrialRestore
from cdk_aurora_backup.vault_account import BackupVaultAccount
from cdk_aurora_backup.workflow import Workflow

__all__ = [
    "AirGappedVault",
    "Archive",
    "AuditFramework",
    "AuroraBackup",
    "AutomatedTier",
    "BackupAlerts",
    "BackupBucket",
    "BackupFunctions",
    "BackupKey",
    "BackupPlan",
    "BackupRetentionChecks",
    "BackupVault",
    "BackupVaultAccount",
    "ClusterDetails",
    "Compliance",
    "Copy",
    "DatabaseNetwork",
    "EvidenceLock",
    "Keep",
    "LifecycleRule",
    "LogicalBackup",
    "LogicalTier",
    "MonthlyStore",
    "OnDemandTier",
    "PolicyError",
    "ProtectedCluster",
    "Replica",
    "ReplicaBucket",
    "ReplicateTo",
    "Replication",
    "ReportPlans",
    "RestoreTesting",
    "RetentionManager",
    "RetentionPolicy",
    "Selection",
    "SnapshotTier",
    "StorageClass",
    "SynthError",
    "TamperAlerts",
    "Tier",
    "Transition",
    "TrialRestore",
    "VaultLock",
    "Workflow",
]
