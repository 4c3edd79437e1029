"""The gene graph for message passing, and the prior embedding of targets."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from unlasting.pp._coexpression import correlated_pairs
from unlasting.pp._genes import gene_names
from unlasting.pp._priors import AnyPrior, Prior, described, read_prior, similar_pairs
from unlasting.pp._responses import responding_genes
from unlasting.screen import (
    TRAIN,
    UNS_KEY,
    GeneNames,
    ScreenKeys,
    check_cells,
    check_log_normalised,
    expression,
    listed,
    logger,
    parse_labels,
    require_integers,
    require_numbers,
    split_hash,
)

COEXPRESSION = "coexpression"
RESPONSE = "response"


def grn(
    adata: AnnData,
    *,
    prior: AnyPrior | Sequence[AnyPrior] | None = "default",
    targets: str | Iterable[str] | None = None,
    min_correlation: float = 0.3,
    min_similarity: float = 0.4,
    max_neighbors: int = 20,
    response_fdr: float | None = None,
    n_components: int = 256,
    perturbation_key: str | None = None,
    control: str | Sequence[str] | None = None,
    cell_type_key: str | None = None,
    split_key: str | None = None,
    delimiter: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Build the gene graph from co-expression and a prior.

    Nodes are the measured genes, in their order, and then unmeasured targets. Drugs are no nodes. Edges join genes that are
    correlated in training cells within a cell type, and genes that are related in the prior. From the prior's embedding of
    genes, a model predicts untrained targets.

    Parameters
    ----------
    adata
        The screen after :func:`unlasting.pp.prepare`: log-normalised `X`, shape `(n_cells, n_genes)`.
    prior
        Knowledge about genes from beyond this screen. A gene is found under its previous, alias and mouse names, too:

        - a name in `PRIORS`, for shipped knowledge about human genes: `"go"` for Gene Ontology annotations, `"reactome"` for
          pathways, `"string"` for interactions, `"default"` for all three.
        - a DataFrame of edges with the columns `source` and `target`, and optionally `weight` and `sign`.
        - a DataFrame with one row of numbers per gene, and gene names as its index.
        - another screen, prepared by `pp.prepare`: its effects of single targets in training cells, such as those in
          another cell line.
        - the folder of an scGPT checkpoint (`vocab.json` and `best_model.pt`); scGPT need not be installed.
        - a list of these. The screen decides how far each source tells similar perturbations.
        - `None`: co-expression only. All untrained targets get the same prediction then.
    targets
        Further genes to predict later, beside those in the labels. A trained target that is neither measured nor in the
        prior counts as a stimulus, such as a cytokine, and is no node, unless it is an old symbol; name it here if it is a
        gene. An untrained target
        is a gene; if it is not in the prior, its predicted effect is that of an average target.
    min_correlation
        Smallest absolute Pearson correlation of a co-expression edge.
    min_similarity
        Smallest cosine similarity of a prior edge. Edges given as a frame are all used.
    max_neighbors
        Largest number of prior edges that each gene selects by similarity.
    response_fdr
        Largest false discovery rate (Benjamini-Hochberg, Welch's t-test) of an edge from a trained single target to a gene
        whose expression changes in its training cells. `None`: no such edges. `preset="paper"` needs them, since a
        perturbation acts there along edges alone.
    n_components
        Dimension of an embedding computed from annotations or edges.
    perturbation_key, control, cell_type_key, split_key, delimiter
        `obs` columns and label grammar, like in :func:`unlasting.pp.split`; recorded ones by default. Differences between
        cell types do not count as co-expression.
    copy
        Return a changed copy, and leave `adata` as it is.

    Returns
    -------
    `None`, or the copy. Updates the following fields:

    - `adata.uns["unlasting"]["grn"]`: `nodes`, the names; `edges`, a frame with `source`, `target`, `weight` (correlation,
      similarity, the prior's signed weight, or the change under the source's perturbation) and `origin` (`coexpression`,
      `response`, `prior`, or the prior's name; an edge found in several ways is listed once, as the first of these); and a
      `report`.
    - `adata.uns["unlasting"]["target_embedding"]`: `names`, `matrix` (unit rows, for `"default"` from Gene Ontology) and
      `origin`, for all genes in the prior.
      For shipped knowledge and lists also `features`, those shared by targets, with `feature_source` and
      `feature_is_term`. Absent without a prior.
    - `adata.uns["unlasting"]["keys"]`: the label columns.

    Notes
    -----
    From cells outside training only target *names* are used, not their expression. The names become nodes, and a feature of
    shipped knowledge counts if at least two named targets share it.

    Raises
    ------
    KeyError
        If a column is missing.
    TypeError, ValueError, FileNotFoundError
        If the prior cannot be read, `X` is not log-normalised, there are no training cells, or a key differs from the
        recorded one.
    """
    adata = adata.copy() if copy else adata
    check_cells(adata, writable=True)
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
    if response_fdr is not None:
        require_numbers(response_fdr=response_fdr)
        if not 0 < response_fdr < 1:
            raise ValueError(f"`response_fdr` is {response_fdr}; it must be above 0 and below 1.")
    labels, split = keys.labels(adata), keys.split(adata)
    in_training = np.ones(adata.n_obs, dtype=bool) if split is None else split == TRAIN
    if not in_training.any():
        raise ValueError(
            f"No cell is labelled 'train' in `adata.obs[{keys.split_key!r}]`, so nothing can be fitted. Call `pp.split`."
        )
    check_log_normalised(expression(adata, in_memory=True), "`adata.X`")

    genes = adata.var_names.astype(str).to_numpy(dtype=object)
    named = _targets([targets] if isinstance(targets, str) else targets or (), keys)
    asked = (_targets(labels, keys) | named) - (keys.drugs(adata) or frozenset())
    aliases: dict[str, str] = {}
    known: Prior | None = None
    if prior is not None:
        for one in prior if isinstance(prior, list | tuple) else [prior]:
            if isinstance(one, AnnData) and _is_same(one, adata):
                raise ValueError("`prior` contains this screen itself. Give another screen, with other cells.")
        known, aliases = read_prior(prior, n_components).named_as_in(genes)
    by_name = GeneNames(genes if known is None else [*genes, *known.names], panel=genes)
    symbols = {name: by_name.find(name, is_gene=name in named) or by_name.symbol(name) for name in asked}
    present = {name: symbol or name for name, symbol in symbols.items()}
    renamed = {name: symbol for name, symbol in sorted(present.items()) if name != symbol}
    # a trained target that is neither measured, nor in the prior, nor an old symbol may be a stimulus
    trained = {present.get(name, name) for name in _targets(np.unique(labels[in_training]), keys)}
    asked, named = set(present.values()), {present.get(name, name) for name in named}
    are_genes = asked if known is None else asked & {*known.names, *named, *renamed.values()} | asked - trained
    unmeasured = sorted(are_genes - set(genes))
    nodes = np.array([*genes, *unmeasured], dtype=object)
    cell_types = (
        None if keys.cell_type_key is None else pd.factorize(keys.column(adata, "cell_type_key"))[0][in_training]
    )
    first, second, correlation = correlated_pairs(adata.X[in_training], min_correlation, cell_types)
    parts = [_frame(nodes[first], nodes[second], correlation, COEXPRESSION)]
    if response_fdr is not None:
        training = labels[in_training]
        single = _single_targets(training, keys, present, set(nodes))
        groups = np.zeros(len(training), dtype=np.int64) if cell_types is None else cell_types
        target, gene, change = responding_genes(
            adata.X[in_training], single, training == keys.control, groups, response_fdr
        )
        other = target != genes[gene]
        parts.append(_frame(target[other], genes[gene[other]], change[other], RESPONSE))
    if known is not None:
        parts.append(_prior_edges(known, nodes, min_similarity, max_neighbors))
    edges = pd.concat(parts, ignore_index=True)
    twice = edges.duplicated(["source", "target"])
    without = sorted(asked - set(known.names)) if known is not None else sorted(asked)
    n_edges = {str(origin): int(n) for origin, n in edges["origin"].value_counts().items()}
    if response_fdr is not None:
        n_edges.setdefault(RESPONSE, 0)  # said too where there is none, as in a screen of drugs
    report = {
        "n_nodes": len(nodes),
        "n_edges": n_edges,
        "n_found_both_ways": int(twice.sum()),
        "unmeasured_targets": np.array(unmeasured, dtype=str),
        "targets_without_prior": np.array(without, dtype=str),
        "aliases": aliases,
        "renamed_targets": renamed,
        "cell_type_key": keys.cell_type_key or "",
        "split_hash": split_hash(adata.obs_names, split),
    }
    stored = adata.uns.setdefault(UNS_KEY, {})
    stored["grn"] = {"nodes": nodes, "edges": edges[~twice].reset_index(drop=True), "report": report}
    stored.pop("target_embedding", None)
    if known is not None:
        stored["target_embedding"] = {"names": known.names, "matrix": known.matrix, "origin": known.origin}
        found = described(known, [aliases.get(name, name) for name in known.names], sorted(asked))
        if found is not None:
            names = ("features", "feature_source", "feature_is_term")
            stored["target_embedding"] |= dict(zip(names, found, strict=True))
    keys.write(adata)
    if known is not None and len(aliases) > len(genes) / 2:
        logger.warning(
            "pp.grn: the prior names genes of another species or nomenclature: %d of %d genes are matched by orthologue or old "
            "symbol, such as %r by %r. Give a prior of your species if you have one.",
            len(aliases),
            len(genes),
            *next(iter(aliases.items())),
        )
    counts = ", ".join(f"{n} edges by {origin}" for origin, n in n_edges.items()) or "no edges"
    logger.info("pp.grn: %d nodes (%d targets are not measured), %s.", len(nodes), len(unmeasured), counts)
    if renamed:
        logger.info(
            "pp.grn: targets under another name of the gene: %s.", listed(f"{n} ({s})" for n, s in renamed.items())
        )
    if known is not None and not np.isin(genes, known.names).any():
        column = gene_names(adata, known.names, None)[1]
        logger.warning(
            "pp.grn: the prior knows none of the genes (the first is %r, and it contains names such as %r). Use the "
            "same gene names in both%s.",
            genes[0],
            known.names[0],
            f": `adata.var_names = adata.var[{column!r}]` before `pp.split`" if column else "",
        )
    elif known is not None and without:
        alone = sorted(are_genes & trained & set(without) - set(genes))
        if alone:
            logger.warning(
                "pp.grn: %s are genes, but neither measured nor in the prior: nothing is known of them but their own cells. Give "
                "a prior that contains them.",
                listed(alone),
            )
        few = len(without) > len(asked) / 2
        logger.log(
            logging.WARNING if few else logging.INFO,
            "pp.grn: the prior lacks %d of %d targets: %s. Those that are trained but not measured count as stimuli; "
            "name genes among them in `targets`.%s",
            len(without),
            len(asked),
            ", ".join(without),
            f" It contains names such as {known.names[0]!r}: labels with a suffix, from another species or another nomenclature "
            "are not found."
            if few
            else "",
        )
    return adata if copy else None


