"""Dual guides against one gene are labelled `STAT1+STAT1`.

Source: Replogle 2022 labels (pertpy #916), GEARS format. Expected: read as STAT1 or refused with what to write.
"""

import pytest
from simulated import prep, screen, trial


@pytest.mark.slow
def test_same_gene_twice():
    a = screen(write=lambda t: f"{t}+{t}")
    with trial() as t:
        prep(a)
    assert t.error is None or (t.deliberate and t.said("repeats a target", "once")), str(t.error)[:140]
