"""Doses are log10.

Source: pertpy-tutorials #74, CPA dose scalings. Expected: refused, or read as log10 and said.
"""

import numpy as np
import pytest
from simulated import drugs, prep, trial


@pytest.mark.slow
def test_dose_log10():
    with trial() as t:
        prep(
            drugs(np.log10, cdose=np.nan),
            molecules={},
            perturbation_key="drug",
            control="DMSO",
            dose_key="dose",
            smiles_key="smiles",
        )
    assert t.deliberate and t.said("log10|negative|from 0 on") or t.loud("log10"), str(t.error)[:100]
