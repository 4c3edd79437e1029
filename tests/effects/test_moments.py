"""Effects measured from cells: noise in few cells does not look like an effect."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from unlasting.effects import ControlPopulations, ScreenCells, fit_statistics, has_integer_counts


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
