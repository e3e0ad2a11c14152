"""The forecast: what exists on a day, what it costs, and that it asks the manager's own decision."""

import json
import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser

import pytest

from aurora_backup import cli
from aurora_backup import forecast as module
from aurora_backup.errors import SettingsError
from aurora_backup.forecast import Prices, Workload, cheaper, list_prices, simulate
from aurora_backup.forecast_page import render
from aurora_backup.policy import RetentionPolicy, Tier
from aurora_backup.schedule import Schedule

POLICY = RetentionPolicy.hipaa()
PRICES = Prices.from_table(list_prices(), "us-east-1")
START = date(2026, 1, 1)
WORKLOAD = Workload(size_gb=100)


@pytest.fixture(scope="module")
def eight_years():
    return simulate(POLICY, WORKLOAD, PRICES, start=START, days=2922)


@pytest.fixture(scope="module")
def cheap():
    return simulate(cheaper(POLICY), WORKLOAD, PRICES, start=START, days=2922)


def held(forecast, tier, day=-1):
    return {h.tier: h for h in forecast.days[day].tiers}.get(tier.value)


def test_the_points_of_a_day_are_those_of_the_schedule_within_the_retention(eight_years):
    for number in (10, 200, 1000, 2400, 2921):
        now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number + 1)
        for tier, rule in (
            (Tier.WEEKLY, POLICY.weekly),
            (Tier.MONTHLY, POLICY.monthly),
            (Tier.LOGICAL, POLICY.logical),
        ):
            made = Schedule(rule.schedule).occurrences(datetime(2026, 1, 1, tzinfo=UTC), now)
            alive = [m for m in made if rule.keep.until(m) >= now]
            found = held(eight_years, tier, number)
            assert (found.count if found else 0) == len(alive), (tier, number)
            if alive:
                assert (found.oldest, found.newest) == (alive[0].date().isoformat(), alive[-1].date().isoformat())


def test_in_the_end_the_documents_policy_holds_what_its_table_says(eight_years):
    counts = {h.tier: h.count for h in eight_years.days[-1].tiers}

    assert counts == {"automated": 35, "weekly": 25, "monthly": 72, "logical": 13}  # 180 days are 25 or 26 Sundays
    assert eight_years.peak_snapshots == 98


def test_the_cheaper_design_frees_the_quota_and_most_of_the_money(eight_years, cheap):
    assert cheap.peak_snapshots == 26
    assert held(cheap, Tier.MONTHLY).kind == "set"
    assert held(cheap, Tier.MONTHLY).count == 72
    assert held(cheap, Tier.MONTHLY).cost < held(eight_years, Tier.MONTHLY).cost / 30


def test_snapshots_cost_their_full_size_each(eight_years):
    monthly = held(eight_years, Tier.MONTHLY)

    assert monthly.gb == 7200
    assert monthly.cost == pytest.approx(7200 * 0.021)


def test_sets_cost_by_storage_class_as_the_lifecycle_moves_them(cheap):
    monthly, sets = held(cheap, Tier.MONTHLY), 28.0
    last = datetime(2034, 1, 1, tzinfo=UTC)
    ages = [(last - datetime(y, m, 1, 1, tzinfo=UTC)).days for y in range(2026, 2034) for m in range(1, 13)]
    expected = sum(sets * (0.00099 if age >= 90 else 0.023) for age in ages if age < 2191)

    assert cheap.days[-1].date == "2033-12-31"
    assert monthly.cost == pytest.approx(expected, abs=0.2)


def test_the_automated_tier_costs_what_changed_within_its_retention(eight_years):
    automated = held(eight_years, Tier.AUTOMATED)

    assert (automated.gb, automated.cost) == (pytest.approx(35.0), pytest.approx(35 * 0.021))


def test_a_growing_cluster_makes_larger_snapshots():
    grown = simulate(POLICY, replace(WORKLOAD, growth=0.1), PRICES, start=START, days=366)

    assert grown.days[-1].size_gb == pytest.approx(100 * 1.1**12.02, rel=0.01)
    assert held(grown, Tier.WEEKLY).gb > 26 * 150


def test_it_asks_the_managers_own_decision(monkeypatch):
    original, asked = module.decide, []
    monkeypatch.setattr(module, "decide", lambda *a, **k: asked.append(a) or original(*a, **k))
    simulate(POLICY, WORKLOAD, PRICES, start=START, days=100)
    assert asked

    def never(*arguments, **more):
        plan = original(*arguments, **more)
        return replace(plan, decisions=tuple(replace(d, rule="in-time") for d in plan.decisions))

    monkeypatch.setattr(module, "decide", never)
    assert held(simulate(POLICY, WORKLOAD, PRICES, start=START, days=300), Tier.LOGICAL).count == 43


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
        ({"regions": {"x": {"backup": -1}}}, "x", r"regions\.x\.backup must be a price .* got -1"),
        ({"regions": {"x": {"backup": True}}}, "x", "got True"),
        ({"regions": {"x": {"backup": 1}}}, "x", r"regions\.x\.STANDARD must be a price .* got None"),
        ([], "x", "region must be one of"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(table, region, message):
    with pytest.raises(SettingsError, match=message):
        Prices.from_table(table, region)


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


def test_the_page_needs_nothing_else(eight_years, cheap):
    html = render(eight_years, cheap)
    page = parse(html)

    assert page.links == []
    assert "script" not in page.tags
    assert "@import" not in html
    assert "url(" not in html
    assert "http" not in html
    assert page.tags.count("svg") == 3
    assert "prefers-color-scheme:dark" in html
    assert "@media print" in html


def test_every_value_on_the_page_is_escaped(eight_years):
    evil = replace(PRICES, region="<script>alert(1)</script>", note='"><img src=x>', currency="<b>")
    page = parse(render(replace(eight_years, prices=evil)))

    assert not {"script", "img", "b"} & set(page.tags)
    assert "<script>alert(1)</script>" in page.text


def test_the_page_shows_the_numbers_of_the_document(eight_years, cheap):
    text = " ".join(parse(render(eight_years, cheap)).text)

    assert f"{eight_years.total_cost:,.0f}" in text
    assert "98 of 100" in text
    assert "2033-12-31" in text
    assert "2026-11-23" in text


def test_the_lines_stay_within_the_picture(eight_years, cheap):
    html = render(eight_years, cheap)
    points = re.findall(r"(-?[\d.]+),(-?[\d.]+)", " ".join(re.findall(r'points="([^"]*)"', html)))

    assert points
    assert all(70 <= float(x) <= 760 and 0 <= float(y) <= 230 for x, y in points)


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
    prices.write_text(json.dumps({"regions": {"moon": dict.fromkeys(("backup", *module.CLASSES), 1)}}))
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
