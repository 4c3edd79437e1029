"""The profile `vcc2026` agrees with cell-eval2 on shared cells, and its parts with scipy and with plain loops."""

from __future__ import annotations

from dataclasses import replace

import cell_eval2
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from cell_eval2.anchor import compute_replicate_anchor
from cell_eval2.baseline import build_baseline_prediction, generic_response_profile
from scipy import sparse, stats
from scipy.spatial.distance import cdist

from unlasting.metrics import (
    VCC2026,
    Panel,
    RankTable,
    direction_fidelity,
    direction_reach,
    lfc_nmae,
    mean_response,
    noise_corrected_mse,
    perturbation_discrimination,
    pseudobulk,
    pseudobulk_noise,
    rank_table,
    rank_test,
    replicate_summary,
    significant_jaccard,
    vcc2026,
    vcc2026_scores,
    vcc2026_summary,
)

N_GENES = 120
GENES = sorted(f"G{i}" for i in range(N_GENES))
TARGETS = GENES[:6]
CONTROL = "non-targeting"
CONFIG = replace(
    cell_eval2.EvalConfig.from_preset("vcc2026"),
    device="cpu",
    num_threads=1,
    de=replace(cell_eval2.EvalConfig.from_preset("vcc2026").de, backend="pdex"),
)


def draw(rng: np.random.Generator, rate: np.ndarray, n: int) -> np.ndarray:
    depth = rng.gamma(8.0, 1 / 8, (n, 1))
    return rng.poisson(rng.gamma(2.0, 0.5, (n, len(rate))) * rate * depth).astype(np.float32)


@pytest.fixture(scope="module")
def cells() -> dict[str, dict[str, np.ndarray]]:
    """Observed and predicted counts of six knock-downs and a control; a tenth of the genes is hardly expressed."""
    rng = np.random.default_rng(0)
    rate = np.where(rng.random(N_GENES) < 0.1, 1e-3, rng.gamma(0.6, 3.0, N_GENES) + 0.05)
    shared = np.exp(rng.normal(0.0, 0.8, N_GENES) * (rng.random(N_GENES) < 0.2))
    observed, predicted = {CONTROL: draw(rng, rate, 150)}, {CONTROL: draw(rng, rate, 40)}
    for i, name in enumerate(TARGETS):
        effect = shared * np.exp(rng.normal(0.0, 0.9, N_GENES) * (rng.random(N_GENES) < 0.3))
        effect[i] = 0.1
        observed[name] = draw(rng, rate * effect, 61 + i)
        guess = np.exp(0.5 * np.log(effect) + rng.normal(0.0, 0.3 + 0.3 * i, N_GENES))
        predicted[name] = draw(rng, rate * guess, 50)
    predicted[TARGETS[1]] = observed[CONTROL][:50]  # no effect at all
    predicted[TARGETS[2]] = observed[TARGETS[2]]  # the truth
    predicted[TARGETS[3]] = observed[TARGETS[4]]  # the truth of another
    return {"observed": observed, "predicted": predicted}


def to_anndata(cells: dict[str, np.ndarray]) -> AnnData:
    labels = np.repeat(list(cells), [len(x) for x in cells.values()])
    obs = pd.DataFrame({"target": pd.Categorical(labels)}, index=[f"c{i}" for i in range(len(labels))])
    return AnnData(sparse.csr_matrix(np.vstack(list(cells.values()))), obs=obs, var=pd.DataFrame(index=GENES))


def counts_of(cells: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: cells[name] for name in TARGETS}


OWN = [(i,) for i in range(len(TARGETS))]


@pytest.fixture(scope="module")
def ours(cells: dict[str, dict[str, np.ndarray]]) -> pd.DataFrame:
    control = cells["observed"][CONTROL]
    panels = (Panel.of(counts_of(cells[side]), control) for side in ("predicted", "observed"))
    return vcc2026(*panels, targets=OWN)


@pytest.fixture(scope="module")
def theirs(cells: dict[str, dict[str, np.ndarray]]) -> tuple[pd.DataFrame, pd.Series]:
    table = cell_eval2.compute_metrics(to_anndata(cells["predicted"]), to_anndata(cells["observed"]), config=CONFIG)
    summary = cell_eval2.aggregate_metrics(table)
    wide = table.to_pandas().pivot(index="perturbation", columns="metric", values="value").loc[TARGETS]
    return wide, summary.to_pandas().set_index("metric")["mean"]


