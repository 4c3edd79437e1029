from __future__ import annotations

import sys

import anndata
import numpy as np
import pandas as pd
import pytest
from diptest import diptest
from scipy import sparse, stats

from unlasting import tl
from unlasting.metrics import sarle_coefficient


def test_shape_statistics_agree_with_their_definitions(planted_screen):
    adata = planted_screen(900)
    del adata.obs["unlasting_split"]
    rows = tl.bimodality(adata, conditions="half", genes=["gene0", "gene20"]).set_index("gene")
    row = rows.loc["gene0"]
    values = adata[adata.obs["perturbation"] == "half", "gene0"].X.ravel().astype(float)
    values = values[values > 0]
    low, high = values[values < 3], values[values >= 3]
    assert row["mode_low_observed"] == pytest.approx(low.mean(), abs=0.03)
    assert row["mode_high_observed"] == pytest.approx(high.mean(), abs=0.03)
    assert row["weight_high_observed"] == pytest.approx(len(high) / len(values), abs=0.02)
    separation = (high.mean() - low.mean()) / np.sqrt((high.var() + low.var()) / 2)
    assert row["separation_observed"] == pytest.approx(separation, rel=0.1)
    n = len(values)
    one = -2 * stats.norm.logpdf(values, values.mean(), values.std()).sum() + 2 * np.log(n)
    parts = [len(x) / n * stats.norm.pdf(values, x.mean(), x.std()) for x in (low, high)]
    two = -2 * np.log(sum(parts)).sum() + 5 * np.log(n)
    assert row["bic_gain_observed"] == pytest.approx(one - two, rel=0.02)
    assert row["sarle_observed"] == pytest.approx(sarle_coefficient(values))
    assert row["dip_observed"] == pytest.approx(diptest(values)[0])
    assert row["dip_pvalue_observed"] == pytest.approx(diptest(values)[1])
    # one normal component is enough for the other gene, and no group but the controls has its share of responders
    assert (rows.loc["gene20", ["bic_gain_observed", "bic_gain_control"]] < 0).all()
    assert row["responders_observed"] == pytest.approx(0.5, abs=0.05)
    assert row["responders_generated"] == pytest.approx(0.5, abs=0.05)
    assert row["responders_control"] == pytest.approx(0, abs=0.05)


@pytest.mark.slow
def test_a_gene_that_half_of_the_cells_switch_is_recovered_first(planted_screen, storage):
    adata = planted_screen(600, storage=storage)
    frame = tl.bimodality(adata, n_genes=10)
    top = frame.head(6)
    assert set(top["condition"]) == {"half"}
    assert set(top["gene"]) == {f"gene{i}" for i in range(6)}
    assert top["recovered"].all()
    assert (top["error"] < top["error_no_effect"]).all()
    assert (top["mode_high_observed"] - top["mode_low_observed"]).between(1.8, 2.2).all()
    assert top["responders_generated"].between(0.4, 0.6).all()
    assert top["zero_fraction_observed"].between(0.05, 0.25).all()
    assert not frame.loc[frame["condition"] == "none", "bimodal_observed"].any()


def test_order_is_recovered_then_missed_then_unimodal(planted_screen):
    adata = planted_screen(600)
    layer = adata.layers["unlasting"]
    half = (adata.obs["perturbation"] == "half").to_numpy()
    # a predictor of the mean: gene 0 shifts in every cell
    layer[half, 0] = np.where(layer[half, 0] > 0, np.random.default_rng(0).normal(3, 0.4, half.sum()), 0)
    frame = tl.bimodality(adata, genes=["gene0", "gene1", "gene20"], conditions=["half"])
    assert list(frame["gene"]) == ["gene1", "gene0", "gene20"]
    assert list(frame["recovered"]) == [True, False, False]
    assert list(frame["bimodal_observed"]) == [True, True, False]


def test_groups_are_of_equal_size_and_observed_cells_are_test_cells(planted_screen):
    adata = planted_screen(240)
    row = tl.bimodality(adata, conditions="half", n_genes=1).iloc[0]
    assert row["n_cells_control"] == row["n_cells_observed"] == row["n_cells_generated"] == 80
    del adata.obs["unlasting_split"]
    assert tl.bimodality(adata, conditions="half", n_genes=1).iloc[0]["n_cells_observed"] == 240


def test_default_genes_have_the_largest_t(planted_screen):
    adata = planted_screen()
    frame = tl.bimodality(adata, conditions="all", n_genes=6, max_cells=10_000)
    assert set(frame["gene"]) == {f"gene{i}" for i in range(6, 12)}
    assert (frame["t"] < 0).all()


def test_without_the_dip_library_the_columns_are_empty_and_the_log_names_the_extra(planted_screen, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "diptest", None)
    monkeypatch.setattr("unlasting.screen.logger.propagate", True)
    with caplog.at_level("INFO"):
        frame = tl.bimodality(planted_screen(120), n_genes=2)
    assert frame["dip_observed"].isna().all()
    assert frame["sarle_observed"].notna().all()
    assert "unlasting[bimodality]" in caplog.text


def test_results_survive_h5ad(planted_screen, tmp_path):
    adata = planted_screen(120)
    frame = tl.bimodality(adata, n_genes=3)
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = anndata.read_h5ad(tmp_path / "a.h5ad").uns["unlasting"]
    assert list(again["bimodality"]["gene"]) == list(frame["gene"])
    assert set(again["bimodality_density"]["group"]) == {"control", "observed", "generated"}


