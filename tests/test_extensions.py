"""The recipes in CONTRIBUTING work as they are written."""

from __future__ import annotations

import hashlib
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

import unlasting as ul

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### An? ([\w ]+)\n(.*?)(?=^##)", TEXT, re.M | re.S))
RECIPES = {name: "".join(re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)) for name, text in SECTIONS.items()}


@pytest.fixture
def follow(monkeypatch):
    """Run the code of a recipe as a module; the registries are restored afterwards."""
    registries = (
        ul.metrics.METRICS,
        ul.datasets.DATASETS,
        ul.pp.PRIORS,
        ul.pp.SPLIT_KINDS,
        ul.effects.FAMILIES,
    )
    before = [dict(registry) for registry in registries]

    def run(recipe: str) -> ModuleType:
        module = ModuleType(recipe.replace(" ", "_"))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(RECIPES[recipe], f"CONTRIBUTING.md: {recipe}", "exec"), vars(module))
        return module

    yield run
    for registry, entries in zip(registries, before, strict=True):
        registry.clear()
        registry.update(entries)


def prepared(**options: Any) -> AnnData:
    adata = ul.datasets.simulate_screen(
        n_cells=60, n_controls=120, n_targets=3, n_unmeasured=0, n_genes=30, n_inert=0, **options
    )
    ul.pp.split(adata, "random")
    ul.pp.prepare(adata)
    return adata


def test_a_kernel_family_does_not_take_the_name_of_other_features(monkeypatch):
    adata = prepared()
    ul.pp.grn(adata, prior=None)
    ul.UnlastingModel.setup_anndata(adata)
    family = ul.effects.KernelFamily(0.5, lambda name: [float(len(name))])
    monkeypatch.setitem(ul.effects.FAMILIES, "identity", family)
    with pytest.raises(ValueError, match="kernel family 'identity' has the name of features that are there already"):
        ul.UnlastingModel(adata)


def test_there_are_six_recipes():
    assert {name for name, code in RECIPES.items() if code} == {
        "metric",
        "prior",
        "kernel family",
        "data set",
        "split kind",
        "denoiser",
    }


def test_a_metric_stands_in_the_scores(follow):
    follow("metric")
    adata = prepared()
    adata.layers["unlasting"] = adata.X
    scores = ul.tl.evaluate(adata, metrics=["median_error"], n_repeats=2, min_cells=10)
    assert set(scores["metric"]) == {"median_error"}
    assert (scores["value"] >= 0).all()
    assert scores["value"].max() > 0


def test_a_prior_joins_genes_and_describes_targets(follow):
    follow("prior")
    adata = ul.datasets.papalexi()
    ul.pp.split(adata)
    ul.pp.prepare(adata)
    ul.pp.grn(adata, prior="interferon")
    edges = adata.uns["unlasting"]["grn"]["edges"]
    pairs = {frozenset(pair) for pair in edges.loc[edges["origin"] == "interferon", ["source", "target"]].to_numpy()}
    joined = {gene for pair in pairs for gene in pair}
    assert {"IFNGR1", "JAK2"} in pairs
    assert not any("SMAD4" in pair and pair & {"IFNGR1", "IFNGR2", "JAK2", "STAT1"} for pair in pairs)
    assert joined <= {"IFNGR1", "IFNGR2", "JAK2", "STAT1", "SMAD4", "CUL3"}


@pytest.mark.slow
def test_a_kernel_family_shares_effects(follow):
    adata = ul.datasets.simulate_screen(n_cells=60, n_controls=200, n_targets=6, n_unmeasured=0, n_genes=40, seed=1)
    ul.pp.split(adata, "unseen_perturbation", test="T2", val_fraction=0)
    ul.pp.prepare(adata)
    adata.uns["unlasting"].pop("grn", None)

    def change() -> np.ndarray:
        ul.UnlastingModel.setup_anndata(adata)
        model = ul.UnlastingModel(adata, width=8)
        model.train(max_steps=0, show_progress=False)
        cells = model.generate("T2", n_cells=200, seed=0)
        controls = adata[(adata.obs["perturbation"] == "control").to_numpy()]
        return np.asarray(cells.X.mean(axis=0) - controls.X.mean(axis=0)).ravel()

    effect = adata.uns["simulation"]["effects"].loc["T2", adata.var_names]
    downstream = (np.isfinite(effect) & (effect != 0)).to_numpy()
    before = np.abs(change()[downstream]).mean()
    follow("kernel family")
    assert np.abs(change()[downstream]).mean() > 1.5 * before


