"""The forecast: what exists on a day, what it costs, and that it asks the manager's own decision."""

import json
import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest

from aurora_backup import cli, forecast_page
from aurora_backup import forecast as module
from aurora_backup.errors import SettingsError
from aurora_backup.forecast import Prices, Workload, cheaper, costs, list_prices, simulate, size_from, size_from_plan
from aurora_backup.forecast_page import render, section, section_html
from aurora_backup.policy import RetentionPolicy, Tier
from aurora_backup.retention import Action, Decision, Kind, RecoveryPoint, Status, decision_document
from aurora_backup.schedule import Schedule

POLICY = RetentionPolicy.hipaa()
PRICES = Prices.from_table(list_prices(), "us-east-1")
START = date(2026, 1, 1)
WORKLOAD = Workload(size_gb=100)


MOON = dict.fromkeys(("backup", *module.CLASSES), 1)


def own(**regions):
    return {"as_of": "2026-11-23", "currency": "USD", "regions": regions or {"moon": MOON}}


DAYS = 2562  # what a section simulates: six years of monthly points, and a year more


@cache
def simulated(text, days):
    """The policies that several tests look at, once."""
    return simulate(RetentionPolicy.from_json(text), WORKLOAD, PRICES, start=START, days=days)


@pytest.fixture(scope="module")
def seven_years():
    return simulated(POLICY.to_json(), DAYS)


@pytest.fixture(scope="module")
def cheap():
    return simulated(cheaper(POLICY).to_json(), DAYS)


def held(forecast, tier, day=-1):
    return {h.tier: h for h in forecast.days[day].tiers}.get(tier.value)


def test_the_points_of_a_day_are_those_of_the_schedule_within_the_retention(seven_years):
    for number in (10, 200, 1000, 2400, 2561):
        now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number + 1)
        for tier, rule in (
            (Tier.WEEKLY, POLICY.weekly),
            (Tier.MONTHLY, POLICY.monthly),
            (Tier.LOGICAL, POLICY.logical),
        ):
            made = Schedule(rule.schedule).occurrences(datetime(2026, 1, 1, tzinfo=UTC), now)
            alive = [m for m in made if rule.keep.until(m) >= now]
            found = held(seven_years, tier, number)
            assert (found.count if found else 0) == len(alive), (tier, number)
            if alive:
                assert (found.oldest, found.newest) == (alive[0].date().isoformat(), alive[-1].date().isoformat())


def test_in_the_end_the_documents_policy_holds_what_its_table_says(seven_years):
    counts = {h.tier: h.count for h in seven_years.days[-1].tiers}

    assert counts == {"automated": 35, "weekly": 26, "monthly": 72, "logical": 13}  # 180 days are 25 or 26 Sundays
    assert seven_years.peak_snapshots == 98


def test_the_cheaper_design_frees_the_quota_and_most_of_the_money(seven_years, cheap):
    assert cheap.peak_snapshots == 26
    assert held(cheap, Tier.MONTHLY).kind == "set"
    assert held(cheap, Tier.MONTHLY).count == 72
    assert held(cheap, Tier.MONTHLY).cost < held(seven_years, Tier.MONTHLY).cost / 30


def test_snapshots_cost_their_full_size_each(seven_years):
    monthly = held(seven_years, Tier.MONTHLY)

    assert monthly.gb == 7200
    assert monthly.cost == pytest.approx(7200 * 0.021)


