"""Priors: knowledge about genes from beyond the screen, read into one form."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from unlasting.pp._graph_embedding import graph_embedding
from unlasting.pp._other_screen import measured_effects
from unlasting.pp._shipped_knowledge import DESCRIPTIONS, TERMS, embedding, reduced, shared_features
from unlasting.screen import GeneNames

Features: TypeAlias = Callable[[Sequence[str], Sequence[str], Sequence[str]], sparse.csr_matrix]
"""A function from gene names, their symbols in the source, and targets to features, shape `(n_names, n_features)`."""


_UNIT_TOLERANCE: Final = 1e-3
"""Distance of a row's length to 1 that is rounding."""


@dataclass(frozen=True)
class Prior:
    """An embedding for every gene in the prior, and edges if it is a graph.

    Parameters
    ----------
    names
        Gene names, shape `(n_names,)`.
    matrix
        Unit rows, shape `(n_names, n_components)`, float32: their dot product is the similarity.
    edges
        For a graph: `source`, `target` and signed `weight`. Without, edges join genes by similarity.
    origin
        The value of `origin` for its edges.
    features
        Features for the regression by source. Without any, the embedding serves as features.
    """

    names: np.ndarray
    matrix: np.ndarray
    edges: pd.DataFrame | None = None
    origin: str = "prior"
    features: Mapping[str, Features] = field(default_factory=dict)

    def named_as_in(self, genes: Iterable[str]) -> tuple[Prior, dict[str, str]]:
        """Name genes as a panel does, which may have older, newer or murine names.

        Parameters
        ----------
        genes
            The panel's genes.

        Returns
        -------
        The prior, and its own name for each gene that it lists otherwise.
        """
        names, panel = GeneNames(self.names), list(map(str, genes))
        found = {gene: names.find(gene, is_gene=True) for gene in panel if gene not in names.known}
        renamed = {gene: name for gene, name in found.items() if name}
        replaced = {name: gene for gene, name in renamed.items() if name not in panel}
        own = np.array([replaced.get(name, name) for name in self.names], dtype=object)
        further = [gene for gene, name in renamed.items() if replaced.get(name) != gene]
        row = {name: i for i, name in enumerate(self.names)}
        edges = self.edges
        if edges is not None:
            edges = edges.assign(**{end: edges[end].replace(replaced) for end in ("source", "target")})
        return replace(
            self,
            names=np.concatenate([own, np.array(further, dtype=object)]),
            matrix=np.concatenate([self.matrix, self.matrix[[row[renamed[gene]] for gene in further]]]),
            edges=edges,
        ), renamed


def shipped(sources: Sequence[str], n_components: int) -> Prior:
    """Read shipped knowledge about human genes; the first source, which knows all of them, gives the embedding."""
    names, matrix = embedding(sources[0], n_components)
    return Prior(names, matrix, features={source: partial(shared_features, source) for source in sources})


PRIORS: dict[str, Callable[[int], Prior]] = {
    "default": partial(shipped, tuple(DESCRIPTIONS)),
    **{source: partial(shipped, (source,)) for source in DESCRIPTIONS},
}
"""Each prior with a name: a function from the largest number of components to the prior."""


AnyPrior: TypeAlias = str | PathLike[str] | pd.DataFrame | AnnData
"""A prior in a form for :func:`unlasting.pp.grn`."""


def read_prior(prior: AnyPrior | Sequence[AnyPrior], n_components: int) -> Prior:
    """Read any prior that :func:`unlasting.pp.grn` accepts; several become one."""
    if isinstance(prior, str) and prior in PRIORS:
        found = PRIORS[prior](n_components)
        _require_unit_rows(prior, found)
        return replace(found, origin="prior" if prior == "default" else prior)
    if isinstance(prior, pd.DataFrame):
        return _from_edges(prior, n_components) if {"source", "target"} <= set(prior.columns) else _from_matrix(prior)
    if isinstance(prior, AnnData):
        return _from_screen(prior, n_components)
    if isinstance(prior, str | PathLike):
        return _from_matrix(_scgpt_embedding(Path(prior)))
    if isinstance(prior, list | tuple) and prior:
        return _joined([read_prior(one, n_components) for one in prior], n_components)
    raise TypeError(
        f"`prior` is a {type(prior).__name__}. Give one of {list(PRIORS)}, None, a DataFrame of edges (columns 'source' and 'target'), a "
        "DataFrame with one row of numbers per gene, another screen, the folder of an scGPT checkpoint, or a list of these."
    )


def _require_unit_rows(name: str, prior: Prior) -> None:
    """Refuse a registered source whose rows are no directions: edges and features would be wrong without a word."""
    lengths = np.linalg.norm(prior.matrix, axis=1)
    if prior.matrix.shape[0] != len(prior.names) or len(set(map(str, prior.names))) < len(prior.names):
        raise ValueError(f"The registered prior {name!r} needs one row for each name, and each name once.")
    if not (np.abs(lengths - 1.0) < _UNIT_TOLERANCE).all():
        raise ValueError(
            f"The registered prior {name!r} has rows with lengths from {lengths.min():g} to {lengths.max():g}. Divide each by "
            "its length, and leave out genes whose rows are missing or zero."
        )


