"""The six metrics in the Virtual Cell Challenge 2026, as cell-eval2 defines them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unlasting.metrics._discrimination import discrimination_score
from unlasting.metrics._rank_test import RankTable

THRESHOLD = 0.05
PURITY = 0.9
MIN_GENES = 10


def perturbation_discrimination(
    predicted: np.ndarray, observed: np.ndarray, *, excluded: np.ndarray | None = None
) -> np.ndarray:
    """Rank each condition's own truth among all truths by cosine distance to its prediction.

    Parameters
    ----------
    predicted
        Predicted changes of pseudobulk profiles from the observed control, shape `(n_conditions, n_genes)`.
    observed
        Observed changes, same conditions in the same order.
    excluded
        The target genes of *all* conditions, shape `(n_genes,)`, boolean. They are left out everywhere: otherwise a
        prediction scores by moving other conditions' targets.

    Returns
    -------
    `1 - rank / (n_conditions - 1)` with the rank counted from 0, shape `(n_conditions,)`. Ties share their mean rank.
    NaN with one condition.

    Raises
    ------
    TypeError
        If a matrix does not hold real numbers.
    ValueError
        If shapes differ, a value is missing or infinite, or every gene is excluded.

    Notes
    -----
    It is `pds_cosine` in cell-eval2.
    """
    if excluded is not None:
        kept = ~np.asarray(excluded, dtype=bool)
        if not kept.any():
            raise ValueError("`excluded` leaves no gene. Exclude the targets only, or pass `excluded=None`.")
        predicted, observed = np.asarray(predicted)[:, kept], np.asarray(observed)[:, kept]
    n = len(predicted)
    score = discrimination_score(predicted, observed, distance="cosine")
    return 1 - (1 - score) * n / (n - 1) if n > 1 else np.full(n, np.nan)


def noise_corrected_mse(
    predicted: np.ndarray,
    observed: np.ndarray,
    control: np.ndarray,
    *,
    predicted_noise: np.ndarray,
    observed_noise: np.ndarray,
    control_noise: float,
    targets: Sequence[Sequence[int]] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the squared error in pseudobulk profiles, and the observed change's squared size, without noise.

    Parameters
    ----------
    predicted, observed
        Pseudobulk profiles for the same conditions, shape `(n_conditions, n_genes)`.
    control
        Pseudobulk profile for the observed control cells, shape `(n_genes,)`.
    predicted_noise, observed_noise, control_noise
        Their sampling variance (:func:`pseudobulk_noise`), shape `(n_conditions,)` and a number.
    targets
        Columns of each condition's target genes, which do not count. If `None`, all genes count.

    Returns
    -------
    Error and size, means over genes, each of shape `(n_conditions,)`. The metric is the sum of errors divided by the
    sum of sizes: 0 is perfect, 1 as good as the control. Single values can be negative.

    Raises
    ------
    ValueError
        If the shapes differ.

    Notes
    -----
    Error and size are `expr_mse_unbiased_capped` and `expr_distance_unbiased` in cell-eval2, and their ratio of sums
    `expr_mse_unbiased_capped_norm`. The correction of a prediction is bounded twice, so that noisy cells earn nothing:
    by the noise of the observed cells, and in total by the spread of the predictions over conditions.
    """
    predicted, observed = (np.asarray(x, dtype=np.float64) for x in (predicted, observed))
    if predicted.shape != observed.shape or predicted.shape[1:] != np.shape(control):
        raise ValueError(
            f"`predicted` has the shape {predicted.shape}, `observed` {observed.shape} and `control` "
            f"{np.shape(control)}. All need the same genes, and the first two the same conditions."
        )
    counted = np.ones(predicted.shape, dtype=bool)
    for row, own in enumerate(targets or ()):
        counted[row, list(own)] = False
    n_genes = counted.sum(axis=1)
    weight = np.divide(1.0, n_genes, out=np.zeros(len(n_genes)), where=n_genes > 0)

    noise = np.minimum(predicted_noise, observed_noise)
    claimed = float((noise * weight).sum())
    if claimed > 0:
        noise = noise * min(1.0, _spread(predicted, counted, weight) / claimed)
    error = ((predicted - observed) ** 2 * counted).sum(axis=1) - noise - observed_noise
    size = ((observed - control) ** 2 * counted).sum(axis=1) - observed_noise - control_noise
    scale = np.where(n_genes > 0, weight, np.nan)
    return error * scale, size * scale


def _spread(profiles: np.ndarray, counted: np.ndarray, weight: np.ndarray) -> float:
    """Add up the weighted squares of deviations from the mean over conditions, gene by gene."""
    weights = counted * weight[:, None]
    total = weights.sum(axis=0)
    centred = profiles - profiles.mean(axis=0)
    mean = np.divide((weights * centred).sum(axis=0), total, out=np.zeros(len(total)), where=total > 0)
    squares = (weights * (centred - mean) ** 2).sum(axis=0)
    return float(squares[counted.sum(axis=0) >= 2].sum())


