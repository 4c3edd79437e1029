"""The graph of genes that a model passes messages over, and what is known about its targets."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from os import PathLike

import numpy as np
import pandas as pd
from anndata import AnnData

from unlasting.pp import _gene_ontology
from unlasting.pp._checks import require_log_normalised, require_whole
from unlasting.pp._coexpression import correlated_pairs
from unlasting.pp._priors import GO, Prior, read_prior, similar_pairs
from unlasting.screen import (
    TRAIN,
    UNS_KEY,
    ScreenKeys,
    logger,
    parse_labels,
    require_integers,
    require_numbers,
    split_hash,
)

COEXPRESSION = "coexpression"


def grn(
    adata: AnnData,
    *,
    prior: str | PathLike[str] | pd.DataFrame | None = "go",
    targets: str | Iterable[str] | None = None,
    min_correlation: float = 0.3,
    min_similarity: float = 0.4,
    max_neighbors: int = 20,
    n_components: int = 256,
    perturbation_key: str | None = None,
    control: str | None = None,
    cell_type_key: str | None = None,
    split_key: str | None = None,
    delimiter: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Build the graph of genes from co-expression and a prior.

    The nodes are the measured genes, in their order, and then the targets that are not measured, which have no
    expression but take part in the graph. Drugs are no nodes; they are known by their SMILES. Edges join genes that
    vary together in the training cells of a cell type, and genes that the prior relates. The prior also gives an
    embedding to every gene that it knows, from which a model predicts targets that it was never trained on.

    Parameters
    ----------
    adata
        The screen after :func:`unlasting.pp.prepare`: log-normalised `X`, shape `(n_cells, n_genes)`.
    prior
        What relates genes beyond this screen:

        - `"go"`: Gene Ontology annotations of human genes, shipped with the package.
        - a DataFrame of edges with the columns `source` and `target`, and optionally `weight` and `sign`.
        - a DataFrame with one row of numbers per gene, the names as its index.
        - the folder of an scGPT checkpoint (`vocab.json` and `best_model.pt`); scGPT need not be installed.
        - `None`: co-expression only. Targets that were never trained cannot be told apart then.
    targets
        Further genes that may be asked for later, beside those in the labels. A label of training cells that is neither
        measured nor known to the prior is taken for a stimulus, such as a cytokine, and is no node; name it here if it
        is a gene. Any other label without drug is a gene: of one that the prior does not know, only the average effect
        of a target can be predicted.
    min_correlation
        Smallest absolute Pearson correlation of a co-expression edge.
    min_similarity
        Smallest cosine similarity of a prior edge; edges given as a frame are taken as they are.
    max_neighbors
        Number of prior edges that each gene may choose by similarity.
    n_components
        Dimension of the embedding that is made from annotations or edges; a given matrix keeps its own.
    perturbation_key
        Column of `obs` with the perturbation labels.
    control
        Label of unperturbed cells.
    cell_type_key
        Column of `obs` with the cell types. What distinguishes them would join most genes, and is taken away first.
    split_key
        Column of `obs` with `train`, `val` or `test`; only `train` cells are looked at.
    delimiter
        What separates the targets of a combination.
    copy
        Return a changed copy, and leave `adata` as it is.

    Returns
    -------
    `None`, or the copy. Updates the following fields:

    - `adata.uns["unlasting"]["grn"]`: `nodes`, the names; `edges`, a frame with `source`, `target`, `weight` (the
      correlation, the similarity or the signed weight of the prior) and `origin` (`coexpression`, `go` or `prior`;
      an edge found both ways is listed as `coexpression`); `report`, what was found.
    - `adata.uns["unlasting"]["target_embedding"]`: `names`, `matrix` (rows of length 1) and `origin`, for every gene
      that the prior knows; for `"go"` also `features`, the annotations that targets have in common. Absent without a
      prior.
    - `adata.uns["unlasting"]["keys"]`: which columns hold the labels.

    Notes
    -----
    Of cells outside training only the *names* of their targets are used: they become nodes, and for `"go"` an
    annotation counts if at least two of all named targets have it. No expression of theirs is looked at.

    Raises
    ------
    KeyError
        If a column is missing.
    TypeError, ValueError, FileNotFoundError
        If the prior cannot be read, `X` is not log-normalised or there are no training cells.
    """
    adata = adata.copy() if copy else adata
    require_whole(adata, "grn")
    keys = ScreenKeys.read(
        adata,
        perturbation_key=perturbation_key,
        control=control,
        cell_type_key=cell_type_key,
        split_key=split_key,
        delimiter=delimiter,
    )
    require_numbers(min_correlation=min_correlation, min_similarity=min_similarity)
    require_integers(1, max_neighbors=max_neighbors, n_components=n_components)
    for argument, threshold in (("min_correlation", min_correlation), ("min_similarity", min_similarity)):
        if not 0 < threshold <= 1:
            raise ValueError(f"`{argument}` is {threshold}; it must be above 0 and at most 1.")
    labels, split = keys.labels(adata), keys.split(adata)
    in_training = np.ones(adata.n_obs, dtype=bool) if split is None else split == TRAIN
    if not in_training.any():
        raise ValueError(f"No cell is labelled 'train' in `adata.obs[{keys.split_key!r}]`, so nothing can be fitted.")
    require_log_normalised(adata)

    genes = adata.var_names.astype(str).to_numpy(dtype=object)
    named = _targets([targets] if isinstance(targets, str) else targets or (), keys)
    asked = (_targets(labels, keys) | named) - (keys.drugs(adata) or frozenset())
    aliases: dict[str, str] = {}
    known: Prior | None = None
    if prior is not None:
        known, aliases = read_prior(prior, n_components).with_aliases([*genes, *asked])
    # What is trained, but neither measured nor known to the prior, may be no gene at all, but a stimulus.
    trained = _targets(np.unique(labels[in_training]), keys)
    are_genes = asked if known is None else asked & {*known.names, *named} | asked - trained
    unmeasured = sorted(are_genes - set(genes))
    nodes = np.array([*genes, *unmeasured], dtype=object)
    cell_types = (
        None if keys.cell_type_key is None else pd.factorize(keys.column(adata, "cell_type_key"))[0][in_training]
    )
    first, second, correlation = correlated_pairs(adata.X[in_training], min_correlation, cell_types)
    parts = [_frame(nodes[first], nodes[second], correlation, COEXPRESSION)]
    if known is not None:
        parts.append(_prior_edges(known, nodes, min_similarity, max_neighbors))
    edges = pd.concat(parts, ignore_index=True)
    twice = edges.duplicated(["source", "target"])
    without = sorted(asked - set(known.names)) if known is not None else sorted(asked)
    n_edges = {str(origin): int(n) for origin, n in edges["origin"].value_counts().items()}
    report = {
        "n_nodes": len(nodes),
        "n_edges": n_edges,
        "n_found_both_ways": int(twice.sum()),
        "unmeasured_targets": np.array(unmeasured, dtype=str),
        "targets_without_prior": np.array(without, dtype=str),
        "aliases": aliases,
        "cell_type_key": keys.cell_type_key or "",
        "split_hash": split_hash(adata.obs_names, split),
    }
    stored = adata.uns.setdefault(UNS_KEY, {})
    stored["grn"] = {"nodes": nodes, "edges": edges[~twice].reset_index(drop=True), "report": report}
    stored.pop("target_embedding", None)
    if known is not None:
        stored["target_embedding"] = {"names": known.names, "matrix": known.matrix, "origin": known.origin}
        if known.origin == GO:
            features = _gene_ontology.terms_in_common(
                list(known.names), [aliases.get(name, name) for name in known.names], sorted(asked)
            )
            stored["target_embedding"] |= {"features": features} if features.shape[1] else {}
    keys.write(adata)
    counts = ", ".join(f"{n} edges by {origin}" for origin, n in n_edges.items()) or "no edges"
    logger.info("pp.grn: %d nodes (%d targets are not measured), %s.", len(nodes), len(unmeasured), counts)
    if known is not None and not np.isin(nodes, known.names).any():
        logger.warning(
            "pp.grn: the prior knows none of the genes (the first is %r, the prior holds names such as %r).",
            nodes[0],
            known.names[0],
        )
    elif known is not None and without:
        few = len(without) > len(asked) / 2
        logger.log(
            logging.WARNING if few else logging.INFO,
            "pp.grn: the prior does not know %d of %d targets: %s. Those that are trained but not measured count as stimuli; "
            "name genes among them in `targets`.%s",
            len(without),
            len(asked),
            ", ".join(without),
            f" It holds names such as {known.names[0]!r}: labels with a suffix, of another species or another nomenclature "
            "are not found."
            if few
            else "",
        )
    return adata if copy else None


def _targets(labels: Iterable[object], keys: ScreenKeys) -> set[str]:
    """Collect the names of all targets in labels."""
    parsed = parse_labels(labels, control=keys.control, delimiter=keys.delimiter, argument="targets")
    return {name for perturbation in parsed.values() for name in perturbation.targets}


def _prior_edges(prior: Prior, nodes: np.ndarray, min_similarity: float, max_neighbors: int) -> pd.DataFrame:
    """Get the edges of the prior among the nodes."""
    if prior.edges is not None:
        inside = prior.edges["source"].isin(nodes) & prior.edges["target"].isin(nodes)
        return prior.edges[inside].assign(origin=prior.origin)
    place = {name: row for row, name in enumerate(prior.names)}
    names = np.array([name for name in nodes if name in place], dtype=object)
    rows = prior.matrix[[place[name] for name in names]]
    first, second, similarity = similar_pairs(names, rows, min_similarity, max_neighbors)
    return _frame(names[first], names[second], similarity, prior.origin)


def _frame(source: np.ndarray, target: np.ndarray, weight: np.ndarray, origin: str) -> pd.DataFrame:
    """Put edges of one origin into a frame."""
    return pd.DataFrame({"source": source, "target": target, "weight": weight, "origin": origin})
