"""The compliance report as one page that a person can read: no script, nothing loaded, every value escaped. Pure.

It renders the report's document and nothing else, so that page and document cannot disagree.
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from aurora_backup.forecast_page import section_html
from aurora_backup.markup import Html, join, name, page, tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aurora_backup.markup import Content

_DAY = 86_400
_WIDTH = 1000  # of a timeline, in units of its own; a year is 2.7 units a day
_HEIGHT = 40
_MEANING = {
    "PASS": "All five verifications passed. Each verdict below says what it rests on, by which call, and when.",
    "FAIL": "Something is wrong. What to do about each finding stands below, worst first.",
    "INCOMPLETE": "Nothing was found to be wrong, and not everything could be shown. That is not a pass.",
}
_STREAMS = {
    "weekly": "Weekly snapshot",
    "monthly": "Monthly snapshot",
    "logical": "Weekly dump set",
    "daily-sets": "Daily dump set",
    "monthly-sets": "Monthly dump set",
    "point-in-time": "Point in time",
}


def render(document: Mapping[str, Any]) -> str:
    """The page of a report's document (schema 1)."""
    cluster = document["cluster"]["identifier"]
    style = (files("aurora_backup") / "data" / "compliance-report.css").read_text("utf-8")
    body = tag(
        "main",
        _heading(document),
        tag("h2", "What was verified"),
        tag("div", *(_verification(v) for v in document["verifications"]), class_="grid"),
        *_findings(document["findings"]),
        *_objectives(document),
        *_timeline(document["timeline"]),
        *_recovery_tests(document["recovery_tests"]),
        *_controls(document),
        *_checks(document),
        *_holds(document["legal_holds"]),
        *_deleters(document["who_can_delete"]),
        *_costs(document["costs"]),
        Html(section_html(document["forecast"])),  # escapes by itself
        _footer(document),
    )
    return page(f"{document['compliance_status']}: backups of {cluster}, {document['generated_at'][:10]}", style, body)


def _heading(document: Mapping[str, Any]) -> Html:
    status = document["compliance_status"]
    return join(
        [
            tag("h1", "Backup compliance of ", name(document["cluster"]["identifier"])),
            tag(
                "div",
                tag("strong", status),
                tag("p", _MEANING.get(status)),
                tag("p", tag("small", "As of ", _time(document["generated_at"]), ". All times are UTC.")),
                class_=f"verdict {status}",
            ),
        ]
    )


def _chip(verdict: str) -> Html:
    return tag("span", verdict, class_=f"chip {verdict}")


def _level(level: str) -> Html:
    return tag("span", level, class_="chip level")


def _verification(row: Mapping[str, Any]) -> Html:
    words = {"pass": "passed", "fail": "failed", "unknown": "unknown"}
    counts = ", ".join(f"{row[key]} {word}" for key, word in words.items() if row[key])
    title = row["name"].capitalize()
    return tag("div", tag("h3", title), _chip(row["verdict"]), _line_of(counts or "nothing ran"), class_="card")


def _line_of(*content: Content) -> Html:
    return tag("small", *content, class_="line")


def _findings(findings: Sequence[Mapping[str, Any]]) -> Iterable[Html]:
    if not findings:
        return
    yield tag("h2", "What to do")
    for row in findings:
        yield tag(
            "section",
            _chip(row["verdict"]),
            " ",
            tag("code", row["check"]),
            tag("h3", f"Expected: {row['title']}"),
            tag("p", name(row["reason"])),
            tag("p", tag("b", "Remedy. "), _prose(row["remedy"]), class_="remedy"),
            class_=f"finding {row['verdict']}",
        )


def _prose(text: str) -> Html:
    """A text in which what stands between backticks is code."""
    return join(tag("code", part) if n % 2 else part for n, part in enumerate(text.split("`")))


def _objectives(document: Mapping[str, Any]) -> Iterable[Html]:
    yield tag("h2", "How much would be lost, and how long it would take")
    yield tag("p", "How old the newest recovery point is now, and how long the last recovery test took.", class_="soft")
    cards = [
        tag(
            "div",
            tag("h3", _STREAMS.get(row["stream"], row["stream"])),
            tag("b", _span(row["rpo_seconds"])),
            _line_of("newest ", _time(row["newest"])) if row["newest"] else None,
            _line_of("next ", _time(row["next"])) if row["next"] else None,
            class_="card",
        )
        for row in document["objectives"]
    ]
    tested = next((t for t in document["recovery_tests"] if t["rto_seconds"] is not None), None)
    when = join(["test of ", _time(tested["finished"])]) if tested else "no test measured it"
    took = _span(tested["rto_seconds"] if tested else None)
    cards.append(tag("div", tag("h3", "Recovery time"), tag("b", took), _line_of(when), class_="card"))
    yield tag("div", *cards, class_="grid")


