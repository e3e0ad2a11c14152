"""ReportPlans: which reports, where they go, and who may write them."""

from __future__ import annotations

import re

import pytest

from tests.synth import hardened

ROLE = "role/aws-service-role/reports.backup.amazonaws.com/AWSServiceRoleForBackupReports"


@pytest.fixture(scope="module")
def strongest():
    return hardened.synthesised("strongest").protected


def test_the_job_reports_and_the_compliance_reports_are_made(strongest):
    plans = [p for _, p in strongest.of("AWS::Backup::ReportPlan")]
    assert {p["ReportSetting"]["ReportTemplate"] for p in plans} == {
        "BACKUP_JOB_REPORT", "COPY_JOB_REPORT", "RESTORE_JOB_REPORT",
        "RESOURCE_COMPLIANCE_REPORT", "CONTROL_COMPLIANCE_REPORT",
    }  # fmt: skip


def test_the_compliance_reports_speak_of_our_framework(strongest):
    (framework,) = [name for name, _ in strongest.of("AWS::Backup::Framework")]
    for _, plan in strongest.of("AWS::Backup::ReportPlan"):
        wanted = [strongest.arn(framework)] if "COMPLIANCE" in plan["ReportSetting"]["ReportTemplate"] else None
        assert plan["ReportSetting"].get("FrameworkArns") == wanted


def test_reports_land_beside_the_evidence_and_are_replicated_with_it(strongest):
    for _, plan in strongest.of("AWS::Backup::ReportPlan"):
        assert plan["ReportDeliveryChannel"]["S3KeyPrefix"].startswith("compliance-backups/evidence/")
        assert plan["ReportDeliveryChannel"]["Formats"] == ["CSV", "JSON"]


def test_only_the_reports_role_may_write_them_and_use_the_key_for_it(strongest):
    statements = [s for _, p in strongest.of("AWS::S3::BucketPolicy") for s in p["PolicyDocument"]["Statement"]]
    statements += [s for _, p in strongest.of("AWS::KMS::Key") for s in p["KeyPolicy"]["Statement"]]
    found = {s["Sid"]: s for s in statements if s.get("Sid") in {"DeliverBackupReports", "BackupReports"}}
    assert sorted(found) == ["BackupReports", "DeliverBackupReports"]
    for stmt in found.values():
        assert stmt["Condition"]["ArnEquals"]["aws:PrincipalArn"].endswith(ROLE)
    assert found["DeliverBackupReports"]["Resource"].endswith("/evidence/aws-backup-reports/*")


def test_the_names_have_no_hyphen_because_aws_backup_takes_none(strongest):
    names = [p["ReportPlanName"] for _, p in strongest.of("AWS::Backup::ReportPlan")]
    assert len(set(names)) == len(names) == 5
    assert all(re.fullmatch(r"[a-zA-Z][_a-zA-Z0-9]*", name) for name in names)
