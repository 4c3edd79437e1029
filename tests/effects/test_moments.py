"""Effects measured from cells: noise in few cells does not look like an effect."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

from unlasting.effects import ControlPopulations, ScreenCells, fit_statistics, has_integer_counts
from unlasting.effects._moments import _deviations, _log_odds_steps  # expectations need a gene's every possible count


def measured_log_odds(controls: np.ndarray, perturbed: np.ndarray) -> np.ndarray:
    """Measure effects on log-odds between two groups of cells."""
    condition = np.repeat([0, 1], [len(controls), len(perturbed)])
    zeros = np.zeros(len(condition), dtype=int)
    _, measured = fit_statistics(
        ScreenCells(sparse.csr_matrix(np.concatenate([controls, perturbed])), condition, zeros, zeros, 2, 1)
    )
    return measured.effects[0, 0]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1_000), st.integers(20, 60))
def test_a_gene_that_all_or_no_cells_express_tells_no_shift_of_its_log_odds(seed: int, n_perturbed: int) -> None:
    """Of many controls and few perturbed cells: what was not seen to change must not look like a change."""
    rng = np.random.default_rng(seed)
    always_never_half = np.array([1.0, 0.0, 0.5])
    controls, perturbed = (
        rng.uniform(1, 2, (n, 3)) * (rng.random((n, 3)) < always_never_half) for n in (400, n_perturbed)
    )
    found = measured_log_odds(controls, perturbed)
    assert np.abs(found[:2]).max() < 0.7
    odds = [(cells[:, 2] > 0).sum() / (cells[:, 2] == 0).sum() for cells in (controls, perturbed)]
    assert found[2] == pytest.approx(np.log(odds[1] / odds[0]), abs=0.35)


def test_a_gene_that_perturbed_cells_turn_on_keeps_its_shift() -> None:
    assert measured_log_odds(np.zeros((400, 1)), np.ones((40, 1)))[0] > 5


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("sizes", [[40] * 30, [1_000] * 5 + [15] * 40])
def test_without_an_effect_shifts_are_as_noisy_as_is_said(rate: float, sizes: list[int]) -> None:
    """Though what few cells tell is drawn towards no shift: else the fit would take noise for less, or more, than it is."""
    rng = np.random.default_rng(0)
    n_genes = 60
    condition = np.repeat(np.arange(len(sizes) + 1), [2_000, *sizes])
    cells = rng.normal(1.5, 0.3, (len(condition), n_genes)) * (rng.random((len(condition), n_genes)) < rate)
    zeros = np.zeros(len(condition), dtype=int)
    _, measured = fit_statistics(
        ScreenCells(sparse.csr_matrix(cells.clip(0)), condition, zeros, zeros, len(sizes) + 1, 1)
    )
    largest = measured.n_cells == max(sizes)
    relative = (measured.effects * measured.units)[largest] / np.sqrt(measured.noise[largest])[:, None, None]
    np.testing.assert_allclose(relative.std(axis=(0, 2))[:2], 1.0, atol=0.4)


def test_effects_are_noisier_where_a_gene_is_rarer_than_in_the_screen() -> None:
    """Two populations that detect genes in 10 % and in 60 % of cells, or the reverse, and conditions without an effect."""
    rng = np.random.default_rng(1)
    n_genes, sizes = 80, [2_000, *[300] * 12]
    rates = np.where(np.arange(n_genes) % 2, 0.1, 0.6)
    condition = np.tile(np.repeat(np.arange(len(sizes)), sizes), 2)
    population = np.repeat([0, 1], sum(sizes))
    rate = np.where(population[:, None] == 0, rates, 0.7 - rates)
    cells = rng.normal(1.5, 0.3, rate.shape) * (rng.random(rate.shape) < rate)
    split = np.zeros(len(condition), dtype=int)
    _, measured = fit_statistics(ScreenCells(sparse.csr_matrix(cells), condition, population, split, len(sizes), 2))
    square = (measured.effects * measured.units) ** 2 / measured.noise[:, None, None]
    rare = np.where(measured.population[:, None] == 0, rates, 0.7 - rates) < 0.3
    for part in range(2):
        found, ratio = square[:, part][rare], measured.noise_ratio[:, part][rare]
        assert ratio.mean() > 2.0
        assert found.mean() == pytest.approx(ratio.mean(), rel=0.15)


def deviations(counts, n_cells: float, rate: float) -> np.ndarray:
    """Compare numbers of cells that express a gene with a reference rate."""
    n = np.atleast_1d(np.asarray(counts, dtype=float))[None]
    base, unit = np.full(n.shape, 0.5), np.full(n.shape, 0.2)
    sums = np.stack([n, 0.5 * n, (0.5**2 + 0.2**2) * n])
    return _deviations(sums, np.array([n_cells]), np.full(n.shape, rate), base, unit, unit)[0]


@pytest.mark.parametrize("rate", [0.005, 0.01, 0.03, 0.1, 0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("n_cells", [20, 50, 150, 500, 2_000])
def test_sampling_error_does_not_look_like_an_effect(rate: float, n_cells: int) -> None:
    """Expectation over all possible counts, in standard errors."""
    counts = np.arange(n_cells + 1)
    bias = stats.binom.pmf(counts, n_cells, rate) @ deviations(counts, n_cells, rate)[0]
    assert abs(bias) * np.sqrt(n_cells * rate * (1 - rate)) < 0.02
    mirrored = deviations(n_cells - counts, n_cells, 1 - rate)[0]  # in cells without the gene
    np.testing.assert_allclose(mirrored, -deviations(counts, n_cells, rate)[0], atol=1e-8)


def test_a_screen_has_the_expected_effects_where_genes_are_rare() -> None:
    """The mean over thousands of genes, measured from cells, against the sum over all counts."""
    rng, n_genes, rate = np.random.default_rng(0), 4_000, 0.03
    cells = sparse.random(
        4_050, n_genes, rate, "csr", dtype=np.float32, rng=rng, data_rvs=lambda n: rng.uniform(1, 2, n)
    )
    condition, zeros = np.repeat([0, 1], [4_000, 50]), np.zeros(4_050, dtype=int)
    _, measured = fit_statistics(ScreenCells(cells, condition, zeros, zeros, 2, 1))
    counts = np.arange(51)
    mass, found = stats.binom.pmf(counts, 50, rate), deviations(counts, 50, rate)[0]
    mean = mass @ found
    standard_error = np.sqrt(mass @ (found - mean) ** 2 / n_genes)
    assert measured.effects[0, 0].mean() == pytest.approx(mean, abs=4 * standard_error)


@settings(max_examples=200, deadline=None)
@given(st.floats(0.005, 0.995), st.integers(5, 2_000), st.floats(0.0, 1.0))
def test_no_deviation_passes_the_likeliest_value(rate: float, n_cells: int, share: float) -> None:
    """Before bias is removed. With fifty cells of either kind, odds up to 20 times as high are exact to 3 %."""
    count = round(share * n_cells)
    log_odds, at_reference = (
        float(_log_odds_steps(np.array(n), np.array(float(n_cells)), np.array(rate))) for n in (count, n_cells * rate)
    )
    assert at_reference == pytest.approx(0.0, abs=1e-9)
    with np.errstate(divide="ignore"):
        likeliest = np.log(count) - np.log(n_cells - count) - np.log(rate / (1 - rate))
    assert log_odds * np.sign(likeliest) >= -1e-9
    assert abs(log_odds) <= abs(likeliest) + 1e-9
    if min(count, n_cells - count) >= 50:
        assert log_odds == pytest.approx(likeliest, rel=0.16, abs=0.03)
        assert log_odds == pytest.approx(likeliest, abs=0.03) or abs(likeliest) > np.log(20)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 500), st.floats(0.01, 0.99))
def test_a_mean_moves_towards_the_cells_and_the_reference_has_no_deviation(
    seed: int, n_cells: int, rate: float
) -> None:
    rng = np.random.default_rng(seed)
    np.testing.assert_allclose(deviations(n_cells * rate, n_cells, rate)[1:], 0.0, atol=1e-9)
    values = rng.uniform(0, 1, rng.integers(n_cells + 1))
    sums = np.array([len(values), values.sum(), (values**2).sum()])[:, None, None]
    base, unit = rng.uniform(0.1, 0.9, (1, 1)), np.full((1, 1), 0.2)
    found = _deviations(sums, np.array([float(n_cells)]), np.full((1, 1), rate), base, unit, unit)[0, 1, 0]
    observed = (values.mean() - base.item()) / 0.2 if len(values) else 0.0
    assert min(observed, 0.0) - 1e-9 <= found <= max(observed, 0.0) + 1e-9
    if len(values) >= n_cells * rate:
        assert found == pytest.approx(observed, abs=1e-9)


def test_integer_counts_are_told_from_other_values_cell_by_cell():
    depth = np.array([[1.0], [0.37], [1e4], [3e-4], [1.0], [1.0], [2.5]])
    counts = np.array(
        [[1, 2, 0, 20_000], [1, 1, 1, 1], [1, 0, 7, 3], [2, 4, 0, 6], [2, 3, 0, 0], [1, 2.5, 0, 9], [0, 0, 0, 0]]
    )
    stored = sparse.csr_matrix(np.log1p(counts * depth).astype(np.float32))
    stored = sparse.csr_matrix((stored.data, stored.indices, stored.indptr), stored.shape)
    assert has_integer_counts(stored.expm1()).tolist() == [True, True, True, True, False, False, True]


def test_explicit_zeros_are_no_counts():
    cells = sparse.csr_matrix(np.array([[1.0, 2.0, 5.0]], dtype=np.float32))
    cells.data[1] = 0.0
    assert has_integer_counts(cells).tolist() == [True]


@pytest.mark.parametrize(("share_integers", "expected"), [(1.0, 1.0), (0.995, 1.0), (0.9, 0.0)])
def test_a_screen_has_integer_counts_where_nearly_all_training_cells_have_them(share_integers, expected):
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.0, (400, 20)) + 0.0
    counts[:, 0] = 1
    off = np.arange(200) >= 200 * share_integers
    counts[:200][off, 1] = 2.5
    counts[200:] *= rng.uniform(0.5, 1.5, (200, 20))  # cells of the test set, of which nothing is asked
    split = np.repeat([0, 2], 200)
    condition = np.tile([0, 1], 200)
    statistics, _ = fit_statistics(ScreenCells(sparse.csr_matrix(np.log1p(counts)), condition, 0 * split, split, 2, 1))
    assert statistics.integer_counts == expected


def test_a_new_control_population_has_the_moments_of_its_cells():
    rng = np.random.default_rng(0)
    cells = rng.uniform(1, 3, (500, 6)) * (rng.random((500, 6)) < 0.7)
    population = ControlPopulations.fit(sparse.csr_matrix(cells), cell_type=2, x_max=10.0)
    np.testing.assert_allclose(population.mean[0], cells.mean(axis=0) / 10.0, rtol=1e-5)
    np.testing.assert_allclose(population.sd[0], cells.std(axis=0) / 10.0, rtol=1e-4)
    expressed = [column[column > 0] for column in cells.T]
    np.testing.assert_allclose(population.base[0], [values.mean() / 10.0 for values in expressed], rtol=0.02)
    np.testing.assert_allclose(population.scale[0], [values.std() / 10.0 for values in expressed], rtol=0.05)
    rate = (cells > 0).mean(axis=0)
    np.testing.assert_allclose(population.log_odds[0], np.log(rate / (1 - rate)), atol=0.02)
    log_detected = np.log(np.maximum((cells > 0).sum(axis=1), 1))
    assert population.log_detected_mean.item() == pytest.approx(log_detected.mean(), rel=1e-5)
    assert population.log_detected_sd.item() == pytest.approx(log_detected.std(), rel=1e-5)
    assert population.cell_type.tolist() == [2]
    assert (population.correction == 0).all()  # without perturbed cells nothing tells the sampling error


def test_a_gene_that_only_perturbed_cells_express_starts_from_other_controls() -> None:
    """Its expressed value in a population without it is that in the other controls, not that in perturbed cells."""
    rng = np.random.default_rng(0)
    condition, population = np.repeat([0, 1, 0], [200, 200, 200]), np.repeat([0, 0, 1], [200, 200, 200])
    matrix = rng.uniform(0.5, 1.5, (600, 3))
    matrix[:200, 2] = np.where(np.arange(200) < 100, matrix[:200, 2], 0.0)  # controls around 1
    matrix[200:400, 2] = rng.uniform(3.5, 4.5, 200)  # induced
    matrix[400:, 2] = 0.0
    cells = ScreenCells(sparse.csr_matrix(matrix.astype(np.float32)), condition, population, np.zeros(600, int), 2, 2)
    statistics, _ = fit_statistics(cells)
    base = statistics.base.numpy()[:, 2] * float(statistics.x_max)
    assert base[0] == pytest.approx(matrix[:100, 2].mean(), abs=0.02)
    assert base[1] == pytest.approx(base[0], abs=0.4)  # shrunk towards all expressed values by ten cells
