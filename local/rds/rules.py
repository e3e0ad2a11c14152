"""What RDS refuses: identifiers, retention, windows. Each rule raises the error that RDS answers with."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from local import faults
from local.protocol import AwsError

if TYPE_CHECKING:
    from collections.abc import Mapping

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WEEK = 7 * 24 * 60
_DAY = 24 * 60
_SHORTEST_WINDOW = 30


def check_identifier(value: str, field: str) -> str:
    """Return the identifier in lower case, as RDS keeps it, or refuse it."""
    right = re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,62}", value) and "--" not in value and not value.endswith("-")
    if not right:
        raise AwsError(
            "InvalidParameterValue",
            f"The parameter {field} is not a valid identifier. Identifiers must begin with a letter; must contain only "
            f"ASCII letters, digits, and hyphens; and must not end with a hyphen or contain two consecutive hyphens; "
            f"1 to 63 characters. Received: {value}",
        )
    return value.lower()


def check_retention(days: int) -> int:
    """Aurora keeps automated backups for 1 to 35 days; they cannot be switched off."""
    if not 1 <= days <= 35:
        raise AwsError("InvalidParameterValue", f"Invalid backup retention period: {days}. Must be between 1 and 35.")
    return days


def check_windows(backup: str, maintenance: str) -> None:
    """Both windows are well formed, at least 30 minutes long, and do not overlap on any day."""
    start, length = _daily(backup)
    begin, span = _weekly(maintenance)
    for name, text, minutes in (("backup", backup, length), ("maintenance", maintenance, span)):
        if minutes < _SHORTEST_WINDOW:
            raise AwsError("InvalidParameterValue", f"The {name} window must be at least 30 minutes: {text}")
    taken = {(begin + minute) % _WEEK for minute in range(span)}
    if any((day * _DAY + start + minute) % _WEEK in taken for day in range(7) for minute in range(length)):
        raise AwsError(
            "InvalidParameterValue",
            f"The backup window and maintenance window must not overlap: {backup} and {maintenance}",
        )


def _daily(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", text)
    if not match:
        raise AwsError("InvalidParameterValue", f"Invalid backup window format: {text}; hh24:mi-hh24:mi is wanted")
    start, end = (int(match[i]) * 60 + int(match[i + 1]) for i in (1, 3))
    return start, (end - start) % _DAY


def _weekly(text: str) -> tuple[int, int]:
    moment = r"([a-z]{3}):([01]\d|2[0-3]):([0-5]\d)"
    match = re.fullmatch(f"{moment}-{moment}", text.lower())
    if not match or match[1] not in _DAYS or match[4] not in _DAYS:
        raise AwsError(
            "InvalidParameterValue",
            f"Invalid maintenance window format: {text}; ddd:hh24:mi-ddd:hh24:mi is wanted",
        )
    start, end = (_DAYS.index(match[i]) * _DAY + int(match[i + 1]) * 60 + int(match[i + 2]) for i in (1, 4))
    return start, (end - start) % _WEEK


def check_password(password: str) -> str:
    """Aurora PostgreSQL's master password: 8 to 128 printable characters without slash, quotes, @ or space."""
    if not 8 <= len(password) <= 128 or set(password) & set("/'\"@ "):
        raise AwsError(
            "InvalidParameterValue",
            "The parameter MasterUserPassword is not a valid password: 8 to 128 printable characters besides / @ \" ' "
            "and space.",
        )
    return password


def page(request: dict[str, Any], items: list[dict[str, Any]], key: str) -> tuple[list[dict[str, Any]], str | None]:
    """The page of `items` (sorted by `key`) that `MaxRecords` and `Marker` ask for, and the next marker."""
    size = request.get("MaxRecords", 100)
    if not 20 <= size <= 100:
        raise AwsError(
            "InvalidParameterValue",
            f"Invalid value {size} for MaxRecords. Must be between 20 and 100",
        )
    size = min(size, faults.page_size() or size)
    ordered = sorted(items, key=lambda item: str(item[key]))
    marker = request.get("Marker") or ""
    rest = [item for item in ordered if str(item[key]) > marker]
    return rest[:size], str(rest[size - 1][key]) if len(rest) > size else None


def select(
    request: dict[str, Any],
    items: list[dict[str, Any]],
    fields: Mapping[str, tuple[str, ...]],
) -> list[dict[str, Any]]:
    """Apply `Filters`; `fields` says which of a record's fields each filter name looks at."""
    for wanted in request.get("Filters") or ():
        name = wanted["Name"]
        if name not in fields:
            raise AwsError("InvalidParameterValue", f"Unrecognized filter name: {name}")
        items = [item for item in items if any(item.get(field) in wanted["Values"] for field in fields[name])]
    return items
