"""Genes and labels are Ensembl ids with a version.

Source: scGPT #346, GEARS #45. Expected: a warning that the prior does not know them.
"""

import pytest
from simulated import GENES, TARGETS, prep, screen, trial


@pytest.mark.slow
def test_ensembl_with_version():
    ids = {g: f"ENSG{100000 + i:011d}.{i % 9 + 1}" for i, g in enumerate(GENES)}
    a = screen(targets=[t for t in TARGETS if t in GENES], write=ids.get)
    a.var_names = [ids[g] for g in a.var_names]
    with trial() as t:
        prep(a)
    assert t.error is None and t.loud("prior knows none of the genes"), "not warned"
