"""`make mutants`: change the decision module in one place at a time, and see whether a test notices.

A survivor is a change that no test notices: a test is missing, or the change makes no difference. The known survivors
that make no difference are listed with their reason in docs/retention.md. Each mutant runs the tests of the decision in
a process of its own, stopped at the first failure or when it takes too long, which counts as noticed.

    .venv/bin/python -m tools.mutants [--list] [--only NUMBER ...] [--jobs N]
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import signal
import sys
import time
import types
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis  # noqa: F401  imported here, so that no fork has to
import pytest

import local.object_store
import local.postgres  # noqa: F401  as hypothesis

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
MODULE = ROOT / "lambdas/aurora_backup/retention.py"
TESTS = ("tests/unit/test_retention.py", "tests/unit/test_retention_properties.py")
SKIPPED_TESTS = "ten_years_of or a_year_of or were_tried"  # too slow to run for each mutant
SECONDS = 60
OUTPUT = ROOT / "build/mutants.json"

_COMPARE: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.BitOr: ast.BitAnd,
}


@dataclass(frozen=True)
class Mutant:
    """One change. text: the line as it becomes."""

    number: int
    line: int
    what: str
    source: str


def mutants(source: str) -> Iterator[Mutant]:
    """Every mutant of a module, in the order of its text."""
    tree = ast.parse(source)
    skipped = set(_skipped(tree))
    number = 0
    for index, node in enumerate(ast.walk(tree)):
        if index in skipped:
            continue
        for what, change in _changes(node):
            changed = copy.deepcopy(tree)
            target = next(n for i, n in enumerate(ast.walk(changed)) if i == index)
            change(target)
            number += 1
            yield Mutant(number, getattr(node, "lineno", 0), what, ast.unparse(ast.fix_missing_locations(changed)))


def _skipped(tree: ast.Module) -> Iterator[int]:
    """Docstrings, annotations and imports decide nothing."""
    dead: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            dead.update(map(id, ast.walk(node.body[0])))
        for name in ("annotation", "returns"):
            inner = getattr(node, name, None)
            if isinstance(inner, ast.AST):
                dead.update(map(id, ast.walk(inner)))
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            dead.update(map(id, ast.walk(node)))
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            dead.update(map(id, ast.walk(node)))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"dataclass", "cache", "field"}:
            dead.update(map(id, ast.walk(node)))
    for index, node in enumerate(ast.walk(tree)):
        if id(node) in dead:
            yield index


def _changes(node: ast.AST):  # noqa: ANN202, C901, PLR0912  one case for each kind of node
    if isinstance(node, ast.Compare):
        for position, operator in enumerate(node.ops):
            for other in _COMPARE[type(operator)]:
                yield f"{_name(operator)} -> {other.__name__}", _set_operator(position, other)
    elif isinstance(node, ast.BoolOp):
        other = ast.Or if isinstance(node.op, ast.And) else ast.And
        yield f"{_name(node.op)} -> {other.__name__}", lambda n, o=other: setattr(n, "op", o())
        for position in range(len(node.values)):
            yield f"drop operand {position}", lambda n, p=position: n.values.pop(p)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "drop not", lambda n: setattr(n, "op", ast.UAdd()) or _unwrap(n)
    elif isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC and not _is_text(node):
        other_op = _ARITHMETIC[type(node.op)]
        yield f"{_name(node.op)} -> {other_op.__name__}", lambda n, o=other_op: setattr(n, "op", o())
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield f"{node.value} -> {not node.value}", lambda n: setattr(n, "value", not n.value)
        elif isinstance(node.value, (int, float)):
            yield f"{node.value} -> {node.value + 1}", lambda n: setattr(n, "value", n.value + 1)
        elif isinstance(node.value, str) and node.value:
            yield f"{node.value[:30]!r} -> 'XX…'", lambda n: setattr(n, "value", "XX" + n.value)
    elif isinstance(node, ast.IfExp):
        yield "always the first", lambda n: setattr(n, "test", ast.Constant(value=True))
        yield "always the second", lambda n: setattr(n, "test", ast.Constant(value=False))
    elif isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Constant):
        yield "return None", lambda n: setattr(n, "value", ast.Constant(value=None))
    elif isinstance(node, (ast.Tuple, ast.Set)) and len(node.elts) > 1 and not isinstance(_context(node), ast.Store):
        for position in range(len(node.elts)):
            yield f"drop element {position}", lambda n, p=position: n.elts.pop(p)
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Action":
        for other_name in {"KEEP", "DELETE", "WAIT"} - {node.attr}:
            yield f"Action.{node.attr} -> {other_name}", lambda n, o=other_name: setattr(n, "attr", o)


def _context(node: ast.AST) -> ast.AST | None:
    return getattr(node, "ctx", None)


def _set_operator(position: int, operator: type[ast.cmpop]):  # noqa: ANN202  a function that changes a node
    def change(node: ast.AST) -> None:
        node.ops[position] = operator()  # type: ignore[attr-defined]

    return change


def _unwrap(node: ast.AST) -> None:
    """`not x` becomes `bool(x)` by two nots, which every context takes."""
    node.op = ast.Not()  # type: ignore[attr-defined]
    node.operand = ast.UnaryOp(op=ast.Not(), operand=node.operand)  # type: ignore[attr-defined]


def _is_text(node: ast.BinOp) -> bool:
    return any(isinstance(side, ast.Constant) and isinstance(side.value, str) for side in (node.left, node.right))


def _name(node: ast.AST) -> str:
    return type(node).__name__


class Running:
    """Mutants being tried, each in a fork of this process, which has imported what the tests need."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._children: dict[int, tuple[Mutant, float]] = {}
        self.survivors: list[Mutant] = []

    def start(self, mutant: Mutant) -> None:
        """Try one more, as soon as there is room."""
        while len(self._children) >= self._jobs:
            self.reap()
        pid = os.fork()
        if pid == 0:
            os._exit(_try(mutant))
        self._children[pid] = (mutant, time.monotonic() + SECONDS)

    def reap(self) -> None:
        """Collect what has ended; what takes too long is stopped, and counts as noticed."""
        time.sleep(0.02)
        for pid, (mutant, deadline) in list(self._children.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended and time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                del self._children[pid]
            elif ended:
                del self._children[pid]
                if os.waitstatus_to_exitcode(status) == 0:
                    self.survivors.append(mutant)

    def finish(self) -> list[Mutant]:
        """Wait for all; the survivors in order."""
        while self._children:
            self.reap()
        return sorted(self.survivors, key=lambda m: m.number)


def _try(mutant: Mutant) -> int:
    """In the fork: put the mutant in the module's place and run the tests, the quick ones first. 0: it survives."""
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    os.chdir(ROOT)
    module = types.ModuleType("aurora_backup.retention")
    module.__file__ = str(MODULE)
    sys.modules[module.__name__] = module
    try:
        exec(compile(mutant.source, str(MODULE), "exec"), module.__dict__)  # the mutant is our own text
        common = ["-q", "-x", "-p", "no:cacheprovider", "-k", f"not ({SKIPPED_TESTS})"]
        for path in TESTS:
            if status := int(pytest.main([*common, path])):
                return status
    except BaseException:  # noqa: BLE001  a mutant that cannot even be imported is noticed
        return 1
    return 0


def survives(mutant: Mutant) -> bool:
    """Whether all tests pass on one mutant."""
    running = Running(1)
    running.start(mutant)
    return bool(running.finish())


def main() -> int:
    """Run them; the status is 0 whatever survives: what survives is for people to judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="only say what would be changed")
    parser.add_argument("--only", type=int, nargs="+", help="numbers of mutants")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    chosen = [m for m in mutants(MODULE.read_text()) if not arguments.only or m.number in arguments.only]
    if arguments.list:
        for mutant in chosen:
            print(f"{mutant.number:4} line {mutant.line}: {mutant.what}")
        return 0
    if survives(Mutant(0, 0, "no change", "raise SystemExit('the mutant was not imported')")):
        raise SystemExit("the tests do not import the mutant: nothing would be shown")
    if not survives(Mutant(0, 0, "no change", MODULE.read_text())):
        raise SystemExit("the tests fail without any change")
    running = Running(arguments.jobs)
    for mutant in chosen:
        running.start(mutant)
    left = running.finish()
    for mutant in left:
        print(f"SURVIVED {mutant.number:4} line {mutant.line}: {mutant.what}")
    print(f"{len(chosen) - len(left)} of {len(chosen)} mutants were noticed")
    OUTPUT.parent.mkdir(exist_ok=True)
    found = [{"number": m.number, "line": m.line, "what": m.what} for m in left]
    OUTPUT.write_text(json.dumps({"schema": 1, "mutants": len(chosen), "survived": found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
