"""Which source of knowledge tells similar perturbations is learnt from left-out targets."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from unlasting.effects import (
    GENERIC,
    ContextKernel,
    EffectRegression,
    FeatureFamilies,
    MeasuredEffects,
    probability_to_be_best,
)

N_TARGETS, N_GENES = 24, 60


def families(n_first: int, n_second: int, *, terms: bool) -> FeatureFamilies:
    names = np.repeat(["first", "second", "identity", GENERIC], [n_first, n_second, N_TARGETS, 1])
    shares = {"first": 0.88, "second": 0.88, "identity": 0.1, GENERIC: 0.02}
    is_term = np.isin(names, ["first", "second"], invert=True) | terms
    return FeatureFamilies(names, is_term, shares, ["first", "second"])


def described(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    parts = [one * np.sqrt(0.88 / (one**2).sum(axis=1).mean()) for one in (first, second)]
    return np.hstack([*parts, np.sqrt(0.1) * np.eye(N_TARGETS), np.full((N_TARGETS, 1), np.sqrt(0.02))])


def fitted(features: np.ndarray, known: FeatureFamilies, effects: np.ndarray) -> EffectRegression:
    noise = np.full(N_TARGETS, 0.01)
    measured = MeasuredEffects(
        np.arange(N_TARGETS), np.zeros(N_TARGETS, int), 1 / noise, noise, effects, np.full(N_GENES, 0.5)
    )
    return EffectRegression.fit(features, known, ContextKernel.centred(np.zeros((1, N_GENES))), measured)


def shares(fit: EffectRegression, known: FeatureFamilies) -> dict[str, float]:
    variance = (fit.features.toarray() ** 2 * fit.relevance).mean(axis=0)
    return {name: float(variance[known.names == name].sum() / variance.sum()) for name in dict.fromkeys(known.names)}


@pytest.mark.parametrize("terms", [True, False])
@pytest.mark.parametrize("truth", ["first", "second", GENERIC])
def test_the_family_behind_the_effects_gets_the_weight(truth, terms):
    rng = np.random.default_rng(0)
    groups = [np.eye(4)[rng.permutation(N_TARGETS) % 4] for _ in range(2)]
    known = families(4, 4, terms=terms)
    features = described(*groups)
    cause = {"first": groups[0], "second": groups[1], GENERIC: np.ones((N_TARGETS, 1))}[truth]
    effects = np.einsum("tf,fpg->tpg", cause, rng.normal(size=(cause.shape[1], 3, N_GENES)))
    found = shares(fitted(features, known, effects), known)
    assert max(found, key=found.get) == truth
    assert found[truth] > 0.6


def test_a_family_without_information_changes_little():
    """Errors for untrained targets, with a random family beside the true one and without it."""
    rng = np.random.default_rng(1)
    truth, random = np.eye(4)[np.arange(N_TARGETS) % 4], (rng.random((N_TARGETS, 20)) < 0.2) + 0.0
    centres = rng.normal(size=(4, 3, N_GENES))
    effects = np.einsum("tf,fpg->tpg", truth, centres) + 0.1 * rng.normal(size=(N_TARGETS, 3, N_GENES))
    errors = []
    for second in (random, np.zeros_like(random)):
        known = families(4, 20, terms=True)
        features = described(truth, np.where(second.any(), second, 1e-9))
        fit = fitted(features, known, effects)
        asked = np.where(np.isin(known.names, ["first", GENERIC]), features[:4], 0.0).astype(np.float32)
        predicted = fit.effects(asked, asked, np.zeros(4, int), np.zeros((4, N_GENES)))
        errors.append(((predicted - centres) ** 2).mean() / (centres**2).mean())
    assert errors[0] < errors[1] + 0.02


def test_weights_are_probabilities_to_be_best():
    """Against the normal approximation to the difference of two candidates' errors, and at both limits."""
    rng = np.random.default_rng(2)
    first = rng.gamma(4.0, size=60)
    difference = rng.normal(0.05, 0.3, size=60)
    weights = probability_to_be_best(np.stack([first, first + difference]))
    best = first if difference.mean() > 0 else first + difference
    n_effective = best.sum() ** 2 / (best**2).sum()
    p = norm.cdf(difference.mean() / (difference.std() / np.sqrt(61)))  # variance of a Dirichlet mean
    np.testing.assert_allclose(weights[0], (n_effective * p + 0.5) / (n_effective + 1), atol=0.03)
    assert weights.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(probability_to_be_best(np.array([[1.0], [2.0]])), 0.5)
    assert probability_to_be_best(np.stack([first, 10 * first]))[0] > 0.98
