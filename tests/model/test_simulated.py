"""Counterfactuals against the true ones, on a simulated screen where these are known."""

from __future__ import annotations

import numpy as np
import pytest

from unlasting import datasets, pp

pytestmark = pytest.mark.slow

QUIET = {"show_progress": False}
TARGETS = ["T1", "T2", "T4", "T5"]


@pytest.fixture(scope="module")
def simulated():
    """The screen, and for every target the controls, what they truly would have become, and who is downstream."""
    adata, truth = datasets.simulate_screen(
        n_cells=120, n_genes=60, responders=1.0, seed=2, return_counterfactuals=True
    )
    controls = adata[adata.obs["perturbation"] == "control"].copy()
    pp.prepare(adata, library_size_key="library_size", target_sum=1e4)
    pp.grn(adata, prior=adata.uns["simulation"]["edges"])
    true = {}
    for target in TARGETS:
        cells = controls.copy()
        cells.X = truth[target]
        pp.prepare(cells, genes=adata.var_names, library_size_key="library_size", target_sum=1e4)
        true[target] = cells.X.toarray()
    return adata, true


@pytest.fixture(scope="module")
def predicted(simulated, build):
    """For every target the counterfactuals of all controls, by a model that was hardly trained."""
    adata, _ = simulated
    model = build(adata, train=20)
    controls = adata[adata.obs["perturbation"] == "control"].copy()
    cells = {}
    for target in TARGETS:
        model.predict(controls, perturbation=target, seed=0, **QUIET)
        cells[target] = controls.layers["unlasting"].toarray()
    return controls.X.toarray(), cells


def test_genes_downstream_change_and_the_others_stay(simulated, predicted):
    for target in TARGETS:
        adata, _ = simulated
        before, cells = predicted
        effects = adata.uns["simulation"]["effects"].loc[target, adata.var_names].to_numpy()
        strong, none = np.abs(effects) > 0.7, np.abs(effects) < 1e-8
        change = cells[target].mean(axis=0) - before.mean(axis=0)
        assert strong.sum() >= 3
        assert none.sum() >= 10
        assert np.abs(change[none]).mean() < 0.25 * np.abs(change[strong]).mean()
        assert (np.sign(change[strong]) == np.sign(effects[strong])).mean() > 0.8


def test_counterfactuals_are_those_of_their_cell(simulated, predicted):
    """Better by a third than the same predictions of other cells, and correlated with the truth in every gene."""
    for target in TARGETS:
        _, true = simulated
        _, cells = predicted
        own = np.linalg.norm(cells[target] - true[target], axis=1).mean()
        shuffled = np.random.default_rng(0).permutation(len(cells[target]))
        random = np.linalg.norm(cells[target][shuffled] - true[target], axis=1).mean()
        assert own < 2 / 3 * random
        varying = (true[target].std(axis=0) > 0) & (cells[target].std(axis=0) > 0)
        correlation = [
            np.corrcoef(*pair)[0, 1] for pair in zip(cells[target].T[varying], true[target].T[varying], strict=True)
        ]
        assert np.median(correlation) > 0.7
