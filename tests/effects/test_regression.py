"""The expected effects against explicit formulas and scikit-learn, and what they must do on planted effects."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct

from unlasting.effects import EffectFit, ExpectedEffects, MeasuredEffects, _regression, fit_effects, fit_statistics

N_GENES = 40


def measured_effects(condition, population, noise, shifts, expressed=0.5) -> MeasuredEffects:
    condition, population = np.asarray(condition), np.asarray(population)
    noise = np.broadcast_to(noise, condition.shape).astype(float)
    rate = np.full(shifts.shape[2], expressed)
    return MeasuredEffects(condition, population, 2.0 / noise, noise, shifts, rate)


def linear_screen(n_trained=20, n_features=4, n_populations=1, noise=0.01, seed=0):
    """Effects that are linear in features, the first of which matters, and seen with noise."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n_trained, n_features)) / np.sqrt(n_features)
    weights = rng.normal(size=(n_features, 3, N_GENES)) * np.array([2.0, *[0.05] * (n_features - 1)])[:, None, None]
    condition, population = np.divmod(np.arange(n_trained * n_populations), n_populations)
    shifts = np.einsum("nf,fsg->nsg", features, weights)[condition]
    shifts = shifts + rng.normal(size=shifts.shape) * np.sqrt(noise)
    profiles = rng.random((n_populations, N_GENES))
    return features, weights, profiles, measured_effects(condition, population, noise, shifts)


def expected(fit: EffectFit, features, profiles) -> np.ndarray:
    of_conditions, of_populations = (
        torch.as_tensor(np.asarray(part), dtype=torch.float32) for part in (features, profiles)
    )
    no_node = torch.full((len(of_conditions), 1), -1)
    return ExpectedEffects(fit)(of_conditions, no_node, of_populations).numpy()


def support(fit: EffectFit, features) -> np.ndarray:
    return ExpectedEffects(fit).support(torch.as_tensor(np.asarray(features), dtype=torch.float32)).numpy()


def log_likelihood(covariance, noise, values, size) -> float:
    """Gaussian log-likelihood of the columns of `values`, each at its size, without the constant."""
    total = 0.0
    for column, of_column in zip(values.T, size, strict=True):
        full = of_column * covariance + np.diag(noise)
        whitened = full / np.sqrt(np.outer(noise, noise))
        total -= 0.5 * (np.linalg.slogdet(whitened)[1] + column @ np.linalg.solve(full, column))
    return total


def test_the_posterior_mean_is_that_of_scikit_learn(monkeypatch):
    """With one feature relevance is known to be a constant, and one size leaves one kernel."""
    monkeypatch.setattr(_regression, "_SIZES", np.array([0.3]))
    rng = np.random.default_rng(1)
    features = rng.normal(size=(12, 1))
    noise = rng.uniform(0.05, 0.4, size=12)
    shifts = rng.normal(size=(12, 3, N_GENES))
    fit = fit_effects(
        features, np.ones(1), np.zeros((1, N_GENES)), measured_effects(np.arange(12), np.zeros(12, int), noise, shifts)
    )
    relevance = 1.0 / np.mean(features**2)
    assert fit.relevance.numpy() == pytest.approx([relevance], rel=1e-5)
    units = np.array([0.5, np.sqrt(0.5), 1.0])[:, None]  # a half of the cells express each gene
    kernel = ConstantKernel(0.3 * relevance, "fixed") * DotProduct(0.0, "fixed")
    oracle = GaussianProcessRegressor(kernel, alpha=noise, optimizer=None)
    new = rng.normal(size=(5, 1))
    oracle.fit(features, (shifts * units).reshape(12, -1))
    theirs = oracle.predict(new).reshape(5, 3, N_GENES) / units
    np.testing.assert_allclose(expected(fit, new, np.zeros((5, N_GENES))), theirs, rtol=1e-4, atol=1e-4)


