"""Cells express none of the kept genes (all-zero rows).

Source: theislab/cpa #62, #36 (NaN losses), NaN of zero-count cells. Expected: finite losses and cells.
"""

import numpy as np
import pytest
from scipy import sparse as sp
from simulated import GENES, fit, screen, trial


@pytest.mark.slow
def test_cells_without_kept_genes():
    a = screen()
    x = a.X.toarray()
    rows = [0, 1, 2, 125, 126, 127]
    x[rows, :59] = 0
    x[rows, 59] = 1
    a.X = sp.csr_matrix(x)
    with trial() as t:
        m = fit(a, test=["IRF1"], steps=6, prepare_args={"genes": GENES[:59], "target_sum": 240.0})
        m.predict(a, show_progress=False)
        g = m.generate("STAT1", 200, show_progress=False)
    assert (
        t.error is None
        and np.isfinite(g.X.toarray()).all()
        and np.isfinite(a.layers["unlasting"].toarray()).all()
        and all(np.isfinite(f.to_numpy(dtype=float)).all() for f in m.history.values())
    ), str(t.error or "finite")
