"""A forecast as HTML that needs nothing else: charts in inline SVG, no scripts, light and dark, printable. Pure.

`render` is a page of its own. `section` is a part of the compliance report: a small JSON document, and the HTML that
`section_html` makes from that document alone, so that the two cannot disagree.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from aurora_backup.errors import SettingsError
from aurora_backup.forecast import Day, Held, Prices, Workload, cheaper, list_prices, longest_days, simulate
from aurora_backup.markup import safe
from aurora_backup.policy import MANUAL_SNAPSHOT_QUOTA

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date

    from aurora_backup.forecast import Forecast
    from aurora_backup.policy import RetentionPolicy

SECTION_SCHEMA = 1
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 760, 260, 70, 30
_STEPS = 5
_QUARTERS = ("-03-31", "-06-30", "-09-30", "-12-31")
_LIGHT = """--text:#1b1f24;--muted:#5c6670;--line:#d0d7de;--back:#fff;--card:#f6f8fa;
--c0:#0b6e99;--c1:#d9822b;--c2:#5a8f3c;--c3:#8e5ea2;--c4:#c0392b;--c5:#7f8c8d"""
_DARK = """--text:#e6edf3;--muted:#9aa4ae;--line:#3d444d;--back:#0d1117;--card:#161b22;
--c0:#4cb4e0;--c1:#f0a860;--c2:#8cc96b;--c3:#c29bd4;--c4:#f0786a;--c5:#aab4b5"""
_PAGE_CSS = f"""
:root{{color-scheme:light dark;{_LIGHT}}}
@media(prefers-color-scheme:dark){{:root{{{_DARK}}}}}
body{{font:16px/1.5 system-ui,sans-serif;color:var(--text);background:var(--back);max-width:52rem;margin:2rem auto;
padding:0 1rem}}h1{{font-size:1.6rem}}h2{{font-size:1.2rem;margin-top:2rem}}
@media print{{body{{margin:0;max-width:none}}h2{{break-after:avoid}}svg,table{{break-inside:avoid}}}}
"""
_CSS = """
.forecast svg{width:100%;height:auto}.forecast svg text{font:12px system-ui,sans-serif;fill:var(--muted)}
.forecast .axis{stroke:var(--line)}
.forecast table{border-collapse:collapse;width:100%;font-size:.9rem}
.forecast td,.forecast th{padding:.3rem .5rem;border-bottom:1px solid var(--line);text-align:left}
.forecast td.n,.forecast th.n{text-align:right;font-variant-numeric:tabular-nums}.forecast .wide{overflow-x:auto}
.forecast .key{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 1em;print-color-adjust:exact}
.forecast .note{color:var(--muted);font-size:.9rem}
.forecast .big{background:var(--card);padding:.8rem 1rem;border-radius:.4rem}
"""
_SECTION_CSS = f"""
.forecast{{{_LIGHT}}}@media(prefers-color-scheme:dark){{.forecast{{{_DARK}}}}}
@media print{{.forecast{{{_LIGHT}}}.forecast svg,.forecast table{{break-inside:avoid}}}}
"""


def render(forecast: Forecast, alternative: Forecast | None = None) -> str:
    """The page. alternative: the cheaper design, drawn beside it. Every value is escaped."""
    first, last = forecast.days[0], forecast.days[-1]
    title = f"<h1>Backup forecast, {_e(first.date)} to {_e(last.date)}</h1>"
    samples = [day for day in forecast.days if day.date.endswith("-01")] + [last]
    dates = {day.date for day in samples}
    beside = [day for day in alternative.days if day.date in dates] if alternative else None
    ends = [day for day in forecast.days if day.date.endswith("-12-31")]
    cheap = alternative.document(days=()) if alternative else None
    parts = _parts(forecast.document(days=()), cheap, samples, beside, ends, heading="h2")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Backup forecast</title><style>{_PAGE_CSS}{_CSS}</style></head>"
        f'<body class="forecast">{title}{"".join(parts)}</body></html>\n'
    )


# --- A section of the compliance report ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Section:
    """document: JSON, schema 1, a day for each quarter. html: a `<section>` with a style of its own, all escaped."""

    document: dict[str, Any]
    html: str


def section(
    policy: RetentionPolicy,
    *,
    region: str,
    size_gb: float | None,
    start: date,
    growth: float = 0.0,
    dump_ratio: float = Workload.dump_ratio,
    table: Any = None,
    quota: int = MANUAL_SNAPSHOT_QUOTA,
) -> Section:
    """What the policy will keep and cost from `start` on, for a year more than its longest retention.

    size_gb: of the cluster; None when nobody knows. table: prices; Default: the package's. quota: of manual cluster
    snapshots in the Region. What makes a forecast
    impossible (no size, a Region without prices) is the `reason` of a document that is not `available`: never raised.
    """
    document = _document(policy, region, size_gb, start, growth, dump_ratio, table, quota)
    return Section(document, section_html(document))


