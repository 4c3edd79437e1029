from __future__ import annotations

import sys
from types import SimpleNamespace

import anndata
import numpy as np
import pytest

from unlasting import tl


def test_map_is_the_first_two_components_of_the_training_cells(planted_screen, storage):
    adata = planted_screen(60, storage=storage, dtype=np.float64)
    frame = tl.embedding(adata)
    dense = np.asarray(adata.X.todense() if hasattr(adata.X, "todense") else adata.X)
    train = dense[adata.obs["unlasting_split"] == "train"]
    _, sizes, axes = np.linalg.svd(train - train.mean(axis=0), full_matrices=False)
    observed = frame[frame["group"] != "generated"]
    expected = (dense[adata.obs_names.get_indexer(observed["cell"])] - train.mean(axis=0)) @ axes[:2].T
    np.testing.assert_allclose(np.abs(observed[["x", "y"]]), np.abs(expected), atol=1e-8)
    share = sizes[0] ** 2 / (sizes**2).sum()
    assert adata.uns["unlasting"]["embedding_axes"][0] == f"PC1 ({share:.0%} of variance)"


def test_map_does_not_depend_on_test_cells_or_generated_cells(planted_screen):
    adata, other = planted_screen(60), planted_screen(60)
    test = (other.obs["unlasting_split"] == "test").to_numpy()
    other.X[test] = other.X[test][:, ::-1]
    other.layers["unlasting"] = other.layers["unlasting"][:, ::-1]
    train = adata.obs_names[~test]
    places = []
    for data in (adata, other):
        frame = tl.embedding(data)
        frame = frame[frame["cell"].isin(train) & (frame["group"] != "generated")].set_index("cell")
        places.append(frame.loc[train, ["x", "y"]].to_numpy())
    np.testing.assert_allclose(places[0], places[1])


def test_groups_and_sources(planted_screen):
    adata = planted_screen(50)
    frame = tl.embedding(adata, conditions=["half", "all"])
    assert frame.groupby("group").size().to_dict() == {"control": 50, "observed": 100, "generated": 100}
    generated = frame[frame["group"] == "generated"]
    control = frame[frame["group"] == "control"].set_index("cell")
    assert list(generated["source"]) == list(adata.obs.loc[generated["cell"], "unlasting_source"])
    np.testing.assert_allclose(generated[["source_x", "source_y"]], control.loc[generated["source"], ["x", "y"]])
    assert frame.loc[frame["group"] == "control", "source_x"].isna().all()


def test_conditions_that_move_most_come_first(planted_screen):
    frame = tl.embedding(planted_screen(100))
    assert list(frame["condition"].unique())[0] == "control"
    assert list(frame["condition"].unique())[-1] == "none"


def test_generated_cells_of_another_model_have_no_sources(planted_screen):
    adata = planted_screen(40)
    other = adata[adata.obs["perturbation"] == "half"].copy()
    other.X = other.layers["unlasting"]
    del other.obs["unlasting_source"]
    frame = tl.embedding(adata, predictions=other)
    assert frame["source_x"].isna().all()
    assert set(frame["source"]) == {""}


def test_umap_is_fitted_on_components_of_training_cells_only(planted_screen, monkeypatch):
    seen: dict[str, object] = {}

    class Recorder:
        def __init__(self, **options: object) -> None:
            seen["options"] = options

        def fit(self, values: np.ndarray) -> Recorder:
            seen["fitted"] = values.shape
            return self

        def transform(self, values: np.ndarray) -> np.ndarray:
            return values[:, :2] + 100

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Recorder))
    adata = planted_screen(60)
    frame = tl.embedding(adata, method="umap", n_components=7, seed=3)
    assert seen["fitted"] == ((adata.obs["unlasting_split"] == "train").sum(), 7)
    assert seen["options"]["random_state"] == 3
    assert (frame["x"] > 50).all()
    assert list(adata.uns["unlasting"]["embedding_axes"]) == ["UMAP1", "UMAP2"]


def test_results_survive_h5ad(planted_screen, tmp_path):
    adata = planted_screen(30)
    frame = tl.embedding(adata)
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = anndata.read_h5ad(tmp_path / "a.h5ad").uns["unlasting"]["embedding"]
    assert list(again["source"]) == list(frame["source"])


def test_errors_name_the_way_out(planted_screen):
    adata = planted_screen(30)
    with pytest.raises(ValueError, match="'pca' or 'umap'"):
        tl.embedding(adata, method="tsne")
    with pytest.raises(ValueError, match="two genes"):
        tl.embedding(adata[:, :1].copy())
