"""Run a command and say what it cost; collect rows and write them as `build/bench/NAME.json`."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SCHEMA = 1
MB = 1_000_000
_CLIENTS = {"pg_dump", "pg_restore", "psql"}
_SAMPLE_SECONDS = 0.05


class CommandFailedError(Exception):
    """A measured command failed; the message ends with what it printed."""


@dataclass(frozen=True)
class Cost:
    """wall, cpu: seconds; cpu of all processes of the command. peak: bytes. output: bytes, None until known.

    peak is the resident set of the largest process at its largest, and PostgreSQL's own clients count only where
    there is nothing else: they are the same in every way.
    """

    wall: float
    cpu: float
    peak: int
    output: int | None = None
    stdout: str = ""


@dataclass(frozen=True)
class Row:
    """One line of the report; medians over `runs`. size_mb: of the database. MB are 10^6 bytes.

    limit: the name of the row, of the same workload and sink, that bounds this one; None where nothing does.
    output_mb: what was written to the sink, or read from it where the workload reads.
    """

    name: str
    workload: str
    sink: str
    size_mb: float
    wall_s: float
    cpu_s: float
    peak_mb: float
    output_mb: float | None
    runs: int
    limit: str | None


def run(command: Sequence[str], env: Mapping[str, str], log: Path) -> Cost:
    """Run to the end, output to `log`.

    Raises:
        CommandFailedError: the status was not 0.

    """
    with log.open("wb") as errors:
        begun = time.monotonic()
        process = subprocess.Popen(
            command, env=dict(env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
        )
        peaks = _Peaks(process.pid)
        peaks.start()
        stdout = process.stdout.read() if process.stdout else b""
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.stdout:
            process.stdout.close()
        peaks.end()
    if process.returncode:
        tail = log.read_text(errors="replace")[-2000:]
        raise CommandFailedError(f"{' '.join(command)} ended with status {process.returncode}: {tail}")
    text = stdout.decode(errors="replace")
    return Cost(wall, usage.ru_utime + usage.ru_stime, peaks.largest(), stdout=text)


class _Peaks(threading.Thread):
    """Samples VmHWM, itself a peak, of a process and its descendants. ru_maxrss would start at *our* size."""

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self._root = root
        self._peaks: dict[tuple[int, str], int] = {}
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            self._look(self._root)

    def _look(self, pid: int) -> None:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            fields = dict(line.split(":", 1) for line in status.splitlines())
            if "VmHWM" in fields:
                self._peaks[pid, fields["Name"].strip()] = int(fields["VmHWM"].split()[0]) * 1024
            for task in Path(f"/proc/{pid}/task").iterdir():
                for child in (task / "children").read_text().split():
                    self._look(int(child))
        except (OSError, ValueError):
            return  # it has ended meanwhile

    def end(self) -> None:
        self._ended.set()
        self.join()

    def largest(self) -> int:
        others = [size for (_, name), size in self._peaks.items() if name not in _CLIENTS]
        return max(others or self._peaks.values(), default=0)


def row(costs: Sequence[Cost], *, name: str, workload: str, sink: str, size: int, limit: str | None) -> Row:
    """Medians of several runs. size: bytes of the database."""
    outputs = [cost.output for cost in costs if cost.output is not None]
    return Row(
        name=name,
        workload=workload,
        sink=sink,
        size_mb=round(size / MB, 1),
        wall_s=round(statistics.median(cost.wall for cost in costs), 3),
        cpu_s=round(statistics.median(cost.cpu for cost in costs), 3),
        peak_mb=round(statistics.median(cost.peak for cost in costs) / MB, 1),
        output_mb=round(statistics.median(outputs) / MB, 1) if outputs else None,
        runs=len(costs),
        limit=limit,
    )


def with_output(cost: Cost, size: int | None) -> Cost:
    """The same cost, and how many bytes were written or read."""
    return replace(cost, output=size)


def machine() -> dict[str, Any]:
    """What this ran on, and how busy it was: other work slows every row, and not equally."""
    processors = [line for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = next((line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), "0")
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "cpu": processors[0].split(":", 1)[1].strip() if processors else platform.machine(),
        "memory_mb": round(int(memory) * 1024 / MB),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def write(path: Path, facts: Mapping[str, Any], rows: Iterable[Row]) -> None:
    """Write the report's document, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"schema": SCHEMA, "machine": dict(facts), "rows": [asdict(one) for one in rows]}
    part = path.with_suffix(".part")
    part.write_text(json.dumps(document, indent=1) + "\n")
    part.replace(path)