def direction_fidelity(predicted: RankTable, observed: RankTable, *, targets: Sequence[int] = ()) -> float:
    """Compute the share of rightly directed genes among the significant predicted, or as many as are observed.

    Parameters
    ----------
    predicted, observed
        Differential expression in predicted and observed cells against the observed control.
    targets
        Target gene columns, which do not count.

    Returns
    -------
    Number of genes that are significant in the prediction and change as observed, divided by the larger number of
    significant genes of both. NaN if there are none.

    Notes
    -----
    It is `de_wilcoxon_direction_fidelity_yield_raw` in cell-eval2. A gene without observed change has no direction.
    """
    significant = _significant(observed, targets)
    called = _significant(predicted, targets) & _has_direction(observed)
    n = max(called.sum(), significant.sum())
    return float((called & _agrees(predicted, observed)).sum() / n) if n else float("nan")


def direction_reach(predicted: RankTable, observed: RankTable, *, targets: Sequence[int] = ()) -> float:
    """Compute the depth to which the predicted ranking keeps 90 % of the directions right.

    Parameters
    ----------
    predicted, observed
        Differential expression in predicted and observed cells against the observed control.
    targets
        Target gene columns, which do not count.

    Returns
    -------
    The largest depth at which 90 % of the directions are right, divided by the number of significant observed genes;
    NaN if there are none.

    Notes
    -----
    It is `de_wilcoxon_direction_reach_raw` in cell-eval2. Genes are ranked by the adjusted p-value of the prediction,
    then by the p-value, by the size of the change, and by their order in the table.
    """
    significant = _significant(observed, targets)
    if not significant.any():
        return float("nan")
    ranked = np.flatnonzero(significant & np.isfinite(predicted.p_value))
    p_value, p_adjusted, size = predicted.p_value[ranked], predicted.p_adjusted[ranked], np.abs(predicted.lfc[ranked])
    ranked = ranked[np.lexsort((-size, p_value, p_adjusted))]
    depth = np.cumsum(_has_direction(observed)[ranked])
    right = np.cumsum(_agrees(predicted, observed)[ranked])
    purity = right / np.maximum(depth, 1)
    return float(depth[purity >= PURITY].max(initial=0) / significant.sum())


def significant_jaccard(predicted: RankTable, observed: RankTable, *, targets: Sequence[int] = ()) -> float:
    """Compute the Jaccard index of the significant genes.

    Parameters
    ----------
    predicted, observed
        Differential expression in predicted and observed cells against the observed control.
    targets
        Target gene columns, which do not count.

    Returns
    -------
    Size of the intersection divided by that of the union; 1 if both are empty.

    Notes
    -----
    It is `de_wilcoxon_sig_jaccard` in cell-eval2.
    """
    first, second = _significant(predicted, targets), _significant(observed, targets)
    union = (first | second).sum()
    return float((first & second).sum() / union) if union else 1.0


def lfc_nmae(
    predicted: RankTable, observed: RankTable, *, reference: RankTable | None = None, targets: Sequence[int] = ()
) -> float:
    """Compute the mean absolute error in log fold changes, relative to their mean absolute size.

    Parameters
    ----------
    predicted, observed
        Differential expression in predicted and observed cells. The change of a gene that is not tested is 0.
    reference
        Differential expression that chooses the genes and gives their size. If `None`, `observed`.
    targets
        Target gene columns, which do not count.

    Returns
    -------
    The relative error over the significant genes of `reference`; 1 for no predicted change. NaN with fewer than 10
    genes.

    Notes
    -----
    It is `de_wilcoxon_lfc_nmae` in cell-eval2.
    """
    reference = reference or observed
    chosen = _significant(reference, targets)
    if chosen.sum() < MIN_GENES:
        return float("nan")
    size = np.abs(reference.lfc[chosen]).mean()
    error = np.abs(_tested_lfc(predicted)[chosen] - _tested_lfc(observed)[chosen]).mean()
    return float(error / size) if size > 0 else float("nan")


def _tested_lfc(table: RankTable) -> np.ndarray:
    return np.where(np.isfinite(table.p_value) & np.isfinite(table.lfc), table.lfc, 0.0)


def _significant(table: RankTable, targets: Sequence[int]) -> np.ndarray:
    found = table.p_adjusted < THRESHOLD
    found[list(targets)] = False
    return found


def _has_direction(table: RankTable) -> np.ndarray:
    return np.isfinite(table.p_value) & ~np.isnan(table.lfc) & (table.lfc != 0)


def _agrees(predicted: RankTable, observed: RankTable) -> np.ndarray:
    return _has_direction(predicted) & _has_direction(observed) & (np.sign(predicted.lfc) == np.sign(observed.lfc))
