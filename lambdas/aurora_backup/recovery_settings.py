"""What the recovery functions are told beyond `Settings`: where test copies live, and what is asked of them."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field, fields
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

from aurora_backup.errors import SettingsError
from aurora_backup.facts_sql import UserCheck
from aurora_backup.policy import PolicyError, RetentionPolicy
from aurora_backup.recovery import Isolation

if TYPE_CHECKING:
    from collections.abc import Mapping


_RULES = {"tolerances", "recency", "recent_within_minutes", "checks"}
_CHECK = {each.name for each in fields(UserCheck)}


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What recovery tests ask beside their own checks, as the user wrote it.

    tolerances: table -> the share of its rows by which it may differ. recency: database -> SQL for the newest
    transaction; recent_within: how much older than the recovery point its answer may be. checks: database -> checks.
    """

    tolerances: dict[str, float] = field(default_factory=dict)
    recency: dict[str, str] = field(default_factory=dict)
    recent_within: timedelta | None = None
    checks: dict[str, tuple[UserCheck, ...]] = field(default_factory=dict)

    @classmethod
    def read(cls, rules: Mapping[str, Any]) -> Self:
        """Read `{"tolerances", "recency", "recent_within_minutes", "checks"}`, none of them needed.

        Raises:
            SettingsError: `validation`, the key, the rule and the value.

        """
        if unknown := sorted(set(rules) - _RULES):
            raise SettingsError(f"validation.{unknown[0]} is not a setting; there are {', '.join(sorted(_RULES))}")
        minutes = rules.get("recent_within_minutes")
        return cls(
            tolerances={table: _share(f"tolerances.{table}", v) for table, v in _object(rules, "tolerances").items()},
            recency={name: _text(f"recency.{name}", sql) for name, sql in _object(rules, "recency").items()},
            recent_within=None if minutes is None else timedelta(minutes=_number("recent_within_minutes", minutes)),
            checks={name: _checks(name, given) for name, given in _object(rules, "checks").items()},
        )


@dataclass(frozen=True, kw_only=True)
class RecoverySettings:
    """The environment of the recovery functions. JSON variables name the field at fault when they are malformed.

    POLICY is RETENTION_POLICY's. LINEAGE: list of earlier resource ids of this cluster. TEST_ISOLATION:
    `{"subnet_group", "security_groups", "instance_class"}`. VALIDATION: as `Validation.read` takes it.
    """

    policy: RetentionPolicy
    lineage: frozenset[str] = frozenset()
    isolation: Isolation | None = None
    validation: Validation = field(default_factory=Validation)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read and check the environment (the process's own by default).

        Raises:
            SettingsError: a variable is malformed; the message names it.

        """
        env = os.environ if environment is None else environment
        try:
            policy = _policy(env["RETENTION_POLICY"])
        except KeyError:
            raise SettingsError("RETENTION_POLICY must be set, and is missing") from None
        except PolicyError as error:
            raise SettingsError(f"RETENTION_POLICY: {error}") from None
        try:
            lineage, isolation = frozenset(map(str, _read(env, "LINEAGE", []))), _isolation(env)
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            raise SettingsError(f"LINEAGE or TEST_ISOLATION is malformed: {error}") from None
        rules = Validation.read(_object({"VALIDATION": _read(env, "VALIDATION", {})}, "VALIDATION"))
        return cls(policy=policy, lineage=lineage, isolation=isolation, validation=rules)

    @property
    def beat(self) -> timedelta:
        """The time between two heartbeats."""
        return timedelta(minutes=self.policy.recovery_testing.heartbeat_minutes)

    @property
    def lifetime(self) -> timedelta:
        """How long a test copy may live."""
        return timedelta(hours=self.policy.recovery_testing.lifetime_hours)

    def require_isolation(self) -> Isolation:
        """Give the isolation; only functions of the recovery test are told one."""
        if self.isolation is None:
            raise SettingsError("TEST_ISOLATION must be set, and is missing or empty")
        return self.isolation


def _object(rules: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = rules.get(key, {})
    if not isinstance(found, dict):
        raise SettingsError(f"validation.{key} must be an object, got {found!r}")
    return found


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise SettingsError(f"validation.{key} must be a number, zero or more, got {value!r}")
    return float(value)


def _share(key: str, value: Any) -> float:
    if (share := _number(key, value)) > 1:
        raise SettingsError(f"validation.{key} must be at most 1, a share (0.05 is five per cent), got {value!r}")
    return share


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise SettingsError(f"validation.{key} must be text, got {value!r}")
    return value


def _checks(database: str, given: Any) -> tuple[UserCheck, ...]:
    key = f"checks.{database}"
    if not isinstance(given, list):
        raise SettingsError(f"validation.{key} must be a list, got {given!r}")
    found = []
    for number, each in enumerate(given):
        if not isinstance(each, dict) or set(each) != _CHECK:
            raise SettingsError(f"validation.{key}[{number}] must have {', '.join(sorted(_CHECK))}, got {each!r}")
        found.append(UserCheck(**{name: _text(f"{key}[{number}].{name}", text) for name, text in each.items()}))
    return tuple(found)


@lru_cache(maxsize=1)
def _policy(text: str) -> RetentionPolicy:
    """Read the policy once for a warm function: its schedules are expanded over years to be checked."""
    return RetentionPolicy.from_json(text)


def _isolation(env: Mapping[str, str]) -> Isolation | None:
    told = _read(env, "TEST_ISOLATION", None)
    if told is None:
        return None
    by_secret = bool(env.get("DB_SECRET_ARN"))
    return Isolation(
        subnet_group=str(told["subnet_group"]),
        security_groups=tuple(map(str, told["security_groups"])),
        instance_class=str(told["instance_class"]),
        iam=not by_secret,
        secret_key=env.get("BACKUP_KEY_ARN") if by_secret else None,
    )


def _read(env: Mapping[str, str], name: str, absent: Any) -> Any:
    text = env.get(name)
    if not text:
        return absent
    try:
        return json.loads(text)
    except ValueError:
        raise SettingsError(f"{name} must be JSON, got {text!r}") from None
