"""The command `who-can-delete`: what it reads, what it says, and that it never says less for want of a policy."""

from __future__ import annotations

import json

import boto3
import pytest
from moto import mock_aws

from aurora_backup.cli import main

REGION = "eu-west-1"


@pytest.fixture
def account(monkeypatch):
    with mock_aws():
        monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
        key = boto3.client("kms", region_name=REGION).create_key()["KeyMetadata"]["Arn"]
        where = {"LocationConstraint": REGION}
        boto3.client("s3", region_name=REGION).create_bucket(Bucket="backups", CreateBucketConfiguration=where)
        yield key


def arguments(key, *more):
    return ["who-can-delete", "--json", "--key", key, "--bucket", "backups", "--cluster", "clinic", *more]


def role(name, **statement):
    iam = boto3.client("iam")
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Resource": "*", **statement}]}
    iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=json.dumps(document))
    return arn


def test_it_names_who_can_delete_what(account, capsys):
    always = role("a", Action="kms:*")
    sometimes = role("b", Action="kms:DisableKey", Condition={"Bool": {"aws:MultiFactorAuthPresent": "true"}})
    assert main(arguments(account)) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["what"]: row["who"] for row in found["who_can_delete"]}
    assert (found["ok"], rows["the backup key"]) == (True, {always: "always", sometimes: "sometimes"})
    assert rows["dump sets and evidence, with every version"] == {}
    assert "recovery points in the vault" not in rows
    assert main([a for a in arguments(account) if a != "--json"]) == 0
    told = capsys.readouterr().out
    assert f"  {sometimes} (under conditions)\n" in told
    assert "  nobody\n" in told


def test_what_could_not_be_read_is_said_and_fails(account, capsys):
    assert main(arguments(account.replace("key/", "key/not-"))) == 1
    found = json.loads(capsys.readouterr().out)
    assert [p.partition(":")[0] for p in found["problems"]] == ["key-policy"]
    (row,) = (r for r in found["who_can_delete"] if r["what"] == "the backup key")
    assert "key policy could not be read" in row["by"]


def test_a_key_that_is_no_arn_is_refused(capsys):
    assert main(arguments("alias/backup")) == 2
    assert "--key must be the ARN of a key, got 'alias/backup'" in capsys.readouterr().err
