"""`aurora-backup who-can-delete`: who can delete backups, by the policies that are in force now."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from aurora_backup.compliance_principals import answers, targets, who_may
from aurora_backup.errors import SettingsError, cause

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from aurora_backup.compliance_principals import Answer

_NO_POLICY = {"NoSuchBucketPolicy", "ResourceNotFoundException"}
_ARN_PARTS = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `who-can-delete`."""
    parser.add_argument("--key", required=True, help="ARN of the backup key")
    parser.add_argument("--bucket", required=True, help="the backup bucket")
    parser.add_argument("--cluster", required=True, help="identifier of the cluster")
    parser.add_argument("--vault", help="name of the backup vault. Default: recovery points are left out")
    parser.add_argument("--endpoint-url", help="another endpoint than AWS's")


def run(arguments: argparse.Namespace) -> tuple[int, dict[str, Any], str]:
    """Exit status 0 when every policy could be read, 1 when the answer is not complete."""
    parts = str(arguments.key).split(":", _ARN_PARTS - 1)
    if len(parts) != _ARN_PARTS or parts[2] != "kms":
        raise SettingsError(f"--key must be the ARN of a key, got {arguments.key!r}")
    region, account = parts[3], parts[4]
    wanted = [
        target
        for target in targets(key_arn=arguments.key, bucket=arguments.bucket, cluster_id=arguments.cluster)
        if arguments.vault or target.guard != "vault-policy"
    ]
    problems: list[str] = []
    guards: dict[str, object] = {}
    for name, read in _guards(arguments, region).items():
        _attempt(name, read, guards, problems)
    found: dict[str, Any] = {}
    pages = _client(arguments, region, "iam").get_paginator("get_account_authorization_details")
    _attempt("identity policies", lambda: who_may(pages.paginate(), wanted), found, problems)
    identities = found.get("identity policies")
    problems += [f"{arn}: was not shown" for arn in (identities or {}).get("unread", ())]
    rows = answers(wanted, guards, identities, account)
    document = {
        "ok": not problems,
        "problems": problems,
        "who_can_delete": [{"what": row.what, "who": row.who, "by": row.rests_on} for row in rows],
    }
    told = [*(line for row in rows for line in _told(row)), *(f"not read: {problem}" for problem in problems)]
    return (1 if problems else 0), document, "\n".join(told)


def _guards(arguments: argparse.Namespace, region: str) -> dict[str, Callable[[], object]]:
    kms, s3 = _client(arguments, region, "kms"), _client(arguments, region, "s3")
    found: dict[str, Callable[[], object]] = {
        "key-policy": lambda: kms.get_key_policy(KeyId=arguments.key, PolicyName="default")["Policy"],
        "bucket-policy": lambda: s3.get_bucket_policy(Bucket=arguments.bucket)["Policy"],
    }
    if arguments.vault:
        backup = _client(arguments, region, "backup")
        ask = backup.get_backup_vault_access_policy
        found["vault-policy"] = lambda: ask(BackupVaultName=arguments.vault)["Policy"]
    return found


def _attempt(name: str, read: Callable[[], object], found: dict[str, Any], problems: list[str]) -> None:
    from botocore.exceptions import ClientError

    try:
        answer = read()
        found[name] = json.loads(answer) if isinstance(answer, str) else answer
    except Exception as error:  # noqa: BLE001  whatever it is, this policy is not known
        if isinstance(error, ClientError) and error.response.get("Error", {}).get("Code") in _NO_POLICY:
            found[name] = None
        else:
            problems.append(f"{name}: {cause(error)}")


def _client(arguments: argparse.Namespace, region: str, service: str) -> Any:
    import boto3

    return boto3.client(service, endpoint_url=arguments.endpoint_url, region_name=region)


def _told(row: Answer) -> list[str]:
    said = f"{row.what} ({row.rests_on}):"
    if row.who is None:
        return [f"{said} nobody can tell"]
    who = [f"  {arn}{' (under conditions)' if how == 'sometimes' else ''}" for arn, how in sorted(row.who.items())]
    return [said, *(who or ["  nobody"])]
