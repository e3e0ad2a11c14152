"""KMS keys as RDS uses them: a key that is gone or switched off makes what it encrypts unusable."""

from __future__ import annotations

from ministack.core.responses import get_account_id, get_region
from ministack.services import kms

from local.protocol import AwsError


def key_arn(wanted: str | None) -> str:
    """The ARN of the key that `wanted` (id, ARN or alias) names; without one, of the account's `aws/rds` key."""
    if not wanted:
        return f"arn:aws:kms:{get_region()}:{get_account_id()}:key/aws-rds"
    key = kms._resolve_key(wanted)
    if key is None:
        raise AwsError("KMSKeyNotAccessibleFault", f"The specified KMS key [{wanted}] does not exist.")
    check_usable(str(key["Arn"]))
    return str(key["Arn"])


def check_usable(arn: str | None) -> None:
    """Refuse a key that is disabled or waiting to be deleted."""
    key = kms._resolve_key(arn) if arn and not arn.endswith("/aws-rds") else None
    if arn and not arn.endswith("/aws-rds") and (key is None or key["KeyState"] != "Enabled"):
        state = key["KeyState"] if key else "deleted"
        raise AwsError("KMSKeyNotAccessibleFault", f"The specified KMS key [{arn}] is not accessible: it is {state}.")