def test_sets_cost_by_storage_class_as_the_lifecycle_moves_them(cheap):
    monthly, sets = held(cheap, Tier.MONTHLY), 28.0
    last = datetime(2033, 1, 6, tzinfo=UTC)
    made = [datetime(2026 + n // 12, n % 12 + 1, 1, 1, tzinfo=UTC) for n in range(85)]
    gone = 31  # the set of January 2027 expired on the first, and its versions stay for 30 days
    expected = sum(sets * (0.00099 if (last - m).days >= 90 else 0.023) for m in made if (last - m).days < 2192 + gone)

    assert cheap.days[-1].date == "2033-01-05"
    assert monthly.cost == pytest.approx(expected, abs=0.001)
    assert monthly.count == 72
    assert monthly.gb == pytest.approx(73 * sets)


def test_a_set_that_went_is_billed_until_its_noncurrent_days_are_over_and_no_longer():
    policy = POLICY.with_changes({"logical": {"keep": {"days": 3}, "minimum_copies": 0}, "monthly": None})
    done = simulate(policy, WORKLOAD, PRICES, start=START, days=60)
    seen = [held(done, Tier.LOGICAL, day) for day in range(40, 60)]

    # One a week: of the last 33 days there are four or five, and of the last three at most one counts.
    assert {round(h.gb / 28) for h in seen} == {4, 5}
    assert {h.count for h in seen} == {0, 1}
    assert {round(h.cost / (28 * 0.023)) for h in seen} == {4, 5}
    assert "is billed until its noncurrent days are over" in " ".join(done.document()["assumptions"])
    assert "at most" not in " ".join(done.document()["assumptions"])


def test_the_quota_is_the_account_s_own():
    done = simulate(POLICY, WORKLOAD, PRICES, start=START, days=2, quota=250)

    assert done.document()["snapshot_quota"] == 250
    assert "of 250" in " ".join(parse(render(done, None)).text)


def test_the_automated_tier_costs_what_changed_within_its_retention(seven_years):
    automated = held(seven_years, Tier.AUTOMATED)

    assert (automated.gb, automated.cost) == (pytest.approx(35.0), pytest.approx(35 * 0.021))


def test_a_growing_cluster_makes_larger_snapshots():
    grown = simulate(POLICY, replace(WORKLOAD, growth=0.1), PRICES, start=START, days=366)

    assert grown.days[-1].size_gb == pytest.approx(100 * 1.1**12.02, rel=0.01)
    assert held(grown, Tier.WEEKLY).gb > 26 * 150


def test_it_asks_the_managers_own_decision(monkeypatch):
    original, asked = module.decide, []
    monkeypatch.setattr(module, "decide", lambda *a, **k: asked.append(a) or original(*a, **k))
    short = POLICY.with_changes({"automated": {"keep_days": 1}, "logical": {"keep": {"days": 8}}})
    simulate(short, WORKLOAD, PRICES, start=START, days=20)
    assert asked

    def never(*arguments, **more):
        plan = original(*arguments, **more)
        return replace(plan, decisions=tuple(replace(d, rule="in-time") for d in plan.decisions))

    monkeypatch.setattr(module, "decide", never)
    assert held(simulate(short, WORKLOAD, PRICES, start=START, days=60), Tier.LOGICAL).count == 9


def test_without_enforcement_snapshots_on_demand_stay():
    asked = replace(WORKLOAD, on_demand=1)
    enforced = POLICY.with_changes({"sweep": {"enforce": True}})

    assert held(simulate(POLICY, asked, PRICES, start=START, days=365), Tier.ON_DEMAND).count == 12
    assert held(simulate(enforced, asked, PRICES, start=START, days=365), Tier.ON_DEMAND).count == 6


def test_the_minimum_stays_in_the_forecast_too():
    policy = POLICY.with_changes({"logical": {"keep": {"days": 3}, "minimum_copies": 2}})
    done = simulate(policy, WORKLOAD, PRICES, start=START, days=60)

    assert {held(done, Tier.LOGICAL, day).count for day in range(20, 60)} == {2}


def test_a_policy_without_monthly_tier_has_no_cheaper_design():
    assert cheaper(POLICY.with_changes({"monthly": None})) is None


def test_the_total_is_the_sum_of_its_days(cheap):
    assert cheap.total_cost == pytest.approx(sum(day.cost for day in cheap.days) / (365.25 / 12))


@pytest.mark.parametrize("region", list(list_prices()["regions"]))
def test_every_region_of_the_table_is_complete_and_in_order(region):
    storage = Prices.from_table(list_prices(), region).storage

    assert (
        storage["STANDARD"]
        > storage["STANDARD_IA"]
        > storage["GLACIER_IR"]
        >= storage["GLACIER"]
        > storage["DEEP_ARCHIVE"]
    )


@pytest.mark.parametrize(
    ("table", "region", "message"),
    [
        (list_prices(), "mars-1", "region must be one of ap-northeast-1, .* got 'mars-1'"),
        (own(moon={**MOON, "backup": -1}), "moon", r"regions\.moon\.backup must be a price .* got -1"),
        (own(moon={**MOON, "backup": True}), "moon", "got True"),
        (own(moon={**MOON, "backup": float("nan")}), "moon", "got nan"),
        (own(moon={**MOON, "backup": "0.02"}), "moon", "got '0.02'"),
        (own(moon={"backup": 1}), "moon", r"regions\.moon\.STANDARD must be a price .* got None"),
        (own(moon={**MOON, "GLACIR": 1}), "moon", r"regions\.moon has the keys backup, STANDARD, .* got 'GLACIR' too"),
        (own(moon=[1]), "moon", r"regions\.moon must be an object of prices, got \[1\]"),
        ({**own(), "regions": {}}, "moon", r"regions must be an object of Regions and their prices, got \{\}"),
        ({**own(), "as_of": None}, "moon", "as_of must be the ISO date of the prices, .* got None"),
        ({**own(), "as_of": "last week"}, "moon", "as_of must be .* got 'last week'"),
        ({**own(), "currency": "dollars"}, "moon", "currency must be an ISO 4217 code, .* got 'dollars'"),
        ({**own(), "note": 7}, "moon", "note must be a text, got 7"),
        ({**own(), "sources": "a page"}, "moon", "sources must be a list of texts, got 'a page'"),
        ({**own(), "sources": [7]}, "moon", "sources must be a text, got 7"),
        ({**own(), "asof": "2026-11-23"}, "moon", "a price table has the keys as_of, .* got 'asof' too"),
        ([], "moon", "a price table must be a JSON object, got list"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_by_field_rule_and_value(table, region, message):
    with pytest.raises(SettingsError, match=message):
        Prices.from_table(table, region)


def test_the_package_s_table_is_dated_and_names_its_sources():
    assert date.fromisoformat(PRICES.as_of) <= datetime.now(UTC).date()
    assert len(PRICES.sources) == 2
    assert all(source.startswith("aws.amazon.com/") for source in PRICES.sources)
    listed = list_prices()["regions"]
    assert f"It has {', '.join(listed)}." in (Path(__file__).parents[2] / "docs" / "retention.md").read_text()


@pytest.mark.parametrize("changes", [{"size_gb": -1}, {"growth": float("nan")}, {"on_demand": 101}, {"dump_ratio": 3}])
def test_a_workload_that_cannot_be_is_refused_by_field(changes):
    with pytest.raises(SettingsError, match=rf"workload\.{next(iter(changes))} must be within 0-"):
        replace(WORKLOAD, **changes)


@pytest.mark.parametrize("days", [0, 36_526])
def test_a_forecast_of_no_time_or_of_all_time_is_refused(days):
    with pytest.raises(SettingsError, match="days must be within"):
        simulate(POLICY, WORKLOAD, PRICES, start=START, days=days)


# --- The page


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.links, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in {"src", "href", "onclick", "onload"}]

    def handle_data(self, data):
        self.text.append(data)


def parse(html):
    page = _Page()
    page.feed(html)
    return page


def test_the_page_needs_nothing_else(seven_years, cheap):
    html = render(seven_years, cheap)
    page = parse(html)

    assert page.links == []
    assert "script" not in page.tags
    assert "@import" not in html
    assert "url(" not in html
    assert "http" not in html
    assert page.tags.count("svg") == 3
    assert "prefers-color-scheme:dark" in html
    assert "@media print" in html


def test_every_value_on_the_page_is_escaped(seven_years):
    evil = replace(PRICES, region="<script>alert(1)</script>", note='"><img src=x>\u202e', currency="<b>")
    page = parse(render(replace(seven_years, prices=evil)))

    assert not {"script", "img", "b"} & set(page.tags)
    assert "<script>alert(1)</script>" in page.text
    assert "\u202e" not in "".join(page.text)


def test_the_page_shows_the_numbers_of_the_document(seven_years, cheap):
    text = " ".join(parse(render(seven_years, cheap)).text)

    assert f"{seven_years.total_cost:,.0f}" in text
    assert "98 of 100" in text
    assert "2033-01-05" in text
    assert "2026-11-23" in text


def test_the_lines_stay_within_the_picture(seven_years, cheap):
    html = render(seven_years, cheap)
    points = re.findall(r"(-?[\d.]+),(-?[\d.]+)", " ".join(re.findall(r'points="([^"]*)"', html)))

    assert points
    assert all(70 <= float(x) <= 760 and 0 <= float(y) <= 230 for x, y in points)


# --- The section of the compliance report


@pytest.fixture(scope="module")
def part():
    def known(policy, workload, prices, *, start, days, quota):
        assert (workload, prices, start) == (WORKLOAD, PRICES, START)
        return replace(simulated(policy.to_json(), days), quota=quota)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forecast_page, "simulate", known)
        return section(POLICY, region="us-east-1", size_gb=100, start=START, quota=120)


def test_the_section_says_what_the_page_says(part, seven_years):
    document = part.document
    assert (document["schema"], document["available"], document["reason"]) == (1, True, None)
    assert (document["from"], document["to"]) == ("2026-01-01", "2033-01-05")
    assert document["final_month_cost"] == pytest.approx(seven_years.days[-1].cost, abs=0.01)
    assert document["snapshot_quota"] == 120
    assert document["peak_snapshots"] == 98
    assert document["cheaper"]["peak_snapshots"] == 26
    assert [day["date"] for day in document["days"][:2]] == ["2026-03-31", "2026-06-30"]
    assert document["days"][-1]["date"] == document["to"]
    page = parse(part.html)
    assert (page.tags.count("svg"), page.tags.count("h2"), page.tags.count("h1")) == (3, 1, 0)
    assert "98 of 120" in " ".join(page.text)
    assert len(json.dumps(document)) < 100_000


def test_the_section_is_made_of_its_document_alone_also_when_that_was_stored(part):
    assert section_html(json.loads(json.dumps(part.document))) == part.html


def test_the_section_loads_nothing_and_styles_nothing_but_itself(part):
    assert parse(part.html).links == []
    assert not re.search(r"<script|@import|url\(|http", part.html)
    (style,) = re.findall(r"<style>(.*?)</style>", part.html, re.DOTALL)
    flat = re.sub(r"@media[^{]*\{((?:[^{}]*\{[^{}]*\})*)\}", r"\1", style)
    selectors = [one.strip() for group in re.findall(r"([^{}]+)\{", flat) for one in group.split(",")]
    assert len(selectors) > 10
    assert all(one.startswith(".forecast") for one in selectors)


def test_every_value_of_a_stored_section_is_escaped(part):
    evil = json.loads(json.dumps(part.document).replace("2026-", "<script>x</script>").replace("weekly", "<img src=x>"))
    page = parse(section_html(evil))

    assert not {"script", "img"} & set(page.tags)
    assert any("<img src=x>" in text for text in page.text)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"size_gb": None}, "the size of the cluster is not known"),
        ({"region": "mars-1"}, "region must be one of"),
        ({"size_gb": -1}, "workload.size_gb must be within"),
        ({"table": {"regions": {"<b>": {}}}, "region": "<b>"}, "regions.<b>.backup must be a price"),
    ],
)
def test_what_makes_a_forecast_impossible_is_said_and_never_raised(changes, reason):
    made = section(POLICY, **{"region": "us-east-1", "size_gb": 100, "start": START, **changes})

    assert made.document["available"] is False
    assert reason in made.document["reason"]
    page = parse(made.html)
    assert "b" not in page.tags
    assert reason in " ".join(page.text)


