"""AWS cron expressions: validated, and expanded into the times at which they fire. Pure.

Syntax from "Cron expressions reference" of Amazon EventBridge: six fields (minute, hour, day of month, month, day of
week, year), exactly one of the two day fields a question mark, days of the week 1-7 from Sunday.
"""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_MONTHS = {
    name: i
    for i, name in enumerate(("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"), 1)
}
_WEEKDAYS = {name: i for i, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"), 1)}
_NO_NAMES: dict[str, int] = {}
_FIELDS = (
    ("minute", 0, 59, _NO_NAMES),
    ("hour", 0, 23, _NO_NAMES),
    ("day of month", 1, 31, _NO_NAMES),
    ("month", 1, 12, _MONTHS),
    ("day of week", 1, 7, _WEEKDAYS),
    ("year", 1970, 2199, _NO_NAMES),
)
_SEARCH_DAYS = 366 * 9  # 29 February can be eight years away


class ScheduleError(ValueError):
    """A schedule is not a cron expression that AWS accepts."""


def require_utc(moment: datetime, name: str) -> datetime:
    """The moment in UTC; a naive datetime raises ValueError, because its time zone would be a guess."""
    if moment.tzinfo is None:
        raise ValueError(f"{name} must be timezone-aware, got the naive {moment.isoformat()}")
    return moment.astimezone(UTC)


@dataclass(frozen=True)
class Schedule:
    """One `cron(...)` expression, in UTC. Construction raises ScheduleError: the field, the rule and the value."""

    expression: str

    def __post_init__(self) -> None:
        self._fields  # noqa: B018  parsing is the validation

    @property
    def _fields(self) -> list[str]:
        match = re.fullmatch(r"cron\(([^()]*)\)", self.expression) if isinstance(self.expression, str) else None
        if not match:
            raise ScheduleError(f"schedule must read cron(minute hour day month weekday year), got {self.expression!r}")
        fields = match.group(1).upper().split()
        if len(fields) != len(_FIELDS):
            raise ScheduleError(
                f"schedule needs six fields (minute hour day month weekday year), got {self.expression!r}"
            )
        if (fields[2] == "?") == (fields[4] == "?"):
            raise ScheduleError(f"exactly one of day of month and day of week must be '?', got {self.expression!r}")
        for text, (name, low, high, names) in zip(fields, _FIELDS, strict=True):
            if text == "?" and "day" in name:
                continue
            if not self._special(name, text):
                self._values(text, name, low, high, names)
        return fields

    def _special(self, name: str, text: str) -> bool:
        if name == "day of month":
            return text == "L" or bool(re.fullmatch(r"([1-9]|[12]\d|3[01])W", text))
        if name == "day of week":
            return text == "L" or bool(
                re.fullmatch(r"([1-7]|[A-Z]{3})(L|#[1-5])", text) and self._weekday(text[:-1].rstrip("#"))
            )
        return False

    def _weekday(self, text: str) -> int:
        return next(iter(self._values(text, "day of week", 1, 7, _WEEKDAYS)))

    def _values(self, text: str, name: str, low: int, high: int, names: dict[str, int]) -> frozenset[int]:
        values: set[int] = set()
        for item in text.split(","):
            match = re.fullmatch(r"(\*|\w+)(?:-(\w+))?(?:/(\d+))?", item)
            if not match or (match[1] == "*" and match[2]):
                raise self._bad(name, item, low, high)
            step = int(match[3]) if match[3] else 1
            if match[1] == "*":
                first, last = low, high
            else:
                first = self._number(match[1], name, low, high, names)
                last = self._number(match[2], name, low, high, names) if match[2] else high if match[3] else first
            if step < 1 or first > last:
                raise self._bad(name, item, low, high)
            values.update(range(first, last + 1, step))
        return frozenset(values)

    def _number(self, text: str, name: str, low: int, high: int, names: dict[str, int]) -> int:
        value = names.get(text)
        if value is None:
            if not (text.isascii() and text.isdigit()):
                raise self._bad(name, text, low, high)
            value = int(text)
        if not low <= value <= high:
            raise self._bad(name, text, low, high)
        return value

    def _bad(self, name: str, text: str, low: int, high: int) -> ScheduleError:
        return ScheduleError(f"{name} must be within {low}-{high}, got {text!r} in {self.expression!r}")

    def _day_matches(self, day: date, month_days: str, week_days: str) -> bool:
        last = calendar.monthrange(day.year, day.month)[1]
        if week_days == "?":
            if month_days == "L":
                return day.day == last
            if month_days.endswith("W"):
                return day == _nearest_weekday(day.year, day.month, min(int(month_days[:-1]), last))
            return day.day in self._values(month_days, *_FIELDS[2])
        weekday = day.isoweekday() % 7 + 1
        name, _, nth = week_days.partition("#")
        if nth:
            return weekday == self._weekday(name) and (day.day - 1) // 7 + 1 == int(nth)
        if name.endswith("L"):
            return weekday == self._weekday(name[:-1] or "SAT") and (name == "L" or day.day + 7 > last)
        return weekday in self._values(name, *_FIELDS[4])

    def occurrences(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """Every firing time t with start <= t < end, ascending, aware UTC."""
        start, end = require_utc(start, "start"), require_utc(end, "end")
        minute, hour, month_days, month, week_days, year = self._fields
        minutes, hours = self._values(minute, *_FIELDS[0]), self._values(hour, *_FIELDS[1])
        months, years = self._values(month, *_FIELDS[3]), self._values(year, *_FIELDS[5])
        day = start.date()
        while day <= end.date():
            if day.year in years and day.month in months and self._day_matches(day, month_days, week_days):
                for h in sorted(hours):
                    for m in sorted(minutes):
                        moment = datetime(day.year, day.month, day.day, h, m, tzinfo=UTC)
                        if start <= moment < end:
                            yield moment
            day += timedelta(days=1)

    def next(self, after: datetime) -> datetime | None:
        """The first firing time later than `after`, or None when there is none within nine years."""
        start = require_utc(after, "after") + timedelta(microseconds=1)
        return next(self.occurrences(start, start + timedelta(days=_SEARCH_DAYS)), None)

    def longest_gap(self) -> timedelta:
        """The longest time between two firings over four years: what alarms on a missing success are set from.

        Raises ScheduleError when the schedule fires less than twice in four years.
        """
        return _longest_gap(self)


@lru_cache
def _longest_gap(schedule: Schedule) -> timedelta:
    begin = datetime(2024, 1, 1, tzinfo=UTC)
    times = list(schedule.occurrences(begin, begin + timedelta(days=4 * 366)))
    if len(times) < 2:  # noqa: PLR2004  a gap has two ends
        raise ScheduleError(f"schedule must fire at least twice in four years, got {schedule.expression!r}")
    return max(b - a for a, b in pairwise(times))


def _nearest_weekday(year: int, month: int, day: int) -> date:
    target = date(year, month, day)
    last = calendar.monthrange(year, month)[1]
    if target.isoweekday() == 6:  # noqa: PLR2004  Saturday
        return target - timedelta(days=1) if day > 1 else target + timedelta(days=2)
    if target.isoweekday() == 7:  # noqa: PLR2004  Sunday
        return target + timedelta(days=1) if day < last else target - timedelta(days=2)
    return target
