"""A GPU is asked for where there is none.

Source: pertpy-tutorials #21 (cuda failed to initialize), GEARS device='cuda'. Expected: one line on the command line;
the CPU is taken by default.
"""

import tempfile

import pytest
from simulated import call, screen


@pytest.mark.slow
def test_no_gpu():
    d = tempfile.mkdtemp()
    screen().write_h5ad(d + "/s.h5ad")
    r = call(
        "train",
        d + "/s.h5ad",
        "--split",
        "unseen_perturbation",
        "--model",
        d + "/m",
        "--max-steps",
        "2",
        "--accelerator",
        "gpu",
    )
    assert r.exit_code in (1, 2) and (not r.traceback) and ("gpu" in r.output), "one line"