def test_the_precision_is_the_inverse_covariance(monkeypatch):
    monkeypatch.setattr(_regression, "_SIZES", np.array([0.3]))
    features, _, profiles, measured = linear_screen(noise=0.2)
    fit = fit_effects(features, np.ones(features.shape[1]), profiles, measured)
    relevance = fit.relevance.numpy().astype(float)
    covariance = (features * relevance) @ features.T
    np.testing.assert_allclose(
        fit.precision.numpy() @ (covariance + np.eye(20) * 0.2 / 0.3), np.eye(20), rtol=0, atol=1e-4
    )
    new = np.random.default_rng(2).normal(size=(6, 4))
    kernel = (new * relevance) @ features.T
    explained = np.einsum("ij,jk,ik->i", kernel, np.linalg.inv(covariance + np.eye(20) * 0.2 / 0.3), kernel)
    own, typical = new**2 @ relevance, (features**2 @ relevance).mean()
    np.testing.assert_allclose(support(fit, new), explained / np.maximum(own, typical), atol=1e-4)
    np.testing.assert_array_equal(support(fit, features), 1.0)


def test_two_populations_share_as_much_as_the_kernel_says(monkeypatch):
    """The mean over conditions and populations, from the full covariance of all pairs."""
    monkeypatch.setattr(_regression, "_SIZES", np.array([1.0]))
    monkeypatch.setattr(_regression, "_POPULATION_SHARES", (0.5,))
    features, _, profiles, measured = linear_screen(n_trained=8, n_populations=3, noise=0.1)
    fit = fit_effects(features, np.ones(features.shape[1]), profiles, measured)
    relevance = fit.relevance.numpy().astype(float)
    centred = profiles - profiles.mean(axis=0)
    alike = centred @ centred.T
    alike = alike / np.sqrt(np.outer(np.diag(alike), np.diag(alike)))
    of_populations = 0.5 + 0.5 * alike[np.ix_(measured.population, measured.population)]
    of_conditions = ((features * relevance) @ features.T)[np.ix_(measured.condition, measured.condition)]
    covariance = of_conditions * of_populations
    solved = np.linalg.solve(covariance + 0.1 * np.eye(24), measured.shifts.reshape(24, -1))
    theirs = (covariance @ solved).reshape(24, 3, N_GENES)
    ours = expected(fit, features[measured.condition], profiles[measured.population])
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def test_updates_of_the_relevances_make_the_measured_effects_likelier(monkeypatch):
    features, _, _, measured = linear_screen(n_features=6, noise=0.05, seed=3)
    values, noise = measured.shifts.reshape(len(features), -1), measured.noise
    likelihood = []
    for rounds in range(_regression._ROUNDS + 1):
        monkeypatch.setattr(_regression, "_ROUNDS", rounds)
        relevance, _ = _regression._relevances(features, values, noise)
        covariance = (features * relevance) @ features.T
        spectrum = _regression._Spectrum.of(covariance, noise)
        claimed, sizes = spectrum.sizes(values)
        assert claimed == pytest.approx(log_likelihood(covariance, noise, values, sizes), rel=1e-6)
        likelihood.append(claimed)
    assert (np.diff(likelihood) > 0).all()
    assert relevance.argmax() == 0


def test_a_linear_effect_is_found_for_unseen_targets():
    features, weights, profiles, measured = linear_screen(n_trained=30, noise=0.05)
    fit = fit_effects(features, np.ones(features.shape[1]), profiles, measured)
    new = np.random.default_rng(9).normal(size=(20, 4)) / 2.0
    truth = np.einsum("nf,fsg->nsg", new, weights)
    error = np.mean((expected(fit, new, np.repeat(profiles, 20, axis=0)) - truth) ** 2)
    of_the_mean = np.mean((measured.shifts.mean(axis=0) - truth) ** 2)
    assert error < 0.1 * of_the_mean


def test_where_nothing_acts_nothing_is_expected():
    rng = np.random.default_rng(4)
    features = rng.normal(size=(30, 5)) / np.sqrt(5)
    noise = 0.01
    units = np.array([0.5, np.sqrt(0.5), 1.0])[:, None]
    shifts = rng.normal(size=(30, 3, N_GENES)) * np.sqrt(noise) / units
    measured = measured_effects(np.arange(30), np.zeros(30, int), noise, shifts)
    fit = fit_effects(features, np.ones(features.shape[1]), np.zeros((1, N_GENES)), measured)
    ours = expected(fit, features, np.zeros((30, N_GENES)))
    assert np.mean(ours**2) < 0.2 * np.mean(shifts**2)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_effects_add_up_and_the_control_has_none(seed):
    features, _, profiles, measured = linear_screen(n_trained=6, n_populations=2, seed=seed)
    fit = fit_effects(features, np.ones(features.shape[1]), profiles, measured)
    one, other = features[:3], features[3:]
    population = np.repeat(profiles[:1], 3, axis=0)
    both = expected(fit, one + other, population)
    np.testing.assert_allclose(
        both, expected(fit, one, population) + expected(fit, other, population), rtol=1e-3, atol=1e-3
    )
    assert (expected(fit, np.zeros((3, 4)), population) == 0).all()
    assert (support(fit, np.zeros((1, 4))) == 1).all()
    told = support(fit, np.random.default_rng(seed).normal(size=(20, 4)))
    assert ((told >= 0) & (told <= 1)).all()


