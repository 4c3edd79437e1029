"""The perturbation column holds integers.

Source: sanderlab/scPerturb #23 ('0' to '3368'). Expected: works, or says how the control has to be named.
"""

import pytest
from simulated import TARGETS, prep, screen, trial


@pytest.mark.slow
def test_labels_are_integers():
    a = screen(write=lambda t: str(TARGETS.index(t) + 1), control="0")
    a.obs["perturbation"] = a.obs.perturbation.astype(str).astype(int)
    with trial() as t:
        prep(a, control=0)
    with trial() as u:
        prep(a, control="0")
    assert (t.error is None or (t.deliberate and t.said("Did you mean '0'"))) and u.error is None, (
        "says '0', and takes it"
    )
