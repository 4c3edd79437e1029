"""Whether cells look like cells: agreement with numpy, scipy and pandas on every gene and pair of genes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from unlasting.metrics import (
    bimodality_error,
    correlation_error,
    detected_genes_error,
    dispersion_error,
    library_size_error,
    sarle_coefficient,
    zero_fraction_error,
)

ERRORS = [
    zero_fraction_error,
    library_size_error,
    detected_genes_error,
    correlation_error,
    dispersion_error,
    bimodality_error,
]


def sarle(values: np.ndarray) -> float:
    """Sarle's coefficient from the corrected moments of scipy."""
    n, skewness, kurtosis = len(values), stats.skew(values, bias=False), stats.kurtosis(values, bias=False)
    return float((skewness**2 + 1) / (kurtosis + 3 * (n - 1) ** 2 / ((n - 2) * (n - 3))))


def correlations(values: np.ndarray) -> np.ndarray:
    """Correlation of all genes, 0 where one does not vary."""
    constant = np.ptp(values, axis=0) == 0
    correlation = np.zeros((len(constant),) * 2)
    if not constant.all():
        varying = np.ix_(~constant, ~constant)
        correlation[varying] = np.corrcoef(values[:, ~constant], rowvar=False)
    return correlation


def expressed(x: np.ndarray, y: np.ndarray, min_cells: int) -> list[tuple[np.ndarray, np.ndarray]]:
    genes = [(a[a > 0], b[b > 0]) for a, b in zip(x.T, y.T, strict=True)]
    return [(a, b) for a, b in genes if min(len(a), len(b)) >= min_cells]


def test_zero_fractions_and_detected_genes(given_pairs) -> None:
    for x, y, exact_x, exact_y, tolerance in given_pairs:
        expected = np.abs((exact_x > 0).mean(axis=0) - (exact_y > 0).mean(axis=0)).mean()
        assert zero_fraction_error(x, y) == pytest.approx(expected)
        counts = (exact_x > 0).sum(axis=1), (exact_y > 0).sum(axis=1)
        if counts[1].any():
            expected = stats.wasserstein_distance(*counts) / counts[1].mean()
            assert detected_genes_error(x, y) == pytest.approx(expected, rel=tolerance)
        else:
            assert np.isnan(detected_genes_error(x, y))


def test_library_sizes(given_pairs) -> None:
    for x, y, exact_x, exact_y, tolerance in given_pairs:
        if max(exact_x.max(), exact_y.max()) > 700:
            with pytest.raises(ValueError, match="holds values too large for logarithms"):
                library_size_error(x, y)
            continue
        sizes = np.expm1(exact_x).sum(axis=1), np.expm1(exact_y).sum(axis=1)
        if sizes[1].mean() > 0:
            expected = stats.wasserstein_distance(*sizes) / sizes[1].mean()
            assert library_size_error(x, y) == pytest.approx(expected, rel=tolerance, abs=tolerance)
        else:
            assert np.isnan(library_size_error(x, y))


