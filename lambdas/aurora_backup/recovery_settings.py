"""What the recovery functions are told beyond `Settings`: where test copies live, and what is asked of them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

from aurora_backup.errors import SettingsError
from aurora_backup.facts_sql import UserCheck
from aurora_backup.policy import PolicyError, RetentionPolicy
from aurora_backup.recovery import Isolation

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class RecoverySettings:
    """The environment of the recovery functions. JSON variables name the field at fault when they are malformed.

    POLICY is RETENTION_POLICY's. LINEAGE: list of earlier resource ids of this cluster. TEST_ISOLATION:
    `{"subnet_group", "security_groups", "instance_class"}`. VALIDATION: `{"tolerances": {table: share}, "recency":
    {database: SQL}, "recent_within_minutes": n, "checks": {database: [{"name", "sql", "expected", "reason"}]}}`.
    """

    policy: RetentionPolicy
    lineage: frozenset[str] = frozenset()
    isolation: Isolation | None = None
    tolerances: dict[str, float] = field(default_factory=dict)
    recency: dict[str, str] = field(default_factory=dict)
    recent_within: timedelta | None = None
    checks: dict[str, tuple[UserCheck, ...]] = field(default_factory=dict)

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
        rules = _read(env, "VALIDATION", {})
        try:
            minutes = rules.get("recent_within_minutes")
            return cls(
                policy=policy,
                lineage=frozenset(map(str, _read(env, "LINEAGE", []))),
                isolation=_isolation(env),
                tolerances={str(k): float(v) for k, v in rules.get("tolerances", {}).items()},
                recency={str(k): str(v) for k, v in rules.get("recency", {}).items()},
                recent_within=None if minutes is None else timedelta(minutes=float(minutes)),
                checks={k: tuple(UserCheck(**c) for c in v) for k, v in rules.get("checks", {}).items()},
            )
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            raise SettingsError(f"VALIDATION, LINEAGE or TEST_ISOLATION is malformed: {error}") from None

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
