"""Metrics that weigh genes by their response, and the recovery of responding genes."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import average_precision_score

from unlasting.metrics._matrices import Matrix, check_genes, mean_profile


def gene_weights(score: np.ndarray) -> np.ndarray:
    """Compute gene weights from differential expression.

    Parameters
    ----------
    score
        Statistic per gene, shape `(n_genes,)`. Its sign does not matter; a missing one weighs nothing.

    Returns
    -------
    The squares of the absolute scores after scaling to `[0, 1]`, with sum 1; all the same if no gene differs.

    Notes
    -----
    The weights are those by :cite:t:`mejia2025diversity`.
    """
    size = np.abs(np.asarray(score, dtype=np.float64))
    known = np.isfinite(size)
    low, high = (size[known].min(), size[known].max()) if known.any() else (0.0, 0.0)
    if high <= low:
        return np.full(len(size), 1 / len(size))
    weights = np.where(known, (size - low) / (high - low), 0.0) ** 2
    return weights / weights.sum()


def weighted_mse(predicted: Matrix, observed: Matrix, weights: np.ndarray) -> float:
    """Compute the squared error of the mean profile, weighted by gene.

    Parameters
    ----------
    predicted
        Predicted cells, shape `(n_cells, n_genes)`, or their mean profile, shape `(n_genes,)`.
    observed
        Observed cells or their mean profile, likewise.
    weights
        Gene weights (:func:`gene_weights`), shape `(n_genes,)`; their sum is set to 1.

    Returns
    -------
    The weighted mean squared error, in the data's squared unit. NaN if all weights are 0.

    Notes
    -----
    It is the WMSE by :cite:t:`mejia2025diversity`, `wmse_exp2` in scPertEval.
    """
    first, second, shares = _profiles(predicted, observed, weights)
    return float(shares @ (first - second) ** 2)


def weighted_r2_change(predicted: Matrix, observed: Matrix, reference: Matrix, weights: np.ndarray) -> float:
    r"""Compute the predicted share of variance in the observed change, weighted by gene.

    Parameters
    ----------
    predicted
        Predicted cells, shape `(n_cells, n_genes)`, or their mean profile, shape `(n_genes,)`.
    observed
        Observed cells or their mean profile, likewise.
    reference
        Origin of the change: the mean profile of other perturbations, or that of control cells.
    weights
        Gene weights (:func:`gene_weights`), shape `(n_genes,)`; their sum is set to 1.

    Returns
    -------
    :math:`1 - \sum_g w_g (\Delta_g - \hat\Delta_g)^2 / \sum_g w_g (\Delta_g - \bar\Delta)^2`: 1 is perfect, and a
    prediction of the reference itself is at most 0. NaN if the observed change is the same in all genes.

    Notes
    -----
    It is the weighted delta :math:`R^2` by :cite:t:`mejia2025diversity`, `weighted_r2_pert_exp2` in scPertEval.
    """
    first, second, shares = _profiles(predicted, observed, weights)
    origin = mean_profile(reference, "reference")
    check_genes(len(first), len(origin), "predicted", "reference")
    change = second - origin
    variance = shares @ (change - shares @ change) ** 2
    return float(1 - shares @ (first - second) ** 2 / variance) if variance > 0 else float("nan")


def de_auprc(predicted_score: np.ndarray, observed_pvalue: np.ndarray, *, threshold: float = 0.05) -> float:
    """Compute the average precision with which predicted scores find the significant observed genes.

    Parameters
    ----------
    predicted_score
        Ranks the genes by its absolute value, shape `(n_genes,)`. A missing one comes last.
    observed_pvalue
        Adjusted p-values, observed against control cells, shape `(n_genes,)`. A missing one is not significant.
    threshold
        Below which a gene is significant.

    Returns
    -------
    The area under the curve of precision and recall; by chance the share of significant genes. NaN if no or every
    gene is significant.

    Notes
    -----
    It is `de_auprc` in scPertEval. `de_wilcoxon_pr_auc` in cell-eval2 ranks by p-values.
    """
    score, p_value = np.abs(np.asarray(predicted_score, dtype=float)), np.asarray(observed_pvalue, dtype=float)
    if score.shape != p_value.shape or score.ndim != 1:
        raise ValueError(
            f"`predicted_score` has the shape {score.shape} and `observed_pvalue` {p_value.shape}. Both need a value for "
            "each gene."
        )
    significant = p_value < threshold
    if significant.all() or not significant.any():
        return float("nan")
    return float(average_precision_score(significant, np.where(np.isfinite(score), score, -1.0)))


def _profiles(predicted: Matrix, observed: Matrix, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    first, second = mean_profile(predicted, "predicted"), mean_profile(observed, "observed")
    weights = mean_profile(weights, "weights")
    check_genes(len(first), len(second), "predicted", "observed")
    check_genes(len(first), len(weights), "predicted", "weights")
    total = weights.sum()
    return first, second, weights / total if total > 0 else np.full(len(weights), np.nan)