@pytest.mark.slow
def test_every_condition_agrees_with_cell_eval2(ours: pd.DataFrame, theirs: tuple[pd.DataFrame, pd.Series]) -> None:
    names = {**VCC2026, "mse_error": "expr_mse_unbiased_capped", "mse_size": "expr_distance_unbiased"}
    names.pop("mse_ratio")
    assert ours.shape == (len(TARGETS), len(names))
    for name, peer in names.items():
        np.testing.assert_allclose(ours[name], theirs[0][peer], rtol=1e-6, atol=1e-9, err_msg=name)
    assert ours.nunique().min() >= 3  # nothing is compared that is the same everywhere


@pytest.mark.slow
def test_aggregates_and_scores_agree_with_cell_eval2(
    cells: dict[str, dict[str, np.ndarray]], ours: pd.DataFrame, theirs: tuple[pd.DataFrame, pd.Series]
) -> None:
    observed, control = counts_of(cells["observed"]), cells["observed"][CONTROL]
    panel = Panel.of(observed, control)
    summary = vcc2026_summary(ours)
    peers = pd.Series({name: theirs[1][peer] for name, peer in VCC2026.items()})
    np.testing.assert_allclose(summary, peers, rtol=1e-6)

    zero = vcc2026_summary(
        vcc2026(Panel.of(mean_response(observed, control, targets=OWN), control), panel, targets=OWN)
    )
    one = replicate_summary(observed, control, targets=OWN, control_name=CONTROL)
    real = to_anndata(cells["observed"])
    profile = generic_response_profile(real, pert_col="target", control=CONTROL)
    baseline = build_baseline_prediction(profile, real, pert_col="target", control=CONTROL)
    table = cell_eval2.compute_metrics(baseline, real, config=replace(CONFIG, allow_fractional_counts=True))
    base = cell_eval2.aggregate_metrics(table).to_pandas().set_index("metric")["mean"]
    anchor = compute_replicate_anchor(real, config=CONFIG)[1].to_pandas().set_index("metric")["replicate"]
    for name, peer in VCC2026.items():
        np.testing.assert_allclose([zero[name], one[name]], [base[peer], anchor[peer]], rtol=1e-6, err_msg=name)

    scores = vcc2026_scores(summary, zero, one)
    for name, peer in VCC2026.items():
        policy = replace(cell_eval2.catalog.CATALOG[peer].scoring, anchor=anchor[peer])
        expected = cell_eval2.scoring.score_one(theirs[1][peer], base[peer], policy)
        assert scores[name] == pytest.approx(expected, rel=1e-5), name
    assert scores["mean"] == pytest.approx(scores[list(VCC2026)].mean())


def test_the_ends_of_the_scale_score_0_and_1_and_a_missing_value_the_worst(
    cells: dict[str, dict[str, np.ndarray]],
) -> None:
    zero = pd.Series(dict.fromkeys(VCC2026, 0.5))
    one = pd.Series({name: 0.1 if name in ("mse_ratio", "lfc_nmae") else 0.9 for name in VCC2026})
    assert vcc2026_scores(zero, zero, one).eq(0).all()
    np.testing.assert_allclose(vcc2026_scores(one, zero, one), 1.0)
    lost = vcc2026_scores(pd.Series(dict.fromkeys(VCC2026, np.nan)), zero, one)
    assert lost[list(VCC2026)].round(9).tolist() == [-1.25, 0.0, -1.25, -1.25, -1.25, -6.0]
    assert np.isnan(vcc2026_scores(zero, zero, zero)["mean"])
    partly = one.where(one.index != "direction_reach")
    assert vcc2026_scores(zero, zero, partly)["mean"] == 0
    assert np.isnan(vcc2026_scores(zero, zero, partly)["direction_reach"])


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array, sparse.csc_matrix])
def test_the_rank_test_is_that_of_scipy(form: type) -> None:
    rng = np.random.default_rng(1)
    first, second = rng.poisson(0.7, (23, 40)).astype(float), rng.poisson(1.0, (31, 40)).astype(float)
    first[:, 0], second[:, 0] = 2.0, 2.0
    first[:, 1], second[:, 1] = 0.0, 0.0
    second[:, 2] = rng.gamma(2.0, 1.0, 31)
    expected = np.array(
        [stats.mannwhitneyu(x, y, method="asymptotic").pvalue for x, y in zip(first.T, second.T, strict=True)]
    )
    expected[:2] = 1.0  # scipy has no p-value where all values are the same
    np.testing.assert_allclose(rank_test(form(first), form(second)), expected, rtol=1e-12)
    with pytest.raises(ValueError, match="negative"):
        rank_test(form(-first), form(second))


