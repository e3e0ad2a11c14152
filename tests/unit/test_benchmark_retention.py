"""The retention benchmark, through `python -m benchmarks` as `make bench` starts it, with sizes that take no time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks.retention import wrong

ROOT = Path(__file__).parents[2]
COLUMNS = {"name", "workload", "sink", "size_mb", "wall_s", "cpu_s", "peak_mb", "output_mb", "runs", "limit"}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    output = tmp_path_factory.mktemp("bench")
    command = [sys.executable, "-m", "benchmarks", "retention", "--points", "150,1500", "--output", str(output)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "BENCH_QUICK": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads((output / "retention.json").read_text())


def test_the_document_has_the_schema_of_design_and_a_row_for_each_size(ran):
    _, document = ran
    assert set(document) == {"schema", "machine", "rows"}
    assert document["schema"] == 1
    assert document["machine"]["cpus"] >= 1
    assert [(row["name"], row["points"]) for row in document["rows"]] == [("points-150", 150), ("points-1500", 1500)]
    for row in document["rows"]:
        assert set(row) >= COLUMNS
        assert (row["workload"], row["sink"], row["runs"], row["limit"]) == ("retention-plan", "memory", 1, None)
        assert 0 < row["wall_s"] < 60
        assert row["peak_mb"] > 1


def test_the_calls_are_the_pages_and_the_points_are_all_there(ran):
    for row in ran[1]["rows"]:
        assert row["api_calls"] == row["pages"]
        assert row["reads"] == 7  # a verification record for the newest set of each database
    small, large = (row["pages"] for row in ran[1]["rows"])
    assert small < large < 60


def test_it_tells_what_it_measured(ran):
    told = ran[0].splitlines()
    assert told[0].split()[:2] == ["150", "points:"]
    assert told[-1].endswith("retention.json")


def test_a_benchmark_that_does_not_exist_is_refused_by_name(capsys):
    with pytest.raises(SystemExit):
        benchmarks.main(["retentoin"])
    assert "NAME must be dump or retention, got 'retentoin'" in capsys.readouterr().err


def row(**changes):
    usual = {"name": "r", "api_calls": 3, "pages": 3, "plan_ms": 100, "act_ms": 100, "peak_mb": 100}
    return {**usual, **changes}


@pytest.mark.parametrize(
    ("large", "problem"),
    [
        ({}, None),
        ({"api_calls": 4}, "r: 4 calls for 3 pages"),
        ({"plan_ms": 2950}, "time grows faster than the points: 200 and 3050"),
        ({"plan_ms": 2900}, None),
        ({"peak_mb": 1501}, "memory grows faster than the points: 100 and 1501"),
    ],
)
def test_what_is_not_linear_or_not_paged_is_wrong(large, problem):
    assert list(wrong([row(), row(**large)])) == ([problem] if problem else [])
