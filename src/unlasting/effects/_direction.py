"""Direction from control to perturbed cells."""

from __future__ import annotations

import numpy as np


def t_scores(group: np.ndarray, control: np.ndarray) -> np.ndarray:
    """Score the change in every gene by Welch's t, 0 where a gene does not vary, shape `(n_genes,)`."""
    with np.errstate(all="ignore"):
        change = group.mean(axis=0) - control.mean(axis=0)
        error = np.sqrt(group.var(axis=0, ddof=1) / len(group) + control.var(axis=0, ddof=1) / len(control))
        return np.where(error > 0, change / error, 0.0)


def direction(group: np.ndarray, control: np.ndarray, n_genes: int) -> tuple[np.ndarray, np.ndarray]:
    """Select the genes with the largest absolute t, and weight them as a discriminant with diagonal covariance.

    Parameters
    ----------
    group
        Perturbed cells, shape `(n_cells, n_all_genes)`.
    control
        Control cells, shape `(n_controls, n_all_genes)`.
    n_genes
        Number of genes to select.

    Returns
    -------
    The genes' columns and weights, shape `(n_genes,)`, or fewer if there are not as many.
    """
    variance = (control.var(axis=0, ddof=1) + group.var(axis=0, ddof=1)) / 2
    # nearly undetected genes have next to no variance: none of them may be the whole direction
    shrinkage = np.median(variance[variance > 0]) if variance.any() else 1.0
    genes = np.argsort(-np.abs(t_scores(group, control)), kind="stable")[:n_genes]
    change = group.mean(axis=0)[genes] - control.mean(axis=0)[genes]
    return genes, change / (variance[genes] + shrinkage)
