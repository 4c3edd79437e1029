"""Categories without cells after subsetting.

Source: GEARS #26 (IndexError), anndata categorical issues. Expected: ignored.
"""

import pytest
from simulated import fit, screen, targets_of, trial


@pytest.mark.slow
def test_unused_categories():
    a = screen()
    a = a[a.obs.perturbation != "MYC"].copy()
    a.obs["perturbation"] = a.obs.perturbation.cat.add_categories(["MYC", "FOO"])
    with trial() as t:
        m = fit(a, test=["IRF1"], steps=2)
        kinds = targets_of(a)
    assert t.error is None and "MYC" not in kinds["gene"] and ("FOO" not in str(kinds)), f"{t.error or kinds}"
