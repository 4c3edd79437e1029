"""The dose is part of the label (`aspirin_0.1`, `aspirin_10.0`), there is a SMILES and no dose column.

Source: ArcInstitute/state #184 (drugname_drugconc, "[('DMSO_TF', 0.0, 'uM')]"). Expected: doses are told apart, or a
loud word.
"""

import numpy as np
import pytest
from simulated import TINY, change, drugs, trial

import unlasting as ul


@pytest.mark.slow
def test_dose_within_the_label():
    a = drugs(n=60, doses=(0.1, 10.0))
    a.obs["drug"] = [d if d == "DMSO" else f"{d}_{x}" for d, x in zip(a.obs.drug, a.obs.dose)]
    K = dict(perturbation_key="drug", control="DMSO")
    with trial() as t:
        ul.pp.split(a, "random", **K)
        ul.pp.prepare(a, min_cells=1)
        ul.pp.molecules(a, "smiles")
        ul.pp.grn(a, prior=None)
        ul.UnlastingModel.setup_anndata(a, **K, smiles_key="smiles")
        m = ul.UnlastingModel(a, **TINY)
        m.train(max_steps=4, accelerator="cpu", show_progress=False)
        g = m.generate(["aspirin_0.1", "aspirin_10.0"], 300, show_progress=False)
    c = a[a.obs.drug == "DMSO"].X
    size = lambda cells: float(np.abs(change(cells, c)).mean())
    p, o = ([size(x[(x.obs.drug == l).to_numpy()].X) for l in ("aspirin_0.1", "aspirin_10.0")] for x in (g, a))
    assert t.loud("dose|several names|aspirin") or p[1] / p[0] > 1.3, (
        "both doses are predicted alike; one INFO line about synonyms"
    )
