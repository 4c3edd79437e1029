"""Genes of predictions or new cells are in another order, or there are more.

Source: scverse/scvi-tools #849, #458, #2335; cz-benchmarks #288; theislab/scarches #22. Expected: same scores; cells
are brought into order or refused.
"""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from simulated import GENES, fit, score, screen, trial

import unlasting as ul


@pytest.mark.slow
def test_gene_order():
    a = screen()
    raw = a.copy()
    back = list(reversed(GENES))
    with trial(False):
        m = fit(a, test=["IRF1", "MYC"], steps=2)
        g = m.generate(["IRF1", "MYC"], 40, show_progress=False)
    s = []
    for x in (
        g,
        g[:, back].copy(),
        ad.AnnData(
            np.c_[g.X.toarray(), np.ones((g.n_obs, 1))],
            obs=g.obs.copy(),
            var=pd.DataFrame(index=[*g.var_names, "EXTRA"]),
        ),
    ):
        with trial(False):
            ul.tl.evaluate(a, predictions=x, name="p")
            s.append(score(a, "p"))
    c = a[a.obs.perturbation == "control"].copy()[:20].copy()
    with trial() as t:
        m.predict(c[:, back].copy(), "STAT1", show_progress=False)
    r = raw[raw.obs.perturbation == "control"].copy()[:20, back].copy()
    m.prepare(r)
    m.predict(r, "STAT1", show_progress=False)
    m.predict(c, "STAT1", show_progress=False)
    same = np.allclose(r.layers["unlasting"].toarray(), c.layers["unlasting"].toarray(), atol=1e-05)
    assert len(set(s)) == 1 and t.deliberate and t.said("get_var_names") and same, f"{s}, {same}"
