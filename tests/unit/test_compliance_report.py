"""The report and its page: schema, verdicts, measurements, escaping, and what they can never hold."""

from __future__ import annotations

import ast
import copy
import dataclasses
import json
import re
from datetime import datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest

import aurora_backup
from aurora_backup import compliance_report
from aurora_backup.compliance_facts import unobserved
from aurora_backup.compliance_metrics import metrics
from aurora_backup.compliance_page import render
from aurora_backup.compliance_report import build, documents_beside
from aurora_backup.forecast_page import Section, section_html
from aurora_backup.markup import join, name, page, safe, tag, visible
from tests.unit.healthy_facts import ADMIN, BREAK_GLASS, DOCUMENTS, EXPECTED, NOW, SWEEPER, healthy, iso

DOCS = Path(__file__).parent.parent.parent / "docs"
SCHEMA = json.loads((DOCS / "schemas" / "compliance-report-1.json").read_text())
HOSTILE = "\"><script>alert(1)</script>\u202egnp.\u2066\x07' onload=x"


def document(facts=None, expected=EXPECTED):
    return build(facts or healthy(), expected, now=NOW, execution="run-1").document


def damaged():
    """Something of everything: failures, unknowns, a missed run, unreadable lists."""
    facts = healthy()
    observations = facts["observations"]
    observations["cluster"]["value"]["deletion_protection"] = False
    observations["recovery-points"]["value"].pop(4)
    for gone in ("key-policy", "legal-holds"):
        observations[gone] = {**observations[gone], "ok": False, "error": "AccessDenied"}
    del observations["sets"]
    observations["recovery-tests"]["value"].append({"finished": "soon"})
    return facts


KINDS = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "integer": int,
    "number": (int, float),
}


def breaches(value, schema, path="$"):  # noqa: C901  a branch for each word of the schema
    """Where a value is not as the part of JSON Schema that we use says."""
    kinds = schema.get("type", list(KINDS))
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not any(isinstance(value, KINDS[k]) and not (k == "integer" and isinstance(value, bool)) for k in kinds):
        yield f"{path} must be {kinds}"
        return
    if value not in schema.get("enum", [value]) or value != schema.get("const", value):
        yield f"{path} must be one of {schema.get('enum', schema.get('const'))}"
    if "anyOf" in schema and all(list(breaches(value, part, path)) for part in schema["anyOf"]):
        yield f"{path} is none of anyOf"
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        yield f"{path} must match {schema['pattern']}"
    if isinstance(value, str) and schema.get("format") == "date-time":
        assert datetime.fromisoformat(value).tzinfo
    if isinstance(value, (int, float)) and value < schema.get("minimum", value):
        yield f"{path} must be {schema['minimum']} or more"
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            yield f"{path} must have so many items"
        for n, item in enumerate(value):
            yield from breaches(item, schema.get("items", {}), f"{path}[{n}]")
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        yield from (f"{path}.{name} is missing" for name in set(schema.get("required", ())) - set(value))
        if schema.get("additionalProperties", True) is False:
            yield from (f"{path}.{name} is unknown" for name in set(value) - set(properties))
        for name in set(value) & set(properties):
            yield from breaches(value[name], properties[name], f"{path}.{name}")


