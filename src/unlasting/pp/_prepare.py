"""From raw counts to log-normalised highly variable genes, fitted to training cells only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Final

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from unlasting.pp._genes import find_counts, gene_names, is_gene, unmatched_names
from unlasting.screen import (
    COUNTS_LAYER,
    TRAIN,
    UNS_KEY,
    GeneNames,
    ScreenKeys,
    check_cells,
    expression,
    integer_counts,
    is_in_memory,
    listed,
    logger,
    nearest_name,
    not_none,
    parse_labels,
    require_column,
    require_integers,
    require_numbers,
    split_hash,
)

_BLOCK: Final = 2_048
"""Cells that are read at a time."""


def prepare(
    adata: AnnData,
    *,
    n_top_genes: int = 2000,
    min_cells: int = 5,
    genes: Sequence[str] | None = None,
    library_size_key: str | None = None,
    symbols_key: str | None = None,
    target_sum: float | None = None,
    perturbation_key: str | None = None,
    control: str | Sequence[str] | None = None,
    split_key: str | None = None,
    delimiter: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Normalise raw counts and select genes.

    Counts are divided by the library size, scaled to `target_sum` and log-transformed (`log1p`). Highly variable genes and
    all measured targets are kept. Scale and genes come from `train` cells, or from all cells without a split. With both
    `genes` and `target_sum` nothing is fitted: see :meth:`unlasting.UnlastingModel.prepare`. After a new `pp.split`, a prepared
    screen that kept all genes starts again from its layer with counts; otherwise a second call is refused.

    Parameters
    ----------
    adata
        The screen, with raw counts in `X`, a layer or `raw`, shape `(n_cells, n_genes)`. Features other than
        `Gene Expression` in `var["feature_types"]` are dropped.
    n_top_genes
        Number of highly variable genes; all genes if there are fewer.
    min_cells
        Genes detected in fewer training cells are dropped, unless they are targets.
    genes
        Genes to keep, in this order, in place of highly variable genes and targets.
    library_size_key
        `obs` column with library sizes, if `X` contains only some measured genes. By default the row sums.
    symbols_key
        `var` column with gene symbols, which become `var_names`. By default a column is used if it holds more targets than
        `var_names`.
    target_sum
        Library size after scaling; by default the median over training cells.
    perturbation_key, control, split_key, delimiter
        `obs` columns and label grammar, like in :func:`unlasting.pp.split`; recorded ones by default.
    copy
        Return a changed copy, and leave `adata` as it is. With this, the screen may stay on disk, with the counts in `X`:
        it is read in blocks, and the copy holds the kept genes in memory.

    Returns
    -------
    `None`, or the copy. Updates the following fields:

    - `adata.X`: log-normalised expression, CSR float32, kept genes only.
    - `adata.var_names`: the symbols, if they were in a column; `adata.var["gene_id"]` then keeps the former names.
    - `adata.layers["counts"]`: raw counts of the kept genes.
    - `adata.uns["unlasting"]["prepare"]`: `target_sum`, `library_size_key`, `n_top_genes`, `min_cells`, the numbers
      `genes_kept` and `genes_before`, `counts_layer`, and `split_hash` of the split (empty if nothing was fitted).
    - `adata.uns["unlasting"]["keys"]`: the label columns.

    Principal components and neighbour graphs of the former expression are removed.

    Raises
    ------
    KeyError
        If a column is missing.
    ValueError
        If `X` contains no raw counts, `adata` is on disk and `copy` is false, a cell is empty, there are no training cells, a gene is not measured, or a key
        differs from the recorded one.
    """
    check_cells(adata, writable=not copy)
    on_disk = adata.isbacked or not is_in_memory(adata.X)
    if on_disk and not copy:
        raise ValueError(
            "`adata` is backed by a file, which stays as it is. Get the kept genes in memory: `adata = pp.prepare(adata, "
            "copy=True)`. Or read all genes first: `adata = adata.to_memory()`."
        )
    on_file = expression(adata) if on_disk else None
    adata = _tables(adata) if on_disk else adata.copy() if copy else adata
    keys = ScreenKeys.read(
        adata, perturbation_key=perturbation_key, control=control, split_key=split_key, delimiter=delimiter
    )
    require_integers(1, n_top_genes=n_top_genes, min_cells=min_cells)
    require_numbers(**not_none(target_sum=target_sum))
    if isinstance(genes, str) or not (genes is None or isinstance(genes, Iterable)):
        raise ValueError(f"`genes` is {genes!r}; give a list of names.")
    if target_sum is not None and not target_sum > 0:
        raise ValueError(f"`target_sum` is {target_sum}; it must be positive.")
    is_fitted = genes is None or target_sum is None
    split = keys.split(adata) if is_fitted else None
    in_training = np.ones(adata.n_obs, dtype=bool) if split is None else split == TRAIN
    if not in_training.any():
        raise ValueError(
            f"No cell is labelled 'train' in `adata.obs[{keys.split_key!r}]`, so nothing can be fitted. Call `pp.split`."
        )
    targets = _targets(adata, keys) if genes is None else set()
    names, column = gene_names(adata, targets if genes is None else list(genes), symbols_key)
    with_genes, place = is_gene(adata), ""
    if on_file is None:
        matrix, place = find_counts(adata)
        on_file = integer_counts(adata if matrix is None else AnnData(matrix, obs=adata.obs[[]]))

    def blocks() -> Iterator[tuple[slice, sparse.csr_matrix]]:
        """Read the counts of some cells at a time."""
        for start in range(0, adata.n_obs, _BLOCK):
            rows = slice(start, min(start + _BLOCK, adata.n_obs))
            counts = on_file[rows]
            yield rows, (integer_counts(AnnData(counts)) if on_disk else counts)[:, with_genes]

    size = _library_size(adata, lambda: np.concatenate([row_sums(counts) for _, counts in blocks()]), library_size_key)
    target_sum = float(np.median(size[in_training]) if target_sum is None else target_sum)

    names = names[with_genes]
    panel = GeneNames(names)
    is_target = np.asarray(names.isin([panel.find(name) for name in sorted(targets)]))
    if genes is not None:
        keep = _places(names, genes)
    else:
        training = ((counts[in_training[rows]], size[rows][in_training[rows]]) for rows, counts in blocks())
        normalised = (_normalised(counts, target_sum / own) for counts, own in training)
        keep = np.flatnonzero(is_target | _variable(normalised, len(names), n_top_genes, min_cells))
    if not len(keep):
        raise ValueError(
            f"None of the {adata.n_vars} genes is detected in {min_cells} of the {int(in_training.sum())} training cells. "
            "Lower `min_cells`."
        )

    n_before = adata.n_vars
    kept = sparse.vstack([counts[:, keep] for _, counts in blocks()], format="csr")
    _say(adata, column, with_genes, place)
    adata._inplace_subset_var(np.flatnonzero(with_genes)[keep])
    if column is not None:
        adata.var["gene_id"] = adata.var_names.astype(str).to_numpy()
        adata.var_names = names[keep]
    _remove_outdated(adata)
    adata.X = _normalised(kept, target_sum / size)
    adata.layers[COUNTS_LAYER] = kept
    adata.uns.setdefault(UNS_KEY, {})["prepare"] = {
        "target_sum": target_sum,
        "library_size_key": library_size_key or "",
        "n_top_genes": n_top_genes,
        "min_cells": min_cells,
        "genes_before": n_before,
        "genes_kept": adata.n_vars,
        "counts_layer": COUNTS_LAYER,
        "split_hash": split_hash(adata.obs_names, split) if is_fitted else "",
    }
    keys.write(adata)
    logger.info(
        "pp.prepare: %d of %d genes kept%s, scaled to %g counts per cell.",
        adata.n_vars,
        n_before,
        f" ({is_target.sum()} of {len(targets)} targets are measured)" if targets else "",
        target_sum,
    )
    if unmatched := unmatched_names(adata.var_names, targets):
        logger.warning("pp.prepare: %s", unmatched)
    return adata if copy else None


