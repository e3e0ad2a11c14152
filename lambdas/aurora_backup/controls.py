"""Which checks speak of which control of a framework: a table in data, and a verdict for each row. Pure.

A control's verdict sums up the checks that speak of it. It never says that an organisation complies: what no check can
show stands beside it, as `organisational`, and a control without any check is only that.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from importlib.resources import files
from typing import TYPE_CHECKING

from aurora_backup.compliance import combine
from aurora_backup.validation import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aurora_backup.compliance import Assessment

SCHEMA = 1
_FIELDS = {"id", "framework", "title", "checks", "organisational"}


class ControlsError(ValueError):
    """A table of controls is malformed. Names the control and the rule."""


class ControlVerdict(StrEnum):
    """What the checks say of a control. ORGANISATIONAL: no check can speak of it, or the policy asks for none."""

    PASS = "PASS"  # noqa: S105  a verdict, not a password
    FAIL = "FAIL"
    UNKNOWN = "UNKNOWN"
    ORGANISATIONAL = "ORGANISATIONAL"


@dataclass(frozen=True)
class Control:
    """One row. checks: ids, or patterns such as `completion.*`. organisational: what no check can show."""

    id: str
    framework: str
    title: str
    checks: tuple[str, ...]
    organisational: str


@dataclass(frozen=True)
class ControlResult:
    """A control's verdict, and the ids of the checks that it sums up, in the order of the report."""

    control: Control
    verdict: ControlVerdict
    checks: tuple[str, ...]


def read_controls(text: str, known: Iterable[str]) -> tuple[Control, ...]:
    """Read a table. known: every check's id; a pattern that names none of them is an error, and so is an empty table.

    Raises ControlsError.
    """
    try:
        data = json.loads(text)
    except ValueError:
        raise ControlsError("a table of controls must be JSON") from None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise ControlsError(f"schema must be {SCHEMA}, got {data.get('schema') if isinstance(data, dict) else data!r}")
    rows = data.get("controls")
    if not isinstance(rows, list) or not rows:
        raise ControlsError("controls must be a list of at least one control")
    ids = tuple(known)
    found = tuple(_control(row, ids) for row in rows)
    names = [(c.framework, c.id) for c in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ControlsError(f"{twice[0][0]} {twice[0][1]} stands in the table twice")
    return found


def _control(row: object, known: Sequence[str]) -> Control:
    if not isinstance(row, dict) or set(row) != _FIELDS:
        raise ControlsError(f"a control must have exactly {', '.join(sorted(_FIELDS))}, got {row!r}")
    name = row["id"]
    for field in ("id", "framework", "title", "organisational"):
        if not isinstance(row[field], str) or not row[field]:
            raise ControlsError(f"control {name!r}: {field} must be a text, got {row[field]!r}")
    patterns = row["checks"]
    if not isinstance(patterns, list) or not all(isinstance(p, str) for p in patterns):
        raise ControlsError(f"control {name!r}: checks must be a list of check ids, got {patterns!r}")
    for pattern in patterns:
        if not any(fnmatchcase(check, pattern) for check in known):
            raise ControlsError(f"control {name!r}: there is no check {pattern!r}")
    return Control(name, row["framework"], row["title"], tuple(patterns), row["organisational"])


def default_controls() -> str:
    """The text of the table in this package: HIPAA and NIST SP 800-53."""
    return (files("aurora_backup") / "data" / "controls.json").read_text("utf-8")


def judge(controls: Iterable[Control], assessment: Assessment) -> tuple[ControlResult, ...]:
    """A verdict for each control, from the checks that ran."""
    return tuple(_judge(control, assessment) for control in controls)


def _judge(control: Control, assessment: Assessment) -> ControlResult:
    mine = [r for r in assessment.results if any(fnmatchcase(r.spec.id, pattern) for pattern in control.checks)]
    if not mine:
        return ControlResult(control, ControlVerdict.ORGANISATIONAL, ())
    verdict = combine(result.verdict for result in mine)
    named = {Verdict.PASS: ControlVerdict.PASS, Verdict.FAIL: ControlVerdict.FAIL}
    return ControlResult(control, named.get(verdict, ControlVerdict.UNKNOWN), tuple(r.spec.id for r in mine))
