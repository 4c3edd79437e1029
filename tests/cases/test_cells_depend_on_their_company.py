"""Predictions of a cell change with the cells beside it.

Source: ArcInstitute/state #187. Expected: they do not, nor with batch size or order.
"""

import numpy as np
import pytest
from simulated import fit, screen, trial


@pytest.mark.slow
def test_cells_depend_on_their_company():
    a = screen()
    with trial(False):
        m = fit(a, test=["IRF1"], steps=4)
    c = a[a.obs.perturbation == "control"].copy()
    d = c[10:20].copy()
    m.predict(c, "STAT1", show_progress=False)
    m.predict(d, "STAT1", show_progress=False, batch_size=3)
    x = np.abs(c[10:20].layers["unlasting"].toarray() - d.layers["unlasting"].toarray()).max()
    assert x < 1e-05, f"largest difference {x}"
