"""DE genes of generated cells by scanpy: which control, which scale? Source: ArcInstitute/state #158;
scverse/scanpy #1454.

Expected: controls can be generated beside, `rank_genes_groups` works, and finds the genes that change.
"""

import numpy as np
import pytest
import scanpy as sc
from simulated import GENES, change, fit, screen, trial


@pytest.mark.slow
def test_differential_genes_of_generated_cells():
    a = screen()
    with trial() as t:
        m = fit(a, test=["IRF1"], steps=4)
        g = m.generate(["control", "STAT1"], 150, show_progress=False)
        sc.tl.rank_genes_groups(g, "perturbation", reference="control", method="wilcoxon")
        d = sc.get.rank_genes_groups_df(g, "STAT1")
    e = dict(zip(GENES, change(a[a.obs.perturbation == "STAT1"].X, a[a.obs.perturbation == "control"].X)))
    top = d[d.pvals_adj < 0.001]
    right = np.mean([np.sign(e[n]) == np.sign(l) for n, l in zip(top.names, top.logfoldchanges)])
    assert t.error is None and len(top) >= 6 and (right > 0.9), (
        f"{t.error or ''}{len(top)} significant, {right:.0%} as in truth"
    )
