from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from unlasting import baselines, datasets, pp, tl

QUICK = {"n_permutations": 99, "n_repeats": 2, "gene_sets": "all", "metrics": "emd"}


def _prepared(adata):
    pp.prepare(adata)
    pp.grn(adata, prior=adata.uns["simulation"]["edges"])


@pytest.fixture(scope="module")
def counts():
    """A simulated screen of raw counts."""
    return datasets.simulate_screen(n_cells=60, n_controls=120, n_genes=60, n_targets=9, seed=1)


@pytest.fixture
def three():
    return {"no effect": baselines.NoEffect(), "mean shift": baselines.MeanShift(), "pooled": baselines.Pooled()}


def test_ranks_and_tests_agree_with_the_scores_of_single_conditions(counts, three):
    adata = counts.copy()
    frame = tl.benchmark(adata, three, seeds=(0, 1), prepare=_prepared, **QUICK)
    scores = adata.uns["unlasting"]["benchmark_scores"]
    assert set(scores["seed"]) == {0, 1}
    kept = scores[scores["scored"]].groupby(["condition", "predictor"])[["value", "floor", "no_effect"]].mean()
    means = kept.groupby("predictor").mean()
    expected = (means["value"] - means["floor"]) / (means["no_effect"] - means["floor"])
    found = frame.set_index("predictor")
    pd.testing.assert_series_equal(found["score"], expected.loc[found.index], check_names=False)
    assert list(frame["rank"]) == sorted(frame["rank"])
    assert list(found.index) == list(expected.sort_values(kind="stable").index)
    values = kept["value"].unstack("predictor")
    p_values = {}
    for name in ("mean shift", "pooled"):
        difference = values[name] - values["no effect"]
        p_values[name] = stats.wilcoxon(difference).pvalue
        assert found.loc[name, "p_value"] == pytest.approx(p_values[name])
        assert found.loc[name, "better_in"] == pytest.approx((difference < 0).mean())
    smaller, larger = sorted(p_values, key=p_values.get)
    assert found.loc[smaller, "p_adjusted"] == pytest.approx(min(1, 2 * p_values[smaller]))
    assert found.loc[larger, "p_adjusted"] >= found.loc[smaller, "p_adjusted"]
    assert np.isnan(found.loc["no effect", "p_value"])
    assert set(found["reference"]) == {"no effect"}
    others = found.drop("no effect")
    np.testing.assert_allclose(others["difference"], others["score"] - 1)
    assert (others["difference_low"] <= others["difference"]).all()
    assert (others["n_paired"] == others["n_conditions"]).all()


def test_nothing_of_the_test_cells_is_known_to_what_prepares(counts, three):
    """The copy that is prepared carries the split already."""
    seen = []

    def prepare(adata):
        seen.append(adata.obs["unlasting_split"].value_counts().to_dict())
        _prepared(adata)

    adata = counts.copy()
    tl.benchmark(adata, three, splits={"mine": {"kind": "leave_one_out", "test": "T1"}}, prepare=prepare, **QUICK)
    assert seen[0]["test"] == 60
    assert "unlasting_split" not in adata.obs
    assert sparse.issparse(adata.X)
    np.testing.assert_array_equal(adata.X.toarray(), counts.X.toarray())


def test_folds_of_one_split_are_put_together(counts, three):
    names = ["T1", "T2", "T3"]
    folds = {"one by one": [{"kind": "leave_one_out", "test": name} for name in names]}
    adata = counts.copy()
    frame = tl.benchmark(adata, three, splits=folds, conditions=names, prepare=_prepared, **QUICK)
    assert set(frame["split"]) == {"one by one"}
    assert set(frame["n_conditions"]) == {3}
    assert set(adata.uns["unlasting"]["benchmark_scores"]["condition"]) == set(names)


def test_a_column_is_a_split(planted_screen, three):
    adata = planted_screen(120)
    adata.obs["mine"] = adata.obs.pop("unlasting_split")
    frame = tl.benchmark(adata, three, splits="mine", reference="pooled", **QUICK)
    assert set(frame["split"]) == {"mine"}
    assert frame.set_index("predictor")["p_value"].isna().to_dict() == {
        "pooled": True,
        "mean shift": False,
        "no effect": False,
    }


def test_a_model_is_one_of_the_predictors(planted_screen):
    class Model:
        def __init__(self, adata):
            self.adata = adata

        def generate(self, perturbation, n_cells, seed=0):
            rows = np.flatnonzero(self.adata.obs["perturbation"] == perturbation)
            return self.adata[np.random.default_rng(seed).permutation(rows)[:n_cells]]

    adata = planted_screen(240)
    predictors = {"cheat": baselines.ModelPredictor(Model), "pooled": baselines.Pooled()}
    frame = tl.benchmark(adata, predictors, splits="unlasting_split", **QUICK).set_index("predictor")
    assert frame.loc["cheat", "rank"] == 1
    assert frame.loc["cheat", "score"] < 0.1
    assert frame.loc["pooled", "better_in"] == 0


def test_results_survive_h5ad(planted_screen, three, tmp_path):
    adata = planted_screen(120)
    frame = tl.benchmark(adata, splits="unlasting_split", **QUICK)
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = anndata.read_h5ad(tmp_path / "a.h5ad").uns["unlasting"]
    assert list(again["benchmark"]["predictor"]) == list(frame["predictor"])
    assert set(again["benchmark_left_out"]["predictor"]) >= {
        "additive",
        "nearest dose",
        "dose interpolation",
        "nearest target",
        "linear",
    }
    assert set(again["benchmark_false_positives"]["condition"]) <= {"none"}


def test_errors_name_the_way_out(planted_screen, three):
    adata = planted_screen(60)
    for arguments, message in (
        ({"predictors": {}}, "`predictors` is empty"),
        ({"reference": "poled"}, "Did you mean 'pooled'"),
        ({"seeds": ()}, "`seeds` is empty"),
        ({"splits": "unseen_perturbations"}, "Did you mean 'unseen_perturbation'"),
        ({"conditions": ["Half"], "splits": "unlasting_split"}, "Did you mean 'half'"),
    ):
        with pytest.raises(ValueError, match=message):
            tl.benchmark(adata, **{"predictors": three, **arguments}, **QUICK)
        assert "unlasting" not in adata.uns