def test_a_pseudobulk_and_its_noise_follow_the_definition() -> None:
    rng = np.random.default_rng(2)
    counts = rng.poisson(1.5, (9, 5)).astype(float)
    expected = np.log1p(5e4 * counts.sum(axis=0) / counts.sum())
    np.testing.assert_allclose(pseudobulk(sparse.csr_array(counts)), expected)
    left_out = np.array([pseudobulk(np.delete(counts, i, axis=0)) for i in range(9)])
    assert pseudobulk_noise(counts) == pytest.approx(8 * left_out.var(axis=0).sum())
    assert pseudobulk_noise(counts[:1]) == 0
    assert not pseudobulk(np.zeros((3, 4))).any()


def table(lfc: list[float], p_value: list[float]) -> RankTable:
    return RankTable(np.array(lfc), np.array(p_value), np.array(p_value))


def test_direction_and_membership_by_hand() -> None:
    observed = table([1, 1, -1, -1, 2, 0.5], [0.01, 0.01, 0.01, 0.01, 0.01, 0.9])
    predicted = table([1, -1, -1, 1, 3, 1], [0.001, 0.03, 0.2, 0.02, 0.04, 0.01])
    # called: genes 0, 1, 3, 4, 5; right: 0, 4, 5; five genes on either side
    assert direction_fidelity(predicted, observed) == 3 / 5
    # ranked 0, 3, 1, 4, 2: right, wrong, ...; only the first place keeps 90 %
    assert direction_reach(predicted, observed) == 1 / 5
    assert significant_jaccard(predicted, observed) == 4 / 6
    assert significant_jaccard(predicted, observed, targets=[2]) == 4 / 5
    nothing = table([0.0] * 6, [1.0] * 6)
    assert significant_jaccard(nothing, nothing) == 1
    assert np.isnan(direction_reach(predicted, nothing))
    assert np.isnan(direction_fidelity(nothing, nothing))
    assert direction_fidelity(nothing, observed) == 0
    many = table([1.0, -2.0] * 6, [0.01] * 12)
    assert lfc_nmae(table([0.0] * 12, [1.0] * 12), many) == 1
    assert lfc_nmae(table([2.0, -4.0] * 6, [1.0] * 12), many) == 1
    assert np.isnan(lfc_nmae(many, observed))


def test_noisy_cells_earn_no_correction() -> None:
    rng = np.random.default_rng(3)
    observed, control = rng.normal(size=(4, 6)), rng.normal(size=6)
    noise = {"observed_noise": np.full(4, 0.3), "control_noise": 0.1}
    flat = np.tile(control, (4, 1))  # no spread over conditions: no correction
    error, size = noise_corrected_mse(flat, observed, control, predicted_noise=np.full(4, 9.0), **noise)
    np.testing.assert_allclose(error, (((flat - observed) ** 2).sum(axis=1) - 0.3) / 6)
    np.testing.assert_allclose(size, (((control - observed) ** 2).sum(axis=1) - 0.4) / 6)
    wide = 9 * rng.normal(size=(4, 6))
    error, _ = noise_corrected_mse(wide, observed, control, predicted_noise=np.full(4, 9.0), **noise)
    np.testing.assert_allclose(error, (((wide - observed) ** 2).sum(axis=1) - 0.6) / 6)
    own = noise_corrected_mse(wide, observed, control, predicted_noise=np.zeros(4), targets=[(0, 1)] * 4, **noise)[0]
    np.testing.assert_allclose(own, (((wide - observed)[:, 2:] ** 2).sum(axis=1) - 0.3) / 4)
    with pytest.raises(ValueError, match="same genes"):
        noise_corrected_mse(wide, observed[:, 1:], control, predicted_noise=np.zeros(4), **noise)


