"""The rules of the house: what may import what, and what may never be in the tree."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RUNTIME = ROOT / "lambdas" / "aurora_backup"
SYNTH = ROOT / "constructs" / "cdk_aurora_backup"
IMPURE_MODULES = {"boto3", "botocore", "pg8000", "aws_cdk", "os", "subprocess", "socket", "requests"}
IMPURE_CALLS = {"now", "utcnow", "today", "getenv", "time", "monotonic", "uuid4", "random"}


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def says_it_is_pure() -> list[str]:
    """Modules whose docstring says "Pure.": no clock, no environment, no network, no database."""
    docstrings = {path.stem: ast.get_docstring(tree(path)) or "" for path in RUNTIME.glob("*.py")}
    return sorted(name for name, text in docstrings.items() if re.search(r"\bPure\.", text))


def imported(module: ast.AST) -> set[str]:
    """The first parts of everything that is imported, at the top or inside a function."""
    found = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def test_what_the_packages_import_is_declared_or_required_by_what_is():
    def named(requirements: list[str]) -> set[str]:
        return {re.match(r"[A-Za-z0-9_.-]+", line)[0] for line in requirements}

    declared = named(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])
    there = declared.union(*(named(importlib.metadata.requires(name) or []) for name in declared))
    ours = {"aurora_backup", "cdk_aurora_backup", *sys.stdlib_module_names}
    found = {name for root in (SYNTH, RUNTIME) for path in root.rglob("*.py") for name in imported(tree(path))} - ours
    brought_by = importlib.metadata.packages_distributions()
    assert [name for name in sorted(found) if there.isdisjoint(brought_by.get(name, []))] == []


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: there is no list of what is committed")
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("root", ["constructs", "lambdas"])
def test_a_source_root_is_no_package_because_constructs_would_shadow_the_library_of_that_name(root):
    assert not (ROOT / root / "__init__.py").exists()


def test_each_source_root_holds_one_package_and_the_wheel_holds_both():
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["constructs/cdk_aurora_backup", "lambdas/aurora_backup"]
    for root, package in (("constructs", SYNTH), ("lambdas", RUNTIME)):
        assert [p for p in (ROOT / root).iterdir() if p.is_dir() and p.name != "__pycache__"] == [package]
        assert (package / "py.typed").exists()


@pytest.mark.parametrize("path", sorted(RUNTIME.rglob("*.py")), ids=lambda p: str(p.relative_to(RUNTIME)))
def test_what_runs_never_imports_what_deploys(path):
    assert not {"aws_cdk", "constructs", "cdk_aurora_backup", "cdk_nag", "jsii"} & imported(tree(path))


def test_the_modules_that_decide_say_that_they_are_pure():
    assert {"policy", "schedule", "identifiers", "retention", "tags"} <= set(says_it_is_pure())


@pytest.mark.parametrize("name", says_it_is_pure())
def test_a_decision_reads_no_clock_no_environment_and_no_service(name):
    module = tree(RUNTIME / f"{name}.py")
    assert not IMPURE_MODULES & imported(module)
    calls = {n.func.attr for n in ast.walk(module) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)}
    assert not IMPURE_CALLS & calls


@pytest.mark.parametrize("path", sorted((RUNTIME / "handlers").glob("*.py")), ids=lambda p: p.stem)
def test_a_handler_makes_no_client_when_it_is_imported(path):
    for node in tree(path).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            continue
        calls = [n for n in ast.walk(node) if isinstance(n, ast.Call)]
        assert not [c for c in calls if "client" in ast.unparse(c.func)], path


def test_constructs_need_no_service_at_synth():
    for path in SYNTH.glob("*.py"):
        assert not {"boto3", "botocore"} & imported(tree(path)), path


def test_nothing_that_is_committed_names_a_machine_an_account_or_a_secret():
    # Written so that this file does not hold what it looks for. Accounts are those that AWS's own examples use.
    home = re.compile(r"(?<![\w.])/(?:home|root|Users|work)/" + r"\w")
    account = re.compile(r"(?<!\d)(\d{12})(?!\d)")
    examples = {"111122223333", "444455556666", "123456789012", "777788889999", "000000000000", "999988887777"}
    secret = re.compile(r"AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY|aws_secret_access_key\s*=\s*\S{20}")
    text = {".py", ".md", ".json", ".toml", ".txt", ".yml", ".yaml", ".sql", ".sh", ".cfg", ""}
    for path in tracked():
        if path.suffix not in text or path.name == "package-lock.json":
            continue
        body = path.read_text(errors="replace")
        where = path.relative_to(ROOT)
        assert not home.search(body), f"{where}: {home.search(body)}"
        assert not secret.search(body), where
        arns = [m for m in account.findall(body) if m not in examples and re.search(rf"(:|account\D{{0,9}}){m}", body)]
        assert not arns, f"{where}: {arns}"
