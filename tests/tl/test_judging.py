"""The parts of `tl.evaluate` against independent oracles."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import cdist, pdist

from unlasting.metrics import METRICS
from unlasting.tl._comparison import Comparison, is_of_conditions
from unlasting.tl._differential import Moments, differential, top_genes
from unlasting.tl._signal import harm_test, holm, permutation_test


def _u_statistic(x: np.ndarray, y: np.ndarray) -> float:
    return 2 * cdist(x, y).mean() - pdist(x).mean() - pdist(y).mean()


@pytest.fixture
def cells() -> dict[str, np.ndarray]:
    """Samples of different sizes with zeros, an offset, and a gene that nobody expresses."""
    rng = np.random.default_rng(0)
    sizes = {"sample": 20, "observed": 31, "control": 40, "observed_control": 41}
    found = {name: 3 + rng.gamma(2, 0.5, (n, 12)) * (rng.random((n, 12)) < 0.8) for name, n in sizes.items()}
    for i, values in enumerate(found.values()):
        values[:, :4] += 0.4 * i
        values[:, 11] = 0
    return {name: values.astype(np.float32) for name, values in found.items()}


def test_comparison_agrees_with_brute_force(cells):
    reference = np.random.default_rng(1).random(12)
    sets = {"all": np.arange(12), "de5": np.array([0, 2, 5, 7, 9])}
    single = [metric for metric in METRICS.values() if not is_of_conditions(metric)]
    control, observed_control = (Moments.of(cells[name]) for name in ("control", "observed_control"))
    weights = np.random.default_rng(2).random(12)
    comparison = Comparison(cells["observed"], control, observed_control, reference, weights, single, sets)
    found = comparison.values(cells["sample"])
    wide = {name: values.astype(np.float64) for name, values in cells.items()}
    for name, places in sets.items():
        x, y, c, oc = (wide[group][:, places] for group in ("sample", "observed", "control", "observed_control"))
        assert found["e_distance", name] == pytest.approx(_u_statistic(x, y), rel=1e-4)
        emd = np.mean([stats.wasserstein_distance(a, b) for a, b in zip(x.T, y.T, strict=True)])
        assert found["emd", name] == pytest.approx(emd, rel=1e-5)
        changes = x.mean(axis=0) - c.mean(axis=0), y.mean(axis=0) - oc.mean(axis=0)
        assert found["pearson_change", name] == pytest.approx(stats.pearsonr(*changes)[0], rel=1e-5)
        assert found["mse_change", name] == pytest.approx(np.mean((changes[0] - changes[1]) ** 2), rel=1e-5)
        centred = [values.mean(axis=0) - reference[places] for values in (x, y)]
        assert found["pearson_change_centred", name] == pytest.approx(stats.pearsonr(*centred)[0], rel=1e-5)
        shares = weights[places] / weights[places].sum()
        assert found["weighted_mse", name] == pytest.approx(
            np.sum(shares * (x.mean(axis=0) - y.mean(axis=0)) ** 2), rel=1e-5
        )
        zeros = np.abs((x == 0).mean(axis=0) - (y == 0).mean(axis=0)).mean()
        assert found["zero_fraction_error", name] == pytest.approx(zeros, abs=1e-7)
    # tables are made of as many observed cells as there are in the sample
    tables = [differential(Moments.of(cells["sample"]), control)]
    tables.append(differential(Moments.of(cells["observed"][:20]), observed_control))
    significant = tables[1].pvalue < 0.05
    assert significant.any()
    recall = (tables[0].pvalue[significant] < 0.05).mean()
    assert found["de_recall", "all"] == pytest.approx(recall)
    direction = (np.sign(tables[0].lfc) == np.sign(tables[1].lfc))[significant].mean()
    assert found["de_direction", "all"] == pytest.approx(direction)
    assert ("de_recall", "de5") not in found


def test_differential_is_that_of_scanpy(cells):
    group, control = cells["observed"], cells["control"]
    names = [f"gene{i}" for i in range(12)]
    obs = pd.DataFrame({"group": pd.Categorical(["a"] * len(group) + ["c"] * len(control))})
    adata = AnnData(
        np.vstack([group, control]), obs=obs.set_index(obs.index.astype(str)), var=pd.DataFrame(index=names)
    )
    sc.tl.rank_genes_groups(adata, "group", groups=["a"], reference="c", method="t-test_overestim_var", rankby_abs=True)
    expected = sc.get.rank_genes_groups_df(adata, "a").set_index("names").loc[names]
    found = differential(Moments.of(group), Moments.of(control))
    np.testing.assert_allclose(found.score, expected["scores"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.pvalue, expected["pvals_adj"], rtol=1e-4, atol=1e-9)
    assert found.score[11] == 0
    ranked = adata.uns["rank_genes_groups"]["names"]["a"]
    assert set(np.array(names)[top_genes(found.score, pd.Index(names), 5)]) == set(ranked[:5])


@given(st.integers(1, 30), st.integers(1, 30), st.floats(-100, 100), st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_moments_of_parts_are_those_of_the_whole(n: int, m: int, offset: float, seed: int):
    values = offset + np.random.default_rng(seed).normal(size=(n + m, 3))
    joined, whole = Moments.of(values[:n]).joined(Moments.of(values[n:])), Moments.of(values)
    assert joined.n == whole.n
    np.testing.assert_allclose(joined.mean, whole.mean)
    np.testing.assert_allclose(joined.variance, whole.variance, rtol=1e-8)
    np.testing.assert_allclose(whole.variance, values.var(axis=0, ddof=1), rtol=1e-8)


def test_ties_are_broken_by_name_and_genes_without_difference_are_left_out():
    score = np.array([0.0, 2.0, -2.0, 2.0, 0.5])
    genes = pd.Index(["e", "d", "c", "b", "a"])
    assert list(genes[top_genes(score, genes, 2)]) == ["c", "b"]
    assert list(genes[top_genes(score, genes, 20)]) == ["d", "c", "b", "a"]


def test_permutation_test_agrees_with_all_permutations():
    rng = np.random.default_rng(0)
    x, y = rng.normal(1.2, 1, (4, 3)), rng.normal(0, 1, (4, 3))
    both = np.vstack([x, y])
    labellings = [np.isin(np.arange(8), chosen) for chosen in combinations(range(8), 4)]
    everything = np.array([_u_statistic(both[chosen], both[~chosen]) for chosen in labellings])
    value, p_value = permutation_test(x, y, 20_000, rng)
    assert value == pytest.approx(_u_statistic(x, y))
    assert p_value == pytest.approx((everything >= _u_statistic(x, y) - 1e-12).mean(), abs=0.01)


def test_permutation_test_keeps_its_level_and_finds_a_shift():
    rng = np.random.default_rng(1)
    p_values = [permutation_test(*rng.gamma(1, 1, (2, 30, 5)), 99, rng)[1] for _ in range(200)]
    assert np.mean(np.array(p_values) <= 0.05) == pytest.approx(0.05, abs=0.04)
    assert permutation_test(rng.normal(1, 1, (30, 5)), rng.normal(0, 1, (30, 5)), 99, rng)[1] == 0.01
    assert permutation_test(np.ones((5, 2)), np.ones((5, 2)), 99, rng) == (0.0, 1.0)


def test_harm_test_keeps_its_level_and_finds_harm():
    rng = np.random.default_rng(2)
    p_values = [harm_test(*rng.gamma(1, 1, (3, 40, 15)), 50, rng)[2] for _ in range(200)]
    assert np.mean(np.array(p_values) <= 0.05) == pytest.approx(0.05, abs=0.04)
    larger, smaller, p_value = harm_test(*(rng.normal(by, 1, (60, 15)) for by in (0.5, 0, 0)), 50, rng)
    assert larger > smaller
    assert p_value < 0.01
    assert harm_test(*(rng.normal(by, 1, (60, 15)) for by in (0, 0.5, 0)), 50, rng)[2] > 0.99


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
@settings(max_examples=50, deadline=None)
def test_holm_rejects_as_the_steps_say(p_values: list[float]):
    adjusted = holm(np.array(p_values))
    level = 0.05
    rejected, n = set(), len(p_values)
    for step, i in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[i] * (n - step) > level:
            break
        rejected.add(i)
    assert set(np.flatnonzero(adjusted <= level)) == rejected
    assert (adjusted >= np.array(p_values) - 1e-12).all()
