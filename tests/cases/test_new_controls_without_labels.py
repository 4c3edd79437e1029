"""New, unlabelled cells are to be perturbed.

Source: theislab/cpa #39; ArcInstitute/state #164 (infer on own data). Expected: taken as controls, or told to write
the control label into the column.
"""

import pytest
from simulated import fit, screen, trial

import unlasting as ul


@pytest.mark.slow
def test_new_controls_without_labels():
    a = screen(key="target", control="NT")
    raw = a.copy()
    with trial(False):
        m = fit(a, test=["IRF1"], steps=2, perturbation_key="target", control="NT")
    b = raw[raw.obs.target == "NT"].copy()[:20].copy()
    del b.obs["target"]
    with trial() as t:
        m.prepare(b)
        m.generate("STAT1", 5, controls=b, show_progress=False)
    c = ul.datasets.simulate_screen(n_cells=20, n_controls=60, n_genes=30, seed=0)
    raw = c.copy()
    with trial(False):
        n = fit(c, prior=None, steps=2)
    d = raw[raw.obs.perturbation == "control"].copy()[:10].copy()
    del d.obs["perturbation"]
    with trial() as u:
        n.prepare(d)
        n.generate("T1", 5, controls=d, show_progress=False)
    bad = [
        str(x.error)[-140:]
        for x in (t, u)
        if x.error is not None and (not x.said("label.{0,40}(NT|control)|(NT|control).{0,40}label|obs\\[.{0,20}\\] = "))
    ]
    assert not bad, f"ends with: ...{bad[-1]}"
