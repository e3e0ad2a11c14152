"""RetentionPolicy: the single source of truth for what is backed up, when, and how long it is kept. Pure.

The cluster's settings, the AWS Backup rules, the S3 lifecycle, the schedules, the Lambda environment and the decisions
at run time are all derived from it. It never imports aws_cdk or boto3, reads no clock and no environment.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from itertools import pairwise
from typing import Any, Self, TypeVar, cast, get_args, get_origin, get_type_hints

from aurora_backup.schedule import Schedule, ScheduleError, require_utc

SCHEMA = 1
MANUAL_SNAPSHOT_QUOTA = 100  # per Region, adjustable: "Quotas and constraints for Amazon Aurora"
_MAX_YEARS = 100
_TOKENS_BELOW = -1e280
_MAX_DAYS = 36_500  # what AWS Backup accepts for DeleteAfterDays
_WINDOW_MINUTES = 30  # RDS: a window is at least 30 minutes
_WEEK = 7 * 24 * 60
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_IA_DAYS = 30  # S3: an object is 30 days old before it moves to STANDARD_IA, and stays there 30


_Choice = TypeVar("_Choice", bound=StrEnum)


class PolicyError(ValueError):
    """A retention policy breaks a rule. The message names the field, the rule and the value received."""


class Tier(StrEnum):
    """The kinds of backup that the policy speaks of."""

    AUTOMATED = "automated"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    LOGICAL = "logical"
    ON_DEMAND = "on-demand"


class MonthlyStore(StrEnum):
    """What the six-year tier is made of: snapshots cost far more, compressed dump sets take longer to restore."""

    SNAPSHOTS = "snapshots"
    SETS = "sets"
    BOTH = "both"


class Prefix(StrEnum):
    """The four prefixes of the backup bucket, each with a retention of its own."""

    AUTOMATED = "automated-backups"
    MANUAL = "manual-backups"
    LOGICAL = "logical-backups"
    COMPLIANCE = "compliance-backups"


def _known(name: str, value: object) -> None:
    """Refuse a CDK token by its looks, since this module knows no CDK: a marked text, or a number near -1.888e289."""
    if (isinstance(value, str) and "${Token[" in value) or (
        isinstance(value, float) and -math.inf < value < _TOKENS_BELOW
    ):
        raise PolicyError(
            f"{name} must be known at synth, because everything is derived from it; got the CDK token {value!r}"
        )


def _of_type(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise PolicyError(f"{name} must be a {kind.__name__}, got {value!r}")


def _choice(name: str, value: Any, choices: type[_Choice]) -> _Choice:
    """The member for a member or its text: the rules compare members."""
    try:
        return choices(value)
    except ValueError:
        raise PolicyError(f"{name} must be one of {', '.join(choices)}, got {value!r}") from None


def _whole(name: str, value: object, low: int, high: int) -> int:
    _known(name, value)
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not math.isfinite(value)
        or value != int(value)
    ):
        raise PolicyError(f"{name} must be a whole number within {low}-{high}, got {value!r}")
    if not low <= value <= high:
        raise PolicyError(f"{name} must be within {low}-{high}, got {value!r}")
    return int(value)


def _schedule(name: str, expression: str) -> None:
    _known(name, expression)
    try:
        Schedule(expression).longest_gap()
    except ScheduleError as error:
        raise PolicyError(f"{name}: {error}") from None


@dataclass(frozen=True)
class Keep:
    """How long something is kept: days, or calendar years, never both. `Keep.for_days(35)`, `Keep.for_years(6)`."""

    days: int | None = None
    years: int | None = None

    def __post_init__(self) -> None:
        if (self.days is None) == (self.years is None):
            raise PolicyError(
                f"keep must have exactly one of days and years, got days={self.days!r}, years={self.years!r}"
            )
        if self.days is not None:
            object.__setattr__(self, "days", _whole("keep.days", self.days, 1, _MAX_DAYS))
        if self.years is not None:
            object.__setattr__(self, "years", _whole("keep.years", self.years, 1, _MAX_YEARS))

    @classmethod
    def for_days(cls, days: int) -> Self:
        """Keep for this many times 24 hours."""
        return cls(days=days)

    @classmethod
    def for_years(cls, years: int) -> Self:
        """Keep for calendar years: to the same month, day and time of day."""
        return cls(years=years)

    def until(self, created: datetime) -> datetime:
        """When something created then may go. From 29 February, years end on 1 March: the later day keeps."""
        created = require_utc(created, "created")
        if self.days is not None:
            return created + timedelta(days=self.days)
        year = created.year + (self.years or 0)
        try:
            return created.replace(year=year)
        except ValueError:
            return created.replace(year=year, month=3, day=1)

    @property
    def most_days(self) -> int:
        """The largest number of days this can mean, for services that count in days only: six years is 2192."""
        return self.days if self.days is not None else _most_days(self.years or 0)

    def __str__(self) -> str:
        return f"{self.days} days" if self.days is not None else f"{self.years} years"


@cache
def _most_days(years: int) -> int:
    keep = Keep(years=years)
    starts = (datetime(2000 + y, m, d, tzinfo=UTC) for y in range(400) for m, d in ((1, 1), (3, 1)))
    return max((keep.until(start) - start).days for start in starts)


@dataclass(frozen=True, kw_only=True)
class AutomatedTier:
    """Aurora's own continuous backup (point-in-time recovery), and the cluster's windows, all UTC.

    keep_days: 1-35, what RDS accepts. backup_window: "hh:mm-hh:mm", 30 minutes or more. maintenance_window:
    "Ddd:hh:mm-Ddd:hh:mm", 30 minutes or more, not overlapping the backup window. sets_schedule: optional daily dump
    sets under automated-backups/ beside it, kept as long; None takes none.
    """

    keep_days: int = 35
    backup_window: str = "03:00-04:00"
    maintenance_window: str = "Mon:04:00-Mon:05:00"
    sets_schedule: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep_days", _whole("automated.keep_days", self.keep_days, 1, 35))
        daily = _daily_window("automated.backup_window", self.backup_window)
        start, length = _weekly_window("automated.maintenance_window", self.maintenance_window)
        for day in range(7):
            if _overlap((day * 1440 + daily[0]) % _WEEK, daily[1], start, length):
                raise PolicyError(
                    f"automated.backup_window {self.backup_window!r} must not overlap "
                    f"automated.maintenance_window {self.maintenance_window!r}"
                )
        if self.sets_schedule is not None:
            _schedule("automated.sets_schedule", self.sets_schedule)


def _clock(text: str) -> int | None:
    match = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)", text)
    return int(match[1]) * 60 + int(match[2]) if match else None


def _daily_window(name: str, text: str) -> tuple[int, int]:
    _known(name, text)
    parts = text.split("-") if isinstance(text, str) else []
    times = [_clock(part) for part in parts]
    if len(times) != 2 or None in times:  # noqa: PLR2004  from and to
        raise PolicyError(f"{name} must read hh:mm-hh:mm in UTC, got {text!r}")
    start, end = (t for t in times if t is not None)
    return start, _long_enough(name, text, (end - start) % 1440)


def _weekly_window(name: str, text: str) -> tuple[int, int]:
    _known(name, text)
    match = (
        re.fullmatch(r"([A-Za-z]{3}):(\d\d:\d\d)-([A-Za-z]{3}):(\d\d:\d\d)", text) if isinstance(text, str) else None
    )
    start, end = (_clock(match[2]), _clock(match[4])) if match else (None, None)
    days = (match[1].lower(), match[3].lower()) if match else ("", "")
    if start is None or end is None or not set(days) <= set(_DAYS):
        raise PolicyError(f"{name} must read Ddd:hh:mm-Ddd:hh:mm in UTC, got {text!r}")
    begin, finish = (_DAYS.index(day) * 1440 + t for day, t in zip(days, (start, end), strict=True))
    return begin, _long_enough(name, text, (finish - begin) % _WEEK)


def _long_enough(name: str, text: str, minutes: int) -> int:
    if minutes < _WINDOW_MINUTES:
        raise PolicyError(f"{name} must last {_WINDOW_MINUTES} minutes or more, got {text!r}")
    return minutes


def _overlap(start_a: int, length_a: int, start_b: int, length_b: int) -> bool:
    return (start_b - start_a) % _WEEK < length_a or (start_a - start_b) % _WEEK < length_b


@dataclass(frozen=True, kw_only=True)
class SnapshotTier:
    """A rule of the AWS Backup plan. schedule: AWS cron, UTC. store: only the monthly tier has a choice.

    minimum_copies: never fewer good recovery points than this, whatever their age.
    """

    schedule: str
    keep: Keep
    minimum_copies: int = 1
    store: MonthlyStore = MonthlyStore.SNAPSHOTS

    def __post_init__(self) -> None:
        _schedule("schedule", self.schedule)
        _of_type("keep", self.keep, Keep)
        _whole("minimum_copies", self.minimum_copies, 0, 1000)
        object.__setattr__(self, "store", _choice("store", self.store, MonthlyStore))


@dataclass(frozen=True, kw_only=True)
class LogicalTier:
    """pg_dump sets in S3. compression: "zstd:1" to "zstd:19". trial_restore: when a set is restored, or None."""

    schedule: str = "cron(0 2 ? * SAT *)"
    keep: Keep = field(default_factory=lambda: Keep.for_days(90))
    minimum_copies: int = 1
    compression: str = "zstd:1"
    trial_restore: str | None = "cron(0 6 ? * SAT *)"

    def __post_init__(self) -> None:
        _schedule("logical.schedule", self.schedule)
        _of_type("logical.keep", self.keep, Keep)
        _of_type("logical.compression", self.compression, str)
        _whole("logical.minimum_copies", self.minimum_copies, 0, 1000)
        if not re.fullmatch(r"zstd:([1-9]|1\d)", self.compression):
            raise PolicyError(f"logical.compression must read zstd:1 to zstd:19, got {self.compression!r}")
        if self.trial_restore is not None:
            _schedule("logical.trial_restore", self.trial_restore)


@dataclass(frozen=True, kw_only=True)
class OnDemandTier:
    """RDS cluster snapshots and dump sets made when asked for."""

    keep: Keep = field(default_factory=lambda: Keep.for_days(180))
    minimum_copies: int = 0

    def __post_init__(self) -> None:
        _whole("on_demand.minimum_copies", self.minimum_copies, 0, 1000)


class StorageClass(StrEnum):
    """The S3 storage classes that old sets can move to, in the only order in which S3 lets an object move.

    GLACIER and DEEP_ARCHIVE need a restore request before an object can be read.
    """

    STANDARD_IA = "STANDARD_IA"
    GLACIER_IR = "GLACIER_IR"
    GLACIER = "GLACIER"
    DEEP_ARCHIVE = "DEEP_ARCHIVE"


@dataclass(frozen=True)
class Transition:
    """A move to a cheaper storage class at an age in days (0 or more; 30 or more for STANDARD_IA)."""

    days: int
    storage_class: StorageClass

    def __post_init__(self) -> None:
        _whole("transition.days", self.days, 0, _MAX_DAYS)
        object.__setattr__(self, "storage_class", _choice("transition.storage_class", self.storage_class, StorageClass))
        if self.storage_class is StorageClass.STANDARD_IA and self.days < _IA_DAYS:
            raise PolicyError(f"transition.days must be {_IA_DAYS} or more for STANDARD_IA, got {self.days}")


@dataclass(frozen=True, kw_only=True)
class Archive:
    """How dump sets move to cheaper storage, and how long an overwritten or deleted version stays (days).

    A transition is left out for a prefix that expires by then, because S3 would refuse the whole lifecycle.
    """

    transitions: tuple[Transition, ...] = (Transition(90, StorageClass.GLACIER),)
    noncurrent_days: int = 30

    def __post_init__(self) -> None:
        _whole("archive.noncurrent_days", self.noncurrent_days, 1, _MAX_DAYS)
        _in_order("archive.transitions", self.transitions)


def _in_order(name: str, transitions: tuple[Transition, ...]) -> None:
    order = list(StorageClass)
    for first, second in pairwise(transitions):
        gap = _IA_DAYS if first.storage_class is StorageClass.STANDARD_IA else 1
        if order.index(first.storage_class) >= order.index(second.storage_class) or second.days < first.days + gap:
            raise PolicyError(
                f"{name} must go from warm to cold, {gap} or more days apart, got {first.storage_class} at "
                f"{first.days} days and then {second.storage_class} at {second.days} days"
            )


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The limits of the retention manager. enforce: False reports only; True deletes what the policy lets go.

    A plan that would delete more than max_deletions points, or more than max_share of them, is refused whole.
    """

    enforce: bool = False
    max_deletions: int = 20
    max_share: float = 0.5
    schedule: str = "cron(30 5 * * ? *)"

    def __post_init__(self) -> None:
        _whole("sweep.max_deletions", self.max_deletions, 1, 10_000)
        if not (isinstance(self.max_share, (int, float)) and math.isfinite(self.max_share) and 0 < self.max_share <= 1):
            raise PolicyError(f"sweep.max_share must be above 0 and at most 1, got {self.max_share!r}")
        _schedule("sweep.schedule", self.schedule)