class Page(HTMLParser):
    """Every element and attribute of a page, and its text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.attributes, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, name, attributes):
        self.elements.append(name)
        self.attributes += [(name, *pair) for pair in attributes]

    def handle_data(self, data):
        self.words.append(data)


@pytest.mark.parametrize("facts", [healthy(), damaged(), {}])
def test_the_report_is_as_its_published_schema_says(facts):
    found = document(facts)
    assert list(breaches(json.loads(json.dumps(found)), SCHEMA)) == []
    assert render(found)


def test_the_schema_refuses_what_is_missing_unknown_or_of_another_kind():
    found = document()
    for change in ({"schema": 2}, {"compliance_status": "OK"}, {"extra": 1}, {"checks": {}}, {"generated_at": 5}):
        assert list(breaches({**found, **change}, SCHEMA))
    assert list(breaches({k: v for k, v in found.items() if k != "policy"}, SCHEMA))


@pytest.mark.parametrize("name", ["compliance-report-1.json", "evidence-record-1.json"])
def test_each_published_schema_uses_only_what_this_test_checks(name):
    known = {"type", "enum", "const", "properties", "required", "additionalProperties", "items", "anyOf", "pattern"}
    known |= {"minItems", "maxItems", "minimum", "format", "description", "title", "$schema"}

    def words(schema):
        assert set(schema) <= known
        for part in (
            *schema.get("properties", {}).values(),
            *schema.get("anyOf", ()),
            *filter(None, [schema.get("items")]),
        ):
            words(part)

    words(json.loads((DOCS / "schemas" / name).read_text()))


def test_the_same_facts_give_the_same_bytes():
    first, second = (build(healthy(), EXPECTED, now=NOW, execution="run-1") for _ in range(2))
    assert first.to_json() == second.to_json()
    assert render(first.document) == render(second.document)


def test_status_and_remediation_follow_from_the_verifications_alone():
    good, bad, nothing = document(), document(damaged()), document({"schema": 1})
    assert (good["compliance_status"], good["remediation_needed"], good["findings"]) == ("PASS", False, [])
    assert (bad["compliance_status"], bad["remediation_needed"]) == ("FAIL", True)
    assert (nothing["compliance_status"], nothing["remediation_needed"]) == ("INCOMPLETE", True)
    assert [v["verdict"] for v in nothing["verifications"]] == ["UNKNOWN"] * 5


def test_failures_come_before_what_is_unknown_and_each_has_a_remedy():
    findings = document(damaged())["findings"]
    verdicts = [f["verdict"] for f in findings]
    assert verdicts == sorted(verdicts)
    assert {"FAIL", "UNKNOWN"} == set(verdicts)
    assert all(f["remedy"] and f["reason"] for f in findings)


def test_the_timeline_shows_what_is_there_and_what_was_missed():
    lanes = {lane["stream"]: lane for lane in document(damaged())["timeline"]["lanes"]}
    assert lanes["weekly"]["missed"] == ["2026-10-25T02:00:00+00:00"]
    assert (len(lanes["weekly"]["points"]), lanes["weekly"]["known"]) == (11, True)
    assert (lanes["logical"]["points"], lanes["logical"]["known"]) == ([], False)


def test_recovery_points_and_times_are_measured_not_declared():
    found = {o["stream"]: o["rpo_seconds"] for o in document()["objectives"]}
    assert found == {"weekly": 100_500, "monthly": 1_918_500, "logical": 187_197, "point-in-time": 240}


def test_who_can_delete_is_read_from_the_policies():
    rows = {r["what"]: r for r in document()["who_can_delete"]}
    for guarded in ("the backup key", "recovery points in the vault"):
        assert rows[guarded]["who"] == [BREAK_GLASS]  # identity policies allow more, and the denial spares nobody else
    assert rows["on-demand snapshots"]["who"] == sorted([BREAK_GLASS, ADMIN, SWEEPER])
    assert rows["on-demand snapshots"]["sometimes"] == [SWEEPER]
    assert rows["dump sets and evidence, with every version"]["who"] == [ADMIN]
    assert rows["expired snapshots and sets, by plan"]["who"] == [SWEEPER]


def test_who_can_delete_is_unknown_where_no_policy_could_be_read():
    facts = damaged()
    rows = {r["what"]: r for r in document(facts)["who_can_delete"]}
    assert rows["the backup key"]["who"] == sorted([BREAK_GLASS, ADMIN])  # nobody knows of a denial
    assert "key policy could not be read" in rows["the backup key"]["by"]
    facts["observations"]["identities"] = unobserved("iam:GetAccountAuthorizationDetails", NOW, "AccessDenied")
    rows = {r["what"]: r for r in document(facts)["who_can_delete"]}
    assert rows["the backup key"]["who"] is None
    assert rows["recovery points in the vault"]["who"] == [BREAK_GLASS]
    assert "identity policies could not be read" in rows["recovery points in the vault"]["by"]


def test_the_record_names_documents_as_the_record_before_did():
    facts = healthy()
    assert documents_beside(facts, NOW) == sorted(DOCUMENTS, key=lambda d: d["key"])
    found = facts["observations"]["documents"]["value"]
    found[1]["sha256"] = "f" * 64  # rewritten
    del found[0]
    assert documents_beside(facts, NOW) == sorted(DOCUMENTS, key=lambda d: d["key"])
    found.append({"key": "new", "sha256": "0" * 64, "bytes": 1})
    assert documents_beside(facts, NOW)[-1]["key"] == "new"
    del facts["observations"]["previous"]
    assert documents_beside(facts, NOW) is None


def test_an_own_table_of_controls_takes_the_place_of_ours():
    row = {"id": "X-1", "framework": "Ours", "title": "Backups", "checks": ["retention.*"], "organisational": "People"}
    own = json.dumps({"schema": 1, "controls": [row]})
    found = build(healthy(), EXPECTED, now=NOW, execution="run-1", controls=own).document["controls"]
    assert [(c["id"], c["verdict"], len(c["checks"])) for c in found] == [("X-1", "PASS", 8)]


def sized(gigabytes=500):
    facts = healthy()
    facts["observations"]["storage"]["value"]["bytes"] = gigabytes * 10**9
    return facts


@pytest.fixture(scope="module")
def forecast():
    """A report whose cluster's size is known: simulated once, because seven years take a moment."""
    return document(sized())


