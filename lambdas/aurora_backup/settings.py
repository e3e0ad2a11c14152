"""The environment of every function, read once, in one place."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from aurora_backup.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

OWN_BUNDLE = "rds-ca-bundle-own.pem"  # put into the functions' code at synth
DEFAULT_COMPRESSION = "zstd:1"
Auth = Literal["iam", "secret"]


def default_root_certificate(region: str | None = None) -> str:
    """Path of the RDS certificate authorities shipped with this package (PEM), for a Region (default: AWS_REGION).

    A deployment's own (`root_certificates`) come first. GovCloud's are not shipped: docs/logical-backup.md.
    """
    own = files("aurora_backup") / OWN_BUNDLE
    if own.is_file():
        return str(own)
    region = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""
    return str(files("aurora_backup") / ("rds-ca-bundle-cn.pem" if region.startswith("cn-") else "rds-ca-bundle.pem"))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the deployed functions are told by their environment. Variable names are the upper-case field names.

    databases: None means "discover". cluster_resource_id: None when it is known only at run time.
    retention_policy: the RetentionPolicy's JSON, not interpreted here. content_digest: dumps also digest every table.
    """

    backup_bucket: str
    owner: str
    cluster_id: str
    db_user: str
    db_auth: Auth
    db_secret_arn: str | None = None
    backup_key_arn: str | None = None
    cluster_resource_id: str | None = None
    databases: tuple[str, ...] | None = None
    retention_policy: str | None = None
    content_digest: bool = False
    root_certificate: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read and check the environment (the process's own by default).

        Raises:
            SettingsError: a variable is missing or malformed; the message names it.

        """
        env = os.environ if environment is None else environment
        secret = env.get("DB_SECRET_ARN") or None
        auth = env.get("DB_AUTH") or ("secret" if secret else "iam")
        if auth not in {"iam", "secret"}:
            raise SettingsError(f"DB_AUTH must be iam or secret, got {auth!r}")
        if auth == "secret" and not secret:
            raise SettingsError("DB_SECRET_ARN must be set when DB_AUTH is secret, and is missing or empty")
        return cls(
            backup_bucket=_required(env, "BACKUP_BUCKET"),
            owner=_required(env, "OWNER"),
            cluster_id=_required(env, "CLUSTER_ID"),
            db_user="" if auth == "secret" and not env.get("DB_USER") else _required(env, "DB_USER"),
            db_auth=cast("Auth", auth),
            db_secret_arn=secret,
            backup_key_arn=env.get("BACKUP_KEY_ARN") or None,
            cluster_resource_id=env.get("CLUSTER_RESOURCE_ID") or None,
            databases=_names("DATABASES", env.get("DATABASES")),
            retention_policy=env.get("RETENTION_POLICY") or None,
            content_digest=env.get("CONTENT_DIGEST") == "true",
            root_certificate=env.get("PGSSLROOTCERT") or default_root_certificate(),
        )

    @property
    def compression(self) -> str:
        """pg_dump's --compress value, from the policy or the default."""
        return _compression(self.retention_policy)


def _required(env: Mapping[str, str], name: str) -> str:
    value = env.get(name)
    if not value:
        raise SettingsError(f"{name} must be set, and is missing or empty")
    return value


def _names(name: str, value: str | None) -> tuple[str, ...] | None:
    if not value:
        return None
    names = _json(name, value)
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and n for n in names):
        raise SettingsError(f"{name} must be a JSON list of database names, got {value!r}")
    return tuple(dict.fromkeys(names))


def _json(name: str, value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        raise SettingsError(f"{name} must be JSON, got {value!r}") from None


def _compression(policy: str | None) -> str:
    if policy is None:
        return DEFAULT_COMPRESSION
    from aurora_backup.policy import PolicyError, RetentionPolicy

    try:
        logical = RetentionPolicy.from_json(policy).logical
    except PolicyError as error:
        raise SettingsError(f"RETENTION_POLICY: {error}") from None
    return logical.compression if logical else DEFAULT_COMPRESSION
