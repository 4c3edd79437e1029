"""Comparisons of differential expression agree with sets and lists written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from unlasting.metrics import de_direction, de_lfc_spearman, de_overlap, de_recall


@st.composite
def tables(draw: st.DrawFn) -> dict[str, np.ndarray]:
    """Log-fold changes without ties and adjusted p-values of two groups, of which few or all are significant."""
    n = draw(st.integers(2, 30))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    scale = draw(st.sampled_from([0.06, 0.2, 1.0]))
    table = {f"{name}_lfc": rng.normal(size=n) for name in ("predicted", "observed")}
    return table | {f"{name}_pvalue": scale * rng.random(n) for name in ("predicted", "observed")}


def top(lfc: np.ndarray, pvalue: np.ndarray) -> list[int]:
    return sorted((i for i in range(len(lfc)) if pvalue[i] < 0.05), key=lambda i: -abs(lfc[i]))


@given(tables(), st.one_of(st.none(), st.integers(1, 8)))
@settings(max_examples=80, deadline=None)
def test_agree_with_lists(table, n_top) -> None:
    predicted, observed = (top(table[f"{name}_lfc"], table[f"{name}_pvalue"]) for name in ("predicted", "observed"))
    lfc = table["predicted_lfc"], table["observed_lfc"]
    pvalue = table["predicted_pvalue"], table["observed_pvalue"]
    overlap, recall = de_overlap(*lfc, *pvalue, n_top=n_top), de_recall(*pvalue)
    direction, spearman = de_direction(*lfc, pvalue[1]), de_lfc_spearman(*lfc, pvalue[1])
    if not observed:
        assert np.isnan([overlap, recall, direction, spearman]).all()
        return
    n = min(n_top or len(observed), len(observed))
    assert overlap == pytest.approx(len(set(predicted[:n]) & set(observed[:n])) / n)
    assert recall == pytest.approx(len(set(predicted) & set(observed)) / len(observed))
    assert direction == pytest.approx(np.mean([lfc[0][i] * lfc[1][i] > 0 for i in observed]))
    if len(observed) > 1:
        expected = stats.spearmanr(lfc[0][observed], lfc[1][observed]).statistic
        assert spearman == pytest.approx(expected)
    else:
        assert np.isnan(spearman)


@given(tables())
@settings(max_examples=30, deadline=None)
def test_the_truth_is_perfect(table) -> None:
    lfc, pvalue = table["observed_lfc"], table["observed_pvalue"]
    if (pvalue < 0.05).sum() > 1:
        assert de_overlap(lfc, lfc, pvalue, pvalue) == 1
        assert de_recall(pvalue, pvalue) == 1
        assert de_direction(lfc, lfc, pvalue) == 1
        assert de_direction(-lfc, lfc, pvalue) == 0
        assert de_lfc_spearman(lfc, lfc, pvalue) == pytest.approx(1)
        assert de_lfc_spearman(-lfc, lfc, pvalue) == pytest.approx(-1)


def test_without_p_values_all_genes_count() -> None:
    predicted, observed = np.array([3.0, -2.0, 1.0, 0.0]), np.array([2.0, 0.1, -3.0, 1.0])
    assert de_overlap(predicted, observed) == 1
    assert de_overlap(predicted, observed, n_top=2) == 0.5
    assert de_overlap(predicted, observed, n_top=1) == 0
    assert de_direction(predicted, observed) == 0.25
    assert de_lfc_spearman(predicted, observed) == pytest.approx(stats.spearmanr(predicted, observed).statistic)


@pytest.mark.filterwarnings("error")
def test_no_predicted_change_is_a_wrong_direction_and_no_rank() -> None:
    assert de_direction(np.zeros(3), np.ones(3)) == 0
    assert np.isnan(de_lfc_spearman(np.zeros(3), np.arange(3.0)))
    assert np.isnan(de_lfc_spearman(np.arange(3.0), np.zeros(3)))
    assert np.isnan(de_recall(np.ones(3), np.ones(3)))


def test_a_gene_at_the_threshold_is_not_significant() -> None:
    at, below = np.array([0.05, 0.01]), np.array([0.01, 0.01])
    assert de_recall(at, below) == 0.5
    assert de_recall(np.array([0.5, 0.01]), at) == 1
    assert de_direction(np.array([-1.0, 1.0]), np.ones(2), at) == 1
    assert de_overlap(np.array([3.0, 1.0]), np.array([3.0, 1.0]), at, np.array([0.01, 0.5]), n_top=1) == 0


def test_genes_with_one_score_are_in_their_order() -> None:
    observed = -np.arange(1, 201.0)[::-1]
    assert de_overlap(np.zeros(200), observed, n_top=5) == 1
    assert de_overlap(np.array([np.nan, 0.0]), np.array([0.0, 5.0]), n_top=1) == 1  # a missing one comes last


def test_missing_values() -> None:
    missing = np.array([np.nan, 2.0, -1.0, 3.0])
    observed = np.array([9.0, 2.0, -1.0, 3.0])
    assert de_direction(missing, observed) == 1
    assert de_direction(missing, observed, np.full(4, 0.01)) == 1
    assert de_lfc_spearman(missing, observed) == pytest.approx(1)
    assert de_overlap(missing, observed, n_top=1) == 0
    assert de_overlap(missing, observed, n_top=3) == pytest.approx(2 / 3)
    assert de_recall(np.array([np.nan, 0.01]), np.array([0.01, 0.01])) == 0.5
    assert de_lfc_spearman(np.array([np.inf, 1.0, -np.inf]), np.array([3.0, 2.0, 1.0])) == pytest.approx(1)


@pytest.mark.parametrize("shapes", [(3, 2), ((2, 2), (2, 2)), (0, 0)], ids=str)
def test_vectors_need_one_value_per_gene(shapes) -> None:
    first, second = (np.ones(shape) for shape in shapes)
    for metric in (de_recall, de_overlap, de_direction, de_lfc_spearman):
        with pytest.raises(ValueError, match="One value for each gene is needed"):
            metric(first, second)
    with pytest.raises(ValueError, match="'observed_pvalue': "):
        de_direction(np.ones(3), np.ones(3), np.ones(1))


def test_at_least_one_gene_is_compared() -> None:
    with pytest.raises(ValueError, match="`n_top` is 0"):
        de_overlap(np.ones(3), np.ones(3), n_top=0)


def test_a_missing_value_may_be_none() -> None:
    """As in a column of objects, which a table becomes when not all of it is numbers."""
    holed, full = np.array([None, 2.0, -1.0], dtype=object), np.array([9.0, 2.0, -1.0])
    nan = np.array([np.nan, 2.0, -1.0])
    assert de_overlap(holed, full, n_top=2) == de_overlap(nan, full, n_top=2) == 0.5
    assert de_direction(holed, full) == 1
    assert de_lfc_spearman(holed, full) == pytest.approx(1)
    assert de_recall(np.array([None, 0.01, 0.5], dtype=object), np.full(3, 0.01)) == pytest.approx(1 / 3)


def test_ties_are_cut_in_the_order_of_the_genes() -> None:
    rng = np.random.default_rng(0)
    predicted, observed = rng.integers(-2, 3, 200).astype(float), rng.permutation(200) + 1.0
    ranked = [sorted(range(200), key=lambda i, score=score: -abs(score[i])) for score in (predicted, observed)]
    for n_top in (10, 50, 120, 190):
        expected = len(set(ranked[0][:n_top]) & set(ranked[1][:n_top])) / n_top
        assert de_overlap(predicted, observed, n_top=n_top) == pytest.approx(expected)
