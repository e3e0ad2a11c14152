"""Signals that ask a program to end: raised where it can be borne, and held back where it cannot.

What a signal raises comes between any two steps of the main thread. In the midst of starting a thread or a process that
leaves locks taken that somebody waits for later, or a program that nobody knows of. There they wait: see `held`.
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


class Stopped(KeyboardInterrupt):
    """A signal asked us to end. Not an Exception: no handler of failures may take it for one."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.signal = signal.Signals(number)


class _State:
    holders = 0
    waiting: int | None = None


def stop(number: int, _frame: FrameType | None) -> None:
    """Raise Stopped, now or at the end of `held`: a handler for `signal.signal`."""
    # In no variable: its traceback would hold the frame that holds it, and what is to be dropped would stay.
    if not _State.holders:
        raise Stopped(number)
    _State.waiting = number


@contextmanager
def held() -> Iterator[None]:
    """Hold back what `stop` raises to the end of this block, which must be short; other threads never get it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _State.holders += 1
    try:
        yield
    finally:
        _State.holders -= 1
        number = _State.waiting
        if number is not None and not _State.holders:
            _State.waiting = None
            raise Stopped(number)


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise Stopped in the main thread on the signals that ask a program to end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.signal(one, stop) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
