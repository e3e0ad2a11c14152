"""The deployable app's context: what is read, and what is refused by name."""

from __future__ import annotations

import json

import pytest

from aurora_backup.policy import RetentionPolicy, Tier
from cdk_aurora_backup.app_config import AppConfig, ConfigError, read_context

CLUSTER = {"identifier": "clinic", "resource_id": "cluster-ABC", "security_group_ids": ["sg-1"]}
VPC = {"vpc_id": "vpc-1", "availability_zones": ["eu-west-1a", "eu-west-1b"], "isolated_subnet_ids": ["s-1", "s-2"]}
VAULT = "arn:aws:backup:eu-west-1:111122223333:backup-vault:copies"


def test_an_empty_context_is_one_production_stack_with_the_hipaa_policy():
    assert read_context({}) == [AppConfig()]
    config = read_context({"@aws-cdk/core:something": True, "availability-zones:account=1": []})[0]
    assert config == AppConfig()
    assert config.effective_policy == RetentionPolicy.hipaa()
    assert not config.is_dev


def test_the_dev_profile_changes_the_policy():
    config = read_context({"backup:profile": "dev"})[0]
    assert config.is_dev
    assert config.effective_policy == RetentionPolicy.dev()


@pytest.mark.parametrize(
    ("key", "given", "field", "value"),
    [
        ("stack-name", "Clinic", "stack_name", "Clinic"),
        ("create-endpoints", False, "create_endpoints", False),
        ("create-endpoints", "false", "create_endpoints", False),
        ("databases", "a, b", "databases", ("a", "b")),
        ("databases", '["a","b"]', "databases", ("a", "b")),
        ("databases", ["a"], "databases", ("a",)),
        ("alert-emails", "a@example.org", "alert_emails", ("a@example.org",)),
        ("architecture", "x86_64", "architecture", "x86_64"),
        ("snapshot-quota", "250", "snapshot_quota", 250),
        ("reserved-concurrency", "none", "reserved_concurrency", None),
        ("reserved-concurrency", 5, "reserved_concurrency", 5),
        ("permissions-boundary", "team/Boundary", "permissions_boundary", "team/Boundary"),
        ("engine-version", "16.11", "engine_version", "16.11"),
        ("readers", "0", "readers", 0),
        ("capacity", '{"min": 0.5, "max": 64}', "capacity", {"min": 0.5, "max": 64}),
        ("capacity", {"min": 0, "max": 1}, "capacity", {"min": 0, "max": 1}),
        ("heartbeat", "false", "heartbeat", False),
        ("region", "eusc-de-east-1", "region", "eusc-de-east-1"),
        (
            "imported-cluster",
            {**CLUSTER, "security_group_ids": "sg-1", "port": "5433"},
            "imported_cluster",
            {**CLUSTER, "security_group_ids": ["sg-1"], "port": 5433},
        ),
        ("lineage", "cluster-ABC, cluster-DEF", "lineage", ("cluster-ABC", "cluster-DEF")),
        ("test-instance-class", "db.r8g.large", "test_instance_class", "db.r8g.large"),
        ("validation", {"tolerances": {"a.b": 0.1}}, "validation", {"tolerances": {"a.b": 0.1}}),
        ("tags", '{"team": "dba"}', "tags", {"team": "dba"}),
        ("imported-cluster", CLUSTER, "imported_cluster", CLUSTER),
        ("imported-cluster", json.dumps(CLUSTER), "imported_cluster", CLUSTER),
        ("imported-vpc", VPC, "imported_vpc", VPC),
        ("key-arn", "arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/1", "key_arn", None),
        ("break-glass-role-arns", "arn:aws:iam::111122223333:role/Glass", "break_glass_role_arns", None),
        ("database-name", "", "database_name", None),
        ("database-name", None, "database_name", None),
    ],
)
def test_a_setting_is_read_from_cdk_json_or_from_the_command_line(key, given, field, value):
    beside = {"backup:account": "111122223333"} if key == "region" else {}
    found = getattr(read_context({f"backup:{key}": given, **beside})[0], field)
    if value is not None or not given or given == "none":
        assert found == value
    else:
        assert found in {given, (given,)}


