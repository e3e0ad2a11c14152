"""`cdk synth` as `make synth` runs it: the compliance packs, CDK's validator, cfn-lint, and the same bytes twice."""

from __future__ import annotations

import filecmp
import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.synth.synthesis import pinned

ROOT = Path(__file__).parent.parent.parent
ACKNOWLEDGED = Path(__file__).with_name("acknowledged.json")
PACKS = ("HIPAA.Security", "NIST.800.53.R5", "PCI.DSS.321", "AwsSolutions")
# app.py as it is, but every stack gets one bucket that nobody would accept.
INJECTED = """
import runpy
import aws_cdk.aws_s3 as s3
from cdk_aurora_backup import stack

class Careless(stack.AuroraBackupStack):
    def __init__(self, scope, config):
        super().__init__(scope, config)
        s3.Bucket(self, "Careless")

stack.AuroraBackupStack = Careless
runpy.run_path("app.py", run_name="__main__")
"""


def synth(output: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The unmodified CDK CLI, with the interpreter of these tests first on PATH."""
    path = os.pathsep.join([str(Path(sys.executable).parent), str(ROOT / "node_modules" / ".bin"), os.environ["PATH"]])
    environment = {k: v for k, v in os.environ.items() if k != "CDK_VALIDATION"}
    return subprocess.run(
        ["cdk", "synth", "--quiet", "--output", str(output), *options],
        cwd=ROOT,
        env={**environment, "PATH": path, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three synths: as it is; again, with other hashes and without the validator; and with a careless bucket."""
    base = tmp_path_factory.mktemp("cdk")
    script = base / "injected.py"
    script.write_text(INJECTED)
    jobs = {
        "plain": ((), {"PYTHONHASHSEED": "1"}),
        "again": ((), {"PYTHONHASHSEED": "2", "CDK_VALIDATION": "false"}),
        "careless": (("--app", f"{sys.executable} {script}"), {"CDK_VALIDATION": "false", "PYTHONPATH": str(ROOT)}),
    }
    with ThreadPoolExecutor(2) as pool:
        started = {name: pool.submit(synth, base / name, *job[0], **job[1]) for name, job in jobs.items()}
        yield {name: (base / name, future.result()) for name, future in started.items()}
    shutil.rmtree(base, ignore_errors=True)


def report(output: Path) -> dict[str, dict]:
    found = json.loads((output / "validation-report.json").read_text())["pluginReports"]
    return {each["pluginName"]: each for each in found}


def test_make_synth_is_clean_under_every_pack_and_cdks_own_validator(runs):
    output, done = runs["plain"]
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = report(output)
    for pack in PACKS:
        assert (found[pack]["conclusion"], found[pack]["violations"]) == ("success", [])
    errors = [v for each in found.values() for v in each["violations"] if v["severity"] in {"error", "fatal"}]
    assert errors == []


def test_every_acknowledgement_is_pinned_so_that_a_new_one_is_seen(runs):
    # Rules by kind, and the constructs at which each is acknowledged. A change here is a decision for a reviewer.
    kinds = defaultdict(set)
    for pack in PACKS:
        for each in report(runs["plain"][0])[pack]["suppressedViolations"]:
            rule = re.sub(r"\[.*", "", each["ruleName"]).removeprefix(f"{pack}-")
            where = each["violatingConstructs"][0]["constructPath"].removesuffix("/Resource")
            kinds[rule].add(where)
    found = {kind: sorted(where) for kind, where in kinds.items()}
    assert found == pinned(ACKNOWLEDGED, found)


def test_every_acknowledgement_has_a_reason_and_a_prefixed_id(runs):
    for pack in PACKS:
        for each in report(runs["plain"][0])[pack]["suppressedViolations"]:
            assert each["acknowledgedId"].startswith(f"{pack}::{pack}-")
            assert len(each["reason"]) > 20, each["acknowledgedId"]


def test_a_finding_makes_synth_fail_and_says_which_rule_and_where(runs):
    output, done = runs["careless"]
    assert done.returncode != 0
    assert "AuroraBackup/Careless/Resource" in done.stdout + done.stderr
    violated = {v["ruleName"] for v in report(output)["HIPAA.Security"]["violations"]}
    assert "HIPAA.Security-S3BucketVersioningEnabled" in violated


def test_two_synths_are_byte_identical_assets_and_all(runs):
    (first, one), (second, two) = runs["plain"], runs["again"]
    assert (one.returncode, two.returncode) == (0, 0)
    names = [
        p.name for p in first.iterdir() if p.name.startswith("asset.") or ".template." in p.name or ".assets." in p.name
    ]
    assert len(names) > 4
    for name in names:
        left, right = first / name, second / name
        if left.is_file():
            assert left.read_bytes() == right.read_bytes(), name
            continue
        files = sorted(str(p.relative_to(left)) for p in left.rglob("*") if p.is_file())
        assert files == sorted(str(p.relative_to(right)) for p in right.rglob("*") if p.is_file())
        different = filecmp.cmpfiles(left, right, files, shallow=False)[1:]
        assert different == ([], [])


def test_no_literal_partition_in_what_is_deployed_and_no_path_of_this_machine(runs):
    output = runs["plain"][0]
    for template in output.glob("*.template.json"):
        text = template.read_text()
        assert "arn:aws:" not in text
        assert str(ROOT) not in text


def test_cfn_lint_is_clean(runs):
    # W3005: CDK writes DependsOn beside a GetAtt that implies it, which is redundant and harmless.
    tool = str(Path(sys.executable).with_name("cfn-lint"))
    command = [tool, "--ignore-checks", "W3005", "--format", "parseable", "--template"]
    (template,) = runs["plain"][0].glob("*.template.json")
    done = subprocess.run([*command, str(template)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_wrong_setting_stops_synth_with_its_name():
    done = subprocess.run(
        [sys.executable, "app.py"],
        cwd=ROOT,
        env={**os.environ, "CDK_CONTEXT_JSON": '{"backup:profil": "dev"}'},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "backup:profil is not a setting; there are account, " in done.stderr
