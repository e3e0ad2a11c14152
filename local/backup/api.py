"""Which AWS Backup operations are answered here. The others are MiniStack's."""

from __future__ import annotations

from typing import Any

from ministack.services import backup

from local.backup import jobs, points, records, vaults
from local.protocol import Api

api = Api(
    "backup",
    {
        "DescribeBackupVault": vaults.describe,
        "ListBackupVaults": vaults.list_vaults,
        "DeleteBackupVault": vaults.delete,
        "PutBackupVaultLockConfiguration": vaults.put_lock,
        "DeleteBackupVaultLockConfiguration": vaults.delete_lock,
        "PutBackupVaultAccessPolicy": vaults.put_policy,
        "GetBackupVaultAccessPolicy": vaults.get_policy,
        "DeleteBackupVaultAccessPolicy": vaults.delete_policy,
        "PutBackupVaultNotifications": vaults.put_notifications,
        "GetBackupVaultNotifications": vaults.get_notifications,
        "DeleteBackupVaultNotifications": vaults.delete_notifications,
        "DescribeRegionSettings": jobs.describe_region_settings,
        "UpdateRegionSettings": jobs.update_region_settings,
        "StartBackupJob": jobs.start_backup,
        "StopBackupJob": jobs.stop_backup,
        "DescribeBackupJob": jobs.describe_backup,
        "ListBackupJobs": jobs.list_backups,
        "StartRestoreJob": jobs.start_restore,
        "DescribeRestoreJob": jobs.describe_restore,
        "ListRestoreJobs": jobs.list_restores,
        "GetRestoreJobMetadata": jobs.restore_metadata,
        "PutRestoreValidationResult": jobs.put_validation,
        "DescribeRecoveryPoint": points.describe,
        "DeleteRecoveryPoint": points.delete,
        "UpdateRecoveryPointLifecycle": points.update_lifecycle,
        "ListRecoveryPointsByBackupVault": points.list_by_vault,
        "ListRecoveryPointsByResource": points.list_by_resource,
        "ListProtectedResources": points.list_protected,
        "GetRecoveryPointRestoreMetadata": points.restore_metadata,
        "CreateFramework": records.create_framework,
        "DescribeFramework": records.describe_framework,
        "UpdateFramework": records.update_framework,
        "ListFrameworks": records.list_frameworks,
        "DeleteFramework": records.delete_framework,
        "CreateReportPlan": records.create_report_plan,
        "DescribeReportPlan": records.describe_report_plan,
        "UpdateReportPlan": records.update_report_plan,
        "ListReportPlans": records.list_report_plans,
        "DeleteReportPlan": records.delete_report_plan,
        "CreateRestoreTestingPlan": records.create_testing_plan,
        "GetRestoreTestingPlan": records.get_testing_plan,
        "UpdateRestoreTestingPlan": records.update_testing_plan,
        "ListRestoreTestingPlans": records.list_testing_plans,
        "DeleteRestoreTestingPlan": records.delete_testing_plan,
        "CreateRestoreTestingSelection": records.create_testing_selection,
        "GetRestoreTestingSelection": records.get_testing_selection,
        "UpdateRestoreTestingSelection": records.update_testing_selection,
        "ListRestoreTestingSelections": records.list_testing_selections,
        "DeleteRestoreTestingSelection": records.delete_testing_selection,
    },
)


def install() -> None:
    """Answer our operations, and leave the others to MiniStack."""
    theirs = backup.handle_request

    async def handle(method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, Any]) -> Any:
        return api.rest(method, path, query, body) or await theirs(method, path, headers, body, query)

    backup.handle_request = handle
