"""`unseen_perturbation` holds out MYC while cells of MYC+SPI1 are trained on: is it unseen? Source: theislab/cpa
#32 (is the split right?), GEARS 'simulation' split (unseen_single), GEARS #71.

Expected: the log or report says which held-out targets are in training within combinations.
"""

import pytest
from simulated import screen, trial

import unlasting as ul


@pytest.mark.slow
def test_single_held_out_its_pair_trained():
    a = screen(combos=[("MYC", "SPI1"), ("STAT1", "CD86")], write=lambda t: t if isinstance(t, str) else "+".join(t))
    with trial() as t:
        ul.pp.split(a, "unseen_perturbation", test=["MYC"])
    report = {k: v for k, v in a.uns["unlasting"]["split"].items() if "MYC" in str(v)}
    part = a.obs.groupby("perturbation", observed=True).unlasting_split.first()
    assert part["MYC+SPI1"] != "train" or t.said("MYC\\+SPI1") or "MYC+SPI1" in str(report), (
        "MYC is test, MYC+SPI1 is train, and nothing says so (only the docstring of `pp.split` does)"
    )
