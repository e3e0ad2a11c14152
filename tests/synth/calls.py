"""Which AWS operations the code behind each Lambda handler can reach, read from the code itself.

A call graph by name: from a handler's function, through every function and method of `aurora_backup` whose name is
called or passed on, as far as the modules that it imports. It says too much rather than too little where two classes
share a method's name; what it names is then looked up in the reviewed table (tests/data/operations.json).
"""

from __future__ import annotations

import ast
from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING

import boto3
from botocore import xform_name

from tests.synth.synthesis import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = ROOT / "lambdas/aurora_backup"
SERVICES = (
    "s3",
    "rds",
    "backup",
    "secretsmanager",
    "sns",
    "kms",
    "stepfunctions",
    "cloudwatch",
    "codebuild",
    "logs",
    "sts",
    "iam",
    "lambda",
)


@cache
def operations() -> dict[str, set[str]]:
    """boto3's method names, each with the services that have one of that name."""
    found: dict[str, set[str]] = defaultdict(set)
    for service in SERVICES:
        client = boto3.client(service, region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x")
        for operation in client.meta.service_model.operation_names:
            found[xform_name(operation)].add(service)
    return found


class Module:
    """One module: its functions (methods as Class.name), and what each mentions."""

    def __init__(self, name: str) -> None:
        path = PACKAGE / (name.replace(".", "/") + ".py")
        self.name = name
        tree = ast.parse(path.read_text())
        self.functions: dict[str, ast.AST] = {}
        self.top: list[ast.AST] = []
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                self.functions[node.name] = node
            elif isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef)):
                        self.functions[f"{node.name}.{inner.name}"] = inner
                    else:
                        self.top.append(inner)
            else:
                self.top.append(node)
        self.imports = set(_imports(tree))


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("aurora_backup"):
            base = node.module.removeprefix("aurora_backup").lstrip(".")
            for alias in node.names:
                for name in filter(None, (base, f"{base}.{alias.name}".lstrip("."))):
                    if (PACKAGE / (name.replace(".", "/") + ".py")).exists():
                        yield name


@cache
def module(name: str) -> Module:
    return Module(name)


@cache
def _mentions(node: ast.AST) -> frozenset[str]:
    walked = list(ast.walk(node))
    return frozenset(
        [n.attr for n in walked if isinstance(n, ast.Attribute)] + [n.id for n in walked if isinstance(n, ast.Name)]
    )


@cache
def _called(node: ast.AST) -> frozenset[str]:
    """Names of AWS operations: called on a client, or named to a paginator, a waiter's poll or getattr."""
    texts = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    attributes = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
    return frozenset(operations().keys() & (texts | attributes))


def _all_modules(first: str) -> set[str]:
    seen, waiting = set(), [first]
    while waiting:
        if (name := waiting.pop()) not in seen:
            seen.add(name)
            waiting += module(name).imports
    return seen


def _by_name(modules: set[str]) -> dict[str, list[ast.AST]]:
    """What a mentioned name may stand for: functions, methods of any class, constructors, tables of a module."""
    found: dict[str, list[ast.AST]] = defaultdict(list)
    for name in modules:
        for function, node in module(name).functions.items():
            owner, _, short = function.rpartition(".")
            found[owner if short == "__init__" else short].append(node)
        for node in module(name).top:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            for target in targets:
                if isinstance(target, ast.Name):
                    found[target.id].append(node)
    return found


@cache
def reached(handler: str) -> frozenset[str]:
    """The operations that `aurora_backup.handlers.<handler>.handler` can reach."""
    name = f"handlers.{handler}"
    by_name = _by_name(_all_modules(name))
    todo = [module(name).functions["handler"]]
    done: dict[int, ast.AST] = {}
    while todo:
        node = todo.pop()
        if id(node) not in done:
            done[id(node)] = node
            for mentioned in _mentions(node):
                todo += by_name.get(mentioned, [])
    return frozenset(call for node in done.values() for call in _called(node))
