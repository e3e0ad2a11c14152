"""The table of controls: in data, whole, and honest about what no check can show."""

from __future__ import annotations

import json

import pytest

from aurora_backup.checks import CHECKS
from aurora_backup.compliance import assess
from aurora_backup.controls import ControlsError, ControlVerdict, default_controls, judge, read_controls
from tests.unit.healthy_facts import EXPECTED, NOW, healthy

IDS = [spec.id for spec in CHECKS]
WANTED = {
    "164.308(a)(7)(i)", "164.308(a)(7)(ii)(A)", "164.308(a)(7)(ii)(B)", "164.308(a)(7)(ii)(C)", "164.308(a)(7)(ii)(D)",
    "164.308(a)(7)(ii)(E)", "164.310(d)(2)(iv)", "164.312(a)(2)(iv)", "164.312(b)", "164.312(c)(1)", "164.312(e)(1)",
    "164.316(b)(2)(i)", "CP-4", "CP-6", "CP-9", "CP-10",
}  # fmt: skip


def table():
    return read_controls(default_controls(), IDS)


def verdicts(facts):
    found = judge(table(), assess(facts, EXPECTED, NOW, checks=CHECKS))
    return {r.control.id: r.verdict for r in found}


def test_the_table_names_every_control_that_is_promised_and_every_check():
    assert {c.id for c in table()} == WANTED
    judged = judge(table(), assess(healthy(), EXPECTED, NOW, checks=CHECKS))
    used = {check for result in judged for check in result.checks}
    assert used == {spec.id for spec in CHECKS if spec.applies(EXPECTED)}


def test_what_no_check_can_show_is_organisational_and_every_row_says_what_is_not_shown():
    found = verdicts(healthy())
    organisational = {i for i, v in found.items() if v is ControlVerdict.ORGANISATIONAL}
    assert organisational == {"164.308(a)(7)(ii)(C)", "164.308(a)(7)(ii)(E)"}
    assert {v for i, v in found.items() if i not in organisational} == {ControlVerdict.PASS}
    assert all(c.organisational for c in table())


def test_one_failing_check_fails_the_controls_that_rest_on_it_and_no_other():
    facts = healthy()
    facts["observations"]["recovery-tests"]["value"][-1]["outcome"] = "DAMAGED"
    failed = {i for i, v in verdicts(facts).items() if v is ControlVerdict.FAIL}
    assert failed == {
        "164.308(a)(7)(i)", "164.308(a)(7)(ii)(B)", "164.308(a)(7)(ii)(D)", "164.312(c)(1)", "CP-4", "CP-9", "CP-10",
    }  # fmt: skip


def test_without_facts_no_control_passes():
    assert ControlVerdict.PASS not in verdicts({}).values()


def row(**change):
    return {"id": "A", "framework": "F", "title": "T", "checks": ["retention.*"], "organisational": "O", **change}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "JSON"),
        ("[]", "schema must be 1"),
        (json.dumps({"schema": 2, "controls": [row()]}), "schema must be 1"),
        (json.dumps({"schema": 1, "controls": []}), "at least one"),
        (json.dumps({"schema": 1, "controls": [row(), row()]}), "twice"),
        (json.dumps({"schema": 1, "controls": [row(checks=["no.such"])]}), "there is no check 'no.such'"),
        (json.dumps({"schema": 1, "controls": [row(checks="retention.*")]}), "checks must be a list"),
        (json.dumps({"schema": 1, "controls": [row(title="")]}), "title must be a text"),
        (json.dumps({"schema": 1, "controls": [{**row(), "extra": 1}]}), "exactly"),
    ],
)
def test_a_malformed_table_is_refused_and_says_why(text, says):
    with pytest.raises(ControlsError, match=says):
        read_controls(text, IDS)
