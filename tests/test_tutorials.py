"""The tutorials run; full strength is in the notebooks themselves, which are stored with what they show."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import scvi

import unlasting as ul

FOLDER = Path(__file__).parents[1] / "tutorials"


STEPS = {"scaling": 120, "in_silico_screen": 40}
"""Tutorials that need more than a few steps: an interrupted training, and attention that was learnt."""


@pytest.fixture
def short(request, monkeypatch, tmp_path):
    """Small networks, few steps, few cells and few permutations, in an empty folder."""
    limit = STEPS.get(request.node.callspec.id, 4)
    model, evaluate = ul.UnlastingModel, ul.tl.evaluate
    init, train, generate = model.__init__, model.train, model.generate

    def quick_train(self, *, max_steps=None, **given):
        train(
            self,
            max_steps=limit if max_steps is None else min(max_steps, limit),
            **{**given, "accelerator": "cpu", "show_progress": False},
        )

    def few_cells(self, perturbations, n_cells=50, **given):
        return generate(self, perturbations, min(n_cells, 50), **given)

    def quick_evaluate(*args, **given):
        return evaluate(*args, **{**given, "n_repeats": 1, "n_permutations": 19})

    monkeypatch.setattr(model, "__init__", lambda *a, **o: init(*a, **{**o, "width": 16, "n_steps": 2}))
    monkeypatch.setattr(model, "train", quick_train)
    monkeypatch.setattr(model, "generate", few_cells)
    monkeypatch.setattr(ul.tl, "evaluate", quick_evaluate)
    monkeypatch.setattr(scvi.settings, "seed", 0)
    monkeypatch.chdir(tmp_path)
    loggers = [logging.getLogger(name) for name in ("unlasting", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with pd.option_context("display.max_columns", None):
        yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.mark.slow
@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.ipynb")), ids=lambda file: file.stem)
def test_a_tutorial_runs(file, short):
    names: dict[str, object] = {"__name__": "__main__", "display": print}
    for number, cell in enumerate(json.loads(file.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{file.stem}[{number}]", "exec"), names)
            plt.close("all")
