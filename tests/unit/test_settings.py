"""The environment of the functions."""

from __future__ import annotations

import ssl

import pytest

from aurora_backup.errors import SettingsError
from aurora_backup.policy import RetentionPolicy
from aurora_backup.settings import DEFAULT_COMPRESSION, Settings, default_root_certificate

GOOD = {"BACKUP_BUCKET": "b", "OWNER": "o", "CLUSTER_ID": "c", "DB_USER": "u"}


def test_a_small_environment_has_safe_defaults():
    settings = Settings.from_environment(GOOD)
    assert (settings.db_auth, settings.databases, settings.backup_key_arn) == ("iam", None, None)
    assert settings.root_certificate == default_root_certificate()
    assert settings.compression == DEFAULT_COMPRESSION


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_variable_is_named(name, value):
    env = {k: v for k, v in {**GOOD, name: value}.items() if v is not None}
    with pytest.raises(SettingsError, match=f"{name} must be set"):
        Settings.from_environment(env)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("DB_AUTH", "password", "DB_AUTH must be iam or secret, got 'password'"),
        ("DB_AUTH", "secret", "DB_SECRET_ARN must be set"),
        ("DATABASES", "app", "DATABASES must be JSON"),
        ("DATABASES", "{}", "DATABASES must be a JSON list"),
        ("DATABASES", "[]", "DATABASES must be a JSON list"),
        ("DATABASES", '[""]', "DATABASES must be a JSON list"),
    ],
)
def test_a_malformed_variable_is_named_with_its_rule(name, value, message):
    with pytest.raises(SettingsError, match=message):
        Settings.from_environment({**GOOD, name: value})


def test_a_secret_brings_its_own_user():
    settings = Settings.from_environment({k: v for k, v in GOOD.items() if k != "DB_USER"} | {"DB_SECRET_ARN": "arn"})
    assert (settings.db_auth, settings.db_secret_arn, settings.db_user) == ("secret", "arn", "")


def test_names_are_kept_once_in_order():
    assert Settings.from_environment({**GOOD, "DATABASES": '["b", "a", "b"]'}).databases == ("b", "a")


def test_the_compression_is_the_policy_s():
    policy = RetentionPolicy.hipaa().with_changes({"logical": {"compression": "zstd:5"}})
    assert Settings.from_environment({**GOOD, "RETENTION_POLICY": policy.to_json()}).compression == "zstd:5"
    with pytest.raises(SettingsError, match="RETENTION_POLICY"):
        _ = Settings.from_environment({**GOOD, "RETENTION_POLICY": "{"}).compression


@pytest.mark.parametrize(
    ("region", "here", "elsewhere"),
    [("eu-central-1", {"eu-central-1", "us-east-1"}, {"cn-north-1"}), ("cn-north-1", {"cn-north-1"}, {"us-east-1"})],
)
def test_the_shipped_certificate_authorities_are_those_of_the_partition(monkeypatch, region, here, elsewhere):
    monkeypatch.setenv("AWS_REGION", region)
    context = ssl.create_default_context(cafile=default_root_certificate())
    names = {str(dict(x[0] for x in c["subject"]).get("commonName")) for c in context.get_ca_certs()}
    for kind in ("RSA2048", "RSA4096", "ECC384"):
        assert {f"Amazon RDS {one} Root CA {kind} G1" for one in here} <= names
        assert not {f"Amazon RDS {one} Root CA {kind} G1" for one in elsewhere} & names
