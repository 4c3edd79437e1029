"""Generated cells go to Seurat.

Source: scverse/anndata #2221, scverse/anndataR #463 (nullable strings cannot be read), satijalab. Expected: only
encodings that R readers know.
"""

import tempfile

import h5py
import pytest
from simulated import QUICK, call, screen


@pytest.mark.slow
def test_export_to_r():
    d = tempfile.mkdtemp()
    screen().write_h5ad(d + "/s.h5ad")
    call("train", d + "/s.h5ad", "--split", "unseen_perturbation", "--model", d + "/m", *QUICK)
    call("predict", "--model", d + "/m", "-p", "STAT1", "-p", "control", "--n-cells", 5, "-o", d + "/y.h5ad")
    kinds = set()
    with h5py.File(d + "/y.h5ad") as f:
        f.visititems(lambda n, o: kinds.add(str(o.attrs.get("encoding-type"))))
    assert kinds <= {
        "anndata",
        "csr_matrix",
        "dataframe",
        "categorical",
        "array",
        "string-array",
        "string",
        "dict",
        "numeric-scalar",
        "null",
        "None",
    }, str(kinds)
