"""Controls were sequenced in one batch only.

Source: ArcInstitute/state, cell-load (batch_col); thomasmaxwellnorman/Perturbseq_GI #3. Expected: refused with what
to do, or taken.
"""

import pytest
from simulated import prep, screen, trial


@pytest.mark.slow
def test_controls_in_one_batch():
    a = screen()
    a.obs["batch"] = [f"b{i % 3}" for i in range(a.n_obs)]
    a.obs.loc[a.obs.perturbation == "control", "batch"] = "b0"
    with trial() as t:
        prep(a, batch_key="batch")
    assert t.error is None or (t.deliberate and t.said("no control cells", "without this key")), str(t.error)[:140]
