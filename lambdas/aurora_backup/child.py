"""A child process that can be waited for in a program whose signals raise.

A signal's exception in the midst of `Popen.wait` or `Popen.poll` can leave their lock taken, and whoever waits next
then waits forever. So one thread, which no signal reaches, waits for the process, and a pipe tells everybody else.
"""

from __future__ import annotations

import os
import select
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subprocess import Popen


class Child:
    """Waits for one process; nothing else may call its `wait` or `poll`."""

    def __init__(self, process: Popen[Any]) -> None:
        self._process = process
        ended, ends = os.pipe()
        self._ended = open(ended, "rb", buffering=0)  # noqa: PTH123, SIM115  a descriptor; closed in `close`
        threading.Thread(target=self._watch, args=(ends,), daemon=True).start()

    def _watch(self, ends: int) -> None:
        try:
            self._process.wait()
        finally:
            os.close(ends)

    def poll(self, seconds: float = 0) -> int | None:
        """The exit status, or None when it still runs after so many seconds."""
        if not self._ended.closed:
            ready = select.poll()
            ready.register(self._ended)
            if not ready.poll(seconds * 1000):
                return None
        return self._process.returncode

    def wait(self) -> int:
        """The exit status, once it has ended."""
        if not self._ended.closed:
            self._ended.read(1)  # nothing is ever written: it returns when the other end is closed
        return int(self._process.returncode)

    def close(self) -> None:
        """Wait, and give the pipe back."""
        self.wait()
        self._ended.close()
