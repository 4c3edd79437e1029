"""GEARS labels `A+ctrl`, `ctrl+A`, with blanks at the ends.

Source: snap-stanford/GEARS #62, #71; chanzuckerberg/cz-benchmarks #182, #184, #185. Expected: the single targets,
whatever the form, and the same form is taken by `generate`.
"""

import numpy as np
import pytest
from simulated import TARGETS, fit, screen, targets_of, trial


@pytest.mark.slow
def test_gears_labels():
    a = screen(control=" ctrl ", write=lambda t: f"{t}+ctrl " if t < "J" else f"ctrl+{t}")
    with trial() as t:
        m = fit(a, test=["IRF1"], control="ctrl", steps=2)
        g, h = (m.generate(x, 20, show_progress=False) for x in ("STAT1+ctrl", "STAT1"))
        kinds = targets_of(a)
    assert t.error is None and kinds == {"gene": sorted(TARGETS)} and np.array_equal(g.X.toarray(), h.X.toarray()), (
        f"{t.error or kinds}"
    )