def _timeline(timeline: Mapping[str, Any]) -> Iterable[Html]:
    begin, end = (datetime.fromisoformat(timeline[key]) for key in ("from", "to"))
    yield tag("h2", "A year of recovery points")
    yield tag(
        "p",
        tag("i"),
        "a recovery point that is there",
        tag("i", class_="m"),
        "a run that left none",
        tag("i", class_="w"),
        "any second can be restored",
        class_="legend",
    )
    months = _months(begin, end)
    labels = [tag("span", f"{m:%Y-%m}", style=f"left:{_x(m, begin, end) / 10:.2f}%") for m in months[::2]]
    lanes = [_lane(row, begin, end, months) for row in timeline["lanes"]]
    lanes.append(_window(timeline["point_in_time"], begin, end, months))
    yield tag("div", tag("div", tag("span"), tag("div", *labels, class_="months"), class_="lane"), *lanes)


def _lane(row: Mapping[str, Any], begin: datetime, end: datetime, months: Sequence[datetime]) -> Html:
    marks = [_mark(text, begin, end, "point") for text in row["points"]]
    marks += [_mark(text, begin, end, "missed") for text in row["missed"]]
    said = [f"{len(row['points'])} in the year" if row["known"] else "could not be read"]
    said += [f"{row['older']} older"] if row["older"] else []
    said += [f"{len(row['missed'])} missed"] if row["missed"] else []
    return _strip(_STREAMS.get(row["stream"], row["stream"]), ", ".join(said), months, begin, end, marks)


def _window(window: Sequence[str] | None, begin: datetime, end: datetime, months: Sequence[datetime]) -> Html:
    if window is None:
        return _strip("Point in time", "could not be read", months, begin, end, [])
    first, last = (_x(datetime.fromisoformat(text), begin, end) for text in window)
    band = tag("rect", x=f"{first:.1f}", y=0, width=f"{max(last - first, 2):.1f}", height=_HEIGHT, class_="window")
    return _strip("Point in time", f"from {window[0][:10]} on", months, begin, end, [band])


def _strip(
    title: str, said: str, months: Sequence[datetime], begin: datetime, end: datetime, marks: Sequence[Html]
) -> Html:
    grid = [_line(_x(m, begin, end), "month") for m in months]
    svg = tag(
        "svg",
        tag("title", f"{title}: {said}"),
        *grid,
        *marks,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        preserveAspectRatio="none",
        role="img",
    )
    return tag("div", tag("div", tag("b", title), tag("small", said)), svg, class_="lane")


def _mark(text: str, begin: datetime, end: datetime, kind: str) -> Html:
    told = tag("title", f"missed {_stamp(text)}" if kind == "missed" else _stamp(text))
    return tag("g", told, _line(_x(datetime.fromisoformat(text), begin, end), kind))


def _line(x: float, kind: str) -> Html:
    low, high = (0, _HEIGHT) if kind == "month" else (6, _HEIGHT - 6)
    return tag("line", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=low, y2=high, class_=kind, vector_effect="non-scaling-stroke")


def _x(moment: datetime, begin: datetime, end: datetime) -> float:
    """Where a time stands on the strip, a little inside its edges."""
    share = (moment - begin) / (end - begin)
    return 4 + min(max(share, 0.0), 1.0) * (_WIDTH - 8)


def _months(begin: datetime, end: datetime) -> list[datetime]:
    found: list[datetime] = []
    year, month = begin.year, begin.month
    while True:
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)  # noqa: PLR2004  months of a year
        first = datetime(year, month, 1, tzinfo=UTC)
        if first >= end:
            return found
        found.append(first)


def _recovery_tests(tests: Sequence[Mapping[str, Any]]) -> Iterable[Html]:
    yield tag("h2", "Recovery tests")
    if not tests:
        yield tag("p", "No recovery test has ended yet: that a backup can be restored is not proved.", class_="soft")
        return
    rows: list[list[Content]] = [
        [
            _time(test["finished"]),
            tag("span", test["outcome"], class_=f"chip {'PASS' if test['outcome'] == 'RESTORED' else 'FAIL'}"),
            name(test["tier"]),
            _span(test["rto_seconds"]),
            _span(test["rpo_seconds"]),
        ]
        for test in tests
    ]
    yield _table(["Ended", "Outcome", "Tier", "Recovery time", "Recovery point"], rows)


def _costs(costs: Mapping[str, Any] | None) -> Iterable[Html]:
    yield tag("h2", "What a month of it costs")
    if costs is None:
        yield tag(
            "p", "The last retention plan does not say: see its costs, and the Regions of its prices.", class_="soft"
        )
        return
    total = sum(row["cost"] for row in costs["tiers"])
    told = f"{costs['currency']} {total:,.2f} for the storage of what exists, at the list prices of {costs['region']}, "
    yield tag("p", told, costs["as_of"], ", as of ", _time(costs["at"]), ".", class_="soft")
    rows: list[list[Content]] = [[name(r["tier"]), name(r["kind"]), f"{r['cost']:,.2f}"] for r in costs["tiers"]]
    yield _table(["Tier", "Kept as", f"{costs['currency']} a month"], rows)


