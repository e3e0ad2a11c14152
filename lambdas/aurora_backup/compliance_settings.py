"""What the compliance functions are told by their environment: the system as it was deployed."""

from __future__ import annotations

import json
import os
from dataclasses import fields
from typing import TYPE_CHECKING, Any, cast

from aurora_backup.compliance import Expected
from aurora_backup.errors import SettingsError
from aurora_backup.policy import PolicyError, RetentionPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aurora_backup.evidence_store import LockMode

_FROM_VARIABLES = {"owner", "cluster_id", "lineage", "bucket", "key_arn", "policy"}
_MODES = {"GOVERNANCE", "COMPLIANCE", "NONE"}


def expected(environment: Mapping[str, str] | None = None) -> Expected:
    """What the facts are held against.

    COMPLIANCE is a JSON object with the other fields of `Expected`; LINEAGE a list of earlier resource ids, or absent.
    Raises SettingsError: a variable is missing or malformed; the message names it.
    """
    env = os.environ if environment is None else environment
    given = _json(env, "COMPLIANCE", "{}")
    names = {f.name for f in fields(Expected)} - _FROM_VARIABLES
    if not isinstance(given, dict) or not set(given) <= names:
        raise SettingsError(f"COMPLIANCE must be an object with {', '.join(sorted(names))}, got {given!r}")
    earlier = _json(env, "LINEAGE", "[]")
    if not isinstance(earlier, list) or not all(isinstance(one, str) for one in earlier):
        raise SettingsError(f"LINEAGE must be a list of resource ids, got {earlier!r}")
    try:
        policy = RetentionPolicy.from_json(_required(env, "RETENTION_POLICY"))
    except PolicyError as error:
        raise SettingsError(f"RETENTION_POLICY: {error}") from None
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    return Expected(
        owner=_required(env, "OWNER"),
        cluster_id=_required(env, "CLUSTER_ID"),
        lineage=(_required(env, "CLUSTER_RESOURCE_ID"), *earlier),
        bucket=_required(env, "BACKUP_BUCKET"),
        key_arn=_required(env, "BACKUP_KEY_ARN"),
        policy=policy,
        **values,
    )


def lock_mode(environment: Mapping[str, str] | None = None) -> LockMode | None:
    """Object Lock's mode for evidence; None for a bucket without Object Lock."""
    env = os.environ if environment is None else environment
    mode = env.get("EVIDENCE_LOCK", "GOVERNANCE")
    if mode not in _MODES:
        raise SettingsError(f"EVIDENCE_LOCK must be one of {', '.join(sorted(_MODES))}, got {mode!r}")
    return None if mode == "NONE" else cast("LockMode", mode)


def _required(env: Mapping[str, str], name: str) -> str:
    if not env.get(name):
        raise SettingsError(f"{name} must be set, and is missing or empty")
    return env[name]


def _json(env: Mapping[str, str], name: str, default: str) -> Any:
    text = env.get(name) or default
    try:
        return json.loads(text)
    except ValueError:
        raise SettingsError(f"{name} must be JSON, got {text!r}") from None