@dataclass(frozen=True, kw_only=True)
class RecoveryTesting:
    """How often a restore is proved. Each scheduled test takes the next tier in turn.

    heartbeat_minutes: how often the heartbeat row is written, 1-60; lifetime_hours: a test cluster older than this is
    swept by the janitor; max_age_days: compliance fails when the last passed test is older.
    """

    schedule: str = "cron(0 7 2 * ? *)"
    heartbeat_minutes: int = 5
    lifetime_hours: int = 12
    max_age_days: int = 40

    def __post_init__(self) -> None:
        _schedule("recovery_testing.schedule", self.schedule)
        _whole("recovery_testing.heartbeat_minutes", self.heartbeat_minutes, 1, 60)
        _whole("recovery_testing.lifetime_hours", self.lifetime_hours, 1, 168)
        _whole("recovery_testing.max_age_days", self.max_age_days, 1, 400)


@dataclass(frozen=True)
class SnapshotRule:
    """One rule of the AWS Backup plan, derived."""

    name: str
    schedule: str
    delete_after_days: int


@dataclass(frozen=True)
class LifecycleRule:
    """One S3 lifecycle rule, of the policy or of the caller's own. Days are whole; S3 acts at the next midnight UTC.

    Raises PolicyError for what S3 would refuse: a transition at or after expiry, out of order, or IA before 30 days.
    """

    prefix: str
    expire_days: int
    transitions: tuple[Transition, ...] = ()
    noncurrent_days: int = 30

    def __post_init__(self) -> None:
        _whole(f"{self.prefix}: expire_days", self.expire_days, 1, _MAX_DAYS)
        _whole(f"{self.prefix}: noncurrent_days", self.noncurrent_days, 1, _MAX_DAYS)
        _in_order(f"{self.prefix}: transitions", self.transitions)
        for transition in self.transitions:
            if transition.days >= self.expire_days:
                raise PolicyError(
                    f"{self.prefix}: expire_days {self.expire_days} must be greater than the transition to "
                    f"{transition.storage_class} at {transition.days} days"
                )


