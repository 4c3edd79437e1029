from __future__ import annotations

import logging
import re
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from scipy import stats
from scipy.spatial.distance import cdist, pdist

from unlasting import baselines, tl
from unlasting.metrics import METRICS, Metric

QUICK = {"n_permutations": 99, "n_repeats": 3}
SIMPLE = ("no effect", "mean shift", "pooled")


def _score(adata: AnnData, predictor: str, metric: str, gene_set: str = "all") -> float:
    frame = adata.uns["unlasting"]["score_summary"].set_index(["predictor", "metric", "gene_set"])
    return frame.loc[(predictor, metric, gene_set), "score"]


def _constant_screen() -> AnnData:
    """All cells of a condition are the same: every number of the protocol can be written down."""
    rng = np.random.default_rng(0)
    profiles = {name: 1 + rng.random(6) for name in ("control", "A", "B", "C")}
    labels = np.repeat(list(profiles), 40)
    obs = pd.DataFrame({"perturbation": labels}, index=[f"cell{i}" for i in range(160)])
    obs["unlasting_split"] = np.where(obs["perturbation"].isin(["A", "B"]), "test", "train")
    adata = AnnData(np.array([profiles[name] for name in labels]), obs=obs)
    adata.layers["unlasting"] = adata.X + np.repeat(rng.normal(0, 0.3, (4, 6)), 40, axis=0)
    return adata


def test_values_scores_and_effects_of_a_screen_that_can_be_written_down():
    adata = _constant_screen()
    frame = tl.evaluate(adata, baselines=SIMPLE, gene_sets="all", metrics=["e_distance", "emd"], **QUICK)
    first = {name: np.flatnonzero(adata.obs["perturbation"] == name)[0] for name in ("control", "A", "B", "C")}
    observed = {name: adata.X[row] for name, row in first.items()}
    change = {name: observed[name] - observed["control"] for name in ("A", "B")}
    given = {
        "unlasting": {name: adata.layers["unlasting"][first[name]] for name in ("A", "B")},
        "no effect": dict.fromkeys("AB", observed["control"]),
        "mean shift": dict.fromkeys("AB", observed["C"]),
        "pooled": dict.fromkeys("AB", observed["C"]),
    }
    values = frame.set_index(["metric", "predictor", "condition"])
    for metric, distance in (("e_distance", lambda x: 2 * np.linalg.norm(x)), ("emd", lambda x: np.abs(x).mean())):
        for predictor, cells in given.items():
            expected = {name: distance(cells[name] - observed[name]) for name in ("A", "B")}
            below = {name: distance(change[name]) for name in ("A", "B")}
            for name in ("A", "B"):
                row = values.loc[(metric, predictor, name)]
                assert row["value"] == pytest.approx(expected[name], rel=1e-5)
                assert row["floor"] == pytest.approx(0, abs=1e-6)
                assert row["no_effect"] == pytest.approx(below[name], rel=1e-5)
                assert row["normalised"] == pytest.approx(expected[name] / below[name], rel=1e-4)
            whole = sum(expected.values()) / sum(below.values())
            assert _score(adata, predictor, metric) == pytest.approx(whole, rel=1e-4)
    effects = adata.uns["unlasting"]["effects"].set_index("condition")
    for name in ("A", "B"):
        np.testing.assert_allclose(effects.loc[name, "observed"], change[name], atol=1e-6)
        predicted = given["unlasting"][name] - observed["control"]
        np.testing.assert_allclose(effects.loc[name, "predicted"], predicted, atol=1e-6)
        r = np.corrcoef(predicted, change[name])[0, 1]
        slope = np.linalg.lstsq(np.asarray(predicted)[:, None], change[name], rcond=None)[0]
        np.testing.assert_allclose(effects.loc[name, ["pearson", "slope"]].iloc[0], [r, *slope], rtol=1e-5)


def test_cells_in_blocks_give_the_same_numbers(planted_screen, monkeypatch):
    """Large screens are read in blocks, whose moments are joined."""
    frames = []
    for block in (10_000, 7):
        monkeypatch.setattr("unlasting.tl._screen.BLOCK", block)
        adata = planted_screen(60)
        adata.obs["unlasting_split"] = np.where(adata.obs["perturbation"] == "all", "test", "train")
        metrics = ["pearson_change", "weighted_mse", "de_direction"]
        frames.append(tl.evaluate(adata, baselines=SIMPLE, gene_sets="de20", metrics=metrics, **QUICK))
    pd.testing.assert_frame_equal(*frames, rtol=1e-6)


