"""A fifth of the predicted values are negative.

Source: GEARS #30. Expected: none.
"""

import numpy as np
import pytest
from simulated import fit, screen, trial


@pytest.mark.slow
def test_negative_predictions():
    a = screen()
    with trial() as t:
        m = fit(a, test=["IRF1"], steps=10)
        m.predict(a, show_progress=False)
        g = m.generate(["STAT1", "IRF1", "MYC+ATF4"], 200, show_progress=False)
    x = g.X.toarray()
    assert (
        t.error is None
        and x.min() >= 0
        and (a.layers["unlasting"].min() >= 0)
        and np.isfinite(x).all()
        and (x == 0).any()
    ), f"smallest {x.min()}"
