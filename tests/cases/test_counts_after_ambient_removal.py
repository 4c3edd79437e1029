"""Counts are fractional after SoupX or CellBender.

Source: BayraktarLab/cell2location #249. Expected: taken, or told to round.
"""

import numpy as np
import pytest
from simulated import prep, screen, trial


@pytest.mark.slow
def test_counts_after_ambient_removal():
    a = screen()
    a.X.data = (a.X.data * 0.973).astype(np.float32)
    with trial() as t:
        prep(a)
    assert t.error is None or t.said("round|ambient|SoupX|rint"), str(t.error)[:160]