def _noise(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Draw cells without structure, about as large as those of the screen."""
    return (rng.uniform(0, 4, shape) * (rng.random(shape) < 0.5)).astype(np.float32)


def _cells_like(adata: AnnData, kind: str, n: int = 400) -> AnnData:
    """Generate cells that are true, unperturbed or noise."""
    rng = np.random.default_rng(7)
    parts, labels = [], []
    for name in ("half", "all", "none"):
        source = adata.layers["unlasting"][(adata.obs["perturbation"] == (name if kind == "true" else "control"))]
        rows = rng.integers(len(source), size=n)
        parts.append(source[rows] if kind != "noise" else _noise(rng, (n, adata.n_vars)))
        labels += [name] * n
    obs = pd.DataFrame({"perturbation": labels}, index=[f"new{i}" for i in range(3 * n)])
    return AnnData(np.vstack(parts), obs=obs, var=adata.var)


def test_true_cells_score_zero_controls_one_and_noise_more(planted_screen):
    adata = planted_screen(450)
    for kind, low, high in (("true", -0.06, 0.06), ("controls", 0.9, 1.1), ("noise", 1.0, 1e9)):
        predictions = _cells_like(adata, kind)
        metrics = ["e_distance", "emd", "energy", "mmd"]
        tl.evaluate(adata, predictions=predictions, baselines=(), metrics=metrics, gene_sets="all", **QUICK)
        summary = adata.uns["unlasting"]["score_summary"]
        assert summary.loc[summary["predictor"] == "prediction", "score"].between(low, high).all()
        np.testing.assert_allclose(summary.loc[summary["predictor"] == "no effect", "score"], 1)


def test_the_true_cells_reach_the_ceiling_and_no_effect_has_no_direction(planted_screen):
    adata = planted_screen(600)
    correlations = ["pearson_change", "pearson_change_centred"]
    predictions = _cells_like(adata, "true")
    tl.evaluate(adata, predictions=predictions, baselines=SIMPLE, metrics=correlations, gene_sets="all", **QUICK)
    for metric in correlations:
        assert _score(adata, "prediction", metric) == pytest.approx(1, abs=0.03)
    # a shared control would correlate the two changes
    assert abs(_score(adata, "no effect", "pearson_change")) < 0.3
    assert abs(_score(adata, "mean shift", "pearson_change_centred")) < 0.5


def _spy(name: str, needs: tuple[str, ...], seen: list[dict[str, np.ndarray]]) -> Metric:
    """Make a metric that keeps the arrays which it was given."""

    def record(**arrays: np.ndarray) -> float:
        seen.append({need: np.asarray(array, dtype=np.float64) for need, array in arrays.items()})
        return 0.0

    return Metric(name, record, 0.0, needs)


def test_every_value_agrees_with_brute_force(planted_screen):
    """A metric of one's own sees the cells of each comparison; scipy and scanpy compute all values from them."""
    adata, seen = planted_screen(120), []
    needs = ("predicted", "observed", "control", "observed_control", "reference", "weights")
    names = [
        "weighted_mse",
        "e_distance",
        "emd",
        "pearson_change",
        "mse_change",
        "pearson_change_centred",
        "zero_fraction_error",
    ]
    tables = ["de_recall", "de_direction"]
    frame = tl.evaluate(
        adata,
        metrics=[_spy("spy", needs, seen), *names, *tables],
        baselines=(),
        conditions="all",
        gene_sets=["all", "de5"],
        n_repeats=1,
        n_permutations=19,
    )
    values = frame[frame["predictor"] == "unlasting"].set_index(["metric", "gene_set"])
    # floor and no effect over both gene sets, then the prediction
    for column, gene_set, at in (("floor", "all", 0), ("floor", "de5", 1), ("value", "all", 4), ("value", "de5", 5)):
        x, y, c, oc, r, w = (seen[at][need] for need in needs)
        assert x.shape == (20, 30 if gene_set == "all" else 5)
        found = values[column].xs(gene_set, level="gene_set")
        u_statistic = 2 * cdist(x, y).mean() - pdist(x).mean() - pdist(y).mean()
        assert found["e_distance"] == pytest.approx(u_statistic, rel=1e-4, abs=1e-5)
        emd = np.mean([stats.wasserstein_distance(a, b) for a, b in zip(x.T, y.T, strict=True)])
        assert found["emd"] == pytest.approx(emd, rel=1e-5)
        changes = x.mean(axis=0) - c.mean(axis=0), y.mean(axis=0) - oc.mean(axis=0)
        assert found["pearson_change"] == pytest.approx(stats.pearsonr(*changes)[0], rel=1e-4)
        assert found["mse_change"] == pytest.approx(np.mean((changes[0] - changes[1]) ** 2), rel=1e-4)
        centred = [cells.mean(axis=0) - r for cells in (x, y)]
        assert found["pearson_change_centred"] == pytest.approx(stats.pearsonr(*centred)[0], rel=1e-4)
        assert found["zero_fraction_error"] == pytest.approx(
            np.abs((x == 0).mean(0) - (y == 0).mean(0)).mean(), abs=1e-7
        )
        weighted = np.average((x.mean(axis=0) - y.mean(axis=0)) ** 2, weights=w)
        assert found["weighted_mse"] == pytest.approx(weighted, rel=1e-4)
        if gene_set == "all":
            predicted, observed = _scanpy_table(x, c), _scanpy_table(y[: len(x)], oc)
            significant = observed["pvals_adj"] < 0.05
            assert significant.any()
            recall = (predicted["pvals_adj"] < 0.05)[significant].mean()
            assert found["de_recall"] == pytest.approx(recall)
            same = np.sign(predicted["scores"]) == np.sign(observed["scores"])
            assert found["de_direction"] == pytest.approx(same[significant].mean())
    top = adata.uns["unlasting"]["effects"].query("is_de20")["gene"]
    train = adata[(adata.obs["unlasting_split"] == "train").to_numpy()]
    cells, controls = (np.asarray(train.X[train.obs["perturbation"] == name], float) for name in ("all", "control"))
    expected = _scanpy_table(cells, controls)["scores"].abs().sort_values(ascending=False)[:20]
    assert set(top) == {f"gene{i}" for i in expected.index}


def _scanpy_table(cells: np.ndarray, controls: np.ndarray) -> pd.DataFrame:
    """Test the genes by scanpy."""
    obs = pd.DataFrame({"group": pd.Categorical(["a"] * len(cells) + ["c"] * len(controls))})
    adata = AnnData(np.vstack([cells, controls]), obs=obs.set_index(obs.index.astype(str)))
    sc.tl.rank_genes_groups(adata, "group", groups=["a"], reference="c", method="t-test_overestim_var")
    table = sc.get.rank_genes_groups_df(adata, "a")
    return table.set_index(table["names"].astype(int)).sort_index()


def _planted_scores(names: dict[str, list[float]]) -> tuple[AnnData, dict[str, baselines.Predictor]]:
    """Make a screen of constant cells, and predictors that are off by a given share of each effect."""
    rng = np.random.default_rng(0)
    n = len(next(iter(names.values())))
    effects = rng.normal(0, 1, (n, 6)) * np.geomspace(4, 1, n)[:, None]
    labels = np.repeat(["control", *(f"P{i}" for i in range(n))], 40)
    values = np.repeat(np.vstack([np.zeros(6), effects]), 40, axis=0) + 9.5
    obs = pd.DataFrame({"perturbation": labels}, index=[f"cell{i}" for i in range(len(labels))])
    obs["unlasting_split"] = np.where(labels == "control", "train", "test")

    class Off(baselines.Shift):
        def __init__(self, shares: list[float]) -> None:
            self.shares = shares

        def _shift(self, condition: baselines.Condition) -> np.ndarray:
            i = int(condition.perturbation[1:])
            return (1 - self.shares[i]) * effects[i]

    return AnnData(values, obs=obs), {name: Off(shares) for name, shares in names.items()}


def test_differences_and_the_condition_that_decides():
    shares = {"ours": [0.1, 0.6, 0.6, 0.6], "even": [0.5, 0.5, 0.5, 0.5], "worse": [0.7, 0.7, 0.7, 0.7]}
    adata, predictors = _planted_scores(shares)
    predictors["ceiling"] = type(predictors["ours"])([0.0] * 4)
    predictors["ceiling"].is_ceiling = True
    options = {"layer": None, "baselines": predictors, "metrics": "e_distance", "gene_sets": "all", **QUICK}
    tl.evaluate(adata, reference="even", **options)
    summary = adata.uns["unlasting"]["score_summary"].set_index("predictor")
    weights = np.array([np.linalg.norm(x) for x in _effect_sizes(adata)])
    expected = {name: np.average(values, weights=weights) for name, values in shares.items()}
    for name in shares:
        assert summary.loc[name, "score"] == pytest.approx(expected[name], rel=1e-3)
        assert (summary.loc[name, ["n_conditions", "n_paired"]] == 4).all()
    ours = summary.loc["ours"]
    assert ours["difference"] == pytest.approx(expected["ours"] - expected["even"], rel=1e-2)
    without = [
        np.average(np.delete(np.subtract(shares["ours"], shares["even"]), i), weights=np.delete(weights, i))
        for i in range(4)
    ]
    assert [ours["without_one_low"], ours["without_one_high"]] == pytest.approx([min(without), max(without)], rel=1e-2)
    assert ours["difference_low"] < ours["difference"] < ours["difference_high"]
    assert summary["decided_by"].to_dict() == {name: "P0" if name == "ours" else "" for name in summary.index}
    assert summary.index[summary["is_ceiling"]].tolist() == ["ceiling"]
    assert summary.index[summary["is_best"]].tolist() == ["ours"]
    assert np.isnan(summary.loc["even", "difference"])
    # without a reference it is the best baseline, and never the ceiling
    tl.evaluate(adata, **options)
    assert set(adata.uns["unlasting"]["score_summary"]["reference"]) == {"ours"}


def _effect_sizes(adata: AnnData) -> np.ndarray:
    means = pd.DataFrame(adata.X).groupby(adata.obs["perturbation"].to_numpy()).mean()
    return (means.drop("control") - means.loc["control"]).to_numpy()


@pytest.mark.slow
def test_the_number_of_generated_cells_does_not_bias(planted_screen):
    adata = planted_screen(600)
    rng = np.random.default_rng(3)
    many = _cells_like(adata, "true")
    few = many[np.concatenate([rng.choice(400, 24, replace=False) + start for start in (0, 400, 800)])].copy()
    found = {}
    for name, predictions in (("many", many), ("few", few)):
        frame = tl.evaluate(adata, predictions=predictions, baselines=["pooled"], n_permutations=99)
        found[name] = frame[(frame["predictor"] == "prediction") & (frame["metric"] == "emd")]
        assert abs(_score(adata, "prediction", "emd")) < 0.1
    assert set(found["few"]["n_cells"]) == {24}
    assert set(found["many"]["n_cells"]) == {100}
    # the distance itself grows as samples get smaller: its floor does too
    assert found["few"]["value"].mean() > 1.3 * found["many"]["value"].mean()


def test_conditions_without_a_signal_stay_out_of_the_score_unless_named(planted_screen):
    adata = planted_screen(600)
    options = {"baselines": (), "metrics": ["e_distance", "pearson_change"], **QUICK}
    frame = tl.evaluate(adata, **options)
    assert frame.groupby("condition")["signal"].first().to_dict() == {"all": True, "half": True, "none": False}
    assert frame.loc[frame["condition"] == "none", "normalised"].isna().all()
    assert set(adata.uns["unlasting"]["score_summary"]["n_conditions"]) == {2}
    listed = adata.uns["unlasting"]["score_conditions"].set_index("condition")
    assert listed["scored"].to_dict() == {"all": True, "half": True, "none": False}
    tl.evaluate(adata, conditions=["none", "all"], **options)
    stored = adata.uns["unlasting"]
    assert set(stored["score_summary"]["n_conditions"]) == {2}
    assert stored["score_conditions"].set_index("condition")["scored"].to_dict() == {"none": True, "all": True}
    assert not stored["score_conditions"].set_index("condition").loc["none", "signal"]


def test_score_is_a_ratio_of_means_with_an_interval_over_conditions(planted_screen):
    adata = planted_screen(240)
    frame = tl.evaluate(adata, baselines=["pooled"], metrics=["emd", "pearson_change"], gene_sets="de20", **QUICK)
    kept = frame[frame["signal"] & (frame["predictor"] == "pooled")]
    mean = kept.groupby("metric")[["value", "floor", "no_effect"]].mean()
    emd, pearson = mean.loc["emd"], mean.loc["pearson_change"]
    assert _score(adata, "pooled", "emd", "de20") == pytest.approx(
        (emd["value"] - emd["floor"]) / (emd["no_effect"] - emd["floor"])
    )
    assert _score(adata, "pooled", "pearson_change", "de20") == pytest.approx(pearson["value"] / pearson["floor"])
    # with two conditions the bootstrap takes one, the other or both
    row = adata.uns["unlasting"]["score_summary"].set_index(["predictor", "metric"]).loc[("pooled", "emd")]
    single = kept.loc[kept["metric"] == "emd", "normalised"]
    assert [row["low"], row["high"]] == pytest.approx([single.min(), single.max()])


@pytest.mark.slow
def test_a_baseline_that_applies_to_no_condition_is_not_reported(planted_screen, caplog, monkeypatch):
    monkeypatch.setattr("unlasting.screen.logger.propagate", True)
    adata = planted_screen(90)
    with caplog.at_level(logging.INFO):
        tl.evaluate(adata, **QUICK)
    left_out = adata.uns["unlasting"]["score_left_out"].groupby("predictor").size()
    assert {"additive": 3, "nearest dose": 3, "dose interpolation": 3}.items() <= left_out.to_dict().items()
    assert not any(name in caplog.text for name in ("'additive'", "'nearest dose'", "'dose interpolation'"))
    assert "'nearest target' is missing in 3 of 3" in caplog.text  # a prior would mend it
    caplog.clear()
    labels = adata.obs["perturbation"].astype(str)
    adata.obs["perturbation"] = labels.replace({"half": "none+all"})
    with caplog.at_level(logging.INFO):
        tl.evaluate(adata, **QUICK)
    assert "'additive' is missing in 2 of 3" in caplog.text


def test_a_false_positive_effect_is_found(planted_screen, caplog, monkeypatch):
    monkeypatch.setattr("unlasting.screen.logger.propagate", True)
    adata = planted_screen(450)
    options = {"baselines": SIMPLE, "gene_sets": "all", "metrics": "e_distance", **QUICK}
    tl.evaluate(adata, **options)
    tests = adata.uns["unlasting"]["false_positives"]
    assert list(tests["condition"]) == ["none"]
    assert list(tests["predictor"]) == ["unlasting"]
    assert not tests["rejected"].any()
    none = (adata.obs["perturbation"] == "none").to_numpy()
    adata.layers["unlasting"][none, :5] += 0.3
    with caplog.at_level(logging.WARNING):
        tl.evaluate(adata, **options)
    tests = adata.uns["unlasting"]["false_positives"]
    assert tests["rejected"].all()
    assert (tests["e_distance"] > tests["e_distance_no_effect"] + tests["detectable"]).all()
    assert "'unlasting' has a false-positive effect in 1 of 1 conditions without a signal, more than" in caplog.text


@pytest.mark.slow
def test_de_genes_come_from_training_cells_or_a_third_that_is_set_apart(planted_screen):
    adata = planted_screen(240)
    tl.evaluate(adata, baselines=(), **QUICK)
    listed = adata.uns["unlasting"]["score_conditions"].set_index("condition")
    assert (listed.loc["all", ["n_test", "n_cells", "n_de_cells"]] == [80, 40, 160]).all()
    assert listed.loc["all", "de_from"] == "train"
    genes = adata.uns["unlasting"]["effects"].set_index(["condition", "gene"])["is_de20"]

    changed = adata.copy()
    test = (adata.obs["unlasting_split"] == "test").to_numpy()
    changed.X[test] = np.random.default_rng(0).gamma(2, size=(test.sum(), adata.n_vars))
    tl.evaluate(changed, baselines=(), **QUICK)
    again = changed.uns["unlasting"]["effects"].set_index(["condition", "gene"])["is_de20"]
    pd.testing.assert_series_equal(again, genes)

    adata.obs.loc[adata.obs["perturbation"] == "all", "unlasting_split"] = "test"
    tl.evaluate(adata, baselines=(), **QUICK)
    listed = adata.uns["unlasting"]["score_conditions"].set_index("condition")
    assert (listed.loc["all", ["n_test", "n_cells", "n_de_cells"]] == [240, 80, 80]).all()
    assert listed.loc["all", "de_from"] == "test"
    top = adata.uns["unlasting"]["effects"].query("condition == 'all' and is_de20")["gene"]
    assert {f"gene{i}" for i in range(6, 12)} <= set(top)


def test_genes_that_do_not_differ_are_never_chosen(planted_screen):
    adata = planted_screen(240)
    adata.X[:, 12:] = 0
    adata.layers["unlasting"][:, 12:] = 0
    options = {"baselines": SIMPLE, "gene_sets": ["all", "de20", "de5"], "metrics": "emd", **QUICK}
    frame = tl.evaluate(adata, **options)
    assert set(adata.uns["unlasting"]["score_conditions"]["n_de_genes"]) == {12}
    assert adata.uns["unlasting"]["effects"].groupby("condition")["is_de20"].sum().max() == 12
    emd = frame[(frame["metric"] == "emd") & (frame["predictor"] == "pooled")].set_index(["condition", "gene_set"])
    # the mean over 30 genes of which 18 are always zero
    assert emd.loc[("all", "all"), "value"] == pytest.approx(emd.loc[("all", "de20"), "value"] * 12 / 30, rel=1e-5)


@pytest.mark.slow
def test_order_of_rows_and_genes_does_not_matter(planted_screen):
    adata = planted_screen(120, cell_types=("x", "y"))
    adata.uns["unlasting"] = {"keys": {"cell_type_key": "cell_type"}}
    frame = tl.evaluate(adata, baselines=SIMPLE, **QUICK)
    rng = np.random.default_rng(1)
    mixed = adata[rng.permutation(adata.n_obs)][:, rng.permutation(adata.n_vars)].copy()
    again = tl.evaluate(mixed, baselines=SIMPLE, **QUICK)
    pd.testing.assert_frame_equal(again, frame, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_storage_does_not_matter(planted_screen, storage):
    frame = tl.evaluate(planted_screen(120), baselines=SIMPLE, **QUICK)
    again = tl.evaluate(planted_screen(120, storage=storage), baselines=SIMPLE, **QUICK)
    pd.testing.assert_frame_equal(again, frame, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_seed_decides_and_other_predictors_and_conditions_do_not(planted_screen):
    adata = planted_screen(120)
    frame = tl.evaluate(adata, baselines=SIMPLE, **QUICK)
    pd.testing.assert_frame_equal(tl.evaluate(adata, baselines=SIMPLE, **QUICK), frame)
    assert not frame["value"].equals(tl.evaluate(adata, baselines=SIMPLE, seed=1, **QUICK)["value"])
    alone = tl.evaluate(adata, baselines=["pooled"], conditions="half", **QUICK)
    same = frame[(frame["condition"] == "half") & frame["predictor"].isin(set(alone["predictor"]))]
    columns = ["predictor", "metric", "gene_set", "value", "floor", "no_effect"]
    pd.testing.assert_frame_equal(alone[columns], same[columns].reset_index(drop=True))


def test_a_baseline_with_nothing_to_say_is_missing_and_reported(planted_screen):
    adata = planted_screen(120)
    frame = tl.evaluate(adata, metrics="e_distance", gene_sets="all", **QUICK)
    assert not {"additive", "nearest dose", "dose interpolation", "nearest target", "linear"} & set(frame["predictor"])
    left_out = adata.uns["unlasting"]["score_left_out"]
    assert set(left_out["predictor"]) >= {"additive", "nearest dose", "dose interpolation", "nearest target", "linear"}
    assert set(left_out.loc[left_out["predictor"] == "additive", "reason"]) == {"it is no combination"}


def test_small_conditions_and_those_without_generated_cells_are_reported(planted_screen):
    adata = planted_screen(120)
    all_test = np.flatnonzero((adata.obs["perturbation"] == "all") & (adata.obs["unlasting_split"] == "test"))
    adata.obs.iloc[all_test[5:], adata.obs.columns.get_loc("unlasting_split")] = "val"
    adata.obs.loc[adata.obs["perturbation"] == "none", "unlasting_source"] = ""
    frame = tl.evaluate(adata, baselines=(), **QUICK)
    assert set(frame["condition"]) == {"half"}
    reasons = adata.uns["unlasting"]["score_left_out"].set_index("condition")["reason"]
    assert reasons["all"] == "it has 5 test cells (`min_cells` is 30)"
    assert reasons["none"] == "no cells were generated"


@pytest.mark.slow
def test_few_controls_make_small_samples_and_none_leave_a_cell_type_out(planted_screen):
    adata = planted_screen(120, cell_types=("x", "y", "z"))
    adata.uns["unlasting"] = {"keys": {"cell_type_key": "cell_type"}}
    control = adata.obs["perturbation"] == "control"
    for cell_type, kept in (("y", 9), ("z", 1)):
        rows = np.flatnonzero(control & (adata.obs["cell_type"] == cell_type))
        adata.obs.iloc[rows[kept:], adata.obs.columns.get_loc("unlasting_split")] = "val"
    frame = tl.evaluate(adata, baselines=SIMPLE, **QUICK)
    of_model = frame[frame["predictor"] == "unlasting"]
    assert of_model.groupby("cell_type")["n_cells"].unique().map(list).to_dict() == {"x": [20], "y": [9]}
    left_out = adata.uns["unlasting"]["score_left_out"]
    assert set(left_out["cell_type"]) == {"z"}
    assert left_out["reason"].str.contains("too few training controls").all()


def test_mean_profiles_are_compared_by_their_mean(planted_screen, caplog, monkeypatch):
    monkeypatch.setattr("unlasting.screen.logger.propagate", True)
    adata = planted_screen(240)
    names = ["half", "all", "none"]
    means = np.array([adata.layers["unlasting"][adata.obs["perturbation"] == name].mean(axis=0) for name in names])
    predictions = AnnData(means, obs=pd.DataFrame({"perturbation": names}, index=names), var=adata.var)
    with caplog.at_level(logging.WARNING):
        frame = tl.evaluate(
            adata, predictions=predictions, baselines=SIMPLE, metrics=["emd", "pearson_change", "mse_change"], **QUICK
        )
    assert "mean profiles, one row per condition: without emd" in caplog.text
    assert set(frame["metric"]) == {"pearson_change", "mse_change"}
    assert _score(adata, "prediction", "pearson_change") == pytest.approx(1, abs=0.05)
    # the mean of all cells is even nearer than that of a sample
    assert -0.1 < _score(adata, "prediction", "mse_change") < 0.05
    assert "prediction" not in set(adata.uns["unlasting"]["false_positives"]["predictor"])
    with pytest.raises(ValueError, match="emd need cells.*'pearson_change'"):
        tl.evaluate(adata, predictions=predictions, metrics="emd")


@pytest.mark.slow
def test_every_metric_can_be_asked_for(planted_screen):
    adata = planted_screen(240)
    frame = tl.evaluate(adata, baselines=["pooled"], metrics=METRICS, gene_sets=["all", "de5"], **QUICK)
    assert set(frame["metric"]) == set(METRICS)
    kept = frame[frame["signal"]]
    assert kept.groupby("metric")["value"].apply(lambda values: np.isfinite(values).any()).all()
    only_all = {m for m, of_metric in frame.groupby("metric") if set(of_metric["gene_set"]) == {"all"}}
    assert only_all == {
        m for m in METRICS if m.startswith(("de_", "discrimination", "perturbation_spread", "centroid"))
    }


@pytest.mark.slow
def test_a_metric_of_the_user_gets_the_cells_that_it_needs(planted_screen):
    adata = planted_screen(240)
    controls = adata.X[np.flatnonzero(adata.obs["perturbation"] == "control")]
    controls = {row.tobytes() for row in np.asarray(controls.todense() if hasattr(controls, "todense") else controls)}
    seen = []

    def nearer_than_control(predicted, observed, control):
        seen.append((predicted, observed, control))
        return float(np.linalg.norm(predicted.mean(axis=0) - observed.mean(axis=0)))

    mine = Metric("mine", nearer_than_control, best_value=0.0, needs=("control",))
    frame = tl.evaluate(adata, baselines=["no effect"], metrics=[mine, "emd"], gene_sets=["all", "de5"], **QUICK)
    assert set(frame["metric"]) == {"mine", "emd"}
    for predicted, observed, control in seen:
        assert predicted.ndim == observed.ndim == control.ndim == 2
        assert predicted.shape[1] == observed.shape[1] == control.shape[1]
    whole = [control for *_, control in seen if control.shape[1] == adata.n_vars]
    assert all(row.tobytes() in controls for row in whole[0].astype(adata.X.dtype))
    tl.evaluate(adata, baselines=["no effect"], metrics=mine, gene_sets="all", **QUICK)


def test_sets_of_conditions_are_told_apart(planted_screen):
    adata = planted_screen(240)
    swapped = adata.copy()
    rows = {name: np.flatnonzero(adata.obs["perturbation"] == name) for name in ("half", "all")}
    swapped.layers["unlasting"][rows["half"]] = adata.layers["unlasting"][rows["all"]]
    swapped.layers["unlasting"][rows["all"]] = adata.layers["unlasting"][rows["half"]]
    metrics = ["discrimination_score_l2", "perturbation_spread"]
    for screen, expected in ((adata, 1.0), (swapped, 0.5)):
        frame = tl.evaluate(screen, baselines=["pooled"], metrics=metrics, **QUICK)
        own = frame[(frame["predictor"] == "unlasting") & (frame["metric"] == "discrimination_score_l2")]
        np.testing.assert_allclose(own["value"], expected)
        assert _score(screen, "unlasting", "perturbation_spread") == pytest.approx(1, abs=0.1)
        assert _score(screen, "pooled", "perturbation_spread") < 0.3


def _dose_screen() -> AnnData:
    rng = np.random.default_rng(0)
    doses = {"0.01": 0.1, "0.1": 0.5, "1": 1.0, "10": 1.2}
    labels = np.repeat(["control", *["drug"] * 4], 80)
    dose = np.repeat(["1.0", *doses], 80)
    values = 2 + rng.normal(0, 0.2, (400, 8))
    values[80:, :4] += np.repeat(list(doses.values()), 80)[:, None]
    obs = pd.DataFrame({"perturbation": labels, "uM": dose}, index=[f"cell{i}" for i in range(400)])
    obs["unlasting_split"] = np.where((obs["uM"] == "1") & (labels == "drug"), "test", "train")
    adata = AnnData(values, obs=obs)
    adata.layers["unlasting"] = values[rng.permutation(400)]
    adata.uns["unlasting"] = {
        "keys": {"dose_key": "uM"},
        "molecules": {"drugs": np.array(["drug"], dtype=object), "smiles": np.array(["C"], dtype=object)},
    }
    return adata


@pytest.mark.slow
def test_doses_are_conditions_and_the_nearest_is_a_baseline():
    adata = _dose_screen()
    frame = tl.evaluate(adata, baselines=["pooled", "nearest dose"], gene_sets="all", **QUICK)
    assert set(frame["condition"] + " " + frame["dose"]) == {"drug 1"}
    # 0.1 and 10 are equally near on a logarithmic scale; the first is taken, at half of the change
    low = adata.X[(adata.obs["uM"] == "0.1").to_numpy()].mean(axis=0)
    cells = baselines.NearestDose().fit(adata).predict(baselines.Condition("drug", dose="1"), 100)
    np.testing.assert_allclose(cells.mean(axis=0), low, rtol=1e-5)
    with pytest.raises(baselines.NoPrediction, match="no dose"):
        baselines.NearestDose().fit(adata).predict("drug", 10)
    for wanted in ("drug", ("drug", "", 1), ("drug", "", "1")):
        assert len(tl.evaluate(adata, baselines=(), conditions=[wanted], **QUICK)) > 0
    with pytest.raises(ValueError, match="no cells"):
        tl.evaluate(adata, baselines=(), conditions=[("drug", "", 3)], **QUICK)


@pytest.mark.slow
def test_all_frames_tell_doses_apart():
    adata = _dose_screen()
    doses = {"0.01", "0.1", "1", "10"}
    assert set(tl.rank(adata)["dose"]) == doses
    assert set(tl.bimodality(adata, n_genes=2)["dose"]) == doses
    assert set(tl.responders(adata)["dose"]) == doses
    assert set(tl.embedding(adata)["dose"]) == {"", *doses}
    assert set(tl.rank(adata, conditions=[("drug", "", 0.1)])["dose"]) == {"0.1"}
    assert set(tl.dose_response(adata)["dose"]) == {0, 0.01, 0.1, 1, 10}


def test_generated_cells_of_their_own_have_doses_too():
    adata = _dose_screen()
    predictions = AnnData(adata.layers["unlasting"], obs=adata.obs[["perturbation", "uM"]], var=adata.var)
    frame = tl.evaluate(adata, predictions=predictions, baselines=(), **QUICK)
    assert set(frame["dose"]) == {"1"}
    del predictions.obs["uM"]
    with pytest.raises(KeyError, match="`predictions.obs` has no column 'uM'"):
        tl.evaluate(adata, predictions=predictions, **QUICK)


@pytest.mark.slow
def test_results_survive_h5ad(planted_screen, tmp_path):
    adata = planted_screen(120)
    tl.evaluate(adata, **QUICK)
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = anndata.read_h5ad(tmp_path / "a.h5ad").uns["unlasting"]
    for key in ("scores", "score_summary", "score_conditions", "score_left_out", "false_positives", "effects"):
        written = adata.uns["unlasting"][key]
        pd.testing.assert_frame_equal(
            again[key].astype(written.dtypes), written, check_index_type=False, check_names=False
        )


def test_other_predictors_stand_beside_the_baselines_and_without_a_layer(planted_screen):
    adata = planted_screen(120)

    class Doubled(baselines.MeanShift):
        def _shift(self, condition):
            return 2 * super()._shift(condition)

    frame = tl.evaluate(adata, layer=None, baselines={"doubled": Doubled(), "pooled": baselines.Pooled()}, **QUICK)
    assert list(dict.fromkeys(frame["predictor"])) == ["no effect", "doubled", "pooled"]
    assert "effects" not in adata.uns["unlasting"]


def test_errors_name_the_way_out_and_leave_the_screen_alone(planted_screen):
    adata = planted_screen(120)
    for arguments, error, message in (
        ({"metrics": "edistance"}, KeyError, "Did you mean 'e_distance'"),
        ({"metrics": ()}, ValueError, "`metrics` is empty"),
        ({"gene_sets": "top20"}, ValueError, "`gene_sets` names 'top20'"),
        ({"baselines": ["no efect"]}, KeyError, "Did you mean 'no effect'"),
        ({"n_repeats": 0}, ValueError, "`n_repeats` is 0"),
        ({"layer": "cpa"}, KeyError, "no 'cpa'.*on the command line: `unlasting predict`"),
        ({"name": "pooled"}, ValueError, "another `name`"),
        ({"conditions": ["Half"]}, ValueError, "Did you mean 'half'"),
        ({"min_cells": 1000}, ValueError, "No condition can be evaluated. all: it has 40 test cells"),
        ({"split_key": "part"}, ValueError, "labelled 'test'.*command line: `unlasting train --split"),
        ({"reference": "poled"}, ValueError, "Did you mean 'pooled'"),
    ):
        with pytest.raises(error, match=message):
            tl.evaluate(adata, **arguments)
        assert "unlasting" not in adata.uns


def test_what_a_predictor_gives_is_checked(planted_screen):
    class Wrong(baselines.NoEffect):
        def __init__(self, change):
            self.change = change

        def predict(self, condition, n_cells, *, seed=0):
            return self.change(super().predict(condition, n_cells, seed=seed))

    for change, message in ((lambda x: x[:, :3], "shape"), (lambda x: x * np.nan, "missing or infinite")):
        with pytest.raises(ValueError, match=f"'wrong' gave .*{message}"):
            tl.evaluate(planted_screen(120), layer=None, baselines={"wrong": Wrong(change)}, **QUICK)


def test_predictions_on_another_scale_are_refused(planted_screen):
    adata = planted_screen(120)
    adata.layers["counts"] = np.round(adata.X)
    with pytest.raises(ValueError, match="raw counts"):
        tl.evaluate(adata, layer="counts", **QUICK)


@pytest.mark.slow
def test_the_guide_evaluates_a_prediction_of_another_model():
    text = (Path(__file__).parents[2] / "docs" / "guide" / "scores.md").read_text(encoding="utf-8")
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S):
        exec(block, names)
    frame = names["adata"].uns["unlasting"]["score_summary"].query("metric == 'e_distance' and gene_set == 'de20'")
    scores = frame.set_index("predictor")["score"]
    assert scores["additive"] < scores["scaled controls"] < scores["linear"]
    assert set(names["ranks"]["predictor"]) == {"additive", "nearest target", "no effect"}


def test_a_scale_of_rounding_is_none(planted_screen):
    """Normalised cells all have one library size: no effect is as right as the truth."""
    adata = planted_screen(120)
    sizes = np.expm1(adata.X).sum(axis=1, keepdims=True)
    adata.X = np.log1p(np.expm1(adata.X) / sizes * 60.0).astype(np.float32)
    adata.layers["unlasting"] = np.log1p(np.expm1(adata.layers["unlasting"]) * 0.4).astype(np.float32)
    metrics = ["library_size_error", "zero_fraction_error"]
    frame = tl.evaluate(adata, baselines=SIMPLE, metrics=metrics, gene_sets="all", conditions=["half", "all"], **QUICK)
    own = frame[(frame["predictor"] == "unlasting") & (frame["metric"] == "library_size_error")]
    assert (own["value"] > 0.1).all()
    assert own["normalised"].isna().all()
    assert np.isnan(_score(adata, "unlasting", "library_size_error"))
