"""A forecast as one HTML page that needs nothing else: charts in inline SVG, no scripts, light and dark, printable."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aurora_backup.forecast import Day, Forecast

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 760, 260, 70, 30
_STEPS = 5
_CSS = """
:root{color-scheme:light dark;--text:#1b1f24;--muted:#5c6670;--line:#d0d7de;--back:#fff;--card:#f6f8fa;
--c0:#0b6e99;--c1:#d9822b;--c2:#5a8f3c;--c3:#8e5ea2;--c4:#c0392b;--c5:#7f8c8d}
@media(prefers-color-scheme:dark){:root{--text:#e6edf3;--muted:#9aa4ae;--line:#3d444d;--back:#0d1117;--card:#161b22;
--c0:#4cb4e0;--c1:#f0a860;--c2:#8cc96b;--c3:#c29bd4;--c4:#f0786a;--c5:#aab4b5}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--text);background:var(--back);max-width:52rem;margin:2rem auto;
padding:0 1rem}h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2rem}svg{width:100%;height:auto}
svg text{font:12px system-ui,sans-serif;fill:var(--muted)}.axis{stroke:var(--line)}
table{border-collapse:collapse;width:100%;font-size:.9rem}td,th{padding:.3rem .5rem;border-bottom:1px solid var(--line);
text-align:left}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}.wide{overflow-x:auto}
.key{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 1em}.note{color:var(--muted);font-size:.9rem}
.big{background:var(--card);padding:.8rem 1rem;border-radius:.4rem}
@media print{body{margin:0;max-width:none}h2{break-after:avoid}svg,table{break-inside:avoid}}
"""


def render(forecast: Forecast, alternative: Forecast | None = None) -> str:
    """The page. alternative: the cheaper design, drawn beside it. Every value is escaped."""
    prices = forecast.prices
    first, last = forecast.days[0], forecast.days[-1]
    parts = [
        f"<h1>Backup forecast, {_e(first.date)} to {_e(last.date)}</h1>",
        _headline(forecast, alternative),
        f"<h2>Cost of a month, {_e(prices.currency)}</h2>",
        _stacked(forecast),
        *(_beside(forecast, alternative) if alternative else ()),
        "<h2>Manual cluster snapshots against the quota</h2>",
        _quota(forecast, alternative),
        "<h2>What exists at the end of each year</h2>",
        _table(forecast),
        "<h2>What this rests on</h2>",
        _basis(forecast),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Backup forecast</title><style>{_CSS}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _e(value: Any) -> str:
    return escape(str(value), quote=True)


def _money(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"  # noqa: PLR2004  cents matter below a hundred


def _headline(forecast: Forecast, alternative: Forecast | None) -> str:
    currency, last = _e(forecast.prices.currency), forecast.days[-1]
    text = (
        f"<p class=big>Storage costs {currency} {_money(forecast.total_cost)} over {len(forecast.days):,} days, and "
        f"{currency} {_money(last.cost)} a month at the end. Snapshots reach {forecast.peak_snapshots} of "
        f"{forecast.document()['snapshot_quota']}."
    )
    if alternative:
        text += (
            " With the longest tier as dump sets in S3 Glacier Deep Archive: "
            f"{currency} {_money(alternative.total_cost)} and {currency} {_money(alternative.days[-1].cost)} a month, "
            f"{alternative.peak_snapshots} snapshots; a restore then begins with up to 48 hours of waiting for S3."
        )
    return text + "</p>"


def _samples(forecast: Forecast) -> list[Day]:
    """The first day of each month, and the last day of all."""
    return [day for day in forecast.days if day.date.endswith("-01")] + [forecast.days[-1]]


def _tiers(forecast: Forecast) -> list[tuple[str, str]]:
    return sorted({(held.tier, held.kind) for held in forecast.days[-1].tiers})


def _name(tier: tuple[str, str]) -> str:
    return f"{tier[0]} ({tier[1]})"


def _stacked(forecast: Forecast) -> str:
    samples, tiers = _samples(forecast), _tiers(forecast)
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


def _beside(forecast: Forecast, alternative: Forecast) -> list[str]:
    one = [day.cost for day in _samples(forecast)]
    two = [day.cost for day in _samples(alternative)]
    top = max(*one, *two) or 1.0
    lines = _path(one, top, 0) + _path(two, top, 1)
    keys = (
        '<p class=note><span class=key style="background:var(--c0)"></span>this policy'
        '<span class=key style="background:var(--c1)"></span>longest tier as dump sets in Deep Archive</p>'
    )
    chart = _chart(lines, _samples(forecast), top, "Cost of a month, both designs")
    return ["<h2>This policy and the cheaper design</h2>", chart, keys]


def _quota(forecast: Forecast, alternative: Forecast | None) -> str:
    quota = forecast.document()["snapshot_quota"]
    samples = _samples(forecast)
    top = float(max(quota, forecast.peak_snapshots) * 1.1)
    level = _y(quota, top)
    lines = f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{level}" y2="{level}" stroke="var(--c4)" stroke-dasharray="6 4"/>'
    lines += _path([float(day.snapshots) for day in samples], top, 0)
    if alternative:
        lines += _path([float(day.snapshots) for day in _samples(alternative)], top, 1)
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
    years = [(n, day.date[:4]) for n, day in enumerate(samples) if day.date[5:] == "01-01"]
    labels = "".join(
        f'<text x="{_x(n, len(samples))}" y="{_HEIGHT - 8}" text-anchor="middle">{_e(year)}</text>' for n, year in years
    )
    box = f"0 -10 {_WIDTH + 20} {_HEIGHT + 10}"
    return f'<svg viewBox="{box}" role="img" aria-label="{_e(title)}">{grid}{drawn}{labels}</svg>'


def _table(forecast: Forecast) -> str:
    ends = [day for day in forecast.days if day.date.endswith("-12-31")]
    rows = "".join(
        f"<tr><td>{_e(day.date)}<td>{_e(_name((held.tier, held.kind)))}<td class=n>{held.count}"
        f"<td>{_e(held.oldest or '-')}<td>{_e(held.newest or '-')}<td class=n>{held.gb:,.0f}"
        f"<td class=n>{_money(held.cost)}"
        for day in [*ends, *([] if ends and ends[-1] is forecast.days[-1] else [forecast.days[-1]])]
        for held in day.tiers
    )
    head = "<tr><th>at the end of<th>tier<th class=n>points<th>oldest<th>newest<th class=n>GB billed<th class=n>a month"
    return f"<div class=wide><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>"


def _basis(forecast: Forecast) -> str:
    prices, workload = forecast.prices, forecast.workload
    facts = {
        "Region": prices.region,
        "Prices as of": prices.as_of,
        "Prices": prices.note,
        "Aurora backup, GB and month": prices.backup,
        **{f"S3 {name}, GB and month": price for name, price in prices.storage.items()},
        "Cluster at the start, GB": f"{workload.size_gb:,}",
        "Growth a month": f"{workload.growth:.1%}",
        "Change a day": f"{workload.change:.1%}",
        "Dump set over cluster": f"{workload.dump_ratio:.0%}",
        "Snapshots on demand a month": workload.on_demand,
    }
    rows = "".join(f"<tr><td>{_e(name)}<td>{_e(value)}" for name, value in facts.items())
    notes = "".join(f"<li>{_e(text)}" for text in forecast.document()["assumptions"])
    return f"<div class=wide><table>{rows}</table></div><ul class=note>{notes}</ul>"