def _joined(priors: Sequence[Prior], n_components: int) -> Prior:
    """Join priors: a gene's row holds its rows in all of them, scaled to one length, and reduced if too long."""
    if len(priors) == 1:
        return priors[0]
    names = np.unique(np.concatenate([prior.names for prior in priors]).astype(str))
    parts = [_in_rows(np.searchsorted(names, prior.names.astype(str)), prior.matrix, len(names)) for prior in priors]
    matrix = sparse.hstack(parts).tocsr()
    matrix = reduced(matrix, n_components) if matrix.shape[1] > n_components else matrix.toarray()
    features: dict[str, Features] = {}
    for prior in priors:
        own = prior.features or {prior.origin: partial(_rows_of, prior)}
        if twice := sorted(features.keys() & own.keys() & DESCRIPTIONS.keys()):
            raise ValueError(
                f"`prior` names {twice[0]!r} twice ('default' contains {list(DESCRIPTIONS)}). Name it once."
            )
        features |= {
            (name if name not in features else f"{name} {len(features) + 1}"): one for name, one in own.items()
        }
    edges = [prior.edges for prior in priors if prior.edges is not None]
    return Prior(
        names.astype(object),
        (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32),
        pd.concat(edges).drop_duplicates(["source", "target"]) if len(edges) == len(priors) else None,
        "+".join(prior.origin for prior in priors),
        features,
    )


def described(
    prior: Prior, symbols: Sequence[str], targets: Sequence[str]
) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray] | None:
    """Compute the features of all genes in a prior, `None` if its embedding serves as features.

    Returns
    -------
    The features, shape `(n_names, n_features)`, and for each of them its source, and whether its relevance is its own.
    """
    parts = {name: compute(list(prior.names), symbols, targets) for name, compute in prior.features.items()}
    parts = {name: part for name, part in parts.items() if part.shape[1]}
    if not parts:
        return None
    source = np.repeat(list(parts), [part.shape[1] for part in parts.values()])
    return (
        sparse.csr_matrix(sparse.hstack(list(parts.values())), dtype=np.float32),
        source,
        np.isin(source, list(TERMS)),
    )


def _rows_of(prior: Prior, names: Sequence[str], symbols: Sequence[str], targets: Sequence[str]) -> sparse.csr_matrix:
    """Take the embedding for features, zeros for unknown genes."""
    row = {name: i for i, name in enumerate(prior.names)}
    known = [i for i, symbol in enumerate(symbols) if symbol in row]
    return _in_rows(known, prior.matrix[[row[symbols[i]] for i in known]], len(names))


def _in_rows(rows: Sequence[int] | np.ndarray, values: Any, n_rows: int) -> sparse.csr_matrix:
    """Put values into their rows of an otherwise empty matrix."""
    place = sparse.csr_matrix((np.ones(len(rows)), (rows, np.arange(len(rows)))), shape=(n_rows, len(rows)))
    return place @ sparse.csr_matrix(values)