def _say(adata: AnnData, column: str | None, with_genes: np.ndarray, place: str) -> None:
    """Log everything that was taken from elsewhere than expected."""
    said = []
    if place not in ("", "adata.X"):
        said.append(
            f"`adata.X` holds no raw counts, so those in `{place}` are used; put them into `adata.X` to be explicit."
        )
    if column is not None:
        said.append(
            f"gene names are taken from `adata.var[{column!r}]`, in place of names such as {adata.var_names[0]!r}; give "
            "`symbols_key` for another column."
        )
    if not with_genes.all():
        said.append(
            f"{int((~with_genes).sum())} features that are not genes by `var['feature_types']` are dropped, such as "
            f"{adata.var_names[int(np.argmin(with_genes))]!r}; keep them in another AnnData (guides: `pp.assign_guides`)."
        )
    for one in said:
        logger.warning("pp.prepare: %s", one)


def _remove_outdated(adata: AnnData) -> None:
    """Remove principal components and neighbour graphs, which belong to the former expression, and log it."""
    graphs = {key for key, value in adata.uns.items() if isinstance(value, Mapping) and "connectivities_key" in value}
    matrices = {adata.uns[key].get(f"{kind}_key") for key in graphs for kind in ("connectivities", "distances")}
    outdated = {
        "obsm": [key for key in adata.obsm if key.startswith("X_pca")],
        "varm": [key for key in adata.varm if key.startswith("PCs")],
        "obsp": [key for key in adata.obsp if key in matrices | {"connectivities", "distances"}],
        "uns": [key for key in adata.uns if key in graphs | {"pca"}],
    }
    for slot, keys in outdated.items():
        for key in keys:
            del getattr(adata, slot)[key]
    names = [f"`{slot}[{key!r}]`" for slot, keys in outdated.items() for key in keys]
    if names:
        logger.warning(
            "pp.prepare: %s belonged to the former expression, and %s removed. Compute them again: `sc.pp.pca(adata)`, "
            "`sc.pp.neighbors(adata)`.",
            listed(names),
            "was" if len(names) == 1 else "were",
        )


