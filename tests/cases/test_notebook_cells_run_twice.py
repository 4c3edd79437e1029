"""Cells of a notebook are run a second time, or in another order.

Source: general; pertpy-tutorials #21. Expected: told; no silent leak.
"""

import pytest
from simulated import prep, screen, trial

import unlasting as ul


@pytest.mark.slow
def test_notebook_cells_run_twice():
    a = screen()
    prep(a)
    with trial() as t:
        ul.pp.prepare(a)
    with trial() as u:
        ul.pp.split(a, seed=1)
        ul.UnlastingModel.setup_anndata(a)
    with trial() as v:
        b = screen()
        prep(b)
        b = b[b.obs.perturbation != "SPI1"].copy()
        ul.UnlastingModel.setup_anndata(b)
    assert t.deliberate and u.deliberate and v.deliberate and t.said("counts") and u.said("changed since"), str(
        t.error
    )[-110:]
