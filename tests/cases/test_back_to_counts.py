"""Predictions have to become counts for another tool.

Source: ArcInstitute/state #263; Lotfollahi-lab/Perturbgen #49. Expected: counts, or all that is needed: the total
that cells were scaled to.
"""

import pytest
from simulated import fit, screen, trial


@pytest.mark.slow
def test_back_to_counts():
    a = screen()
    with trial(False):
        m = fit(a, test=["IRF1"], steps=2)
        g = m.generate("STAT1", 5, show_progress=False)
    said = str(g.uns)
    has = "counts" in g.layers or "target_sum" in said
    assert has, "neither counts nor target_sum in the generated AnnData"
