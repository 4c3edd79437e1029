"""Pathways that perturbations turn up or down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from unlasting.screen import UNS_KEY, MissingKeyError, logger
from unlasting.tl._groups import store

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
    """Find the pathways that ranked perturbations turn up or down.

    The t values of all genes that :func:`rank` found are regressed on whether a gene is in the pathway, or on its weight
    there: the univariate linear model of decoupler :cite:p:`badiamompel2022decoupler`. There is no cut-off, and the sign
    is the direction of the pathway. Genes of a pathway that vary together in any cells make its p-value too small: read it
    as an order.

    Parameters
    ----------
    adata
        The screen after :func:`rank`.
    gene_sets
        Pathways as lists of genes; or a network of decoupler, a frame with `source` (the pathway or regulator), `target`
        (the gene) and perhaps `weight`.
    min_genes
        Pathways with fewer genes in the panel are left out, as are those with all of them.
    key
        Where under `uns["unlasting"]` the ranking is.
    key_added
        Where under `uns["unlasting"]` the results go.

    Returns
    -------
    A frame with `condition`, `cell_type`, `dose`, `pathway`, `score` (t of the regression: positive where the pathway goes
    up), `p_adjusted` (two-sided, Benjamini-Hochberg over the pathways of a condition) and `n_genes` of the panel. Conditions
    are in the order of the ranking, the pathways of each by descending absolute score.

    Updates the following fields:

    - `adata.uns["unlasting"][key_added]`: the frame.

    Raises
    ------
    ImportError
        If decoupler is not installed.
    KeyError
        If there is no ranking, or a column of the network is missing.
    ValueError
        If no pathway has `min_genes` genes in the panel, or the perturbations change no gene.
    """
    results = adata.uns.get(UNS_KEY, {})
    if key not in results or f"{key}_genes" not in results:
        raise MissingKeyError(f'`adata.uns["{UNS_KEY}"]` has no {key!r}: run `ul.tl.rank(adata)` first.')
    ranking, genes = results[key], pd.Index(results[f"{key}_genes"]["genes"], dtype=object)
    network = _network(gene_sets)
    network = network[network["target"].isin(genes)]
    sizes = network.groupby("source").size()
    usable = (sizes >= min_genes) & (sizes < len(genes))  # all genes have no others to differ from
    if not usable.any():
        raise ValueError(
            f"No pathway of `gene_sets` has `min_genes={min_genes}` of the {len(genes)} genes of the panel, but not all of "
            f"them (the largest has {sizes.max() if len(sizes) else 0}): are the names of the same kind?"
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
    decoupler = _require_decoupler()
    t = pd.DataFrame(results[f"{key}_genes"]["t"], columns=genes).astype(float)
    changed = t.any(axis=1).to_numpy()
    if not changed.any():
        raise ValueError(f"No gene changes in any condition of `uns['{UNS_KEY}']['{key}']`.")
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
    """Write pathways as a network of decoupler, without repeated edges."""
    if not isinstance(gene_sets, pd.DataFrame):
        pairs = [(name, gene) for name, members in gene_sets.items() for gene in members]
        gene_sets = pd.DataFrame(pairs, columns=["source", "target"])
    missing = {"source", "target"} - set(gene_sets.columns)
    if missing:
        raise MissingKeyError(
            f"`gene_sets` is a frame without {sorted(missing)}; it needs `source` (the pathway) and `target`."
        )
    return gene_sets.drop_duplicates(["source", "target"])


def _require_decoupler() -> Any:
    """Import decoupler.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        import decoupler
    except ImportError as error:
        raise ImportError(
            "decoupler finds the pathways, and is not installed. Install it with `pip install 'unlasting[pathways]'`."
        ) from error
    return decoupler
