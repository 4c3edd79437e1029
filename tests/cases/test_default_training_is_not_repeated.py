"""The quick start, run twice, gives other weights: split, initial weights and `generate` have a seed by default,
`train` has none.

Source: theislab/scgen #95. Expected: the same, or a word (the docstring of `train` says `scvi.settings.seed by
default`, which is None).
"""

import numpy as np
import pytest
from simulated import fit, screen, trial


@pytest.mark.slow
def test_default_training_is_not_repeated():
    def once():
        a = screen()
        with trial(False):
            m = fit(a, test=["IRF1"], train=False)
        m.train(max_steps=6, accelerator="cpu", show_progress=False)
        return m.generate(["STAT1", "IRF1"], 40, show_progress=False).X.toarray()

    x, y = (once(), once())
    assert np.array_equal(x, y), f"{(x != y).mean():.0%} of the values differ, at most by {np.abs(x - y).max():.2f}"
