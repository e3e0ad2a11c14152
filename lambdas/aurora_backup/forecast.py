"""What a policy will keep, and cost, day by day for years: a simulation that asks the retention manager itself. Pure.

`simulate` makes recovery points as the policy's schedules would, and removes them only as `retention.decide` says: what
this program would delete, what AWS expires at its time, and what S3's lifecycle expires. So a change of the rules
changes the forecast. Money is storage only, at the prices given: no requests, retrieval, minimum storage times or tax.

Assumptions, in every document: a snapshot is billed in full at the size that the cluster had; a dump set is
`dump_ratio` of it; Aurora bills of the automated tier what changed within its retention, the volume itself is free.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Self

from aurora_backup.errors import SettingsError
from aurora_backup.policy import MANUAL_SNAPSHOT_QUOTA, MonthlyStore, Prefix, RetentionPolicy, StorageClass, Tier
from aurora_backup.retention import AWS_EXPIRES, Kind, RecoveryPoint, Status, decide
from aurora_backup.schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SCHEMA = 1
CLUSTER = "cluster-forecast"
STANDARD = "STANDARD"
CLASSES = (STANDARD, *(c.value for c in StorageClass))
_MONTH = 365.25 / 12
_SETS = {"daily": Tier.AUTOMATED, "weekly": Tier.LOGICAL, "monthly": Tier.MONTHLY}


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Per GB and month. backup: Aurora snapshots and automated backups. storage: S3 by storage class."""

    region: str
    as_of: str
    currency: str
    note: str
    backup: float
    storage: Mapping[str, float]

    @classmethod
    def from_table(cls, table: Mapping[str, Any], region: str) -> Self:
        """Read a table like `data/prices.json`. Raises SettingsError: an unknown Region, a price that is none."""
        regions = table.get("regions") if isinstance(table, dict) else None
        if not isinstance(regions, dict) or region not in regions:
            raise SettingsError(f"region must be one of {', '.join(sorted(regions or ()))}, got {region!r}")
        found = regions[region]
        for name in ("backup", *CLASSES):
            price = found.get(name)
            if isinstance(price, bool) or not isinstance(price, (int, float)) or not 0 <= price < 1000:  # noqa: PLR2004  no storage costs so much
                raise SettingsError(f"regions.{region}.{name} must be a price per GB and month, got {price!r}")
        return cls(
            region=region,
            as_of=str(table.get("as_of", "undated")),
            currency=str(table.get("currency", "USD")),
            note=str(table.get("note", "")),
            backup=float(found["backup"]),
            storage={name: float(found[name]) for name in CLASSES},
        )