def _controls(document: Mapping[str, Any]) -> Iterable[Html]:
    every = [check["id"] for check in document["checks"]]
    yield tag("h2", "Controls")
    yield tag(
        "p",
        "What the checks show of each control, and what no check can show. A control that passes here is not a claim "
        "that the organisation complies with it.",
        class_="soft",
    )
    rows: list[list[Content]] = [
        [
            join([tag("b", name(c["id"])), tag("small", name(c["framework"]))]),
            name(c["title"]),
            _chip(c["verdict"]),
            join(
                [
                    tag("small", "Shown by ", ", ".join(_shorter(c["checks"], every))) if c["checks"] else None,
                    tag("small", "Not shown: ", name(_prose(c["organisational"]))),
                ]
            ),
        ]
        for c in document["controls"]
    ]
    yield _table(["Control", "Title", "Verdict", "Evidence"], rows)


def _shorter(checks: Sequence[str], every: Sequence[str]) -> list[str]:
    """Name a verification where all of its checks are named."""
    found: dict[str, None] = {}
    for check in checks:
        verification = check.partition(".")[0]
        whole = {c for c in every if c.startswith(f"{verification}.")} <= set(checks)
        found[f"all of {verification}" if whole else check] = None
    return list(found)


def _checks(document: Mapping[str, Any]) -> Iterable[Html]:
    yield tag("h2", "Every check")
    levels = document["levels"]
    yield tag("p", *(part for level, text in levels.items() for part in (_level(level), f" {text}. ")), class_="soft")
    yield tag("div", *(_check(row) for row in document["checks"]), class_="scroll")
    if document["not_applicable"]:
        names = join([tag("code", row["id"]) for row in document["not_applicable"]], ", ")
        yield tag("p", "The policy does not ask for ", names, ".", class_="soft")


def _check(row: Mapping[str, Any]) -> Html:
    evidence = [
        tag("li", tag("code", e["call"] or e["name"]), " ", _time(e["at"]) if e["ok"] else f"not read ({e['name']})")
        for e in row["evidence"]
    ]
    return tag(
        "details",
        tag("summary", _chip(row["verdict"]), tag("span", row["title"], class_="t"), _level(row["level"])),
        tag(
            "div",
            tag("p", name(row["reason"])),
            tag("p", tag("small", "Remedy "), _prose(row["remedy"])) if row["verdict"] != "PASS" else None,
            tag("p", tag("code", row["id"]), tag("small", f" looked at {row['examined']}")),
            tag("ul", *evidence, class_="evidence"),
            class_="in",
        ),
    )


def _holds(holds: Sequence[Mapping[str, Any]] | None) -> Iterable[Html]:
    yield tag("h2", "Legal holds")
    if not holds:
        yield tag("p", "None." if holds is not None else "They could not be read.", class_="soft")
        return
    rows: list[list[Content]] = [[name(h["matter"]), name(h["what"]), _time(h["since"]), name(h["by"])] for h in holds]
    yield _table(["Matter", "What is held", "Since", "By"], rows)


def _deleters(rows: Sequence[Mapping[str, Any]]) -> Iterable[Html]:
    yield tag("h2", "Who can delete")
    yield tag(
        "p",
        "By the policies in force, and rather too many than too few: a star marks those who can under conditions only. "
        "Service control policies, and the account's root user where no policy names it, are not shown.",
        class_="soft",
    )
    shown: list[list[Content]] = [[r["what"], _who(r["who"], r["sometimes"]), name(r["by"])] for r in rows]
    yield _table(["What", "Who", "Rests on"], shown)


def _who(who: Sequence[str] | None, sometimes: Sequence[str]) -> Content:
    if who is None:
        return "whoever IAM in this account allows: no resource policy denies it"
    return join([tag("code", one, " *" if one in sometimes else None) for one in who], " ") if who else "nobody"


def _table(titles: Sequence[str], rows: Sequence[Sequence[Content]]) -> Html:
    head = tag("thead", tag("tr", *(tag("th", title, scope="col") for title in titles)))
    cells = ((tag("td", cell, data_l=title) for title, cell in zip(titles, row, strict=True)) for row in rows)
    body = tag("tbody", *(tag("tr", *row) for row in cells))
    return tag("div", tag("table", head, body, class_="stack"), class_="scroll")


def _footer(document: Mapping[str, Any]) -> Html:
    ids = join([tag("code", one) for one in document["cluster"]["resource_ids"]], " ")
    return tag(
        "footer",
        tag("p", "Cluster ", ids, ", backed up by ", tag("code", document["owner"]), "."),
        tag("p", "Execution ", tag("code", document["execution"]), "."),
        tag(
            "p",
            "This page renders the report beside it (JSON, schema ",
            document["schema"],
            "). Both are chained: ",
            tag("code", "aurora-backup evidence verify"),
            " shows that neither was changed. It holds no data of patients.",
        ),
    )


def _time(text: str | None) -> Html:
    return tag("time", _stamp(text), datetime=text) if text else Html("")


def _stamp(text: str) -> str:
    try:
        return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%d %H:%M}"
    except ValueError:
        return text


def _span(seconds: int | None) -> str:
    if seconds is None:
        return "unknown"
    days, rest = divmod(seconds, _DAY)
    hours, minutes = rest // 3600, rest % 3600 // 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest % 60} s" if minutes else f"{rest} s"
