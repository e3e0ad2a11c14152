"""Run pg_dump and pg_restore: by argument list, with a passfile, their errors collected, never left running."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
from collections import deque
from typing import IO, TYPE_CHECKING, Self

from aurora_backup.child import Child
from aurora_backup.errors import Redaction, SettingsError, redact
from aurora_backup.stopping import held

if TYPE_CHECKING:
    from collections.abc import Sequence

_KEPT_LINES = 60


class Program:
    """One client program. Leaving the `with` block kills it if it still runs."""

    def __init__(
        self,
        command: Sequence[str],
        env: dict[str, str] | None,
        *,
        stdin: int | IO[bytes] | None = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = subprocess.DEVNULL,
    ) -> None:
        self.name = command[0]
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        with held():
            try:
                self.process = subprocess.Popen(command, env=env, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE)
            except OSError as error:
                raise SettingsError(
                    f"{self.name} must be on PATH (the client layer puts it in /opt/bin): {error}"
                ) from None
            except ValueError as error:  # an embedded NUL
                raise SettingsError(f"{self.name}: {error}") from None
            self._child = Child(self.process)
            self._reader = threading.Thread(target=_read, args=(self.process.stderr, self._lines), daemon=True)
            self._reader.start()

    @property
    def messages(self) -> str:
        """What it said on standard error, redacted."""
        self._reader.join(timeout=5)
        return redact("".join(self._lines))

    def output(self) -> int:
        """Return the descriptor of its standard output, which must be a pipe."""
        if self.process.stdout is None:
            raise SettingsError(f"{self.name} was started without a pipe for its output")
        return self.process.stdout.fileno()

    def poll(self, seconds: float) -> int | None:
        """Return the exit status, or None when it still runs after so many seconds."""
        return self._child.poll(seconds)

    def wait(self) -> int:
        """Return the exit status once it has ended."""
        return self._child.wait()

    def kill(self) -> None:
        """Kill it if it still runs."""
        self._child.kill()

    def failure(self) -> str:
        """Say how a finished program failed: its status or signal, and its messages."""
        status = self.process.returncode
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"
        messages = self.messages
        return f"{self.name} {how}: {messages}" if messages else f"{self.name} {how} without a message"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.close()
        self._reader.join(timeout=5)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _read(stderr: IO[bytes] | None, lines: deque[str]) -> None:
    redaction = Redaction()  # before the oldest lines go: they say what the others are
    for line in stderr or ():
        if (kept := redaction.keep(line.decode(errors="replace"))) is not None:
            lines.append(kept)
