"""Knowledge about human genes, shipped with the package: Gene Ontology, Reactome and STRING."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.resources import as_file, files
from typing import Final

import numpy as np
from scipy import sparse

_OWN_WEIGHT: Final = 0.5
"""Weight of a gene itself among its interaction partners, so that two partners are similar."""


@lru_cache(maxsize=1)
def annotated_genes() -> tuple[np.ndarray, sparse.csr_matrix]:
    """Read the Gene Ontology annotations: gene names, and their terms, shape `(n_genes, n_terms)`."""
    return _sets("go_human.npz")


@lru_cache(maxsize=1)
def pathways() -> tuple[np.ndarray, sparse.csr_matrix]:
    """Read the pathways in Reactome: gene names, and their pathways, shape `(n_genes, n_pathways)`."""
    return _sets("reactome_human.npz")


@lru_cache(maxsize=1)
def interactions() -> tuple[np.ndarray, sparse.csr_matrix]:
    """Read the interactions in STRING: gene names, and symmetric scores in [0, 1], shape `(n_genes, n_genes)`."""
    stored = _stored("string_human.npz")
    genes = _names(stored)
    ends = np.stack([stored["first"], stored["second"]]).astype(np.int32)
    scores = np.tile(stored["score"] / 1000.0, 2)
    shape = (len(genes), len(genes))
    return genes, sparse.csr_matrix((scores, (ends.ravel(), ends[::-1].ravel())), shape=shape)


def go_terms() -> tuple[np.ndarray, sparse.csr_matrix]:
    """Describe genes by their terms, weighted by rarity, shape `(n_genes, n_terms)`."""
    genes, annotated = annotated_genes()
    return genes, _by_rarity(annotated)


def reactome_pathways() -> tuple[np.ndarray, sparse.csr_matrix]:
    """Describe genes by their pathways, weighted by rarity, shape `(n_genes, n_pathways)`."""
    genes, annotated = pathways()
    return genes, _by_rarity(annotated)


def string_partners() -> tuple[np.ndarray, sparse.csr_matrix]:
    """Describe genes by themselves and their partners, rows of length 1, shape `(n_genes, n_genes)`.

    Partners of many genes have less weight. Genes are similar by common partners and by their own interaction.
    """
    genes, scores = interactions()
    total = sparse.diags(1.0 / np.sqrt(np.asarray(scores.sum(axis=1)).ravel()))
    return genes, unit_rows(unit_rows(total @ scores @ total) + _OWN_WEIGHT * sparse.eye(len(genes)))


DESCRIPTIONS: Final[dict[str, Callable[[], tuple[np.ndarray, sparse.csr_matrix]]]] = {
    "go": go_terms,
    "reactome": reactome_pathways,
    "string": string_partners,
}
"""Gene names, and the features of each gene by source, shape `(n_genes, n_features)`."""
TERMS: Final = frozenset({"go", "reactome"})
"""Sources whose features are properties by themselves, and differ in their relevance."""


@lru_cache(maxsize=4)
def embedding(source: str, n_components: int) -> tuple[np.ndarray, np.ndarray]:
    """Embed every known gene, so that genes with similar properties are close.

    A truncated singular value decomposition with a fixed seed reduces the features, rows of length 1, and brings genes with
    related features together.

    Returns
    -------
    Gene names, and a unit row for each, shape `(n_genes, n_components)`, float32.
    """
    genes, described = DESCRIPTIONS[source]()
    return genes, reduced(unit_rows(described), n_components)


def shared_features(
    source: str, names: Sequence[str], symbols: Sequence[str], targets: Sequence[str]
) -> sparse.csr_matrix:
    """Get the features that at least two `targets` share, for all genes, shape `(n_genes, n_features)`.

    `symbols` are the symbols of `names` in the source; unknown ones have zeros. Rows of terms are not scaled to one length,
    so that a gene with many terms keeps the weight for each shared one. In other sources, where rows have length 1, a
    target's features that no other target shares become one.
    """
    genes, described = DESCRIPTIONS[source]()
    row = {gene: i for i, gene in enumerate(genes)}
    known = [i for i, symbol in enumerate(symbols) if symbol in row]
    features_known = described[[row[symbols[i]] for i in known]]
    is_target = np.isin([names[i] for i in known], targets)
    features = features_known[:, np.flatnonzero(features_known[is_target].getnnz(axis=0) >= 2)]
    if source not in TERMS:
        rest = 1.0 - np.asarray(features.multiply(features).sum(axis=1)).ravel()
        own = sparse.diags(np.sqrt(np.maximum(rest, 0.0)) * is_target).tocsr()[:, np.flatnonzero(is_target)]
        features = sparse.hstack([features, own]).tocsr()
    place = sparse.csr_matrix((np.ones(len(known)), (known, np.arange(len(known)))), shape=(len(names), len(known)))
    return sparse.csr_matrix(place @ features, dtype=np.float32)


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


def _by_rarity(annotated: sparse.csr_matrix) -> sparse.csr_matrix:
    """Weight each term by its logarithmic rarity (tf-idf)."""
    n_genes = annotated.shape[0]
    rarity = np.log(n_genes / np.maximum(np.asarray(annotated.sum(axis=0)).ravel(), 1))
    return sparse.csr_matrix(annotated @ sparse.diags(rarity))


def _sets(file: str) -> tuple[np.ndarray, sparse.csr_matrix]:
    stored = _stored(file)
    genes, indices = _names(stored), stored["indices"].astype(np.int32)
    shape = (len(genes), len(stored["terms"]))
    return genes, sparse.csr_matrix((np.ones(len(indices)), indices, stored["indptr"]), shape=shape)


def _stored(file: str) -> dict[str, np.ndarray]:
    with as_file(files("unlasting.pp") / "_data" / file) as path, np.load(path) as stored:
        return dict(stored)


def _names(stored: dict[str, np.ndarray]) -> np.ndarray:
    return np.array(stored["genes"].tobytes().decode().split("\n"), dtype=object)
