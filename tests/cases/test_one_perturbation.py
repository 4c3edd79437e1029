"""Only one perturbation in the whole screen.

Source: GEARS #19, #56, #71. Expected: says which split works, and that one does.
"""

import pytest
from simulated import change, corr, fit, prep, screen, trial


@pytest.mark.slow
def test_one_perturbation():
    a = screen(targets=["STAT1"], n=80)
    with trial() as t:
        prep(a.copy())
    with trial() as u:
        m = fit(a, split="random", steps=4)
        g = m.generate("STAT1", 50, show_progress=False)
    c, e = (
        a[a.obs.perturbation == "control"].X,
        change(a[a.obs.perturbation == "STAT1"].X, a[a.obs.perturbation == "control"].X),
    )
    assert t.deliberate and t.said("random") and (u.error is None) and (corr(change(g.X, c), e) > 0.9), (
        f"says random; correlation {corr(change(g.X, c), e):.2f}"
    )
