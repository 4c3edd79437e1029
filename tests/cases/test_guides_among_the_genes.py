"""Guides are features of the expression matrix (Cell Ranger with `gex_only=False`; `var['feature_types']` says
so).

Source: 10x Genomics, page on CRISPR feature barcodes; scverse/pertpy guide assignment. Expected: a warning: the
guides tell the label, count as library and are generated as genes.
"""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse as sp
from simulated import GENES, TARGETS, prep, screen, trial


@pytest.mark.slow
def test_guides_among_the_genes():
    a = screen()
    lab = a.obs.perturbation.astype(str).to_numpy()
    names = [f"{t}_g{i}" for t in TARGETS for i in (1, 2)] + ["NT_g1", "NT_g2"]
    x = np.random.default_rng(0).poisson(0.3, (a.n_obs, len(names)))
    for r, l in enumerate(lab):
        x[r, names.index(f"{('NT' if l == 'control' else l)}_g{1 + r % 2}")] += 40
    b = ad.AnnData(
        sp.csr_matrix(np.c_[a.X.toarray(), x].astype(np.float32)),
        obs=a.obs.copy(),
        var=pd.DataFrame(
            {"feature_types": ["Gene Expression"] * 60 + ["CRISPR Guide Capture"] * len(names)}, index=[*GENES, *names]
        ),
    )
    with trial() as t:
        prep(b)
    left = [v for v in b.var_names if v in names]
    assert t.error is not None and t.deliberate or t.loud("feature_types|guide") or (not left), (
        f"{len(left)} guides are modelled as genes, and are part of the library size"
    )
