"""`assign_guides` with guides named `STAT1_g1`, `NT_1`, `NT_2` and no table of targets.

Source: satijalab/seurat #7222; sceptre #151. Expected: a warning that there is no control and that labels are guides.
"""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse as sp
from simulated import TARGETS, screen, trial

import unlasting as ul


@pytest.mark.slow
def test_guide_names_with_several_nontargeting():
    a = screen()
    lab = a.obs.perturbation.astype(str).to_numpy()
    names = [f"{t}_g{i}" for t in TARGETS for i in (1, 2)] + ["NT_1", "NT_2", "NT_3"]
    x = np.zeros((a.n_obs, len(names)), np.float32)
    for r, l in enumerate(lab):
        x[r, names.index(f"NT_{1 + r % 3}" if l == "control" else f"{l}_g{1 + r % 2}")] = 40
    b = a.copy()
    del b.obs["perturbation"]
    with trial() as t:
        ul.pp.assign_guides(
            b, ad.AnnData(sp.csr_matrix(x), obs=pd.DataFrame(index=a.obs_names), var=pd.DataFrame(index=names))
        )
    with trial() as u:
        ul.pp.split(b)
    assert t.error is not None or t.loud("control|target_key") or (u.deliberate and u.said("target_key|NT_1")), (
        f"{str(u.error)[:230]}"
    )
