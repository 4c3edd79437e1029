"""Seeded predictions equal the stored ones: a change of names and places changes no number.

Remove this test, and `tests/stored_predictions`, when the effects model changes on purpose.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent / "stored_predictions"
SPEC = importlib.util.spec_from_file_location("stored_predictions", FOLDER / "screens.py")
assert SPEC is not None
assert SPEC.loader is not None
screens = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(screens)

CASES = [(screen, preset) for screen in screens.SCREENS for preset in screens.PRESETS[screen]]


@pytest.mark.parametrize(("screen", "preset"), CASES, ids=["-".join(case) for case in CASES])
@pytest.mark.slow
def test_predictions_are_the_stored_ones(screen, preset):
    found, stored = screens.numbers(screen, preset), np.load(FOLDER / f"{screen}_{preset}.npz")
    assert set(found) == set(stored)
    for name in stored.files:
        if name == "cells":
            differs = ~np.isclose(found[name], stored[name], atol=1e-4)
            assert differs.mean() <= 1e-3, f"{differs.mean():.2%} of the generated entries differ"
        else:
            tolerance = 1e-4 if name == "unrounded_cells" else 1e-6
            np.testing.assert_allclose(found[name], stored[name], atol=tolerance, rtol=tolerance, err_msg=name)
