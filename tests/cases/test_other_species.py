"""A mouse screen (title case) with the default human prior.

Source: GEARS #23 (fly), scvi-tools #412 (upper case). Expected: a warning that the prior is of another species. `C3`
and `F3` are spelt alike in mouse and man.
"""

import pytest
from simulated import prep, screen, trial


@pytest.mark.slow
def test_other_species():
    a = screen(write=str.capitalize)
    a.var_names = [g.capitalize() for g in a.var_names[:-2]] + ["C3", "F3"]
    with trial() as t:
        prep(a)
    assert t.loud("prior", "species|none of the genes"), "not warned"
