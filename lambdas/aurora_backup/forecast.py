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
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Self

from aurora_backup.errors import SettingsError
from aurora_backup.inventory import PREFIX_TIERS
from aurora_backup.policy import MANUAL_SNAPSHOT_QUOTA, MonthlyStore, RetentionPolicy, StorageClass, Tier
from aurora_backup.retention import (
    AWS_EXPIRES,
    S3_EXPIRES,
    Kind,
    RecoveryPoint,
    Status,
    decide,
    point_from_document,
)
from aurora_backup.schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from aurora_backup.policy import Transition

SCHEMA = 1
CLUSTER = "cluster-forecast"
STANDARD = "STANDARD"
CLASSES = (STANDARD, *(c.value for c in StorageClass))
_MONTH = 365.25 / 12
_UNKNOWN_SIZE = 1 << 30  # what RDS may say of an Aurora snapshot, whatever its size
_SETS = {"daily": Tier.AUTOMATED, "weekly": Tier.LOGICAL, "monthly": Tier.MONTHLY}


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Per GB and month. backup: Aurora snapshots and automated backups. storage: S3 by storage class.

    as_of: the ISO date on which they were valid. sources: where they come from.
    """

    region: str
    as_of: str
    currency: str
    note: str
    sources: tuple[str, ...]
    backup: float
    storage: Mapping[str, float]

    @classmethod
    def from_table(cls, table: Any, region: str) -> Self:
        """Read a table like `data/prices.json`; docs/retention.md has its form.

        Raises:
            SettingsError: the field, the rule and the value: a Region that is not in it, no date, a price that is none.

        """
        if not isinstance(table, dict):
            raise SettingsError(f"a price table must be a JSON object, got {type(table).__name__}")
        if strange := sorted(set(table) - _TABLE):
            raise SettingsError(f"a price table has the keys {', '.join(sorted(_TABLE))}, got {strange[0]!r} too")
        regions = table.get("regions")
        if not isinstance(regions, dict) or not regions:
            raise SettingsError(f"regions must be an object of Regions and their prices, got {regions!r}")
        if region not in regions:
            raise SettingsError(f"region must be one of {', '.join(sorted(regions))}, got {region!r}")
        prices = _prices(region, regions[region])
        return cls(
            region=region,
            as_of=_date(table.get("as_of")),
            currency=_currency(table.get("currency")),
            note=_text("note", table.get("note", "")),
            sources=_texts("sources", table.get("sources", [])),
            backup=prices["backup"],
            storage={name: prices[name] for name in CLASSES},
        )


_TABLE = {"as_of", "currency", "note", "sources", "regions"}


def _prices(region: str, given: Any) -> dict[str, float]:
    where, names = f"regions.{region}", ("backup", *CLASSES)
    if not isinstance(given, dict):
        raise SettingsError(f"{where} must be an object of prices, got {given!r}")
    if strange := sorted(set(given) - set(names)):
        raise SettingsError(f"{where} has the keys {', '.join(names)}, got {strange[0]!r} too")
    for name in names:
        price = given.get(name)
        if isinstance(price, bool) or not isinstance(price, (int, float)) or not 0 <= price < 1000:  # noqa: PLR2004  no storage costs so much
            raise SettingsError(f"{where}.{name} must be a price per GB and month, got {price!r}")
    return {name: float(given[name]) for name in names}


def _date(value: Any) -> str:
    try:
        return date.fromisoformat(value).isoformat()
    except (TypeError, ValueError):
        raise SettingsError(f"as_of must be the ISO date of the prices, such as 2026-11-23, got {value!r}") from None


def _currency(value: Any) -> str:
    if not (isinstance(value, str) and len(value) == 3 and value.isascii() and value.isupper()):  # noqa: PLR2004  ISO 4217
        raise SettingsError(f"currency must be an ISO 4217 code, such as USD, got {value!r}")
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise SettingsError(f"{name} must be a text, got {value!r}")
    return value


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise SettingsError(f"{name} must be a list of texts, got {value!r}")
    return tuple(_text(name, each) for each in value)


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
    """A policy over time. existing: the points on the last day, for questions about one day.

    quota: of manual cluster snapshots in the Region.
    """

    policy: RetentionPolicy
    workload: Workload
    prices: Prices
    days: tuple[Day, ...]
    existing: tuple[RecoveryPoint, ...]
    quota: int = MANUAL_SNAPSHOT_QUOTA

    @property
    def total_cost(self) -> float:
        """Of all days together."""
        return sum(day.cost / _MONTH for day in self.days)

    @property
    def peak_snapshots(self) -> int:
        """The most snapshots that exist on one day."""
        return max(day.snapshots for day in self.days)

    def document(self, *, days: Sequence[Day] | None = None) -> dict[str, Any]:
        """JSON: schema 1; `days` has one entry for each day, or for those given."""
        return {
            "schema": SCHEMA,
            "region": self.prices.region,
            "prices": asdict(self.prices),
            "workload": asdict(self.workload),
            "policy": json.loads(self.policy.to_json()),
            "total_cost": round(self.total_cost, 2),
            "final_month_cost": round(self.days[-1].cost, 2),
            "peak_snapshots": self.peak_snapshots,
            "snapshot_quota": self.quota,
            "assumptions": list(ASSUMPTIONS),
            "days": [asdict(day) for day in (self.days if days is None else days)],
        }


ASSUMPTIONS = (
    "Storage only: no requests, retrieval, data transfer, minimum storage durations or tax.",
    "Each snapshot is billed in full, at the size that the cluster had when it was made.",
    "A dump set has the size of the cluster times the dump ratio.",
    "Of the automated tier, Aurora bills what changed within its retention; the volume itself is free.",
    "Free backup storage, and snapshots within the automated retention, are not taken off.",
    "A dump set that goes is billed until its noncurrent days are over, and is not counted.",
    "Every backup succeeds. Without sweep.enforce, snapshots on demand are never deleted.",
)


def cheaper(policy: RetentionPolicy) -> RetentionPolicy | None:
    """The same policy with its longest tier as dump sets in S3 Glacier Deep Archive; None without a monthly tier."""
    if policy.monthly is None:
        return None
    first = min((t.days for t in policy.archive.transitions), default=90)
    moved = [{"days": first, "storage_class": StorageClass.DEEP_ARCHIVE.value}]
    return policy.with_changes({"monthly": {"store": MonthlyStore.SETS.value}, "archive": {"transitions": moved}})


def longest_days(policy: RetentionPolicy) -> int:
    """How many days show a policy whole: a year more than its longest retention of sets and snapshots, at least 7."""
    kept = [rule.expire_days for rule in policy.lifecycle_rules()]
    kept += [rule.delete_after_days for rule in policy.snapshot_rules()]
    return max(7 * 366, max(kept) + 366)


def simulate(
    policy: RetentionPolicy,
    workload: Workload,
    prices: Prices,
    *,
    start: date,
    days: int,
    quota: int = MANUAL_SNAPSHOT_QUOTA,
) -> Forecast:
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
    return Forecast(policy, workload, prices, tuple(found), stock.points, quota)


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


@dataclass(frozen=True)
class Billing:
    """What points cost at some prices. change: of the cluster each day, as a share of its size."""

    policy: RetentionPolicy
    prices: Prices
    change: float = Workload.change

    def held(
        self,
        tier: Tier,
        kind: Kind,
        points: Iterable[RecoveryPoint],
        now: datetime,
        size_gb: float,
        behind: Sequence[tuple[RecoveryPoint, datetime]] = (),
    ) -> Held:
        """One tier and kind, in a month like this. size_gb: of the cluster, for what is billed by its changes.

        behind: sets whose versions S3 still keeps behind delete markers, and since when: they are billed in the class
        that they had then, and are no copies.
        """
        found = list(points)
        times = [point.created for point in found if point.created is not None]
        if kind is Kind.AUTOMATED:
            gb = size_gb * self.change * len(found)
            cost = gb * self.prices.backup
        elif kind is Kind.SET:
            billed = [*((point, now) for point in found), *behind]
            gb = sum(point.size for point, _ in billed) / 1e9
            cost = sum(point.size / 1e9 * self._set_price(tier, at, point.created or at) for point, at in billed)
        else:
            gb = sum(point.size for point in found) / 1e9
            cost = gb * self.prices.backup
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
        return self.prices.storage[moved[-1] if moved else STANDARD]

    @cached_property
    def _transitions(self) -> dict[Tier, tuple[Transition, ...]]:
        rules = {rule.prefix.rstrip("/"): rule.transitions for rule in self.policy.lifecycle_rules()}
        return {tier: rules[prefix.value] for prefix, tier in PREFIX_TIERS.items()}


class _Stock:
    """The points that exist. Asks `decide` about a tier and kind when something in it comes to its time."""

    def __init__(self, policy: RetentionPolicy, workload: Workload, prices: Prices, begin: datetime) -> None:
        self._policy, self._workload, self._begin = policy, workload, begin
        self._billing = Billing(policy, prices, workload.change)
        self._groups: defaultdict[tuple[Tier, Kind], dict[str, RecoveryPoint]] = defaultdict(dict)
        self._due: dict[tuple[Tier, Kind], datetime] = {}
        self._until: dict[str, datetime] = {}
        self._behind: defaultdict[tuple[Tier, Kind], list[tuple[RecoveryPoint, datetime]]] = defaultdict(list)
        self._made = 0

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
            # What AWS expires goes point by point; what is swept depends on the copies beside it.
            alone = key[1] in AWS_EXPIRES
            asked = [p for name, p in group.items() if not alone or self._until.get(name, now) <= now]
            plan = decide(asked, self._policy, {}, now, lineage={CLUSTER}, ahead=True)
            for decision in plan.decisions:
                name = decision.point.identifier
                self._until[name] = decision.until or now
                if self._goes(decision.point.kind, decision.rule, refused=bool(plan.refused)):
                    del group[name], self._until[name]
                    if decision.point.kind is Kind.SET:
                        self._behind[key].append((decision.point, now))
            # What the minimum keeps is looked at again when there is a newer copy; the others at their time.
            later = [self._until[name] for name in group if self._until[name] > now]
            self._due[key] = min([*later, *([now + timedelta(days=1)] if len(later) < len(group) else [])], default=now)

    def _goes(self, kind: Kind, rule: str, *, refused: bool) -> bool:
        if kind in AWS_EXPIRES:
            return rule == "aws-overdue"
        swept = self._policy.sweep.enforce and not refused
        return rule == "expired" and (kind is Kind.SET or swept)  # S3's lifecycle asks nobody

    def day(self, now: datetime, number: int) -> Day:
        size = self._workload.gb_after(number + 1)
        oldest = now - timedelta(days=self._policy.archive.noncurrent_days)
        for key, points in self._behind.items():
            self._behind[key] = [(point, since) for point, since in points if since > oldest]
        held = tuple(
            self._billing.held(*key, group.values(), now, size, self._behind.get(key, ()))
            for key, group in sorted(self._groups.items())
        )
        counted = (Kind.RECOVERY_POINT, Kind.SNAPSHOT)
        snapshots = sum(len(group) for (_, kind), group in self._groups.items() if kind in counted)
        return Day(now.date().isoformat(), round(size, 3), held, snapshots)


# --- What exists now -------------------------------------------------------------------------------------------------


def size_from(points: Iterable[RecoveryPoint], dump_ratio: float = Workload.dump_ratio) -> float | None:
    """The size of the cluster in GB, as far as its recovery points tell; None when they do not.

    RDS says 0 or 1 GiB of an Aurora snapshot whose size it does not know, and AWS Backup says 0; then the newest dump
    set of each database, over the dump ratio, is the estimate.
    """
    sized = [p for p in points if p.size and p.created and p.status is Status.AVAILABLE]
    sized.sort(key=lambda p: (p.created, p.identifier))
    if snapshots := [p for p in sized if p.kind is not Kind.SET and p.size > _UNKNOWN_SIZE]:
        return snapshots[-1].size / 1e9
    newest = {p.series: p.size for p in sized if p.kind is Kind.SET}
    return sum(newest.values()) / 1e9 / dump_ratio if newest else None


def size_from_plan(plan: Mapping[str, Any] | None) -> float | None:
    """The size of the cluster in GB as a retention plan saw it; None without a plan that can be read."""
    try:
        lineage = set(plan["lineage"]) if plan else set()
        points = [point_from_document(d) for d in plan["decisions"]] if plan else []
    except (KeyError, TypeError, ValueError):
        return None
    return size_from(p for p in points if p.cluster_resource_id in lineage)


def costs(
    points: Iterable[RecoveryPoint],
    policy: RetentionPolicy,
    now: datetime,
    *,
    lineage: Collection[str],
    region: str,
    unknown: Sequence[str] = (),
    table: Any = None,
) -> dict[str, Any]:
    """What this month's storage of the points that exist costs, by tier and kind.

    `{"region", "as_of", "currency", "problem", "tiers": [{"tier", "kind", "count", "gb", "cost"}]}`; problem says why
    there are no tiers: a Region without prices, or something unknown, which could not be read. A snapshot of unknown
    size counts as large as the cluster.
    """
    mine = [p for p in points if p.cluster_resource_id in lineage and p.kind not in S3_EXPIRES]
    try:
        prices = Prices.from_table(list_prices() if table is None else table, region)
    except SettingsError as error:
        return {"region": region, "as_of": None, "currency": None, "problem": str(error), "tiers": []}
    size = size_from(mine)
    problem = None if size is not None or not mine else "the size of the cluster is not known"
    problem = "not everything could be read" if unknown else problem
    groups: defaultdict[tuple[Tier, Kind], list[RecoveryPoint]] = defaultdict(list)
    for point in mine if problem is None else ():
        unsized = point.kind is not Kind.SET and point.size <= _UNKNOWN_SIZE
        known = replace(point, size=round((size or 0) * 1e9)) if unsized else point
        if point.tier:
            groups[point.tier, point.kind].append(known)
    billing = Billing(policy, prices)
    held = [billing.held(tier, kind, group, now, size or 0) for (tier, kind), group in sorted(groups.items())]
    tiers = [{"tier": h.tier, "kind": h.kind, "count": h.count, "gb": h.gb, "cost": h.cost} for h in held]
    about = {"region": region, "as_of": prices.as_of, "currency": prices.currency}
    return {**about, "problem": problem, "tiers": tiers}
