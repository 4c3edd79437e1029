"""Predictions of all perturbations are alike (r .99).

Source: bowang-lab/scGPT #277; GEARS #82. Expected: changes of trained perturbations differ as the true ones do.
"""

import numpy as np
import pytest
from simulated import change, corr, fit, screen, trial


@pytest.mark.slow
def test_all_predictions_alike():
    a = screen()
    ts = ["STAT1", "MYC", "SPI1", "CD86", "ATF4"]
    with trial():
        m = fit(a, test=["IRF1"], steps=4)
        g = m.generate(ts, 150, show_progress=False)
    c = a[a.obs.perturbation == "control"].X
    p = np.array([change(g[g.obs.perturbation == x].X, c) for x in ts])
    o = np.array([change(a[a.obs.perturbation == x].X, c) for x in ts])
    off = np.corrcoef(p)[np.triu_indices(5, 1)].max()
    right = min((corr(x, y) for x, y in zip(p, o)))
    assert off < 0.8 and right > 0.9, (
        f"largest correlation between two predictions {off:.2f}; smallest with its truth {right:.2f}"
    )
