"""ReportPlans: AWS Backup's own daily reports, delivered beside the evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aws_cdk import Aws, Names
from aws_cdk import aws_backup as backup
from aws_cdk import aws_iam as iam
from constructs import Construct

from cdk_aurora_backup.permissions import add_to_key_policy
from cdk_aurora_backup.replication import EVIDENCE_PREFIX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aws_cdk import aws_kms as kms
    from aws_cdk import aws_s3 as s3

    from cdk_aurora_backup.audit_framework import AuditFramework

REPORT_PREFIX = f"{EVIDENCE_PREFIX}/aws-backup-reports"
_FORMATS = ("CSV", "JSON")
_JOB_REPORTS = ("BACKUP_JOB_REPORT", "COPY_JOB_REPORT", "RESTORE_JOB_REPORT")
_COMPLIANCE_REPORTS = ("RESOURCE_COMPLIANCE_REPORT", "CONTROL_COMPLIANCE_REPORT")
_ROLE = "aws-service-role/reports.backup.amazonaws.com/AWSServiceRoleForBackupReports"


class ReportPlans(Construct):
    """Three job reports and, with a framework, two compliance reports, each day, as CSV and JSON.

    key: the bucket's; the reports role is let into its policy and into that of the bucket.
    framework: Default: none, and no compliance reports.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        bucket: s3.IBucket,
        key: kms.IKey,
        framework: AuditFramework | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        bucket.add_to_resource_policy(
            iam.PolicyStatement(
                sid="DeliverBackupReports",
                actions=["s3:PutObject"],
                resources=[bucket.arn_for_objects(f"{REPORT_PREFIX}/*")],
                **_only_reports({"StringEquals": {"s3:x-amz-acl": "bucket-owner-full-control"}}),
            )
        )
        add_to_key_policy(self, key, [_use_key()], note="report-key-policy")
        self._plans = [self._report(bucket, template, ()) for template in _JOB_REPORTS]
        if framework:
            self._plans += [self._report(bucket, template, (framework.arn,)) for template in _COMPLIANCE_REPORTS]

    @property
    def plans(self) -> list[backup.CfnReportPlan]:
        """The report plans."""
        return list(self._plans)

    def _report(self, bucket: s3.IBucket, template: str, frameworks: Sequence[str]) -> backup.CfnReportPlan:
        name = "".join(word.title() for word in template.split("_"))
        setting: dict[str, Any] = {"ReportTemplate": template}
        if frameworks:
            setting["FrameworkArns"] = list(frameworks)
        plan = backup.CfnReportPlan(
            self,
            name,
            report_plan_name=f"{Names.unique_resource_name(self, max_length=100, separator='_')}_{name}",
            report_delivery_channel={
                "S3BucketName": bucket.bucket_name,
                "S3KeyPrefix": REPORT_PREFIX,
                "Formats": list(_FORMATS),
            },
            report_setting=setting,
        )
        if policy := bucket.policy:
            plan.node.add_dependency(policy)
        return plan


def _use_key() -> iam.PolicyStatement:
    return iam.PolicyStatement(
        sid="BackupReports", actions=["kms:Decrypt", "kms:GenerateDataKey"], resources=["*"], **_only_reports({})
    )


def _only_reports(conditions: dict[str, Any]) -> dict[str, Any]:
    # By condition, because a policy cannot name a role that AWS makes only with the first report plan.
    role = f"arn:{Aws.PARTITION}:iam::{Aws.ACCOUNT_ID}:role/{_ROLE}"
    return {
        "principals": [iam.AnyPrincipal()],
        "conditions": {**conditions, "ArnEquals": {"aws:PrincipalArn": role}},
    }