# --- What exists now


NOW = datetime(2026, 11, 23, 5, 30, tzinfo=UTC)


def existing(kind, tier, age, gb, **changes):
    return RecoveryPoint(
        **{
            "kind": kind,
            "tier": tier,
            "identifier": f"{kind}/{tier}/{age}",
            "cluster_resource_id": "cluster-A",
            "created": NOW - timedelta(days=age),
            "status": Status.AVAILABLE,
            "size": round(gb * 1e9),
            **changes,
        }
    )


def priced(*points, **changes):
    return costs(points, POLICY, NOW, **{"lineage": {"cluster-A"}, "region": "us-east-1", **changes})


def test_this_months_cost_is_that_of_the_points_that_exist():
    found = priced(
        existing(Kind.SNAPSHOT, Tier.ON_DEMAND, 1, 200),
        existing(Kind.RECOVERY_POINT, Tier.WEEKLY, 2, 0),  # AWS Backup does not know Aurora's sizes
        existing(Kind.RECOVERY_POINT, Tier.WEEKLY, 9, 0),
        *(existing(Kind.AUTOMATED, Tier.AUTOMATED, day, 0) for day in range(35)),
        existing(Kind.SET, Tier.LOGICAL, 3, 10),
        existing(Kind.SET, Tier.MONTHLY, 30, 10),
        existing(Kind.SET, Tier.MONTHLY, 91, 10),
        existing(Kind.SET, Tier.LOGICAL, 3, 10, cluster_resource_id="cluster-B"),
        existing(Kind.STRAY, None, 3, 10),
    )

    assert (found["problem"], found["region"], found["currency"]) == (None, "us-east-1", "USD")
    assert found["as_of"] == list_prices()["as_of"]
    assert {(t["tier"], t["kind"]): (t["count"], t["cost"]) for t in found["tiers"]} == {
        ("on-demand", "cluster-snapshot"): (1, pytest.approx(200 * 0.021)),
        ("weekly", "recovery-point"): (2, pytest.approx(2 * 200 * 0.021)),
        ("automated", "automated-snapshot"): (35, pytest.approx(35 * 0.01 * 200 * 0.021)),
        ("logical", "set"): (1, pytest.approx(10 * 0.023)),
        ("monthly", "set"): (2, pytest.approx(10 * 0.023 + 10 * 0.0036)),
    }


