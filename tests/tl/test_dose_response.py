from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import unlasting as ul
from unlasting import tl


def _screen(planted_screen):
    """Half of the cells of `all` at 0.1 uM (effect halved), half at 10 uM."""
    adata = planted_screen(200)
    adata = adata[adata.obs["perturbation"].isin(["control", "all"])].copy()
    treated = np.flatnonzero(adata.obs["perturbation"] == "all")
    adata.obs["dose"] = 0.0
    adata.uns["unlasting"] = {"keys": {"dose_key": "dose"}}
    adata.obs.iloc[treated[::2], adata.obs.columns.get_loc("dose")] = 0.1
    adata.obs.iloc[treated[1::2], adata.obs.columns.get_loc("dose")] = 10.0
    for matrix in (adata.X, adata.layers["unlasting"]):
        low = matrix[treated[::2], 6:12]
        matrix[treated[::2], 6:12] = np.where(low > 0, low + 0.75, 0)
    return adata


def test_means_and_intervals_by_dose(planted_screen):
    adata = _screen(planted_screen)
    frame = tl.dose_response(adata, drugs=["all"], genes=["gene6"])
    assert list(frame["group"]) == ["control", "observed", "observed", "generated", "generated"]
    assert list(frame["dose"]) == [0, 0.1, 10, 0.1, 10]
    cells = adata[(adata.obs["perturbation"] == "all") & (adata.obs["dose"] == 10), "gene6"].X.ravel().astype(float)
    low, high = stats.t.interval(0.95, len(cells) - 1, loc=cells.mean(), scale=stats.sem(cells))
    np.testing.assert_allclose(frame.iloc[2][["mean", "low", "high"]].astype(float), [cells.mean(), low, high])
    assert frame.iloc[2]["mean"] < frame.iloc[1]["mean"] < frame.iloc[0]["mean"]


def test_default_genes_change_most_at_the_highest_dose(planted_screen):
    frame = tl.dose_response(_screen(planted_screen), drugs="all", n_genes=6)
    assert set(frame["gene"]) == {f"gene{i}" for i in range(6, 12)}


def test_errors_name_the_way_out(planted_screen):
    adata = _screen(planted_screen)
    frame = tl.dose_response(adata, n_genes=2)
    assert set(frame["drug"]) == {"all"}
    adata.obs["dose"] = "much"
    with pytest.raises(ValueError, match="'much'"):
        tl.dose_response(adata)
    del adata.uns["unlasting"]
    with pytest.raises(KeyError, match="setup_anndata.*dose_key"):
        tl.dose_response(adata)


def test_a_model_adds_the_interval_of_its_posterior():
    adata = ul.datasets.simulate_drug_screen(n_drugs=2, n_families=1, doses=(1.0, 10.0), n_cells=20, n_genes=40, seed=0)
    ul.pp.prepare(adata, library_size_key="library_size")
    ul.pp.molecules(adata)
    ul.UnlastingModel.setup_anndata(adata, cell_type_key="cell_type", dose_key="dose", smiles_key="smiles")
    model = ul.UnlastingModel(adata)
    model.train(max_steps=0, show_progress=False)
    drug, kind = adata.uns["simulation"]["drugs"]["drug"].iloc[0], adata.obs["cell_type"].iloc[0]
    new = model.generate(drug, 10, cell_type=kind, dose=[1.0, 10.0], show_progress=False)
    frame = tl.dose_response(adata, model=model, predictions=new, drugs=[(drug, kind)], n_genes=2)
    found = frame[frame["group"] == "posterior"]
    assert sorted(set(found["dose"])) == [1.0, 10.0]
    effects = model.effects(drug, cell_type=kind, dose=[1.0, 10.0])
    for _, row in found.iterrows():
        place = adata.var_names.get_loc(row["gene"])
        at = int(row["dose"] == 10.0)
        control = frame[(frame["group"] == "control") & (frame["gene"] == row["gene"])]["mean"].iloc[0]
        assert row["mean"] == pytest.approx(control + effects.X[at, place], abs=1e-5)
        assert (row["high"] - row["low"]) / 3.919928 == pytest.approx(effects.layers["sd"][at, place], rel=1e-3)
        assert row["expected_error"] == pytest.approx(effects.obs["unlasting_expected_error"].iloc[at])
    assert frame.loc[frame["group"] != "posterior", "expected_error"].isna().all()


def test_doses_with_training_cells_are_named(planted_screen):
    adata = _screen(planted_screen)
    adata.obs["unlasting_split"] = np.where(adata.obs["dose"] == 10, "test", "train")
    adata.uns["unlasting"]["keys"]["split_key"] = "unlasting_split"
    frame = tl.dose_response(adata, drugs=["all"], genes=["gene6"])
    assert list(frame["trained"]) == [True, True, False, True, False]
