"""The wheel as a stranger meets it: built, unpacked away from this tree, and used by an app of somebody else's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def empty_environment(tmp_path_factory, wheel) -> dict[str, str]:
    """An environment that has our wheel and our dependencies, but not this tree.

    Installing aws-cdk-lib anew takes a minute and 300 MB, so the dependencies are read from where they are installed
    already. `python -S -m ...` and an explicit path keep that place's `.pth` files, and with them the editable install
    of this tree, out; `test_the_tree_itself_is_out_of_reach` says so.
    """
    site = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True)
    return {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/tmp"),
        "PYTHONPATH": os.pathsep.join([str(site), sysconfig.get_path("purelib")]),
        "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20",
        "JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION": "1",
        "CDK_VALIDATION": "false",
        "SITE": str(site),
    }


def python(environment: dict[str, str], *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-S", *arguments], env=environment, cwd=cwd, capture_output=True, text=True, check=False
    )


def test_the_wheel_holds_both_packages_their_types_the_certificates_and_the_command(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = next(n for n in names if n.endswith("entry_points.txt"))
        assert "aurora-backup = aurora_backup.cli:main" in archive.read(entry_points).decode()
    assert {
        "cdk_aurora_backup/__init__.py",
        "cdk_aurora_backup/py.typed",
        "aurora_backup/py.typed",
        "aurora_backup/policy.py",
        "aurora_backup/rds-ca-bundle.pem",
        "aurora_backup/handlers/dump.py",
    } <= names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {
        "cdk_aurora_backup",
        "aurora_backup",
    }


def test_the_tree_itself_is_out_of_reach(empty_environment, tmp_path):
    code = "import cdk_aurora_backup, aurora_backup; print(cdk_aurora_backup.__file__, aurora_backup.__file__)"
    done = python(empty_environment, "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(path.startswith(empty_environment["SITE"]) for path in done.stdout.split())


def test_the_example_with_an_imported_cluster_synthesises_from_the_wheel(empty_environment, tmp_path):
    app = tmp_path / "app.py"
    app.write_text((ROOT / "examples" / "imported_cluster" / "app.py").read_text())
    output = tmp_path / "cdk.out"
    done = python({**empty_environment, "CDK_OUTDIR": str(output)}, str(app), cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    resources = json.loads((output / "ClinicBackup.template.json").read_text())["Resources"]
    kinds = {resource["Type"] for resource in resources.values()}
    assert {"AWS::Backup::BackupPlan", "AWS::S3::Bucket", "AWS::StepFunctions::StateMachine"} <= kinds
    assert "AWS::RDS::DBCluster" not in kinds
    code = [path for path in output.glob("asset.*") if (path / "aurora_backup" / "policy.py").exists()]
    assert len(code) == 1, "the functions' code came from the installed package"
    assert (code[0] / "pg8000").is_dir(), "and with it what it depends on"
