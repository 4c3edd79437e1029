"""The metrics that cell-eval has too agree with it, on cells and on tables of differential expression."""

from __future__ import annotations

import cell_eval
import numpy as np
import pandas as pd
import polars as pl
import pytest
from anndata import AnnData
from cell_eval import metrics as peer
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from unlasting.metrics import (
    de_direction,
    de_lfc_spearman,
    de_overlap,
    de_recall,
    discrimination_score,
    e_distance,
    mse_change,
    pearson_change,
)

CONTROL = "control"
GENES = [f"G{i}" for i in range(12)]
TARGETS = GENES[:7]


def screen(rng: np.random.Generator, effects: np.ndarray, offset: float) -> AnnData:
    """Draw cells, mostly zeros, of all targets and of controls; the first target has one cell, gene 11 is never on."""
    names = np.repeat([CONTROL, *TARGETS], [40, 1, *[25] * (len(TARGETS) - 1)])
    shift = np.vstack([np.zeros(len(GENES)), effects])[np.repeat(np.arange(len(TARGETS) + 1), [40, 1, *[25] * 6])]
    values = rng.gamma(2.0, 0.5, shift.shape) * (rng.random(shift.shape) < 0.4) * np.exp(shift)
    values[:, 11] = 0.0
    obs = pd.DataFrame({"target": names}, index=[f"cell{i}" for i in range(len(names))])
    return AnnData(values + offset, obs=obs, var=pd.DataFrame(index=GENES))


@pytest.fixture(params=[0.0, 1e3], ids=["plain", "offset"])
def pair(request: pytest.FixtureRequest) -> cell_eval.PerturbationAnndataPair:
    """Observed cells, and predicted ones of which one condition is right, one is the control, and one is another."""
    rng = np.random.default_rng(0)
    effects = rng.normal(0.0, 0.7, (len(TARGETS), len(GENES)))
    real = screen(rng, effects, request.param)
    predicted = screen(rng, 0.5 * effects + rng.normal(0.0, 0.3, effects.shape), request.param)
    chosen = {name: np.flatnonzero(real.obs["target"] == name) for name in [CONTROL, *TARGETS]}
    predicted.X[chosen["G1"]] = real.X[chosen["G1"]]
    predicted.X[chosen["G2"]] = predicted.X[chosen[CONTROL][:25]]
    predicted.X[chosen["G3"]] = real.X[chosen["G4"]]
    return cell_eval.PerturbationAnndataPair(real=real, pred=predicted, pert_col="target", control_pert=CONTROL)


def cells(adata: AnnData, name: str) -> np.ndarray:
    return adata.X[(adata.obs["target"] == name).to_numpy()]


def changes(adata: AnnData) -> np.ndarray:
    return np.array([cells(adata, name).mean(axis=0) - cells(adata, CONTROL).mean(axis=0) for name in TARGETS])


@pytest.mark.parametrize(
    ("ours", "theirs"), [(mse_change, peer.mse_delta), (pearson_change, peer.pearson_delta)], ids=["mse", "pearson"]
)
def test_mean_changes(pair, ours, theirs) -> None:
    expected = theirs(pair)
    control, observed_control = cells(pair.pred, CONTROL), cells(pair.real, CONTROL)
    for name in TARGETS:
        value = ours(cells(pair.pred, name), cells(pair.real, name), control, observed_control=observed_control)
        assert value == pytest.approx(expected[name], rel=1e-9, abs=1e-11)


@pytest.mark.parametrize("distance", ["l1", "l2", "cosine"])
@pytest.mark.parametrize("exclude", [True, False])
def test_discrimination(pair, distance, exclude) -> None:
    expected = peer.discrimination_score(pair, metric=distance, exclude_target_gene=exclude)
    excluded = np.array(TARGETS)[:, None] == np.array(GENES) if exclude else None
    found = discrimination_score(changes(pair.pred), changes(pair.real), distance=distance, excluded=excluded)
    np.testing.assert_allclose(found, [expected[name] for name in TARGETS])


