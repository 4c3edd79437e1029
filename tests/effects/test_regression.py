"""The regression against explicit formulas and scikit-learn, and its laws on planted effects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import linalg, stats
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct

from unlasting.effects import (
    GENERIC,
    ContextKernel,
    EffectRegression,
    Errors,
    FeatureFamilies,
    MeasuredEffects,
    Spectrum,
)

N_GENES = 40
SHARES = np.array([0.0, 0.125, 0.25, 0.375, 0.5])
SIZES = (0.0, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
UNITS = np.array([0.5, np.sqrt(0.5), 1.0])[:, None]  # half of the cells express each gene


def measured_effects(condition, population, noise, effects) -> MeasuredEffects:
    condition, population = np.asarray(condition), np.asarray(population)
    noise = np.broadcast_to(noise, condition.shape).astype(float)
    return MeasuredEffects(condition, population, 1e6 / noise, noise, effects, np.full(effects.shape[2], 0.5))


def linear_screen(n_trained=20, n_features=4, n_populations=1, noise=0.01, seed=0):
    """Effects that are linear in features, the first of which matters, and seen with noise."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n_trained, n_features)) / np.sqrt(n_features)
    weights = rng.normal(size=(n_features, 3, N_GENES)) * np.array([2.0, *[0.05] * (n_features - 1)])[:, None, None]
    condition, population = np.divmod(np.arange(n_trained * n_populations), n_populations)
    effects = np.einsum("nf,fsg->nsg", features, weights)[condition]
    effects = effects + rng.normal(size=effects.shape) * np.sqrt(noise)
    means = rng.random((n_populations, N_GENES))
    return features, weights, means, measured_effects(condition, population, noise, effects)


def fitted(features, means, measured) -> EffectRegression:
    return EffectRegression.fit(features, None, ContextKernel.centred(means), measured)


def expected(fit: EffectRegression, features, means, context: int = -1) -> np.ndarray:
    """Predict in contexts that are known by their means alone, unless a code is given."""
    features = np.asarray(features, dtype=np.float32)
    untrained = np.where(fit.is_trained(features)[:, None], 0.0, features)
    return fit.effects(features, untrained, np.full(len(means), context), np.asarray(means))


def support(fit: EffectRegression, features) -> np.ndarray:
    return fit.support(np.asarray(features, dtype=np.float32))


def posterior_over_sizes(covariance, noise, values) -> np.ndarray:
    """Weigh all sizes for every column by the joint normal density and by their frequency among the columns."""
    joint = [stats.multivariate_normal(cov=size * covariance + noise) for size in SIZES]
    likelihood = np.array([one.logpdf(values.T) for one in joint])
    density, frequency = np.exp(likelihood - likelihood.max(axis=0)), np.full(len(SIZES), 1 / len(SIZES))
    for _ in range(20):
        weights = frequency[:, None] * density
        weights = weights / weights.sum(axis=0)
        frequency = np.maximum(weights.mean(axis=1), 1e-12)
    return weights


def likeliest_sizes(covariance, noise, values) -> np.ndarray:
    return np.array(SIZES)[posterior_over_sizes(covariance, noise, values).argmax(axis=0)]


def test_sizes_have_the_posterior_under_their_distribution_over_all_genes():
    """Few genes change: sizes that the genes together rule out are out for each gene."""
    rng = np.random.default_rng(11)
    features, root = rng.normal(size=(20, 3)), rng.normal(size=(20, 20)) / 20
    covariance, noise = features @ features.T, 0.05 * np.eye(20) + root @ root.T
    values = rng.multivariate_normal(np.zeros(20), noise, size=60).T
    values[:, :12] += features @ rng.normal(size=(3, 12))
    ours = Spectrum.exact(covariance, Errors(np.full(20, 0.05), root)).size_posterior(values)
    theirs = posterior_over_sizes(covariance, noise, values)
    np.testing.assert_allclose(ours, theirs, atol=1e-7)
    acts = theirs[SIZES.index(0.03) :].sum(axis=0)
    assert acts[12:].mean() < 0.05
    assert acts[:12].mean() > 0.95