def _is_same(one: AnnData, other: AnnData) -> bool:
    """Whether two screens have the same cells with the same expression."""
    if one.shape != other.shape or not one.obs_names.equals(other.obs_names):
        return False
    return one is other or bool(np.isclose(one.X.sum(), other.X.sum()))


def _targets(labels: Iterable[object], keys: ScreenKeys) -> set[str]:
    """Collect the target names in labels."""
    parsed = parse_labels(labels, **keys.grammar, argument="targets")
    return {name for perturbation in parsed.values() for name in perturbation.targets}


def _single_targets(
    labels: np.ndarray, keys: ScreenKeys, present: dict[str, str], nodes: set[str]
) -> dict[str, np.ndarray]:
    """Get the cells in which one node alone is perturbed, as rows for each node."""
    single: dict[str, np.ndarray] = {}
    for label, perturbation in parse_labels(np.unique(labels), **keys.grammar, argument="labels").items():
        if len(perturbation.targets) == 1:
            name = present.get(perturbation.targets[0], perturbation.targets[0])
            if name in nodes:
                rows = np.flatnonzero(labels == label)
                single[name] = np.concatenate([single[name], rows]) if name in single else rows
    return single


def _prior_edges(prior: Prior, nodes: np.ndarray, min_similarity: float, max_neighbors: int) -> pd.DataFrame:
    """Get the prior's edges among the nodes."""
    if prior.edges is not None:
        inside = prior.edges["source"].isin(nodes) & prior.edges["target"].isin(nodes)
        return prior.edges[inside].assign(origin=prior.origin)
    place = {name: row for row, name in enumerate(prior.names)}
    names = np.array([name for name in nodes if name in place], dtype=object)
    rows = prior.matrix[[place[name] for name in names]]
    first, second, similarity = similar_pairs(names, rows, min_similarity, max_neighbors)
    return _frame(names[first], names[second], similarity, prior.origin)


def _frame(source: np.ndarray, target: np.ndarray, weight: np.ndarray, origin: str) -> pd.DataFrame:
    """Put edges with one origin into a frame."""
    return pd.DataFrame({"source": source, "target": target, "weight": weight, "origin": origin})