def test_density_has_area_one_over_expressed_values(planted_screen):
    adata = planted_screen(200)
    tl.bimodality(adata, conditions="all", genes=["gene7"])
    density = adata.uns["unlasting"]["bimodality_density"]
    for _, curve in density.groupby("group"):
        assert np.trapezoid(curve["density"], curve["value"]) == pytest.approx(1, abs=0.05)


@pytest.mark.slow
def test_predictions_of_another_model_with_genes_in_another_order(planted_screen):
    adata = planted_screen()
    other = adata[adata.obs["perturbation"] != "control", ::-1].copy()
    other.X = other.layers["unlasting"]
    inside = tl.bimodality(adata, n_genes=4)
    outside = tl.bimodality(adata, predictions=other, n_genes=4)
    pd.testing.assert_frame_equal(inside, outside)


@pytest.mark.slow
def test_same_seed_same_frame(planted_screen):
    adata = planted_screen(150)
    frames = [tl.bimodality(adata, n_genes=3, max_cells=40, seed=seed) for seed in (1, 1, 2)]
    pd.testing.assert_frame_equal(frames[0], frames[1])
    assert not frames[0].equals(frames[2])


def test_few_expressed_values_give_no_shape(planted_screen):
    adata = planted_screen(100)
    adata.X[:, 3] = 0
    row = tl.bimodality(adata, conditions="half", genes=["gene3"]).iloc[0]
    assert row["zero_fraction_observed"] == 1
    assert np.isnan(row["sarle_observed"])
    assert not row["bimodal_observed"]


def test_cell_types_are_kept_apart(planted_screen):
    adata = planted_screen(60, cell_types=("T", "B"))
    adata.uns["unlasting"] = {"keys": {"cell_type_key": "cell_type"}}
    frame = tl.bimodality(adata, n_genes=2, conditions=[("half", "B"), "all"])
    assert set(zip(frame["condition"], frame["cell_type"], strict=True)) == {("half", "B"), ("all", "T"), ("all", "B")}


def test_errors_name_the_way_out(planted_screen):
    adata = planted_screen(60)
    before = dict(adata.uns)
    with pytest.raises(KeyError, match="model.predict"):
        tl.bimodality(adata, layer="nothing")
    with pytest.raises(ValueError, match="Did you mean 'half'"):
        tl.bimodality(adata, conditions=["halv"])
    with pytest.raises(KeyError, match="genes.*gene99"):
        tl.bimodality(adata, genes=["gene99"])
    with pytest.raises(ValueError, match="min_cells=1000"):
        tl.bimodality(adata, min_cells=1000)
    with pytest.raises(KeyError, match="lacks 1 of the 30 genes"):
        tl.bimodality(adata, predictions=adata[:, 1:].copy())
    misspelt = adata.copy()
    misspelt.uns["unlasting"] = {"keys": {"control": "contrl"}}
    with pytest.raises(ValueError, match="Did you mean 'control'"):
        tl.bimodality(misspelt)
    counts = adata.copy()
    counts.X = np.round(counts.X)
    with pytest.raises(ValueError, match="raw counts.*pp.prepare"):
        tl.bimodality(counts)
    broken = adata.copy()
    broken.layers["unlasting"][5:, 3] = np.nan
    with pytest.raises(ValueError, match="missing or infinite"):
        tl.bimodality(broken)
    no_controls = adata.copy()
    no_controls.obs["unlasting_split"] = "test"
    with pytest.raises(ValueError, match="no training control cells"):
        tl.bimodality(no_controls)
    twice = adata.copy()
    twice.obs_names = ["cell0", *adata.obs_names[:-1]]
    with pytest.raises(ValueError, match="'cell0' is repeated"):
        tl.bimodality(twice)
    with pytest.raises(ValueError, match="empty"):
        tl.bimodality(adata[:0].copy())
    assert dict(adata.uns) == before


def test_rows_without_a_generated_cell_are_no_cells(planted_screen):
    adata = planted_screen(100)
    del adata.obs["unlasting_split"]
    adata.obs.loc[adata.obs["perturbation"] == "all", "unlasting_source"] = ""
    half = adata.obs_names[adata.obs["perturbation"] == "half"]
    adata.obs.loc[half[:60], "unlasting_source"] = ""
    adata.layers["unlasting"][adata.obs["unlasting_source"] == ""] = 0.0
    frame = tl.bimodality(adata, n_genes=1)
    assert set(frame["condition"]) == {"half", "none"}
    assert set(frame.loc[frame["condition"] == "half", "n_cells_generated"]) == {40}


@pytest.mark.slow
@pytest.mark.parametrize("storage", [np.asarray, sparse.csr_matrix], ids=["dense", "csr"])
def test_backed_data_give_the_same_frame(planted_screen, storage, tmp_path):
    adata = planted_screen(120, storage=storage)
    expected = tl.bimodality(adata, n_genes=3)
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    pd.testing.assert_frame_equal(tl.bimodality(backed, n_genes=3), expected)


def test_a_view_keeps_its_parent(planted_screen):
    adata = planted_screen(120)
    adata.uns["unlasting"] = {"keys": {"control": "control"}}
    view = adata[:, :20]
    tl.bimodality(view, n_genes=2)
    assert "bimodality" in view.uns["unlasting"]
    assert list(adata.uns["unlasting"]) == ["keys"]
