"""Some cells have no cell type (NaN after a merge of annotations).

Source: anndata #1146/#384 (NaN in categories), scvi-tools category handling. Expected: refused or warned of, as
missing perturbation labels are.
"""

import numpy as np
import pytest
from simulated import fit, screen, trial


@pytest.mark.slow
def test_cell_type_missing():
    a = screen()
    a.obs["cell_type"] = np.where(np.arange(a.n_obs) % 2, "B", "T")
    a.obs.loc[a.obs.index[::7], "cell_type"] = np.nan
    with trial() as t:
        m = fit(a, test=["IRF1"], steps=2, cell_type_key="cell_type")
        g = m.generate("STAT1", 5, show_progress=False)
    assert t.error is not None and t.deliberate or t.loud("cell.?type|missing"), (
        "cells without a cell type are a cell type 'None'"
    )
