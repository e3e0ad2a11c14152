"""The Compliance construct: least privilege, evidence lock, alarms that breach on silence, and one that acts."""

from __future__ import annotations

import json
import re

import pytest
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from aurora_backup.compliance_settings import expected
from aurora_backup.policy import Keep, RetentionPolicy
from cdk_aurora_backup import SynthError
from cdk_aurora_backup.compliance import EvidenceLock, _log_group_prefix
from cdk_aurora_backup.functions import BackupFunctions
from tests.synth.synthesis import Synthesised, flat, imported_cluster, new_stack

SENTENCE = (
    "I understand that evidence in compliance mode cannot be deleted by anybody for 6 years, and is"
    " paid for until then."
)


def ours(template, kind):
    """Resources of one type under the construct, by logical id."""
    return {k: v for k, v in template["Resources"].items() if v["Type"] == kind and k.startswith("BackupCompliance")}


def function(synthesised, name):
    (found,) = [v for k, v in ours(synthesised.template, "AWS::Lambda::Function").items() if name in k]
    return found["Properties"]


def statements(synthesised, name):
    policies = ours(synthesised.template, "AWS::IAM::ManagedPolicy")
    (found,) = [v for k, v in policies.items() if k.startswith(f"BackupCompliance{name}Role")]
    return {s["Sid"]: s for s in found["Properties"]["PolicyDocument"]["Statement"]}


def actions(synthesised, name):
    found = statements(synthesised, name).values()
    return {a for s in found for a in (s["Action"] if isinstance(s["Action"], list) else [s["Action"]])}


def test_the_gatherer_reads_asks_one_function_and_writes_only_its_own_document(default):
    writing = {a for a in actions(default, "Gather") if not a.split(":")[1].startswith(("Get", "List", "Describe"))}
    assert writing == {
        "s3:PutObject", "logs:CreateLogStream", "logs:PutLogEvents", "sqs:SendMessage", "kms:Decrypt",
        "kms:GenerateDataKey", "xray:PutTraceSegments", "xray:PutTelemetryRecords", "lambda:InvokeFunction",
    }  # fmt: skip
    (invoke,) = [s for s in statements(default, "Gather").values() if "lambda:InvokeFunction" in s["Action"]]
    assert re.fullmatch(r"<BackupComplianceReadBack\w{8}\.Arn>", flat(invoke["Resource"]))
    (put,) = [s for s in statements(default, "Gather").values() if "s3:PutObject" in s["Action"]]
    assert flat(put["Resource"]).endswith("/compliance-backups/evidence/facts/*")


def test_archives_are_read_back_under_the_very_role_that_restores_them(default):
    (restore,) = [
        v["Properties"] for k, v in default.template["Resources"].items()
        if v["Type"] == "AWS::Lambda::Function" and k.startswith("BackupTrialRestore")
    ]  # fmt: skip
    reads = function(default, "ReadBack")
    assert flat(reads["Role"]) == flat(restore["Role"])
    assert reads["LoggingConfig"] == restore["LoggingConfig"]  # the one log group that this role may write to
    assert "VpcConfig" not in reads
    assert not [k for k in ours(default.template, "AWS::IAM::Role") if "ReadBack" in k]
    told = expected({k: flat(v) for k, v in function(default, "Gather")["Environment"]["Variables"].items()})
    assert (told.read_back or "").startswith("<BackupComplianceReadBack")
    assert (told.restore or "").startswith("<BackupTrialRestore")


def test_the_reporter_adds_evidence_and_can_neither_delete_it_nor_shorten_its_lock(default):
    found = actions(default, "Report")
    assert {"s3:PutObject", "s3:PutObjectRetention"} <= found
    assert not {a for a in found if "Delete" in a or "Bypass" in a or "LegalHold" in a}
    keep = statements(default, "Report")["KeepEvidence"]
    assert {w.split("/evidence/")[1] for w in flat(keep["Resource"])} == {"chain/*", "attachments/*", "unchained/*"}
    assert keep["Condition"] == {"Null": {"s3:if-none-match": "false"}}  # only what is not there yet


def test_neither_function_is_in_the_vpc_or_may_read_the_database_s_secret(default):
    for name in ("Gather", "Report"):
        assert "VpcConfig" not in function(default, name)
        assert not {a for a in actions(default, name) if a.startswith(("secretsmanager:", "rds-db:"))}


def test_the_functions_can_read_what_they_are_told(default):
    for name in ("Gather", "Report"):
        environment = {k: flat(v) for k, v in function(default, name)["Environment"]["Variables"].items()}
        found = expected(environment)
        assert set(found.workflows) >= {"LogicalBackup", "RecoveryTest", "TrialRestore"}
        assert (found.vault_locked, found.vault_denies_deletion, found.deletion_protection) == (True, True, True)
        assert found.log_groups == ("AuroraBackup-Backup",)
        assert found.vault
        assert (found.lock_days, found.rules, found.copy_vaults) == ((180, 2192), (), ())
        assert found.plan_id
        assert found.topic_arn
    groups = [k for k, v in default.template["Resources"].items() if v["Type"] == "AWS::Logs::LogGroup"]
    assert [g for g in groups if g.startswith("BackupCompliance")]


def test_the_report_knows_who_may_delete_and_whom_the_denials_spare(default, dev):
    def told(synthesised):
        environment = function(synthesised, "Report")["Environment"]["Variables"]
        return expected({k: flat(v) for k, v in environment.items()})

    found = told(default)
    assert len(found.deleters) == 2
    assert [any(name in one for one in found.deleters) for name in ("RetentionAct", "Janitor")] == [True, True]
    (root,) = found.break_glass
    assert root.endswith(":root")
    assert told(dev).break_glass == ()  # nothing is denied where everything is torn down
    (read,) = [s for s in statements(default, "Gather").values() if "iam:" in str(s["Action"])]
    assert (read["Action"], read["Resource"]) == ("iam:GetAccountAuthorizationDetails", "*")


