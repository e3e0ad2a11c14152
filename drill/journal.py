"""What the drill leaves: `drill.json`, written after every step, and what a person sees while it runs."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SCHEMA = 1


class StepFailedError(Exception):
    """A step ran and what it checked did not hold. The message says what was expected and what was found."""


@dataclass
class Step:
    """One entry of `drill.json`."""

    name: str
    ok: bool = False
    seconds: float = 0.0
    detail: dict[str, Any] = field(default_factory=dict)

    def case(self, name: str, expected: str, actual: str, *, ok: bool) -> None:
        """Record one case: of a negative control it is ok when this copy failed as expected."""
        cases = self.detail.setdefault("cases", [])
        cases.append({"name": name, "expected": expected, "actual": actual, "ok": ok})

    def require(self, fact: object, message: str) -> None:
        """Fail the step unless the fact holds."""
        if not fact:
            raise StepFailedError(message)


class Journal:
    """Runs steps and writes them down. The file is deleted first, and whole at every moment after."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._begun = clock()
        self._complete = False
        self.error: str | None = None
        """What ended the drill, where it was no finding of a step."""
        self.steps: list[Step] = []

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._write()

    @property
    def ok(self) -> bool:
        """Whether every step ran, and each was ok."""
        return self._complete and bool(self.steps) and all(step.ok for step in self.steps)

    def finish(self) -> None:
        """Say that every step has run."""
        self._complete = True
        self._write()

    @contextmanager
    def step(self, name: str, title: str) -> Iterator[Step]:
        """Time one step, write it down however it ends, and show it. What it raised goes on."""
        step = Step(name)
        self.steps.append(step)
        self._show(f"  {name:<28} {title} ...")
        begun = self._clock()
        try:
            yield step
            bad = [case for case in step.detail.get("cases", []) if not case["ok"]]
            step.require(not bad, "; ".join(f"{c['name']}: expected {c['expected']}, got {c['actual']}" for c in bad))
            step.ok = True
        except BaseException as error:
            step.detail["error"] = f"{type(error).__name__}: {error}"
            raise
        finally:
            step.seconds = round(self._clock() - begun, 3)
            self._write()
            mark = "ok" if step.ok else "FAILED"
            self._show(f"\r  {name:<28} {mark:<6} {step.seconds:7.1f} s  {self._headline(step)}\n", over=True)

    def _headline(self, step: Step) -> str:
        if "error" in step.detail:
            return str(step.detail["error"])[:300]
        return str(step.detail.get("headline", ""))

    def _show(self, text: str, *, over: bool = False) -> None:
        if sys.stdout.isatty():
            sys.stdout.write(("\x1b[2K" if over else "") + text)
        elif over:
            sys.stdout.write(text.lstrip("\r"))
        sys.stdout.flush()

    def _write(self) -> None:
        document = {"schema": SCHEMA, "ok": self.ok, "steps": [vars(step) for step in self.steps]}
        document |= {"error": self.error} if self.error else {}
        scratch = self._path.with_suffix(".part")
        scratch.write_text(json.dumps(document, indent=1, default=str) + "\n")
        os.replace(scratch, self._path)  # noqa: PTH105  atomic on the same file system

    def summary(self) -> str:
        """The closing lines."""
        width = 78
        lines = ["", "-" * width]
        total = self._clock() - self._begun
        passed = sum(step.ok for step in self.steps)
        lines.append(f"  {passed} of {len(self.steps)} steps ok, {total:.0f} s in all")
        facts = {key: value for step in self.steps for key, value in step.detail.items()}
        for step in self.steps:
            if step.name == "compare" and "rows_restored" in step.detail:
                expected, restored = step.detail["rows_expected"], step.detail["rows_restored"]
                lines.append(f"  rows: {expected:,} expected, {restored:,} restored")
        for key, text in (("rto_seconds", "recovery time"), ("rpo_seconds", "data lost")):
            if key in facts:
                lines.append(f"  measured {text}: {facts[key]:.1f} s (on this machine; Aurora's times are its own)")
        lines += [
            "",
            "  Real here: the CDK app and CLI, the Lambda zips and layers, PostgreSQL, dumps, restores, WAL recovery.",
            "  Emulated: AWS itself, by MiniStack on this machine; IAM and bucket policies are not enforced by it.",
            "  Not proven here: anything only a live AWS account can show. README says which.",
            "-" * width,
            f"  {'PASS' if self.ok else 'FAIL'}: {self._path}",
        ]
        return "\n".join(lines)
