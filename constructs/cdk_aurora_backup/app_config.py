"""The deployable app's settings: read from CDK context, checked, every wrong or unknown key refused by name. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from aurora_backup.policy import MANUAL_SNAPSHOT_QUOTA, PolicyError, RetentionPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    _Reader = Callable[[str, Any], Any]

PREFIX = "backup:"
_ENVIRONMENTS = "environments"
_MOST_CAPACITY = 256
_MOST_DAYS = 36_500


class ConfigError(ValueError):
    """A context value is wrong or unknown. Names the key, the rule and the value."""


@dataclass(frozen=True, kw_only=True)
class AppConfig:
    """One stack's settings. The README's table of settings explains each; names there have hyphens and the prefix."""

    stack_name: str = "AuroraBackup"
    account: str | None = None
    region: str | None = None
    profile: str = "production"
    imported_cluster: Mapping[str, Any] | None = None
    imported_vpc: Mapping[str, Any] | None = None
    create_endpoints: bool = True
    database_name: str | None = None
    engine_version: str | None = None
    readers: int = 1
    capacity: Mapping[str, float] | None = None
    databases: tuple[str, ...] = ()
    content_digest: bool = False
    policy: RetentionPolicy | None = None
    alert_emails: tuple[str, ...] = ()
    key_arn: str | None = None
    break_glass_role_arns: tuple[str, ...] = ()
    architecture: str = "arm64"
    root_certificates: str | None = None
    snapshot_quota: int = MANUAL_SNAPSHOT_QUOTA
    reserved_concurrency: int | None = 2
    permissions_boundary: str | None = None
    vault_name: str | None = None
    vault_lock: Mapping[str, Any] | None = None
    copy_to: tuple[Mapping[str, Any], ...] = ()
    replicate_to: tuple[Mapping[str, Any], ...] = ()
    audit: bool = False
    restore_testing: bool = False
    heartbeat: bool | None = None
    lineage: tuple[str, ...] = ()
    test_instance_class: str = "db.t4g.medium"
    validation: Mapping[str, Any] | None = None
    tags: Mapping[str, str] | None = None

    @property
    def is_dev(self) -> bool:
        """Whether the stack can be torn down with everything in it."""
        return self.profile == "dev"

    @property
    def effective_policy(self) -> RetentionPolicy:
        """The policy, of the profile where none is given."""
        return self.policy or (RetentionPolicy.dev() if self.is_dev else RetentionPolicy.hipaa())


def read_context(context: Mapping[str, Any]) -> list[AppConfig]:
    """The stacks to make from CDK context: one, or one for each of `backup:environments`.

    Values are JSON, or text where they come from `--context`. Raises ConfigError: the key, the rule and the value.
    """
    given = {key.removeprefix(PREFIX): value for key, value in context.items() if key.startswith(PREFIX)}
    environments = _as_json(_ENVIRONMENTS, given.pop(_ENVIRONMENTS, None))
    if environments is None:
        return [_one(given, PREFIX)]
    if not isinstance(environments, dict) or not environments:
        raise _wrong(_ENVIRONMENTS, "an object of name to settings", environments)
    found: list[AppConfig] = []
    for name, settings in environments.items():
        path = f"{PREFIX}{_ENVIRONMENTS}.{name}."
        if not isinstance(settings, dict):
            raise ConfigError(f"{path.rstrip('.')} must be an object of settings, got {settings!r}")
        config = _one({"stack-name": f"AuroraBackup-{name}", **given, **settings}, path)
        if config.stack_name in {other.stack_name for other in found}:
            raise ConfigError(f"{path}stack-name {config.stack_name!r} is that of another environment, too")
        found.append(config)
    return found


def _one(given: Mapping[str, Any], path: str) -> AppConfig:
    known = {field.name.replace("_", "-") for field in fields(AppConfig)}
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in known:
            raise ConfigError(f"{path}{key} is not a setting; there are {', '.join(sorted(known))}")
        if value is not None and value != "":
            values[key.replace("-", "_")] = _READERS[key](f"{path}{key}".removeprefix(PREFIX), value)
    profile = values.get("profile", "production")
    if changes := values.get("policy"):
        base = RetentionPolicy.dev() if profile == "dev" else RetentionPolicy.hipaa()
        try:
            values["policy"] = base.with_changes(changes)
        except PolicyError as error:
            raise ConfigError(f"{path}policy: {error}") from None
    if ("account" in values) != ("region" in values):
        raise ConfigError(f"{path}account and {path}region go together, got only one of them")
    return AppConfig(**values)


def _wrong(key: str, rule: str, value: object) -> ConfigError:
    return ConfigError(f"{PREFIX}{key} must be {rule}, got {value!r}")


def _as_json(key: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        raise _wrong(key, "JSON", value) from None


def _text(pattern: str, rule: str) -> Callable[[str, Any], str]:
    def read(key: str, value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise _wrong(key, rule, value)
        return value

    return read


def _list(key: str, value: Any) -> tuple[str, ...]:
    items = value
    if isinstance(value, str):
        items = _as_json(key, value) if value.startswith("[") else [part.strip() for part in value.split(",")]
    if not isinstance(items, list) or not all(isinstance(item, str) and item for item in items):
        raise _wrong(key, "a list of text, or text separated by commas", value)
    return tuple(items)


def _roles(key: str, value: Any) -> tuple[str, ...]:
    roles = _list(key, value)
    if not all(re.fullmatch(_ARN + r"iam::\d{12}:role/.+", role) for role in roles):
        raise _wrong(key, "ARNs of IAM roles", value)
    return roles


def _whole(low: int, high: int) -> Callable[[str, Any], int]:
    def read(key: str, value: Any) -> int:
        number = _as_json(key, value)
        if isinstance(number, bool) or not isinstance(number, int) or not low <= number <= high:
            raise _wrong(key, f"a whole number within {low}-{high}", value)
        return number

    return read


def _flag(key: str, value: Any) -> bool:
    flag = _as_json(key, value)
    if not isinstance(flag, bool):
        raise _wrong(key, "true or false", value)
    return flag


def _concurrency(key: str, value: Any) -> int | None:
    return None if value in ("none", "account") else _whole(1, 1000)(key, value)


def _object(needed: Mapping[str, _Reader], optional: Mapping[str, _Reader] | None = None) -> _Reader:
    readers = {**needed, **(optional or {})}

    def read(key: str, value: Any) -> Mapping[str, Any]:
        found = _as_json(key, value)
        if not isinstance(found, dict):
            raise _wrong(key, "an object", value)
        if unknown := sorted(set(found) - set(readers)):
            raise ConfigError(f"{PREFIX}{key}.{unknown[0]} is not a setting; there are {', '.join(sorted(readers))}")
        given = {name: item for name, item in found.items() if item not in (None, "", [])}
        if missing := [name for name in needed if name not in given]:
            raise ConfigError(f"{PREFIX}{key}.{missing[0]} is missing; {', '.join(needed)} are needed")
        return {name: readers[name](f"{key}.{name}", item) for name, item in given.items()}

    return read


def _objects(
    needed: Mapping[str, _Reader], optional: Mapping[str, _Reader]
) -> Callable[[str, Any], tuple[Mapping[str, Any], ...]]:
    def read(key: str, value: Any) -> tuple[Mapping[str, Any], ...]:
        found = _as_json(key, value)
        if not isinstance(found, list):
            raise _wrong(key, "a list of objects", value)
        return tuple(_object(needed, optional)(f"{key}[{n}]", item) for n, item in enumerate(found))

    return read


def _texts(pattern: str, rule: str) -> Callable[[str, Any], list[str]]:
    def read(key: str, value: Any) -> list[str]:
        found = list(_list(key, value))
        if not all(re.fullmatch(pattern, item) for item in found):
            raise _wrong(key, rule, value)
        return found

    return read


def _lock(key: str, value: Any) -> Mapping[str, Any]:
    days = _whole(1, _MOST_DAYS)
    found: Mapping[str, Any] = _object(
        {"mode": _text("governance|compliance|none", "governance, compliance or none")},
        {"min_days": days, "max_days": days, "cooling_off_days": days, "acknowledgement": _ANY_TEXT},
    )(key, value)
    compliance = {"cooling_off_days", "acknowledgement"}
    if (found["mode"] == "compliance") != (compliance <= set(found)) or (
        found["mode"] != "compliance" and compliance & set(found)
    ):
        raise _wrong(key, "cooling_off_days and acknowledgement exactly with the mode compliance", value)
    return found


def _units(lowest: float) -> Callable[[str, Any], float]:
    def read(key: str, value: Any) -> float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not lowest <= value <= _MOST_CAPACITY:
            raise _wrong(key, f"Aurora capacity units, within {lowest}-{_MOST_CAPACITY}", value)
        return float(value) if value % 1 else int(value)

    return read


def _capacity(key: str, value: Any) -> Mapping[str, float]:
    found: Mapping[str, float] = _object({"min": _units(0), "max": _units(1)})(key, value)
    if found["min"] > found["max"]:
        raise _wrong(key, "a min that is not above its max", value)
    return found


def _bounds(key: str, value: Any) -> list[int]:
    if not isinstance(value, list) or len(value) != 2:  # noqa: PLR2004  the least and the most
        raise _wrong(key, "a list of the least and the most days", value)
    return [_whole(1, _MOST_DAYS)(key, days) for days in value]


def _resource_ids(key: str, value: Any) -> tuple[str, ...]:
    found = _list(key, value)
    if not all(re.fullmatch(r"cluster-[A-Z0-9]+", item) for item in found):
        raise _wrong(key, "resource ids of clusters, cluster-...", value)
    return found


def _mapping(key: str, value: Any) -> Mapping[str, Any]:
    found = _as_json(key, value)
    if not isinstance(found, dict):
        raise _wrong(key, "an object", value)
    return found


def _tags(key: str, value: Any) -> Mapping[str, str]:
    found = _mapping(key, value)
    if not all(isinstance(item, str) for item in found.values()):
        raise _wrong(key, "an object of text to text", value)
    return found


_ARN = r"arn:aws[a-z-]*:"
_IN_ACCOUNT = r"[a-z0-9-]+:\d{12}:"
_ANY_TEXT = _text(r"(?s).+", "text")
_ACCOUNT = _text(r"\d{12}", "twelve digits")
_REGION = _text(r"[a-z]{2,5}(-[a-z]+)+-\d", "a Region's name")
_KEY = _text(_ARN + r"kms:.+", "the ARN of a KMS key")
_SOME_TEXTS = _texts(".+", "a list of text")
_READERS: dict[str, _Reader] = {
    "stack-name": _text(r"[A-Za-z][A-Za-z0-9-]{0,127}", "letters, digits and hyphens, a letter first"),
    "account": _ACCOUNT,
    "region": _REGION,
    "profile": _text(r"production|dev", "production or dev"),
    "imported-cluster": _object(
        {
            "identifier": _ANY_TEXT,
            "resource_id": _ANY_TEXT,
            "security_group_ids": _texts("sg-.+", "a list of ids of security groups, sg-..."),
        },
        {
            "endpoint": _ANY_TEXT,
            "port": _whole(1, 65_535),
            "engine_version": _ANY_TEXT,
            "secret_arn": _text(
                _ARN + "secretsmanager:" + _IN_ACCOUNT + "secret:.+-[A-Za-z0-9]{6}",
                "the whole ARN of a secret, with its last six characters",
            ),
            "key_arn": _KEY,
        },
    ),
    "imported-vpc": _object(
        {"vpc_id": _ANY_TEXT, "availability_zones": _SOME_TEXTS, "isolated_subnet_ids": _SOME_TEXTS},
        {"isolated_route_table_ids": _SOME_TEXTS},
    ),
    "create-endpoints": _flag,
    "database-name": _text(r"[A-Za-z][A-Za-z0-9_]{0,62}", "letters, digits and underscores, a letter first"),
    "engine-version": _text(r"\d+\.\d+", "a version of Aurora PostgreSQL, for example 17.9"),
    "readers": _whole(0, 14),
    "capacity": _capacity,
    "databases": _list,
    "content-digest": _flag,
    "policy": _mapping,
    "alert-emails": _list,
    "key-arn": _KEY,
    "break-glass-role-arns": _roles,
    "architecture": _text(r"arm64|x86_64", "arm64 or x86_64"),
    "root-certificates": _ANY_TEXT,
    "snapshot-quota": _whole(1, 100_000),
    "reserved-concurrency": _concurrency,
    "permissions-boundary": _text(r"[\w+=,.@/-]+", "the name of a managed policy"),
    "vault-name": _text(r"[a-zA-Z0-9_-]{2,50}", "2-50 letters, digits, hyphens and underscores"),
    "vault-lock": _lock,
    "copy-to": _objects(
        {"vault_arn": _text(_ARN + "backup:" + _IN_ACCOUNT + "backup-vault:.+", "the ARN of a backup vault")},
        {"rules": _SOME_TEXTS, "keep_days": _whole(1, _MOST_DAYS), "bounds": _bounds},
    ),
    "replicate-to": _objects(
        {"bucket_name": _ANY_TEXT, "account": _ACCOUNT, "region": _REGION, "key_alias": _ANY_TEXT},
        {"prefixes": _SOME_TEXTS},
    ),
    "audit": _flag,
    "restore-testing": _flag,
    "heartbeat": _flag,
    "lineage": _resource_ids,
    "test-instance-class": _text(r"db\.[a-z0-9]+(-[a-z]+)?\.[a-z0-9]+", "an instance class, for example db.t4g.medium"),
    "validation": _mapping,
    "tags": _tags,
}
