"""A screen that stays on disk is trained on, and carried to other perturbations, like one in memory."""

from __future__ import annotations

import anndata
import numpy as np
import pytest

from unlasting import pp

QUIET = {"show_progress": False}


def test_a_backed_screen_is_like_one_in_memory(build, screen, tmp_path):
    screen().write_h5ad(tmp_path / "screen.h5ad")
    backed = anndata.read_h5ad(tmp_path / "screen.h5ad", backed="r")
    one, other = build(backed, train=4), build(screen(), train=4)
    assert one.adata.isbacked
    for name, value in other.module.statistics.state_dict().items():
        np.testing.assert_allclose(one.module.statistics.state_dict()[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    new = one.generate("G3", 5, **QUIET)
    assert list(new.obs["unlasting_source"]) == list(other.generate("G3", 5, **QUIET).obs["unlasting_source"])
    one.predict(**QUIET)
    assert backed.layers["unlasting"].shape == backed.shape
    assert backed.isbacked


def test_raw_counts_on_disk_are_refused_with_the_way_out(screen, tmp_path):
    adata = screen()
    adata.X = np.ceil(adata.X.toarray())
    adata.write_h5ad(tmp_path / "counts.h5ad")
    backed = anndata.read_h5ad(tmp_path / "counts.h5ad", backed="r")
    with pytest.raises(ValueError, match=r"backed by a file.*to_memory"):
        pp.prepare(backed)
