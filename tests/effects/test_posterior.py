"""The posterior variance against brute-force conditioning, scikit-learn and simulation, and its calibration."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct

from unlasting.effects import (
    FACTORS,
    ContextKernel,
    EffectRegression,
    Errors,
    LeftOut,
    LeftOutEffects,
    MeasuredEffects,
    Spectrum,
    calibrate,
)

SIZES = (0.0, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
DOSE, TARGET, CONTEXT = 1, 2, 4


def fitted(
    features, effects, noise, *, context=None, means=None, detection=0.5, control_noise=None
) -> EffectRegression:
    n = len(effects)
    context = np.zeros(n, dtype=int) if context is None else context
    means = np.zeros((1, effects.shape[2])) if means is None else means
    measured = MeasuredEffects(
        np.arange(n),
        context,
        1.0 / noise,
        noise,
        effects,
        np.full(effects.shape[2], detection),
        None if control_noise is None else context,
        control_noise,
    )
    return EffectRegression.fit(features, None, ContextKernel.centred(means), measured)


def moments(fit: EffectRegression, features, question=None, similarity=None):
    """Ask with unseen targets, from controls like the training cells' by default."""
    features = np.asarray(features, dtype=np.float32)
    n = len(features)
    codes = np.full(n, TARGET) if question is None else np.asarray(question)
    kernel = fit._kernel(features)[:, fit.posterior.condition].astype(float)
    prior = features.astype(float) ** 2 @ fit.relevance.astype(float)
    similarity = np.ones(n) if similarity is None else similarity
    return fit.posterior.moments(kernel, kernel, prior, codes, similarity, np.full(n, -1))


def test_mean_and_variance_are_those_of_scikit_learn():
    """One Gaussian process for each size; their mixture by the law of total variance."""
    rng = np.random.default_rng(1)
    features, noise = rng.normal(size=(12, 1)), rng.uniform(0.05, 0.4, size=12)
    effects = rng.normal(size=(12, 3, 40)) * 0.3 + features[:, :, None] * rng.normal(size=(1, 3, 40))
    fit = fitted(features, effects, noise)
    new = rng.normal(size=(5, 1))
    found = moments(fit, new)
    weights = fit.posterior.sizes.astype(float)
    np.testing.assert_allclose(weights.sum(axis=0), 1.0, rtol=1e-5)
    values = (effects * fit.units).reshape(12, -1)
    first, second = np.zeros((2, 5, values.shape[1]))
    for weight, size in zip(weights, SIZES, strict=True):
        mean = variance = np.zeros((5, values.shape[1]))
        if size:
            kernel = ConstantKernel(size * float(fit.relevance[0]), "fixed") * DotProduct(0.0, "fixed")
            process = GaussianProcessRegressor(kernel, alpha=noise, optimizer=None).fit(features, values)
            mean, sd = process.predict(new, return_std=True)
            variance = sd**2
        first += weight * mean
        second += weight * (variance + mean**2)
    np.testing.assert_allclose(found.unscaled, first, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.variance, second - first**2, rtol=5e-3, atol=2e-4)


def test_control_error_counts():
    """Brute-force conditioning where all measurements share the error of few control cells."""
    rng = np.random.default_rng(0)
    features, control_noise = rng.normal(size=(8, 3)), np.array([0.2])
    noise = np.full(8, 0.05) + control_noise
    fit = fitted(features, rng.normal(size=(8, 3, 6)), noise, control_noise=control_noise)
    relevance = np.diag(fit.relevance.astype(float))
    new = rng.normal(size=(4, 3))
    prior, cross = new @ relevance @ new.T, new @ relevance @ features.T
    errors = np.eye(8) * 0.05 + control_noise
    expected = np.zeros((4, fit.posterior.sizes.shape[1]))
    values, means = (np.zeros((len(SIZES), *expected.shape)) for _ in range(2))
    measured = fit.posterior.measured.astype(float)
    for row, size in enumerate(SIZES):
        inverse = np.linalg.inv(size * features @ relevance @ features.T + errors)
        means[row] = size * cross @ inverse @ measured
        values[row] = np.diag(size * prior - size**2 * cross @ inverse @ cross.T)[:, None]
    weights = fit.posterior.sizes.astype(float)[:, None]
    mean = (weights * means).sum(axis=0)
    expected = (weights * (values + means**2)).sum(axis=0) - mean**2
    np.testing.assert_allclose(moments(fit, new).variance, expected, rtol=5e-3, atol=1e-4)


