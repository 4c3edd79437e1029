"""Generated cells join the real ones: counts, genes, label types, files, and the cells that `predict` chooses."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from scipy import sparse

import unlasting as ul
from unlasting.model import UnlastingModel
from unlasting.screen import logger

QUIET = {"show_progress": False}
SIZES = {"width": 16, "gene_features": 4, "attention_features": 4, "time_frequencies": 8, "n_steps": 4}
LABELS = ["control", "G1", "G2", "G1+G2"]


def raw_screen(n_cells: int = 240, n_genes: int = 30, seed: int = 0) -> AnnData:
    """Counts with integer batches, ordered cell types and columns of `var`."""
    rng = np.random.default_rng(seed)
    label = rng.choice(LABELS, size=n_cells, p=[0.4, 0.2, 0.2, 0.2])
    rate = np.tile(rng.gamma(2.0, 1.5, size=n_genes), (n_cells, 1))
    rate[[one.startswith("G1") for one in label], 5:12] *= 3.0
    adata = AnnData(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)))
    adata.obs_names, adata.var_names = [f"cell{i}" for i in range(n_cells)], [f"G{i}" for i in range(n_genes)]
    adata.obs["perturbation"] = pd.Categorical(label)
    adata.obs["batch"] = rng.choice([3, 7], size=n_cells)
    adata.obs["cell_type"] = pd.Categorical(rng.choice(["B", "T"], n_cells), categories=["T", "B", "NK"], ordered=True)
    adata.obs["unlasting_split"] = np.where(np.isin(label, ["G2"]) & (rng.random(n_cells) < 0.5), "test", "train")
    adata.var["gene_id"] = [f"ENSG{i:011d}" for i in range(n_genes)]
    adata.var["chromosome"] = pd.Categorical(rng.choice(["1", "X"], n_genes))
    return adata


def fitted(adata: AnnData, *, options: dict | None = None, **setup) -> UnlastingModel:
    """Set up and fit in closed form."""
    if "grn" not in adata.uns.get("unlasting", {}):
        ul.pp.grn(adata, prior=None)
    UnlastingModel.setup_anndata(adata, **setup)
    model = UnlastingModel(adata, **SIZES, **(options or {}))
    model.train(max_steps=0)
    return model


@pytest.fixture(scope="module")
def model() -> UnlastingModel:
    adata = raw_screen()
    ul.pp.prepare(adata)
    return fitted(adata, cell_type_key="cell_type", batch_key="batch")


def both(real: AnnData, new: AnnData, path) -> AnnData:
    """Join real and generated cells, write them, and read them."""
    real.obs["is_generated"], new.obs["is_generated"] = False, True
    ad = anndata.concat([real, new], merge="same")
    ad.write_h5ad(path)
    return anndata.read_h5ad(path)


def test_counts_normalise_to_the_expression(model):
    new = model.generate(LABELS, 40, **QUIET)
    counts, expression = new.layers["counts"].toarray(), new.X.toarray()
    assert (counts == counts.round()).all()
    assert ((counts > 0) == (expression > 0)).all()
    again = counts / counts.sum(axis=1, keepdims=True) * new.uns["unlasting"]["generated"]["target_sum"]
    np.testing.assert_allclose(np.log1p(again), expression, atol=1e-4)
    null = new[(new.obs["perturbation"] == "control") & (new.obs["unlasting_replicate"] == 0)]
    source = model.adata[null.obs["unlasting_source"].astype(str)].layers["counts"]
    np.testing.assert_array_equal(null.layers["counts"].toarray(), source.toarray())


def test_counts_are_unbiased_where_cells_are_not_rounded():
    adata = raw_screen()
    ul.pp.prepare(adata)
    new = fitted(adata, options={"integer_counts": False}).generate(["G1"], 400, **QUIET)
    counts = new.layers["counts"].toarray()
    assert (counts == counts.round()).all()
    per_unit = adata.layers["counts"].sum(axis=1) / adata.X.expm1().sum(axis=1)
    unit = pd.Series(np.asarray(per_unit).ravel(), adata.obs_names)[new.obs["unlasting_source"].astype(str)].to_numpy()
    expected = np.expm1(new.X.toarray()) * unit[:, None]
    assert np.abs(counts - expected).max() < 1.0
    np.testing.assert_allclose(counts.mean(axis=0), expected.mean(axis=0), atol=0.1)


def test_counts_on_fewer_genes_have_the_scale_of_the_whole_library():
    adata = raw_screen()
    adata.obs["total"] = np.asarray(adata.X.sum(axis=1)).ravel() * np.random.default_rng(0).integers(3, 6, adata.n_obs)
    ul.pp.prepare(adata, n_top_genes=12, library_size_key="total", target_sum=1000.0)
    new = fitted(adata).generate("G1", 60, **QUIET)
    size = adata.obs.loc[new.obs["unlasting_source"].astype(str), "total"].to_numpy()
    expected = np.expm1(new.X.toarray()) * size[:, None] / 1000.0
    assert np.abs(new.layers["counts"].toarray() - expected).max() < 1.0


def test_genes_labels_and_batches_have_the_types_of_the_screen(model, tmp_path):
    real = model.adata.copy()
    new = model.generate(["G1", "G2+G1"], 8, **QUIET)
    pd.testing.assert_frame_equal(new.var, real.var)
    assert new.obs["batch"].dtype == real.obs["batch"].dtype
    assert new.obs["cell_type"].cat.ordered
    assert list(new.obs["cell_type"].cat.categories) == ["T", "B"]
    joined = both(real, new, tmp_path / "both.h5ad")
    assert joined.obs["batch"].dtype.kind == "i"
    assert set(joined.obs["batch"]) == {3, 7}
    assert set(joined.layers) == {"counts"}
    assert {"gene_id", "chromosome"} <= set(joined.var)
    one = model.generate("G1", 5, batch=7, **QUIET)
    assert set(one.obs["batch"]) == {7}


def test_controls_with_an_unknown_batch_keep_their_type(model):
    controls = model.adata[model.adata.obs["perturbation"] == "control"].copy()
    controls.obs["batch"] = 11
    new = model.generate("G1", 5, controls=controls, **QUIET)
    assert new.obs["batch"].dtype.kind == "i"
    assert set(new.obs["batch"]) == {11}
    controls.obs["batch"] = "new"
    assert set(model.generate("G1", 5, controls=controls, **QUIET).obs["batch"]) == {"new"}


def test_a_model_without_cells_takes_genes_and_types_from_the_controls(model, tmp_path):
    controls = model.adata[model.adata.obs["perturbation"] == "control"].copy()
    model.save(tmp_path / "model")
    new = UnlastingModel.load(tmp_path / "model", adata=False).generate("G1", 5, controls=controls, **QUIET)
    pd.testing.assert_frame_equal(new.var, controls.var)
    assert new.obs["batch"].dtype == controls.obs["batch"].dtype
    assert new.layers["counts"].nnz
    assert new.uns["unlasting"]["generated"]["target_sum"] == model.preparation_["target_sum"]


def test_integer_labels_join_as_integers(tmp_path):
    adata = raw_screen()
    codes = {"control": 0, "G1": 1, "G2": 2, "G1+G2": 3}
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(str).map(codes)
    ul.pp.prepare(adata, control="0")
    new = fitted(adata).generate(["1", "0"], 5, **QUIET)
    assert new.obs["perturbation"].dtype.kind == "i"
    joined = both(adata, new, tmp_path / "both.h5ad")
    assert set(joined.obs["perturbation"]) == {0, 1, 2, 3}


def test_a_screen_without_counts_gives_cells_without_counts():
    adata = raw_screen()
    sc.pp.normalize_total(adata, target_sum=500)
    sc.pp.log1p(adata)
    new = fitted(adata).generate("G1", 5, **QUIET)
    assert not list(new.layers)
    assert new.uns["unlasting"]["generated"]["target_sum"] == pytest.approx(500, rel=1e-4)


def test_expression_in_a_layer_and_counts_in_x():
    adata = raw_screen()
    normalised = sc.pp.log1p(sc.pp.normalize_total(adata, target_sum=500, copy=True), copy=True)
    ul.pp.grn(normalised, prior=None)
    adata.layers["lognorm"], adata.uns = normalised.X, normalised.uns
    new = fitted(adata, layer="lognorm").generate("G1", 5, **QUIET)
    assert set(new.layers) == {"counts", "lognorm"}
    np.testing.assert_array_equal(new.layers["lognorm"].toarray(), new.X.toarray())
    totals = new.layers["counts"].sum(axis=1) / np.expm1(new.X.toarray()).sum(axis=1, keepdims=True)
    assert (np.abs(np.log(totals / (adata.X.sum(axis=1).mean() / 500))) < 1).all()


@pytest.mark.slow
def test_doses_join_as_numbers_and_as_text(tmp_path):
    for is_text in (False, True):
        adata = ul.datasets.simulate_drug_screen(
            n_drugs=4, n_families=2, n_cells=8, n_controls=40, n_cell_types=1, n_genes=30
        )
        if is_text:
            adata.obs["dose"] = adata.obs["dose"].astype(str)
        ul.pp.prepare(adata)
        drug = str(adata.uns["simulation"]["drugs"]["drug"].iloc[0])
        ul.pp.molecules(adata, smiles_key="smiles")
        new = fitted(adata, dose_key="dose", smiles_key="smiles").generate(drug, 3, dose=[0.5, 20], **QUIET)
        assert isinstance(new.obs["dose"].dtype, pd.CategoricalDtype) == is_text
        joined = both(adata, new, tmp_path / "both.h5ad")
        assert set(joined.obs["dose"][joined.obs["is_generated"].to_numpy()].astype(float)) == {0.5, 20.0}


def test_a_file_holds_the_same_as_memory(model, tmp_path, small_parts):
    call = {"perturbations": ["G1", "G2"], "n_cells": 20, **QUIET}
    whole, file = model.generate(**call), model.generate(**call, path=tmp_path / "new.h5ad").to_memory()
    pd.testing.assert_frame_equal(file.var, whole.var)
    pd.testing.assert_frame_equal(file.obs, whole.obs, check_categorical=False)
    np.testing.assert_array_equal(file.layers["counts"].toarray(), whole.layers["counts"].toarray())
    predicted = model.predict(path=tmp_path / "predicted.h5ad", **QUIET).to_memory()
    pd.testing.assert_frame_equal(predicted.var, model.adata.var)
    assert (predicted.layers["counts"].toarray() >= 0).all()
    is_test = (model.adata.obs["unlasting_split"] == "test").to_numpy()
    assert list(predicted.obs_names) == list(model.adata.obs_names[is_test])


def test_predict_chooses_the_held_out_cells(model):
    adata = model.adata.copy()
    is_control = (adata.obs["perturbation"] == "control").to_numpy()
    adata.obs["unlasting_split"] = np.where(np.arange(adata.n_obs) % 3 == 0, "test", "train")
    is_test = (adata.obs["unlasting_split"] == "test").to_numpy()
    without_test = adata.copy()
    without_test.obs["unlasting_split"] = "train"
    without_split = adata.copy()
    del without_split.obs["unlasting_split"]
    for screen, options, chosen in (
        (adata, {}, is_test & ~is_control),
        (adata, {"cells": "all"}, np.ones(adata.n_obs, dtype=bool)),
        (without_test, {}, ~is_control),
        (without_split, {}, ~is_control),
        (adata[is_control].copy(), {"perturbation": "G1"}, np.ones(is_control.sum(), dtype=bool)),
        (adata, {"indices": [4, 1]}, np.isin(np.arange(adata.n_obs), [4, 1])),
    ):
        model.predict(screen, key_added="own", **options, **QUIET)
        assert sparse.isspmatrix_csr(screen.layers["own"])
        assert list(screen.obs["own_source"] != "") == list(chosen)
        assert list(np.diff(screen.layers["own"].indptr) > 0) == list(chosen)
    with pytest.raises(ValueError, match=r"only controls \('control'\). Name a `perturbation`.*cells='all'"):
        model.predict(adata[is_control].copy(), **QUIET)
    with pytest.raises(ValueError, match=r"`cells` is 'tests'.*Did you mean 'test'"):
        model.predict(adata, cells="tests", **QUIET)


def test_scores_read_only_rows_with_a_source(model, tmp_path):
    some = model.adata.copy()
    model.predict(some, seed=0, **QUIET)
    other = some.copy()
    other.layers["unlasting"] = (
        np.where(other.obs["unlasting_source"] == "", 5.0, 0.0)[:, None] + some.layers["unlasting"]
    )
    options = {"baselines": (), "metrics": ["e_distance", "emd"], "gene_sets": "all", "n_repeats": 2, "min_cells": 8}
    pd.testing.assert_frame_equal(ul.tl.evaluate(some, **options), ul.tl.evaluate(other, **options))
    some.write_h5ad(tmp_path / "some.h5ad")
    read = anndata.read_h5ad(tmp_path / "some.h5ad")
    assert set(ul.tl.rank(read, min_cells=8)["condition"]) == {"G2"}
    assert set(ul.tl.bimodality(read, n_genes=2, min_cells=8)["condition"]) == {"G2"}
    assert not ul.io.to_counts(read, layer="unlasting").toarray()[(read.obs["unlasting_source"] == "").to_numpy()].any()


def test_generated_cells_keep_their_counts_as_counts(model):
    new = model.generate("G1", 9, **QUIET)
    np.testing.assert_array_equal(ul.io.to_counts(new, screen=model.adata).toarray(), new.layers["counts"].toarray())


@pytest.mark.slow
def test_two_fresh_models_trained_with_defaults_are_equal():
    cells = []
    for _ in range(2):
        adata = raw_screen(n_cells=120)
        ul.pp.prepare(adata)
        ul.pp.grn(adata, prior=None)
        UnlastingModel.setup_anndata(adata)
        model = UnlastingModel(adata, **SIZES)
        model.train(max_steps=3, accelerator="cpu", **QUIET)
        model.predict(**QUIET)
        cells.append((model.generate("G1", 20, **QUIET).X.toarray(), model.adata.layers["unlasting"].toarray()))
    for one, other in zip(*cells, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_prepare_removes_components_and_graphs(caplog):
    adata = raw_screen()
    plain = adata.copy()
    normalised = sc.pp.log1p(sc.pp.normalize_total(adata, copy=True), copy=True)
    sc.pp.pca(normalised, n_comps=3)
    sc.pp.neighbors(normalised, method="gauss")  # the default compiles umap for half a minute
    sc.pp.neighbors(normalised, method="gauss", key_added="second")
    adata.obsm, adata.varm, adata.obsp, adata.uns = normalised.obsm, normalised.varm, normalised.obsp, normalised.uns
    adata.obsm["protein"] = np.ones((adata.n_obs, 2))
    logger.addHandler(caplog.handler)
    try:
        ul.pp.prepare(adata)
        warned = [record for record in caplog.records if record.levelname == "WARNING"]
        ul.pp.prepare(plain)
        assert [record for record in caplog.records if record.levelname == "WARNING"] == warned
    finally:
        logger.removeHandler(caplog.handler)
    assert (list(adata.obsm), list(adata.varm), list(adata.obsp)) == (["protein"], [], [])
    assert not {"pca", "neighbors", "second"} & set(adata.uns)
    assert "`obsm['X_pca']`" in warned[0].message
    assert "sc.pp.neighbors(adata)" in warned[0].message
