"""Simulated screens: the known network decides the change, and counterfactuals share the luck of their cell."""

from __future__ import annotations

import anndata
import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from unlasting import datasets, pp
from unlasting.datasets._simulation import Network, changed_counts


@pytest.fixture(scope="module")
def simulated():
    return datasets.simulate_screen(
        n_cells=150, n_controls=400, n_combos=3, n_cell_types=2, seed=1, return_counterfactuals=True
    )


def controls(adata):
    return adata[adata.obs["perturbation"] == "control"].X.toarray()


def test_the_screen_has_the_requested_sizes(simulated) -> None:
    adata, truth = simulated
    counts = adata.obs["perturbation"].value_counts().to_dict()
    assert counts.pop("control") == 400
    assert len(counts) == 9 + 1 + 3
    assert set(counts.values()) == {150}
    assert adata.n_vars == 100
    assert len({f"T{i}" for i in range(1, 10)} - set(adata.var_names)) == 3
    assert adata.obs["cell_type"].nunique() == 2
    assert truth.keys() == counts.keys()
    assert all(matrix.shape == (400, 100) for matrix in truth.values())
    assert (adata.X.data == np.rint(adata.X.data)).all()
    assert adata.X.toarray().mean() == pytest.approx(3, rel=0.1)


def test_a_counterfactual_differs_downstream_only(simulated) -> None:
    adata, truth = simulated
    edges = adata.uns["simulation"]["edges"]
    graph = networkx.DiGraph(list(zip(edges["source"], edges["target"], strict=True)))
    assert networkx.is_directed_acyclic_graph(graph)
    for label, matrix in truth.items():
        targets = label.split("+")
        reached = set(targets).union(*(networkx.descendants(graph, t) for t in targets if t in graph))
        changed = set(adata.var_names[(matrix.toarray() != controls(adata)).any(axis=0)])
        assert changed <= reached
        effects = adata.uns["simulation"]["effects"].loc[label]
        assert set(effects.index[effects != 0]) == reached & set(adata.var_names)


def test_counterfactuals_share_the_luck_of_their_cell(simulated) -> None:
    adata, truth = simulated
    effects = adata.uns["simulation"]["effects"]
    before = controls(adata)
    for label in ("T1", "T4"):
        after = truth[label].toarray()
        down = (effects.loc[label] < 0).to_numpy() & np.isfinite(effects.loc[label].to_numpy())
        up = (effects.loc[label] > 0.2).to_numpy()
        assert (after[:, down] <= before[:, down]).mean() > 0.99
        assert np.mean(after[:, up] >= before[:, up]) > 0.9


def test_perturbed_cells_and_counterfactuals_have_one_distribution(simulated) -> None:
    adata, truth = simulated
    p_values = []
    for label in ("T1", "T2", "T7"):
        observed = adata[adata.obs["perturbation"] == label].X.toarray()
        expected = truth[label].toarray()
        p_values += [stats.ks_2samp(observed[:, g], expected[:, g]).pvalue for g in range(adata.n_vars)]
    assert np.mean(np.array(p_values) < 0.01) < 0.03


def test_with_the_library_size_other_genes_stay_as_they_are(simulated) -> None:
    adata, truth = simulated
    adata = adata.copy()
    unchanged = (adata.uns["simulation"]["effects"].loc["T1"] == 0).to_numpy()
    control = (adata.obs["perturbation"] == "control").to_numpy()
    counterfactual = adata[control].copy()
    counterfactual.X = truth["T1"]
    pp.prepare(adata, library_size_key="library_size", target_sum=300, min_cells=1)
    pp.prepare(counterfactual, library_size_key="library_size", target_sum=300, min_cells=1, control="control")
    shared = [gene for gene in simulated[0].var_names[unchanged] if gene in counterfactual.var_names]
    before, after = adata[control, shared].X.toarray(), counterfactual[:, shared].X.toarray()
    np.testing.assert_array_equal(before, after)
    assert len(shared) > 50


def test_a_silenced_target_has_no_counts_in_responders(simulated) -> None:
    adata, _ = simulated
    measured = next(f"T{i}" for i in range(1, 10) if f"T{i}" in adata.var_names)
    cells = adata[adata.obs["perturbation"] == measured]
    responds = cells.obs["responder"].to_numpy()
    own = cells[:, measured].X.toarray().ravel()
    assert (own[responds] == 0).all()
    assert own[~responds].sum() > 0
    assert responds.mean() == pytest.approx(0.8, abs=0.1)
    assert not adata.obs.loc[adata.obs["perturbation"] == "control", "responder"].any()


def test_responders_make_two_modes() -> None:
    adata = datasets.simulate_screen(
        n_cells=300, responders=0.5, n_targets=3, n_unmeasured=0, strength=2.5, mean_counts=20, noise_sd=0.15
    )
    effects = adata.uns["simulation"]["effects"].loc["T1"].drop("T1")
    gene = effects.abs().replace(np.inf, 0).idxmax()
    cells = adata[adata.obs["perturbation"] == "T1"]
    values = np.log1p(cells[:, gene].X.toarray().ravel())
    groups = [values[cells.obs["responder"] == state] for state in (True, False)]
    spread = np.sqrt(np.mean([group.var() for group in groups]))
    assert abs(groups[0].mean() - groups[1].mean()) > 2 * spread


