"""The perturbed gene is not among the measured genes.

Source: cz-benchmarks #184, #185; bowang-lab/scGPT #298, #36. Expected: it is predicted.
"""

import pytest
from simulated import change, corr, fit, screen, trial


@pytest.mark.slow
def test_target_outside_of_the_panel():
    a = screen()
    with trial() as t:
        m = fit(a, test=["JAK2"], steps=4)
        g = m.generate(["JAK2", "IFNGR1"], 100, show_progress=False)
    c = a[a.obs.perturbation == "control"].X
    r = {
        p: corr(change(g[g.obs.perturbation == p].X, c), change(a[a.obs.perturbation == p].X, c))
        for p in ("JAK2", "IFNGR1")
    }
    assert t.error is None and r["IFNGR1"] > 0.9 and (r["JAK2"] > 0.4), f"{ {k: round(v, 2) for k, v in r.items()} }"
