"""More than two perturbations in a cell.

Source: GEARS #11. Expected: trained on and predicted.
"""

import numpy as np
import pytest
from simulated import fit, screen, trial


@pytest.mark.slow
def test_three_targets():
    a = screen(combos=[("MYC", "SPI1", "CD86")], write=lambda t: t if isinstance(t, str) else "+".join(t))
    with trial() as t:
        m = fit(a, test=["IRF1"], steps=2)
        g = m.generate(["SPI1+CD86+MYC", "STAT1+MYC+CD86+ATF4"], 20, show_progress=False)
    assert (
        t.error is None
        and np.isfinite(g.X.toarray()).all()
        and (list(g.obs.perturbation.unique())[0] == "CD86+MYC+SPI1")
    ), str(t.error or list(g.obs.perturbation.unique()))
