"""A beginner sets all cells to control, and asks for in-silico knock-outs.

Source: GEARS #53, #74; bowang-lab/scGPT #219. Expected: told that perturbed cells are needed. The advice must not
lead into the next error.
"""

import pytest
from simulated import prep, screen, trial


@pytest.mark.slow
def test_only_controls():
    a = screen(targets=[])
    with trial() as t:
        prep(a)
    with trial() as u:
        prep(screen(targets=[]), split="random")
    with trial() as v:
        prep(screen(targets=[]), split=None)
    assert (
        t.deliberate
        and u.deliberate
        and v.deliberate
        and v.said("nothing to learn from")
        and (not t.said("use `kind='random'`"))
    ), "`pp.split` advises `kind='random'` (and lower fractions), which cannot help"