def test_the_forecast_is_a_section_of_the_report_and_of_its_page(forecast):
    found = forecast["forecast"]
    assert (found["available"], found["region"], found["workload"]["size_gb"]) == (True, "eu-west-1", 500)
    assert found["from"] == NOW.date().isoformat()
    assert found["cheaper"]["total_cost"] < found["total_cost"]
    assert list(breaches(json.loads(json.dumps(forecast)), SCHEMA)) == []
    text = render(forecast)
    assert section_html(found) in text
    assert '<section class="forecast"' in text


def test_without_a_size_the_report_says_that_there_is_no_forecast():
    found = document()
    assert (found["forecast"]["available"], "size" in found["forecast"]["reason"]) == (False, True)
    assert found["forecast"]["reason"] in render(found)
    facts = healthy()
    del facts["observations"]["storage"]
    assert document(facts)["forecast"] == found["forecast"]
    assert document(facts)["costs"] is None


def test_a_forecast_of_the_same_day_from_the_same_is_taken_from_the_report_before(forecast, monkeypatch):
    calls = []
    done = Section({**forecast["forecast"], "new": True}, "")
    monkeypatch.setattr(compliance_report, "section", lambda *_, **__: calls.append(1) or done)

    def again(before, facts=None, expected=EXPECTED, now=NOW):
        return build(facts or sized(), expected, now=now, execution="run-2", before=before).document["forecast"]

    assert again(forecast) == forecast["forecast"]
    assert calls == []
    changed = dataclasses.replace(EXPECTED, policy=EXPECTED.policy.with_changes({"weekly": {"keep": {"days": 200}}}))
    for other in ({"facts": sized(501)}, {"expected": changed}, {"now": NOW + timedelta(days=1)}):
        assert again(forecast, **other)["new"]
    assert again(None)["new"]
    assert again({})["new"]
    assert len(calls) == 5


