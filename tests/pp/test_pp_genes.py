"""Gene names, features and counts, wherever a file keeps them: taken and logged, or refused with the fix."""

from __future__ import annotations

import logging

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from scipy import sparse
from typer.testing import CliRunner

import unlasting as ul
from unlasting.cli import app

SYMBOLS = ["STAT1", "JAK2", "IRF1", "MYC", "ACTB", "GAPDH", "B2M", "CD74"]
IDS = [f"ENSG{100 + i:011d}" for i in range(len(SYMBOLS))]
TARGETS = ["STAT1", "JAK2", "IRF1", "MYC"]


def raw(names=SYMBOLS, targets=TARGETS, n: int = 20, **var) -> AnnData:
    labels = np.repeat(["control", *targets], n)
    counts = np.random.default_rng(0).poisson(4.0, (len(labels), len(names))).astype(np.float32)
    obs = pd.DataFrame({"perturbation": labels}, index=[f"c{i}" for i in range(len(labels))])
    return AnnData(sparse.csr_matrix(counts), obs=obs, var=pd.DataFrame(var, index=list(names)))


@pytest.fixture
def warnings(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("unlasting"), "propagate", True)
    caplog.set_level(logging.INFO, "unlasting")
    return lambda: [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


# -- names


@pytest.mark.parametrize("column", ["gene_name", "feature_name", "my own column"])
@pytest.mark.parametrize("version", ["", ".3"])
def test_symbols_in_a_column_are_found(column, version, warnings):
    adata = raw([i + version for i in IDS], **{column: SYMBOLS, "length": np.arange(8), "biotype": ["coding"] * 8})
    ul.pp.prepare(adata, min_cells=1)
    assert adata.var_names.tolist() == SYMBOLS
    assert adata.var["gene_id"].tolist() == [i + version for i in IDS]
    (said,) = warnings()
    assert column in said
    assert "`symbols_key`" in said


def test_a_named_column_is_used_and_another_refused():
    adata = raw(IDS, first=SYMBOLS, second=[s.lower() for s in SYMBOLS])
    ul.pp.prepare(adata, min_cells=1, symbols_key="second")
    assert adata.var_names.tolist() == [s.lower() for s in SYMBOLS]
    with pytest.raises(KeyError, match=r"`symbols_key` is 'frist'.*Did you mean 'first'"):
        ul.pp.prepare(raw(IDS, first=SYMBOLS), symbols_key="frist")


def test_repeated_and_missing_symbols_keep_the_id():
    adata = raw(IDS, symbol=["STAT1", "JAK2", "IRF1", "MYC", "MYC", np.nan, "", "CD74"])
    ul.pp.prepare(adata, min_cells=1)
    assert adata.var_names.tolist() == ["STAT1", "JAK2", "IRF1", "MYC", IDS[4], IDS[5], IDS[6], "CD74"]


def test_names_stay_where_they_fit(warnings):
    for adata in (raw(alias=[f"old {s}" for s in SYMBOLS], ensembl=IDS), raw(IDS, targets=IDS[:4], symbol=SYMBOLS)):
        names = adata.var_names.tolist()
        ul.pp.prepare(adata, min_cells=1)
        assert adata.var_names.tolist() == names
    assert warnings() == []


def test_targets_and_genes_that_hardly_meet_are_reported(warnings):
    ul.pp.prepare(raw([f"gene-{i}" for i in range(8)]), min_cells=1)
    (said,) = warnings()
    assert "Only 0 of 4 targets are measured" in said
    assert "`symbols_key`" in said


def test_a_stimulus_spelt_like_a_gene_is_reported(warnings):
    adata = raw(targets=["STAT1", "FOX1A", "IFN-beta", "heat shock"])
    ul.pp.prepare(adata, min_cells=1)
    ul.pp.grn(adata, prior=pd.DataFrame(np.eye(8), index=SYMBOLS))
    ul.UnlastingModel.setup_anndata(adata)
    (said,) = [one for one in warnings() if "spelt like genes" in one]
    assert "FOX1A" in said
    assert "heat shock" not in said
    assert "IFN-beta" not in said


# -- features and counts


def test_features_that_are_no_genes_are_dropped(warnings):
    types = ["Gene Expression"] * 6 + ["CRISPR Guide Capture", "Antibody Capture"]
    adata = raw(feature_types=types)
    adata.X[:, 6:] = 1000
    ul.pp.prepare(adata, min_cells=1)
    assert adata.var_names.tolist() == SYMBOLS[:6]
    assert adata.uns["unlasting"]["prepare"]["target_sum"] < 100
    assert "2 features that are not genes" in warnings()[0]
    assert adata.layers["counts"].shape[1] == 6


def in_layer(name):
    def move(adata):
        adata.layers[name] = adata.X.copy()
        adata.X = np.log1p(adata.X.toarray())

    return move


def in_raw(adata):
    adata.raw = adata[:, ::-1].copy()
    adata.X = np.log1p(adata.X.toarray())


def without_x(adata):
    adata.layers["umi"] = adata.X.copy()
    adata.X = None


PLACES = {
    "adata.layers['counts']": in_layer("counts"),
    "adata.layers['raw_counts']": in_layer("raw_counts"),
    "adata.layers['umi']": without_x,
    "adata.raw.X": in_raw,
}


@pytest.mark.parametrize("place", PLACES)
def test_counts_are_found(place, warnings):
    adata, expected = raw(), raw()
    PLACES[place](adata)
    ul.pp.prepare(adata, min_cells=1)
    ul.pp.prepare(expected, min_cells=1)
    np.testing.assert_array_equal(adata.X.toarray(), expected.X.toarray())
    np.testing.assert_array_equal(adata.layers["counts"].toarray(), expected.layers["counts"].toarray())
    (said,) = warnings()
    assert f"`{place}`" in said


def test_fractions_are_told_from_normalised_values():
    ambient = raw()
    ambient.X.data = (8 * ambient.X.data * 0.973).astype(np.float32)
    with pytest.raises(ValueError, match=r"ambient RNA.*np\.rint"):
        ul.pp.prepare(ambient)
    logged = raw()
    logged.X = np.log1p(logged.X.toarray() / logged.X.sum(1) * 1e4).view(np.ndarray)
    with pytest.raises(ValueError, match=r"log-transformed.*leave out `pp\.prepare`"):
        ul.pp.prepare(logged)


@pytest.mark.slow
def test_files_of_every_kind_train_on_the_command_line(tmp_path):
    strings = raw()
    strings.obs["barcode"] = pd.array([f"A{i}" for i in range(strings.n_obs)], dtype="string")
    strings.var_names = strings.var_names.astype("string")
    with anndata.settings.override(allow_write_nullable_strings=True):
        strings.write_h5ad(tmp_path / "strings.h5ad")
    raw().write_zarr(tmp_path / "store.zarr")
    logged = raw()
    logged.X = np.log1p(np.asarray(logged.X.toarray() / logged.X.sum(1) * 1e4))
    logged.write_h5ad(tmp_path / "logged.h5ad")
    for name in ("strings.h5ad", "store.zarr", "logged.h5ad"):
        folder = tmp_path / f"model of {name}"
        command = [
            "train",
            tmp_path / name,
            "--split",
            "random",
            "--prior",
            "none",
            "--model",
            folder,
            "--max-steps",
            2,
        ]
        result = CliRunner().invoke(app, [*map(str, command), "--accelerator", "cpu"])
        assert result.exit_code == 0, result.output
        new = ul.UnlastingModel.load(folder, accelerator="cpu").generate("STAT1", 3, show_progress=False)
        assert np.isfinite(new.X.toarray()).all()
    (tmp_path / "folder").mkdir()
    result = CliRunner().invoke(app, ["train", str(tmp_path / "folder"), "--model", str(tmp_path / "m")])
    assert result.exit_code != 0


@pytest.mark.slow
def test_cells_that_h5ad_refuses_do_not_cost_the_model(tmp_path, warnings):
    adata = raw()
    ul.pp.prepare(adata, min_cells=1)
    ul.pp.grn(adata, prior=None)
    ul.UnlastingModel.setup_anndata(adata)
    model = ul.UnlastingModel(adata, width=32, n_steps=4)
    model.train(max_steps=2, accelerator="cpu", show_progress=False)
    adata.obs["mixed"] = [1, "a"] * (adata.n_obs // 2)
    adata.uns["an object"] = object()
    model.save(tmp_path / "m", save_anndata=True)
    assert any("`obs['mixed']`, `uns['an object']`, which are written as text" in one for one in warnings())
    loaded = ul.UnlastingModel.load(tmp_path / "m", adata=False, accelerator="cpu")
    controls = adata[adata.obs["perturbation"] == "control"].copy()
    assert loaded.generate("STAT1", 3, controls=controls, show_progress=False).n_obs == 3


# -- new cells


@pytest.mark.slow
def test_new_cells_of_every_habit(tmp_path, warnings):
    adata = raw()
    ul.pp.prepare(adata, min_cells=1)
    ul.pp.grn(adata, prior=None)
    ul.UnlastingModel.setup_anndata(adata)
    model = ul.UnlastingModel(adata, width=32, n_steps=4)
    model.train(max_steps=2, accelerator="cpu", show_progress=False)

    new = raw(IDS, gene_name=SYMBOLS)[:20].copy()  # Ensembl ids, no label
    del new.obs["perturbation"]
    model.prepare(new)
    assert "taken as controls" in " ".join(warnings())
    cells = model.generate("STAT1", 3, controls=new, show_progress=False)
    assert cells.uns["unlasting"]["generated"]["target_sum"] == pytest.approx(model.preparation_["target_sum"])
    del new.obs["perturbation"]
    assert model.generate("STAT1", 3, controls=new, show_progress=False).n_obs == 3

    with pytest.raises(ValueError, match=r"2 of the 8 genes of the model are missing.*STAT1, JAK2.*as zeros"):
        model.prepare(raw()[:20, 2:].copy())


def test_a_prior_without_the_genes_is_told_with_the_column_of_symbols(warnings):
    adata = ul.datasets.papalexi()[:400].copy()
    adata.var["symbol"] = adata.var_names.to_numpy()
    adata.var_names = [f"ENSG{i:011d}" for i in range(adata.n_vars)]
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)  # so that `pp.prepare`, which takes the symbols, is left out
    ul.pp.grn(adata, prior="go", n_components=8)
    assert any("the prior knows none of the genes" in one and "adata.var['symbol']" in one for one in warnings())
