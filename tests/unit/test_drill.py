"""The drill's own behaviour, without a drill: what it leaves, when it is ok, and how it ends."""

from __future__ import annotations

import contextlib
import json

import pytest

from drill import __main__ as drill
from drill import compliance
from drill.journal import Journal, Step, StepFailedError
from local.server import LocalAws

# design.md and the issues name these.
REQUIRED = {"synth", "deploy", "load", "logical-backup", "restore", "compare", "damage"}


def left(path):
    return json.loads(path.read_text())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "drill.json"


def test_what_an_earlier_drill_left_is_deleted_first(path):
    path.write_text('{"ok": true}')
    with Journal(path):
        assert not path.exists()


def test_the_file_is_written_after_every_step_and_ok_only_when_all_of_them_ran(path):
    with Journal(path) as journal:
        for name in ("first", "second"):
            with journal.step(name, "title") as step:
                step.detail["rows_expected"] = 3
            assert (left(path)["ok"], left(path)["steps"][-1]["name"]) == (False, name)
        journal.finish()
    assert left(path)["schema"] == 1
    assert left(path)["ok"] is True
    assert left(path)["steps"][0]["detail"] == {"rows_expected": 3}
    assert list(path.parent.iterdir()) == [path], "the scratch file took its place"


def test_a_drill_without_steps_is_not_ok(path):
    with Journal(path) as journal:
        journal.finish()
    assert left(path)["ok"] is False


@pytest.mark.parametrize("error", [StepFailedError("rows: 3 expected, got 2"), KeyboardInterrupt(), OSError("full")])
def test_a_step_that_raises_is_written_down_as_failed_and_its_error_goes_on(path, error):
    with pytest.raises(type(error)), Journal(path) as journal, journal.step("compare", "title"):
        raise error
    (step,) = left(path)["steps"]
    assert (step["ok"], step["detail"]["error"]) == (False, f"{type(error).__name__}: {error}")


def test_a_negative_control_fails_its_step_when_one_case_did_not_go_as_expected(path):
    with Journal(path) as journal:
        with journal.step("damage", "title") as step:
            step.case("undamaged", "passes", "passes", ok=True)
        with (
            pytest.raises(StepFailedError, match="truncated: expected refused, got passes"),
            journal.step("d", "t") as step,
        ):
            step.case("truncated", "refused", "passes", ok=False)
        journal.finish()
    assert [step["ok"] for step in left(path)["steps"]] == [True, False]
    assert left(path)["ok"] is False


class Aws:
    """Stands in for the local AWS."""

    def __init__(self, _root):
        self.stopped = False

    def start(self):
        pass

    def stop(self):
        Aws.stops += 1


def ended(monkeypatch, tmp_path, *steps, aws=Aws):
    Aws.stops = 0
    monkeypatch.setattr(drill, "LocalAws", aws)
    monkeypatch.setattr(drill, "STEPS", tuple((f"step{n}", step) for n, step in enumerate(steps)))
    status = drill.main(["--root", str(tmp_path)])
    return status, {s["name"]: s["ok"] for s in left(tmp_path / "drill.json")["steps"]}


def good(_world, _step):
    """Holds."""


def failing(error):
    def step(_world, _step):
        """Does not hold."""
        raise error

    return step


def test_the_exit_status_is_zero_only_when_every_step_held(monkeypatch, tmp_path):
    assert ended(monkeypatch, tmp_path, good, good) == (0, {"step0": True, "step1": True, "cleanup": True})


@pytest.mark.parametrize("error", [StepFailedError("no"), KeyboardInterrupt(), ValueError("unforeseen")])
def test_however_a_step_ends_the_rest_is_stopped_summed_up_and_the_status_is_one(monkeypatch, tmp_path, capsys, error):
    assert ended(monkeypatch, tmp_path, failing(error), good) == (1, {"step0": False, "cleanup": True})
    assert Aws.stops == 1
    assert f"FAIL: {tmp_path}" in capsys.readouterr().out


def test_a_cleanup_that_fails_fails_the_drill_and_hides_nothing(monkeypatch, tmp_path, capsys):
    class Stuck(Aws):
        def stop(self):
            raise OSError("busy")

    assert ended(monkeypatch, tmp_path, good, aws=Stuck) == (1, {"step0": True, "cleanup": False})
    assert "FAIL" in capsys.readouterr().out


def test_every_step_that_is_asked_for_runs_once_and_says_what_it_does():
    names = [name for name, _ in drill.STEPS]
    assert set(names) >= REQUIRED
    assert len(set(names)) == len(names)
    assert all(run.__doc__ for _, run in drill.STEPS)


@pytest.mark.parametrize(
    ("verdicts", "ok"),
    [
        ({"a.b": "FAIL", "c.d": "UNKNOWN"}, True),
        ({"a.b": "FAIL"}, False),
        ({"a.b": "FAIL", "c.d": "UNKNOWN", "e.f": "UNKNOWN"}, False),
        ({"a.b": "FAIL", "c.d": "UNKNOWN", "e.f": "FAIL"}, False),
        ({"a.b": "UNKNOWN", "c.d": "UNKNOWN"}, False),
    ],
)
def test_a_drift_is_found_when_exactly_its_check_fails_and_exactly_what_it_says_is_unknown(monkeypatch, verdicts, ok):
    def report(_world):
        checks = [{"id": i, "verdict": v, "reason": "it is off", "remedy": "put it on"} for i, v in verdicts.items()]
        return {"compliance_status": "FAIL", "checks": checks}

    @contextlib.contextmanager
    def happens(_world):
        yield ""

    drift = compliance.Drift("x", "a.b", "off", "on", happens, unknown=frozenset({"c.d"}))
    monkeypatch.setattr(compliance, "DRIFTS", (drift,))
    monkeypatch.setattr(compliance, "run_report", report)
    step = Step("compliance-detects-drift")
    compliance.compliance_detects_drift(None, step)
    case, _ = step.detail["cases"]
    assert (case["ok"], case["expected"]) == (ok, "a.b: off; UNKNOWN: c.d")
    assert ("c.d" in case["actual"]) == ("c.d" in verdicts)


def test_a_local_aws_that_died_before_it_had_begun_is_stopped_without_another_error(tmp_path):
    class Process:
        stopped = False

        def stop(self):
            Process.stopped = True

    aws = LocalAws(tmp_path / "aws")
    aws._process = Process()
    aws.stop()
    assert Process.stopped


def test_what_ends_the_drill_before_its_first_step_is_written_down(tmp_path, monkeypatch, capsys):
    def dies(_aws):
        raise OSError("the local AWS did not come up")

    monkeypatch.setattr(drill.LocalAws, "start", dies)
    assert drill.main(["--root", str(tmp_path)]) == 1
    document = json.loads((tmp_path / "drill.json").read_text())
    assert (document["ok"], document["error"]) == (False, "OSError: the local AWS did not come up")
    assert "the local AWS did not come up" in capsys.readouterr().out