def test_fewer_cells_and_farther_controls_widen():
    rng = np.random.default_rng(2)
    features = rng.normal(size=(20, 4)).astype(np.float32)
    effects = np.einsum("nf,fsg->nsg", features, rng.normal(size=(4, 3, 30)))
    many, few = (fitted(features, effects, np.full(20, noise)) for noise in (0.01, 0.2))
    assert (moments(few, features[:3]).total.sum(1) > 2 * moments(many, features[:3]).total.sum(1)).all()
    near, far = (moments(many, features[:3], similarity=np.full(3, one)).total.sum(1) for one in (1.0, 0.5))
    assert (far > 2 * near).all()
    own = many.posterior.similarity(np.array([0, -1]), rng.random((2, 30)))
    assert own[0] == 1.0
    assert own[1] < 0.9


def test_left_out_predictions_are_those_of_a_model_without_them():
    """Residuals and their variance at every size, and sizes that the left-out measurements do not inform."""
    rng = np.random.default_rng(3)
    features = rng.normal(size=(10, 3))
    covariance, noise = features @ features.T, rng.uniform(0.1, 0.3, 10)
    measured = np.linalg.cholesky(0.3 * covariance + np.diag(noise)) @ rng.normal(size=(10, 50))
    spectrum = Spectrum.exact(covariance, Errors(noise, np.zeros((10, 0))))
    rows, others = np.array([2, 7]), np.delete(np.arange(10), [2, 7])
    sizes, prior = np.array([0.03, 0.3, 3.0]), np.log([0.2, 0.5, 0.3])
    group = LeftOut(TARGET, rows, np.ones(2, dtype=bool))
    (found,) = LeftOutEffects.of([group], spectrum, sizes, prior, measured)
    means, variances, density = [], [], []
    for size in sizes:
        joint = size * covariance[np.ix_(others, others)] + np.diag(noise[others])
        cross = size * covariance[np.ix_(rows, others)] @ np.linalg.inv(joint)
        means.append(cross @ measured[others])
        variances.append(
            np.diag(size * covariance[np.ix_(rows, rows)] - cross @ (size * covariance[np.ix_(others, rows)]))
        )
        density.append(stats.multivariate_normal(cov=joint).logpdf(measured[others].T))
    weights = np.exp(np.array(density) - np.max(density, axis=0)) * np.exp(prior)[:, None]
    weights = (weights / weights.sum(axis=0))[:, None]
    mean = (weights * np.array(means)).sum(axis=0)
    total = (weights * (np.array(variances)[:, :, None] + np.array(means) ** 2)).sum(axis=0) - mean**2
    np.testing.assert_allclose(found.predicted, mean, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.variance, total, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.measured, measured[rows], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("share_active", [1.0, 0.3])
def test_calibration_finds_planted_factors_and_silent_conditions(share_active):
    """Left-out conditions deviate three times more than the model says, or most of them do nothing."""
    rng = np.random.default_rng(4)
    found = []
    n_active = 0
    for _ in range(60):
        predicted = rng.normal(size=(1, 400))
        variance, noise = np.full((1, 400), 0.5), np.full((1, 400), 0.02)
        active = rng.random() < share_active
        n_active += active
        truth = predicted + rng.normal(size=(1, 400)) * np.sqrt(4.0 * variance)
        measured = active * truth + rng.normal(size=(1, 400)) * np.sqrt(noise)
        found.append(LeftOutEffects(measured, predicted, variance, noise))
    weights, slope_variance, activity = calibrate(found, np.ones(400), 1.0, 1.0)
    assert 1.0 < np.log2(FACTORS) @ weights < 2.2
    assert slope_variance < 0.15
    assert 1.0 / (1.0 + np.exp(-activity[0])) == pytest.approx(n_active / 60, abs=0.12)


def test_few_conditions_leave_the_prior_wide():
    rng = np.random.default_rng(5)
    features = np.eye(4, dtype=np.float32)
    fit = fitted(features, rng.normal(size=(4, 3, 20)), np.full(4, 0.05))
    assert fit.posterior.n_left_out.tolist() == [0, 0, 4, 0, 0]
    np.testing.assert_allclose(fit.posterior.slope_variance[DOSE], 0.25)
    assert fit.posterior.factors[DOSE].max() < 0.35
    assert fit.posterior.factors[0][FACTORS == 1.0] == 1.0