def test_sets_made_on_demand_have_a_price_too():
    (found,) = priced(existing(Kind.SET, Tier.ON_DEMAND, 91, 10))["tiers"]

    assert found["cost"] == pytest.approx(10 * 0.0036)


def test_without_prices_or_a_size_there_is_no_cost_and_a_reason():
    unknown = priced(existing(Kind.SET, Tier.LOGICAL, 3, 10), region="mars-1")
    sizeless = priced(existing(Kind.SNAPSHOT, Tier.ON_DEMAND, 3, 1))

    assert (unknown["tiers"], unknown["problem"][:22]) == ([], "region must be one of ")
    assert (sizeless["tiers"], sizeless["problem"]) == ([], "the size of the cluster is not known")
    assert priced()["problem"] is None


@pytest.mark.parametrize(
    ("points", "size"),
    [
        ([], None),
        ([existing(Kind.SNAPSHOT, Tier.ON_DEMAND, 1, 1)], None),  # RDS says 1 of what it does not know
        ([existing(Kind.SNAPSHOT, Tier.ON_DEMAND, 1, 50), existing(Kind.AUTOMATED, Tier.AUTOMATED, 2, 40)], 50),
        ([existing(Kind.SNAPSHOT, Tier.ON_DEMAND, 1, 50, status=Status.PENDING)], None),
        (
            [existing(Kind.SET, Tier.LOGICAL, 1, 28, series="a"), existing(Kind.SET, Tier.LOGICAL, 8, 14, series="a")],
            100,
        ),
        (
            [existing(Kind.SET, Tier.LOGICAL, 1, 28, series="a"), existing(Kind.SET, Tier.LOGICAL, 8, 14, series="b")],
            150,
        ),
        ([existing(Kind.SET, Tier.LOGICAL, 1, 28), existing(Kind.SNAPSHOT, Tier.ON_DEMAND, 9, 50)], 50),
    ],
)
def test_the_size_of_the_cluster_is_told_by_its_points(points, size):
    assert size_from(points) == (pytest.approx(size) if size else None)
    plan = {
        "lineage": ["cluster-A"],
        "decisions": [decision_document(Decision(p, Action.KEEP, "", "")) for p in points],
    }
    assert size_from_plan(json.loads(json.dumps(plan))) == (pytest.approx(size) if size else None)
    assert size_from_plan({**plan, "lineage": ["cluster-B"]}) is None


