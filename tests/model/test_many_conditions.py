"""More conditions than are solved exactly: the same predictions where the decomposed directions are all, else a warning."""

from __future__ import annotations

import logging

import numpy as np
import pytest

import unlasting as ul
from unlasting import UnlastingModel


@pytest.fixture(scope="module")
def screen():
    adata = ul.datasets.simulate_screen(n_cells=20, n_controls=80, n_genes=40, n_targets=24, n_cell_types=2)
    ul.pp.split(adata, "unseen_perturbation", test=["T1", "T2"], val_fraction=0.0)
    ul.pp.prepare(adata)
    ul.pp.grn(adata, prior=None)
    return adata


def effects(adata, **setup):
    UnlastingModel.setup_anndata(adata, cell_type_key="cell_type")
    found = UnlastingModel(adata).effects(["T1", "T3", "T1+T4"], cell_type="type1")
    trust = found.obs["unlasting_p_better"].to_numpy()
    return {"change": found.X, "sd": found.layers["sd"], "trust": trust}


def test_leading_directions_that_hold_all_variance_give_the_exact_effects(screen, monkeypatch, caplog):
    exact = effects(screen.copy())
    monkeypatch.setattr("unlasting.effects._regression.MAX_EXACT", 30)
    monkeypatch.setattr("unlasting.effects._regression.RANK", 43)
    with caplog.at_level(logging.WARNING, "unlasting"):
        found = effects(screen.copy())
    assert "46 conditions and contexts" in caplog.text
    for name, expected in exact.items():
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found[name], expected, atol=0.02 * scale, err_msg=name)
