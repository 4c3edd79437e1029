"""Predictions of another tool are on another scale (10,000, or not logged).

Source: ArcInstitute/cell-eval #198, #204. Expected: a warning that the totals differ from those of the screen.
"""

import numpy as np
import pytest
from simulated import fit, score, screen, trial

import unlasting as ul


@pytest.mark.slow
def test_predictions_on_another_scale():
    a = screen()
    with trial(False):
        m = fit(a, test=["IRF1", "MYC"], steps=2)
        g = m.generate(["IRF1", "MYC"], 40, show_progress=False)
    total = a.uns["unlasting"]["prepare"]["target_sum"]
    found = {}
    for name, f in {
        "right": lambda x: x,
        "1e4": lambda x: np.log1p(np.expm1(x) / total * 10000.0),
        "not logged": np.expm1,
    }.items():
        h = g.copy()
        h.X = f(h.X.toarray())
        with trial(False) as t:
            ul.tl.evaluate(a, predictions=h, name="p")
        found[name] = (
            None if t.error else round(score(a, "p"), 2),
            t.error is not None or t.loud("scale|normalis|total|logged"),
        )
    assert found["1e4"][1] and found["not logged"][1] and (not found["right"][1]), f"(score, told): {found}"
