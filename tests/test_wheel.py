"""The wheel as a stranger meets it: built, unpacked away from this tree, and used by an app of somebody else's."""

from __future__ import annotations

import json
import zipfile


def test_the_wheel_holds_both_packages_their_types_the_certificates_and_the_command(wheel):
    with zipfile.ZipFile(wheel.file) as archive:
        names = set(archive.namelist())
        entry_points = next(n for n in names if n.endswith("entry_points.txt"))
        assert "aurora-backup = aurora_backup.cli:main" in archive.read(entry_points).decode()
    assert {
        "cdk_aurora_backup/__init__.py",
        "cdk_aurora_backup/py.typed",
        "aurora_backup/py.typed",
        "aurora_backup/policy.py",
        "aurora_backup/rds-ca-bundle.pem",
        "aurora_backup/rds-ca-bundle-cn.pem",
        "aurora_backup/handlers/dump.py",
    } <= names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {
        "cdk_aurora_backup",
        "aurora_backup",
    }


def test_the_tree_itself_is_out_of_reach(wheel):
    done = wheel.imported
    assert done.returncode == 0, done.stderr
    assert all(path.startswith(str(wheel.site)) for path in done.stdout.split())


def test_the_example_with_an_imported_cluster_synthesises_from_the_wheel(wheel):
    done = wheel.example_done
    assert done.returncode == 0, done.stderr[-2000:]
    resources = json.loads((wheel.example / "ClinicBackup.template.json").read_text())["Resources"]
    kinds = {resource["Type"] for resource in resources.values()}
    assert {"AWS::Backup::BackupPlan", "AWS::S3::Bucket", "AWS::StepFunctions::StateMachine"} <= kinds
