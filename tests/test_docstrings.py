"""Every public name has a numpydoc docstring that describes each parameter and the returned value."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import unlasting

USER_FACING = ("pp", "tl", "pl", "datasets", "metrics", "baselines", "model", "io")
KINDS = (FunctionType, staticmethod, classmethod, property)
PACKAGES = [m.name for m in pkgutil.iter_modules(unlasting.__path__) if m.ispkg]


def members(package: str) -> Iterator[tuple[str, object]]:
    """Names in `__all__` and the public methods that their classes define, with their values."""
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


TOP = {"report": unlasting.report}
ALL = {name: value for package in PACKAGES for name, value in members(package)} | TOP
PUBLIC = {name: value for name, value in ALL.items() if name.split(".")[0] in (*USER_FACING, *TOP)}


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


def test_every_package_lists_its_public_names():
    assert {"pp", "tl", "pl", "datasets", "metrics", "baselines", "model", "nn", "module"} <= set(PACKAGES)
    for package in PACKAGES:
        module = importlib.import_module(f"unlasting.{package}")
        assert module.__doc__, package
        assert set(module.__all__) <= set(dir(module)), package


def test_the_summary_is_one_sentence():
    for name, value in ALL.items():
        lines = docstring(value).splitlines()
        assert lines, f"{name} has no docstring"
        assert lines[0].endswith("."), f"{name}: {lines[0]!r} should be one line that ends with a period"
        assert len(lines) == 1 or not lines[1], f"{name}: the summary goes on beyond its line"


def test_nothing_is_left_over():
    assert [n for n, value in ALL.items() if re.search(r"%\(\w+\)s|\bTODO\b|\bFIXME\b", docstring(value))] == []


def test_parameters_are_those_of_the_signature():
    named = {name: {*re.findall(r"`(\w+)`", docstring(value))} for name, value in PUBLIC.items()}  # in a sentence
    left_out = {name: parameters(value) - documented(value) - named[name] for name, value in PUBLIC.items()}
    assert {name: names for name, names in left_out.items() if names} == {}
    invented = {name: documented(value) - parameters(value) for name, value in ALL.items()}
    assert {name: names for name, names in invented.items() if names} == {}


def test_types_stand_in_the_signature_alone():
    typed = {name: re.findall(r"^\w+ : .*$", docstring(value), re.M) for name, value in ALL.items()}
    assert {name: lines for name, lines in typed.items() if lines} == {}


def test_functions_document_their_result():
    silent = []
    for name, value in PUBLIC.items():
        returns = inspect.isfunction(value) and inspect.signature(value).return_annotation not in (None, "None")
        if returns and parameters(value) and name.count(".") == 1:
            silent += [name] * (not re.search(r"^(Returns|Yields)\n-+\n", docstring(value), re.M))
    assert silent == []


def test_the_api_page_lists_everything():
    page = Path(__file__).parents[1] / "docs" / "api.md"
    listed = set(re.findall(r"^   ((?:\w+\.)?\w+)$", page.read_text(encoding="utf-8"), re.M))
    public = {name for name in PUBLIC if name.count(".") < 2} - {"model.UnlastingModel"}
    assert public | {"UnlastingModel"} <= listed, f"docs/api.md lacks {sorted(public - listed)}"
    assert [name for name in listed if name not in ALL and name != "UnlastingModel"] == []