def test_a_data_set_is_read_and_labelled(follow, tmp_path):
    recipe = follow("data set")
    labels = ["non-targeting", "RPL3"] * 10
    obs = pd.DataFrame({"perturbation": labels, "cell_line": "K562"}, index=[f"cell{i}" for i in range(20)])
    file = tmp_path / recipe.SOURCE.url.rsplit("/", 1)[-1]
    AnnData(np.ones((20, 3), dtype=np.float32), obs=obs).write_h5ad(file)
    recipe.SOURCE = replace(recipe.SOURCE, checksum="md5:" + hashlib.md5(file.read_bytes()).hexdigest())
    adata = ul.datasets.replogle_k562(cache=tmp_path)
    assert adata.obs["perturbation"].value_counts().to_dict() == {"control": 10, "RPL3": 10}
    assert adata.uns["unlasting"]["dataset"] == "replogle_k562"


def test_a_split_kind_holds_out_its_cells(follow):
    follow("split kind")
    adata = ul.datasets.papalexi()
    ul.pp.split(adata, "last_batch", batch_key="batch", val_fraction=0)
    last = (adata.obs["batch"].astype(str) == max(adata.obs["batch"].astype(str))).to_numpy()
    perturbed = (adata.obs["perturbation"] != "control").to_numpy()
    assert list(adata.obs["unlasting_split"] == "test") == list(last & perturbed)
    assert adata.uns["unlasting"]["split"]["kind"] == "last_batch"


@pytest.mark.slow
def test_a_denoiser_trains_generates_and_is_saved(follow, tmp_path):
    recipe = follow("denoiser")
    adata = prepared()
    ul.pp.grn(adata)
    recipe.DoubledModel.setup_anndata(adata)
    model = recipe.DoubledModel(adata, width=8)
    assert isinstance(model.module.denoiser, recipe.Doubled)
    model.train(max_steps=2, accelerator="cpu", show_progress=False)
    cells = model.generate("T1", n_cells=5, seed=0)
    model.save(tmp_path / "model")
    again = recipe.DoubledModel.load(tmp_path / "model", adata).generate("T1", n_cells=5, seed=0)
    np.testing.assert_array_equal(cells.X.toarray(), again.X.toarray())


@pytest.mark.slow
def test_a_denoiser_with_its_own_forward_generates_the_cells():
    """It leaves the layers of its base at zero, and is called all the same."""

    class Own(ul.nn.Denoiser):
        n_calls = 0

        def forward(self, state, t, mask, control, conditions, cell_type):
            type(self).n_calls += 1
            return 0.1 * state

    class OwnModule(ul.module.UnlastingModule):
        _denoiser_cls = Own

    class OwnModel(ul.UnlastingModel):
        _module_cls = OwnModule

    adata = prepared()
    ul.pp.grn(adata)
    OwnModel.setup_anndata(adata)
    model = OwnModel(adata, width=8)
    model.train(max_steps=0)
    assert Own.n_calls == 0
    model.generate("T1", n_cells=5, seed=0, show_progress=False)
    assert Own.n_calls > 0


@pytest.mark.parametrize(
    ("matrix", "message"), [([[3.0, 4.0], [1.0, 0.0]], "lengths from 1 to 5"), ([[1.0, 0.0]], "one row for each name")]
)
def test_a_registered_prior_without_directions_is_refused(monkeypatch, matrix, message):
    wrong = ul.pp.Prior(np.array(["T1", "T2"], dtype=object), np.array(matrix, dtype=np.float32))
    monkeypatch.setitem(ul.pp.PRIORS, "wrong", lambda n_components: wrong)
    with pytest.raises(ValueError, match=message):
        ul.pp.grn(prepared(), prior="wrong")


@pytest.mark.slow
def test_a_denoiser_needs_no_graph():
    class Plain(torch.nn.Module):
        def __init__(self, graph, n_genes, n_features, n_cell_types, architecture, molecules=None):
            super().__init__()
            self.layer = torch.nn.Linear(n_genes + n_features, n_genes)

        def forward(self, state, t, mask, control, conditions, cell_type):
            return self.layer(torch.cat([state * mask, conditions.features], dim=-1))

    class PlainModule(ul.module.UnlastingModule):
        _denoiser_cls = Plain

    class PlainModel(ul.UnlastingModel):
        _module_cls = PlainModule

    adata = prepared()
    PlainModel.setup_anndata(adata)
    model = PlainModel(adata, width=8)
    model.train(max_steps=2, accelerator="cpu", show_progress=False)
    assert model.generate("T1", n_cells=5, seed=0).shape == (5, adata.n_vars)
    with pytest.raises(ValueError, match="no graph block"):
        model.get_attention()
