"""The attention of a trained model is that which PyG computes from what its layers see."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from torch_geometric.nn import GATConv

from unlasting import UnlastingModel, datasets, pl, pp, tl

pytestmark = pytest.mark.slow  # trains a small model once


def make(*, use_grn=True, **options):
    adata = datasets.simulate_screen(n_cells=60, n_genes=40, responders=1.0, seed=1)
    pp.prepare(adata, library_size_key="library_size", target_sum=1e4)
    pp.grn(adata, prior=adata.uns["simulation"]["edges"])
    UnlastingModel.setup_anndata(adata)
    model = UnlastingModel(adata, width=32, use_grn=use_grn, **options)
    model.train(max_steps=20, seed=0, show_progress=False)
    return model


@pytest.fixture(scope="module")
def model():
    return make()


@pytest.fixture
def controls(model):
    return model.adata[model.adata.obs["perturbation"] == "control"][:6].copy()


def by_pyg(model, controls) -> pd.DataFrame:
    """Average the attention of PyG's layers over everything that the layers of the denoiser see."""
    layers, seen = model.module.averaged["denoiser"].grn.attention, []
    handles = [layer.register_forward_pre_hook(lambda layer, given: seen.append((layer, given[0]))) for layer in layers]
    model.encode(controls)
    for handle in handles:
        handle.remove()
    graph, parts = layers[0].graph, []
    for layer, features in seen:
        peer = GATConv(features.shape[-1], layer.out_features, heads=layer.heads, concat=False)
        with torch.inference_mode():
            peer.lin.weight.copy_(layer.lin.weight)
            peer.att_src.copy_(layer.att_src[None])
            peer.att_dst.copy_(layer.att_dst[None])
            for cell in features:
                edges = torch.stack([graph.source, graph.target])
                _, (edges, attention) = peer(cell, edges, return_attention_weights=True)
                parts.append(pd.Series(attention.mean(1), index=pd.MultiIndex.from_arrays(edges.tolist())))
    return pd.concat(parts).groupby(level=[0, 1]).mean()


def test_attention_is_that_of_pyg(model, controls):
    found = model.get_attention(controls)
    place = {name: i for i, name in enumerate(model.adata.uns["unlasting"]["grn"]["nodes"])}
    expected = by_pyg(model, controls)
    index = pd.MultiIndex.from_arrays([found[end].map(place) for end in ("source", "target")])
    np.testing.assert_allclose(found["attention"], expected[index], rtol=1e-4, atol=1e-6)
    assert found["attention"].std() > 0
    np.testing.assert_allclose(found.groupby("target")["attention"].sum(), 1, rtol=1e-5)


def test_attention_is_stored_beside_the_edges_and_drawn(model, tmp_path):
    adata = model.adata
    before = adata.uns["unlasting"]["grn"]["edges"].copy()
    frame = tl.grn(model, max_cells=20)
    pd.testing.assert_frame_equal(frame.drop(columns="attention"), before, check_dtype=False)
    assert ((frame["attention"] > 0) & (frame["attention"] < 1)).all()
    assert (frame.groupby("target")["attention"].sum() < 1).all()
    adata.write_h5ad(tmp_path / "screen.h5ad")
    again = anndata.read_h5ad(tmp_path / "screen.h5ad")
    pd.testing.assert_frame_equal(again.uns["unlasting"]["grn"]["edges"], frame, check_dtype=False)
    axes = pl.grn(again, frame["target"].iloc[0], show=False)
    assert "attention" in axes.get_legend().get_title().get_text()
    pd.testing.assert_frame_equal(tl.grn(model, max_cells=20), frame)


def test_the_cells_may_be_given_and_only_controls_count(model, controls):
    others = model.adata[model.adata.obs["perturbation"] != "control"][:30]
    frame = tl.grn(model, anndata.concat([controls, others]))
    own = model.get_attention(controls).set_index(["source", "target"])["attention"]
    np.testing.assert_allclose(
        frame["attention"], own[pd.MultiIndex.from_frame(frame[["source", "target"]])], rtol=1e-6
    )
    with pytest.raises(ValueError, match="No cell .* has the control label"):
        tl.grn(model, others)


def test_test_cells_are_not_looked_at(model):
    adata = model.adata
    is_control = (adata.obs["perturbation"] == "control").to_numpy()
    first = np.flatnonzero(is_control)[:5]
    everything = tl.grn(model)
    adata.obs["unlasting_split"] = "test"
    adata.obs.loc[adata.obs_names[first], "unlasting_split"] = "train"
    frame = tl.grn(model)
    del adata.obs["unlasting_split"]
    own = model.get_attention(adata[first].copy()).set_index(["source", "target"])["attention"]
    np.testing.assert_allclose(
        frame["attention"], own[pd.MultiIndex.from_frame(frame[["source", "target"]])], rtol=1e-6
    )
    assert not np.allclose(frame["attention"], everything["attention"], rtol=1e-6)


def test_looking_leaves_the_model_as_it_was(model, controls):
    before = model.encode(controls)
    model.get_attention(controls)
    assert not any(layer._forward_pre_hooks for layer in model.module.averaged["denoiser"].grn.attention)
    np.testing.assert_array_equal(model.encode(controls), before)


def test_a_graph_of_another_model_is_refused(model):
    stored = model.adata.uns["unlasting"]
    other = stored["grn"]["edges"].iloc[1:]
    model.adata.uns["unlasting"] = {**stored, "grn": {**stored["grn"], "edges": other}}
    with pytest.raises(ValueError, match="`pp.grn` has been run since"):
        tl.grn(model)
    assert model.adata.uns["unlasting"]["grn"]["edges"] is other
    model.adata.uns["unlasting"] = stored


def test_a_model_without_a_graph_or_cells_has_no_attention(model, tmp_path):
    with pytest.raises(ValueError, match="use_grn=False"):
        tl.grn(make(use_grn=False))
    closed = UnlastingModel(model.adata, use_grn=True)
    closed.train(max_steps=0, show_progress=False)
    with pytest.raises(ValueError, match=r"closed form alone.*`model\.train\(\)`"):
        tl.grn(closed)
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match="Load it with `adata=...`"):
        tl.grn(UnlastingModel.load(tmp_path / "model", adata=False))
