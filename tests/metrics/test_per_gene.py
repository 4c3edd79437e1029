"""Distances gene by gene agree with scipy, and keep their laws."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse, stats

from unlasting.metrics import emd, emd_per_gene, energy, energy_per_gene

VALUES = st.floats(-100, 100, width=32)


def samples(n_genes: int = 2, n_cells: int = 6) -> st.SearchStrategy[np.ndarray]:
    return st.integers(1, n_cells).flatmap(lambda n: arrays(np.float64, (n, n_genes), elements=VALUES))


def by_scipy(distance, x, y):
    return np.array([distance(a, b) for a, b in zip(x.T, y.T, strict=True)])


def test_emd_agrees_with_scipy(given_pairs) -> None:
    for x, y, exact_x, exact_y, tolerance in given_pairs:
        expected = by_scipy(stats.wasserstein_distance, exact_x, exact_y)
        np.testing.assert_allclose(emd_per_gene(x, y), expected, rtol=tolerance, atol=1e-12)
        assert emd(x, y) == pytest.approx(expected.mean(), rel=tolerance, abs=1e-12)


def test_energy_agrees_with_scipy(given_pairs) -> None:
    for x, y, exact_x, exact_y, tolerance in given_pairs:
        expected = by_scipy(stats.energy_distance, exact_x, exact_y) ** 2
        scale = max(np.abs(exact_x - exact_x.mean()).max(), 1e-12)
        np.testing.assert_allclose(energy_per_gene(x, y), expected, rtol=tolerance, atol=1e-10 * scale)
        assert energy(x, y) == pytest.approx(expected.mean(), rel=tolerance, abs=1e-10 * scale)


def test_results_do_not_depend_on_blocks(given_pairs, set_block) -> None:
    expected = [(emd_per_gene(x, y), energy_per_gene(x, y)) for x, y, *_ in given_pairs]
    set_block("_matrices.BLOCK_VALUES", 60)
    for (x, y, *_), (by_emd, by_energy) in zip(given_pairs, expected, strict=True):
        np.testing.assert_allclose(emd_per_gene(x, y), by_emd, rtol=1e-9)
        np.testing.assert_allclose(energy_per_gene(x, y), by_energy, rtol=1e-9, atol=1e-9)


def test_emd_of_unequal_numbers() -> None:
    for n, m in ((3, 7), (6, 4), (10, 5), (97, 89)):
        rng = np.random.default_rng(n)
        x, y = rng.normal(size=(n, 4)), rng.normal(1, 2, size=(m, 4))
        np.testing.assert_allclose(emd_per_gene(x, y), by_scipy(stats.wasserstein_distance, x, y), rtol=1e-12)


@given(samples(), samples(), st.floats(-5, 5), st.floats(-50, 50))
@settings(max_examples=40, deadline=None)
def test_laws(x, y, factor, shift) -> None:
    scale = 100 * (1 + abs(factor)) + abs(shift)
    for per_gene in (emd_per_gene, energy_per_gene):
        value = per_gene(x, y)
        assert (value >= -1e-9 * scale).all()
        np.testing.assert_allclose(per_gene(x, x), 0, atol=1e-9 * scale)
        np.testing.assert_allclose(per_gene(y, x), value, atol=1e-9 * scale)
        np.testing.assert_allclose(per_gene(x[::-1], y), value, atol=1e-9 * scale)
        np.testing.assert_allclose(per_gene(x[:, ::-1], y[:, ::-1])[::-1], value, atol=1e-9 * scale)
        np.testing.assert_allclose(per_gene(factor * x, factor * y), abs(factor) * value, atol=1e-9 * scale)
        np.testing.assert_allclose(per_gene(x + shift, y + shift), value, atol=1e-9 * scale)
    np.testing.assert_allclose(emd_per_gene(x, x + shift), abs(shift), atol=1e-9 * scale)
    np.testing.assert_allclose(emd_per_gene(np.repeat(x, 3, axis=0), y), emd_per_gene(x, y), atol=1e-9 * scale)


def test_the_input_stays_as_it_was(given_pairs) -> None:
    for x, y, exact_x, exact_y, _ in given_pairs:
        emd(x, y)
        energy(x, y)
        for values, exact in ((x, exact_x), (y, exact_y)):
            np.testing.assert_array_equal(values.toarray() if sparse.issparse(values) else values, exact)


def test_unbiased_energy_agrees_with_all_pairs(given_pairs) -> None:
    for x, y, exact_x, exact_y, tolerance in given_pairs:
        if min(len(exact_x), len(exact_y)) < 2:
            with pytest.raises(ValueError, match="at least 2 cells"):
                energy_per_gene(x, y, unbiased=True)
            continue
        between = np.abs(exact_x[:, None] - exact_y).mean(axis=(0, 1))
        within = [np.abs(c[:, None] - c).sum(axis=(0, 1)) / (len(c) * (len(c) - 1)) for c in (exact_x, exact_y)]
        found = energy_per_gene(x, y, unbiased=True)
        np.testing.assert_allclose(found, 2 * between - sum(within), atol=tolerance * max(between.max(), 1e-12))


def test_unbiased_energy_is_zero_on_average() -> None:
    rng = np.random.default_rng(0)
    draws = rng.gamma(2.0, 0.5, (600, 2, 8, 1))
    unbiased = np.array([energy(x, y, unbiased=True) for x, y in draws])
    biased = np.array([energy(x, y) for x, y in draws])
    error = unbiased.std(ddof=1) / np.sqrt(len(draws))
    assert abs(unbiased.mean()) < 3 * error
    assert biased.mean() > 10 * error


def test_unbiased_energy_needs_two_cells() -> None:
    with pytest.raises(ValueError, match="`observed` has the shape"):
        energy(np.ones((2, 1)), np.ones((1, 1)), unbiased=True)


def test_memory_is_bounded() -> None:
    shape = (2000, 6000)
    x = sparse.random_array(shape, density=0.02, format="csr", dtype=np.float32, rng=np.random.default_rng(1))
    tracemalloc.start()
    emd(x, x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < shape[0] * shape[1] * 4, "the size of one dense sample"


def test_sparse_cells_have_the_distance_of_dense_ones() -> None:
    """Only stored values are sorted: whatever their number, type and sign, and with genes that are never detected."""
    rng = np.random.default_rng(5)
    for n, m in ((40, 40), (40, 27), (1, 30)):
        x, y = (rng.poisson(0.3, (size, 25)) * (rng.random(25) < 0.8) for size in (n, m))
        x[:, 3] = y[:, 3] = 0
        x[:, 4] += 1
        for first, second in ((x, y), (x * 0.37, y.astype(np.float32)), (x - 2, y)):
            expected = [stats.wasserstein_distance(first[:, g], second[:, g]) for g in range(25)]
            found = emd_per_gene(sparse.csr_matrix(first), sparse.csr_matrix(second))
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_zeros_are_left_out_without_a_trace() -> None:
    """Many cells with zeros are not sorted as few cells are: whatever their form, share of zeros, sign and numbers."""
    rng = np.random.default_rng(6)
    forms = (np.asarray, np.asfortranarray, sparse.csr_array, sparse.csc_matrix, sparse.coo_array)
    for n, m in ((800, 800), (800, 1000), (900, 20)):
        share = np.array([0.0, 0.01, 0.1, 0.5, 1.0])
        for low, high in ((0, 2), (-1, 2), (-2, 0)):
            x, y = (rng.uniform(low, high, (size, 5)) * (rng.random((size, 5)) < share) for size in (n, m))
            expected = by_scipy(stats.wasserstein_distance, x, y)
            for form in forms:
                np.testing.assert_allclose(emd_per_gene(form(x), form(y)), expected, rtol=1e-12, atol=1e-14)
                np.testing.assert_allclose(emd_per_gene(x, form(y)), expected, rtol=1e-12, atol=1e-14)
                found = emd_per_gene(form(x.astype(np.float32)), form(y))
                np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_entries_of_one_place_add_up() -> None:
    twice = sparse.csr_array((np.ones(4), [0, 0, 1, 0], [0, 2, 4]), shape=(2, 2))
    for x in (twice, twice.tocsc()):
        np.testing.assert_allclose(emd_per_gene(x, np.zeros((2, 2))), [1.5, 0.5])
    np.testing.assert_array_equal(twice.data, 1)  # as it was


def test_values_that_are_missing_or_infinite_are_refused() -> None:
    for value in (np.nan, np.inf, -np.inf):
        for n in (3, 800):
            cells = np.zeros((n, 2))
            cells[1, 1] = value
            for x in (cells, sparse.csr_array(cells), sparse.csc_array(cells)):
                with pytest.raises(ValueError, match="`predicted` holds missing or infinite"):
                    emd(x, np.ones((5, 2)))
                with pytest.raises(ValueError, match="`observed` holds missing or infinite"):
                    emd(np.ones((5, 2)), x)
                with pytest.raises(ValueError, match="`predicted` holds missing or infinite"):
                    emd(x, x)
