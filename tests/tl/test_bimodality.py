from __future__ import annotations

import sys

import anndata
import numpy as np
import pandas as pd
import pytest
from diptest import diptest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

from unlasting import tl
from unlasting.metrics import sarle_coefficient
from unlasting.tl._bimodality import responder_fractions, two_modes


@given(st.floats(0.1, 10), st.floats(-50, 50), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_shape_statistics_do_not_depend_on_unit_or_origin(scale: float, shift: float, seed: int):
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.normal(0, 1, 60), rng.normal(6, 1, 40)])
    moved = scale * values + shift
    assert sarle_coefficient(moved) == pytest.approx(sarle_coefficient(values), rel=1e-6)
    assert two_modes(moved)["separation"] == pytest.approx(two_modes(values)["separation"], rel=0.02)
    assert two_modes(moved)["bic_gain"] == pytest.approx(two_modes(values)["bic_gain"], abs=0.5)


def test_two_modes_finds_the_planted_components():
    rng = np.random.default_rng(2)
    found = two_modes(np.concatenate([rng.normal(1, 0.2, 3000), rng.normal(3, 0.2, 1000)]))
    assert found["mode_low"] == pytest.approx(1, abs=0.03)
    assert found["mode_high"] == pytest.approx(3, abs=0.03)
    assert found["weight_high"] == pytest.approx(0.25, abs=0.02)
    assert found["separation"] == pytest.approx(10, rel=0.1)
    assert found["bic_gain"] > 1000


def test_one_mode_is_one_mode():
    gains = [two_modes(np.random.default_rng(i).normal(size=200))["bic_gain"] for i in range(40)]
    assert np.mean(np.array(gains) > 0) <= 0.05


def test_bic_is_that_of_the_likelihood():
    values = np.random.default_rng(3).normal(2, 0.5, 300)
    found = two_modes(np.concatenate([values, values + 5]))
    n = 600
    both = np.concatenate([values, values + 5])
    one = -2 * stats.norm.logpdf(both, both.mean(), both.std()).sum() + 2 * np.log(n)
    parts = [stats.norm.pdf(both, values.mean() + by, values.std()) / 2 for by in (0, 5)]
    two = -2 * np.log(sum(parts)).sum() + 5 * np.log(n)
    assert found["bic_gain"] == pytest.approx(one - two, rel=0.01)


@given(st.floats(0, 1), st.booleans(), st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_responder_fraction_recovers_what_was_planted(fraction: float, up: bool, seed: int):
    rng = np.random.default_rng(seed)
    sign = 1 if up else -1
    groups = {
        name: rng.normal(size=1000) + sign * 12 * (np.arange(1000) < round(1000 * share))
        for name, share in {"control": 0, "observed": max(fraction, 0.1), "generated": fraction}.items()
    }
    found = responder_fractions(groups)
    assert found["control"] == 0
    assert found["observed"] == pytest.approx(max(fraction, 0.1), abs=0.08)
    assert found["generated"] == pytest.approx(fraction, abs=0.08)


def test_a_gene_that_half_of_the_cells_switch_is_recovered_first(planted_screen, storage):
    adata = planted_screen(600, storage=storage)
    frame = tl.bimodality(adata, n_genes=10)
    top = frame.head(6)
    assert set(top["condition"]) == {"half"}
    assert set(top["gene"]) == {f"gene{i}" for i in range(6)}
    assert top["recovered"].all()
    assert (top["error"] < top["error_no_effect"]).all()
    assert (top["mode_high_observed"] - top["mode_low_observed"]).between(1.8, 2.2).all()
    # the planted half, blurred by the tails of two normals 5 s.d. apart; dropout hides some of them
    assert top["responders_generated"].between(0.3, 0.55).all()
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


def test_dip_test_is_that_of_the_library(planted_screen):
    adata = planted_screen(100)
    del adata.obs["unlasting_split"]
    row = tl.bimodality(adata, conditions="half", genes=["gene0"]).iloc[0]
    values = adata[adata.obs["perturbation"] == "half", "gene0"].X.ravel().astype(float)
    dip, p_value = diptest(values[values > 0])
    assert row["dip_observed"] == pytest.approx(dip)
    assert row["dip_pvalue_observed"] == pytest.approx(p_value)


def test_without_the_dip_library_the_columns_are_empty_and_the_log_says_so(planted_screen, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "diptest", None)
    monkeypatch.setattr("unlasting.screen._logging.logger.propagate", True)
    frame = tl.bimodality(planted_screen(120), n_genes=2)
    assert frame["dip_observed"].isna().all()
    assert frame["sarle_observed"].notna().all()
    assert "pip install diptest" in caplog.text


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


def test_predictions_of_another_model_with_genes_in_another_order(planted_screen):
    adata = planted_screen()
    other = adata[adata.obs["perturbation"] != "control", ::-1].copy()
    other.X = other.layers["unlasting"]
    inside = tl.bimodality(adata, n_genes=4)
    outside = tl.bimodality(adata, predictions=other, n_genes=4)
    pd.testing.assert_frame_equal(inside, outside)


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
    frame = tl.bimodality(adata, n_genes=2, cell_type_key="cell_type", conditions=[("half", "B"), "all"])
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
    with pytest.raises(ValueError, match="Did you mean 'control'"):
        tl.bimodality(adata, control="contrl")
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
    with pytest.raises(ValueError, match="'cell0' more than once"):
        tl.bimodality(twice)
    with pytest.raises(ValueError, match="empty"):
        tl.bimodality(adata[:0].copy())
    assert dict(adata.uns) == before


def test_rows_without_a_generated_cell_are_no_cells(planted_screen):
    adata = planted_screen(100)
    del adata.obs["unlasting_split"]
    adata.layers["unlasting"][adata.obs["perturbation"] == "all"] = np.nan
    half = np.flatnonzero(adata.obs["perturbation"] == "half")
    adata.layers["unlasting"][half[:60]] = np.nan
    frame = tl.bimodality(adata, n_genes=1)
    assert set(frame["condition"]) == {"half", "none"}
    assert set(frame.loc[frame["condition"] == "half", "n_cells_generated"]) == {40}


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
