"""Tests and intervals behind `tl.evaluate` against exhaustive enumeration and closed forms."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist

from unlasting.tl._uncertainty import (
    difference_interval,
    false_positive_test,
    holm,
    leave_one_out,
    permutation_test,
    score_interval,
)


def _u_statistic(x: np.ndarray, y: np.ndarray) -> float:
    return 2 * cdist(x, y).mean() - pdist(x).mean() - pdist(y).mean()


def _ratio(means: np.ndarray) -> np.ndarray:
    return (means[:, 0] - means[:, 1]) / (means[:, 2] - means[:, 1])


def _mean(means: np.ndarray) -> np.ndarray:
    return means[:, 0]


def test_intervals_are_those_of_all_bootstrap_samples():
    """Four conditions have 256 bootstrap samples, so that every quantile can be enumerated."""
    rng = np.random.default_rng(0)
    terms, other = (np.column_stack([rng.gamma(4, 0.2, 4), 0.1 * rng.random(4), 2 + rng.random(4)]) for _ in range(2))
    samples = np.array(list(product(range(4), repeat=4)))
    scores, references = (_ratio(part[samples].mean(axis=1)) for part in (terms, other))
    for found, value, every in (
        (score_interval(_ratio, terms, 0), _ratio(terms.mean(0)[None])[0], scores),
        (
            difference_interval(_ratio, terms, other, 0),
            (_ratio(terms.mean(0)[None]) - _ratio(other.mean(0)[None]))[0],
            scores - references,
        ),
    ):
        assert found.value == pytest.approx(value)
        for end, level in ((found.low, 0.025), (found.high, 0.975)):
            assert (every < end + 1e-9).mean() == pytest.approx(level, abs=0.02)
    # pairs are drawn together: a predictor does not differ from itself
    assert difference_interval(_ratio, terms, terms, 0) == (0, 0, 0)


def test_the_interval_of_a_mean_has_its_known_width():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(60, 1))
    found = score_interval(_mean, values, 0)
    half = 1.96 * values.std() / np.sqrt(60)
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)
    # equal seeds draw equal conditions, so that a lower level always gives a narrower interval
    at_90 = score_interval(_mean, values, 0, level=0.9)
    assert at_90.high == pytest.approx(values.mean() + 1.645 / 1.96 * half, abs=0.1 * half)
    assert found.low < at_90.low < at_90.high < found.high


def test_one_condition_has_no_interval_and_none_to_leave_out():
    terms = np.array([[1.0, 0.0, 2.0]])
    value, *ends = score_interval(_ratio, terms, 0)
    assert value == 0.5
    assert np.isnan(ends).all()
    assert np.isnan(leave_one_out(_ratio, terms)).all()


def test_leave_one_out_leaves_each_condition_out():
    terms = np.random.default_rng(2).random((6, 3)) + [1, 0, 2]
    expected = [_ratio(np.delete(terms, i, axis=0).mean(axis=0)[None])[0] for i in range(6)]
    np.testing.assert_allclose(leave_one_out(_ratio, terms), expected)


def test_permutation_test_agrees_with_all_permutations():
    rng = np.random.default_rng(0)
    x, y = rng.normal(1.2, 1, (4, 3)), rng.normal(0, 1, (4, 3))
    both = np.vstack([x, y])
    labellings = [np.isin(np.arange(8), chosen) for chosen in combinations(range(8), 4)]
    everything = np.array([_u_statistic(both[chosen], both[~chosen]) for chosen in labellings])
    value, p_value = permutation_test(x, y, 20_000, rng)
    assert value == pytest.approx(_u_statistic(x, y))
    assert p_value == pytest.approx((everything >= _u_statistic(x, y) - 1e-12).mean(), abs=0.01)
    assert permutation_test(rng.normal(1, 1, (30, 5)), rng.normal(0, 1, (30, 5)), 99, rng)[1] == 0.01
    assert permutation_test(np.ones((5, 2)), np.ones((5, 2)), 99, rng) == (0.0, 1.0)


@pytest.mark.slow
def test_both_tests_keep_their_level():
    rng = np.random.default_rng(1)
    p_values = {
        "permutation": [permutation_test(*rng.gamma(1, 1, (2, 30, 5)), 99, rng)[1] for _ in range(200)],
        "false positive": [false_positive_test(*rng.gamma(1, 1, (3, 40, 15)), 99, rng).p_value for _ in range(200)],
    }
    for name, found in p_values.items():
        assert np.mean(np.array(found) <= 0.05) == pytest.approx(0.05, abs=0.04), name


def test_false_positive_test_agrees_with_all_permutations():
    rng = np.random.default_rng(3)
    predicted, controls, observed = rng.normal(0.8, 1, (4, 3)), rng.normal(0, 1, (4, 3)), rng.normal(0, 1, (6, 3))
    both = np.vstack([predicted, controls])
    labellings = [np.isin(np.arange(8), chosen) for chosen in combinations(range(8), 4)]
    every = np.array(
        [_u_statistic(both[chosen], observed) - _u_statistic(both[~chosen], observed) for chosen in labellings]
    )
    found = false_positive_test(predicted, controls, observed, 20_000, rng)
    assert found.e_distance == pytest.approx(_u_statistic(predicted, observed))
    assert found.no_effect == pytest.approx(_u_statistic(controls, observed))
    excess = found.e_distance - found.no_effect
    assert found.p_value == pytest.approx((every >= excess - 1e-12).mean(), abs=0.01)


def test_only_an_invented_effect_is_found():
    rng = np.random.default_rng(2)
    found = false_positive_test(*(rng.normal(by, 1, (60, 15)) for by in (0.5, 0, 0)), 199, rng)
    assert found.e_distance > found.no_effect + found.detectable
    assert found.p_value < 0.01
    # a true effect is none that was invented
    assert false_positive_test(*(rng.normal(by, 1, (60, 15)) for by in (0.5, 0, 0.5)), 199, rng).p_value > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("n", [30, 100])
def test_the_stated_power_is_that_of_repeated_experiments(n):
    """A shift whose expected excess is the detectable one is found in about 80 of 100 experiments."""
    rng = np.random.default_rng(4)

    def tested(shift):
        return false_positive_test(*(rng.normal(by, 1, (n, 15)) for by in (shift, 0, 0)), 99, rng)

    shifts = np.linspace(0.1, 0.4, 7)
    beyond = [np.mean([t.e_distance - t.no_effect - t.detectable for t in map(tested, [by] * 50)]) for by in shifts]
    shift = np.interp(0.0, beyond, shifts)
    assert shifts[0] < shift < shifts[-1]
    power = np.mean([tested(shift).p_value <= 0.05 for _ in range(200)])
    assert power == pytest.approx(0.8, abs=0.15)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
@settings(max_examples=50, deadline=None)
def test_holm_rejects_step_by_step(p_values: list[float]):
    adjusted = holm(np.array(p_values))
    level = 0.05
    rejected, n = set(), len(p_values)
    for step, i in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[i] * (n - step) > level:
            break
        rejected.add(i)
    assert set(np.flatnonzero(adjusted <= level)) == rejected
    assert (adjusted >= np.array(p_values) - 1e-12).all()