def test_the_correction_is_bounded_by_the_spread_of_predictions_over_their_own_genes() -> None:
    """The bound by plain loops: conditions leave out different genes, and gene 0 counts in one of them only."""
    rng = np.random.default_rng(5)
    predicted, observed, control = 1 + 0.3 * rng.normal(size=(4, 9)), rng.normal(size=(4, 9)), rng.normal(size=9)
    targets = [(0, 1), (0, 2, 3), (0, 4), (5,)]
    claims, bounds = np.array([0.9, 2.0, 3.0, 1.0]), np.array([2.0, 0.8, 1.5, 0.7])
    genes = [[gene for gene in range(9) if gene not in own] for own in targets]
    spread = 0.0
    for gene in range(1, 9):
        rows = [i for i in range(4) if gene in genes[i]]
        weights = [1 / len(genes[i]) for i in rows]
        values = predicted[rows, gene]
        spread += np.dot(weights, (values - np.average(values, weights=weights)) ** 2)
    noise = np.minimum(claims, bounds)
    claimed = sum(noise[i] / len(genes[i]) for i in range(4))
    assert 0 < spread < claimed
    expected = [
        (((predicted - observed)[i, genes[i]] ** 2).sum() - noise[i] * spread / claimed - bounds[i]) / len(genes[i])
        for i in range(4)
    ]
    options = {"predicted_noise": claims, "observed_noise": bounds, "control_noise": 0.1, "targets": targets}
    np.testing.assert_allclose(noise_corrected_mse(predicted, observed, control, **options)[0], expected)


def test_a_prediction_is_ranked_by_its_change_from_the_control(cells: dict[str, dict[str, np.ndarray]]) -> None:
    """Against ranks of scipy's cosine distances; either side stands for the truth."""
    control = cells["observed"][CONTROL]
    counts = {side: counts_of(cells[side]) for side in ("predicted", "observed")}
    panels = {side: Panel.of(counts[side], control) for side in counts}
    changes = {
        side: np.array([pseudobulk(counts[side][name]) - pseudobulk(control) for name in TARGETS])[:, len(TARGETS) :]
        for side in counts
    }
    for side, truth in (("predicted", "observed"), ("observed", "predicted")):
        distances = cdist(changes[side], changes[truth], "cosine")
        nearer = (distances < np.diag(distances)[:, None]).sum(axis=1)
        found = vcc2026(panels[side], panels[truth], targets=OWN)["perturbation_discrimination"]
        np.testing.assert_allclose(found, 1 - nearer / (len(TARGETS) - 1), atol=1e-12)


def test_discrimination_leaves_out_the_targets_of_the_whole_panel() -> None:
    rng = np.random.default_rng(4)
    observed = rng.normal(size=(5, 20))
    excluded = np.arange(20) < 5
    score = perturbation_discrimination(observed, observed, excluded=excluded)
    assert (score == 1).all()
    only_targets = np.where(excluded, 10 * rng.normal(size=(5, 20)), 0.0)
    assert (perturbation_discrimination(only_targets, observed, excluded=excluded) == 0.5).all()
    with pytest.raises(ValueError, match="no gene"):
        perturbation_discrimination(observed, observed, excluded=np.ones(20, dtype=bool))


def test_genes_are_tested_where_the_control_expresses_them() -> None:
    control = np.tile([1e6 - 5.0, 5.0, 0.0], (6, 1))
    counts = np.tile([1e6 - 50.0, 30.0, 20.0], (6, 1))
    found = rank_table(counts, control)
    assert np.isfinite(found.p_value).tolist() == [True, False, False]
    assert found.lfc[1] == pytest.approx(np.log2(6))
    assert np.isfinite(rank_table(counts, control, min_cpm=-1).p_value).all()


def test_what_is_no_panel_of_counts_is_refused() -> None:
    control = np.ones((4, 3))
    negative = np.array([[3.0, 2.0, -1.0], [1.0, 0.0, 4.0]])
    for call in (
        pseudobulk,
        pseudobulk_noise,
        lambda counts: rank_table(counts, control),
        lambda counts: rank_table(control, counts),
        lambda counts: rank_test(counts, control),
        lambda counts: Panel.of({"A": counts}, control),
    ):
        with pytest.raises(ValueError, match="negative values"):
            call(negative)
    with pytest.raises(ValueError, match="at least one"):
        Panel.of({}, control)
    with pytest.raises(ValueError, match="same conditions in the same order"):
        vcc2026(Panel.of({"A": control}, control), Panel.of({"B": control}, control))
    with pytest.raises(ValueError, match="target of every condition"):
        mean_response({"A": control, "B": control}, control, targets=[(1,), (1,)])
    with pytest.raises(ValueError, match="'B' has one cell"):
        replicate_summary({"A": control, "B": control[:1]}, control)
