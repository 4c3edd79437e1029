"""New cells lack some genes of the model (1,700 of 2,000).

Source: ArcInstitute/state #164; scverse/scvi-tools #849, #2335. Expected: refused with what can be done (zeros? train
on the genes in common with `genes=`?), or taken.
"""

import pytest
from simulated import GENES, fit, screen, trial


@pytest.mark.slow
def test_genes_missing_in_new_cells():
    a = screen()
    raw = a.copy()
    with trial(False):
        m = fit(a, test=["IRF1"], steps=2)
    b = raw[raw.obs.perturbation == "control"].copy()[:20, GENES[5:]].copy()
    with trial() as t:
        m.prepare(b)
    assert t.error is None or t.said("zero|in common|train|intersect|both"), str(t.error)
