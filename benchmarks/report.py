"""The table on screen, and what was asked of the dump engine against what was reached. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.measure import Row

FAST, DEFAULT, DOCUMENT = "ours-fast", "ours-default", "document"


@dataclass(frozen=True)
class Verdict:
    """One thing that was asked. ok: None when this run cannot say."""

    asked: str
    reached: str
    ok: bool | None


def ratio(row: Row, rows: Sequence[Row], name: str) -> float | None:
    """How many times as long this row took as the row `name` of the same workload and sink; None without one."""
    found = [r for r in rows if (r.name, r.workload, r.sink) == (name, row.workload, row.sink)]
    return row.wall_s / found[0].wall_s if found and found[0].wall_s else None


def table(rows: Sequence[Row]) -> str:
    """All rows, in Markdown."""
    lines = [
        "| workload | sink | row | MB | wall s | x limit | CPU s | peak MB | out MB | runs |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        times = ratio(row, rows, row.limit) if row.limit else None
        cells = (
            row.workload, row.sink, row.name, f"{row.size_mb:.0f}", f"{row.wall_s:.2f}",
            "" if times is None else f"{times:.2f}", f"{row.cpu_s:.2f}", f"{row.peak_mb:.0f}",
            "" if row.output_mb is None else f"{row.output_mb:.1f}", str(row.runs),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    widths = [max(len(found[i]) for line in lines if (found := _cells(line))) for i in range(10)]
    return "\n".join(_aligned(line, widths) for line in lines)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def _aligned(line: str, widths: Sequence[int]) -> str:
    cells = _cells(line)
    if cells[0].startswith("---"):
        return "|" + "|".join("-" * (w + 1) + (":" if i > 2 else "-") for i, w in enumerate(widths)) + "|"
    words = [c.rjust(w) if i > 2 else c.ljust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
    return f"| {' | '.join(words)} |"


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """What issue 3 asks, in its order. Raises KeyError when a row that it speaks of is missing."""
    by = {(r.name, r.sink): r for r in rows if r.workload == "dump"}
    fast, default, document = by[FAST, "null"], by[DEFAULT, "null"], by[DOCUMENT, "null"]
    fast_times, default_times = ratio(fast, rows, "limit"), ratio(default, rows, "limit")
    fast_shaped = by[FAST, "shaped"]
    uploads = [r for r in rows if r.workload == "dump" and r.sink == "shaped" and r.output_mb is not None]
    rival = min((r for r in uploads if r.name != FAST), key=lambda r: (r.wall_s, r.name))
    document_times = document.wall_s / fast.wall_s
    found = [
        _at_most("fast at most 1.35 x the limit (null)", fast_times, 1.35),
        Verdict(
            "fast is the fastest upload (shaped)",
            f"{fast_shaped.wall_s:.2f} s; the best of the others is {rival.name}, {rival.wall_s:.2f} s",
            fast_shaped.wall_s <= rival.wall_s,
        ),
        _at_most("default at most 2 x the limit (null)", default_times, 2.0),
        Verdict("fast at least 7 x faster than the document", f"{document_times:.1f} x", document_times >= 7),
    ]
    for row in (fast, default):
        reached = f"{row.output_mb} against {document.output_mb} MB"
        found.append(
            Verdict(
                f"{row.name}: no larger than the document's", reached, (row.output_mb or 0) <= (document.output_mb or 0)
            )
        )
    peaks = [r.peak_mb for r in rows if r.workload == "memory"]
    spread = max(peaks) / min(peaks) - 1 if len(peaks) > 1 else None
    told = f"{', '.join(f'{p:.0f}' for p in peaks)} MB" + ("" if spread is None else f": {spread:.1%}")
    found.append(Verdict("memory within 10 % over sizes", told, None if spread is None else spread <= 0.1))
    return found


def _at_most(asked: str, times: float | None, bound: float) -> Verdict:
    if times is None:
        return Verdict(asked, "no limit was measured", None)
    return Verdict(asked, f"{times:.2f} x", round(times, 2) <= bound)


def asked(rows: Sequence[Row]) -> str:
    """The verdicts and the two rates, one a line."""
    words = {True: "yes", False: "NO ", None: " ? "}
    lines = [f"{words[v.ok]}  {v.asked}: {v.reached}" for v in verdicts(rows)]
    for row in rows:
        if row.name == "verify" and row.output_mb:
            rate = f"{row.output_mb / row.wall_s:.0f} MB/s of archive, {row.size_mb / row.wall_s:.0f} MB/s of database"
            lines.append(f"     verify (checksum and full decode): {rate}")
        if row.name == "restore-table" and row.output_mb:
            whole = next((r.output_mb for r in rows if r.name == "verify"), None) or 0
            lines.append(f"     one table restored by reading {row.output_mb:.1f} of {whole:.1f} MB")
    return "\n".join(lines)
