"""New controls are of 'b cell' where the model knows 'B'.

Source: scverse/pertpy-tutorials #21, #26 (cell types renamed), theislab/scgen. Expected: a note that the cell type is
new to the model.
"""

import numpy as np
import pytest
from simulated import fit, screen, trial


@pytest.mark.slow
def test_new_cells_name_the_cell_type_otherwise():
    a = screen()
    a.obs["ct"] = np.where(np.arange(a.n_obs) % 2, "B", "T")
    raw = a.copy()
    with trial(False):
        m = fit(a, test=["IRF1"], steps=2, cell_type_key="ct")
    b = raw[(raw.obs.perturbation == "control") & (raw.obs.ct == "B")].copy()
    b.obs["ct"] = "b cell"
    with trial() as t:
        m.prepare(b)
        g = m.generate("STAT1", 10, controls=b, show_progress=False)
        m.predict(b, "STAT1", show_progress=False)
    assert t.error is not None and t.deliberate or t.said("b cell"), "no word that 'b cell' was never trained"
