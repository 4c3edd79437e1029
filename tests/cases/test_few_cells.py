"""One to three cells for each perturbation.

Source: satijalab/seurat #10136, #7222; GEARS #56. Expected: trains without a split, and a split is refused with
numbers.
"""

import numpy as np
import pytest
from simulated import fit, screen, trial

import unlasting as ul


@pytest.mark.slow
def test_few_cells():
    a = screen()[np.r_[np.arange(120), [120, 121, 160, 200, 201, 202, 240, 280, 281, 320, 360, 361, 400]]].copy()
    with trial() as u:
        ul.pp.split(a.copy())
    with trial() as t:
        m = fit(a, split=None, steps=4)
        g = m.generate("STAT1", 20, show_progress=False)
    assert t.error is None and np.isfinite(g.X.toarray()).all() and u.deliberate and u.said("min_cells"), str(
        t.error or "trained; " + str(u.error)[:100]
    )
