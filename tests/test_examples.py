"""The examples in docstrings run and give what they show."""

from __future__ import annotations

import doctest
import importlib
import inspect
import logging
import pkgutil

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


@pytest.mark.parametrize("example", examples(), ids=lambda test: test.name)
def test_example(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.getLogger("unlasting"), "disabled", True)
    written: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(example, out=written.append)
    assert runner.failures == 0, "".join(written)