def test_e_distances_from_the_control(pair) -> None:
    """cell-eval gives one number of them, their correlation over conditions."""
    registered = cell_eval.metrics_registry.get_metric("pearson_edistance")
    ours = [
        [e_distance(cells(adata, name), cells(adata, CONTROL)) for name in TARGETS] for adata in (pair.real, pair.pred)
    ]
    # their distances lose digits where the cells are far from the origin
    assert stats.pearsonr(*ours).statistic == pytest.approx(registered.func(pair), rel=1e-5)


@st.composite
def tables(draw: st.DrawFn) -> dict[str, np.ndarray]:
    """Log-fold changes and adjusted p-values of two groups, with ties, genes that are never on, and missing values."""
    n = draw(st.integers(2, 25))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    table: dict[str, np.ndarray] = {}
    for name in ("predicted", "observed"):
        lfc = rng.normal(size=n).astype(np.float32)
        table[f"{name}_lfc"] = np.round(lfc) if draw(st.booleans()) else lfc
        table[f"{name}_pvalue"] = (draw(st.sampled_from([0.06, 0.2, 1.0])) * rng.random(n)).astype(np.float32)
    silent = rng.random(n) < draw(st.sampled_from([0.0, 0.3]))
    for name, value in (("lfc", 0.0), ("pvalue", draw(st.sampled_from([1.0, np.nan])))):
        table[f"predicted_{name}"][silent] = table[f"observed_{name}"][silent] = value
    return table


def comparison(table: dict[str, np.ndarray]) -> cell_eval.DEComparison:
    """Give a table to cell-eval."""
    frames = {}
    for name in ("predicted", "observed"):
        pvalue = table[f"{name}_pvalue"]
        columns = {"log2_fold_change": table[f"{name}_lfc"], "p_value": pvalue, "fdr": pvalue}
        n = len(pvalue)
        frames[name] = pl.DataFrame({"target": ["A"] * n, "feature": [f"G{i}" for i in range(n)], **columns})
    return cell_eval.initialize_de_comparison(real=frames["observed"], pred=frames["predicted"])


@given(tables())
@settings(max_examples=60, deadline=None)
def test_tables_of_differential_expression(table) -> None:
    given_to_peer = comparison(table)
    lfc = table["predicted_lfc"], table["observed_lfc"]
    found = {
        "direction": de_direction(*lfc, table["observed_pvalue"]),
        "spearman": de_lfc_spearman(*lfc, table["observed_pvalue"]),
        "recall": de_recall(table["predicted_pvalue"], table["observed_pvalue"]),
    }
    expected = {
        "direction": peer.DEDirectionMatch()(given_to_peer),
        "spearman": peer.DESpearmanLFC()(given_to_peer),
        "recall": peer.DESigGenesRecall()(given_to_peer),
    }
    # nothing is significant: they leave the condition out
    assert found == {name: pytest.approx(value.get("A", np.nan), nan_ok=True) for name, value in expected.items()}


@given(tables(), st.one_of(st.none(), st.integers(1, 8)))
@settings(max_examples=60, deadline=None)
def test_overlap_of_top_genes(table, n_top) -> None:
    ranked = {name: np.abs(table[f"{name}_lfc"][table[f"{name}_pvalue"] < 0.05]) for name in ("predicted", "observed")}
    n = min(n_top or len(ranked["observed"]), len(ranked["observed"]))
    found = de_overlap(
        table["predicted_lfc"],
        table["observed_lfc"],
        table["predicted_pvalue"],
        table["observed_pvalue"],
        n_top=n_top,
    )
    if n == 0:
        assert np.isnan(found)
        return
    expected = peer.de_overlap_metric(comparison(table), k=n_top)["A"]
    # which of several genes that are tied comes last among the top ones is nobody's to say
    tied = sum(
        max((np.sort(values)[::-1][n - 1] == values).sum() - 1, 0) for values in ranked.values() if len(values) >= n
    )
    assert abs(found - expected) * n <= tied
