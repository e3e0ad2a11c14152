"""A child process in a program whose signals raise.

A signal's exception in the midst of `Popen.wait` or `Popen.poll` can leave their lock taken, and whoever waits next
then waits forever; in the midst of `Popen()` it leaves a program that nobody knows of. So a thread, which no signal
reaches, starts the process and waits for it, and pipes tell everybody else.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import Popen


class _Run:
    """What the thread and the owner share; the thread keeps no owner alive."""

    def __init__(self) -> None:
        self.process: Popen[Any] | None = None
        self.error: BaseException | None = None
        self.unwanted = False

    def kill(self) -> None:
        """Kill it if it runs; if it is only being started, as soon as it does."""
        self.unwanted = True
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)

    def watch(self, start: Callable[[], Popen[Any]], started: int, ended: int) -> None:
        """Start it, say so, and wait for its end."""
        try:
            self.process = start()
        except BaseException as error:  # noqa: BLE001  raised again where it was asked for
            self.error = error
            return
        finally:
            os.close(started)
            if self.process is None:
                os.close(ended)
        if self.unwanted:
            self.kill()
        self.process.wait()
        os.close(ended)


class Child:
    """One process, made by `start`, which must only call Popen. Whoever drops it kills it. Raises what `start` raised.

    Nothing else may call the process's own `wait`, `poll`, `kill`, or what calls them.
    """

    def __init__(self, start: Callable[[], Popen[Any]]) -> None:
        self._run = _Run()
        begun, begins = os.pipe()
        ended, ends = os.pipe()
        self._ended = open(ended, "rb", buffering=0)  # noqa: PTH123, SIM115  a descriptor; closed in `close`
        threading.Thread(target=self._run.watch, args=(start, begins, ends), daemon=True).start()
        with open(begun, "rb", buffering=0) as beginning:  # noqa: PTH123
            beginning.read(1)  # nothing is ever written: it returns when the other end is closed
        if self._run.error is not None:
            self._ended.close()
            raise self._run.error

    def __del__(self) -> None:
        self._run.kill()

    @property
    def process(self) -> Popen[Any]:
        """Its pipes and its number."""
        if self._run.process is None:
            raise ChildProcessError("it was not started")
        return self._run.process

    def poll(self, seconds: float = 0) -> int | None:
        """The exit status, or None when it still runs after so many seconds."""
        if not self._ended.closed:
            ready = select.poll()
            ready.register(self._ended)
            if not ready.poll(seconds * 1000):
                return None
        return self.process.returncode

    def wait(self) -> int:
        """The exit status, once it has ended."""
        if not self._ended.closed:
            self._ended.read(1)
        return int(self.process.returncode)

    def kill(self) -> None:
        """Kill it if it still runs."""
        self._run.kill()

    def close(self) -> None:
        """Wait, and give the pipe back."""
        self.wait()
        self._ended.close()
