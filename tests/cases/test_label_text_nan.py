"""Cells without a label carry the text 'nan' (after `astype(str)`).

Source: scverse/pertpy #916 (1,527 cells named 'nan'). Expected: refused or warned of like a missing label.
"""

import pytest
from simulated import prep, relabel, screen, targets_of, trial


@pytest.mark.slow
def test_label_text_nan():
    a = relabel(screen(), lambda i, l: "nan" if i >= 400 else l)
    with trial() as t:
        prep(a)
        kinds = targets_of(a)
    assert t.error is not None and t.deliberate or t.loud("'?nan'?"), f"'nan' is a perturbation: {kinds}"
