"""The examples in docstrings and guides run and give the printed results."""

from __future__ import annotations

import doctest
import importlib
import inspect
import logging
import pkgutil
import re
from pathlib import Path

import pytest

import unlasting


def examples() -> list[doctest.DocTest]:
    """Doctests of everything in `__all__` of the packages, methods included."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = {}
    for package in (m.name for m in pkgutil.iter_modules(unlasting.__path__) if m.ispkg):
        module = importlib.import_module(f"unlasting.{package}")
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                for test in finder.find(value, f"{package}.{name}", module=False, globs={}):
                    found[test.name] = test
    return [test for test in found.values() if test.examples]


def guides() -> list[doctest.DocTest]:
    """The sessions of each page, which go on from block to block."""
    pages = {
        page.name: page.read_text(encoding="utf-8")
        for page in (Path(__file__).parents[1] / "docs" / "guide").glob("*.md")
    }
    sessions = {name: "".join(re.findall(r"^```pycon\n(.*?)^```", text, re.M | re.S)) for name, text in pages.items()}
    parser = doctest.DocTestParser()
    return [parser.get_doctest(text, {}, name, name, 0) for name, text in sorted(sessions.items()) if text]


@pytest.mark.slow
@pytest.mark.parametrize("example", [*examples(), *guides()], ids=lambda test: test.name)
def test_example(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.getLogger("unlasting"), "disabled", True)
    written: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(example, out=written.append)
    assert runner.failures == 0, "".join(written)
