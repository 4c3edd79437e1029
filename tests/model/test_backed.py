"""A screen that stays on disk is trained on, and carried to other perturbations, like one in memory."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pytest
import zarr
from anndata.io import read_elem, sparse_dataset

from unlasting import datasets, pp

QUIET = {"show_progress": False}
pytestmark = pytest.mark.slow


def test_a_backed_screen_is_like_one_in_memory(build, screen, tmp_path):
    screen().write_h5ad(tmp_path / "screen.h5ad")
    backed = anndata.read_h5ad(tmp_path / "screen.h5ad", backed="r")
    one, other = build(backed, train=4), build(screen(), train=4)
    assert one.adata.isbacked
    for name, value in vars(other.effects_model.statistics).items():
        np.testing.assert_allclose(
            getattr(one.effects_model.statistics, name), value, rtol=1e-5, atol=1e-6, err_msg=name
        )
    new = one.generate("G3", 5, **QUIET)
    assert list(new.obs["unlasting_source"]) == list(other.generate("G3", 5, **QUIET).obs["unlasting_source"])
    one.predict(**QUIET)
    assert backed.layers["unlasting"].shape == backed.shape
    assert backed.isbacked


def in_zarr(adata: anndata.AnnData, folder: Path) -> anndata.AnnData:
    """Put values on disk and keep tables in memory, as the guide opens it."""
    adata.write_zarr(folder)
    group = zarr.open(folder, mode="r")
    tables = {name: read_elem(group[name]) for name in ("obs", "var", "uns", "varm")}
    return anndata.AnnData(sparse_dataset(group["X"]), **tables)


def test_what_needs_cells_in_memory_says_so_of_zarr_too(build, screen, tmp_path):
    on_disk = in_zarr(screen(n_cells=100), tmp_path / "screen.zarr")
    for step in (pp.prepare, pp.grn):
        with pytest.raises(ValueError, match=r"backed by a file.*to_memory"):
            step(on_disk)
    model = build(on_disk, train=1)
    with pytest.raises(ValueError, match=r"`copy=True` needs cells in memory.*`path=`"):
        model.predict(copy=True, **QUIET)


def test_counts_on_disk_are_prepared_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("unlasting.pp._prepare._BLOCK", 37)
    raw = datasets.simulate_screen(n_cells=300, n_genes=90, seed=0)
    pp.split(raw, "random")
    raw.write_h5ad(tmp_path / "raw.h5ad")
    opened = anndata.read_h5ad(tmp_path / "raw.h5ad", backed="r"), in_zarr(raw, tmp_path / "raw.zarr")
    for options in ({"n_top_genes": 30}, {"genes": list(raw.var_names[5:9]), "target_sum": 100.0}):
        expected = pp.prepare(raw, copy=True, **options)
        for on_disk in opened:
            found = pp.prepare(on_disk, copy=True, **options)
            assert not found.isbacked
            assert list(found.var_names) == list(expected.var_names)
            np.testing.assert_array_equal(found.X.toarray(), expected.X.toarray())
            np.testing.assert_array_equal(found.layers["counts"].toarray(), expected.layers["counts"].toarray())
            assert found.uns["unlasting"]["prepare"] == expected.uns["unlasting"]["prepare"]
            assert on_disk.shape == raw.shape


def test_a_screen_in_zarr_is_trained_on_and_predicted_as_in_memory(build, screen, tmp_path):
    on_disk = in_zarr(screen(), tmp_path / "screen.zarr")
    one, other = build(on_disk, train=4), build(screen(), train=4)
    assert "CSRDataset" in type(one.adata.X).__name__
    file = tmp_path / "predicted.h5ad"
    told = one.predict(indices=range(30), seed=1, path=file, **QUIET).to_memory().X
    expected = other.predict(indices=range(30), seed=1, copy=True, **QUIET).layers["unlasting"][:30]
    np.testing.assert_allclose(told.toarray(), expected.toarray(), rtol=1e-4, atol=1e-5)


def test_raw_counts_on_disk_are_refused_with_the_way_out(screen, tmp_path):
    adata = screen()
    adata.X = np.ceil(adata.X.toarray())
    adata.write_h5ad(tmp_path / "counts.h5ad")
    backed = anndata.read_h5ad(tmp_path / "counts.h5ad", backed="r")
    with pytest.raises(ValueError, match=r"backed by a file.*to_memory"):
        pp.prepare(backed)
