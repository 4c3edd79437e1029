"""`import unlasting` is fast and silent, and every namespace is imported on first use."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

import unlasting

HEAVY = ("torch", "torch_geometric", "scvi", "scanpy", "anndata", "matplotlib", "lightning", "sklearn", "umap")
OPTIONAL = (
    "diffusers",
    "rdkit",
    "unimol_tools",
    "diptest",
    "pertpy",
    "cell_eval",
    "decoupler",
    "gseapy",
    "transformers",
)


def run(code: str, *flags: str) -> str:
    """Run code in a new interpreter and get its output, warnings included."""
    done = subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def loaded(code: str, names: tuple[str, ...]) -> list[str]:
    """List those modules among `names` that are loaded after the code."""
    return run(f"{code}\nimport sys\nprint(*[n for n in {names!r} if n in sys.modules])").split()


def test_import_is_silent_and_loads_nothing_heavy():
    assert run("import unlasting", "-W", "error") == ""
    assert loaded("import unlasting", HEAVY + OPTIONAL) == []


@pytest.mark.slow
def test_public_names_are_there_silent_and_need_no_optional_package():
    assert loaded("from unlasting import *", OPTIONAL) == []


@pytest.mark.slow
def test_figures_do_not_load_torch():
    assert loaded("import unlasting.pl", ("torch", "scvi")) == []


def test_names_are_listed_and_others_refused():
    assert set(unlasting.__all__) <= set(dir(unlasting))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = unlasting.nothing


@pytest.mark.slow
def test_networks_and_modules_are_imported_on_first_use():
    code = "import unlasting as ul; print(ul.nn.Architecture.__name__, ul.module.Preset.__name__)"
    assert run(code).split() == ["Architecture", "Preset"]


@pytest.mark.slow
def test_the_log_level_set_by_the_user_stays():
    code = "import logging, unlasting as ul\nlogging.getLogger('unlasting').setLevel({level})\nul.pp.split\n{shown}"
    shown = "print(logging.getLogger('unlasting').level)"
    for level, kept in ((0, logging.INFO), (logging.ERROR, logging.ERROR)):
        assert int(run(code.format(level=level, shown=shown))) == kept