def test_costs_are_those_of_the_last_retention_plan():
    found = document()
    assert [(r["tier"], r["cost"]) for r in found["costs"]["tiers"]] == [("logical", 1.38), ("weekly", 126.0)]
    assert "USD 127.38" in " ".join(Page(render(found)).words)
    facts = healthy()
    costs = facts["observations"]["storage"]["value"]["costs"]
    costs["problem"] = "region must be one of these"
    assert document(facts)["costs"] is None
    costs.update(problem=None)
    costs["tiers"][0]["cost"] = "free"
    assert document(facts)["costs"] is None
    assert "The last retention plan does not say" in render(document(facts))


# --- The page --------------------------------------------------------------------------------------------------------


def hostile():
    """Names from outside, wherever they can stand."""
    facts = healthy()
    observations = facts["observations"]
    for item in observations["sets"]["value"]:
        item["database"] = HOSTILE
        item["set"] = HOSTILE
    for snapshot in observations["snapshots"]["value"]:
        snapshot["encrypted"] = False
        snapshot["arn"] = snapshot["id"] = HOSTILE
    for hold in observations["legal-holds"]["value"]:
        hold.update(dict.fromkeys(hold, HOSTILE))
    observations["identities"]["value"] = {
        "principals": [{"arn": HOSTILE, "may": {"sets": "always"}}],
        "unread": [HOSTILE],
    }
    for test in observations["recovery-tests"]["value"]:
        test["outcome"] = test["tier"] = HOSTILE
    observations["keys"] = {**observations["keys"], "ok": False, "error": HOSTILE}
    changes = {
        "cluster_id": HOSTILE,
        "owner": HOSTILE,
        "lineage": (EXPECTED.lineage[0], HOSTILE),
        "deleters": (HOSTILE,),
    }
    return document(facts, dataclasses.replace(EXPECTED, **changes))


def test_hostile_names_are_shown_and_do_nothing():
    text = render(hostile())
    found = Page(text)
    assert "script" not in found.elements
    assert not [a for a in found.attributes if a[1].startswith("on")]
    assert not [c for c in text if c in "\u202e\u2066\x07"]
    assert "U+202E" in text
    assert found.words.count("") == 0
    assert "<script>alert(1)" in "".join(found.words)  # as text


@pytest.mark.parametrize("facts", [healthy(), damaged()])
def test_the_page_loads_nothing_and_runs_nothing(facts):
    text = render(document(facts))
    found = Page(text)
    assert not set(found.elements) & {"script", "link", "iframe", "img", "object", "embed", "form", "base", "audio"}
    assert not [a for a in found.attributes if a[1] in ("src", "href", "srcset", "xlink:href", "action")]
    assert "url(" not in text
    assert "@import" not in text
    assert [a[2] for a in found.attributes if (a[2] or "").startswith("default-src 'none'")]
    assert not re.search(r"https?://", text)


def test_the_page_says_the_verdict_first_and_every_check_with_its_evidence():
    found = document(damaged())
    words = " ".join(Page(render(found)).words)
    assert words.index("FAIL") < words.index("What was verified") < words.index("Every check")
    for check in found["checks"]:
        assert check["id"] in words
        for evidence in check["evidence"]:
            assert (evidence["call"] or evidence["name"]) in words


def test_the_page_is_made_for_dark_print_and_phone():
    text = render(document())
    for wanted in ("prefers-color-scheme:dark", "@media print", "max-width:40rem", "width=device-width", 'lang="en"'):
        assert wanted in text


def test_what_is_folded_on_a_screen_is_printed():
    style = re.search(r"<style>(.*?)</style>", render(document()), re.DOTALL)[1]
    assert "details::details-content{display:block;content-visibility:visible" in style[style.index("@media print") :]


def test_code_in_a_text_is_shown_as_code_and_escaped():
    found = document(damaged())
    found["findings"][0]["remedy"] = "Run `a <b>` now, or `c"
    assert "Run <code>a &lt;b&gt;</code> now, or <code>c</code>" in render(found)


def test_elements_are_closed_in_the_order_in_which_they_were_opened():
    text = render(document(damaged()))
    open_elements = []
    for closing, element in re.findall(r"<(/?)([a-z]\w*)", re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)):
        if element in {"br", "meta"}:
            continue
        if closing:
            assert open_elements.pop() == element
        else:
            open_elements.append(element)
    assert open_elements == []


