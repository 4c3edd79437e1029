"""The registry tells what each metric needs, and which of two predictions is better."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import spatial, stats

from unlasting.metrics import METRICS, Metric, e_distance, energy, gene_weights, get_metric, register

EXPECTED = {
    "e_distance",
    "e_distance_rooted",
    "emd",
    "mmd",
    "energy",
    "pearson_change",
    "pearson_change_centred",
    "mse_change",
    "zero_fraction_error",
    "correlation_error",
    "library_size_error",
    "detected_genes_error",
    "dispersion_error",
    "bimodality_error",
    "discrimination_score_l1",
    "discrimination_score_l2",
    "discrimination_score_cosine",
    "perturbation_spread",
    "de_overlap",
    "de_direction",
    "de_lfc_spearman",
    "de_recall",
    "de_auprc",
    "centroid_accuracy",
    "weighted_mse",
    "weighted_r2_change",
}


def differential(cells: np.ndarray, control: np.ndarray) -> dict[str, np.ndarray]:
    test = stats.ttest_ind(cells, control, equal_var=False)
    return {"score": test.statistic, "lfc": cells.mean(axis=0) - control.mean(axis=0), "pvalue": test.pvalue}


@pytest.fixture(scope="module")
def arguments() -> dict[str, dict[str, Any]]:
    """Everything that a metric may need, for other cells of the truth and for a wrong prediction."""
    rng = np.random.default_rng(0)
    n, effects = 1500, np.where(rng.random((8, 15)) < 0.5, 0.0, rng.normal(0, 0.8, (8, 15)))

    def draw(effect: np.ndarray) -> np.ndarray:
        """Two modes per gene, a depth that all genes share, and zeros."""
        modes = np.where(rng.random((n, 15)) < 0.5, 0.5, 1.5) + 0.1 * rng.normal(size=(n, 15))
        return np.exp(effect) * rng.uniform(0.1, 1, (n, 1)) * modes * (rng.random((n, 15)) < 0.7)

    control, observed_control, observed, right = (draw(e) for e in (0 * effects[0], 0 * effects[0], *effects[[0, 0]]))
    shared = {
        "observed": observed,
        "control": control,
        "observed_control": observed_control,
        "weights": gene_weights(effects[0]),
        "reference": np.mean([draw(effect).mean(axis=0) for effect in effects], axis=0),
        "observed_effects": effects,
        **{f"observed_{name}": values for name, values in differential(observed, observed_control).items()},
    }
    return {
        "right": {
            **shared,
            "predicted": right,
            "predicted_effects": effects + 0.01,
            **{f"predicted_{name}": values for name, values in differential(right, control).items()},
        },
        "wrong": {
            **shared,
            "predicted": 0.3 + rng.random((n, 15)),
            "predicted_effects": 0.1 * rng.normal(size=(8, 15)),
            **{f"predicted_{name}": values for name, values in differential(observed_control, control).items()},
        },
    }


def compute(metric: Metric, given: dict[str, Any]) -> float:
    return float(np.mean(metric.function(**{name: given[name] for name in metric.needs})))


def test_holds_the_metrics_that_are_promised() -> None:
    assert set(METRICS) == EXPECTED
    assert all(name == metric.name for name, metric in METRICS.items())
    assert all(metric.meaning and "\n" not in metric.meaning and metric.unit for metric in METRICS.values())


def test_the_truth_comes_near_the_best_value_and_wins(arguments) -> None:
    for name, metric in METRICS.items():
        right, wrong = (compute(metric, arguments[kind]) for kind in ("right", "wrong"))
        assert abs(right - metric.best_value) < 0.1, name
        assert abs(right - metric.best_value) < 0.5 * abs(wrong - metric.best_value), name
        assert metric.loss(right) < metric.loss(wrong), name
        losses = metric.loss(np.array([right, wrong]))
        assert losses[0] < losses[1], name


def test_the_distances_of_the_published_tables(arguments) -> None:
    """Square root of `2 mean|X - Y| - mean|X - X'| - mean|Y - Y'|`, pairs of one cell left out; SciPy computes the EMD."""
    x, y = arguments["wrong"]["predicted"], arguments["wrong"]["observed"]
    within = [spatial.distance.pdist(cells).mean() for cells in (x, y)]
    expected = np.sqrt(2 * spatial.distance.cdist(x, y).mean() - sum(within))
    assert METRICS["e_distance_rooted"].function(x, y) == pytest.approx(expected, rel=1e-6)
    per_gene = [stats.wasserstein_distance(x[:, i], y[:, i]) for i in range(x.shape[1])]
    assert METRICS["emd"].function(x, y) == pytest.approx(np.mean(per_gene), rel=1e-6)


def test_means_in_place_of_cells_give_the_same(arguments) -> None:
    for metric in (metric for metric in METRICS.values() if metric.takes_means):
        given = arguments["wrong"]
        means = {name: given[name].mean(axis=0) if given[name].ndim == 2 else given[name] for name in metric.needs}
        assert compute(metric, means) == pytest.approx(compute(metric, given)), metric.name


def test_a_metric_is_registered_in_one_call() -> None:
    """Predicted and observed cells come by themselves; others are asked for by name."""
    mine = register(Metric("mine", lambda predicted, observed, control: 0.0, best_value=0.0, needs=("control",)))
    try:
        assert mine.needs == ("predicted", "observed", "control")
        assert get_metric("mine") is get_metric(mine) is mine
        assert Metric("other", e_distance, 0.0).needs == ("predicted", "observed")
        assert Metric("tables", e_distance, 0.0, ("predicted_lfc", "observed_lfc")).needs[0] == "predicted_lfc"
    finally:
        del METRICS["mine"]
    with pytest.raises(ValueError, match="holds 'controls'. Did you mean 'control'"):
        Metric("mine", e_distance, 0.0, needs=("controls",))


def test_the_registered_e_distance_is_unbiased_and_not_rooted(arguments) -> None:
    given = arguments["right"]
    expected = e_distance(given["predicted"], given["observed"], unbiased=True)
    assert compute(get_metric("e_distance"), given) == expected


def test_the_registered_energy_is_unbiased(arguments) -> None:
    given = arguments["wrong"]
    assert compute(get_metric("energy"), given) == energy(given["predicted"], given["observed"], unbiased=True)


def test_the_centred_correlation_is_that_of_differences_from_the_mean_perturbation(arguments) -> None:
    given = arguments["wrong"]
    differences = [given[name].mean(axis=0) - given["reference"] for name in ("predicted", "observed")]
    expected = stats.pearsonr(*differences).statistic
    assert compute(get_metric("pearson_change_centred"), given) == pytest.approx(expected)


def test_a_best_value_in_between_is_lost_on_both_sides() -> None:
    spread = get_metric("perturbation_spread")
    assert spread.loss(1.0) == 0
    assert spread.loss(0.5) == spread.loss(1.5) > 0


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(KeyError, match="no metric 'edistance'. Did you mean 'e_distance'"):
        get_metric("edistance")
    with pytest.raises(KeyError, match="no metric 'xyz'. Metrics are e_distance, emd"):
        get_metric("xyz")


def test_the_registered_discrimination_is_by_the_distance_in_its_name() -> None:
    given = {"predicted_effects": np.zeros((2, 2)), "observed_effects": np.array([[1.4, 1.4], [2.2, 0.0]])}
    first = {
        distance: get_metric(f"discrimination_score_{distance}").function(**given)[0]
        for distance in ("l1", "l2", "cosine")
    }
    assert first == {"l1": 0.5, "l2": 1, "cosine": 0.75}  # farther, nearer, and as far as the other truth