def _document(
    policy: RetentionPolicy,
    region: str,
    size_gb: float | None,
    start: date,
    growth: float,
    dump_ratio: float,
    table: Any,
    quota: int,
) -> dict[str, Any]:
    about: dict[str, Any] = {"schema": SECTION_SCHEMA, "available": False, "reason": None}
    if size_gb is None:
        return {**about, "reason": "the size of the cluster is not known"}
    try:
        prices = Prices.from_table(list_prices() if table is None else table, region)
        workload = Workload(size_gb=size_gb, growth=growth, dump_ratio=dump_ratio)
    except SettingsError as error:
        return {**about, "reason": str(error)}
    days = longest_days(policy)
    done = simulate(policy, workload, prices, start=start, days=days, quota=quota)
    design = cheaper(policy)
    beside = simulate(design, workload, prices, start=start, days=days, quota=quota) if design else None
    return {
        **about,
        "available": True,
        "from": done.days[0].date,
        "to": done.days[-1].date,
        **_summary(done),
        "cheaper": _summary(beside) if beside else None,
        **{k: v for k, v in done.document(days=()).items() if k in _BASIS},
    }


_BASIS = ("region", "prices", "workload", "snapshot_quota", "assumptions")


def _summary(forecast: Forecast) -> dict[str, Any]:
    last = forecast.days[-1]
    days = [day for day in forecast.days if day.date.endswith(_QUARTERS)] or [last]
    return {
        **{k: v for k, v in forecast.document(days=()).items() if k in _SUMMARY},
        "days": [asdict(day) for day in (days if days[-1] is last else [*days, last])],
    }


_SUMMARY = ("total_cost", "final_month_cost", "peak_snapshots")


def section_html(document: Mapping[str, Any]) -> str:
    """The section that a `Section.document` describes."""
    opened = f'<section class="forecast" id="forecast"><style>{_SECTION_CSS}{_CSS}</style><h2>Forecast</h2>'
    if not document["available"]:
        return f"{opened}<p class=note>There is no forecast: {_e(document['reason'])}.</p></section>"
    samples, beside = _days(document), _days(document["cheaper"]) if document["cheaper"] else None
    ends = [day for day in samples if day.date.endswith("-12-31")]
    lead = f"<p>What the policy keeps and costs from {_e(document['from'])} to {_e(document['to'])}, simulated.</p>"
    parts = _parts(document, document["cheaper"], samples, beside, ends, heading="h3")
    return f"{opened}{lead}{''.join(parts)}</section>"


def _days(document: Mapping[str, Any]) -> list[Day]:
    return [Day(**{**day, "tiers": tuple(Held(**held) for held in day["tiers"])}) for day in document["days"]]


# --- Parts of both ---------------------------------------------------------------------------------------------------


def _parts(
    document: Mapping[str, Any],
    cheap: Mapping[str, Any] | None,
    samples: Sequence[Day],
    beside: Sequence[Day] | None,
    ends: Sequence[Day],
    *,
    heading: str,
) -> list[str]:
    def title(text: str) -> str:
        return f"<{heading}>{text}</{heading}>"

    return [
        _headline(document, cheap),
        title(f"Cost of a month, {_e(document['prices']['currency'])}"),
        _stacked(samples),
        *([title("This policy and the cheaper design"), _beside(samples, beside)] if beside else ()),
        title("Manual cluster snapshots against the quota"),
        _quota(document, samples, beside),
        title("What exists at the end of each year"),
        _table([*ends, *([] if ends and ends[-1] == samples[-1] else samples[-1:])]),
        title("What this rests on"),
        _basis(document),
    ]


def _e(value: Any) -> str:
    return str(safe(str(value)))


