from __future__ import annotations

import json
from datetime import timedelta

import pytest

from aurora_backup.errors import SettingsError
from aurora_backup.facts_sql import UserCheck
from aurora_backup.policy import RetentionPolicy
from aurora_backup.recovery_settings import RecoverySettings, Validation

POLICY = {"RETENTION_POLICY": RetentionPolicy.hipaa().to_json()}
VALIDATION = {
    "tolerances": {"public.jobs": 0.5},
    "recency": {"app": "SELECT max(at) FROM visits"},
    "recent_within_minutes": 30,
    "checks": {"app": [{"name": "n", "sql": "SELECT 1", "expected": "1", "reason": "r"}]},
}
ISOLATION = {"subnet_group": "tests", "security_groups": ["sg-1"], "instance_class": "db.t4g.medium"}


def test_everything_is_read_and_the_policy_gives_the_times():
    told = {
        **POLICY,
        "VALIDATION": json.dumps(VALIDATION),
        "LINEAGE": '["cluster-A"]',
        "TEST_ISOLATION": json.dumps(ISOLATION),
    }
    found = RecoverySettings.from_environment(told)
    assert found.lineage == {"cluster-A"}
    assert found.validation.recent_within == timedelta(minutes=30)
    assert found.validation.checks == {"app": (UserCheck(name="n", sql="SELECT 1", expected="1", reason="r"),)}
    assert (found.beat, found.lifetime) == (timedelta(minutes=5), timedelta(hours=12))
    assert found.require_isolation().iam is True


def test_with_a_secret_the_test_copy_gets_one_of_its_own_under_our_key():
    told = {**POLICY, "TEST_ISOLATION": json.dumps(ISOLATION), "DB_SECRET_ARN": "arn", "BACKUP_KEY_ARN": "key"}
    isolation = RecoverySettings.from_environment(told).require_isolation()
    assert (isolation.iam, isolation.secret_key) == (False, "key")


def test_only_functions_of_the_test_are_told_an_isolation():
    with pytest.raises(SettingsError, match="TEST_ISOLATION must be set"):
        RecoverySettings.from_environment(POLICY).require_isolation()


@pytest.mark.parametrize(
    ("told", "names"),
    [
        ({}, "RETENTION_POLICY"),
        ({"RETENTION_POLICY": "{}"}, "RETENTION_POLICY"),
        ({**POLICY, "VALIDATION": "{"}, "VALIDATION must be JSON"),
        ({**POLICY, "VALIDATION": "[]"}, r"VALIDATION must be an object, got \[\]"),
        ({**POLICY, "TEST_ISOLATION": "{}"}, "TEST_ISOLATION"),
    ],
)
def test_what_is_missing_or_malformed_is_named(told, names):
    with pytest.raises(SettingsError, match=names):
        RecoverySettings.from_environment(told)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            {"tolerence": {}},
            r"^validation\.tolerence is not a setting; there are checks, recency, recent_within_minutes",
        ),
        ({"tolerances": []}, r"^validation\.tolerances must be an object, got \[\]"),
        ({"tolerances": {"a.b": "half"}}, r"validation\.tolerances\.a\.b must be a number, zero or more, got 'half'"),
        ({"tolerances": {"a.b": -1}}, r"validation\.tolerances\.a\.b must be a number, zero or more, got -1"),
        ({"tolerances": {"*": 5}}, r"^validation\.tolerances\.\* must be at most 1, a share .*, got 5$"),
        ({"recent_within_minutes": True}, r"validation\.recent_within_minutes must be a number, .*got True"),
        ({"recent_within_minutes": float("nan")}, r"validation\.recent_within_minutes must be a number, .*got nan"),
        ({"recency": {"app": ""}}, r"validation\.recency\.app must be text, got ''"),
        ({"checks": {"app": {}}}, r"validation\.checks\.app must be a list, got \{\}"),
        ({"checks": {"app": [{"name": "n"}]}}, r"validation\.checks\.app\[0\] must have expected, name, reason, sql"),
        (
            {"checks": {"app": [{"name": "n", "sql": "SELECT 1", "expected": 1, "reason": "r"}]}},
            r"validation\.checks\.app\[0\]\.expected must be text, got 1",
        ),
    ],
)
def test_a_wrong_validation_is_refused_by_name(rules, message):
    with pytest.raises(SettingsError, match=message):
        Validation.read(rules)
