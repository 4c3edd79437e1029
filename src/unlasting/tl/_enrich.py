"""Pathways with genes that go up or down under perturbations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from unlasting.screen import UNS_KEY, MissingKeyError, logger
from unlasting.tl._screen import store

if TYPE_CHECKING:
    from anndata import AnnData


def enrich(
    adata: AnnData,
    gene_sets: Mapping[str, Sequence[str]] | pd.DataFrame,
    *,
    min_genes: int = 5,
    key: str = "rank",
    key_added: str = "enrichment",
) -> pd.DataFrame:
    """Find the pathways whose genes go up or down under ranked perturbations.

    The genes' t values from :func:`rank` are regressed on pathway membership, or on the gene's weight in the pathway: the
    univariate linear model in decoupler :cite:p:`badiamompel2022decoupler`. There is no cut-off, and the sign is the
    direction. Correlated genes in a pathway make its p-value too small, so read p-values as an order.

    Parameters
    ----------
    adata
        The screen after :func:`rank`.
    gene_sets
        Pathways as lists of genes, or a decoupler network: a frame with `source` (pathway or regulator), `target` (gene)
        and, if any, `weight`.
    min_genes
        Fewest genes in the panel. Pathways with all genes in the panel are left out, too.
    key
        Key under `uns["unlasting"]` with the ranking.
    key_added
        Key under `uns["unlasting"]` for the result.

    Returns
    -------
    A frame with `condition`, `cell_type`, `dose`, `pathway`, `score` (the regression's t, positive for up), `p_adjusted`
    (two-sided, Benjamini-Hochberg over the pathways in a condition) and `n_genes` in the panel. Conditions keep
    the ranking's order; pathways are sorted by descending absolute score.

    Updates the following fields:

    - `adata.uns["unlasting"][key_added]`: the frame.

    Raises
    ------
    ImportError
        If decoupler is not installed.
    KeyError
        If there is no ranking, or the network lacks a column.
    ValueError
        If no pathway has `min_genes` genes in the panel, or no gene changes.
    """
    results = adata.uns.get(UNS_KEY, {})
    if key not in results or f"{key}_genes" not in results:
        raise MissingKeyError(f'`adata.uns["{UNS_KEY}"]` has no {key!r}: run `ul.tl.rank(adata)` first.')
    ranking, genes = results[key], pd.Index(results[f"{key}_genes"]["genes"], dtype=object)
    network = _network(gene_sets)
    network = network[network["target"].isin(genes)]
    sizes = network.groupby("source").size()
    usable = (sizes >= min_genes) & (sizes < len(genes))  # a pathway with all genes has no contrast
    if not usable.any():
        raise ValueError(
            f"No pathway in `gene_sets` has `min_genes={min_genes}` of the {len(genes)} genes in the panel, and not all "
            f"(the largest has {sizes.max() if len(sizes) else 0}). Use gene names like those in `adata.var_names`."
        )
    if not usable.all():
        unfit = sizes.index[~usable]
        logger.info(
            "%d pathways have fewer than %d genes in the panel, or all, for example %s.",
            len(unfit),
            min_genes,
            unfit[0],
        )
    network = network[network["source"].isin(sizes.index[usable])]
    try:
        import decoupler
    except ImportError as error:
        raise ImportError(
            "decoupler is needed for pathways. Install it with `pip install 'unlasting[pathways]'`."
        ) from error
    t = pd.DataFrame(results[f"{key}_genes"]["t"], columns=genes).astype(float)
    changed = t.any(axis=1).to_numpy()
    if not changed.any():
        raise ValueError(
            f"No gene changes in any condition of `uns['{UNS_KEY}']['{key}']`. Rank perturbations with an effect."
        )
    score, p_adjusted = decoupler.mt.ulm(t[changed].rename(index=str), network, tmin=min_genes, empty=False)
    frame = pd.DataFrame({"score": score.stack(), "p_adjusted": p_adjusted.stack()}).rename_axis(["row", "pathway"])
    frame = frame.reset_index().astype({"row": int})
    frame = frame.sort_values("score", key=abs, ascending=False, kind="stable").sort_values("row", kind="stable")
    frame = (
        ranking[["condition", "cell_type", "dose"]].merge(frame, left_index=True, right_on="row").drop(columns="row")
    )
    frame = frame.assign(n_genes=frame["pathway"].map(sizes)).reset_index(drop=True)
    store(adata, **{key_added: frame})
    return frame.copy()


def _network(gene_sets: Mapping[str, Sequence[str]] | pd.DataFrame) -> pd.DataFrame:
    """Convert pathways to a decoupler network without repeated edges."""
    if not isinstance(gene_sets, pd.DataFrame):
        pairs = [(name, gene) for name, members in gene_sets.items() for gene in members]
        gene_sets = pd.DataFrame(pairs, columns=["source", "target"])
    missing = {"source", "target"} - set(gene_sets.columns)
    if missing:
        raise MissingKeyError(
            f"`gene_sets` is a frame without {sorted(missing)}. Name its columns `source` (pathway) and `target` (gene)."
        )
    return gene_sets.drop_duplicates(["source", "target"])
