"""What is known about genes before the screen: priors of every form, read into one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from unlasting.pp import _gene_ontology
from unlasting.pp._graph_embedding import graph_embedding

GO = "go"
RENAMED = ((re.compile(r"^MARCH(\d+)$"), r"MARCHF\1"), (re.compile(r"^SEPT(\d+)$"), r"SEPTIN\1"))
"""Families whose symbols were changed because spreadsheets took them for dates."""


@dataclass(frozen=True)
class Prior:
    """A row for every gene that the prior knows, and edges if it is a graph.

    Parameters
    ----------
    origin
        The value of `origin` of its edges: `go` or `prior`.
    names
        Names of the genes, shape `(n_names,)`.
    matrix
        Rows of length 1, shape `(n_names, n_components)`, float32: their dot product is the similarity.
    edges
        For a graph: `source`, `target` and signed `weight`. Without, edges are found by similarity.
    """

    origin: str
    names: np.ndarray
    matrix: np.ndarray
    edges: pd.DataFrame | None = None

    def with_aliases(self, names: Iterable[str]) -> tuple[Prior, dict[str, str]]:
        """Let genes of renamed families, known under their present symbol only, be found under the name given."""
        known = {name: row for row, name in enumerate(self.names)}
        aliases = {}
        for name in sorted(set(names) - set(known)):
            for pattern, present in RENAMED:
                symbol = pattern.sub(present, name)
                if symbol != name and symbol in known:
                    aliases[name] = symbol
        rows = [known[symbol] for symbol in aliases.values()]
        extended = replace(
            self,
            names=np.concatenate([self.names, np.array(list(aliases), dtype=object)]),
            matrix=np.concatenate([self.matrix, self.matrix[rows]]),
        )
        return extended, aliases


def read_prior(prior: str | PathLike[str] | pd.DataFrame, n_components: int) -> Prior:
    """Read a prior of any form that :func:`unlasting.pp.grn` takes.

    Raises
    ------
    TypeError
        If it has none of these forms.
    ValueError
        If its values are unusable.
    FileNotFoundError
        If the folder or one of its files does not exist.
    """
    if isinstance(prior, str) and prior == GO:
        names, matrix = _gene_ontology.embedding(n_components)
        return Prior(GO, names, matrix)
    if isinstance(prior, pd.DataFrame):
        return _from_edges(prior, n_components) if {"source", "target"} <= set(prior.columns) else _from_matrix(prior)
    if isinstance(prior, str | PathLike):
        return _from_matrix(_scgpt_embedding(Path(prior)))
    raise TypeError(
        f"`prior` is a {type(prior).__name__}. Give 'go', None, a DataFrame of edges (columns 'source' and 'target'), a "
        "DataFrame with one row of numbers per gene, or the folder of an scGPT checkpoint."
    )


def similar_pairs(
    names: np.ndarray, matrix: np.ndarray, min_similarity: float, max_neighbors: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the most similar genes of each gene.

    Parameters
    ----------
    names
        Names of the genes, shape `(n_genes,)`; they break ties, so that the order of the genes does not matter.
    matrix
        Rows of length 1, shape `(n_genes, n_components)`.
    min_similarity
        Smallest cosine similarity.
    max_neighbors
        Most neighbours that one gene may choose; it can be chosen by more.

    Returns
    -------
    First gene, second gene and similarity of each pair, each of shape `(n_pairs,)`, in both directions.
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
        raise ValueError("`prior` has no edges.")
    if edges[["source", "target"]].isna().any(axis=None):
        raise ValueError("`prior` has edges without a source or a target. Drop them: `prior.dropna()`.")
    source, target = (edges[end].astype(str).to_numpy(dtype=object) for end in ("source", "target"))
    weight = np.asarray(edges["weight"] if "weight" in edges else np.ones(len(edges)), dtype=np.float64)
    sign = np.asarray(edges["sign"] if "sign" in edges else np.ones(len(edges)), dtype=np.float64)
    if not (np.isfinite(weight).all() and np.isfinite(sign).all()):
        raise ValueError("`prior` holds NaN or infinite values in 'weight' or 'sign'. Remove or replace them first.")
    frame = pd.DataFrame({"source": source, "target": target, "weight": weight * np.sign(sign)})
    frame = frame[frame["source"] != frame["target"]].drop_duplicates(["source", "target"])
    names = np.unique(np.concatenate([source, target]).astype(str))
    row = dict(zip(names, range(len(names)), strict=True))
    ends = frame["source"].map(row).to_numpy(), frame["target"].map(row).to_numpy()
    graph = sparse.csr_matrix((frame["weight"], ends), shape=(len(names), len(names)))
    matrix = graph_embedding(graph, n_components)
    return Prior("prior", names.astype(object), matrix, frame.reset_index(drop=True))


def _from_matrix(frame: pd.DataFrame) -> Prior:
    """Read an embedding with gene names as its index; genes with a row of zeros are unknown to it."""
    if not frame.index.is_unique:
        raise ValueError(f"The index of `prior` holds {frame.index[frame.index.duplicated()][0]!r} more than once.")
    try:
        matrix = frame.to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "`prior` must hold numbers only, with gene names as its index, or be a frame of edges with the columns "
            f"'source' and 'target'; its columns are {list(map(str, frame.columns))[:8]}."
        ) from error
    if not np.isfinite(matrix).all():
        raise ValueError("`prior` holds NaN or infinite values. Remove or replace them first.")
    length = np.linalg.norm(matrix, axis=1)
    known = length > 0
    if not known.any():
        raise ValueError("`prior` holds no gene with values other than zero.")
    names = frame.index.astype(str).to_numpy(dtype=object)[known]
    return Prior("prior", names, (matrix[known] / length[known, None]).astype(np.float32))


def _scgpt_embedding(folder: Path) -> pd.DataFrame:
    """Read the gene embedding of an scGPT checkpoint: token weights, normalised as its gene encoder does."""
    import torch

    if not folder.is_dir():
        raise FileNotFoundError(
            f"`prior` is {str(folder)!r}, which is neither 'go' nor an existing folder of an scGPT checkpoint."
        )
    weights = [path for name in ("best_model.pt", "model.pt") if (path := folder / name).is_file()]
    if not weights or not (folder / "vocab.json").is_file():
        raise FileNotFoundError(
            f"The folder {str(folder)!r} must hold 'vocab.json' and 'best_model.pt'; it holds "
            f"{sorted(path.name for path in folder.iterdir())[:10]}."
        )
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    state = torch.load(weights[0], map_location="cpu", weights_only=True)
    state = state.get("model_state_dict", state)
    state = {key.removeprefix("module."): value for key, value in state.items()}
    if "encoder.embedding.weight" not in state:
        raise ValueError(
            f"{str(weights[0])!r} has no 'encoder.embedding.weight', the gene embedding of scGPT; "
            f"it has {sorted(state)[:5]}."
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
            f"{len(tokens)} rows: they do not belong together."
        )
    return pd.DataFrame(tokens[list(genes.values())].numpy(), index=list(genes))