def test_correlations(given_pairs, set_block) -> None:
    for x, y, exact_x, exact_y, tolerance in given_pairs:
        varies = np.ptp(exact_y, axis=0) > 0
        if varies.sum() < 2:
            assert np.isnan(correlation_error(x, y))
            continue
        error = np.abs(correlations(exact_x) - correlations(exact_y))
        expected = error[np.ix_(varies, varies)][~np.eye(varies.sum(), dtype=bool)].mean()
        set_block("_structure.MAX_BLOCK_GENES", 1024)
        assert correlation_error(x, y) == pytest.approx(expected, abs=10 * tolerance)
        set_block("_structure.MAX_BLOCK_GENES", 1 + varies.sum() // 3)
        assert correlation_error(x, y) == pytest.approx(expected, abs=10 * tolerance)


def test_dispersion_and_bimodality(given_pairs, set_block) -> None:
    for x, y, exact_x, exact_y, _ in given_pairs:
        pairs = expressed(exact_x[:, :20], exact_y[:, :20], 6)
        x, y = x[:, :20], y[:, :20]
        total = sum(b.std() for _, b in pairs)
        shapes = [abs(sarle(a) - sarle(b)) for a, b in pairs if np.ptp(a) > 0 and np.ptp(b) > 0]
        for block_values in (2**21, 60):
            set_block("_matrices.BLOCK_VALUES", block_values)
            if total > 0:
                expected = sum(abs(a.std() - b.std()) for a, b in pairs) / total
                assert dispersion_error(x, y, min_cells=6) == pytest.approx(expected, rel=1e-6)
            else:
                assert np.isnan(dispersion_error(x, y, min_cells=6))
            if shapes:
                assert bimodality_error(x, y, min_cells=6) == pytest.approx(np.mean(shapes), rel=1e-5)
            else:
                assert np.isnan(bimodality_error(x, y, min_cells=6))


def test_laws(cells) -> None:
    for error in ERRORS:
        rng = np.random.default_rng(0)
        x, y = cells(rng, 120, 8), 1.5 * cells(rng, 120, 8)
        order = rng.permutation(8)
        assert error(x, x) == pytest.approx(0, abs=1e-12)
        assert error(x, x[::-1]) == pytest.approx(0, abs=1e-12)
        assert error(x, y) > 0
        assert error(x[::-1, order], y[:, order]) == pytest.approx(error(x, y))


def test_cells_that_are_all_equal_are_wrong(cells) -> None:
    observed = cells(np.random.default_rng(1), 100, 6)
    mean = np.tile(observed.mean(axis=0), (100, 1))
    assert dispersion_error(mean, observed) == pytest.approx(1)
    assert zero_fraction_error(mean, observed) == pytest.approx((observed == 0).mean())
    correlation = np.corrcoef(observed, rowvar=False)[~np.eye(6, dtype=bool)]
    assert correlation_error(mean, observed) == pytest.approx(np.abs(correlation).mean())


def test_two_modes_are_missed_by_one() -> None:
    rng = np.random.default_rng(2)
    two = np.where(rng.random((300, 2)) < 0.5, 1.0, 3.0) + 0.2 * rng.normal(size=(300, 2))
    again = np.where(rng.random((300, 2)) < 0.5, 1.0, 3.0) + 0.2 * rng.normal(size=(300, 2))
    one = 2 + two.std() * rng.normal(size=(300, 2))
    assert bimodality_error(one, two) > 10 * bimodality_error(again, two)


@given(st.lists(st.floats(-100, 100, width=32), min_size=4, max_size=30))
@settings(max_examples=40, deadline=None)
def test_sarle_coefficient_agrees_with_scipy(values) -> None:
    values = np.array(values)
    if np.ptp(values) == 0:
        assert np.isnan(sarle_coefficient(values))
    elif np.ptp(values) > 1e-3:
        assert sarle_coefficient(values) == pytest.approx(sarle(values), rel=1e-6)


def test_sarle_coefficient_of_known_distributions() -> None:
    rng = np.random.default_rng(0)
    assert sarle_coefficient(rng.normal(size=200_000)) == pytest.approx(1 / 3, abs=0.01)
    assert sarle_coefficient(rng.uniform(size=200_000)) == pytest.approx(5 / 9, abs=0.01)
    assert sarle_coefficient(rng.integers(0, 2, 200_000).astype(float)) == pytest.approx(1, abs=0.01)
    assert np.isnan(sarle_coefficient(np.ones(10)))
    assert np.isnan(sarle_coefficient(np.arange(3.0)))


def test_a_shape_needs_cells(cells) -> None:
    for error, smallest in ((dispersion_error, 2), (bimodality_error, 4)):
        x = cells(np.random.default_rng(3), 9, 2)
        with pytest.raises(ValueError, match=f"`min_cells` is {smallest - 1}, but at least {smallest}"):
            error(x, x, min_cells=smallest - 1)


def test_refusals() -> None:
    for error in ERRORS:
        with pytest.raises(ValueError, match="`predicted` has 2 genes and `observed` has 3"):
            error(np.ones((4, 2)), np.ones((4, 3)))
        with pytest.raises(ValueError, match="`observed` holds missing"):
            error(np.ones((4, 2)), np.full((4, 2), np.nan))


def test_two_genes_have_a_correlation() -> None:
    x = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [4.0, 4.0]])
    assert correlation_error(x * [1, -1], x) > 0
    assert correlation_error(x, x) == 0


