"""Shifts that are measured from cells: what few cells cannot tell is not taken for an effect."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from unlasting.data import fit_statistics


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1_000), st.integers(20, 60))
def test_a_gene_that_all_or_no_cells_express_tells_no_shift_of_its_log_odds(seed: int, n_perturbed: int) -> None:
    """Of many controls and few perturbed cells: what was not seen to change must not look like a change."""
    rng = np.random.default_rng(seed)
    n_controls = 400
    cells = rng.uniform(1, 2, (n_controls + n_perturbed, 3)) * [
        1,
        0,
        1,
    ]  # always on, always off, on in half of the cells
    cells[:, 2] *= rng.random(len(cells)) < 0.5
    condition = np.repeat([0, 1], [n_controls, n_perturbed])
    zeros = np.zeros(len(cells), dtype=int)
    _, measured = fit_statistics(
        sparse.csr_matrix(cells),
        condition=condition,
        pool=zeros,
        split=zeros,
        control_code=0,
        n_conditions=2,
        n_pools=1,
    )
    assert np.abs(measured.shifts[0, 0, :2]).max() < 0.7
    rates = [(cells[condition == code, 2] > 0).mean() for code in (0, 1)]
    expected = np.log(rates[1] / (1 - rates[1])) - np.log(rates[0] / (1 - rates[0]))
    assert measured.shifts[0, 0, 2] == pytest.approx(expected, abs=0.35)


def test_a_gene_that_perturbed_cells_turn_on_keeps_its_shift() -> None:
    cells = np.ones((440, 1))
    cells[:400] = 0
    condition, zeros = np.repeat([0, 1], [400, 40]), np.zeros(440, dtype=int)
    _, measured = fit_statistics(
        sparse.csr_matrix(cells),
        condition=condition,
        pool=zeros,
        split=zeros,
        control_code=0,
        n_conditions=2,
        n_pools=1,
    )
    assert measured.shifts[0, 0, 0] > 5
