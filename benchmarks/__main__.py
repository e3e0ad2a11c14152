"""`make bench`: the dump benchmark, then retention's. BENCH_QUICK=1 and BENCH_FULL=1 as in docs/benchmarks.md.

`python -m benchmarks retention` runs one of them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import dump, measure, report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.measure import Row

OUTPUT = Path("build/bench")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both, or those that are named; a missed target of the dump is told, and is not an error."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="Default: both")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="Default: %(default)s, in the repository")
    parser.add_argument("--points", help="sizes of the retention benchmark; Default: 1000,10000,100000")
    options = parser.parse_args(arguments)
    if strange := sorted({*options.names} - {"dump", "retention"}):
        parser.error(f"NAME must be dump or retention, got {strange[0]!r}")
    names, output = options.names or ["dump", "retention"], options.output.absolute()
    if options.output == OUTPUT:
        output = dump.ROOT / OUTPUT
    os.chdir(dump.ROOT)
    rows = _dump(output / "dump.json") if "dump" in names else []
    status = 0
    if "retention" in names:
        more = ["--points", options.points] if options.points else []
        command = [sys.executable, "-m", "benchmarks.retention", "--output", str(output / "retention.json"), *more]
        status = subprocess.run(command, check=False).returncode
    if rows:
        print(f"\n{report.table(rows)}\n\n{report.asked(rows)}\n\n{output / 'dump.json'}", flush=True)
    return status


def _dump(output: Path) -> Sequence[Row]:
    output.unlink(missing_ok=True)
    before = measure.machine()

    def step(rows: Sequence[Row]) -> None:
        measure.write(output, {**before, "load_at_end": measure.machine()["load"]}, rows)

    return dump.benchmark(dump.Plan.from_environment(os.environ), dump.aws_command(), step=step)


if __name__ == "__main__":
    sys.exit(main())
