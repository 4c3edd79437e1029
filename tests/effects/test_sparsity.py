"""Effects that are zero: evidence against brute-force conditioning, and planted shares of effects."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from unlasting.effects import EffectEvidence, Errors, Sparsity, Spectrum


def test_evidence_is_that_of_brute_force_conditioning():
    """Each measurement given all others, with an error of control cells that all share."""
    rng = np.random.default_rng(0)
    features, n, size = rng.normal(size=(7, 3)), 7, 0.3
    covariance, own = features @ features.T, rng.uniform(0.1, 0.3, n)
    noise = np.diag(own) + 0.15
    measured = rng.normal(size=(n, 4))
    spectrum = Spectrum.exact(covariance, Errors(own, np.full((n, 1), np.sqrt(0.15))))
    found = EffectEvidence.of(spectrum, measured, np.full(4, size))
    for row in range(n):
        others = np.delete(np.arange(n), row)
        inverse = np.linalg.inv((size * covariance + noise)[np.ix_(others, others)])
        effect, control = size * covariance[row, others] @ inverse, np.full(n - 1, 0.15) @ inverse
        np.testing.assert_allclose(found.predicted[row], effect @ measured[others], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(
            found.measured[row], measured[row] - control @ measured[others], rtol=1e-4, atol=1e-6
        )
        error = own[row] + 0.15 - control @ np.full(n - 1, 0.15)
        np.testing.assert_allclose(found.noise[row], error, rtol=1e-4)
        # effect and shared error are correlated given the others; their sum has the exact variance
        total = (
            size * covariance[row, row] + noise[row, row] - (effect + control) @ (size * covariance[row, others] + 0.15)
        )
        np.testing.assert_allclose(found.noise[row] + found.variance[row], total, rtol=1e-4)
    ratio = stats.norm.logpdf(found.measured, found.predicted, np.sqrt(found.noise + 4.0 * found.variance))
    ratio -= stats.norm.logpdf(found.measured, 0.0, np.sqrt(found.noise))
    np.testing.assert_allclose(found.log_ratios(np.array([4.0]))[0], ratio, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_the_planted_share_of_effects_is_found(share):
    """Probabilities match the share of pairs without an effect, overall and among calls."""
    rng = np.random.default_rng(1)
    shape, noise = (60, 200), 0.02
    acts = rng.random(shape) < share
    effects = np.hstack([acts * rng.normal(size=shape), acts * rng.normal(size=shape)])
    measured = effects + np.sqrt(noise) * rng.normal(size=effects.shape)
    ones = np.ones(effects.shape)
    evidence = EffectEvidence(measured, 0.0 * ones, ones, noise * ones)
    found, absent = Sparsity.fit(evidence, np.ones(400))
    assert absent.mean() == pytest.approx(1.0 - acts.mean(), abs=0.02)
    assert found.parts[2] > 0.9
    called = absent < 0.1
    assert called.sum() > 0.8 * acts.sum()
    assert (called & ~acts).sum() == pytest.approx(absent[called].sum(), abs=3.0 * np.sqrt(absent[called].sum()) + 1)


def test_a_predicted_effect_is_likelier_than_an_unexpected_one():
    """Conditions whose similar ones have an effect have one too."""
    rng = np.random.default_rng(2)
    shape = (80, 100)
    acts = rng.random(shape) < 0.2
    expected = np.where(acts, 1.0, 0.0) * rng.normal(size=shape)
    both = np.hstack([expected, expected])
    measured = both + 0.3 * rng.normal(size=both.shape)
    ones = np.ones(both.shape)
    found, _ = Sparsity.fit(EffectEvidence(measured, both, 0.01 * ones, 0.09 * ones), np.ones(200))
    assert found.coefficients[2] > 0.5
