"""Child processes that cannot outlive us, whatever ends us (return, Ctrl-C, SIGTERM or SIGKILL)."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aurora_backup.child import Child
from aurora_backup.stopping import held

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

# The child's life hangs on a pipe that only we hold open. When it closes, for whatever reason, the watcher asks the
# child to end, waits, and kills the whole group (grandchildren too); when the child ends first, the watcher goes. A
# plain shell, because PR_SET_PDEATHSIG is Linux only and follows the *thread* that made the child.
_GUARD = """
signal=$1; patience=$2; shift 2
exec 3<&0
"$@" </dev/null 3<&- &
child=$!
(
  PATH=/usr/local/bin:/usr/bin:/bin
  read -r _ <&3
  kill -s USR1 $$; kill -s "$signal" $child
  tries=0
  while kill -0 $child && [ $tries -lt $((patience * 20)) ]; do sleep 0.05; tries=$((tries + 1)); done
  kill -s KILL 0
) >/dev/null 2>&1 &
watcher=$!
trap 'wait $watcher' USR1
exec 3<&-
wait $child; status=$?
kill -s KILL $watcher 2>/dev/null
exit $status
"""
PATIENCE_SECONDS = 20


class ProcessDiedError(Exception):
    """A server ended when it should have come up, or never became ready."""


@dataclass(frozen=True)
class Account:
    """The operating system user that PostgreSQL runs as."""

    uid: int
    gid: int
    name: str

    @property
    def switch(self) -> dict[str, object]:
        """Arguments of `subprocess` that run a command as this user: none when that is who we are."""
        if os.geteuid() == self.uid:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path, mode: int = 0o700) -> Path:
        """Create the directory `path` if need be and give it to this user."""
        path.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            os.chown(path, self.uid, self.gid)
        path.chmod(mode)
        return path


def unprivileged() -> Account:
    """Ourselves, or `nobody` when we are root: PostgreSQL refuses to run as root."""
    entry = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    return Account(entry.pw_uid, entry.pw_gid, entry.pw_name)


def free_port() -> int:
    """A loopback TCP port that nobody listens on now.

    Chosen below the range that the system gives to outgoing connections, so that it is likely to stay free until it is
    used; SeaweedFS also needs the port 10,000 above its own.
    """
    while True:
        port = 12_000 + secrets.randbelow(12_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


class Guarded:
    """A running command that ends when this process does."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        account: Account | None = None,
        end_with: str = "TERM",
    ) -> None:
        """Start `command`, appending its output to `log`; `end_with` is the signal that asks it to finish."""
        self.log = log
        self._name = os.path.basename(str(command[0]))  # noqa: PTH119 - `command` mixes str and Path
        with held(), log.open("ab") as output:
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD, "guard", end_with, str(PATIENCE_SECONDS), *map(str, command)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(os.environ if env is None else env),
                cwd=cwd or "/",
                start_new_session=True,
                **(account.switch if account else {}),  # type: ignore[call-overload]
            )
            self._child = Child(self._guard)

    @property
    def alive(self) -> bool:
        """Whether the command is still running."""
        return self._child.poll() is None

    def wait_until(self, ready: Callable[[], bool], seconds: float = 60) -> None:
        """Poll `ready` until it is true; raise `ProcessDiedError` with the log's end if it cannot be."""
        deadline = time.monotonic() + seconds
        while not ready():
            if not self.alive or time.monotonic() > deadline:
                state = "was not ready in time" if self.alive else f"ended with status {self._guard.returncode}"
                self.stop()
                raise ProcessDiedError(f"{self._name} {state}:\n{self.tail()}")
            time.sleep(0.02)

    def tail(self, characters: int = 3000) -> str:
        """The end of the log."""
        return self.log.read_text(errors="replace")[-characters:]

    def stop(self) -> None:
        """Ask the command to finish, wait for it, and kill what is left of its process group."""
        if self._guard.stdin and not self._guard.stdin.closed:
            self._guard.stdin.close()
        ended = None
        try:
            ended = self._child.poll(PATIENCE_SECONDS + 5)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._guard.pid, signal.SIGKILL)
            self._child.close()
        if ended is None:
            raise ProcessDiedError(f"{self._name} did not end in {PATIENCE_SECONDS + 5} s, and was killed")
