"""Client programs: what a signal that raises must never do is leave us waiting for a program that is gone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from aurora_backup.errors import SettingsError
from aurora_backup.programs import Program

_INTERRUPTED = """
import os, signal, time
from aurora_backup.programs import Program
from aurora_backup.stopping import Stopped, stop

signal.signal(signal.SIGALRM, stop)
for n in range(400):
    try:
        # Again half a second later: what a signal raises in a destructor, Python only prints.
        signal.setitimer(signal.ITIMER_REAL, 0.0002 + n % 100 / 50_000, 0.5)
        with Program(["sleep", "60"], None) as program:
            while program.poll(1) is None:
                pass
    except Stopped:
        signal.setitimer(signal.ITIMER_REAL, 0)
        continue
    raise SystemExit("it was not interrupted")
for _ in range(100):
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        raise SystemExit(0)
    time.sleep(0.05)
raise SystemExit("a program was left running")
"""


def test_a_signal_at_any_moment_ends_the_program_and_the_waiting():
    with subprocess.Popen([sys.executable, "-c", _INTERRUPTED], stderr=subprocess.PIPE, text=True) as process:
        try:
            said = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode == 0, said


def test_its_status_is_told_again_and_again_and_also_after_the_block():
    with Program(["sh", "-c", "echo no >&2; exit 3"], None) as program:
        assert (program.wait(), program.wait(), program.poll(0)) == (3, 3, 3)
    assert (program.wait(), program.poll(0), program.failure()) == (3, 3, "sh exited with status 3: no")


def test_one_that_runs_on_is_killed():
    with Program(["sleep", "60"], None) as program:
        assert program.poll(0.01) is None
    assert program.failure() == "sleep was killed by SIGKILL without a message"


def test_a_program_that_is_not_there_is_named():
    with pytest.raises(SettingsError, match="no-such-program must be on PATH"):
        Program(["no-such-program"], None)