def test_a_plan_that_is_none_tells_no_size():
    assert [size_from_plan(plan) for plan in (None, {}, {"lineage": [], "decisions": [{}]})] == [None] * 3


# --- The command


def test_the_command_writes_json_and_page(tmp_path, capsys):
    page = tmp_path / "forecast.html"
    arguments = ["--size-gb", "100", "--start", "2026-01-01", "--years", "1", "--html", str(page), "--json"]
    assert cli.main(["forecast", *arguments]) == 0

    document = json.loads(capsys.readouterr().out)
    assert len(document["days"]) == 366
    assert document["cheaper"]["peak_snapshots"] < document["peak_snapshots"]
    assert document["prices"]["as_of"] == "2026-11-23"
    assert page.read_text().startswith("<!doctype html>")


def test_the_command_lists_the_points_of_a_day(capsys):
    arguments = ["--size-gb", "100", "--start", "2026-01-01", "--on", "2026-02-15", "--json"]
    assert cli.main(["forecast", *arguments]) == 0

    points = json.loads(capsys.readouterr().out)["points"]
    assert [p["identifier"][:34] for p in points if "monthly" in p["identifier"]] == [
        "monthly/recovery-point/20260101T01",
        "monthly/recovery-point/20260201T01",
    ]


def test_the_command_takes_a_policy_and_prices_of_ones_own(tmp_path, capsys):
    policy, prices = tmp_path / "policy.json", tmp_path / "prices.json"
    policy.write_text('{"monthly": null, "weekly": null, "logical": null}')
    prices.write_text(json.dumps(own()))
    arguments = ["--policy", str(policy), "--prices", str(prices), "--region", "moon", "--years", "1"]
    assert cli.main(["forecast", "--size-gb", "10", "--start", "2026-01-01", *arguments, "--json"]) == 0

    document = json.loads(capsys.readouterr().out)
    assert [h["tier"] for h in document["days"][-1]["tiers"]] == ["automated"]
    assert document["final_month_cost"] == pytest.approx(35 * 0.1)
    assert document["cheaper"] is None


@pytest.mark.parametrize("text", ["nonsense", '{"weekly": {"keep": {"days": 0}}}', '{"schema": 7}'])
def test_a_policy_that_is_none_is_wrong_usage(tmp_path, capsys, text):
    path = tmp_path / "policy.json"
    path.write_text(text)

    assert cli.main(["forecast", "--size-gb", "1", "--policy", str(path)]) == 2
    assert str(path) in capsys.readouterr().err
