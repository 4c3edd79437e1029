"""The code and the commands in README work."""

from __future__ import annotations

import re
from pathlib import Path

import anndata
import numpy as np
import pytest
from typer.testing import CliRunner

from unlasting import datasets
from unlasting.cli import app
from unlasting.model import UnlastingModel

ROOT = Path(__file__).parents[1]
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/index.md")}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.M | re.S)


@pytest.fixture
def small_and_fast(monkeypatch, tmp_path):
    """Thirty-five cells of each perturbation and a few steps of training, in an empty folder."""
    whole = datasets.papalexi()
    rows = np.concatenate([rows[:35] for rows in whole.obs.groupby("perturbation", observed=True).indices.values()])
    small = whole[np.sort(rows)].copy()
    train = UnlastingModel.train
    monkeypatch.setattr(datasets, "papalexi", small.copy)
    monkeypatch.setattr(
        UnlastingModel, "train", lambda self: train(self, max_steps=4, accelerator="cpu", show_progress=False)
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_quick_start_runs(small_and_fast):
    (code,) = blocks("README.md", "python")
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["new"].n_obs == 600
    assert "unlasting" in names["adata"].layers
    assert (small_and_fast / "my_model" / "model.json").is_file()
    assert anndata.read_h5ad(small_and_fast / "my_model" / "adata.h5ad").n_obs == names["adata"].n_obs


def test_the_first_page_of_the_documentation_shows_the_same():
    (front,), (readme,) = blocks("docs/index.md", "python"), blocks("README.md", "python")
    calls = [re.findall(r"^(?!#)[^#\n]+?(?=\s*(?:#|$))", code, re.M) for code in (front, readme)]
    assert [call for call in calls[0] if call not in calls[1]] == []


def test_commands_exist():
    for line in (line for block in blocks("README.md", "bash") for line in block.splitlines() if line):
        program, *words = line.split("#")[0].split()
        if program == "make":
            assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
        elif program == "unlasting":
            shown = CliRunner().invoke(app, [words[0], "--help"]).stdout
            assert [word for word in words if word.startswith("--") and word not in shown] == []
        else:
            assert line == "pip install unlasting"


def test_it_fits_on_two_screens():
    assert len(PAGES["README.md"].splitlines()) <= 130


def test_files_that_it_points_to_exist():
    targets = re.findall(r"(?:\]\(|src=\"|srcset=\")([^)\"]+)", PAGES["README.md"])
    assert [t for t in targets if not t.startswith("http") and not (ROOT / t.split("#")[0]).exists()] == []
