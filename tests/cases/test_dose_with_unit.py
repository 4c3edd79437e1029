"""Doses are text with a unit: '1 uM', '100nM'.

Source: sci-Plex / Tahoe metadata as in ArcInstitute/state #184; sanderlab/CellBox #57. Expected: read, or refused
with what is expected.
"""

import pytest
from simulated import drugs, prep, trial


@pytest.mark.slow
def test_dose_with_unit():
    K = dict(perturbation_key="drug", control="DMSO", dose_key="dose", smiles_key="smiles")
    with trial() as t:
        prep(drugs(lambda x: f"{x} uM", cdose="0 uM"), molecules={}, **K)
    with trial() as u:
        prep(drugs(lambda x: f"{x * 1000:g}nM", cdose="0nM"), molecules={}, **K)
    assert all(x.error is None or (x.deliberate and x.said("no number of uM")) for x in (t, u)), str(t.error)[:100]
