"""Pathways that go up or down agree with a regression by scipy."""

from __future__ import annotations

import sys

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from unlasting import tl

GENES = [f"gene{i}" for i in range(30)]
SETS = {
    "rises": GENES[:6],
    "falls": GENES[6:12],
    "else": GENES[15:25],
    "small": GENES[:3],
    "elsewhere": ["NOT_HERE"] * 9,
}


@pytest.fixture(scope="module")
def ranked(planted_screen):
    adata = planted_screen(120)
    adata.X[:, 20:23] = adata.layers["unlasting"][:, 20:23] = 0.0
    tl.rank(adata)
    return adata


def regressions(t: np.ndarray, weights: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Slopes over their standard errors, and adjusted p-values."""
    found = [stats.linregress(weight, t) for weight in weights]
    return np.array([r.slope / r.stderr for r in found]), stats.false_discovery_control([r.pvalue for r in found])


def test_agrees_with_a_regression(ranked):
    frame = tl.enrich(ranked, SETS)
    ranking, stored = (ranked.uns["unlasting"][key] for key in ("rank", "rank_genes"))
    assert list(frame["condition"].unique()) == list(ranking["condition"])
    names = ["rises", "falls", "else"]
    members = [np.isin(GENES, SETS[name]).astype(float) for name in names]
    for condition, t in zip(ranking["condition"], stored["t"], strict=True):
        part = frame[frame["condition"] == condition]
        assert part["score"].abs().is_monotonic_decreasing
        part = part.set_index("pathway").loc[names]
        score, p_adjusted = regressions(t, members)
        np.testing.assert_allclose(part["score"], score, rtol=1e-4)
        np.testing.assert_allclose(part["p_adjusted"], p_adjusted, rtol=1e-3)
        assert list(part["n_genes"]) == [6, 6, 10]


def test_the_genes_of_a_ranking_are_welch_tests_in_its_order(ranked):
    ranking, stored = (ranked.uns["unlasting"][key] for key in ("rank", "rank_genes"))
    control = ranked[ranked.obs["perturbation"] == "control"].X
    assert list(stored["genes"]) == GENES
    for condition, t in zip(ranking["condition"], stored["t"], strict=True):
        cells = ranked[ranked.obs["perturbation"] == condition].layers["unlasting"]
        expected = np.nan_to_num(stats.ttest_ind(cells, control, equal_var=False).statistic)
        np.testing.assert_allclose(t, expected, rtol=1e-3, atol=1e-4)


def test_the_sign_is_the_direction(ranked):
    frame = tl.enrich(ranked, SETS).groupby("condition").first()
    assert (frame.loc["half", "pathway"], frame.loc["all", "pathway"]) == ("rises", "falls")
    assert frame.loc["half", "score"] > 3
    assert frame.loc["all", "score"] < -3


def test_weights_of_a_network_count(ranked):
    network = pd.DataFrame({"source": "R", "target": GENES[:12], "weight": [2.0] * 6 + [-1.0] * 6})
    frame = tl.enrich(ranked, network).set_index("condition")
    weight = np.zeros(30)
    weight[:12] = network["weight"]
    stored, names = ranked.uns["unlasting"]["rank_genes"]["t"], ranked.uns["unlasting"]["rank"]["condition"]
    for condition, t in zip(names, stored, strict=True):
        assert frame.loc[condition, "score"] == pytest.approx(regressions(t, [weight])[0][0], rel=1e-4)


def test_a_condition_or_pathway_without_contrast_is_left_out(ranked):
    adata = ranked.copy()
    adata.uns["unlasting"]["rank_genes"]["t"][1] = 0.0
    conditions = list(adata.uns["unlasting"]["rank"]["condition"])
    frame = tl.enrich(adata, {**SETS, "all genes": GENES})
    assert list(frame["condition"].unique()) == [conditions[0], conditions[2]]
    assert set(frame["pathway"]) == {"rises", "falls", "else"}
    adata.uns["unlasting"]["rank_genes"]["t"][:] = 0.0
    with pytest.raises(ValueError, match="No gene changes"):
        tl.enrich(adata, SETS)


def test_results_survive_h5ad(ranked, tmp_path):
    frame = tl.enrich(ranked, SETS)
    ranked.write_h5ad(tmp_path / "a.h5ad")
    again = anndata.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(again.uns["unlasting"]["enrichment"], frame, check_dtype=False)
    pd.testing.assert_frame_equal(tl.enrich(again, SETS), frame, check_dtype=False)


def test_errors_name_the_way_out(ranked, planted_screen, monkeypatch):
    with pytest.raises(KeyError, match="ul.tl.rank"):
        tl.enrich(planted_screen(20), SETS)
    with pytest.raises(ValueError, match="gene names like those"):
        tl.enrich(ranked, {"a": ["ENSG1"]})
    with pytest.raises(ValueError, match="`min_genes=40` of the 30 genes .*the largest has 10"):
        tl.enrich(ranked, SETS, min_genes=40)
    with pytest.raises(KeyError, match="`target`"):
        tl.enrich(ranked, pd.DataFrame({"source": ["a"]}))
    monkeypatch.setitem(sys.modules, "decoupler", None)
    with pytest.raises(ImportError, match=r"unlasting\[pathways\]"):
        tl.enrich(ranked, SETS)