def test_the_posterior_mean_is_that_of_scikit_learn():
    """With one feature the relevance is a constant; processes are averaged by their sizes' posterior."""
    rng = np.random.default_rng(1)
    features, noise = rng.normal(size=(12, 1)), rng.uniform(0.05, 0.4, size=12)
    effects = features[:, :, None] * rng.normal(size=(1, 3, N_GENES)) * rng.choice([0.1, 0.5, 2.0, 6.0], N_GENES)
    effects = effects + rng.normal(size=effects.shape) * 0.3
    fit = fitted(features, np.zeros((1, N_GENES)), measured_effects(np.arange(12), np.zeros(12, int), noise, effects))
    relevance = 1.0 / np.mean(features**2)
    assert fit.relevance == pytest.approx([relevance], rel=1e-5)
    values, new = (effects * UNITS).reshape(12, -1), rng.normal(size=(5, 1))
    weights = posterior_over_sizes(relevance * features @ features.T, np.diag(noise), values)
    assert len(set(weights.argmax(axis=0))) > 3
    theirs = np.zeros((5, values.shape[1]))
    for size, weight in zip(SIZES[1:], weights[1:], strict=True):
        kernel = ConstantKernel(size * relevance, "fixed") * DotProduct(0.0, "fixed")
        process = GaussianProcessRegressor(kernel, alpha=noise, optimizer=None)
        theirs += weight * process.fit(features, values).predict(new)
    ours = expected(fit, new, np.zeros((5, N_GENES)), 0)
    np.testing.assert_allclose(ours, theirs.reshape(5, 3, N_GENES) / UNITS, rtol=1e-4, atol=1e-4)


def screen_with_common_controls(
    seed: int = 0, n_populations: int = 2, particular: float = 0.0
) -> tuple[np.ndarray, np.ndarray, MeasuredEffects]:
    """Effects of eight conditions in several populations of two contexts, each with one sampling error of its controls."""
    rng = np.random.default_rng(seed)
    condition, population = np.divmod(np.arange(8 * n_populations), n_populations)
    features, control_noise = rng.normal(size=(8, 3)), np.array([0.3, 0.1, 0.05])[:n_populations]
    noise = rng.uniform(0.02, 0.2, len(condition)) + control_noise[population]
    errors = rng.normal(size=(n_populations, 3, N_GENES)) * np.sqrt(control_noise)[:, None, None]
    weights = rng.normal(size=(3, 3, N_GENES)) * rng.choice([0.0, 0.3, 1.0, 3.0], N_GENES)
    effects = np.einsum("nf,fsg->nsg", features, weights)[condition]
    effects += particular * rng.normal(size=effects.shape)
    effects += rng.normal(size=effects.shape) * np.sqrt(noise - control_noise[population])[:, None, None] / UNITS
    effects += errors[population] / UNITS
    measured = measured_effects(condition, population % 2, noise, effects)
    importance = rng.random((3, N_GENES)) * [[1.0], [1.0], [0.0]]
    measured = replace(measured, population=population, control_noise=control_noise, importance=importance)
    return features, rng.random((2, N_GENES)), measured


def between_contexts(fit: EffectRegression, means) -> np.ndarray:
    share, centred = float(fit.contexts.weights @ SHARES), means - means.mean(axis=0)
    length = np.linalg.norm(centred, axis=1)
    return 1 - share + share * (centred @ centred.T) / np.outer(length, length)


