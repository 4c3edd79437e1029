"""Shifts that are measured from cells: what few cells cannot tell is not taken for an effect."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from unlasting.data import fit_statistics


def measured_log_odds(controls: np.ndarray, perturbed: np.ndarray) -> np.ndarray:
    """Measure the shifts of log-odds of all genes between two groups of cells."""
    condition = np.repeat([0, 1], [len(controls), len(perturbed)])
    zeros = np.zeros(len(condition), dtype=int)
    _, measured = fit_statistics(
        sparse.csr_matrix(np.concatenate([controls, perturbed])),
        condition=condition,
        pool=zeros,
        split=zeros,
        control_code=0,
        n_conditions=2,
        n_pools=1,
    )
    return measured.shifts[0, 0]


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
        sparse.csr_matrix(cells.clip(0)),
        condition=condition,
        pool=zeros,
        split=zeros,
        control_code=0,
        n_conditions=len(sizes) + 1,
        n_pools=1,
    )
    largest = measured.n_cells == max(sizes)
    relative = (measured.shifts * measured.units)[largest] / np.sqrt(measured.noise[largest])[:, None, None]
    np.testing.assert_allclose(relative.std(axis=(0, 2))[:2], 1.0, atol=0.4)
