"""A split column holds 'valid' and 'ood', as CPA writes it.

Source: theislab/cpa #32. Expected: told which values are allowed.
"""

import pytest
from simulated import prep, screen, trial


@pytest.mark.slow
def test_split_column_of_another_tool():
    a = screen()
    a.obs["split"] = ["train", "valid", "test", "ood"] * 110
    with trial() as t:
        prep(a, split=None, split_key="split")
    assert t.deliberate and t.said("'ood', 'valid'", "'train', 'val' and 'test'"), str(t.error)[:120]