def similar_pairs(
    names: np.ndarray, matrix: np.ndarray, min_similarity: float, max_neighbors: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the `max_neighbors` most similar genes for each gene; more genes may select one.

    `matrix` has unit rows, shape `(n_genes, n_components)`; `names` break ties, so that gene order does not matter. Returns
    first gene, second gene and cosine similarity, each with shape `(n_pairs,)`, in both directions.
    """
    order = np.argsort(np.asarray(names).astype(str), kind="stable")
    ordered = matrix[order]
    n_genes, block = len(names), max(1, 2**24 // max(1, len(names)))
    chosen: dict[tuple[int, int], float] = {}
    for start in range(0, n_genes, block):
        similarity = ordered[start : start + block] @ ordered.T  # (block, n_genes)
        for row, values in enumerate(similarity, start):
            values[row] = -np.inf
            near = np.flatnonzero(values >= min_similarity)
            # Rounding hides that two genes are equally near: compare five digits, then names.
            near = near[np.argsort(-np.round(values[near], 5), kind="stable")][:max_neighbors]
            for other in near.tolist():
                chosen[min(row, other), max(row, other)] = float(values[other])
    pairs = np.array(sorted(chosen), dtype=np.int64).reshape(-1, 2)
    weights = np.array([chosen[first, second] for first, second in pairs.tolist()], dtype=np.float64)
    first, second = order[pairs[:, 0]], order[pairs[:, 1]]
    return np.concatenate([first, second]), np.concatenate([second, first]), np.concatenate([weights, weights])


def _from_edges(edges: pd.DataFrame, n_components: int) -> Prior:
    """Read a graph, and embed its genes."""
    if edges.empty:
        raise ValueError("`prior` has no edges. Give at least one, or `prior=None`.")
    if edges[["source", "target"]].isna().any(axis=None):
        raise ValueError("`prior` has edges without a source or a target. Drop them: `prior.dropna()`.")
    source, target = (edges[end].astype(str).to_numpy(dtype=object) for end in ("source", "target"))
    weight = np.asarray(edges["weight"] if "weight" in edges else np.ones(len(edges)), dtype=np.float64)
    sign = np.asarray(edges["sign"] if "sign" in edges else np.ones(len(edges)), dtype=np.float64)
    if not (np.isfinite(weight).all() and np.isfinite(sign).all()):
        raise ValueError("`prior` contains NaN or infinite values in 'weight' or 'sign'. Remove or replace them first.")
    frame = pd.DataFrame({"source": source, "target": target, "weight": weight * np.sign(sign)})
    frame = frame[frame["source"] != frame["target"]].drop_duplicates(["source", "target"])
    names = np.unique(np.concatenate([source, target]).astype(str))
    row = dict(zip(names, range(len(names)), strict=True))
    ends = frame["source"].map(row).to_numpy(), frame["target"].map(row).to_numpy()
    graph = sparse.csr_matrix((frame["weight"], ends), shape=(len(names), len(names)))
    matrix = graph_embedding(graph, n_components)
    return Prior(names.astype(object), matrix, frame.reset_index(drop=True))


def _from_matrix(frame: pd.DataFrame) -> Prior:
    """Read an embedding with gene names as its index; genes with a zero row are dropped."""
    if not frame.index.is_unique:
        raise ValueError(
            f"The index of `prior` contains {frame.index[frame.index.duplicated()][0]!r} more than once. Name every gene once."
        )
    try:
        matrix = frame.to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "`prior` must hold numbers only, with gene names as its index, or be a frame of edges with the columns "
            f"'source' and 'target'; its columns are {list(map(str, frame.columns))[:8]}."
        ) from error
    if not np.isfinite(matrix).all():
        raise ValueError("`prior` contains NaN or infinite values. Remove or replace them first.")
    length = np.linalg.norm(matrix, axis=1)
    known = length > 0
    if not known.any():
        raise ValueError("`prior` contains no gene with values other than zero. Give another one, or `prior=None`.")
    names = frame.index.astype(str).to_numpy(dtype=object)[known]
    return Prior(names, (matrix[known] / length[known, None]).astype(np.float32))


def _from_screen(adata: AnnData, n_components: int) -> Prior:
    """Read the effects in another screen; targets without an effect are not known."""
    effects = measured_effects(adata)
    effects = effects[(effects**2).sum(axis=1) > 0]
    if effects.empty:
        raise ValueError("`prior` is a screen in which no target has an effect beyond its error. Leave it out.")
    left, values, _ = np.linalg.svd(effects.to_numpy(), full_matrices=False)
    rows = pd.DataFrame((left * values)[:, :n_components], index=effects.index)
    prior = replace(_from_matrix(rows), origin="screen")
    # strong effects count more than weak ones, which are known with less certainty
    lengths = np.linalg.norm(rows, axis=1)
    measured = replace(prior, matrix=(rows.to_numpy() / lengths.max()).astype(np.float32))
    return replace(prior, features={prior.origin: partial(_rows_of, measured)})


def _scgpt_embedding(folder: Path) -> pd.DataFrame:
    """Read the gene embedding in an scGPT checkpoint: token weights, normalised like in its gene encoder."""
    import torch

    if not folder.is_dir():
        raise FileNotFoundError(
            f"`prior` is {str(folder)!r}, which is neither one of {list(PRIORS)} nor an existing folder of an scGPT checkpoint."
        )
    weights = [path for name in ("best_model.pt", "model.pt") if (path := folder / name).is_file()]
    if not weights or not (folder / "vocab.json").is_file():
        raise FileNotFoundError(
            f"The folder {str(folder)!r} must hold 'vocab.json' and 'best_model.pt'; it contains "
            f"{sorted(path.name for path in folder.iterdir())[:10]}."
        )
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    state = torch.load(weights[0], map_location="cpu", weights_only=True)
    state = state.get("model_state_dict", state)
    state = {key.removeprefix("module."): value for key, value in state.items()}
    if "encoder.embedding.weight" not in state:
        raise ValueError(
            f"{str(weights[0])!r} has no 'encoder.embedding.weight', the gene embedding of scGPT; "
            f"it has {sorted(state)[:5]}. Give the folder of an scGPT checkpoint."
        )
    tokens = state["encoder.embedding.weight"].float()
    if "encoder.enc_norm.weight" in state:
        norm = (state["encoder.enc_norm.weight"].float(), state["encoder.enc_norm.bias"].float())
        tokens = torch.nn.functional.layer_norm(tokens, tokens.shape[1:], *norm)
    genes = {name: row for name, row in vocabulary.items() if not (name.startswith("<") and name.endswith(">"))}
    beyond = [name for name, row in genes.items() if not 0 <= row < len(tokens)]
    if beyond:
        raise ValueError(
            f"'vocab.json' in {str(folder)!r} gives {beyond[0]!r} the row {genes[beyond[0]]}, but the checkpoint has "
            f"{len(tokens)} rows: they do not belong together. Take both from one checkpoint."
        )
    return pd.DataFrame(tokens[list(genes.values())].numpy(), index=list(genes))
