"""New control cells are counts per million, not logged.

Source: ArcInstitute/cell-eval #198, #204 (guessing of log scale), ArcInstitute/state #164. Expected: refused: these
are no log-normalised values.
"""

import numpy as np
import pytest
import scanpy as sc
from simulated import fit, screen, trial


@pytest.mark.slow
def test_new_controls_not_logged():
    a = screen()
    raw = a.copy()
    with trial(False):
        m = fit(a, test=["IRF1"], steps=4)
    new = raw[raw.obs.perturbation == "control"][:40].copy()
    sc.pp.normalize_total(new, target_sum=1000000.0)
    with trial() as t:
        g = m.generate("STAT1", 40, controls=new, show_progress=False)
    bad = -1 if t.error else int((~np.isfinite(g.X.toarray())).sum())
    assert t.error is not None and t.deliberate, (
        f"{bad} of {g.X.shape[0] * g.X.shape[1]} generated values are NaN or infinite; no message of the package"
    )
