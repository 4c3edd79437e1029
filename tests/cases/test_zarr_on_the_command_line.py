"""The screen is a zarr store (v2 or v3).

Source: scverse/anndata zarr issues; ArcInstitute/state (large screens). Expected: read, or told how.
"""

import tempfile

import pytest
from simulated import QUICK, call, screen


@pytest.mark.slow
def test_zarr_on_the_command_line():
    d = tempfile.mkdtemp()
    screen().write_zarr(d + "/s.zarr")
    r = call("train", d + "/s.zarr", "--split", "unseen_perturbation", "--model", d + "/m", *QUICK)
    assert r.exit_code == 0 or "h5ad" in r.output, "not read, and h5ad is not named as what is expected"
