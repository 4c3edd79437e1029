"""Gene similarity from Gene Ontology annotations, shipped with the package."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import as_file, files

import numpy as np
from scipy import sparse


@lru_cache(maxsize=1)
def annotated_genes() -> tuple[np.ndarray, sparse.csr_matrix]:
    """Read the shipped annotations: gene names, and their terms, shape `(n_genes, n_terms)`."""
    with as_file(files("unlasting.pp") / "_data" / "go_human.npz") as path, np.load(path) as stored:
        genes = np.array(stored["genes"].tobytes().decode().split("\n"), dtype=object)
        indices, indptr = stored["indices"].astype(np.int32), stored["indptr"]
        shape = (len(genes), len(stored["terms"]))
    return genes, sparse.csr_matrix((np.ones(len(indices)), indices, indptr), shape=shape)


@lru_cache(maxsize=4)
def embedding(n_components: int) -> tuple[np.ndarray, np.ndarray]:
    """Embed every annotated gene, so that genes in one process are close.

    Terms are weighted by their rarity (tf-idf). A truncated singular value decomposition with a fixed seed reduces the
    matrix, and brings genes with related terms together.

    Returns
    -------
    Gene names, and a unit row for each, shape `(n_genes, n_components)`, float32.
    """
    genes, annotated = annotated_genes()
    return genes, reduced(tf_idf(annotated), n_components)


def shared_terms(names: Sequence[str], symbols: Sequence[str], targets: Sequence[str]) -> sparse.csr_matrix:
    """Get the terms shared by at least two `targets`, for all genes, shape `(n_genes, n_terms)`.

    `symbols` are the annotated symbols for `names`. Terms are weighted by their rarity. Rows are not scaled to one length,
    so that a gene with many terms keeps the weight for each shared one.
    """
    genes, annotated = annotated_genes()
    row = {gene: i for i, gene in enumerate(genes)}
    annotated_names = annotated[[row[symbol] for symbol in symbols]]
    shared = np.flatnonzero(np.asarray(annotated_names[np.isin(names, targets)].sum(axis=0)).ravel() >= 2)
    rarity = np.log(len(genes) / np.asarray(annotated[:, shared].sum(axis=0)).ravel())
    return sparse.csr_matrix(annotated_names[:, shared] @ sparse.diags(rarity), dtype=np.float32)


def tf_idf(annotated: sparse.csr_matrix) -> sparse.csr_matrix:
    """Weight each term by its logarithmic rarity, and give each row length 1."""
    n_genes = annotated.shape[0]
    rarity = np.log(n_genes / np.maximum(np.asarray(annotated.sum(axis=0)).ravel(), 1))
    return unit_rows(annotated @ sparse.diags(rarity))


def unit_rows(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """Give each row that is not zero length 1."""
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return sparse.csr_matrix(sparse.diags(1 / np.where(length > 0, length, 1)) @ matrix)


def reduced(matrix: sparse.csr_matrix, n_components: int) -> np.ndarray:
    """Reduce rows to their leading singular directions, each row of length 1, float32.

    Directions are scaled by the square root of their singular value. Scaled by the value itself, the first few, which
    separate well studied genes from the others, would dominate.
    """
    from sklearn.utils.extmath import randomized_svd

    left, values, _ = randomized_svd(matrix, min(n_components, *matrix.shape), n_iter=4, random_state=0)
    rows = left * np.sqrt(values)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(length > 0, length, 1)).astype(np.float32)
