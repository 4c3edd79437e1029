"""Weighted metrics, the recovery of responding genes and the dynamic range agree with scPertEval; Systema by loops."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import sparse
from scperteval.blocks.de import mejia_weights
from scperteval.calibrators import CALIBRATORS
from scperteval.protocols import metrics as peer
from scperteval.protocols.table import PROTOCOLS

from unlasting.metrics import (
    centroid_accuracy,
    de_auprc,
    dynamic_range_fraction,
    gene_weights,
    pearson_change,
    perturbed_reference,
    weighted_mse,
    weighted_r2_change,
)


@pytest.fixture
def profiles() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return tuple(rng.gamma(2.0, 1.0, (4, 30)))


def context(score: np.ndarray) -> SimpleNamespace:
    """What the peer asks for weights."""
    de = SimpleNamespace(statistic=score)
    return SimpleNamespace(current_pert="", cfg=SimpleNamespace(truth=""), de=lambda *_: de)


@pytest.mark.parametrize("case", ["signed", "missing", "constant"])
def test_weights_and_weighted_metrics(case: str, profiles: tuple[np.ndarray, ...]) -> None:
    predicted, observed, reference, score = profiles
    score = score * np.where(np.arange(30) % 2, 1, -1)
    if case == "missing":
        score[[3, 9]] = np.nan
    elif case == "constant":
        score[:] = -2.0
    weights = gene_weights(score)
    np.testing.assert_allclose(weights, mejia_weights(score), rtol=1e-12)
    assert weighted_mse(predicted, observed, 7 * weights) == pytest.approx(
        peer.weighted_mse(observed, predicted, context(score))
    )
    expected = peer.weighted_r2(observed - reference, predicted - reference, context(score))
    assert weighted_r2_change(predicted, observed, reference, weights) == pytest.approx(expected)
    assert weighted_r2_change(observed, observed, reference, weights) == 1
    assert weighted_r2_change(reference, observed, reference, weights) <= 0
    cells = sparse.csr_array(np.vstack([predicted, predicted]))
    assert weighted_mse(cells, observed, weights) == pytest.approx(weighted_mse(predicted, observed, weights))


def test_weighted_metrics_without_a_scale(profiles: tuple[np.ndarray, ...]) -> None:
    predicted, observed, reference, _ = profiles
    assert np.isnan(weighted_mse(predicted, observed, np.zeros(30)))
    assert np.isnan(weighted_r2_change(predicted, observed, observed, np.ones(30)))
    with pytest.raises(ValueError, match="genes"):
        weighted_mse(predicted, observed, np.ones(3))


def test_recovery_of_responding_genes() -> None:
    rng = np.random.default_rng(1)
    p_value, score = rng.random(50) ** 3, rng.normal(size=50)
    expected = peer.de_auprc(SimpleNamespace(pvalue_adj=p_value), np.abs(score), None)
    assert de_auprc(score, p_value) == pytest.approx(expected)
    assert de_auprc(-1 / (p_value + 0.1), p_value) == 1
    assert np.isnan(de_auprc(score, np.ones(50)))
    missing = np.where(p_value < 0.05, score, np.nan)
    assert de_auprc(missing, p_value) == 1
    with pytest.raises(ValueError, match="each gene"):
        de_auprc(score[1:], p_value)


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_dynamic_range_fraction(better: str) -> None:
    rng = np.random.default_rng(2)
    positive, negative = rng.normal(size=(2, 40))
    negative[3] = np.nan
    protocol = next(p for p in PROTOCOLS.values() if p.better == better)
    expected = [
        CALIBRATORS["drf"].per_pert({"positive": p, "negative": n}, protocol)
        for p, n in zip(positive, negative, strict=True)
    ]
    found = dynamic_range_fraction(positive, negative, best_value=protocol.perfect, larger_is_better=better == "higher")
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert np.isfinite(found).sum() > 10


def test_centroid_accuracy_by_a_loop() -> None:
    rng = np.random.default_rng(3)
    observed = rng.normal(size=(7, 5))
    predicted = observed + rng.normal(size=(7, 5))
    predicted[2] = observed[2]
    predicted[4] = (observed[4] + observed[5]) / 2  # as near to another: not farther
    expected = []
    for i, profile in enumerate(predicted):
        distance = [np.sqrt(((profile - other) ** 2).sum()) for other in observed]
        expected.append(np.mean([d > distance[i] for j, d in enumerate(distance) if j != i]))
    assert centroid_accuracy(predicted, observed) == pytest.approx(expected)
    assert centroid_accuracy(predicted, observed)[2] == 1
    assert np.isnan(centroid_accuracy(observed[:1], observed[:1])).all()
    with pytest.raises(ValueError, match="conditions"):
        centroid_accuracy(observed, observed[1:])


def test_a_change_from_the_perturbed_reference_ignores_what_all_perturbations_share() -> None:
    rng = np.random.default_rng(4)
    own, shared = rng.normal(size=(6, 40)), 5 * rng.normal(size=40)
    profiles = own + shared
    reference = perturbed_reference(profiles)
    np.testing.assert_allclose(reference, profiles.mean(axis=0))
    wrong = shared + rng.normal(size=40)
    assert pearson_change(wrong, profiles[0], np.zeros(40)) > 0.9
    assert abs(pearson_change(wrong, profiles[0], reference)) < 0.5
