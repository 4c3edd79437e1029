"""Controls are `non-targeting_1`, `non-targeting_2`, ...

and one of them is named as control. Source: satijalab/seurat #7222; Katsevich-Lab/sceptre #151. Expected: a warning
that other labels look like controls too (or several controls are taken).
"""

import pytest
from simulated import prep, relabel, screen, targets_of, trial


@pytest.mark.slow
def test_several_nontargeting():
    a = relabel(screen(), lambda i, l: f"non-targeting_{i % 3 + 1}" if l == "control" else l)
    with trial() as t:
        prep(a, control="non-targeting_1")
        kinds = targets_of(a)
    assert t.loud("non-targeting_2") or not any("non-targeting_2" in v for v in kinds.values()), (
        "non-targeting_2 and _3 are trained as perturbations; only INFO lines name them"
    )