def test_a_policy_is_laid_over_the_one_of_the_profile():
    production = read_context({"backup:policy": {"weekly": {"keep": {"days": 200}}}})[0].effective_policy
    assert (str(production.keep(Tier.WEEKLY)), str(production.keep(Tier.MONTHLY))) == ("200 days", "6 years")
    dev = read_context({"backup:profile": "dev", "backup:policy": '{"automated": {"keep_days": 2}}'})[
        0
    ].effective_policy
    assert (dev.automated.keep_days, dev.keep(Tier.MONTHLY)) == (2, None)


def test_each_environment_is_a_stack_that_inherits_what_is_common():
    configs = read_context(
        {
            "backup:architecture": "x86_64",
            "backup:environments": {
                "prod": {"account": "111122223333", "region": "eu-west-1"},
                "test": {"profile": "dev", "architecture": "arm64", "stack-name": "Elsewhere"},
            },
        }
    )
    assert [(c.stack_name, c.profile, c.architecture, c.region) for c in configs] == [
        ("AuroraBackup-prod", "production", "x86_64", "eu-west-1"),
        ("Elsewhere", "dev", "arm64", None),
    ]


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({"backup:alert-email": "x"}, r"backup:alert-email is not a setting; there are account, alert-emails, "),
        ({"backup:stack-name": "1st"}, "backup:stack-name must be letters, digits and hyphens, .*got '1st'"),
        ({"backup:account": "123", "backup:region": "eu-west-1"}, "backup:account must be twelve digits, got '123'"),
        ({"backup:account": 111122223333, "backup:region": "eu-west-1"}, "backup:account must be twelve digits"),
        ({"backup:region": "Ireland"}, "backup:region must be a Region's name, got 'Ireland'"),
        ({"backup:region": "eu-west-1"}, "backup:account and backup:region go together"),
        ({"backup:profile": "prod"}, "backup:profile must be production or dev, got 'prod'"),
        ({"backup:create-endpoints": "maybe"}, "backup:create-endpoints must be JSON, got 'maybe'"),
        ({"backup:create-endpoints": 1}, "backup:create-endpoints must be true or false, got 1"),
        ({"backup:snapshot-quota": 0}, "backup:snapshot-quota must be a whole number within 1-100000, got 0"),
        ({"backup:snapshot-quota": True}, "backup:snapshot-quota must be a whole number within 1-100000, got True"),
        ({"backup:reserved-concurrency": 0}, "backup:reserved-concurrency must be a whole number within 1-1000, got 0"),
        ({"backup:databases": {"a": 1}}, "backup:databases must be a list of text"),
        ({"backup:databases": "a,,b"}, "backup:databases must be a list of text, .*got 'a,,b'"),
        ({"backup:database-name": "1db"}, "backup:database-name must be letters, digits and underscores, .*got '1db'"),
        ({"backup:architecture": "riscv"}, "backup:architecture must be arm64 or x86_64, got 'riscv'"),
        ({"backup:key-arn": "alias/mine"}, "backup:key-arn must be the ARN of a KMS key, got 'alias/mine'"),
        ({"backup:engine-version": "17"}, "backup:engine-version must be a version of Aurora PostgreSQL, .*got '17'"),
        ({"backup:readers": 15}, "backup:readers must be a whole number within 0-14, got 15"),
        ({"backup:capacity": {"min": 1}}, r"backup:capacity\.max is missing"),
        ({"backup:capacity": {"min": 8, "max": 4}}, "backup:capacity must be a min that is not above its max"),
        ({"backup:capacity": {"min": 1, "max": 257}}, r"backup:capacity\.max must be Aurora capacity units, .*got 257"),
        ({"backup:capacity": {"min": 0, "max": 0.5}}, r"backup:capacity\.max must be .*within 1-256, got 0\.5"),
        ({"backup:reserved-concurrency": [1]}, r"backup:reserved-concurrency must be a whole number.*got \[1\]"),
        ({"backup:vault-lock": {"mode": [1]}}, r"vault-lock\.mode must be governance, compliance or none, got \[1\]"),
        ({"backup:vault-lock": {"mode": "governance", "min_days": "a"}}, r"vault-lock\.min_days must be JSON, got 'a'"),
        (
            {"backup:copy-to": [{"vault_arn": "x"}]},
            r"copy-to\[0\]\.vault_arn must be the ARN of a backup vault, got 'x'",
        ),
        (
            {"backup:copy-to": [{"vault_arn": VAULT, "bounds": [7]}]},
            r"copy-to\[0\]\.bounds must be a list of the least and the most days, got \[7\]",
        ),
        (
            {"backup:replicate-to": [{"bucket_name": "b", "account": 1, "region": "eu-west-1", "key_alias": "a"}]},
            r"replicate-to\[0\]\.account must be twelve digits, got 1",
        ),
        (
            {"backup:imported-cluster": {**CLUSTER, "security_group_ids": "clinic"}},
            r"imported-cluster\.security_group_ids must be a list of ids of security groups, sg-\.\.\., got 'clinic'",
        ),
        (
            {"backup:imported-cluster": {**CLUSTER, "port": "many"}},
            r"imported-cluster\.port must be JSON, got 'many'",
        ),
        (
            {"backup:imported-cluster": {**CLUSTER, "secret_arn": "clinic"}},
            r"imported-cluster\.secret_arn must be the whole ARN of a secret.*got 'clinic'",
        ),
        (
            {"backup:imported-vpc": {**VPC, "availability_zones": {"a": 1}}},
            r"availability_zones must be a list of text",
        ),
        ({"backup:capacity": {"min": True, "max": 4}}, r"backup:capacity\.min must be Aurora .*got True"),
        ({"backup:lineage": "clinic"}, "backup:lineage must be resource ids of clusters, cluster-..., got 'clinic'"),
        ({"backup:test-instance-class": "t4g"}, "backup:test-instance-class must be an instance class, .*got 't4g'"),
        ({"backup:validation": "[]"}, r"backup:validation must be an object, got '\[\]'"),
        ({"backup:tags": {"a": 1}}, "backup:tags must be an object of text to text"),
        ({"backup:tags": "[]"}, r"backup:tags must be an object, got '\[\]'"),
        ({"backup:policy": "{"}, "backup:policy must be JSON, got '{'"),
        ({"backup:policy": {"wekly": None}}, r"backup:policy: policy\.wekly is not a setting"),
        (
            {"backup:policy": {"automated": {"keep_days": 36}}},
            r"backup:policy: .*automated\.keep_days must be within 1-35, got 36",
        ),
        ({"backup:imported-cluster": {**CLUSTER, "name": "x"}}, r"backup:imported-cluster\.name is not a setting"),
        ({"backup:imported-cluster": {"identifier": "x"}}, r"backup:imported-cluster\.resource_id is missing"),
        ({"backup:imported-vpc": {**VPC, "isolated_subnet_ids": []}}, r"imported-vpc\.isolated_subnet_ids is missing"),
        ({"backup:imported-vpc": []}, r"backup:imported-vpc must be an object, got \[\]"),
        ({"backup:environments": {}}, r"backup:environments must be an object of name to settings, got \{\}"),
        ({"backup:environments": {"prod": "x"}}, r"backup:environments\.prod must be an object of settings, got 'x'"),
        (
            {"backup:environments": {"prod": {"profil": "dev"}}},
            r"backup:environments\.prod\.profil is not a setting",
        ),
        (
            {"backup:environments": {"prod": {"profile": "x"}}},
            r"backup:environments\.prod\.profile must be production or dev, got 'x'",
        ),
        ({"backup:break-glass-role-arns": "Admin"}, "backup:break-glass-role-arns must be ARNs of IAM roles.*'Admin'"),
        (
            {"backup:environments": {"a": {"stack-name": "One"}, "b": {"stack-name": "One"}}},
            r"backup:environments\.b\.stack-name 'One' is that of another environment",
        ),
    ],
)
def test_a_wrong_or_unknown_setting_is_refused_by_name(context, message):
    with pytest.raises(ConfigError, match=message):
        read_context(context)
