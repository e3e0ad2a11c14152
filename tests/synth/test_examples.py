"""The example of a new cluster; `test_many_accounts.py` and `test_wheel.py` have the others."""

from __future__ import annotations

import json
import sys

from tests import programs


def test_key_vault_and_compliance_report_of_the_new_clusters_example_spare_the_same_role(tmp_path):
    done = programs.run(sys.executable, "examples/new_cluster/app.py", CDK_OUTDIR=str(tmp_path), CDK_VALIDATION="false")
    assert done.returncode == 0, done.stderr[-2000:]
    (template,) = tmp_path.glob("*.template.json")
    resources = json.loads(template.read_text())["Resources"].values()
    for kind, holds in (
        ("AWS::KMS::Key", "KeyPolicy"),
        ("AWS::Backup::BackupVault", "AccessPolicy"),
        ("AWS::Lambda::Function", "Environment"),
    ):
        found = [json.dumps(r["Properties"][holds]) for r in resources if r["Type"] == kind]
        told = [text for text in found if '"COMPLIANCE"' in text] if holds == "Environment" else found
        assert told
        assert all("role/BreakGlass" in text for text in told), kind
        assert not any("break_glass" in text and ":root" in text for text in told)