def test_evidence_is_locked_in_governance_mode_and_not_in_a_stack_that_is_torn_down(default, dev):
    assert function(default, "Report")["Environment"]["Variables"]["EVIDENCE_LOCK"] == "GOVERNANCE"
    assert function(dev, "Report")["Environment"]["Variables"]["EVIDENCE_LOCK"] == "NONE"


def test_compliance_mode_needs_its_sentence_word_for_word():
    assert EvidenceLock.compliance(acknowledgement=SENTENCE).mode == "COMPLIANCE"
    for wrong in ("", "yes", SENTENCE.lower(), SENTENCE.replace("6", "7")):
        with pytest.raises(SynthError, match="word for word"):
            EvidenceLock.compliance(acknowledgement=wrong)
    assert EvidenceLock.compliance(acknowledgement=SENTENCE.replace("6 years", "8 years"), years=8).mode == "COMPLIANCE"


def test_evidence_is_kept_six_years_and_as_long_as_was_acknowledged():
    locked = EvidenceLock.compliance(acknowledgement=SENTENCE)
    for lock in (EvidenceLock.governance(), locked):
        lock.check(Keep.for_years(6))
        with pytest.raises(SynthError, match="evidence_keep must be 2192 days"):
            lock.check(Keep.for_days(30))
    with pytest.raises(SynthError, match=r"as long as policy\.evidence_keep 8 years, got 6"):
        locked.check(Keep.for_years(8))
    EvidenceLock.none().check(Keep.for_days(30))


def test_every_alarm_breaches_when_no_report_comes_and_only_the_composite_acts(default):
    alarms = ours(default.template, "AWS::CloudWatch::Alarm")
    assert {k.removeprefix("BackupComplianceWatch")[:-8] for k in alarms} == {
        "NotCompliant", "RecoveryTestOld", "WeeklyOld", "MonthlyOld", "LogicalOld",
    }  # fmt: skip
    for alarm in alarms.values():
        assert alarm["Properties"]["TreatMissingData"] == "breaching"
        assert "AlarmActions" not in alarm["Properties"]
    (composite,) = ours(default.template, "AWS::CloudWatch::CompositeAlarm").values()
    assert composite["Properties"]["AlarmActions"]
    rule = flat(composite["Properties"]["AlarmRule"])
    for name in alarms:
        assert name in rule
    assert rule.count("OR") == len(alarms) - 1


def test_an_alarm_s_limit_is_the_schedule_s_longest_gap_and_a_day(default):
    alarms = ours(default.template, "AWS::CloudWatch::Alarm")
    limits = {k.removeprefix("BackupComplianceWatch")[:-8]: v["Properties"]["Threshold"] for k, v in alarms.items()}
    day = 86_400
    assert (limits["WeeklyOld"], limits["MonthlyOld"], limits["RecoveryTestOld"]) == (8 * day, 32 * day, 40 * day)


def test_the_dashboard_shows_verdict_recovery_points_tests_and_dumps(default):
    (board,) = ours(default.template, "AWS::CloudWatch::Dashboard").values()
    body = flat(board["Properties"]["DashboardBody"])
    for metric in (
        "CompliancePassed",
        "RecoveryPointAge",
        "RecoveryTestAge",
        "RecoveryTime",
        "DumpDuration",
        "DumpRate",
    ):
        assert metric in body
    assert "DumpBytes" in body
    owner = function(default, "Report")["Environment"]["Variables"]["OWNER"]
    search = 'SEARCH(\'{AuroraBackup,Owner,Tier,Kind} MetricName=\\"MonthlyCost\\" Owner=\\"' + owner
    assert body.count(search) == 2  # by tier, and their sum


def test_the_workflow_runs_every_day_and_tells_when_it_is_no_pass(default):
    (schedule,) = ours(default.template, "AWS::Scheduler::Schedule").values()
    assert schedule["Properties"]["ScheduleExpression"] == "cron(0 6 * * ? *)"
    (machine,) = ours(default.template, "AWS::StepFunctions::StateMachine").values()
    states = json.loads(flat(machine["Properties"]["DefinitionString"]))["States"]
    assert states["Is it a pass?"]["Default"] == "Tell"
    assert states["Is it a pass?"]["Choices"][0] == {
        "Variable": "$.compliance_status", "StringEquals": "PASS", "Next": "Done",
    }  # fmt: skip
    for name in ("Gather facts", "Judge and store"):
        assert states[name]["TimeoutSeconds"]
        assert states[name]["Retry"]
        assert states[name]["Catch"]


@pytest.mark.parametrize("above", ["Clinic", "ClinicBackup", "Backup", "Default", "Resource", "my-app"])
def test_the_log_groups_are_found_whatever_the_names_above_are(above):
    stack = new_stack()
    own = Construct(Construct(stack, above), "Backup")
    target, key, bucket = imported_cluster(stack), kms.Key(stack, "Key"), s3.Bucket(stack, "Bucket")
    maker = BackupFunctions(own, "Functions", target=target, policy=RetentionPolicy.hipaa(), bucket=bucket, key=key)
    maker.add(own, "Dump", "heartbeat", description="Any")
    (group,) = Synthesised.of(stack).ids("AWS::Logs::LogGroup")
    assert f"{stack.stack_name}-{group}".startswith(_log_group_prefix(maker))
