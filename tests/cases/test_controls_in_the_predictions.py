"""Changing the control cells inside of the predictions changes the scores.

Source: ArcInstitute/cell-eval #183, #196. Expected: scores do not depend on them.
"""

import anndata as ad
import pytest
from simulated import fit, score, screen, trial

import unlasting as ul


@pytest.mark.slow
def test_controls_in_the_predictions():
    a = screen()
    with trial(False):
        m = fit(a, test=["IRF1", "MYC"], steps=2)
        g = m.generate(["IRF1", "MYC"], 40, show_progress=False)
    c = a[a.obs.perturbation == "control"].copy()
    c.X = c.X * 3
    h = ad.concat([g, c[:, g.var_names].copy()])
    h.obs_names_make_unique()
    s = []
    for x in (g, h):
        with trial() as t:
            ul.tl.evaluate(a, predictions=x, name="p")
            s.append(score(a, "p"))
    assert s[0] == s[1], f"{s}"