def test_support_is_higher_where_a_feature_is_shared():
    """Targets of one group share a feature; the second group has been seen once, with another feature of its own."""
    rng = np.random.default_rng(5)
    group = np.array([0, 0, 0, 0, 0, 1])
    features = np.concatenate([np.eye(2)[group], 0.5 * np.eye(6)], axis=1)
    shifts = np.repeat(rng.normal(size=(2, 3, N_GENES)), [5, 1], axis=0) + 0.1 * rng.normal(size=(6, 3, N_GENES))
    fit = fit_effects(
        features,
        np.ones(features.shape[1]),
        np.zeros((1, N_GENES)),
        measured_effects(np.arange(6), np.zeros(6, int), 0.05, shifts),
    )
    of_many, of_one, of_none = support(fit, [[1, 0, *[0] * 6], [0, 1, *[0] * 6], [1e-3, 0, *[0] * 6]])
    assert of_one < of_many
    assert of_none == pytest.approx(0.0, abs=1e-4)  # a target of which next to nothing is known


def test_an_unseen_population_gets_the_effects_of_the_one_it_resembles():
    rng = np.random.default_rng(6)
    features = rng.normal(size=(10, 3)) / np.sqrt(3)
    weights = rng.normal(size=(2, 3, 3, N_GENES))
    condition, population = np.divmod(np.arange(20), 2)
    shifts = np.einsum("nf,nfsg->nsg", features[condition], weights[population])
    profiles = rng.random((2, N_GENES))
    fit = fit_effects(
        features, np.ones(features.shape[1]), profiles, measured_effects(condition, population, 0.01, shifts)
    )
    assert float(fit.population_share) >= 0.5
    new = 0.9 * profiles[1] + 0.1 * profiles[0]
    told = expected(fit, features, np.repeat(new[None], 10, axis=0))
    distance = [np.mean((told - shifts[population == which]) ** 2) for which in (0, 1)]
    assert distance[1] < 0.2 * distance[0]


def test_populations_that_react_alike_share_their_effects():
    features, _, profiles, measured = linear_screen(n_trained=15, n_populations=2)
    fit = fit_effects(features, np.ones(features.shape[1]), profiles, measured)
    assert float(fit.population_share) == 0.0


@pytest.mark.parametrize("n_populations", [1, 2])
def test_permuting_genes_permutes_the_effects(n_populations):
    features, _, profiles, measured = linear_screen(n_populations=n_populations)
    order = np.random.default_rng(7).permutation(N_GENES)
    moved = measured_effects(measured.condition, measured.population, measured.noise, measured.shifts[:, :, order])
    population = np.repeat(profiles[:1], len(features), axis=0)
    ours = expected(fit_effects(features, np.ones(features.shape[1]), profiles, measured), features, population)
    theirs = expected(
        fit_effects(features, np.ones(features.shape[1]), profiles[:, order], moved), features, population[:, order]
    )
    np.testing.assert_allclose(theirs, ours[:, :, order], rtol=1e-3, atol=1e-4)


def test_test_cells_do_not_matter():
    rng = np.random.default_rng(8)
    condition, population, split = (
        rng.integers(4, size=300),
        rng.integers(2, size=300),
        rng.choice([0, 0, 1, 2], size=300),
    )
    cells = rng.gamma(1.0, 1.0, size=(300, N_GENES)) * (rng.random((300, N_GENES)) < 0.6)
    other = np.where((split == 2)[:, None], 50.0 + cells[::-1], cells)
    codes = {
        "condition": condition,
        "population": population,
        "split": split,
        "control_code": 0,
        "n_conditions": 4,
        "n_populations": 2,
    }
    features = np.eye(3)
    fits = []
    for matrix in (cells, other):
        statistics, measured = fit_statistics(matrix.astype(np.float32), **codes)
        fits.append(
            (statistics, fit_effects(features, np.ones(features.shape[1]), statistics.control_mean.numpy(), measured))
        )
    for ours, theirs in zip(*fits, strict=True):
        for name, value in vars(ours).items():
            torch.testing.assert_close(value, getattr(theirs, name), rtol=0, atol=0)
    assert (fits[0][1].coefficients != 0).any()


