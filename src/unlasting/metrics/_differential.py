"""Comparisons between two tables with differential expression."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats


def de_overlap(
    predicted_score: np.ndarray,
    observed_score: np.ndarray,
    predicted_pvalue: np.ndarray | None = None,
    observed_pvalue: np.ndarray | None = None,
    *,
    n_top: int | None = None,
    threshold: float = 0.05,
) -> float:
    """Compute the share of top observed genes among as many top predicted genes.

    Parameters
    ----------
    predicted_score, observed_score
        Log-fold changes or t statistics against control cells, shape `(n_genes,)`. Their absolute value ranks genes, and
        missing values come last.
    predicted_pvalue, observed_pvalue
        Adjusted p-values, shape `(n_genes,)`: only genes below `threshold` are ranked. If `None`, all are.
    n_top
        Number of genes, at most the significant observed ones. If `None`, all these.
    threshold
        Below which a gene is significant.

    Returns
    -------
    The share of shared genes, NaN if no observed gene is significant.

    Raises
    ------
    ValueError
        If the vectors have no gene or different lengths, or `n_top` is not positive.

    Notes
    -----
    With log-fold changes and p-values it is cell-eval's `overlap_at_N` (`overlap_at_k` with `n_top`), which gives 0
    where nothing is significant.
    """
    if n_top is not None and n_top < 1:
        raise ValueError(f"`n_top` is {n_top}, but at least one gene is needed.")
    vectors = _vectors(
        predicted_score=predicted_score,
        observed_score=observed_score,
        predicted_pvalue=predicted_pvalue,
        observed_pvalue=observed_pvalue,
    )
    predicted, observed = (
        _ranked(vectors[f"{name}_score"], vectors.get(f"{name}_pvalue"), threshold)
        for name in ("predicted", "observed")
    )
    n = len(observed) if n_top is None else min(n_top, len(observed))
    return len(np.intersect1d(predicted[:n], observed[:n])) / n if n else float("nan")


def de_recall(predicted_pvalue: np.ndarray, observed_pvalue: np.ndarray, *, threshold: float = 0.05) -> float:
    """Compute the share of significant observed genes that are significant in predicted cells.

    Parameters
    ----------
    predicted_pvalue, observed_pvalue
        Adjusted p-values against control cells, shape `(n_genes,)`. A missing one is not significant.
    threshold
        Below which a gene is significant.

    Returns
    -------
    The share, NaN if no observed gene is significant.

    Notes
    -----
    It is cell-eval's `de_sig_genes_recall`. P-values depend on cell numbers: compare equally many.
    """
    vectors = _vectors(predicted_pvalue=predicted_pvalue, observed_pvalue=observed_pvalue)
    chosen = vectors["observed_pvalue"] < threshold
    return _mean(vectors["predicted_pvalue"][chosen] < threshold)


def de_direction(
    predicted_lfc: np.ndarray,
    observed_lfc: np.ndarray,
    observed_pvalue: np.ndarray | None = None,
    *,
    threshold: float = 0.05,
) -> float:
    """Compute the share of significant observed genes that change in the predicted direction.

    Parameters
    ----------
    predicted_lfc, observed_lfc
        Log-fold changes against control cells, or any score with their sign, shape `(n_genes,)`. No predicted change is
        a wrong direction.
    observed_pvalue
        Adjusted p-values in observed cells, shape `(n_genes,)`. If `None`, all genes count.
    threshold
        Below which a gene is significant.

    Returns
    -------
    The share, 0.5 by chance, NaN if no observed gene is significant.

    Notes
    -----
    It is cell-eval's `de_direction_match`. Genes where a log-fold change is missing are left out.
    """
    predicted, observed = _significant(predicted_lfc, observed_lfc, observed_pvalue, threshold)
    return _mean(np.sign(predicted) == np.sign(observed))


def de_lfc_spearman(
    predicted_lfc: np.ndarray,
    observed_lfc: np.ndarray,
    observed_pvalue: np.ndarray | None = None,
    *,
    threshold: float = 0.05,
) -> float:
    """Correlate ranked log-fold changes over the significant observed genes.

    Parameters
    ----------
    predicted_lfc, observed_lfc
        Log-fold changes against control cells, shape `(n_genes,)`.
    observed_pvalue
        Adjusted p-values in observed cells, shape `(n_genes,)`. If `None`, all genes count.
    threshold
        Below which a gene is significant.

    Returns
    -------
    Spearman's correlation, NaN with fewer than two genes or equal values.

    Notes
    -----
    It is cell-eval's `de_spearman_lfc_sig`. Genes where a log-fold change is missing are left out.
    """
    predicted, observed = _significant(predicted_lfc, observed_lfc, observed_pvalue, threshold)
    if len(observed) < 2 or np.ptp(stats.rankdata(predicted)) == 0 or np.ptp(stats.rankdata(observed)) == 0:
        return float("nan")
    return float(stats.spearmanr(predicted, observed).statistic)


def _vectors(**given: Any) -> dict[str, np.ndarray]:
    """Check that the given vectors have one value for each gene."""
    vectors = {name: np.asarray(values, dtype=np.float64) for name, values in given.items() if values is not None}
    shapes = {name: values.shape for name, values in vectors.items()}
    first = next(iter(shapes.values()))
    if len(first) != 1 or first[0] == 0 or set(shapes.values()) != {first}:
        raise ValueError(f"One value for each gene is needed, of the same genes, but the shapes are {shapes}.")
    return vectors


def _ranked(score: np.ndarray, pvalue: np.ndarray | None, threshold: float) -> np.ndarray:
    """Rank the significant genes by absolute score, those with a missing one last."""
    order = np.argsort(-np.nan_to_num(np.abs(score), nan=-1.0, posinf=np.inf), kind="stable")
    return order if pvalue is None else order[pvalue[order] < threshold]


def _significant(
    predicted: np.ndarray, observed: np.ndarray, pvalue: np.ndarray | None, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Get both log-fold changes for the significant observed genes."""
    vectors = _vectors(predicted_lfc=predicted, observed_lfc=observed, observed_pvalue=pvalue)
    predicted, observed = vectors["predicted_lfc"], vectors["observed_lfc"]
    chosen = ~np.isnan(predicted) & ~np.isnan(observed)
    if pvalue is not None:
        chosen &= vectors["observed_pvalue"] < threshold
    return predicted[chosen], observed[chosen]


def _mean(hits: np.ndarray) -> float:
    return float(hits.mean()) if len(hits) else float("nan")
