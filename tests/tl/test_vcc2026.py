"""The profile of the challenge: its scale, what it leaves out, and its errors."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import unlasting as ul
from unlasting.metrics import VCC2026

TESTED = ("G0", "G2", "G4", "G6")


@pytest.fixture(scope="module")
def counts_screen() -> AnnData:
    rng = np.random.default_rng(5)
    genes = [f"G{i}" for i in range(60)]
    labels = np.repeat(["control", *genes[:8]], [200, *[160] * 8])
    shared = rng.normal(0.0, 0.6, 60) * (rng.random(60) < 0.3)
    effects = shared + rng.normal(0.0, 1.0, (8, 60)) * (rng.random((8, 60)) < 0.4)
    log_rate = np.vstack([np.zeros(60), effects]) + np.log(rng.gamma(1.0, 5.0, 60) + 0.5)
    rates = np.exp(log_rate)[np.repeat(np.arange(9), [200, *[160] * 8])]
    adata = AnnData(rng.poisson(rates * rng.gamma(6.0, 1 / 6, (len(labels), 1)) + 0.02).astype(np.float32))
    adata.obs_names, adata.var_names = [f"c{i}" for i in range(len(labels))], genes
    adata.obs["perturbation"] = labels
    adata.obs["unlasting_split"] = np.where(np.isin(labels, TESTED), "test", "train")
    ul.pp.prepare(adata, n_top_genes=60)
    return adata


def scores(adata: AnnData) -> pd.DataFrame:
    summary = adata.uns["unlasting"]["vcc2026_summary"]
    return summary.pivot(index="metric", columns="predictor", values="score")


def test_other_cells_of_the_truth_win_and_are_near_a_replicate(counts_screen: AnnData) -> None:
    adata = counts_screen.copy()
    test = np.flatnonzero(adata.obs["perturbation"].isin(TESTED))
    half = test[np.arange(len(test)) % 2 == 0]
    truth = AnnData(adata.layers["counts"][half], obs=adata.obs.iloc[half], var=adata.var)
    adata.obs.iloc[half, adata.obs.columns.get_loc("unlasting_split")] = "val"
    frame = ul.tl.evaluate(
        adata, predictions=truth, profile="vcc2026", baselines=["mean shift", "pooled"], name="truth"
    )
    table = scores(adata)
    assert set(table.columns) == {"truth", "no effect", "mean shift", "pooled"}
    assert table.loc["mean", "truth"] > 0.8
    assert table.loc["mean", ["no effect", "mean shift", "pooled"]].max() < 0.5
    assert set(frame["condition"]) == set(TESTED)
    assert frame.groupby("metric")["value"].apply(lambda x: x.notna().any()).all()
    summary = adata.uns["unlasting"]["vcc2026_summary"]
    mean = summary[summary["metric"] == "mean"].set_index("predictor")["score"]
    own = summary[summary["metric"].isin(VCC2026)].groupby("predictor")["score"].mean()
    pd.testing.assert_series_equal(mean.sort_index(), own, check_names=False)
    assert "scores" not in adata.uns["unlasting"]


def test_two_cell_types_are_scored_apart(counts_screen: AnnData) -> None:
    first, second = counts_screen.copy(), counts_screen.copy()
    second.obs_names = second.obs_names + "-2"
    adata = anndata.concat([first, second], merge="same", uns_merge="first")
    adata.obs["cell_type"] = np.repeat(["A", "B"], first.n_obs)
    ul.tl.evaluate(adata, layer=None, profile="vcc2026", baselines=[], cell_type_key="cell_type")
    ul.tl.evaluate(first, layer=None, profile="vcc2026", baselines=[])
    ends = ["mean_response", "replicate"]
    one = first.uns["unlasting"]["vcc2026_summary"].set_index("metric")[ends]
    for _, part in adata.uns["unlasting"]["vcc2026_summary"].groupby("cell_type"):
        assert part.set_index("metric").loc["perturbation_discrimination", ends].notna().all()
        np.testing.assert_allclose(
            part.set_index("metric").loc["mse_ratio", "mean_response"], one.loc["mse_ratio", "mean_response"], rtol=1e-9
        )


def test_a_predictor_without_a_condition_is_left_out_with_the_reason(counts_screen: AnnData) -> None:
    adata = counts_screen.copy()
    ul.tl.evaluate(adata, layer=None, profile="vcc2026", baselines=["additive"])
    left_out = adata.uns["unlasting"]["vcc2026_left_out"]
    assert left_out["predictor"].tolist() == ["additive"]
    assert "combination" in left_out["reason"].iloc[0]


def test_what_cannot_be_scored_is_refused(counts_screen: AnnData) -> None:
    adata = counts_screen.copy()
    with pytest.raises(KeyError, match="no profile 'vcc'.*'vcc2026'"):
        ul.tl.evaluate(adata, layer=None, profile="vcc")
    means = AnnData(np.ones((4, 60), dtype=np.float32) * 0.5, var=pd.DataFrame(index=adata.var_names))
    means.obs["perturbation"] = list(TESTED)
    with pytest.raises(ValueError, match="one row for each condition.*Give several cells"):
        ul.tl.evaluate(adata, predictions=means, profile="vcc2026")
    with pytest.raises(ValueError, match="Lower `min_cells`"):
        ul.tl.evaluate(adata, layer=None, profile="vcc2026", min_cells=1000)
    del adata.layers["counts"]
    with pytest.raises(ValueError, match="Keep the raw counts"):
        ul.tl.evaluate(adata, layer=None, profile="vcc2026")


def test_one_condition_has_values_but_no_score(counts_screen: AnnData) -> None:
    adata = counts_screen.copy()
    ul.tl.evaluate(adata, layer=None, profile="vcc2026", conditions=["G0"], baselines=["pooled"])
    summary = adata.uns["unlasting"]["vcc2026_summary"].set_index(["predictor", "metric"])
    assert summary["score"].isna().all()
    assert summary["mean_response"].isna().all()
    defined = [name for name in VCC2026 if name != "perturbation_discrimination"]
    assert summary.loc["pooled"].loc[defined, ["value", "replicate"]].notna().all(axis=None)
