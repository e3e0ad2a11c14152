"""`cdk synth` as `make synth` runs it: the compliance packs, CDK's validator, cfn-lint, and the same bytes twice."""

from __future__ import annotations

import filecmp
import json
import re
from collections import defaultdict
from pathlib import Path

from tests.synth.synthesis import pinned

ROOT = Path(__file__).parent.parent.parent
ACKNOWLEDGED = Path(__file__).with_name("acknowledged.json")
PACKS = ("HIPAA.Security", "NIST.800.53.R5", "PCI.DSS.321", "AwsSolutions")


def report(output: Path) -> dict[str, dict]:
    found = json.loads((output / "validation-report.json").read_text())["pluginReports"]
    return {each["pluginName"]: each for each in found}


def test_make_synth_is_clean_under_every_pack_and_cdks_own_validator(synths):
    assert synths.plain_done.returncode == 0, synths.plain_done.stdout[-3000:] + synths.plain_done.stderr[-3000:]
    output = synths.plain
    found = report(output)
    for pack in PACKS:
        assert (found[pack]["conclusion"], found[pack]["violations"]) == ("success", [])
    errors = [v for each in found.values() for v in each["violations"] if v["severity"] in {"error", "fatal"}]
    assert errors == []


def test_the_dev_profile_is_clean_under_every_pack_too(dev):
    found = report(dev.directory)
    assert [(pack, found[pack]["violations"]) for pack in PACKS] == [(pack, []) for pack in PACKS]
    unprotected = [
        each["reason"]
        for pack in PACKS
        for each in found[pack]["suppressedViolations"]
        if re.search("DeletionProtection|RDS10$", each["ruleName"])
    ]
    assert len(unprotected) == 3
    assert all(reason.startswith("The caller switched deletion protection off") for reason in unprotected)


def test_every_acknowledgement_is_pinned_so_that_a_new_one_is_seen(synths):
    # Rules by kind, and the constructs at which each is acknowledged. A change here is a decision for a reviewer.
    kinds = defaultdict(set)
    for pack in PACKS:
        for each in report(synths.plain)[pack]["suppressedViolations"]:
            rule = re.sub(r"\[.*", "", each["ruleName"]).removeprefix(f"{pack}-")
            where = each["violatingConstructs"][0]["constructPath"].removesuffix("/Resource")
            kinds[rule].add(where)
    found = {kind: sorted(where) for kind, where in kinds.items()}
    assert found == pinned(ACKNOWLEDGED, found)


def test_every_acknowledgement_has_a_reason_and_a_prefixed_id(synths):
    for pack in PACKS:
        for each in report(synths.plain)[pack]["suppressedViolations"]:
            assert each["acknowledgedId"].startswith(f"{pack}::{pack}-")
            assert len(each["reason"]) > 20, each["acknowledgedId"]


def test_a_finding_makes_synth_fail_and_says_which_rule_and_where(synths):
    done = synths.careless_done
    assert done.returncode != 0
    assert "Careless/Bucket/Resource" in done.stdout + done.stderr
    violated = {v["ruleName"] for v in report(synths.careless)["HIPAA.Security"]["violations"]}
    assert "HIPAA.Security-S3BucketVersioningEnabled" in violated


def test_two_synths_are_byte_identical_assets_and_all(synths):
    first, second = synths.plain, synths.careless
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


def test_no_literal_partition_in_what_is_deployed_and_no_path_of_this_machine(synths):
    output = synths.plain
    for template in output.glob("*.template.json"):
        text = template.read_text()
        assert "arn:aws:" not in text
        assert str(ROOT) not in text


def test_cfn_lint_is_clean(synths):
    done = synths.linted
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_wrong_setting_stops_synth_with_its_name(synths):
    assert synths.misspelt.returncode != 0
    assert "backup:profil is not a setting; there are account, " in synths.misspelt.stderr
