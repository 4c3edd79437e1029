"""A screen that stays on disk is trained on, and carried to other perturbations, like one in memory."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import anndata
import numpy as np
import pytest
import zarr
from anndata.io import read_elem, sparse_dataset

import unlasting as ul
from unlasting import UnlastingModel, datasets, pp

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


def test_what_describes_a_model_reads_cells_from_disk(build, screen, tmp_path):
    screen().write_h5ad(tmp_path / "screen.h5ad")
    backed = anndata.read_h5ad(tmp_path / "screen.h5ad", backed="r")
    one, other = (build(adata, train=4, options={"use_grn": True}) for adata in (backed, screen()))
    found, expected = (model.get_latent_representation(indices=[3, 1, 2], seed=0) for model in (one, other))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert ul.tl.grn(one)["attention"].notna().all()
    assert len(ul.tl.diagnose(one)) == len(ul.tl.diagnose(other))
    assert one.adata.isbacked


def test_views_and_columns_on_disk_are_named_with_the_way_out(screen, tmp_path, caplog):
    adata = screen()
    adata.X = adata.X.tocsc()
    adata.write_h5ad(tmp_path / "columns.h5ad")
    backed = anndata.read_h5ad(tmp_path / "columns.h5ad", backed="r")
    with pytest.raises(ValueError, match=r'is a view.*`adata = adata\.copy\("part\.h5ad"\)`'):
        UnlastingModel.setup_anndata(backed[:40])
    for cells, n_warnings in ((backed, 1), (backed.to_memory(), 0)):
        caplog.clear()
        UnlastingModel.setup_anndata(cells)
        assert caplog.text.count("stored by genes (CSC)") == n_warnings


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


def on_disk(adata: anndata.AnnData, folder: Path) -> dict[str, anndata.AnnData]:
    """Store a screen in three ways."""
    adata.write_h5ad(folder / "sparse.h5ad")
    dense = adata.copy()
    dense.X = adata.X.toarray()
    dense.write_h5ad(folder / "dense.h5ad")
    files = {name: anndata.read_h5ad(folder / f"{name}.h5ad", backed="r") for name in ("sparse", "dense")}
    return {**files, "zarr": in_zarr(adata, folder / "screen.zarr")}


def batches(adata: anndata.AnnData, seed=0, epoch=0, n_steps=None, rank=0, n_processes=1) -> list[np.ndarray]:
    """Read an epoch with 16 cells in a step, as rows with expression and codes."""
    UnlastingModel.setup_anndata(adata)
    manager = UnlastingModel(adata, width=16, gene_features=4, attention_features=4).adata_manager
    codes = adata.obs["_unlasting_split"].to_numpy()
    splitter = ul.train.CellSplitter(manager, [np.flatnonzero(codes == code) for code in range(3)], 16, n_processes)
    splitter.seed = seed
    splitter.trainer = SimpleNamespace(global_rank=rank, limit_train_batches=n_steps)
    splitter.setup()
    loader = splitter.train_dataloader()
    loader.sampler.set_epoch(epoch)
    read = [np.hstack([np.asarray(part[key]) for key in sorted(part)]) for part in loader]
    validated = np.vstack([np.asarray(part["X"]) for part in splitter.val_dataloader()])
    np.testing.assert_array_equal(validated, screen_values(adata)[codes == 1])
    return read


def screen_values(adata: anndata.AnnData) -> np.ndarray:
    values = adata.X[:]
    return values if isinstance(values, np.ndarray) else values.toarray()


def test_cells_on_disk_are_read_in_blocks(screen, tmp_path, monkeypatch):
    """Each training cell once in a pass, in an order that seed and epoch determine, shared by processes, mixed in memory."""
    monkeypatch.setattr("unlasting.data._blocks.BLOCK", 4)
    monkeypatch.setattr("unlasting.data._blocks.CHUNK", 70)
    monkeypatch.setattr("unlasting.data._blocks._MAX_GAP", 2)
    first: list[np.ndarray] = []
    stored = on_disk(screen(), tmp_path)
    for name, adata in stored.items():
        read = batches(adata)
        first = first or read
        np.testing.assert_array_equal(np.vstack(read), np.vstack(first), err_msg=name)
        codes = [adata.obs[f"_unlasting_{key}"].to_numpy() for key in ("perturbation", "population", "split")]
        rows = np.column_stack([screen_values(adata), *codes[:2]])[codes[2] == 0]
        place = {row.tobytes(): i for i, row in enumerate(rows.astype(np.float64))}
        assert len(place) == len(rows)
        order = [[place[row.tobytes()] for row in batch.astype(np.float64)] for batch in read]
        flat = np.concatenate(order)
        assert len(set(flat)) == len(flat) == len(rows) // 16 * 16
        n_blocks = [len({row // 4 for row in batch}) for batch in order]
        assert 8 < np.mean(n_blocks) <= 16  # of the 16 blocks in memory
    adata = stored["sparse"]
    third = [batches(adata, epoch=epoch, n_steps=9) for epoch in range(3)]
    expected, n_in_pass = [*read, *batches(adata, epoch=1)], len(read)
    assert n_in_pass < 27 <= len(expected)
    for found, again in zip(sum(third, []), expected, strict=False):
        np.testing.assert_array_equal(found, again)
    assert not np.array_equal(batches(adata, seed=1)[0], read[0])
    shared = [batches(adata, rank=rank, n_processes=2) for rank in range(2)]
    for whole, one, other in zip(read, *shared, strict=True):
        np.testing.assert_array_equal(whole[::2], one)
        np.testing.assert_array_equal(whole[1::2], other)


def test_a_training_in_blocks_is_not_resumed_in_another_order(build, screen, tmp_path, monkeypatch):
    monkeypatch.setattr("unlasting.model._training.CHUNK", 70)
    screen().write_h5ad(tmp_path / "screen.h5ad")
    model = build(screen())
    model.train(max_steps=10, checkpoint=tmp_path / "state.ckpt", **QUIET)
    backed = anndata.read_h5ad(tmp_path / "screen.h5ad", backed="r")
    with pytest.raises(ValueError, match="its `order` is cells, and now blocks of cells on disk"):
        build(backed).train(max_steps=10, resume=tmp_path / "state.ckpt", **QUIET)


def test_few_cells_on_disk_have_the_order_of_those_in_memory(screen, tmp_path):
    in_memory = batches(screen())
    for name, adata in on_disk(screen(), tmp_path).items():
        np.testing.assert_array_equal(np.vstack(batches(adata)), np.vstack(in_memory), err_msg=name)