def _money(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"  # noqa: PLR2004  cents matter below a hundred


def _headline(document: Mapping[str, Any], cheap: Mapping[str, Any] | None) -> str:
    currency = _e(document["prices"]["currency"])
    text = (
        f"<p class=big>Storage costs {currency} {_money(document['total_cost'])} in all, and {currency} "
        f"{_money(document['final_month_cost'])} a month at the end. Snapshots reach {_e(document['peak_snapshots'])} "
        f"of {_e(document['snapshot_quota'])}."
    )
    if cheap:
        text += (
            " With the longest tier as dump sets in S3 Glacier Deep Archive: "
            f"{currency} {_money(cheap['total_cost'])} and {currency} {_money(cheap['final_month_cost'])} a month, "
            f"{_e(cheap['peak_snapshots'])} snapshots; a restore then begins with up to 48 hours of waiting for S3."
        )
    return text + "</p>"


def _name(tier: tuple[str, str]) -> str:
    return f"{tier[0]} ({tier[1]})"


def _stacked(samples: Sequence[Day]) -> str:
    tiers = sorted({(held.tier, held.kind) for held in samples[-1].tiers})
    layers: list[list[float]] = []
    below = [0.0] * len(samples)
    for tier in tiers:
        costs = [sum(h.cost for h in day.tiers if (h.tier, h.kind) == tier) for day in samples]
        below = [b + c for b, c in zip(below, costs, strict=True)]
        layers.append(below)
    top = max(below) or 1.0
    areas = []
    under = [0.0] * len(samples)
    for number, layer in enumerate(layers):
        there, back = _line(layer, top), _line(under, top)[::-1]
        areas.append(f'<polygon points="{" ".join(there + back)}" fill="var(--c{number % 6})"/>')
        under = layer
    keys = "".join(
        f'<span class=key style="background:var(--c{n % 6})"></span>{_e(_name(tier))}' for n, tier in enumerate(tiers)
    )
    return _chart("".join(areas), samples, top, "Cost of a month by tier") + f"<p class=note>{keys}</p>"


def _beside(samples: Sequence[Day], beside: Sequence[Day]) -> str:
    one, two = [day.cost for day in samples], [day.cost for day in beside]
    top = max(*one, *two) or 1.0
    lines = _path(one, top, 0) + _path(two, top, 1)
    keys = (
        '<p class=note><span class=key style="background:var(--c0)"></span>this policy'
        '<span class=key style="background:var(--c1)"></span>longest tier as dump sets in Deep Archive</p>'
    )
    return _chart(lines, samples, top, "Cost of a month, both designs") + keys


def _quota(document: Mapping[str, Any], samples: Sequence[Day], beside: Sequence[Day] | None) -> str:
    quota = int(document["snapshot_quota"])
    top = max(quota, *(day.snapshots for day in samples)) * 1.1
    level = _y(quota, top)
    lines = f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{level}" y2="{level}" stroke="var(--c4)" stroke-dasharray="6 4"/>'
    lines += _path([float(day.snapshots) for day in samples], top, 0)
    if beside:
        lines += _path([float(day.snapshots) for day in beside], top, 1)
    key = f"<p class=note>Dashed: the quota of {quota} in a Region, which can be raised.</p>"
    return _chart(lines, samples, top, "Snapshots against the quota") + key


def _x(number: int, count: int) -> float:
    return round(_LEFT + (_WIDTH - _LEFT) * number / max(1, count - 1), 1)


def _y(value: float, top: float) -> float:
    return round((_HEIGHT - _BOTTOM) * (1 - value / top), 1)


def _line(values: Sequence[float], top: float) -> list[str]:
    return [f"{_x(n, len(values))},{_y(value, top)}" for n, value in enumerate(values)]


def _path(values: Sequence[float], top: float, color: int) -> str:
    return f'<polyline points="{" ".join(_line(values, top))}" fill="none" stroke="var(--c{color})" stroke-width="2"/>'


def _chart(drawn: str, samples: Sequence[Day], top: float, title: str) -> str:
    grid = "".join(
        f'<line class=axis x1="{_LEFT}" x2="{_WIDTH}" y1="{_y(value, top)}" y2="{_y(value, top)}"/>'
        f'<text x="{_LEFT - 8}" y="{_y(value, top) + 4}" text-anchor="end">{_money(value)}</text>'
        for value in (top * n / _STEPS for n in range(_STEPS + 1))
    )
    years = {day.date[:4]: n for n, day in reversed(list(enumerate(samples))) if n}
    labels = "".join(
        f'<text x="{_x(n, len(samples))}" y="{_HEIGHT - 8}" text-anchor="middle">{_e(year)}</text>'
        for year, n in years.items()
    )
    box = f"0 -10 {_WIDTH + 20} {_HEIGHT + 10}"
    return f'<svg viewBox="{box}" role="img" aria-label="{_e(title)}">{grid}{drawn}{labels}</svg>'


def _table(days: Sequence[Day]) -> str:
    rows = "".join(
        f"<tr><td>{_e(day.date)}<td>{_e(_name((held.tier, held.kind)))}<td class=n>{_e(held.count)}"
        f"<td>{_e(held.oldest or '-')}<td>{_e(held.newest or '-')}<td class=n>{held.gb:,.0f}"
        f"<td class=n>{_money(held.cost)}"
        for day in days
        for held in day.tiers
    )
    head = "<tr><th>at the end of<th>tier<th class=n>points<th>oldest<th>newest<th class=n>GB billed<th class=n>a month"
    return f"<div class=wide><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>"


def _basis(document: Mapping[str, Any]) -> str:
    prices, workload = document["prices"], document["workload"]
    facts = {
        "Region": prices["region"],
        "Prices as of": prices["as_of"],
        "Prices": prices["note"],
        "Sources of prices": "; ".join(prices["sources"]),
        "Aurora backup, GB and month": prices["backup"],
        **{f"S3 {name}, GB and month": price for name, price in prices["storage"].items()},
        "Cluster at the start, GB": f"{workload['size_gb']:,.0f}",
        "Growth a month": f"{workload['growth']:.1%}",
        "Change a day": f"{workload['change']:.1%}",
        "Dump set over cluster": f"{workload['dump_ratio']:.0%}",
        "Snapshots on demand a month": workload["on_demand"],
    }
    rows = "".join(f"<tr><td>{_e(name)}<td>{_e(value)}" for name, value in facts.items())
    notes = "".join(f"<li>{_e(text)}" for text in document["assumptions"])
    return f"<div class=wide><table>{rows}</table></div><ul class=note>{notes}</ul>"
