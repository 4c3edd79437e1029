"""Transfer of a perturbation from other cell types."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.special import expit, logit

from unlasting.baselines import (
    ContextTransfer,
    NearestContext,
    NoEffect,
    NoPrediction,
    QuantileContextTransfer,
    ZeroAwareContextTransfer,
    control_expression,
    hurdle_effects,
)
from unlasting.screen import Condition

N_CELLS, N_GENES = 400, 6


@pytest.fixture(scope="module")
def contexts() -> AnnData:
    """Perturbation A in the types `near` and `far`; the type `new` has controls only, close to those of `near`."""
    rng = np.random.default_rng(0)
    parts, obs = [], []
    for cell_type, base in (("near", 2.0), ("far", 5.0), ("new", 2.3)):
        for label, step in (("control", 0.0), ("A", 0.6 if cell_type == "near" else 1.0)):
            if (cell_type, label) != ("new", "A"):
                values = base + step * np.arange(N_GENES) / N_GENES + rng.uniform(-0.5, 0.5, (N_CELLS, N_GENES))
                detected = rng.random(values.shape) < np.where(np.arange(N_GENES) < 3, 0.5, 0.5 + 0.3 * (label == "A"))
                parts.append(np.where(detected, values, 0.0))
                obs += [(label, cell_type)] * N_CELLS
    frame = pd.DataFrame(obs, columns=["perturbation", "cell_type"], index=[f"c{i}" for i in range(len(obs))])
    adata = AnnData(np.vstack(parts).astype(np.float32), obs=frame)
    adata.uns["unlasting"] = {"keys": {"cell_type_key": "cell_type"}}
    return adata


def _cells(adata: AnnData, label: str, cell_type: str) -> np.ndarray:
    return adata.X[np.flatnonzero((adata.obs["perturbation"] == label) & (adata.obs["cell_type"] == cell_type))]


WANTED = Condition("A", "new")


def test_added_transfer_is_the_mean_change_of_the_other_types(contexts):
    found = ContextTransfer().fit(contexts).predict(WANTED, 1000)
    change = np.mean(
        [_cells(contexts, "A", t).mean(axis=0) - _cells(contexts, "control", t).mean(axis=0) for t in ("near", "far")],
        axis=0,
    )
    controls = _cells(contexts, "control", "new")
    np.testing.assert_allclose(np.sort(found, axis=0), np.sort(controls + change, axis=0), atol=1e-5)


def test_zero_aware_transfer_shows_the_mean_effects_of_the_other_types(contexts):
    found = ZeroAwareContextTransfer().fit(contexts).predict(WANTED, 1000)
    effects = []
    for t in ("near", "far"):
        cells, control = _cells(contexts, "A", t), control_expression(_cells(contexts, "control", t), np.ones(N_GENES))
        effects.append(hurdle_effects(N_CELLS, (cells > 0).sum(axis=0), cells.sum(axis=0), control))
    detection, shift = np.mean(effects, axis=0)
    control = control_expression(_cells(contexts, "control", "new"), np.ones(N_GENES))
    np.testing.assert_allclose((found > 0).mean(axis=0), expit(logit(control.rate) + detection), atol=0.08)
    np.testing.assert_allclose(found.sum(axis=0) / (found > 0).sum(axis=0), control.mean + shift, atol=0.1)


def _moved(x: float, u: float, before: np.ndarray, after: np.ndarray) -> float:
    """The rule of the quantile map for one value at the quantile u."""
    old, new = (np.sort(values)[int(u * len(values))] for values in (before, after))
    if x == 0:
        return new if old == 0 else 0.0
    if old == 0:
        return x
    return 0.0 if new == 0 else max(x + new - old, 0.0)


def test_values_move_as_their_quantiles_in_each_other_type_in_turn(contexts):
    """Expressed values have one rank; a silent gene may be at any quantile of the silent cells."""
    fitted = QuantileContextTransfer().fit(contexts)
    controls = NoEffect().fit(contexts).predict(WANTED, 1000)  # the same draw of cells
    found = fitted.predict(WANTED, 1000)
    own = _cells(contexts, "control", "new")
    for turn, cell_type in enumerate(("far", "near")):
        before, after = (_cells(contexts, label, cell_type) for label in ("control", "A"))
        for gene in range(N_GENES):
            n_silent, possible = int((own[:, gene] == 0).sum()), {0.0}
            for u in range(n_silent):
                possible.add(float(_moved(0.0, (u + 0.5) / N_CELLS, before[:, gene], after[:, gene])))
            for x, y in zip(controls[turn::2, gene], found[turn::2, gene], strict=True):
                if x > 0:
                    u = (np.searchsorted(np.sort(own[:, gene]), x) + 0.5) / N_CELLS
                    assert y == pytest.approx(_moved(x, u, before[:, gene], after[:, gene]), abs=1e-5)
                else:
                    assert float(y) in possible
    np.testing.assert_allclose((found[:, 3:] > 0).mean(), 0.8, atol=0.05)  # detection rises as it does there
    np.testing.assert_allclose((found[:, :3] > 0).mean(), 0.5, atol=0.05)


def test_where_nothing_changes_quantiles_stay_what_they_are(contexts):
    same = contexts[contexts.obs["perturbation"] == "control"].copy()
    copied = same[same.obs["cell_type"] == "near"].copy()
    copied.obs["perturbation"], copied.obs_names = "A", [f"copy{i}" for i in range(copied.n_obs)]
    new = same[same.obs["cell_type"] == "near"].copy()
    new.obs["cell_type"], new.obs_names = "new", [f"new{i}" for i in range(new.n_obs)]
    near = same[same.obs["cell_type"] == "near"]
    adata = AnnData(np.vstack([near.X, copied.X, new.X]), obs=pd.concat([near.obs, copied.obs, new.obs]).astype(str))
    adata.uns["unlasting"] = {"keys": {"cell_type_key": "cell_type"}}
    found = QuantileContextTransfer().fit(adata).predict(WANTED, 1000)
    np.testing.assert_allclose(np.sort(found, axis=0), np.sort(new.X, axis=0), atol=1e-6)


def test_the_nearest_context_has_the_most_similar_controls(contexts):
    found = NearestContext().fit(contexts).predict(WANTED, 1000)
    np.testing.assert_array_equal(np.sort(found, axis=0), np.sort(_cells(contexts, "A", "near"), axis=0))


def test_without_another_context_there_is_no_transfer(contexts):
    for baseline in (ContextTransfer, ZeroAwareContextTransfer, QuantileContextTransfer, NearestContext):
        fitted = baseline().fit(contexts)
        with pytest.raises(NoPrediction, match="in no other cell type"):
            fitted.predict(Condition("B", "new"), 5)
        with pytest.raises(NoPrediction, match="no training controls"):
            fitted.predict(Condition("A", "unknown"), 5)