def row_sums(matrix: sparse.csr_matrix) -> np.ndarray:
    """Sum each row in double precision, shape `(n_rows,)`."""
    return np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel()


def _targets(adata: AnnData, keys: ScreenKeys) -> set[str]:
    """Collect all targets but drugs."""
    parsed = parse_labels(keys.labels(adata), **keys.grammar)
    names = {name for perturbation in parsed.values() for name in perturbation.targets}
    return names - (keys.drugs(adata) or set())


def _places(names: pd.Index, genes: Sequence[str]) -> np.ndarray:
    """Find the columns of the given genes, shape `(n_genes,)`."""
    wanted = pd.Index(genes)
    if not len(wanted):
        raise ValueError("`genes` is empty; name at least one, or leave it out for the highly variable ones.")
    if not wanted.is_unique:
        raise ValueError(f"`genes` names {wanted[wanted.duplicated()][0]!r} more than once. Name every gene once.")
    places = names.get_indexer(wanted)
    missing = wanted[places < 0]
    if len(missing):
        raise ValueError(
            f"{len(missing)} of the {len(wanted)} `genes` are not among `adata.var_names`, {missing[0]!r} the first."
            f"{nearest_name(missing[0], names)}"
        )
    return places


def _library_size(adata: AnnData, sums: Callable[[], np.ndarray], key: str | None) -> np.ndarray:
    """Get positive library sizes, by default the row sums, shape `(n_cells,)`."""
    if key is None:
        size = sums()
        empty = int((size == 0).sum())
        if empty:
            raise ValueError(
                f"{empty} cells have no counts (the first: {adata.obs_names[int(np.argmin(size))]!r}). "
                "Remove them with `scanpy.pp.filter_cells(adata, min_counts=1)`, before `pp.split`."
            )
        return size
    require_column(adata, key, "library_size_key")
    size = pd.to_numeric(adata.obs[key], errors="coerce").to_numpy(dtype=np.float64)
    bad = ~(np.isfinite(size) & (size > 0))
    if bad.any():
        raise ValueError(
            f"`adata.obs[{key!r}]` contains {int(bad.sum())} values that are no library size (the first is "
            f"{adata.obs[key].iloc[int(np.argmax(bad))]}, of cell {adata.obs_names[int(np.argmax(bad))]!r}). "
            "Correct them, or leave `library_size_key` out."
        )
    return size


def _tables(adata: AnnData) -> AnnData:
    """Copy everything of a screen on disk but its expression."""
    kept = {name: deepcopy(dict(getattr(adata, name))) for name in ("uns", "obsm")}
    return AnnData(obs=adata.obs.copy(), var=adata.var.copy(), **kept)


def _normalised(counts: sparse.csr_matrix, factor: np.ndarray) -> sparse.csr_matrix:
    """Scale and log-transform counts; `factor` has the shape `(n_cells,)`."""
    expression = counts.copy()
    expression.data *= np.repeat(factor, np.diff(counts.indptr)).astype(np.float32)
    np.log1p(expression.data, out=expression.data)
    return expression


def _variable(blocks: Iterable[sparse.csr_matrix], n_genes: int, n_top_genes: int, min_cells: int) -> np.ndarray:
    """Select highly variable genes that are detected in enough cells, shape `(n_genes,)`.

    They are those of `scanpy.pp.highly_variable_genes(flavor="seurat")`: the ratio of variance to mean, standardised within 20
    bins of the mean.
    """
    n_cells, (n_detected, total, squares) = 0, np.zeros((3, n_genes))
    for cells in blocks:
        values = np.expm1(cells.data).astype(np.float64)
        n_cells += cells.shape[0]
        n_detected += np.bincount(cells.indices, minlength=n_genes)
        total += np.bincount(cells.indices, values, n_genes)
        squares += np.bincount(cells.indices, values**2, n_genes)
    chosen = n_detected >= min_cells
    if chosen.sum() <= n_top_genes:
        return chosen
    mean = total[chosen] / n_cells
    variance = (squares[chosen] - n_cells * mean**2) / max(n_cells - 1, 1)
    mean[mean == 0] = 1e-12
    ratio = np.maximum(variance, 0.0) / mean
    dispersion = pd.Series(np.log(np.where(ratio > 0, ratio, np.nan)))
    by_mean = dispersion.groupby(pd.cut(np.log1p(mean), bins=20), observed=True)
    centre, spread = by_mean.transform("mean"), by_mean.transform("std")
    alone = spread.isna()  # a gene alone in its bin has a standardised ratio of one
    standardised = np.where(alone, 1.0, (dispersion - centre) / spread)
    standardised = np.where(dispersion.isna(), -np.inf, standardised)
    chosen[chosen] = standardised >= np.sort(standardised)[-n_top_genes]
    return chosen
