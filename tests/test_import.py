"""`import unlasting` is quick because it loads little, says nothing, and every namespace is there when asked for."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

import unlasting

HEAVY = ("torch", "scvi", "scanpy", "anndata", "matplotlib", "lightning", "sklearn", "umap", "torch_geometric")
OPTIONAL = (
    "diffusers",
    "rdkit",
    "unimol_tools",
    "pertpy",
    "cell_eval",
    "decoupler",
    "gseapy",
    "transformers",
)


def run(code: str, *flags: str) -> str:
    """Run code in a new interpreter and get what it wrote, warnings included."""
    done = subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def loaded(code: str, names: tuple[str, ...]) -> list[str]:
    """Which of the modules `names` are loaded after the code."""
    return run(f"{code}\nimport sys\nprint(*[n for n in {names!r} if n in sys.modules])").split()


def test_import_is_silent():
    assert run("import unlasting", "-W", "error") == ""


def test_import_loads_nothing_heavy():
    assert loaded("import unlasting", HEAVY + OPTIONAL) == []


def test_every_public_name_is_there_and_silent():
    assert run("from unlasting import *") == ""


def test_no_name_needs_an_optional_package():
    assert loaded("from unlasting import *", OPTIONAL) == []


def test_figures_do_not_load_torch():
    assert loaded("import unlasting.pl", ("torch", "scvi")) == []


def test_names_are_listed_and_others_refused():
    assert set(unlasting.__all__) <= set(dir(unlasting))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = unlasting.nothing


def test_a_level_of_the_log_that_was_set_before_stays():
    code = "import logging, unlasting as ul\nlogging.getLogger('unlasting').setLevel({level})\nul.pp.split\n{shown}"
    shown = "print(logging.getLogger('unlasting').level)"
    assert [int(run(code.format(level=level, shown=shown))) for level in (0, logging.ERROR)] == [
        logging.INFO,
        logging.ERROR,
    ]
