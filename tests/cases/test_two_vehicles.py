"""Vehicle cells are 'DMSO' and 'Vehicle'.

Source: ArcInstitute/state #158 (DMSO_TF 0 uM), jump-cellpainting/datasets #96 (which controls). Expected: told that
'Vehicle' is neither drug nor control.
"""

import pytest
from simulated import drugs, prep, relabel, trial


@pytest.mark.slow
def test_two_vehicles():
    a = relabel(drugs(), lambda i, l: "Vehicle" if 60 <= i < 120 else l, key="drug")
    with trial() as t:
        prep(a, molecules={}, perturbation_key="drug", control="DMSO", dose_key="dose", smiles_key="smiles")
    assert t.deliberate and t.said("Vehicle") or t.loud("Vehicle"), str(t.error)[:200]
