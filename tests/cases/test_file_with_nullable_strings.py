"""A file written with nullable strings (anndata 0.13 with pandas 3, or `allow_write_nullable_strings`) is
trained on by the command line where anndata is 0.12.

Source: scverse/anndata #2221, #1571; scverse/spatialdata-io #364. Expected: works, or is refused before the training.
"""

import os
import tempfile

import anndata as ad
import pandas as pd
import pytest
from simulated import QUICK, call, screen


@pytest.mark.slow
def test_file_with_nullable_strings():
    d = tempfile.mkdtemp()
    a = screen()
    a.obs["barcode"] = pd.array([f"ACGT{i}" for i in range(a.n_obs)], dtype="string")
    a.obs.index = a.obs.index.astype("string")
    a.var.index = a.var.index.astype("string")
    ad.settings.allow_write_nullable_strings = True
    a.write_h5ad(d + "/s.h5ad")
    ad.settings.allow_write_nullable_strings = False
    r = call("train", d + "/s.h5ad", "--split", "unseen_perturbation", "--model", d + "/m", *QUICK)
    assert r.exit_code == 0 or (not r.traceback and "mask network" not in r.output), (
        f"after the training: {type(r.exception).__name__}, trace: {r.traceback}; model there: {os.path.exists(d + '/m')}"
    )
