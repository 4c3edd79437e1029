"""`var_names` are not unique.

Source: scverse/anndata (many), scGen. Expected: refused with the call that helps.
"""

import pytest
from simulated import prep, screen, trial


@pytest.mark.slow
def test_repeated_gene_names():
    a = screen()
    a.var_names = [*a.var_names[:-1], "ACTB"]
    with trial() as t:
        prep(a)
    assert t.deliberate and t.said("var_names_make_unique"), str(t.error)[:100]