@pytest.mark.filterwarnings("error")
def test_the_sample_that_is_not_logarithmic_is_named() -> None:
    low, high = np.ones((3, 2)), np.full((3, 2), 1e3)
    with pytest.raises(ValueError, match="^`predicted` holds values too large"):
        library_size_error(high, low)
    with pytest.raises(ValueError, match="^`observed` holds values too large"):
        library_size_error(low, high)


def test_library_sizes_of_float32_cells_are_sums_in_float64(cells) -> None:
    rng = np.random.default_rng(4)
    x, y = cells(rng, 20, 300).astype(np.float32), cells(rng, 30, 300).astype(np.float32)
    sizes = [np.expm1(values.astype(np.float64)).sum(axis=1) for values in (x, y)]
    expected = stats.wasserstein_distance(*sizes) / sizes[1].mean()
    assert library_size_error(x, y) == pytest.approx(expected, rel=1e-10)


def test_correlations_of_many_cells_come_from_blocks_of_few_genes(cells, set_block) -> None:
    rng = np.random.default_rng(5)
    x, y = cells(rng, 50, 9), cells(rng, 40, 9)
    error = np.abs(np.corrcoef(x, rowvar=False) - np.corrcoef(y, rowvar=False))
    for block_values in (20, 120, 230):
        set_block("_structure.BLOCK_VALUES", block_values)
        assert correlation_error(x, y) == pytest.approx(error.sum() / 72)


def test_a_gene_is_compared_from_a_number_of_cells_on() -> None:
    """The first gene is in just as many cells, the second in one fewer: of the sample on either side."""
    for error, needed in ((dispersion_error, 10), (bimodality_error, 20)):
        rng = np.random.default_rng(6)
        x = rng.gamma(2.0, size=(needed + 5, 2))
        x[needed:, 0] = x[needed - 1 :, 1] = 0.0
        full = rng.gamma(2.0, size=(needed + 5, 2))
        for pair in ((x, full), (full, x)):
            a, b = (values[values[:, 0] > 0, 0] for values in pair)
            expected = abs(a.std() - b.std()) / b.std() if error is dispersion_error else abs(sarle(a) - sarle(b))
            assert error(*pair) == pytest.approx(expected)


def test_the_smallest_number_of_cells_is_allowed() -> None:
    for error, smallest in ((dispersion_error, 2), (bimodality_error, 4)):
        x = np.arange(1.0, smallest + 1)[:, None]
        assert error(x, x, min_cells=smallest) == 0


@pytest.mark.filterwarnings("error")
def test_genes_without_a_shape_give_no_warning(cells) -> None:
    x = cells(np.random.default_rng(7), 100, 4)
    same = np.where(x > 0, 0.7, 0.0)
    assert np.isnan(bimodality_error(same, x))
    assert np.isnan(bimodality_error(x, x, min_cells=101))
    assert np.isnan(dispersion_error(x, same))
    x[:, 0] = 0.7
    assert bimodality_error(x, x[::-1]) == pytest.approx(0, abs=1e-12)


def test_sarle_coefficient_of_other_types() -> None:
    values = (100 + np.random.default_rng(8).normal(size=500)).astype(np.float32)
    assert sarle_coefficient(values) == pytest.approx(sarle(values.astype(np.float64)), rel=1e-9)
    assert sarle_coefficient([1, 2, 2, 5]) == pytest.approx(sarle(np.array([1.0, 2.0, 2.0, 5.0])))
