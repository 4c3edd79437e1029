"""A target is asked for by its old name (VEGFR3 is FLT4 now) or misspelt (FOX1A).

Source: GEARS #77, #13. Expected: refused with a helpful message; at best the present symbol.
"""

import pytest
from simulated import TARGETS, fit, screen, trial


@pytest.mark.slow
def test_outdated_or_misspelt_target():
    a = screen(targets=[*TARGETS, "FLT4"])
    with trial(False):
        m = fit(a, test=["IRF1"], steps=2)
    with trial() as t:
        m.generate("VEGFR3", 5, show_progress=False)
    with trial() as u:
        m.generate("FOX1A", 5, show_progress=False)
    assert (t.error is None or t.deliberate) and t.said("FLT4"), str(t.error)[:190]
    assert u.deliberate and u.said("FOXA1"), str(u.error)[:170]
