"""What the running emulator knows about itself. Set once, by `local.emulator`, before the first request."""

from __future__ import annotations

import contextvars
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from local.postgres import Home


@dataclass
class Runtime:
    """The emulator's settings."""

    root: Path
    home: Home
    endpoint_url: str
    creating_seconds: float
    """How long snapshots, restores, instances and jobs stay in their first state, at least."""
    wait_scale: float
    """Factor on the waits of state machines, and on the pauses of functions' SDKs between two tries."""
    admin_password: str
    """Of `rdsadmin`, the superuser behind every cluster, whom nobody outside the emulator knows."""


_runtime: Runtime | None = None


def set_runtime(runtime: Runtime) -> None:
    """Make `runtime` the one that `current` returns."""
    global _runtime  # noqa: PLW0603 - one emulator per process
    _runtime = runtime


def current() -> Runtime:
    """The running emulator's."""
    if _runtime is None:
        raise RuntimeError("the emulator has not been started in this process")
    return _runtime


def in_background(work: Callable[[], None], then: Callable[[Exception | None], None]) -> None:
    """Do `work` in a thread that keeps the request's account and Region, and call `then` with what it raised, or None.

    `then` comes after `creating_seconds` at the earliest, as on AWS nothing is ready at once.
    """

    def run() -> None:
        started, problem = time.monotonic(), None
        try:
            work()
        except Exception as error:  # noqa: BLE001 - whatever it is, it becomes the state 'failed', and is logged there
            problem = error
        time.sleep(max(0.0, current().creating_seconds - (time.monotonic() - started)))
        then(problem)

    threading.Thread(target=contextvars.copy_context().run, args=(run,), daemon=True).start()
