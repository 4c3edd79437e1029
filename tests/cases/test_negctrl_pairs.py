"""Dual-guide labels with a named negative guide: `A_NegCtrl0`, control `NegCtrl0_NegCtrl0`.

Source: Norman 2019 raw labels as in scPerturb / pertpy; GEARS #28. Expected: `A_NegCtrl0` is A alone, or something is
said loudly.
"""

import pytest
from simulated import prep, screen, targets_of, trial


@pytest.mark.slow
def test_negctrl_pairs():
    a = screen(
        control="NegCtrl0_NegCtrl0",
        combos=[("MYC", "SPI1")],
        write=lambda t: f"{t}_NegCtrl0" if isinstance(t, str) else "_".join(t),
    )
    with trial() as t:
        prep(a, control="NegCtrl0_NegCtrl0", delimiter="_")
        kinds = targets_of(a)
    assert (
        t.error is not None and t.deliberate or t.loud("NegCtrl0") or (not any("NegCtrl0" in v for v in kinds.values()))
    ), f"{t.error or kinds}"
