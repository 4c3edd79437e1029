"""The screen has cell types, predictions of another tool have no such column.

Source: ArcInstitute/cell-eval (pert column only), GEARS #95 (dummy cell type). Expected: told.
"""

import numpy as np
import pytest
from simulated import fit, screen, trial

import unlasting as ul


@pytest.mark.slow
def test_predictions_without_cell_type():
    a = screen(n=80)
    a.obs["ct"] = np.where(np.arange(a.n_obs) % 2, "B", "T")
    with trial(False):
        m = fit(a, test=["IRF1", "MYC"], steps=2, cell_type_key="ct")
        g = m.generate(["IRF1", "MYC"], 40, show_progress=False)
    del g.obs["ct"]
    with trial() as t:
        ul.tl.evaluate(a, predictions=g, name="p")
    assert t.deliberate and t.said("ct"), str(t.error)[:140]
