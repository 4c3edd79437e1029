"""Distances of whole cells agree with all pairs written out, and keep their laws."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse
from scipy.spatial.distance import cdist, pdist
from sklearn.metrics.pairwise import rbf_kernel

from unlasting.metrics import e_distance, mean_distance, mmd
from unlasting.screen import logger

VALUES = st.floats(-100, 100, width=32)


def samples(n_genes: int = 3, n_cells: int = 6) -> st.SearchStrategy[np.ndarray]:
    return st.integers(2, n_cells).flatmap(lambda n: arrays(np.float64, (n, n_genes), elements=VALUES))


def all_pairs(x, y, *, unbiased=False, power=1):
    """E-distance, written out."""
    within = [(cdist(c, c) ** power).sum() / (len(c) * (len(c) - unbiased)) for c in (x, y)]
    return 2 * (cdist(x, y) ** power).mean() - sum(within)


def test_mean_distances_agree_with_all_pairs(given_pairs) -> None:
    for x, y, exact_x, exact_y, tolerance in given_pairs:
        assert mean_distance(x, y) == pytest.approx(cdist(exact_x, exact_y).mean(), rel=tolerance)
        assert mean_distance(x) == pytest.approx(cdist(exact_x, exact_x).mean(), rel=tolerance)
        assert mean_distance(x, y, squared=True) == pytest.approx((cdist(exact_x, exact_y) ** 2).mean(), rel=tolerance)
        assert mean_distance(y, squared=True) == pytest.approx((cdist(exact_y, exact_y) ** 2).mean(), rel=tolerance)
        if x.shape[0] > 1:
            assert mean_distance(x, unbiased=True) == pytest.approx(pdist(exact_x).mean(), rel=tolerance)


def test_mean_distances_do_not_depend_on_blocks(given_pairs, set_block) -> None:
    for x, y, exact_x, exact_y, tolerance in given_pairs:
        set_block("_distances.MAX_BLOCK_CELLS", 4)
        assert mean_distance(x, y) == pytest.approx(cdist(exact_x, exact_y).mean(), rel=tolerance)
        assert mean_distance(y) == pytest.approx(cdist(exact_y, exact_y).mean(), rel=tolerance)


def test_float32_cells_that_nearly_coincide() -> None:
    for gap in (1e-3, 1e-2, 0.1, 1.0, 10.0, 1e3, 1e5):
        rng = np.random.default_rng(1)
        center = 1e2 * rng.normal(size=(2, 40))
        x = (np.repeat(center, 30, axis=0) + gap * rng.normal(size=(60, 40))).astype(np.float32)
        tight = x[:30].astype(np.float64)
        assert mean_distance(x) == pytest.approx(cdist(x.astype(float), x.astype(float)).mean(), rel=1e-4)
        assert mean_distance(x[:30]) == pytest.approx(cdist(tight, tight).mean(), rel=1e-4)
        assert mean_distance(x[:30], x[:30][::-1]) == pytest.approx(cdist(tight, tight).mean(), rel=1e-4)


def test_e_distance_agrees_with_all_pairs(given_pairs) -> None:
    for x, y, exact_x, exact_y, tolerance in given_pairs:
        scale = cdist(exact_x, exact_y).mean()
        assert e_distance(x, y) == pytest.approx(all_pairs(exact_x, exact_y), abs=tolerance * scale)
        assert e_distance(x, y, squared=True) == pytest.approx(
            all_pairs(exact_x, exact_y, power=2), abs=tolerance * scale**2
        )
        if min(x.shape[0], y.shape[0]) > 1:
            unbiased = all_pairs(exact_x, exact_y, unbiased=True)
            assert e_distance(x, y, unbiased=True) == pytest.approx(unbiased, abs=tolerance * scale)
            assert e_distance(x, y, unbiased=True, sqrt=True) ** 2 == pytest.approx(
                max(unbiased, 0), abs=tolerance * scale
            )


def test_squared_e_distance_is_the_distance_of_means(cells) -> None:
    rng = np.random.default_rng(2)
    x, y = cells(rng, 20, 5), cells(rng, 30, 5)
    expected = 2 * ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum()
    assert e_distance(x, y, squared=True) == pytest.approx(expected, rel=1e-9)


def test_mmd_agrees_with_kernels_of_scikit_learn(given_pairs) -> None:
    for x, y, exact_x, exact_y, tolerance in given_pairs:
        n, m = x.shape[0], y.shape[0]
        if min(n, m) == 1:
            with pytest.raises(ValueError, match="at least 2 cells"):
                mmd(x, y)
        distances = pdist(np.vstack([exact_x, exact_y]))
        distances = distances[distances > 0]
        for bandwidth in (None, 0.8):
            sigma = bandwidth or (np.median(distances) if len(distances) else 1.0)
            kernels = [rbf_kernel(exact, gamma=0.5 / sigma**2) for exact in (exact_x, exact_y)]
            between = rbf_kernel(exact_x, exact_y, gamma=0.5 / sigma**2).mean()
            for unbiased in (True, False) if min(n, m) > 1 else (False,):
                within = [(k.sum() - len(k) * unbiased) / (len(k) * (len(k) - unbiased)) for k in kernels]
                found = mmd(x, y, unbiased=unbiased, bandwidth=bandwidth)
                assert found == pytest.approx(sum(within) - 2 * between, abs=10 * tolerance)


def test_the_median_of_many_cells_comes_from_some_of_them(cells) -> None:
    rng = np.random.default_rng(3)
    x, y = cells(rng, 900, 6), cells(rng, 700, 6)
    exact = mmd(x, y, bandwidth=float(np.median(pdist(np.vstack([x, y])))), unbiased=False)
    assert mmd(x, y, unbiased=False) == pytest.approx(exact, rel=0.05)
    assert mmd(x, y, seed=1) == mmd(x, y, seed=1)
    assert mmd(x, y, seed=1) != mmd(x, y, seed=2)


@given(samples(), samples())
@settings(max_examples=30, deadline=None)
def test_laws_of_distances(x, y) -> None:
    scale = max(np.abs(x).max(), np.abs(y).max(), 1e-30)
    for distance, unit in ((e_distance, scale), (lambda a, b: mmd(a, b, unbiased=False), 1.0)):
        value = distance(x, y)
        assert value >= -1e-7 * unit
        assert distance(x, x) == pytest.approx(0, abs=1e-7 * unit)
        assert distance(y, x) == pytest.approx(value, abs=1e-7 * unit)
        assert distance(x[::-1], y) == pytest.approx(value, abs=1e-7 * unit)
        assert distance(x[:, ::-1], y[:, ::-1]) == pytest.approx(value, abs=1e-7 * unit)
    assert e_distance(3 * x + 7, 3 * y + 7) == pytest.approx(3 * e_distance(x, y), abs=1e-6 * (scale + 7))


def test_unbiased_forms_are_zero_on_average() -> None:
    rng = np.random.default_rng(4)
    draws = rng.gamma(2.0, 0.5, (400, 2, 10, 4))
    for distance in (e_distance, lambda a, b, unbiased=False: mmd(a, b, unbiased=unbiased, bandwidth=1.0)):
        unbiased = np.array([distance(x, y, unbiased=True) for x, y in draws])
        biased = np.array([distance(x, y, unbiased=False) for x, y in draws])
        error = unbiased.std(ddof=1) / np.sqrt(len(draws))
        assert abs(unbiased.mean()) < 3 * error
        assert biased.mean() > 10 * error


def test_a_cap_of_cells_is_stated(cells, monkeypatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(logger, "info", lambda message, *values: said.append(message % values))
    rng = np.random.default_rng(5)
    x, y = cells(rng, 40, 3), sparse.csr_array(cells(rng, 15, 3))
    capped = e_distance(x, y, max_cells=20, seed=1)
    assert said == ["E-distance from 20 of the 40 predicted cells (`max_cells`)."]
    assert capped == e_distance(x, y, max_cells=20, seed=1)
    assert capped != e_distance(x, y, max_cells=20, seed=2)
    assert e_distance(x, y, max_cells=40) == e_distance(x, y)


def test_the_cells_under_a_cap_are_different_ones() -> None:
    x = np.arange(40.0)[:, None]
    # of 40 cells in a row, 39 different ones are all but one: no two of them coincide
    assert e_distance(x, x, max_cells=39, seed=3) < 0.1
    assert mean_distance(x) == pytest.approx(cdist(x, x).mean())
    assert e_distance(x[:2], x[1:3], unbiased=True, max_cells=2) == e_distance(x[:2], x[1:3], unbiased=True) == 0


def test_squared_distances_do_not_depend_on_blocks(cells, set_block) -> None:
    x, y = (cells(np.random.default_rng(i), n, 5) for i, n in enumerate((20, 17)))
    whole = e_distance(x, y, squared=True)
    set_block("_distances._block_cells", lambda x: 3)
    assert e_distance(x, y, squared=True) == pytest.approx(whole)


def test_memory_is_bounded() -> None:
    n = 3000
    x = sparse.random_array((n, 60), density=0.1, format="csr", dtype=np.float32, rng=np.random.default_rng(6))
    tracemalloc.start()
    mean_distance(x, x)
    mmd(x, x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n * n * 8 / 2, "half of a matrix of all distances"


def test_refusals() -> None:
    for call, message in (
        (lambda x: mean_distance(x[0]), "`x` has 1 dimensions"),
        (lambda x: mean_distance(x[:0]), r"`x` has the shape \(0, 2\)"),
        (lambda x: mean_distance(x[:, :0]), r"`x` has the shape \(3, 0\)"),
        (lambda x: mean_distance(x[:1], unbiased=True), "at least 2 cells"),
        (lambda x: mean_distance(x, x[:, :1]), "`x` has 2 genes and `y` has 1"),
        (lambda x: mean_distance(x, x[0]), "`y` has 1 dimensions"),
        (lambda x: e_distance(x, x[:, :1]), "`predicted` has 2 genes and `observed` has 1"),
        (lambda x: e_distance(x, x[:1], unbiased=True), "`observed` has the shape"),
        (lambda x: e_distance(x, x, max_cells=1), "`max_cells` is 1"),
        (lambda x: e_distance(np.where(x > 1, np.nan, x), x), "`predicted` holds missing"),
        (lambda x: e_distance(x, sparse.csr_array(np.where(x > 1, np.inf, x))), "`observed` holds missing"),
        (lambda x: mmd(x, x, bandwidth=0), "`bandwidth` is 0"),
        (lambda x: mmd(x, x, bandwidth=float("nan")), "`bandwidth` is nan"),
        (lambda x: mmd(x, x, bandwidth=float("inf")), "`bandwidth` is inf"),
    ):
        with pytest.raises(ValueError, match=message):
            call(np.arange(6.0).reshape(3, 2))


def test_text_is_refused() -> None:
    with pytest.raises(TypeError, match="`predicted` holds <U1 values"):
        e_distance(np.array([["a"]]), np.ones((1, 1)))


def test_other_forms_are_converted() -> None:
    numbers = np.array([[0, 3], [4, 0]])
    for form in (
        np.int64,
        np.uint8,
        np.float16,
        np.ndarray.tolist,
        sparse.coo_array,
        sparse.lil_matrix,
        sparse.csc_array,
    ):
        assert mean_distance(form(numbers)) == pytest.approx(2.5)


def test_the_input_stays_as_it_was(given_pairs) -> None:
    for x, y, exact_x, exact_y, _ in given_pairs:
        e_distance(x, y)
        mmd(x, y, unbiased=False)
        for values, exact in ((x, exact_x), (y, exact_y)):
            np.testing.assert_array_equal(values.toarray() if sparse.issparse(values) else values, exact)


def test_a_cap_of_observed_cells_is_stated_too(cells, monkeypatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(logger, "info", lambda message, *values: said.append(message % values))
    rng = np.random.default_rng(7)
    x, y = cells(rng, 15, 3), cells(rng, 40, 3)
    capped = e_distance(x, y, max_cells=20, seed=1)
    assert said == ["E-distance from 20 of the 40 observed cells (`max_cells`)."]
    assert capped == e_distance(x, y, max_cells=20, seed=1)
    assert capped != e_distance(x, y, max_cells=20, seed=2)


def test_mmd_does_not_depend_on_blocks(cells, set_block) -> None:
    for unbiased in (True, False):
        x, y = (cells(np.random.default_rng(i), n, 5) for i, n in enumerate((23, 14)))
        set_block("_distances.MAX_BLOCK_CELLS", 1024)
        whole = mmd(x, y, unbiased=unbiased), mmd(x, y, unbiased=unbiased, bandwidth=0.8)
        set_block("_distances.MAX_BLOCK_CELLS", 4)
        assert mmd(x, y, unbiased=unbiased) == pytest.approx(whole[0], rel=1e-9)
        assert mmd(x, y, unbiased=unbiased, bandwidth=0.8) == pytest.approx(whole[1], rel=1e-9)


def test_distances_of_many_genes_come_from_blocks_of_few_cells(cells, set_block) -> None:
    x, y = (cells(np.random.default_rng(i), n, 12) for i, n in enumerate((45, 70)))
    for block_values in (12, 250, 400):
        set_block("_distances.BLOCK_VALUES", block_values)
        assert e_distance(x, y) == pytest.approx(all_pairs(x, y))
        assert e_distance(x, y, squared=True) == pytest.approx(all_pairs(x, y, power=2))


def test_genes_may_have_levels_far_above_their_spread() -> None:
    """Products of the values themselves would lose all digits of the distances."""
    for squared in (True, False):
        rng = np.random.default_rng(8)
        level = 1e6 * (-1.0) ** np.arange(12)
        x, y = level + 1e-2 * rng.normal(size=(20, 12)), level + 1e-2 * rng.normal(size=(30, 12))
        power = 2 if squared else 1
        for a, b in ((x, y), (y, x), (x, x)):
            expected = (cdist(a, b) ** power).mean()
            assert mean_distance(a, None if a is b else b, squared=squared) == pytest.approx(expected, rel=1e-6)


def test_of_two_types_the_more_exact_one_is_used(cells) -> None:
    rng = np.random.default_rng(9)
    exact, rounded = cells(rng, 20, 8), cells(rng, 30, 8).astype(np.float32)
    expected = cdist(exact, rounded.astype(np.float64)).mean()
    assert mean_distance(exact, rounded) == pytest.approx(expected, rel=1e-12)
    assert mean_distance(rounded, exact) == pytest.approx(expected, rel=1e-12)


def test_large_counts_keep_their_digits() -> None:
    counts = np.array([[2**24], [2**24 + 1]])
    assert mean_distance(counts, unbiased=True) == 1
