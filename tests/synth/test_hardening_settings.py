"""The settings of app.py that harden a stack: what is read, what is refused, and that the template has it."""

from __future__ import annotations

import json

import pytest

from aurora_backup.settings import default_root_certificate
from cdk_aurora_backup.app_config import ConfigError, read_context
from tests.synth.synthesis import ACCOUNT, deployable

KEEPER = "444455556666"
REGION = "us-gov-west-1"
VAULT = f"arn:aws-us-gov:backup:{REGION}:{KEEPER}:backup-vault:copies"
REPLICA = {"bucket_name": "copies", "account": KEEPER, "region": REGION, "key_alias": "alias/copies"}


@pytest.fixture(scope="module")
def hardened():
    """Of a cluster and a VPC that exist already, in GovCloud, with everything that is off unless asked for."""
    return deployable(
        {
            "account": ACCOUNT,
            "region": REGION,
            "vault-lock": {"mode": "governance", "min_days": 30},
            "copy-to": json.dumps([{"vault_arn": VAULT, "rules": ["monthly"], "bounds": [30, 4000]}]),
            "replicate-to": [{**REPLICA, "prefixes": ["logical-backups"]}],
            "imported-cluster": {
                "identifier": "clinic",
                "resource_id": "cluster-ABCDEFGHIJKLMNOP",
                "security_group_ids": ["sg-0123456789abcdef0"],
                "key_arn": f"arn:aws-us-gov:kms:{REGION}:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555",
            },
            "imported-vpc": {
                "vpc_id": "vpc-0123456789abcdef0",
                "availability_zones": [f"{REGION}a", f"{REGION}b"],
                "isolated_subnet_ids": ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"],
                "isolated_route_table_ids": ["rtb-0123456789abcdef0", "rtb-0123456789abcdef1"],
            },
            "root-certificates": default_root_certificate(),
            "audit": True,
            "restore-testing": "true",
            "break-glass-role-arns": f"arn:aws-us-gov:iam::{ACCOUNT}:role/glass",
        }
    )


def test_another_partition_gets_no_arn_of_the_commercial_one_with_everything_switched_on(hardened):
    assert "arn:aws:" not in json.dumps(hardened.template)
    assert hardened.ids("AWS::RDS::DBCluster") == []
    assert "authorities are not shipped" not in hardened.said("warning")


def test_the_lock_the_copies_and_the_replication_are_as_the_settings_say(hardened):
    assert hardened.one("AWS::Backup::BackupVault")["LockConfiguration"]["MinRetentionDays"] == 30
    rules = hardened.one("AWS::Backup::BackupPlan")["BackupPlan"]["BackupPlanRule"]
    assert {r["RuleName"]: [c["DestinationBackupVaultArn"] for c in r.get("CopyActions", [])] for r in rules} == {
        "weekly": [], "monthly": [VAULT],
    }  # fmt: skip
    replicated = hardened.named("AWS::S3::Bucket", "StorageBucket")["ReplicationConfiguration"]["Rules"]
    assert [rule["Filter"]["Prefix"] for rule in replicated] == ["logical-backups/"]


def test_audit_and_restore_testing_are_made_when_asked_for(hardened):
    assert len(hardened.all("AWS::Backup::Framework")) == 1
    assert len(hardened.all("AWS::Backup::ReportPlan")) == 5
    assert len(hardened.all("AWS::Backup::RestoreTestingSelection")) == 1


def test_the_break_glass_role_is_exempt_in_key_and_vault(hardened):
    for policy in (
        hardened.one("AWS::Backup::BackupVault")["AccessPolicy"],
        hardened.one("AWS::KMS::Key")["KeyPolicy"],
    ):
        (denial,) = [s for s in policy["Statement"] if s.get("Sid") == "DenyDeletionOutsideBreakGlass"]
        assert denial["Condition"]["ArnNotEquals"]["aws:PrincipalArn"] == [f"arn:aws-us-gov:iam::{ACCOUNT}:role/glass"]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("vault-lock", {"mode": "strict"}, "vault-lock.mode must be governance, compliance or none, got 'strict'"),
        ("vault-lock", {"mode": "compliance"}, "cooling_off_days and acknowledgement exactly with"),
        ("vault-lock", {"mode": "none", "cooling_off_days": 3}, "cooling_off_days and acknowledgement exactly with"),
        ("vault-lock", {"min_days": 3}, "vault-lock.mode is missing"),
        ("copy-to", {"vault_arn": VAULT}, "copy-to must be a list of objects"),
        ("copy-to", [{"vault": VAULT}], r"copy-to\[0\].vault is not a setting"),
        ("replicate-to", [{"bucket_name": "b"}], r"replicate-to\[0\].account is missing"),
        ("audit", "perhaps", "audit must be JSON, got 'perhaps'"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(key, value, said):
    with pytest.raises(ConfigError, match=said):
        read_context({f"backup:{key}": value})
