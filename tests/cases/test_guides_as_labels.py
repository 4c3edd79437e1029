"""Labels are guides (`STAT1_g1`, `STAT1_g2`), so a split by label puts two guides of one gene on both sides.

Source: GEARS #62 (Adamson guide names), seurat #7222 (guide ids). Expected: `pp.split` keeps guides of one gene
together, or warns. With `prior=None` nothing is said at all.
"""

import pytest
from simulated import prep, relabel, screen, trial


@pytest.mark.slow
def test_guides_as_labels():
    a = relabel(screen(), lambda i, l: l if l == "control" else f"{l}_g{i % 2 + 1}")
    with trial() as t:
        prep(a, prior=None)
    part = lambda p: {l.split("_g")[0] for l in a.obs.perturbation[a.obs.unlasting_split == p] if l != "control"}
    leak = sorted(part("test") & part("train"))
    assert not leak or t.loud("guide|same gene|suffix"), f"genes on both sides of the split: {leak}"