def test_markup_escapes_every_text_and_every_attribute():
    made = tag("p", "<b>", name("\u202ex"), title='"><script>', class_="a", data_l=None)
    assert str(made) == '<p title="&quot;&gt;&lt;script&gt;" class="a">&lt;b&gt;<bdi>⟦U+202E⟧x</bdi></p>'
    assert str(join([1, None, "&"], ", ")) == "1, , &amp;"
    assert str(safe(None)) == ""
    assert visible("a\nb\u200f") == "a⟦U+000A⟧b⟦U+200F⟧"
    assert "<title>&lt;x&gt;</title>" in page("<x>", "", tag("br"))


# --- No data of patients ---------------------------------------------------------------------------------------------


def test_nothing_that_makes_a_report_can_open_a_database():
    root = Path(aurora_backup.__file__).parent
    mine = [*root.glob("compliance*.py"), *root.glob("checks*.py"), *root.glob("evidence*.py")]
    mine += list((root / "handlers").glob("*_compliance.py"))
    assert len(mine) > 12
    forbidden = {"pg8000", "aurora_backup.postgres", "aurora_backup.facts_sql", "aurora_backup.catalog", "psycopg"}
    for path in mine:
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not forbidden & set(names), path
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not re.search(r"\bSELECT\b.*\bFROM\b", node.value), path


def test_pure_modules_read_no_clock_and_call_no_aws():
    root = Path(aurora_backup.__file__).parent
    pure = [*root.glob("checks*.py"), root / "controls.py", root / "evidence.py", root / "access_documents.py"]
    pure += [root / f"compliance{part}.py" for part in ("", "_facts", "_report", "_page", "_metrics", "_principals")]
    for path in pure:
        text = path.read_text()
        assert "boto" not in text, path
        assert not re.search(r"\bnow\(|os\.environ|time\.time|utcnow", text), path


# --- Metrics ---------------------------------------------------------------------------------------------------------


def lines(facts):
    return list(metrics(document(facts), facts, NOW))


def test_metrics_say_the_verdict_the_ages_and_the_dump():
    first, *streams = lines(healthy())
    assert first["CompliancePassed"] == 1
    assert first["RecoveryTestAge"] == (NOW - NOW.replace(day=2, hour=7, minute=44)).total_seconds()
    assert (first["RecoveryTime"], first["DumpBytes"], first["DumpDuration"]) == (1680, 5000, 60)
    assert {s["Stream"]: s["RecoveryPointAge"] for s in streams}["weekly"] == 100_500
    for line in (first, *streams):
        (about,) = line["_aws"]["CloudWatchMetrics"]
        assert about["Namespace"] == "AuroraBackup"
        assert all(m["Name"] in line for m in about["Metrics"])


def test_what_is_not_known_is_left_out_so_that_its_alarm_sees_it_missing():
    facts = damaged()
    first, *streams = lines(facts)
    assert first["CompliancePassed"] == 0
    assert "DumpBytes" not in first
    assert "logical" not in {s["Stream"] for s in streams}
    facts["observations"]["recovery-tests"]["value"] = []
    assert "RecoveryTestAge" not in lines(facts)[0]


def test_a_point_that_goes_missing_after_a_report_is_found_by_the_next_report():
    first = document()
    facts = copy.deepcopy(healthy())
    facts["observations"]["previous"]["value"] |= {"points": json.loads(json.dumps(first["points"]))}
    assert document(facts)["compliance_status"] == "PASS"
    facts["observations"]["recovery-points"]["value"].pop(0)
    findings = {f["check"]: f["reason"] for f in document(facts)["findings"]}
    assert set(findings) == {"completion.weekly"}
    assert "was there at the report before and is gone" in findings["completion.weekly"]
    assert iso(NOW - timedelta(0)) == first["generated_at"]
