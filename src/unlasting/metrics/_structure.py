"""Zeros, totals and dependence between genes in predicted cells."""

from __future__ import annotations

import numpy as np

from unlasting.metrics._matrices import BLOCK_VALUES, Matrix, as_pair, by_gene, dense, gene_blocks, row_blocks, slices
from unlasting.metrics._per_gene import emd_per_gene

MAX_BLOCK_GENES = 1024


def zero_fraction_error(predicted: Matrix, observed: Matrix) -> float:
    """Compute the absolute error in zero fractions, averaged over genes.

    Parameters
    ----------
    predicted, observed
        Cells, shapes `(n_cells, n_genes)` and `(n_other_cells, n_genes)`. A gene is expressed where its value is above 0.

    Returns
    -------
    The mean error, between 0 and 1.
    """
    predicted, observed = as_pair(predicted, observed)
    expressed = [sum((block > 0).sum(axis=0) for block in row_blocks(x)) / x.shape[0] for x in (predicted, observed)]
    return float(np.abs(expressed[0] - expressed[1]).mean())


def library_size_error(predicted: Matrix, observed: Matrix) -> float:
    """Compute the earth mover's distance between library sizes, relative to the observed mean.

    Parameters
    ----------
    predicted
        Predicted log-normalised cells, shape `(n_cells, n_genes)`. The library size is the sum over values
        without the logarithm (`expm1`).
    observed
        Observed log-normalised cells, shape `(n_other_cells, n_genes)`.

    Returns
    -------
    The relative error; NaN if no observed cell expresses a gene.

    Raises
    ------
    ValueError
        If the values are too large for logarithms.
    """
    predicted, observed = as_pair(predicted, observed)
    sizes = []
    for name, cells in (("predicted", predicted), ("observed", observed)):
        with np.errstate(over="ignore"):
            size = np.concatenate([np.expm1(block, dtype=np.float64).sum(axis=1) for block in row_blocks(cells)])
        if not np.isfinite(size).all():
            raise ValueError(f"`{name}` holds values too large for logarithms. Log-normalised expression is needed.")
        sizes.append(size)
    return _relative_distance(*sizes)


def detected_genes_error(predicted: Matrix, observed: Matrix) -> float:
    """Compute the earth mover's distance between numbers of detected genes, relative to the observed mean.

    Parameters
    ----------
    predicted, observed
        Cells, shapes `(n_cells, n_genes)` and `(n_other_cells, n_genes)`. A gene is expressed where its value is above 0.

    Returns
    -------
    The relative error; NaN if no observed cell expresses a gene.
    """
    predicted, observed = as_pair(predicted, observed)
    counts = [np.concatenate([(b > 0).sum(axis=1) for b in row_blocks(cells)]) for cells in (predicted, observed)]
    return _relative_distance(*counts)


def correlation_error(predicted: Matrix, observed: Matrix) -> float:
    """Compute the mean absolute error in correlations between genes.

    Parameters
    ----------
    predicted, observed
        Cells, shapes `(n_cells, n_genes)` and `(n_other_cells, n_genes)`.

    Returns
    -------
    The mean over gene pairs that vary in the observed cells, between 0 and 2. A gene that does not vary in
    the predicted cells counts as uncorrelated there. NaN if fewer than two observed genes vary.
    """
    predicted, observed = as_pair(predicted, observed)
    varies = np.empty(observed.shape[1], dtype=bool)
    for genes, (block,) in gene_blocks(observed):
        varies[genes] = np.ptp(block, axis=1) > 0
    chosen = np.flatnonzero(varies)
    n = len(chosen)
    if n < 2:
        return float("nan")
    samples = by_gene(predicted), by_gene(observed)
    n_cells = max(cells.shape[1] for cells in samples)
    blocks = slices(n, min(MAX_BLOCK_GENES, max(1, BLOCK_VALUES // n_cells)))
    total = 0.0
    for i, rows in enumerate(blocks):
        left = [_standardised(cells, chosen[rows]) for cells in samples]
        for columns in blocks[i:]:
            right = left if columns is rows else [_standardised(cells, chosen[columns]) for cells in samples]
            first, second = (a @ b.T for a, b in zip(left, right, strict=True))
            error = np.abs(first - second)
            if columns is rows:
                np.fill_diagonal(error, 0.0)
            total += (1 if columns is rows else 2) * float(error.sum(dtype=np.float64))
    return total / (n * (n - 1))


def _standardised(cells: Matrix, genes: np.ndarray) -> np.ndarray:
    """Get genes, centred with unit norm, shape `(n_genes, n_cells)`; zeros where a gene does not vary."""
    block = dense(cells[genes])
    varies = np.ptp(block, axis=1) > 0
    block = block - block.mean(axis=1, keepdims=True, dtype=np.float64).astype(block.dtype)
    norm = np.linalg.norm(block, axis=1)
    return block * np.where(varies, 1 / np.where(varies, norm, 1), 0)[:, None].astype(block.dtype)


def _relative_distance(predicted: np.ndarray, observed: np.ndarray) -> float:
    """Wasserstein distance between two vectors, relative to the observed mean."""
    mean = float(observed.mean())
    return float(emd_per_gene(predicted[:, None], observed[:, None])[0]) / mean if mean > 0 else float("nan")
