"""No cell is labelled as control.

Source: sanderlab/scPerturb #23 (JoungZhang2023 controls not identified). Expected: a clear message.
"""

import pytest
from simulated import prep, screen, trial


@pytest.mark.slow
def test_no_controls():
    a = screen()
    a = a[a.obs.perturbation != "control"].copy()
    with trial() as t:
        prep(a)
    assert t.deliberate and t.said("No cell", "control", "most frequent"), str(t.error)[:120]
