"""A child process in a program whose signals raise.

A signal's exception in the midst of `Popen.wait` or `Popen.poll` can leave their lock taken, and whoever waits next
then waits forever. So a thread, which no signal reaches, waits for the process, and a pipe tells everybody else.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subprocess import Popen


class Child:
    """One process, which is killed when this is dropped. Make both under `stopping.held`.

    Nothing else may call the process's own `wait`, `poll`, `kill`, or what calls them.
    """

    def __init__(self, process: Popen[Any]) -> None:
        self._process = process
        ended, ends = os.pipe()
        self._ended = open(ended, "rb", buffering=0)  # noqa: PTH123, SIM115  a descriptor; closed in `close`
        threading.Thread(target=_watch, args=(process, ends), daemon=True).start()

    def __del__(self) -> None:
        self.kill()

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

    def kill(self) -> None:
        """Kill it if it still runs."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Wait, and give the pipe back."""
        self.wait()
        self._ended.close()


def _watch(process: Popen[Any], ends: int) -> None:
    try:
        process.wait()
    finally:
        os.close(ends)