def test_on_target_effects_act_on_the_genes_that_are_targets():
    features, _, profiles, measured = linear_screen()
    own = torch.randn(3, N_GENES, generator=torch.Generator().manual_seed(0))
    fit = fit_effects(features, np.ones(features.shape[1]), profiles, measured)
    effects = ExpectedEffects(dataclasses.replace(fit, own=own))
    node = torch.tensor([[-1, -1], [3, -1], [2, 5], [N_GENES, 1]])  # nothing, a gene, two, and one that is not measured
    asked, populations = torch.zeros(4, features.shape[1]), torch.zeros(4, N_GENES)
    expected = torch.zeros(4, 3, N_GENES)
    for row, genes in enumerate([[], [3], [2, 5], [1]]):
        expected[row, :, genes] = own[:, genes]
    torch.testing.assert_close(effects(asked, node, populations), expected)


def test_what_is_transferred_does_not_fade_with_the_dose():
    """Features of a drug, and effects with them, fade towards dose 0; the share of cells that escape it does not."""
    rng = np.random.default_rng(0)
    drug, gate = np.repeat(np.eye(4), 5, axis=0), np.tile([0.1, 0.3, 0.6, 0.9, 1.0], 4)[:, None]
    of_drugs = rng.normal(size=(4, 3, N_GENES))
    shifts = np.einsum("nf,fsg->nsg", gate * drug, of_drugs)
    measured = measured_effects(np.arange(20), np.zeros(20, dtype=int), 0.01, shifts + rng.normal(0, 0.1, shifts.shape))
    effects = ExpectedEffects(fit_effects(gate * drug, np.ones(4), np.zeros((1, N_GENES)), measured))
    share = torch.tensor([0.1, 0.2, 0.3, 0.4])
    values = share.repeat_interleave(5)
    assert torch.equal(effects.transferred(effects.features, values), values)
    assert effects.transferred(torch.zeros(2, 4), values).tolist() == [0.0, 0.0]
    for dose in (1.1, 0.5, 0.2, 0.01):
        assert torch.equal(effects.transferred(dose * torch.eye(4), values), share)
        mixed = effects.transferred(dose * (torch.eye(4) + 0.01), values)  # another drug, that is nearly one of these
        torch.testing.assert_close(mixed, share, atol=0.02, rtol=0.0)
    # what was not found at doses of little effect counts for little
    values = values * torch.as_tensor(gate[:, 0] > 0.5)
    torch.testing.assert_close(effects.transferred(0.5 * (torch.eye(4) + 0.01), values), share, atol=0.05, rtol=0.0)


def test_what_is_transferred_is_never_more_than_all_trained_conditions_have():
    """Targets that share a generic feature and have one of their own, of which an untrained one has only the first."""
    n_trained = 100
    rng = np.random.default_rng(0)
    own = np.eye(n_trained)
    features = np.hstack([np.full((n_trained, 1), 0.3), own])
    shifts = rng.normal(size=(n_trained, 3, N_GENES)) + 0.5 * rng.normal(size=(1, 3, N_GENES))
    measured = measured_effects(np.arange(n_trained), np.zeros(n_trained, dtype=int), 0.01, shifts)
    specific = np.r_[0.0, np.ones(n_trained)]
    effects = ExpectedEffects(fit_effects(features, specific, np.zeros((1, N_GENES)), measured))
    untrained = torch.zeros(1, n_trained + 1)
    untrained[0, 0] = 0.3
    pair, four = (effects.features[:n].sum(dim=0, keepdim=True) for n in (2, 4))
    share = torch.full((n_trained,), 0.4)
    for features_of in (untrained, pair, four):
        carried = float(effects.transferred(features_of, share))
        assert 0.0 < carried <= 0.4 + 1e-4
    assert float(effects.transferred(pair, share)) == pytest.approx(0.4, abs=0.02)
