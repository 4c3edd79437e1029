"""Every call in the guides and tutorials exists and takes its arguments."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import unlasting

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("docs/*/*.md")])
NOTEBOOKS = sorted(ROOT.glob("tutorials/*.ipynb"))


def code(file: Path) -> list[str]:
    """The blocks of Python of a page, or the cells of a notebook."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        return re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    return ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]


def found(name: str) -> Any:
    """Look a name such as `ul.pp.split` or `model.train` up; `None` if it is not from this package."""
    first, *parts = name.split(".")
    if first not in ("ul", "unlasting", "model") or not parts:
        return None
    value: Any = unlasting.UnlastingModel if first == "model" else unlasting
    for part in parts:
        value = getattr(value, part)
    return value


def calls(blocks: list[str]) -> Iterator[tuple[str, ast.Call]]:
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Call) and re.fullmatch(r"[\w.]+", ast.unparse(node.func)):
                yield ast.unparse(node.func), node


def test_calls_fit():
    for file in (*PAGES, *NOTEBOOKS):
        for name, call in calls(code(file)):
            value = found(name)
            if not (getattr(value, "__module__", None) or "").startswith("unlasting"):
                continue
            signature = inspect.signature(value)
            given = {keyword.arg: None for keyword in call.keywords if keyword.arg}
            bind = signature.bind_partial if len(given) < len(call.keywords) else signature.bind
            receiver = [None] * (name.startswith("model.") and inspect.isfunction(value))
            positional = [a for a in call.args if not isinstance(a, ast.Starred)]
            try:
                bind(*receiver, *positional, **given)
            except TypeError as error:
                pytest.fail(f"{file.name}: {ast.unparse(call)}: {error}")


def test_notebooks_are_executed_small_and_quiet():
    for file in NOTEBOOKS:
        assert file.stat().st_size < 1e6
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        assert cells[0]["cell_type"] == "markdown"
        assert "".join(cells[0]["source"]).startswith("# ")
        executed = [cell["execution_count"] for cell in cells if cell["cell_type"] == "code"]
        assert executed == list(range(1, len(executed) + 1)), file.name
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        strange = [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
        assert strange == [], file.name


def test_metrics_and_baselines_are_explained():
    text = "".join((ROOT / "docs" / "guide" / name).read_text(encoding="utf-8") for name in ("arrays.md", "metrics.md"))
    for package in ("metrics", "baselines"):
        module = importlib.import_module(f"unlasting.{package}")
        public = [name for name in module.__all__ if inspect.isfunction(getattr(module, name))]
        assert [name for name in public if not re.search(rf"\b{name}\b", text)] == []


def test_every_tutorial_is_listed_with_its_figure():
    """A card for each notebook; its picture comes from the cell with the tag, so the cell must have one."""
    page = (ROOT / "docs" / "tutorials.md").read_text(encoding="utf-8")
    assert set(re.findall(r":link: tutorials/(\w+)", page)) == {file.stem for file in NOTEBOOKS}
    pictured = re.findall(r":img-top: _static/figures/(\w+)\.png", page)
    assert len(pictured) >= 8
    for name in pictured:
        cells = json.loads((ROOT / "tutorials" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
        tagged = [cell for cell in cells if "thumbnail" in cell["metadata"].get("tags", ())]
        assert any("image/png" in output.get("data", {}) for cell in tagged for output in cell["outputs"]), name


def test_every_figure_of_the_package_is_shown_in_a_tutorial():
    """The API page of a function in `pl` takes its figure from there."""
    shown = {
        name
        for file in NOTEBOOKS
        for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]
        if any("image/png" in output.get("data", {}) for output in cell.get("outputs", ()))
        for name in re.findall(r"ul\.pl\.(\w+)\(", "".join(cell["source"]))
    }
    assert shown == set(unlasting.pl.__all__)
