"""Everything public says what it does and what each of its parameters means."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import pytest

import unlasting

PUBLIC = ("pp", "tl", "pl", "io", "datasets", "metrics", "baselines", "model")
INTERNAL = ("diffusion", "nn", "module", "data", "train")
KINDS = (FunctionType, staticmethod, classmethod, property)
PACKAGES = [m.name for m in pkgutil.iter_modules(unlasting.__path__) if m.ispkg]


def members(package: str) -> Iterator[tuple[str, object]]:
    """Names of `__all__` and the public methods that their classes define, with what they stand for."""
    module = importlib.import_module(f"unlasting.{package}")
    for name in module.__all__:
        value = getattr(module, name)
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        yield f"{package}.{name}", value
        for base in inspect.getmro(value) if inspect.isclass(value) else ():
            if base.__module__.startswith("unlasting."):
                for method, raw in vars(base).items():
                    if not method.startswith("_") and isinstance(raw, KINDS):
                        yield f"{package}.{name}.{method}", getattr(value, method)  # an override inherits its text


ALL = {name: value for package in PACKAGES for name, value in members(package)}
USER_FACING = {name: value for name, value in ALL.items() if name.split(".")[0] in PUBLIC}


def docstring(value: object) -> str:
    return inspect.getdoc(value) or ""


def documented(value: object) -> set[str]:
    """Names in the numpydoc section `Parameters`."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\S[^\n]*\n-+\n|\Z)", docstring(value), re.M | re.S)
    lines = section[1].splitlines() if section else []
    heads = [line for line in lines if line and not line[0].isspace()]
    return {name.strip().lstrip("\\*") for line in heads for name in line.split(":")[0].split(",")}


def parameters(value: object) -> set[str]:
    if isinstance(value, property) or (inspect.isclass(value) and issubclass(value, Exception)):
        return set()
    if getattr(value, "_is_protocol", False):
        return set()
    return set(inspect.signature(value).parameters) - {"self", "cls"}


def test_public_packages_exist():
    assert set(PACKAGES) == set(PUBLIC) | set(INTERNAL)


@pytest.mark.parametrize("name", ALL)
def test_summary_is_one_sentence(name):
    lines = docstring(ALL[name]).splitlines()
    assert lines, f"{name} has no docstring"
    assert lines[0].endswith("."), f"{name}: {lines[0]!r} should be one line that ends with a period"
    assert len(lines) == 1 or not lines[1], f"{name}: the summary goes on beyond its line"


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_left_over(name):
    assert not re.search(r"%\(\w+\)s|\bTODO\b|\bFIXME\b", docstring(ALL[name])), name


@pytest.mark.parametrize("name", USER_FACING)
def test_documents_its_parameters(name):
    value = USER_FACING[name]
    assert parameters(value) - documented(value) == set(), f"{name} leaves these without a description"


@pytest.mark.parametrize("name", ALL)
def test_documents_no_parameter_that_it_has_not(name):
    value = ALL[name]
    assert documented(value) - parameters(value) == set(), f"{name} describes these, but does not take them"


@pytest.mark.parametrize("name", [name for name, value in USER_FACING.items() if inspect.isfunction(value)])
def test_says_what_comes_back(name):
    value, text = USER_FACING[name], docstring(USER_FACING[name])
    returned = inspect.signature(value).return_annotation
    if returned in (None, "None"):
        return
    if len(parameters(value)) > 0 and name.count(".") == 1:
        assert re.search(r"^(Returns|Yields)\n-+\n", text, re.M), f"{name} does not say what it returns"


def test_the_api_page_lists_everything():
    page = Path(__file__).parents[1] / "docs" / "api.md"
    listed = set(re.findall(r"^   ((?:\w+\.)?\w+)$", page.read_text(encoding="utf-8"), re.M))
    public = {name for name in USER_FACING if name.count(".") == 1} - {"model.UnlastingModel"}
    assert public | {"UnlastingModel"} <= listed, f"docs/api.md lacks {sorted(public - listed)}"
    assert all(name in ALL or name == "UnlastingModel" for name in listed), f"docs/api.md lists what is gone: {listed}"
