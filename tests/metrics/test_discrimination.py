"""Whether predictions are told apart: agreement with a ranking written out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from unlasting.metrics import discrimination_score, perturbation_spread

SCIPY = {"l1": "cityblock", "l2": "euclidean", "cosine": "cosine"}


@pytest.fixture
def effects() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    observed = rng.normal(size=(11, 6))
    return observed + rng.normal(size=(11, 6)), observed


@pytest.mark.parametrize("distance", SCIPY)
def test_discrimination_agrees_with_sorted_distances(effects, distance) -> None:
    distances = cdist(*effects, SCIPY[distance])
    expected = [1 - list(np.argsort(row)).index(i) / 11 for i, row in enumerate(distances)]
    np.testing.assert_allclose(discrimination_score(*effects, distance=distance), expected)


@pytest.mark.parametrize("distance", SCIPY)
def test_left_out_genes_do_not_count(effects, distance) -> None:
    predicted, observed = effects
    excluded = np.arange(6)[None, :] == np.arange(11)[:, None] % 6
    expected = [
        discrimination_score(predicted[:, ~left_out], observed[:, ~left_out], distance=distance)[i]
        for i, left_out in enumerate(excluded)
    ]
    np.testing.assert_allclose(
        discrimination_score(predicted, observed, distance=distance, excluded=excluded), expected
    )
    noisy = predicted + 1e6 * excluded
    np.testing.assert_allclose(discrimination_score(noisy, observed, distance=distance, excluded=excluded), expected)


@pytest.mark.parametrize("distance", SCIPY)
def test_orientation(effects, distance) -> None:
    observed = effects[1]
    assert (discrimination_score(observed, observed, distance=distance) == 1).all()
    same = np.tile(observed.mean(axis=0), (11, 1))
    assert discrimination_score(same, observed, distance=distance).mean() == pytest.approx(12 / 22)
    assert discrimination_score(observed[:2][::-1], observed[:2], distance=distance) == pytest.approx([0.5, 0.5])
    order = np.random.default_rng(1).permutation(11)
    np.testing.assert_allclose(
        discrimination_score(effects[0][order], observed[order], distance=distance),
        discrimination_score(*effects, distance=distance)[order],
    )


def test_ties_share_their_rank(effects) -> None:
    observed = effects[1]
    np.testing.assert_allclose(discrimination_score(0 * observed, observed, distance="cosine"), 12 / 22)
    np.testing.assert_allclose(discrimination_score(np.ones((4, 2)), np.ones((4, 2))), 1 - 1.5 / 4)


def test_spread(effects) -> None:
    predicted, observed = effects
    spread = {
        name: np.mean([np.linalg.norm(row - values.mean(axis=0)) for row in values])
        for name, values in (("predicted", predicted), ("observed", observed))
    }
    assert perturbation_spread(predicted) == pytest.approx(spread["predicted"])
    assert perturbation_spread(predicted, observed) == pytest.approx(spread["predicted"] / spread["observed"])
    assert perturbation_spread(observed, observed) == pytest.approx(1)
    assert perturbation_spread(3 * observed + 1, observed) == pytest.approx(3)
    assert perturbation_spread(np.ones_like(observed), observed) == 0
    assert np.isnan(perturbation_spread(predicted, np.ones_like(observed)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: discrimination_score(x, x[1:]), r"`predicted` has the shape \(11, 6\) and `observed` \(10, 6\)"),
        (lambda x: discrimination_score(x, x, distance="l3"), "`distance` is 'l3'"),
        (lambda x: discrimination_score(x, x, excluded=np.zeros(6, dtype=bool)), r"`excluded` has the shape \(6,\)"),
        (lambda x: discrimination_score(x, np.full_like(x, np.nan)), "`observed` holds missing"),
        (lambda x: perturbation_spread(x[:1]), "`predicted` has the shape"),
        (lambda x: perturbation_spread(x[:1], x[:1]), r"`predicted` has the shape \(1, 6\), but at least 2"),
    ],
)
def test_refusals(effects, call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call(effects[0])


def test_the_distance_decides_who_is_nearest() -> None:
    predicted, observed = np.zeros((2, 2)), np.array([[1.4, 1.4], [2.2, 0.0]])
    assert discrimination_score(predicted, observed, distance="l1")[0] == 0.5
    assert discrimination_score(predicted, observed, distance="l2")[0] == 1


def test_small_effects_of_two_conditions_have_a_spread() -> None:
    effects = 1e-3 * np.array([[1.0, 0.0], [-1.0, 0.0]])
    assert perturbation_spread(effects) == pytest.approx(1e-3)
    assert perturbation_spread(2 * effects, effects) == pytest.approx(2)


@pytest.mark.parametrize("distance", SCIPY)
def test_a_condition_alone_is_told_apart(distance) -> None:
    assert discrimination_score(np.array([[1.0, -2.0]]), np.array([[0.5, 3.0]]), distance=distance) == [1]


def test_left_out_genes_may_be_zeros_and_ones(effects) -> None:
    excluded = np.random.default_rng(2).random((11, 6)) < 0.4
    expected = discrimination_score(*effects, excluded=excluded)
    for form in (np.uint8, np.int64, np.float64):
        np.testing.assert_array_equal(discrimination_score(*effects, excluded=excluded.astype(form)), expected)