def test_effects_and_control_errors_are_conditional_means_of_a_joint_normal():
    """Of features' weights, control errors and other errors, given measurements that are sums of all three."""
    features, means, measured = screen_with_common_controls(n_populations=3)
    fit = fitted(features, means, measured)
    condition, context, population = measured.condition, measured.context, measured.population
    n, relevance = len(condition), np.diag(fit.relevance.astype(float))
    weights_prior = np.kron(between_contexts(fit, means), relevance)  # one set of weights for each context
    sums = np.hstack(
        [
            np.kron(np.eye(2)[context], np.ones((1, 3))) * np.tile(features[condition], 2),
            np.eye(3)[population],
            np.eye(n),
        ]
    )
    own_noise = measured.noise - measured.control_noise[population]
    values = (measured.effects * UNITS).reshape(n, -1)
    ours, errors = np.zeros((2, 8, values.shape[1])), np.zeros((3, values.shape[1]))

    def joint(size):
        return linalg.block_diag(size * weights_prior, np.diag(measured.control_noise), np.diag(own_noise))

    noise = sums @ joint(0.0) @ sums.T
    posterior = posterior_over_sizes(sums @ joint(1.0) @ sums.T - noise, noise, values)
    for size, weight in zip(SIZES, posterior, strict=True):
        prior = joint(size)
        mean = prior @ sums.T @ np.linalg.solve(sums @ prior @ sums.T, values) * weight
        ours += np.stack([features @ mean[:3], features @ mean[3:6]])
        errors += mean[6:9]
    for code in (0, 1):
        found = expected(fit, features, means[[code] * 8], code)
        np.testing.assert_allclose(found, ours[code].reshape(8, 3, N_GENES) / UNITS, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(fit.control_error, errors.reshape(3, 3, N_GENES) / UNITS, rtol=1e-3, atol=1e-4)
    assert np.abs(errors).max() > 0.3


def test_left_out_groups_are_predicted_by_a_fit_without_them():
    features, _, measured = screen_with_common_controls(seed=4)
    covariance = (features @ features.T)[np.ix_(measured.condition, measured.condition)]
    values = (measured.effects * UNITS).reshape(16, -1)
    sizes = likeliest_sizes(covariance, measured.errors.matrix(), values)
    assert len(set(sizes)) > 2
    for group in (measured.condition, measured.population):
        ours = Spectrum.exact(covariance, measured.errors).without(group, values)
        theirs = left_out(covariance, measured.errors.matrix(), values, group, sizes)
        np.testing.assert_allclose(ours, theirs, atol=1e-8)
    assert np.abs(theirs[0]).max() > 0.1


def left_out(covariance, noise, values, group, sizes) -> np.ndarray:
    """Predict effects and shared errors for each group from a fit to the others' rows."""
    predicted = np.zeros((2, *values.shape))
    for one in np.unique(group):
        rows, others = np.flatnonzero(group == one), np.flatnonzero(group != one)
        square, across = np.ix_(others, others), np.ix_(rows, others)
        for output, size in enumerate(sizes):
            solved = np.linalg.solve(size * covariance[square] + noise[square], values[others, output])
            if size:
                predicted[:, rows, output] = size * covariance[across] @ solved, noise[across] @ solved
    return predicted


def test_slopes_regress_left_out_effects_on_their_predictions():
    """Weighted by importance, with a typical group's worth of evidence for 1; a condition's context counts if it has others."""
    features, means, measured = screen_with_common_controls(seed=6, particular=2.0)
    kept = np.arange(16) != 3  # one condition in one context alone
    measured = replace(
        measured,
        **{
            name: getattr(measured, name)[kept]
            for name in ("condition", "context", "n_cells", "noise", "effects", "population")
        },
    )
    fit = fitted(features, means, measured)
    condition, context = measured.condition, measured.context
    relevance = fit.relevance.astype(float)
    between = between_contexts(fit, means)[np.ix_(context, context)]
    covariance = ((features * relevance) @ features.T)[np.ix_(condition, condition)] * between
    values = (measured.effects * UNITS).reshape(15, -1)
    sizes = likeliest_sizes(covariance, measured.errors.matrix(), values)
    slopes = []
    for group, included in ((condition, range(15)), (context, [row for row in range(15) if condition[row] != 1])):
        predicted, shared = left_out(covariance, measured.errors.matrix(), values, group, sizes)
        groups = [[row for row in included if group[row] == code] for code in set(group.tolist())]
        xy, xx = (
            np.array([sum(predicted[row] * part[row] @ measured.importance.ravel() for row in rows) for rows in groups])
            for part in (values - shared, predicted)
        )
        typical = xx @ xx / xx.sum()
        slopes.append(min(1.0, max(0.0, (xy.sum() + typical) / (xx.sum() + typical))))
    assert min(slopes) < 0.9
    np.testing.assert_allclose(fit.slopes, slopes, rtol=1e-3)


def test_slopes_act_on_untrained_targets_and_contexts_alone():
    features, means, measured = screen_with_common_controls(seed=6, particular=2.0)
    fit = fitted(features, means, measured)
    asked, none = features.astype(np.float32), np.zeros_like(features, dtype=np.float32)
    known, new = np.zeros(8, int), np.full(8, -1)
    trained = fit.effects(asked, none, known, means[known])
    np.testing.assert_allclose(fit.effects(asked, asked, known, means[known]), fit.slopes[0] * trained, rtol=1e-5)
    np.testing.assert_allclose(
        fit.effects(asked, none, new, means[known]), fit.slopes[1] * trained, rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(
        fit.effects(asked, asked, new, means[known]), fit.slopes[0] * trained, rtol=1e-5, atol=1e-7
    )
    half = trained * (1 + fit.slopes[0]) / 2
    np.testing.assert_allclose(fit.effects(asked, asked / 2, known, means[known]), half, rtol=1e-5, atol=1e-7)


def test_support_is_the_explained_share_of_the_variance():
    features, _, means, measured = linear_screen(noise=0.2)
    fit = fitted(features, means, measured)
    relevance = fit.relevance.astype(float)
    covariance = (features * relevance) @ features.T
    sizes = likeliest_sizes(covariance, measured.errors.matrix(), (measured.effects * UNITS).reshape(20, -1))
    inverse = np.linalg.inv(covariance + np.eye(20) * 0.2 / np.median(sizes[sizes > 0]))
    weights = 1.0 / (fit.conditions.variances + 1.0 / fit.typical_size)
    np.testing.assert_allclose(fit.conditions.block(weights, np.arange(20)), inverse, rtol=1e-3, atol=1e-4)
    new = np.random.default_rng(2).normal(size=(6, 4))
    kernel = (new * relevance) @ features.T
    explained = np.einsum("ij,jk,ik->i", kernel, inverse, kernel)
    prior = np.maximum(new**2 @ relevance, (features**2 @ relevance).mean())
    np.testing.assert_allclose(support(fit, new), explained / prior, atol=1e-4)
    np.testing.assert_array_equal(fit.support(fit.features), 1.0)


def test_populations_share_as_much_as_the_kernel_says():
    """The posterior mean over conditions and populations, from the full covariance of all pairs."""
    rng = np.random.default_rng(3)
    features, weights, means, measured = linear_screen(n_trained=8, n_populations=3, noise=0.1)
    own = np.einsum("nf,pfsg->npsg", features, rng.normal(size=(3, 4, 3, N_GENES)))
    effects = measured.effects + own[measured.condition, measured.context]
    fit = fitted(features, means, measured_effects(measured.condition, measured.context, 0.1, effects))
    assert float(fit.contexts.weights @ SHARES) > 0
    relevance, between = fit.relevance.astype(float), between_contexts(fit, means)
    between = between[np.ix_(measured.context, measured.context)]
    covariance = ((features * relevance) @ features.T)[np.ix_(measured.condition, measured.condition)] * between
    values = (effects * UNITS).reshape(24, -1)
    theirs = np.zeros_like(values)
    for size, weight in zip(SIZES, posterior_over_sizes(covariance, measured.errors.matrix(), values), strict=True):
        theirs += weight * (size * covariance @ np.linalg.solve(size * covariance + 0.1 * np.eye(24), values))
    theirs *= fit.slopes[1]  # contexts are known by their means alone
    ours = expected(fit, features[measured.condition], means[measured.context])
    np.testing.assert_allclose(ours, theirs.reshape(24, 3, N_GENES) / UNITS, rtol=1e-3, atol=1e-3)


def test_a_linear_effect_is_found_for_unseen_targets_and_nothing_in_noise():
    features, weights, means, measured = linear_screen(n_trained=30, noise=0.05)
    fit = fitted(features, means, measured)
    assert fit.relevance.argmax() == 0
    new = np.random.default_rng(9).normal(size=(20, 4)) / 2.0
    truth = np.einsum("nf,fsg->nsg", new, weights)
    error = np.mean((expected(fit, new, np.repeat(means, 20, axis=0)) - truth) ** 2)
    assert error < 0.1 * np.mean((measured.effects.mean(axis=0) - truth) ** 2)
    rng = np.random.default_rng(4)
    noise = rng.normal(size=(30, 3, N_GENES)) * 0.1 / UNITS
    fit = fitted(features, np.zeros((1, N_GENES)), measured_effects(np.arange(30), np.zeros(30, int), 0.01, noise))
    assert np.mean(expected(fit, features, np.zeros((30, N_GENES))) ** 2) < 0.2 * np.mean(noise**2)


def test_effects_add_up_and_the_control_has_none():
    for seed in range(5):
        features, _, means, measured = linear_screen(n_trained=6, n_populations=2, seed=seed)
        fit, population = fitted(features, means, measured), np.repeat(means[:1], 3, axis=0)
        one, other = features[:3], features[3:]
        both = expected(fit, one, population) + expected(fit, other, population)
        np.testing.assert_allclose(expected(fit, one + other, population), both, rtol=1e-3, atol=1e-3)
        assert (expected(fit, np.zeros((3, 4)), population) == 0).all()
        assert (support(fit, np.zeros((1, 4))) == 1).all()
        told = support(fit, np.random.default_rng(seed).normal(size=(20, 4)))
        assert ((told >= 0) & (told <= 1)).all()


def test_support_is_higher_where_a_feature_is_shared():
    """Targets in one group share a feature; the second group was seen once, with another feature."""
    rng = np.random.default_rng(5)
    group = np.array([0, 0, 0, 0, 0, 1])
    features = np.concatenate([np.eye(2)[group], 0.5 * np.eye(6)], axis=1)
    effects = np.repeat(rng.normal(size=(2, 3, N_GENES)), [5, 1], axis=0) + 0.1 * rng.normal(size=(6, 3, N_GENES))
    measured = measured_effects(np.arange(6), np.zeros(6, int), 0.05, effects)
    fit = fitted(features, np.zeros((1, N_GENES)), measured)
    many, one, none = support(fit, [[1, 0, *[0] * 6], [0, 1, *[0] * 6], [1e-3, 0, *[0] * 6]])
    assert one < many
    assert none == pytest.approx(0.0, abs=1e-4)  # a target with next to no features


def test_an_unseen_population_gets_the_effects_of_the_one_it_resembles():
    rng = np.random.default_rng(6)
    features = rng.normal(size=(10, 3)) / np.sqrt(3)
    weights = rng.normal(size=(2, 3, 3, N_GENES))
    condition, population = np.divmod(np.arange(20), 2)
    effects = np.einsum("nf,nfsg->nsg", features[condition], weights[population])
    means = rng.random((2, N_GENES))
    fit = fitted(features, means, measured_effects(condition, population, 0.01, effects))
    assert float(fit.contexts.weights @ SHARES) > 0.3
    new = 0.9 * means[1] + 0.1 * means[0]
    told = expected(fit, features, np.repeat(new[None], 10, axis=0)) / fit.slopes[1]
    distance = [np.mean((told - effects[population == code]) ** 2) for code in (0, 1)]
    assert distance[1] < 0.2 * distance[0]
    features, _, means, measured = linear_screen(n_trained=15, n_populations=2)
    assert fitted(features, means, measured).contexts.weights[0] > 0.9  # both populations react in the same way


def test_permuting_genes_permutes_the_effects():
    for n_populations in (1, 2):
        features, _, means, measured = linear_screen(n_populations=n_populations)
        order = np.random.default_rng(7).permutation(N_GENES)
        moved = measured_effects(measured.condition, measured.context, measured.noise, measured.effects[:, :, order])
        population = np.repeat(means[:1], len(features), axis=0)
        ours = expected(fitted(features, means, measured), features, population)
        theirs = expected(fitted(features, means[:, order], moved), features, population[:, order])
        np.testing.assert_allclose(theirs, ours[:, :, order], rtol=1e-3, atol=1e-4)


def test_a_transferred_quantity_does_not_fall_with_the_dose():
    """Features and effects shrink towards dose 0; the share of non-responding cells does not."""
    rng = np.random.default_rng(0)
    drug, gate = np.repeat(np.eye(4), 5, axis=0), np.tile([0.1, 0.3, 0.6, 0.9, 1.0], 4)[:, None]
    effects = np.einsum("nf,fsg->nsg", gate * drug, rng.normal(size=(4, 3, N_GENES)))
    measured = measured_effects(np.arange(20), np.zeros(20, int), 0.01, effects + rng.normal(0, 0.1, effects.shape))
    fit = fitted(gate * drug, np.zeros((1, N_GENES)), measured)
    share = np.array([0.1, 0.2, 0.3, 0.4])
    values = np.repeat(share, 5)
    np.testing.assert_array_equal(fit.transfer(fit.features, values), values)
    np.testing.assert_array_equal(fit.transfer(np.zeros((2, 4), np.float32), values), 0.0)
    assert fit.is_trained(np.eye(4, dtype=np.float32)).all()
    for dose in (1.1, 0.5, 0.2, 0.01):
        np.testing.assert_array_equal(fit.transfer((dose * np.eye(4)).astype(np.float32), values), share)
        similar = (dose * (np.eye(4) + 0.01)).astype(np.float32)  # another drug, nearly one of these
        assert not fit.is_trained(similar).any()
        np.testing.assert_allclose(fit.transfer(similar, values), share, atol=0.02)
    # doses with little effect, where no share was found, count for little
    similar = (0.5 * (np.eye(4) + 0.01)).astype(np.float32)
    np.testing.assert_allclose(fit.transfer(similar, values * (gate[:, 0] > 0.5)), share, atol=0.05)


def test_a_transferred_quantity_never_exceeds_that_of_all_trained_conditions():
    """Targets share a generic feature and have one of their own; an untrained one has only the first."""
    rng, n_trained = np.random.default_rng(0), 100
    features = np.hstack([np.full((n_trained, 1), 0.3), np.eye(n_trained)])
    effects = rng.normal(size=(n_trained, 3, N_GENES)) + 0.5 * rng.normal(size=(1, 3, N_GENES))
    measured = measured_effects(np.arange(n_trained), np.zeros(n_trained, int), 0.01, effects)
    contexts = ContextKernel.centred(np.zeros((1, N_GENES)))
    names = np.array([GENERIC, *["identity"] * n_trained])
    families = FeatureFamilies(names, np.ones(len(names), dtype=bool), {GENERIC: 0.1}, [])
    fit = EffectRegression.fit(features, families, contexts, measured)
    untrained = np.zeros((1, n_trained + 1), dtype=np.float32)
    untrained[0, 0] = 0.3
    pair, four = (fit.features.toarray()[:n].sum(axis=0, keepdims=True) for n in (2, 4))
    share = np.full(n_trained, 0.4)
    for asked in (untrained, pair, four):
        assert 0.0 < fit.transfer(asked, share)[0] <= 0.4 + 1e-4
    assert fit.transfer(pair, share)[0] == pytest.approx(0.4, abs=0.02)
