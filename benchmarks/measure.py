"""Run a command and say what it cost; collect rows and write them as `build/bench/NAME.json`."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SCHEMA = 1
MB = 1_000_000
_CHILD = Path(__file__).with_name("child.py")


class CommandFailedError(Exception):
    """A measured command failed; the message ends with what it printed."""


@dataclass(frozen=True)
class Cost:
    """wall, cpu: seconds; cpu of all processes of the command. peak: bytes. output: bytes, None until known.

    peak is the resident set of the largest process at its largest, by the kernel's account (benchmarks/child.py).
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
    reading, writing = os.pipe()
    try:
        with log.open("wb") as errors:
            done = subprocess.run(
                [sys.executable, "-I", "-S", str(_CHILD), str(writing), *command],
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                pass_fds=(writing,),
                check=False,
            )
        os.close(writing)
        writing = -1
        with open(reading, closefd=False) as pipe:
            account = json.loads(pipe.read() or "{}")
    finally:
        for descriptor in (reading, writing):
            if descriptor >= 0:
                os.close(descriptor)
    status = account.get("status", done.returncode)
    if status != 0:
        tail = log.read_text(errors="replace")[-2000:]
        raise CommandFailedError(f"{' '.join(command)} ended with status {status}: {tail}")
    return Cost(account["wall"], account["cpu"], account["peak"], stdout=done.stdout.decode(errors="replace"))


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
