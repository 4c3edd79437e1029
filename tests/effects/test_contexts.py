"""The kernel over contexts: positive semi-definite, never negative, and with full transfer where nothing is known."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from unlasting.effects import ContextKernel, EffectRegression, MeasuredEffects

N_GENES = 40
UNITS = np.array([0.5, np.sqrt(0.5), 1.0])[:, None]  # half of the cells express each gene


def screen(own: float, n_contexts: int = 2, n_conditions: int = 6, seed: int = 0):
    """Effects with a share particular to contexts, their features, and mean expression in one more context."""
    rng = np.random.default_rng(seed)
    condition, context = np.divmod(np.arange(n_conditions * n_contexts), n_contexts)
    common = rng.normal(size=(n_conditions, 3, N_GENES))[condition]
    effects = np.sqrt(1 - own) * common + np.sqrt(own) * rng.normal(size=common.shape)
    effects = effects + rng.normal(size=effects.shape) * 0.1 / UNITS
    noise = np.full(len(condition), 0.01)
    measured = MeasuredEffects(condition, context, 1e6 / noise, noise, effects, np.full(N_GENES, 0.5))
    return np.eye(n_conditions, dtype=np.float32), rng.random((n_contexts + 1, N_GENES)), measured


def fitted(features, means, measured) -> EffectRegression:
    return EffectRegression.fit(features, None, ContextKernel.centred(means), measured)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(1, 4))
def test_covariances_are_positive_semidefinite_and_never_negative(seed: int, n_trained: int, n_new: int) -> None:
    rng = np.random.default_rng(seed)
    kernel = ContextKernel.centred(rng.gamma(0.5, size=(n_trained, 5)) * rng.choice([1e-3, 1.0, 1e3]))
    kernel = kernel.averaged_over(rng.gamma(0.5, size=(len(kernel.weights), 20)))
    new = rng.gamma(0.5, size=(n_new, 5))
    centred = new - kernel.centre
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    cross = kernel(np.full(n_new, -1), new)
    share = 1.0 - kernel(np.full(1, -1), kernel.centre[None])[0, 0]  # without correlation
    joint = np.block([[kernel.between(), cross.T], [cross, 1.0 - share + share * centred @ centred.T]])
    assert np.linalg.eigvalsh(joint)[0] > -1e-9
    assert joint.min() > -1e-12
    np.testing.assert_array_equal(kernel(np.arange(n_trained), np.zeros((n_trained, 5))), kernel.between())


def test_shares_are_weighed_by_their_errors_for_left_out_contexts() -> None:
    """From fits without the rows of a context, at each output's likeliest size among all rows."""
    for own, n_contexts, seed in ((0.5, 3, 0), (0.1, 2, 1)):
        features, means, measured = screen(own, n_contexts, seed=seed)
        importance = np.random.default_rng(seed).random((3, N_GENES))
        measured = replace(measured, importance=importance)
        fit = fitted(features, means, measured)
        n, context = len(measured.condition), measured.context
        values = (measured.effects * UNITS).reshape(n, -1)
        correlation = fit.contexts.profiles @ fit.contexts.profiles.T
        relevance = np.diag(fit.relevance.astype(float))[np.ix_(measured.condition, measured.condition)]
        shares, errors = np.array([0.0, 0.125, 0.25, 0.375, 0.5]), []
        for share in shares:
            covariance = relevance * (1 - share + share * correlation)[np.ix_(context, context)]
            sizes = likeliest_sizes(covariance, measured.noise, values)
            error = np.zeros(n)
            for code in range(n_contexts):
                rows, others = np.flatnonzero(context == code), np.flatnonzero(context != code)
                for output, size in enumerate(sizes):
                    joint = size * covariance[np.ix_(others, others)] + np.diag(measured.noise[others])
                    predicted = size * covariance[np.ix_(rows, others)] @ np.linalg.solve(joint, values[others, output])
                    error[rows] += importance.ravel()[output] * (values[rows, output] - predicted) ** 2
            errors.append(error)
        total = np.sum(errors, axis=1)
        best = errors[total.argmin()]
        n_effective = 1.0 / np.sum((best / best.sum()) ** 2)
        posterior = np.exp(-2 * shares) * (total.min() / total) ** (n_effective / 2)
        np.testing.assert_allclose(fit.contexts.weights, posterior / posterior.sum(), rtol=1e-3, atol=1e-6)
        assert (fit.contexts.weights > 0.05).sum() > 1


def likeliest_sizes(covariance, noise, values) -> np.ndarray:
    """Compare all sizes for every column by the joint normal density and by their frequency among the columns."""
    candidates = np.array([0.0, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0])
    joint = [stats.multivariate_normal(cov=size * covariance + np.diag(noise)) for size in candidates]
    likelihood = np.array([one.logpdf(values.T) for one in joint])
    density, frequency = np.exp(likelihood - likelihood.max(axis=0)), np.ones(len(candidates))
    for _ in range(20):
        weights = frequency[:, None] * density / (frequency @ density)
        frequency = np.maximum(weights.mean(axis=1), 1e-12)
    return candidates[weights.argmax(axis=0)]


