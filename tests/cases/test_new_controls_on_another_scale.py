"""New control cells are normalised to 10,000 (the habit), the model was trained on cells that `pp.prepare`
scaled to the median.

Source: ArcInstitute/state #164 (is total count normalisation required before `infer`?), Teichlab/celltypist #24, #83.
Expected: refused or warned of (the model knows its `target_sum`), or right.
"""

import numpy as np
import pytest
import scanpy as sc
from simulated import change, corr, fit, screen, trial


@pytest.mark.slow
def test_new_controls_on_another_scale():
    bad = []
    for n_top in (60, 40):
        a = screen()
        raw = a.copy()
        with trial(False):
            m = fit(a, test=["IRF1"], steps=4, prepare_args={"n_top_genes": n_top})
        right = raw[raw.obs.perturbation == "control"].copy()[:60].copy()
        new = right.copy()
        m.prepare(right)
        sc.pp.normalize_total(new, target_sum=10000.0)
        sc.pp.log1p(new)
        new = new[:, m.get_var_names()].copy()
        truth = change(a[a.obs.perturbation == "STAT1"].X, a[a.obs.perturbation == "control"].X)
        with trial() as t:
            m.predict(new, "STAT1", show_progress=False)
        m.predict(right, "STAT1", show_progress=False)
        q = change(right.layers["unlasting"], right.X)
        if t.error is not None and t.deliberate or t.loud("scale|normalis|target_sum|total"):
            continue
        p = change(new.layers["unlasting"], new.X)
        if corr(p, truth) < 0.95 or not 0.6 < np.abs(p).mean() / np.abs(truth).mean() < 1.3:
            bad.append((a.n_vars, round(corr(p, truth), 2), round(np.abs(p).mean() / np.abs(truth).mean(), 1)))
    assert not bad, f"silently wrong (genes, correlation with the truth, size of the change over truth): {bad}"
