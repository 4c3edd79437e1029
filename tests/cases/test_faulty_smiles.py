"""'restricted', '-', two SMILES with a comma, two enantiomers under one name, a salt beside its base.

Source: jump-cellpainting/JUMP-Target #9, datasets #131; chemCPA #165. Expected: faults are named; the salt is the
same drug.
"""

import numpy as np
import pytest
from simulated import drugs, prep, trial


@pytest.mark.slow
def test_faulty_smiles():
    K = dict(perturbation_key="drug", control="DMSO", dose_key="dose", smiles_key="smiles")

    def changed(**new):
        a = drugs()
        a.obs["smiles"] = [new.get(d, s) for d, s in zip(a.obs.drug, a.obs.smiles)]
        return a

    with trial() as t:
        prep(changed(phenol="restricted", toluene="-", naproxen="CCO, CCN"), molecules={}, **K)
    a = drugs()
    s = a.obs.smiles.to_numpy(copy=True)
    i = np.flatnonzero(a.obs.drug == "ibuprofen")
    s[i] = "CC(C)Cc1ccc(cc1)[C@H](C)C(=O)O"
    s[i[:20]] = "CC(C)Cc1ccc(cc1)[C@@H](C)C(=O)O"
    a.obs["smiles"] = s
    with trial() as u:
        prep(a, molecules={}, **K)
    b = drugs()
    s = b.obs.smiles.to_numpy(copy=True)
    s[-5:] = "Cc1ccccc1.Cl"
    b.obs["smiles"] = s
    with trial() as v:
        prep(b, molecules={}, **K)
    assert (
        t.deliberate
        and t.said("restricted", "'-'", "CCO, CCN")
        and (u.error is None and u.loud("ibuprofen") or (u.deliberate and u.said("ibuprofen", "smiles=")))
        and (v.error is None)
    ), "all named; the salt is the base"
