"""A drug screen with doses and no SMILES.

Source: theislab/cpa #16 and its tutorials (names and doses are all it needs). Expected: works, or says how:
`pp.molecules(embedding=...)` by name would do, but the message knows only SMILES or giving up the doses.
"""

import pytest
from simulated import drugs, prep, trial


@pytest.mark.slow
def test_doses_without_smiles():
    a = drugs(smiles=False)
    with trial() as t:
        prep(a, prior=None, perturbation_key="drug", control="DMSO", dose_key="dose")
    assert t.error is None or t.said("embedding|by name|without SMILES"), str(t.error)[:200]
