"""Units of doses, against their powers of ten."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from unlasting.screen import (
    DOSE_UNITS,
    ScreenKeys,
    assumed_unit,
    canonical_unit,
    doubts,
    from_micromolar,
    in_micromolar,
    unit_in,
)

EXPONENT = {"pM": -12, "nM": -9, "uM": -6, "mM": -3, "M": 0}


@pytest.mark.parametrize("unit", DOSE_UNITS)
def test_a_dose_is_converted_there_and_back(unit):
    exponent = EXPONENT[unit.removeprefix("log10 ")]
    for dose in (1e-4, 0.05, 1.0, 330.0):
        amount = dose * 10.0 ** (-6 - exponent)
        value = np.log10(amount) if unit.startswith("log") else amount
        assert in_micromolar(value, unit) == pytest.approx(dose, rel=1e-12)
        assert from_micromolar(dose, unit) == pytest.approx(value, rel=1e-12, abs=1e-12)
    zero = -np.inf if unit.startswith("log") else 0.0
    assert in_micromolar(zero, unit) == 0
    assert from_micromolar(0.0, unit) == zero


@pytest.mark.parametrize(
    ("value", "unit", "dose"),
    [
        ("100nM", "uM", "0.1"),
        ("1 µM", "nM", "1.0"),
        ("2 um", "uM", "2.0"),
        ("100+2", "nM", "0.1+0.002"),
        ("100 nM+2 uM", "uM", "0.1+2.0"),
        ("+500", "nM", "+0.5"),
        ("1+0.5", "uM", "1+0.5"),
        ("1e+3", "nM", "1.0"),
        ("high", "nM", "high"),
        (None, "nM", None),
    ],
)
def test_text_has_its_own_unit(value, unit, dose):
    assert in_micromolar(value, unit) == dose


@pytest.mark.parametrize(
    ("written", "unit"),
    [("µM", "uM"), ("um", "uM"), ("nm", "nM"), ("log10(nM)", "log10 nM"), ("log M", "log10 M"), ("log10", "log10 uM")],
)
def test_a_unit_is_read_as_it_is_written(written, unit):
    assert canonical_unit(written) == unit


def test_an_unknown_unit_is_refused():
    with pytest.raises(ValueError, match="`dose_unit` is 'ug/ml'; choose one of .*Convert other units"):
        canonical_unit("ug/ml")


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("dose", ""),
        ("dose_nM", "nM"),
        ("conc (uM)", "uM"),
        ("log10_dose", "log10 uM"),
        ("dose_log10_M", "log10 M"),
        ("summary", ""),
    ],
)
def test_the_unit_in_a_name(name, unit):
    assert unit_in(name) == unit


@pytest.mark.parametrize(
    ("key", "values", "unit"),
    [
        ("dose", [0.1, 1.0], ""),
        ("dose_nM", [10.0, 100.0], "nM"),
        ("dose", [-2.0, -1.0, 1.0], "log10 uM"),
        ("dose", [-9.0, -6.0], "log10 M"),
        ("dose", [-1.0, 0.1, 1.0], ""),  # one of them is rather an error
        ("dose", [-100.0, -10.0], ""),
    ],
)
def test_a_unit_is_inferred_with_a_reason(key, values, unit):
    found, sentence = assumed_unit(key, values)
    assert found == unit
    assert bool(sentence) == bool(unit)


@pytest.mark.parametrize(
    ("key", "values", "unit", "said"),
    [
        ("dose", [0.1, 10.0], "uM", ""),
        ("dose", [10.0, 10_000.0], "nM", ""),
        ("dose_uM", [0.1, 10.0], "uM", ""),
        ("dose_uM", [10.0, 10_000.0], "nM", "is named after uM"),
        ("dose", [10.0, 10_000.0], "uM", "dose_unit='nM'"),
        ("dose", [1e-7, 1e-5], "uM", "dose_unit='M'"),
        ("dose", [0.1, 1.0], "pM", "dose_unit='uM'"),
        ("dose", ["100nM", "0 uM"], "uM", "have their own unit"),
        ("dose_ug_ml", [1.0], "uM", "molar mass"),
    ],
)
def test_contradictions_are_said(key, values, unit, said):
    found = doubts(key, values, unit)
    assert [said in sentence for sentence in found] == [True] * bool(said)
    assert all(sentence.endswith(".") for sentence in found)


def test_a_unit_is_recorded_and_a_different_one_is_refused():
    obs = pd.DataFrame({"perturbation": ["control", "A"], "dose_nM": [0.0, 500.0]}, index=["c0", "c1"])
    adata = AnnData(np.ones((2, 3), dtype=np.float32), obs=obs)
    keys = ScreenKeys.restart(adata, dose_key="dose_nM")
    assert keys.dose_unit == "nM"
    assert keys.doses(adata).tolist() == ["", "0.5"]
    keys.write(adata)
    assert ScreenKeys.read(adata).assumptions == ()
    assert ScreenKeys.read(adata, dose_unit="nm").dose_unit == "nM"
    with pytest.raises(ValueError, match="`dose_unit` is 'uM', but earlier steps used 'nM'"):
        ScreenKeys.read(adata, dose_unit="uM")
