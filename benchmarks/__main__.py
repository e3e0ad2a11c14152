"""`make bench`: the dump benchmark, then retention's. BENCH_QUICK=1 and BENCH_FULL=1 as in docs/benchmarks.md."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import dump, measure, report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.measure import Row

OUTPUT = Path("build/bench")


def main() -> int:
    """Run both; a missed target is told, and is not an error."""
    os.chdir(dump.ROOT)
    output = OUTPUT / "dump.json"
    output.unlink(missing_ok=True)
    before = measure.machine()

    def step(rows: Sequence[Row]) -> None:
        measure.write(output, {**before, "load_at_end": measure.machine()["load"]}, rows)

    rows = dump.benchmark(dump.Plan.from_environment(os.environ), dump.aws_command(), step=step)
    status = 0
    if find_spec("benchmarks.retention"):
        status = subprocess.run([sys.executable, "-m", "benchmarks.retention"], check=False).returncode
    print(f"\n{report.table(rows)}\n\n{report.asked(rows)}\n\n{output}", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