def test_effects_measured_in_one_context_transfer_in_full() -> None:
    for seed in range(10):
        features, means, measured = screen(own=0.0, n_contexts=1, seed=seed)
        fit = fitted(features, means, measured)
        known = fit.effects(features, 0 * features, np.zeros(6, dtype=int), means[[0] * 6])
        for context in (1, -1):  # registered without effects, or new
            found = fit.effects(features, 0 * features, np.full(6, context), means[[1] * 6])
            np.testing.assert_array_equal(found, known)


def test_the_share_rises_with_effects_that_are_particular_to_contexts() -> None:
    shares = []
    for own in (0.0, 0.3, 1.0):
        fit = fitted(*screen(own))
        shares.append(1.0 - fit.contexts(np.full(1, -1), fit.contexts.centre[None])[0, 0])
    assert shares[0] < 0.02
    assert (np.diff(shares) > 0.05).all()


def test_batches_of_a_context_count_as_their_average() -> None:
    features, means, measured = screen(own=0.3)
    rows = np.repeat(np.arange(12), 2)
    halves = MeasuredEffects(
        measured.condition[rows],
        measured.context[rows],
        measured.n_cells[rows] / 2,
        2 * measured.noise[rows],
        measured.effects[rows],
        measured.detection,
    )
    context = np.zeros(6, dtype=int)
    whole, parts = (
        fitted(features, means, one).effects(features, 0 * features, context, means[context])
        for one in (measured, halves)
    )
    assert np.linalg.norm(parts - whole) < 0.02 * np.linalg.norm(whole)


def test_batches_are_averaged_with_their_precision() -> None:
    """Errors of averages against a product with all errors; the regression agrees with one on all batches."""
    rng, n_batches, n_targets = np.random.default_rng(0), 4, 10
    condition, population = (part.ravel() for part in np.indices((n_targets, n_batches)))
    context, n_cells = population // 2, rng.integers(20, 200, len(condition)).astype(float)
    control_noise = np.array([0.02, 0.01, 0.05, 0.02])
    effects = rng.normal(size=(n_targets, 1, 3, N_GENES)).repeat(n_batches, axis=1).reshape(-1, 3, N_GENES)
    shared = rng.normal(size=(n_batches, 3, N_GENES)) * np.sqrt(control_noise)[:, None, None]
    effects += shared[population] + rng.normal(size=effects.shape) / np.sqrt(n_cells)[:, None, None]
    measured = MeasuredEffects(
        condition,
        context,
        n_cells,
        1 / n_cells + control_noise[population],
        effects,
        np.full(N_GENES, 0.5),
        population,
        control_noise,
    )
    found = measured.averaged_over_batches()
    assert len(found.condition) == n_targets * 2
    average = np.zeros((len(found.condition), len(condition)))
    for row, pair in enumerate(zip(found.condition, found.context, strict=True)):
        own = np.flatnonzero((condition == pair[0]) & (context == pair[1]))
        average[row, own] = (1 / measured.noise[own]) / (1 / measured.noise[own]).sum()
    np.testing.assert_allclose(found.effects, np.tensordot(average, effects, 1), atol=1e-12)
    np.testing.assert_allclose(found.errors.matrix(), average @ measured.errors.matrix() @ average.T, atol=1e-12)
    np.testing.assert_allclose(found.control_covariance, measured.control_covariance @ average.T, atol=1e-12)
    np.testing.assert_array_equal(found.units, measured.units)
    features, means = np.eye(n_targets), rng.random((2, N_GENES))
    asked = (features, 0 * features, np.zeros(n_targets, dtype=int), means[[0] * n_targets])
    all_rows, averages = (fitted(features, means, one).effects(*asked) for one in (measured, found))
    assert np.linalg.norm(averages - all_rows) < 0.03 * np.linalg.norm(all_rows)
    alone = dataclasses.replace(measured, context=population)
    assert alone.averaged_over_batches() is alone


def test_thousands_of_conditions_in_many_batches_are_averaged() -> None:
    """One weight for each measurement and population is more than the memory that numpy reuses for its results."""
    rng, n_batches, n_targets = np.random.default_rng(1), 40, 200
    condition, population = (part.ravel() for part in np.indices((n_targets, n_batches)))
    n_cells, control_noise = rng.integers(2, 6, len(condition)).astype(float), rng.uniform(0.01, 0.05, n_batches)
    effects, noise = rng.normal(size=(len(condition), 3, 2)), 1 / n_cells + control_noise[population]
    measured = MeasuredEffects(
        condition, np.zeros_like(condition), n_cells, noise, effects, np.full(2, 0.5), population, control_noise
    )
    np.testing.assert_allclose(measured.own_noise, 1 / n_cells)
    found = measured.averaged_over_batches()
    weight = (1 / noise).reshape(n_targets, n_batches)
    weight /= weight.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.noise, (weight**2 * noise.reshape(weight.shape)).sum(axis=1))
    by_target = (weight[:, :, None, None] * effects.reshape(n_targets, n_batches, 3, 2)).sum(axis=1)
    np.testing.assert_allclose(found.effects, by_target, atol=1e-12)
