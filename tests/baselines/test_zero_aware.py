"""Effects on detection and on expressed values: their estimate, their application, and the baselines that use them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import stats
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.linear_model import RidgeCV

from unlasting.baselines import (
    NoPrediction,
    ZeroAwareAdditive,
    ZeroAwareMeanShift,
    ZeroAwareNearestTarget,
    ZeroAwareRidge,
    apply_effects,
    control_expression,
    hurdle_effects,
)
from unlasting.screen import Condition

N_CELLS = 4000


def _cells(rng: np.random.Generator, rate: np.ndarray, mean: np.ndarray, n: int = N_CELLS) -> np.ndarray:
    """Draw cells: silent, or a value around the mean that is never near 0."""
    values = mean + rng.uniform(-0.3, 0.3, (n, len(rate)))
    return np.where(rng.random(values.shape) < rate, values, 0.0)


def test_controls_are_summarised_by_rate_mean_and_quantiles():
    cells = _cells(np.random.default_rng(0), np.array([0.0, 0.01, 0.5, 1.0]), np.array([1.0, 1.5, 2.0, 3.0]), n=300)
    control = control_expression(cells, otherwise=np.full(4, 0.7))
    for gene in range(4):
        values = cells[cells[:, gene] > 0, gene]
        assert control.rate[gene] == (len(values) + 0.5) / 301
        values = values if len(values) else np.array([0.7])
        assert control.mean[gene] == pytest.approx(values.mean())
        np.testing.assert_allclose(control.quantiles[:, gene], np.quantile(values, np.linspace(0, 1, 21)))


def test_effects_are_the_most_probable_under_a_normal_prior():
    rng = np.random.default_rng(1)
    for n_cells in (3, 50, 5_000):
        n_expressed = np.array([0, 1, n_cells // 2, n_cells - 1, n_cells])
        total = n_expressed * 2.0 + rng.normal(size=5)
        for rate in (1e-4, 0.02, 0.5, 0.999):
            control = control_expression(np.ones((1, 5)), np.ones(5))._replace(
                rate=np.full(5, rate), mean=np.full(5, 1.7)
            )
            detection, value = hurdle_effects(n_cells, n_expressed, total, control)
            for k, s, shift, moved in zip(n_expressed, total, detection, value, strict=True):

                def loss(x, k=k, rate=rate, n_cells=n_cells):
                    log_odds = logit(rate) + x
                    return n_cells * np.logaddexp(0, log_odds) - k * log_odds + x**2 / 2

                best = minimize_scalar(loss, bounds=(-20, 20), method="bounded", options={"xatol": 1e-8})
                assert loss(shift) <= best.fun + 1e-9 * abs(best.fun)
                assert moved == pytest.approx((s - 1.7 * k) / (k + 1))


def test_applied_effects_change_detection_and_values_as_they_say():
    rng = np.random.default_rng(2)
    rate, mean = np.array([0.3, 0.3, 0.9, 0.9, 0.02]), np.array([1.0, 2.0, 1.5, 3.0, 1.0])
    cells = _cells(rng, rate, mean)
    control = control_expression(cells, mean)
    effects = np.array([[1.5, -1.5, 2.0, -3.0, 0.0], [0.4, 0.0, -0.5, 0.1, 0.0]])
    changed = apply_effects(cells, effects, control, rng.random(cells.shape))
    expected = expit(logit(control.rate) + effects[0])
    np.testing.assert_allclose((changed > 0).mean(axis=0), expected, atol=4 * 0.5 / np.sqrt(N_CELLS))
    lost, gained = ((a > 0) & (b == 0) for a, b in ((cells, changed), (changed, cells)))
    assert (lost.any(axis=0) == (effects[0] < 0)).all()
    assert (gained.any(axis=0) == (effects[0] > 0)).all()
    stays = (cells > 0) & (changed > 0)
    moved = np.maximum(cells + effects[1], control.quantiles[0])
    np.testing.assert_allclose(changed[stays], moved[stays])
    for gene in (0, 2):  # gained values are distributed as the expressed values of the controls
        new = changed[gained[:, gene], gene]
        old = np.maximum(cells[cells[:, gene] > 0, gene] + effects[1, gene], control.quantiles[0, gene])
        assert stats.ks_2samp(new, old).pvalue > 0.01


def test_no_effect_changes_nothing_and_a_silent_gene_can_appear():
    cells = _cells(np.random.default_rng(3), np.array([0.0, 0.4]), np.array([1.0, 1.0]), n=200)
    control = control_expression(cells, otherwise=np.array([0.8, 0.8]))
    uniform = np.random.default_rng(4).random(cells.shape)
    np.testing.assert_array_equal(apply_effects(cells, np.zeros((2, 2)), control, uniform), cells)
    changed = apply_effects(cells, np.array([[9.0, 0.0], [0.1, 0.0]]), control, uniform)
    assert set(changed[:, 0].round(6)) == {0.0, 0.9}
    assert (changed[:, 0] > 0).mean() > 0.9
    np.testing.assert_array_equal(changed[:, 1], cells[:, 1])


# -- baselines

GENES = ["A", "B", *(f"gene{i}" for i in range(8))]
SINGLES = {"A": (0, 2), "B": (1, 3), "C": (4, 5), "E": (6, 7)}
"""Trained perturbations with the genes that they switch on and off, besides their own."""


@pytest.fixture(scope="module")
def large() -> AnnData:
    """Singles A, B, C and E (trained) with strong effects on their own and two other genes, in cells with many zeros."""
    rng = np.random.default_rng(5)
    rate, mean = np.full(10, 0.4), np.linspace(1, 2, 10)
    parts = [_cells(rng, rate, mean, 600)]
    labels = ["control"] * 600
    for name, (on, off) in SINGLES.items():
        shifted, higher = rate.copy(), mean.copy()
        shifted[2 + on], shifted[2 + off], higher[2 + on] = 0.8, 0.1, mean[2 + on] + 0.5
        if name in GENES:
            shifted[GENES.index(name)] = 0.05
        parts.append(_cells(rng, shifted, higher, 600))
        labels += [name] * 600
    obs = pd.DataFrame({"perturbation": labels}, index=[f"cell{i}" for i in range(len(labels))])
    adata = AnnData(np.vstack(parts).astype(np.float32), obs=obs)
    adata.var_names = GENES
    matrix = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0.6, 0.8], [0.9, 0.1, 0.0]])
    names = np.array(["A", "B", "C", "E", "gene7"], dtype=object)
    adata.uns["unlasting"] = {"target_embedding": {"names": names, "matrix": matrix}}
    return adata


def _measured(adata: AnnData, name: str) -> np.ndarray:
    """Effects of a trained perturbation, from its cells."""
    cells, controls = (adata.X[np.flatnonzero(adata.obs["perturbation"] == label)] for label in (name, "control"))
    control = control_expression(controls.astype(float), np.ones(10))
    return hurdle_effects(len(cells), (cells > 0).sum(axis=0), cells.sum(axis=0, dtype=float), control)


def _check(adata: AnnData, baseline, condition: str, effects: np.ndarray) -> None:
    """Compare predicted cells with the effects that they should show, up to the noise of 600 cells."""
    cells = baseline.predict(condition, 600)
    controls = adata.X[np.flatnonzero(adata.obs["perturbation"] == "control")]
    control = control_expression(controls.astype(float), np.ones(10))
    rate = expit(logit(control.rate) + effects[0])
    np.testing.assert_allclose((cells > 0).mean(axis=0), rate, atol=0.06)
    mean = cells.sum(axis=0) / (cells > 0).sum(axis=0)
    np.testing.assert_allclose(mean, np.maximum(control.mean + effects[1], control.quantiles[0]), atol=0.12)
    expressed = controls > 0
    assert (cells >= 0).all()
    unchanged = np.abs(effects[0]) < 1e-12
    assert ((np.sort(cells > 0, axis=0) == np.sort(expressed, axis=0)).all(axis=0) | ~unchanged).all()


def _without_own(adata: AnnData) -> dict[str, np.ndarray]:
    found = {name: _measured(adata, name) for name in SINGLES}
    for name in ("A", "B"):
        found[name][:, GENES.index(name)] = 0.0
    return found


def test_zero_aware_baselines_apply_their_effects(large):
    measured, others = {name: _measured(large, name) for name in SINGLES}, _without_own(large)
    on_target = np.mean([measured[name][:, GENES.index(name)] for name in "AB"], axis=0)

    def for_target(effects, name):
        effects = effects.copy()
        effects[:, GENES.index(name)] = on_target
        return effects

    _check(large, ZeroAwareMeanShift().fit(large), "gene7", for_target(np.mean(list(others.values()), axis=0), "gene7"))
    _check(large, ZeroAwareNearestTarget().fit(large), "gene7", for_target(others["A"], "gene7"))
    _check(large, ZeroAwareAdditive().fit(large), "A+B", measured["A"] + measured["B"])
    with pytest.raises(NoPrediction, match="no combination"):
        ZeroAwareAdditive().fit(large).predict("gene7", 5)


def test_zero_aware_ridge_is_ridge_on_the_prior(large):
    others, prior = _without_own(large), large.uns["unlasting"]["target_embedding"]
    scale = np.sqrt((prior["matrix"] ** 2).sum(axis=1).mean())
    features = dict(zip(prior["names"], prior["matrix"] / scale, strict=True))
    on_target = np.mean([_measured(large, name)[:, GENES.index(name)] for name in "AB"], axis=0)
    x = np.array([features[name] for name in others])
    expected = np.array(
        [
            RidgeCV(alphas=np.logspace(-3, 4, 15))
            .fit(x, np.array([effect[i] for effect in others.values()]))
            .predict(features["gene7"][None])[0]
            for i in range(2)
        ]
    )
    expected[:, GENES.index("gene7")] = on_target
    _check(large, ZeroAwareRidge().fit(large), "gene7", expected)
    with pytest.raises(NoPrediction, match="does not know gene1"):
        ZeroAwareRidge().fit(large).predict(Condition("gene1"), 5)


def test_the_ridge_penalty_suits_mean_changes_and_not_rare_genes():
    """Four frequent genes follow the prior; 200 rare genes change at random by as much in log-odds, but not in the mean."""
    rng = np.random.default_rng(6)
    features, weights = rng.normal(0, 1, (13, 2)), np.array([[1.5, -1.5, 0.0, 0.0], [0.0, 0.0, 1.5, -1.5]])
    parts, labels = [], []
    for name in ("control", *(f"T{i}" for i in range(12))):
        frequent = np.zeros(4) if name == "control" else features[int(name[1:])] @ weights
        rare = np.full(200, -4.0) if name == "control" else rng.normal(-4, 2, 200)
        parts.append(_cells(rng, expit(np.append(frequent, rare)), np.append(np.full(4, 6.0), np.ones(200)), 200))
        labels += [name] * 200
    obs = pd.DataFrame({"perturbation": labels}, index=[f"cell{i}" for i in range(len(labels))])
    adata = AnnData(np.vstack(parts).astype(np.float32), obs=obs)
    names = np.array([f"T{i}" for i in range(13)], dtype=object)
    adata.uns["unlasting"] = {"target_embedding": {"names": names, "matrix": features}}
    cells = ZeroAwareRidge().fit(adata).predict("T12", 200)
    expected = expit(features[12] @ weights)
    assert np.abs(expected - 0.5).max() > 0.25
    np.testing.assert_allclose((cells > 0).mean(axis=0)[:4], expected, atol=0.12)
