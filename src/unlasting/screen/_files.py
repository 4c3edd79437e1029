"""Tables that every version of the file formats can hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from anndata import AnnData


def use_plain_strings(adata: AnnData) -> None:
    """Convert nullable strings in `obs`, `var` and their names to objects, which every h5ad file can hold."""
    for table in (adata.obs, adata.var):
        for name in table:
            if isinstance(table[name].dtype, pd.StringDtype):
                column = table[name].astype(object)
                table[name] = column.where(column.notna(), None)
            elif isinstance(table[name].dtype, pd.CategoricalDtype) and isinstance(
                table[name].cat.categories.dtype, pd.StringDtype
            ):
                table[name] = table[name].cat.rename_categories(table[name].cat.categories.astype(object))
    if isinstance(adata.obs_names.dtype, pd.StringDtype):
        adata.obs.index = adata.obs_names.astype(object)
    if isinstance(adata.var_names.dtype, pd.StringDtype):
        adata.var.index = adata.var_names.astype(object)
