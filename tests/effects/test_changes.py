"""Probabilities of changes against draws of the changes that they describe."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from unlasting.effects import FACTORS, ExpressionChanges

N_GENES, N_DRAWS = 6, 200_000


def changes(**parts) -> ExpressionChanges:
    """One condition that certainly acts, whose variance has the factor 1; `parts` replace that."""
    zeros = np.zeros((1, N_GENES))
    names = "mean inactive_mean variance on_target unscaled absent detection detection_sd expressed expressed_sd"
    usual = dict.fromkeys(names.split(), zeros)
    usual |= {"relative": np.zeros(1), "factors": (FACTORS == 1.0).astype(float)[None], "inactive": np.zeros(1)}
    usual |= {"null": np.zeros(N_GENES), "control_variance": np.ones(1), "is_control": np.zeros(1, dtype=bool)}
    return ExpressionChanges(**usual | {"question": np.zeros(1, dtype=int)} | parts)


def test_a_false_sign_is_as_likely_as_in_genes_that_a_share_of_perturbations_changes():
    """Mean and variance are those over all perturbations; the sign is that where the perturbation acts."""
    rng = np.random.default_rng(0)
    mean, sd, acting = rng.normal(size=N_GENES), rng.uniform(0.3, 1.5, N_GENES), rng.uniform(0.3, 0.9, N_GENES)
    absent = rng.uniform(0.0, 0.5, N_GENES)
    over_all = acting * mean
    variance = acting * (sd**2 + mean**2) - over_all**2
    found = changes(mean=over_all[None], variance=variance[None], null=1.0 - acting, absent=absent[None])
    right = (1.0 - absent) * norm.cdf(np.abs(mean) / sd)
    np.testing.assert_allclose(found.false_sign_rate[0], 1.0 - right, rtol=1e-9)


@pytest.mark.parametrize("inactive", [0.0, 0.4])
def test_a_prediction_is_nearer_to_the_truth_as_often_as_in_draws(inactive):
    """The slope of all genes, a factor of the variance, errors and on-target effects vary; a silent condition does not move."""
    rng = np.random.default_rng(1)
    mean, unscaled = rng.normal(size=(2, N_GENES))
    variance, on_target, relative = rng.uniform(0.2, 2.0, N_GENES), rng.uniform(0.0, 0.5, N_GENES), 0.3
    factors = rng.dirichlet(np.ones(len(FACTORS)))
    found = changes(
        mean=mean[None],
        unscaled=unscaled[None],
        variance=variance[None],
        on_target=on_target[None],
        relative=np.array([relative]),
        factors=factors[None],
        inactive=np.array([inactive]),
    )
    slope = np.sqrt(relative) * rng.standard_normal((N_DRAWS, 1))
    factor = rng.choice(FACTORS, (N_DRAWS, 1), p=factors)
    errors = rng.standard_normal((N_DRAWS, N_GENES)) * np.sqrt(factor * variance + on_target)
    truth = np.where(rng.random((N_DRAWS, 1)) < inactive, 0.0, mean + slope * unscaled + errors)
    nearer = ((truth - mean) ** 2).sum(axis=1) < (truth**2).sum(axis=1)
    assert found.p_better[0] == pytest.approx(nearer.mean(), abs=0.005)
    assert 0.3 < nearer.mean() < 0.95
