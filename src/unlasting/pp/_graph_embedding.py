"""Similarity of genes in a regulatory graph, by common regulators and common regulated genes."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, svds


def graph_embedding(graph: sparse.csr_matrix, n_components: int) -> np.ndarray:
    """Embed the genes in a signed, directed graph: unit rows, shape `(n_genes, at most n_components)`.

    The graph has the shape `(n_genes, n_genes)`, with edges from row to column. A gene is described by the genes reached from
    it within two edges, forwards and backwards. It also reaches itself, so that a regulator and its regulated gene are similar.
    Paths through genes with many neighbours have less weight, and so have genes that many others reach. A truncated singular
    value decomposition reduces the description.
    """
    n_genes = graph.shape[0]
    scaled = graph / abs(graph.data).mean() if graph.nnz else graph
    forward, backward = (_Reach(sparse.csr_matrix(step)) for step in (scaled, scaled.T))

    def describe(columns: np.ndarray) -> np.ndarray:  # (2 n_genes, k) -> (n_genes, k)
        columns = columns.reshape(2 * n_genes, -1)
        return forward.apply(columns[:n_genes]) + backward.apply(columns[n_genes:])

    def describe_transposed(rows: np.ndarray) -> np.ndarray:  # (n_genes, k) -> (2 n_genes, k)
        rows = rows.reshape(n_genes, -1)
        return np.concatenate([forward.apply_transposed(rows), backward.apply_transposed(rows)])

    description = LinearOperator(
        (n_genes, 2 * n_genes),
        matvec=lambda column: describe(column).ravel(),
        rmatvec=lambda row: describe_transposed(row).ravel(),
        matmat=describe,
        rmatmat=describe_transposed,
        dtype=np.float64,
    )
    start = np.random.default_rng(0).standard_normal(n_genes)
    if n_genes == 1:
        return np.ones((1, 1), dtype=np.float32)
    left, values, _ = svds(description, k=min(n_components, n_genes - 1), v0=start)
    rows = (left * values)[:, ::-1]
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(length > 0, length, 1)).astype(np.float32)


class _Reach:
    """The genes within two edges, as an unevaluated product of sparse matrices."""

    def __init__(self, step: sparse.csr_matrix) -> None:
        n_genes = step.shape[0]
        out = step.getnnz(axis=1)
        self.step = step
        self.dilution = 1 / np.sqrt(np.maximum(out, 1))[:, None]
        self.rarity = np.log(n_genes / (1 + step.getnnz(axis=0)))[:, None].clip(min=0.1)
        self.size = 1 / np.sqrt(1 + out)[:, None]

    def apply(self, columns: np.ndarray) -> np.ndarray:
        """Multiply from the right, `(n_genes, k)` to `(n_genes, k)`."""
        columns = self.rarity * columns
        once = self.step @ columns
        return self.size * (columns + once + self.step @ (self.dilution * once))

    def apply_transposed(self, rows: np.ndarray) -> np.ndarray:
        """Multiply from the left, `(n_genes, k)` to `(n_genes, k)`."""
        rows = self.size * rows
        once = self.step.T @ rows
        return self.rarity * (rows + once + self.step.T @ (self.dilution * once))
