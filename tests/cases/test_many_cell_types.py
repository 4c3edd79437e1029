"""150 cell types.

Source: ArcInstitute/state #184, #187 (Tahoe, 50 lines), scverse/scvi-tools (many batches). Expected: registered and
trained in reasonable time.
"""

import time

import numpy as np
import pytest
from simulated import fit, screen, trial


@pytest.mark.slow
def test_many_cell_types():
    a = screen(n=150, n_control=1200)
    a.obs["ct"] = [f"type {i}" for i in np.random.default_rng(0).integers(0, 150, a.n_obs)]
    start = time.process_time()
    with trial() as t:
        m = fit(a, test=["IRF1"], steps=2, cell_type_key="ct")
        g = m.generate("STAT1", 2, show_progress=False)
    assert t.error is None and g.n_obs == 300, f"{t.error or g.n_obs}; {time.process_time() - start:.0f} s"
