"""Names with a slash: cell type 'CD14+ Mono/DC', column 'cell type/label', target 'HLA-A/B'.

Source: scverse/anndata (keys with '/'), scvi-tools. Expected: all that is computed can be written and read.
"""

import tempfile

import anndata as ad
import numpy as np
import pytest
from simulated import fit, screen, trial

import unlasting as ul


@pytest.mark.slow
def test_slashes_in_names():
    d = tempfile.mkdtemp()
    a = screen(targets=["STAT1", "IRF1", "MYC", "HLA-A/B", "SPI1"], n=80)
    a.obs["cell type/label"] = np.where(np.arange(a.n_obs) % 2, "CD14+ Mono/DC", "T cells (CD4)")
    with trial() as t:
        m = fit(a, test=["IRF1", "HLA-A/B"], steps=2, cell_type_key="cell type/label")
        m.predict(a, show_progress=False, indices=np.flatnonzero(a.obs.unlasting_split == "test"))
        ul.tl.evaluate(a, n_repeats=2)
        m.save(d + "/m")
        ul.UnlastingModel.load(d + "/m", adata=False)
        g = m.generate(["HLA-A/B"], 20, show_progress=False, cell_type="CD14+ Mono/DC")
        g.write_h5ad(d + "/g.h5ad")
        ad.read_h5ad(d + "/g.h5ad")
    assert t.error is None, str(t.error or "written and read")
