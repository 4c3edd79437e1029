"""Gene names, genes among the features, and raw counts, wherever an AnnData keeps them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from anndata import AnnData

from unlasting.screen import COUNTS_LAYER, UNS_KEY, GeneNames, MissingKeyError, is_counts, is_in_memory, nearest_name

_SYMBOL_COLUMNS: Final = (
    "gene_name", "gene_symbol", "gene_symbols", "symbol", "symbols", "feature_name", "gene_names", "gene_short_name",
    "hgnc_symbol", "name",
)  # fmt: skip
_ENSEMBL: Final = re.compile(r"ENS[A-Z]*G\d{11}(\.\d+)?")
_GENE: Final = re.compile(r"[A-Z][A-Z0-9]+(-[A-Z0-9]+)*|[A-Z][a-z]+\d+[a-z]?\d*")
GENE_EXPRESSION: Final = "Gene Expression"


def looks_like_gene(name: str) -> bool:
    """Whether a name is spelt like a human or murine gene symbol, or is an Ensembl id."""
    return bool(_GENE.fullmatch(name) or _ENSEMBL.fullmatch(name))


def gene_names(adata: AnnData, wanted: Collection[str], symbols_key: str | None) -> tuple[pd.Index, str | None]:
    """Get gene names, shape `(n_genes,)`, and their column in `var`.

    It is `symbols_key`, or a column that holds more `wanted` names than `var_names`; `None` if these are kept. A repeated or
    missing symbol leaves the name in `var_names`.
    """
    column = symbols_key
    if column is None:
        present = len(set(wanted) & set(adata.var_names))
        text = [name for name in adata.var if not pd.api.types.is_numeric_dtype(adata.var[name].dtype)]
        hits = {name: len(set(wanted) & set(adata.var[name].dropna().astype(str))) for name in text}
        column = max(hits, key=hits.__getitem__, default=None)
        if column is not None and hits[column] <= 2 * present:
            column = None
        if column is None and not present and all(map(_ENSEMBL.fullmatch, map(str, adata.var_names[:20]))):
            column = next((name for name in _SYMBOL_COLUMNS if name in text), None)
        if column is None:
            return adata.var_names, None
    if column not in adata.var:
        raise MissingKeyError(
            f"`symbols_key` is {column!r}, but `adata.var` has no such column (it has {list(map(str, adata.var))})."
            f"{nearest_name(column, map(str, adata.var))}"
        )
    symbols = adata.var[column].astype(object)
    usable = (symbols.notna() & ~symbols.astype(str).isin(["", "nan", "None"]) & ~symbols.duplicated()).to_numpy()
    names = pd.Index(np.where(usable, symbols.astype(str), adata.var_names.astype(str)))
    return (names if names.is_unique else pd.Index(np.where(names.duplicated(), adata.var_names, names))), column


def is_gene(adata: AnnData) -> np.ndarray:
    """Whether each feature is a gene by `var["feature_types"]`, shape `(n_features,)`; all without this column."""
    types = adata.var.get("feature_types", adata.var.get("feature_type"))
    if types is None or not (types.astype(str) == GENE_EXPRESSION).any():
        return np.ones(adata.n_vars, dtype=bool)
    return (types.astype(str) == GENE_EXPRESSION).to_numpy()


def find_counts(adata: AnnData) -> tuple[Any, str]:
    """Find raw counts in `X`, a layer or `raw`.

    Returns
    -------
    The matrix and its place; `None` and an empty text if there is none.
    """
    places: dict[str, Any] = {"adata.X": adata.X}
    prepared = adata.uns.get(UNS_KEY, {}).get("prepare")
    if prepared and not _may_start_again(adata, prepared):
        names, raw = [], None
    else:
        names, raw = (
            sorted(name for name in adata.layers if name is not None),
            adata.raw,
        )  # anndata 0.13 lists X as None
    places |= {f"adata.layers[{name!r}]": adata.layers[name] for name in names}
    if raw is not None and adata.var_names.isin(raw.var_names).all():
        places["adata.raw.X"] = raw[:, list(adata.var_names)].X
    counts = {
        place: matrix
        for place, matrix in places.items()
        if is_in_memory(matrix) and matrix is not None and matrix.dtype.kind in "biuf" and is_counts(matrix)
    }
    named = ("adata.X", f"adata.layers[{COUNTS_LAYER!r}]")
    place = next((place for place in named if place in counts), "")
    if counts and not place:  # detected genes as 0 and 1, or spliced counts alone, are fewer
        place = max(counts, key=lambda place: counts[place].sum())
    return counts.get(place), place


def _may_start_again(adata: AnnData, prepared: Mapping[str, Any]) -> bool:
    """Whether a prepared screen was split again, is as it was prepared, and its layer holds all counts.

    Without a new split a second preparation is a slip, and a layer with the kept genes only has no library sizes.
    """
    if not (prepared.get("split_since", False) and is_in_memory(adata.X)):
        return False
    if prepared["genes_kept"] != prepared["genes_before"] or prepared["library_size_key"]:
        return False
    with np.errstate(over="ignore"):  # raw counts that were put back
        totals = np.asarray(np.expm1(adata.X).sum(axis=1)).ravel()
    return bool(np.allclose(np.median(totals), prepared["target_sum"], rtol=1e-3))


def unmatched_names(genes: Collection[str], targets: Collection[str]) -> str:
    """Write a sentence with its fix if hardly any target that is spelt like a gene is measured; else nothing."""
    panel, spelt = GeneNames(genes), sorted(name for name in targets if looks_like_gene(name))
    n_measured = sum(bool(panel.find(name)) for name in spelt)
    if len(spelt) < 3 or n_measured * 10 >= len(spelt):
        return ""
    return (
        f"Only {n_measured} of {len(spelt)} targets are measured: labels have names such as {spelt[0]!r}, and genes such as "
        f"{str(next(iter(genes)))!r}. Use one nomenclature: put the symbols into a column of `adata.var` and give "
        "`symbols_key`, or rename the labels."
    )
