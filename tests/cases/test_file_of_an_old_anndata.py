"""A file written by anndata 0.6: records instead of frames, categories in `uns`, `h5sparse_format`.

Source: scverse/anndata #331, #384, #621; scPerturb files of 2019. Expected: read.
"""

import os
import tempfile

import h5py
import numpy as np
import pytest
from simulated import QUICK, call, screen


@pytest.mark.slow
def test_file_of_an_old_anndata():
    d = tempfile.mkdtemp()
    a = screen()
    x = a.X.tocsr()
    with h5py.File(d + "/old.h5ad", "w") as f:
        g = f.create_group("X")
        g["data"], g["indices"], g["indptr"] = (x.data, x.indices, x.indptr)
        g.attrs["h5sparse_format"] = "csr"
        g.attrs["h5sparse_shape"] = np.array(x.shape)
        f["obs"] = np.array(
            list(zip([n.encode() for n in a.obs_names], a.obs.perturbation.cat.codes)),
            dtype=[("index", "S20"), ("perturbation", "i1")],
        )
        f["var"] = np.array([(n.encode(),) for n in a.var_names], dtype=[("index", "S20")])
        f["uns/perturbation_categories"] = np.array([c.encode() for c in a.obs.perturbation.cat.categories])
    r = call("train", d + "/old.h5ad", "--split", "unseen_perturbation", "--model", d + "/m", *QUICK)
    assert r.exit_code == 0 and os.path.exists(d + "/m/adata.h5ad"), f"exit {r.exit_code}"
