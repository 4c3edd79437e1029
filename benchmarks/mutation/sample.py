"""Run a random sample of mutants against the fast tests, and against all tests where the fast ones miss one.

A mutant is the package with one small fault: another operator, comparison, number or truth value.

    python benchmarks/mutation/sample.py --package metrics --n 14 --seed 0 --out mutants.csv
"""

from __future__ import annotations

import argparse
import ast
import copy
import csv
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "unlasting"
TESTS = {
    "metrics": ["tests/metrics", "tests/test_metric_names.py", "tests/tl/test_evaluate.py", "tests/tl/test_vcc2026.py"],
    "diffusion": ["tests/diffusion", "tests/nn", "tests/module"],
    "effects": ["tests/effects", "tests/baselines", "tests/model/test_on_target.py"],
}
"""Tests that import each package, its own first."""

SWAPS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
NAMES = {"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "any": "all", "all": "any"}


def mutants(tree: ast.Module) -> Iterator[tuple[int, str, Callable[[], ast.Module]]]:
    """Yield a function that makes a mutant, with line and change; types, docstrings, messages and `strict=` stay."""
    ignored = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom):
            ignored |= {id(child) for child in ast.walk(node)}
        elif isinstance(node, ast.arg | ast.AnnAssign) and node.annotation:
            ignored |= {id(child) for child in ast.walk(node.annotation)}
        elif isinstance(node, ast.FunctionDef) and node.returns:
            ignored |= {id(child) for child in ast.walk(node.returns)}
        elif isinstance(node, ast.keyword) and node.arg in ("strict", "kind", "copy"):
            ignored |= {id(child) for child in ast.walk(node)}
    for place, node in enumerate(ast.walk(tree)):
        if id(node) in ignored:
            continue
        for change, apply in _changes(node):
            yield getattr(node, "lineno", 0), change, partial(_mutant, tree, place, apply)


def _mutant(tree: ast.Module, place: int, apply: Callable[[ast.AST], None]) -> ast.Module:
    mutant = copy.deepcopy(tree)
    apply(next(twin for i, twin in enumerate(ast.walk(mutant)) if i == place))
    return mutant


def _changes(node: ast.AST) -> list:
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in SWAPS:
        new = SWAPS[type(node.op)]
        return [(f"{type(node.op).__name__} to {new.__name__}", lambda twin: setattr(twin, "op", new()))]
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        new = SWAPS[type(node.ops[0])]
        return [(f"{type(node.ops[0]).__name__} to {new.__name__}", lambda twin: twin.ops.__setitem__(0, new()))]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return [("-x to x", lambda twin: setattr(twin, "op", ast.UAdd()))]
    if isinstance(node, ast.Constant) and type(node.value) in (bool, int, float):
        value = not node.value if isinstance(node.value, bool) else node.value + 1
        return [(f"{node.value} to {value}", lambda twin: setattr(twin, "value", value))]
    if isinstance(node, ast.Attribute) and node.attr in NAMES:
        return [(f"{node.attr} to {NAMES[node.attr]}", lambda twin: setattr(twin, "attr", NAMES[node.attr]))]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in NAMES:
        new_name = NAMES[node.func.id]
        return [(f"{node.func.id} to {new_name}", lambda twin: setattr(twin.func, "id", new_name))]
    return []


def by_mention(file: Path, package: str) -> list[list[str]]:
    """Put the tests that mention a name from the mutated file first, so that most mutants die early."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names = {name for name in names if not name.startswith("_")}
    tests = [path for place in TESTS[package] for path in sorted(ROOT.glob(f"{place}/test_*.py")) or [ROOT / place]]
    words = {test: names & set(re.findall(r"\w+", test.read_text(encoding="utf-8"))) for test in tests}
    first, rest = ([str(test) for test in tests if bool(words[test]) == mentioned] for mentioned in (True, False))
    return [group for group in (first, rest) if group]


def passes(copied: Path, tests: list[str], *options: str) -> bool:
    """Whether the tests pass with the copied package."""
    environment = {**os.environ, "PYTHONPATH": str(copied), "HYPOTHESIS_MAX_EXAMPLES": "100"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *options, *tests]
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=900, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode in (0, 5)  # 5: no test is selected


def main() -> None:
    """Draw mutants until `--n` are killed by some test, and write a row for each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--package", choices=list(TESTS), required=True)
    parser.add_argument("--n", type=int, default=14)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    files = sorted((SOURCE / given.package).glob("*.py"))
    drawn = [(file, *found) for file in files for found in mutants(ast.parse(file.read_text(encoding="utf-8")))]
    random.Random(given.seed).shuffle(drawn)
    with tempfile.TemporaryDirectory() as folder, given.out.open("w", newline="", encoding="utf-8") as out:
        copied = Path(folder) / "src"
        shutil.copytree(SOURCE.parent, copied)
        table = csv.writer(out)
        table.writerow(["file", "line", "change", "fast", "all", "seconds"])
        killed = 0
        for file, line, change, mutant in drawn:
            target = copied / file.relative_to(SOURCE.parent)
            target.write_text(ast.unparse(mutant()), encoding="utf-8")
            start = time.time()
            groups = by_mention(file, given.package)
            fast = not all(passes(copied, group, "-m", "not slow") for group in groups)
            every = fast or not all(passes(copied, group, "-m", "slow") for group in groups)
            shutil.copy(file, target)
            name = f"{given.package}/{file.name}"
            table.writerow([name, line, change, fast, every, round(time.time() - start)])
            out.flush()
            killed += every
            if killed == given.n:
                break


if __name__ == "__main__":
    main()