def test_the_same_seed_gives_the_same_screen() -> None:
    first, second, other = (datasets.simulate_screen(n_cells=20, n_controls=30, seed=seed) for seed in (3, 3, 4))
    assert (first.X != second.X).nnz == 0
    assert (first.X != other.X).nnz > 0


def test_real_control_cells_stay_as_they_are() -> None:
    base = datasets.kang()
    base = base[base.obs["perturbation"] == "control"].copy()
    adata, truth = datasets.simulate_screen(
        base=base, n_cells=50, n_controls=300, n_genes=200, return_counterfactuals=True, seed=2
    )
    assert set(adata.obs["cell_type"]) <= set(base.obs["cell_type"].astype(str))
    most = np.sort(np.asarray(base.X.sum(axis=0)).ravel())[-200:].astype(int)
    real = {tuple(sorted(row)) for row in base.X.toarray()[:, np.argsort(-np.asarray(base.X.sum(0)).ravel(), kind="stable")[:200]].astype(int).tolist()}  # fmt: skip
    assert all(tuple(sorted(row)) in real for row in controls(adata).astype(int).tolist())
    assert most.min() > 0
    effects = adata.uns["simulation"]["effects"]
    change = truth["T1"].toarray().sum(0) / controls(adata).sum(0)
    finite = np.isfinite(effects.loc["T1"]) & (effects.loc["T1"] != 0)
    expected = 1 + 0.8 * np.expm1(effects.loc["T1"][finite].to_numpy())
    assert np.corrcoef(np.log(change[finite.to_numpy()]), np.log(expected))[0, 1] > 0.95


def test_the_whole_way_of_preparation_works_and_survives_a_file(tmp_path) -> None:
    adata = datasets.simulate_screen(n_cells=20, n_controls=50, n_combos=2)
    pp.split(adata, "unseen_perturbation")
    pp.prepare(adata)
    pp.grn(adata, prior=adata.uns["simulation"]["edges"])
    adata.write_h5ad(tmp_path / "screen.h5ad")
    again = anndata.read_h5ad(tmp_path / "screen.h5ad")
    assert list(again.uns["simulation"]["effects"].index) == list(adata.uns["simulation"]["effects"].index)
    assert again.uns["simulation"]["parameters"]["seed"] == 0


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(rate=st.floats(0.5, 20), change=st.floats(-2, 2), seed=st.integers(0, 100))
def test_changed_poisson_counts_are_poisson(rate: float, change: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (4000, 1)
    counts = rng.poisson(rate, size=shape)
    after = changed_counts(counts, np.full(shape, rate), np.full(shape, change), rng.uniform(size=shape))
    mean = rate * np.exp(change)
    assert after.mean() == pytest.approx(mean, abs=5 * np.sqrt(mean / 4000))
    assert after.var() == pytest.approx(mean, rel=0.2, abs=0.02)


def test_a_change_runs_down_the_chain() -> None:
    weights = np.zeros((3, 3))
    weights[0, 1], weights[1, 2] = 1.0, -2.0
    network = Network(np.array(["a", "b", "c"], dtype=object), weights)
    noise = np.zeros((1, 3))
    np.testing.assert_allclose(network.log_expression(noise), [[0, 0, 0]])
    np.testing.assert_allclose(network.log_expression(noise, ["a"]), [[-np.inf, -1, -2 * np.expm1(-1)]])


def test_full_inhibition_is_a_knock_out_that_leaves_the_target() -> None:
    network = Network.drawn(["T1", "T2"], [], ["a", "b", "c"], n_downstream=2, strength=1, rng=np.random.default_rng(0))
    noise = np.random.default_rng(1).normal(size=(4, 5))
    first = network.names == "T1"
    silenced, inhibited = network.log_expression(noise, ["T1"]), network.log_expression(noise, (), first.astype(float))
    np.testing.assert_allclose(silenced[:, ~first], inhibited[:, ~first])
    np.testing.assert_allclose(inhibited[:, first], network.log_expression(noise)[:, first])


def test_numbers_that_do_not_fit_are_named() -> None:
    for arguments, message in [
        ({"n_cells": 0}, "`n_cells` is 0"),
        ({"n_cells": 2.5}, "`n_cells` is 2.5; a whole number"),
        ({"n_inert": -1}, "`n_inert` is -1"),
        ({"n_unmeasured": 20}, "there are only 9 targets"),
        ({"n_genes": 6}, "the measured targets alone are 7"),
        ({"n_combos": 100}, "have fewer pairs"),
        ({"responders": 1.5}, "must be a fraction"),
        ({"responders": [0.5]}, "one for each of the 9 targets"),
    ]:
        with pytest.raises(ValueError, match=message):
            datasets.simulate_screen(**arguments)


def test_a_base_that_is_too_small_or_not_raw_is_refused() -> None:
    base = datasets.simulate_screen(n_cells=5, n_controls=50)
    with pytest.raises(ValueError, match="this screen needs 1500 cells and 100 genes"):
        datasets.simulate_screen(base=base)
    base.X = base.X * 0.5
    with pytest.raises(ValueError, match="must hold raw counts"):
        datasets.simulate_screen(base=base, n_cells=1, n_controls=10)
