from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from unlasting import UnlastingModel, datasets, pp, tl

pytestmark = pytest.mark.slow  # trains a small model once


@pytest.fixture(scope="module")
def model():
    """A model of a simulated screen, hardly trained: what it starts from obeys the laws."""
    adata = datasets.simulate_screen(n_cells=150, n_genes=50, responders=1.0, seed=1)
    pp.prepare(adata, library_size_key="library_size", target_sum=1e4)
    pp.grn(adata, prior=adata.uns["simulation"]["edges"])
    UnlastingModel.setup_anndata(adata)
    model = UnlastingModel(adata, width=32)
    model.train(max_steps=20, seed=0, show_progress=False)
    return model


def test_a_model_that_keeps_the_laws_passes_and_nothing_of_the_user_changes(model):
    before, layers = model.adata.X.copy(), list(model.adata.layers)
    frame = tl.diagnose(model, n_cells=100).set_index("check")
    assert (model.adata.X != before).nnz == 0
    assert list(model.adata.layers) == layers
    assert {"latent mean of genes", "latent s.d. of genes", "round trip", "zero fraction", "spread"} <= set(frame.index)
    passed = ["solver", "round trip", "round trip of the mask", "latent s.d. of cells", "spread"]
    assert frame.loc[passed, "passed"].all()
    assert frame["value"].notna().all()
    assert frame.equals(model.adata.uns["unlasting"]["diagnosis"].set_index("check"))
    assert (frame["passed"] == ((frame["value"] >= frame["low"]) & (frame["value"] <= frame["high"]))).all()


class Spoilt:
    """The model with a fault of one kind."""

    def __init__(self, model, **faults):
        self._model, self._faults = model, faults

    def __getattr__(self, name):
        return self._faults[name] if name in self._faults else getattr(self._model, name)


def test_a_latent_without_its_amplitude_is_found(model):
    spoilt = Spoilt(model, encode=lambda *args, **kwargs: 0.6 * model.encode(*args, **kwargs) + 0.3)
    failed = tl.diagnose(spoilt, n_cells=50).query("not passed")["check"]
    assert {"latent mean of genes", "latent s.d. of genes", "latent s.d. of cells"} <= set(failed)


def test_a_solver_that_does_not_lead_back_is_found(model):
    spoilt = Spoilt(model, decode=lambda *args, **kwargs: 0.99 * model.decode(*args, **kwargs))
    failed = tl.diagnose(spoilt, n_cells=50).query("not passed")["check"]
    assert "solver" in set(failed)
    assert "round trip" not in set(failed)


def test_predictions_that_are_all_alike_and_too_dense_are_found(model):
    def predict(adata, perturbation=None, *, key_added="unlasting", **kwargs):
        mean = np.asarray(model.adata.X.mean(axis=0))
        adata.layers[key_added] = sparse.csr_matrix(np.repeat(mean, adata.n_obs, axis=0).astype(np.float32))

    failed = set(tl.diagnose(Spoilt(model, predict=predict), n_cells=50).query("not passed")["check"])
    assert {"round trip", "round trip of the mask", "zero fraction", "dispersion", "spread"} <= failed


def test_a_model_without_cells_cannot_be_diagnosed(model):
    with pytest.raises(ValueError, match="Load it with `adata=...`"):
        tl.diagnose(Spoilt(model, adata=None))