@dataclass(frozen=True)
class DumpSchedule:
    """When dump sets are made under which prefix, derived."""

    name: str
    prefix: Prefix
    schedule: str


@dataclass(frozen=True, kw_only=True)
class RetentionPolicy:
    """What is backed up, when, and how long it is kept. Immutable: `with_changes` makes another.

    A tier that is None is not made; dump sets that it left expire after that tier's default (90 days for logical) or
    with the evidence (monthly), also those that it had promised longer. `RetentionPolicy.hipaa()` is the strategy
    document's policy.
    """

    automated: AutomatedTier = field(default_factory=AutomatedTier)
    weekly: SnapshotTier | None = None
    monthly: SnapshotTier | None = None
    logical: LogicalTier | None = None
    on_demand: OnDemandTier = field(default_factory=OnDemandTier)
    archive: Archive = field(default_factory=Archive)
    evidence_keep: Keep = field(default_factory=lambda: Keep.for_years(6))
    sweep: Sweep = field(default_factory=Sweep)
    recovery_testing: RecoveryTesting = field(default_factory=RecoveryTesting)

    def __post_init__(self) -> None:
        for name, kind, optional in (
            ("automated", AutomatedTier, False),
            ("weekly", SnapshotTier, True),
            ("monthly", SnapshotTier, True),
            ("logical", LogicalTier, True),
            ("on_demand", OnDemandTier, False),
            ("archive", Archive, False),
            ("evidence_keep", Keep, False),
            ("sweep", Sweep, False),
            ("recovery_testing", RecoveryTesting, False),
        ):
            if not (optional and getattr(self, name) is None):
                _of_type(name, getattr(self, name), kind)
        if self.weekly and self.weekly.store is not MonthlyStore.SNAPSHOTS:
            raise PolicyError(
                f"weekly.store must be 'snapshots': only the monthly tier has a choice, got {self.weekly.store!r}"
            )
        longest = max(self.lifecycle_rules(), key=lambda rule: rule.expire_days)
        if late := [t for t in self.archive.transitions if t not in longest.transitions]:
            raise PolicyError(
                f"archive.transitions: {late[0].storage_class} at {late[0].days} days must come before the longest "
                f"retention of a dump set ends ({longest.prefix} {longest.expire_days} days)"
            )

    @classmethod
    def hipaa(cls) -> Self:
        """The strategy document's policy.

        35 days of point-in-time recovery; snapshots weekly for 180 days and monthly for six calendar years; a dump
        every week for 90 days; 180 days for what is made on demand.
        """
        return cls(
            weekly=SnapshotTier(schedule="cron(0 2 ? * SUN *)", keep=Keep.for_days(180)),
            monthly=SnapshotTier(schedule="cron(0 1 1 * ? *)", keep=Keep.for_years(6)),
            logical=LogicalTier(),
        )

    @classmethod
    def dev(cls) -> Self:
        """For clusters that are torn down: one day of point-in-time recovery and a dump every week for seven days."""
        return cls(
            automated=AutomatedTier(keep_days=1),
            logical=LogicalTier(keep=Keep.for_days(7), minimum_copies=0, trial_restore=None),
            on_demand=OnDemandTier(keep=Keep.for_days(7)),
        )

    def with_changes(self, changes: dict[str, Any]) -> Self:
        """A policy with the values of a JSON-like dict laid over these. {"weekly": None} leaves a tier out.

        Raises PolicyError for an unknown name, naming it and the known ones.
        """
        return cast("Self", _decode(type(self), _merge(_encode(self), changes), "policy"))

    def keep(self, tier: Tier) -> Keep | None:
        """How long recovery points of the tier are kept; None for a tier that is not made."""
        if tier is Tier.AUTOMATED:
            return Keep.for_days(self.automated.keep_days)
        made = {
            Tier.WEEKLY: self.weekly,
            Tier.MONTHLY: self.monthly,
            Tier.LOGICAL: self.logical,
            Tier.ON_DEMAND: self.on_demand,
        }[tier]
        return made.keep if made else None

    def snapshot_rules(self) -> list[SnapshotRule]:
        """The AWS Backup rules: one for each tier that is kept as snapshots."""
        tiers = ((Tier.WEEKLY, self.weekly), (Tier.MONTHLY, self.monthly))
        return [
            SnapshotRule(tier.value, rule.schedule, rule.keep.most_days)
            for tier, rule in tiers
            if rule and rule.store is not MonthlyStore.SETS
        ]

    def dump_schedules(self) -> list[DumpSchedule]:
        """When dump sets are made, and where they go."""
        found = []
        if self.automated.sets_schedule:
            found.append(DumpSchedule("daily", Prefix.AUTOMATED, self.automated.sets_schedule))
        if self.logical:
            found.append(DumpSchedule("weekly", Prefix.LOGICAL, self.logical.schedule))
        if self.monthly and self.monthly.store is not MonthlyStore.SNAPSHOTS:
            found.append(DumpSchedule("monthly", Prefix.COMPLIANCE, self.monthly.schedule))
        return found

    def prefix_keep(self, prefix: Prefix) -> Keep:
        """How long dump sets under a prefix are kept, also where the policy makes none."""
        if prefix is Prefix.AUTOMATED:
            return Keep.for_days(self.automated.keep_days)
        if prefix is Prefix.MANUAL:
            return self.on_demand.keep
        if prefix is Prefix.LOGICAL:
            return (self.logical or LogicalTier()).keep
        # Evidence lives under this prefix too, so that nothing there goes before evidence may.
        monthly = self.monthly.keep if self.monthly else self.evidence_keep
        return max(monthly, self.evidence_keep, key=lambda keep: keep.most_days)

    def lifecycle_rules(self) -> list[LifecycleRule]:
        """The S3 lifecycle of the four prefixes, without the transitions that would come at or after expiry."""
        rules = []
        for prefix in Prefix:
            days = self.prefix_keep(prefix).most_days
            kept = tuple(t for t in self.archive.transitions if t.days < days)
            rules.append(LifecycleRule(f"{prefix.value}/", days, kept, self.archive.noncurrent_days))
        return rules

    def projected_snapshots(self) -> int:
        """How many cluster snapshots the snapshot rules hold at one time, once the longest retention has passed."""
        total = 0
        end = datetime(2032, 1, 1, tzinfo=UTC)
        for rule in self.snapshot_rules():
            start = end - timedelta(days=rule.delete_after_days)
            total += sum(1 for _ in Schedule(rule.schedule).occurrences(start, end))
        return total

    def environment(self) -> dict[str, str]:
        """The Lambda environment that carries the policy to run time."""
        return {"RETENTION_POLICY": self.to_json()}

    def to_json(self) -> str:
        """One line of JSON, with the schema number; the same policy gives the same text."""
        return json.dumps({"schema": SCHEMA, **_encode(self)}, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The policy from `to_json`'s text. Raises PolicyError for another schema, an unknown name or a bad value."""
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise PolicyError(f"policy must be JSON: {error}") from None
        if not isinstance(data, dict) or data.pop("schema", None) != SCHEMA:
            raise PolicyError(f"policy.schema must be {SCHEMA}, got {text[:80]!r}")
        return cast("Self", _decode(cls, data, "policy"))


def _encode(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        encoded = {f.name: _encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {k: v for k, v in encoded.items() if v is not None} if isinstance(value, Keep) else encoded
    return [_encode(v) for v in value] if isinstance(value, tuple) else value


def _merge(base: Any, changes: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(changes, dict)):
        return changes
    if set(changes) <= {"days", "years"} and set(base) <= {"days", "years"}:
        return changes
    return {**base, **{k: _merge(base.get(k), v) for k, v in changes.items()}}


def _decode(kind: type[Any], data: Any, path: str) -> Any:
    if not isinstance(data, dict):
        raise PolicyError(f"{path} must be an object, got {data!r}")
    hints = get_type_hints(kind)
    names = {f.name for f in dataclasses.fields(kind)}
    if unknown := sorted(set(data) - names):
        raise PolicyError(f"{path}.{unknown[0]} is not a setting; {path} has {', '.join(sorted(names))}")
    values = {}
    for name, value in data.items():
        if get_origin(hints[name]) is tuple:
            values[name] = _decode_list(get_args(hints[name])[0], value, f"{path}.{name}")
            continue
        wanted = [t for t in get_args(hints[name]) or (hints[name],) if isinstance(t, type)]
        inner = next((t for t in wanted if dataclasses.is_dataclass(t)), None)
        if inner and not (value is None and type(None) in wanted):
            values[name] = _decode(inner, value, f"{path}.{name}")
        else:
            values[name] = _scalar(wanted, value, f"{path}.{name}")
    try:
        return kind(**values)
    except PolicyError as error:
        raise PolicyError(f"{path}: {error}") from None
    except TypeError:
        needed = [
            f.name
            for f in dataclasses.fields(kind)
            if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING and f.name not in values
        ]
        raise PolicyError(f"{path} needs {', '.join(needed)}, got {sorted(values)}") from None


def _decode_list(kind: type[Any], data: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(data, list):
        raise PolicyError(f"{path} must be a list, got {data!r}")
    return tuple(_decode(kind, item, f"{path}[{i}]") for i, item in enumerate(data))


def _scalar(wanted: list[type[Any]], value: Any, path: str) -> Any:
    for kind in wanted:
        if issubclass(kind, StrEnum):
            try:
                return kind(value)
            except ValueError:
                raise PolicyError(f"{path} must be one of {', '.join(kind)}, got {value!r}") from None
    number = {int, float} & set(wanted)
    if isinstance(value, tuple(wanted)) and not (number and isinstance(value, bool) and bool not in wanted):
        return value
    if number and isinstance(value, (int, float)) and not isinstance(value, bool):
        return value  # the field's own check names the rule
    raise PolicyError(f"{path} must be {' or '.join(t.__name__ for t in wanted)}, got {value!r}")
