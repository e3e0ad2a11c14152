"""The example of many accounts: one policy everywhere, copies and evidence where they belong, in one deployment."""

from __future__ import annotations

import json

import pytest

from tests.synth.resolution import Resolved

KEEPER, AUDIT = "444455556666", "777788889999"


@pytest.fixture(scope="module")
def artifacts(many_accounts):
    found = json.loads((many_accounts / "manifest.json").read_text())["artifacts"]
    return {n: a for n, a in found.items() if a["type"] == "aws:cloudformation:stack"}


@pytest.fixture(scope="module")
def clinics(many_accounts, artifacts):
    found = {}
    for name, artifact in artifacts.items():
        account, region = artifact["environment"].removeprefix("aws://").split("/")
        template = json.loads((many_accounts / f"{name}.template.json").read_text())
        if name.startswith("Clinic"):
            found[name] = Resolved(name, account, region, template)
    return found


def plan(stack):
    ((_, properties),) = stack.of("AWS::Backup::BackupPlan")
    return {r["RuleName"]: r for r in properties["BackupPlan"]["BackupPlanRule"]}


def test_every_account_and_region_has_the_same_policy(clinics):
    assert len(clinics) == 3
    rules = [{n: (r["ScheduleExpression"], r["Lifecycle"]) for n, r in plan(s).items()} for s in clinics.values()]
    assert rules[0]["weekly"][1] == {"DeleteAfterDays": 365}
    assert rules[0] == rules[1] == rules[2]


def test_every_copy_changes_the_account_and_stays_in_its_region(clinics):
    for stack in clinics.values():
        for rule in plan(stack).values():
            (action,) = rule["CopyActions"]
            assert action["DestinationBackupVaultArn"] == (
                f"arn:aws:backup:{stack.region}:{KEEPER}:backup-vault:aurora-backup-copies"
            )


def test_evidence_goes_to_the_audit_account_each_source_to_a_bucket_of_its_own(clinics):
    buckets = set()
    for stack in clinics.values():
        rules = [
            rule
            for _, p in stack.of("AWS::S3::Bucket")
            for rule in p.get("ReplicationConfiguration", {}).get("Rules", [])
            if rule["Destination"]["Account"] == AUDIT
        ]
        assert [rule["Filter"]["Prefix"] for rule in rules] == ["compliance-backups/evidence/", "registers/"]
        buckets.add(rules[0]["Destination"]["Bucket"])
        assert buckets >= {f"arn:aws:s3:::clinic-evidence-{stack.account}-{stack.region}"}
    assert len(buckets) == 3


def test_what_receives_is_deployed_before_what_sends(artifacts):
    for name, artifact in artifacts.items():
        if name.startswith("Clinic"):
            region = artifact["environment"].rpartition("/")[2]
            assert {f"Keeper-{region}", "Audit"} <= set(artifact["dependencies"])