def list_prices() -> dict[str, Any]:
    """The dated table that comes with this package."""
    table: dict[str, Any] = json.loads((files("aurora_backup") / "data" / "prices.json").read_text())
    return table


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The cluster to be: size in GB at the start, growth per month and change per day as shares of its size.

    dump_ratio: the size of a set over the size of the cluster. on_demand: snapshots on demand each month.
    """

    size_gb: float
    growth: float = 0.0
    change: float = 0.01
    dump_ratio: float = 0.28
    on_demand: int = 0

    def __post_init__(self) -> None:
        limits = {"size_gb": 131_072, "growth": 1, "change": 10, "dump_ratio": 2, "on_demand": 100}
        for name, most in limits.items():
            value = getattr(self, name)
            if not 0 <= value <= most:  # also refuses NaN
                raise SettingsError(f"workload.{name} must be within 0-{most}, got {value!r}")

    def gb_after(self, days: float) -> float:
        """The size of the cluster after some days."""
        return float(self.size_gb * (1 + self.growth) ** (days / _MONTH))


@dataclass(frozen=True, slots=True)
class Held:
    """What one tier holds on one day. oldest, newest: ISO dates, None when it holds nothing. cost: of a month of it."""

    tier: str
    kind: str
    count: int
    oldest: str | None
    newest: str | None
    gb: float
    cost: float


@dataclass(frozen=True, slots=True)
class Day:
    """One day, at its end. snapshots: what counts against the quota of manual cluster snapshots."""

    date: str
    size_gb: float
    tiers: tuple[Held, ...]
    snapshots: int

    @property
    def cost(self) -> float:
        """Of a month like this day, all tiers together."""
        return sum(held.cost for held in self.tiers)

    @property
    def gb(self) -> float:
        """Billed, all tiers together."""
        return sum(held.gb for held in self.tiers)


@dataclass(frozen=True)
class Forecast:
    """A policy over time. existing: the points on the last day, for questions about one day."""

    policy: RetentionPolicy
    workload: Workload
    prices: Prices
    days: tuple[Day, ...]
    existing: tuple[RecoveryPoint, ...]

    @property
    def total_cost(self) -> float:
        """Of all days together."""
        return sum(day.cost / _MONTH for day in self.days)

    @property
    def peak_snapshots(self) -> int:
        """The most snapshots that exist on one day."""
        return max(day.snapshots for day in self.days)

    def document(self) -> dict[str, Any]:
        """JSON: schema 1; `days` has one entry for each day."""
        return {
            "schema": SCHEMA,
            "region": self.prices.region,
            "prices": asdict(self.prices),
            "workload": asdict(self.workload),
            "policy": json.loads(self.policy.to_json()),
            "total_cost": round(self.total_cost, 2),
            "final_month_cost": round(self.days[-1].cost, 2),
            "peak_snapshots": self.peak_snapshots,
            "snapshot_quota": MANUAL_SNAPSHOT_QUOTA,
            "assumptions": list(ASSUMPTIONS),
            "days": [asdict(day) for day in self.days],
        }


ASSUMPTIONS = (
    "Storage only: no requests, retrieval, data transfer, minimum storage durations or tax.",
    "Each snapshot is billed in full, at the size that the cluster had when it was made.",
    "A dump set has the size of the cluster times the dump ratio.",
    "Of the automated tier, Aurora bills what changed within its retention; the volume itself is free.",
    "Every backup succeeds. Without sweep.enforce, snapshots on demand are never deleted.",
)


def cheaper(policy: RetentionPolicy) -> RetentionPolicy | None:
    """The same policy with its longest tier as dump sets in S3 Glacier Deep Archive; None without a monthly tier."""
    if policy.monthly is None:
        return None
    first = min((t.days for t in policy.archive.transitions), default=90)
    moved = [{"days": first, "storage_class": StorageClass.DEEP_ARCHIVE.value}]
    return policy.with_changes({"monthly": {"store": MonthlyStore.SETS.value}, "archive": {"transitions": moved}})


def simulate(policy: RetentionPolicy, workload: Workload, prices: Prices, *, start: date, days: int) -> Forecast:
    """Day by day from `start`; each day as it is at its end. Raises SettingsError: days outside 1-36525."""
    if not 1 <= days <= 36_525:  # noqa: PLR2004  a hundred years
        raise SettingsError(f"days must be within 1-36525, got {days}")
    begin = datetime(start.year, start.month, start.day, tzinfo=UTC)
    births = _births(policy, workload, begin, days)
    stock = _Stock(policy, workload, prices, begin)
    found = []
    for number in range(days):
        now = begin + timedelta(days=number + 1, microseconds=-1)
        stock.add(births.get(number, ()))
        stock.expire(now)
        found.append(stock.day(now, number))
    return Forecast(policy, workload, prices, tuple(found), stock.points)


def _births(
    policy: RetentionPolicy, workload: Workload, begin: datetime, days: int
) -> dict[int, list[tuple[Kind, Tier, datetime]]]:
    hour, minute = policy.automated.backup_window[:5].split(":")
    schedules = [(Kind.AUTOMATED, Tier.AUTOMATED, f"cron({int(minute)} {int(hour)} * * ? *)")]
    schedules += [(Kind.RECOVERY_POINT, Tier(rule.name), rule.schedule) for rule in policy.snapshot_rules()]
    schedules += [(Kind.SET, _SETS[dump.name], dump.schedule) for dump in policy.dump_schedules()]
    schedules += [(Kind.SNAPSHOT, Tier.ON_DEMAND, "cron(0 12 15 * ? *)")] * workload.on_demand
    births: defaultdict[int, list[tuple[Kind, Tier, datetime]]] = defaultdict(list)
    for kind, tier, schedule in schedules:
        for moment in Schedule(schedule).occurrences(begin, begin + timedelta(days=days)):
            births[(moment - begin).days].append((kind, tier, moment))
    return births


class _Stock:
    """The points that exist. Asks `decide` about a tier and kind when something in it comes to its time."""

    def __init__(self, policy: RetentionPolicy, workload: Workload, prices: Prices, begin: datetime) -> None:
        self._policy, self._workload, self._prices, self._begin = policy, workload, prices, begin
        self._groups: defaultdict[tuple[Tier, Kind], dict[str, RecoveryPoint]] = defaultdict(dict)
        self._due: dict[tuple[Tier, Kind], datetime] = {}
        self._made = 0
        rules = {rule.prefix.rstrip("/"): rule.transitions for rule in policy.lifecycle_rules()}
        prefixes = {Tier.AUTOMATED: Prefix.AUTOMATED, Tier.LOGICAL: Prefix.LOGICAL, Tier.MONTHLY: Prefix.COMPLIANCE}
        self._transitions = {tier: rules[prefix.value] for tier, prefix in prefixes.items()}

    @property
    def points(self) -> tuple[RecoveryPoint, ...]:
        return tuple(point for group in self._groups.values() for point in group.values())

    def add(self, births: Iterable[tuple[Kind, Tier, datetime]]) -> None:
        for kind, tier, moment in births:
            gb = self._workload.gb_after((moment - self._begin).total_seconds() / 86400)
            self._made += 1
            point = RecoveryPoint(
                kind=kind,
                tier=tier,
                identifier=f"{tier.value}/{kind.value}/{moment:%Y%m%dT%H%MZ}-{self._made}",
                cluster_resource_id=CLUSTER,
                created=moment,
                status=Status.AVAILABLE,
                size=round(gb * (self._workload.dump_ratio if kind is Kind.SET else 1) * 1e9),
                tagged=True,
                recorded=True,
            )
            self._groups[tier, kind][point.identifier] = point
            self._due.setdefault((tier, kind), moment)

    def expire(self, now: datetime) -> None:
        for key, due in list(self._due.items()):
            if due > now:
                continue
            group = self._groups[key]
            plan = decide(group.values(), self._policy, {}, now, lineage={CLUSTER})
            for decision in plan.decisions:
                if self._goes(decision.point.kind, decision.rule, refused=bool(plan.refused)):
                    del group[decision.point.identifier]
            # What the minimum keeps is looked at again when there is a newer copy; the others at their time.
            times = [d.until for d in plan.decisions if d.until and d.point.identifier in group]
            later = [until for until in times if until > now]
            self._due[key] = min([*later, *([now + timedelta(days=1)] if len(later) < len(group) else [])], default=now)

    def _goes(self, kind: Kind, rule: str, *, refused: bool) -> bool:
        if kind in AWS_EXPIRES:
            return rule == "aws-overdue"
        swept = self._policy.sweep.enforce and not refused
        return rule == "expired" and (kind is Kind.SET or swept)  # S3's lifecycle asks nobody

    def day(self, now: datetime, number: int) -> Day:
        size = self._workload.gb_after(number + 1)
        held = tuple(
            self._held(tier, kind, group.values(), now, size) for (tier, kind), group in sorted(self._groups.items())
        )
        counted = (Kind.RECOVERY_POINT, Kind.SNAPSHOT)
        snapshots = sum(len(group) for (_, kind), group in self._groups.items() if kind in counted)
        return Day(now.date().isoformat(), round(size, 3), held, snapshots)

    def _held(self, tier: Tier, kind: Kind, points: Iterable[RecoveryPoint], now: datetime, size: float) -> Held:
        found = list(points)
        times = [point.created for point in found if point.created is not None]
        if kind is Kind.AUTOMATED:
            gb = size * self._workload.change * len(found)
            cost = gb * self._prices.backup
        elif kind is Kind.SET:
            gb = sum(point.size for point in found) / 1e9
            cost = sum(point.size / 1e9 * self._set_price(tier, now, point.created or now) for point in found)
        else:
            gb = sum(point.size for point in found) / 1e9
            cost = gb * self._prices.backup
        return Held(
            tier.value,
            kind.value,
            len(found),
            min(times).date().isoformat() if times else None,
            max(times).date().isoformat() if times else None,
            round(gb, 3),
            round(cost, 4),
        )

    def _set_price(self, tier: Tier, now: datetime, created: datetime) -> float:
        age = (now - created).days
        moved = [t.storage_class.value for t in self._transitions[tier] if t.days <= age]
        return self._prices.storage[moved[-1] if moved else STANDARD]
