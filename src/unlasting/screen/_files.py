"""Tables and entries that every version of the file formats can hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from unlasting.screen._logging import listed, logger

if TYPE_CHECKING:
    from anndata import AnnData

_RESERVED = "_index"
"""The name of a column that the formats refuse."""


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


def writable(adata: AnnData) -> AnnData:
    """Get cells that h5ad can hold: the same object, or one that shares its matrices, with the changes logged.

    Columns and entries in `uns` that no file can hold become text.
    """
    from anndata import AnnData

    use_plain_strings(adata)
    changed: list[str] = []
    obs, var = (writable_table(getattr(adata, slot), slot, changed) for slot in ("obs", "var"))
    uns = _writable_entry(adata.uns, "uns", changed)
    slots = {
        slot: {
            key: writable_table(value, f"{slot}[{key!r}]", changed) if isinstance(value, pd.DataFrame) else value
            for key, value in getattr(adata, slot).items()
        }
        for slot in ("obsm", "varm")
    }
    genes = None if adata.raw is None else writable_table(adata.raw.var, "raw.var", changed)
    if not changed:
        return adata
    logger.warning(
        "Files cannot hold %s, which are written as text. Convert them to numbers or text to keep control.",
        listed(changed),
    )
    others = {slot: dict(getattr(adata, slot).items()) for slot in ("layers", "obsp", "varp")}
    new = AnnData(adata.X, obs=obs, var=var, uns=uns, **slots, **others)
    if genes is not None:
        new.raw = AnnData(adata.raw.X, obs=obs[[]], var=genes)
    return new


def writable_table(table: pd.DataFrame, place: str, changed: list[str]) -> pd.DataFrame:
    """Get a table that h5ad can hold, and add the changes to a list; an unchanged table is the same object."""
    new: dict[str, Any] = {}
    for place_of_column, name in enumerate(table.columns):
        text = "index" if name == _RESERVED else name if isinstance(name, str) else str(name)
        text = f"{text}_{place_of_column}" if text in new else text
        column = original = table.iloc[:, place_of_column]
        if _is_refused(column.to_frame(text).reset_index(drop=True)):
            column = column.astype(object).map(str, na_action="ignore")
            column = column.where(column.notna(), None).astype("category")
        if text is not name or column is not original:
            changed.append(f"`{place}[{name!r}]`")
        new[text] = column
    clashes = table.index.name in new
    if clashes:
        changed.append(f"`{place}.index.name`")
    elif not any(f"`{place}[" in one for one in changed):
        return table
    return pd.DataFrame(new, index=table.index.rename(None) if clashes else table.index)


def _writable_entry(value: Any, place: str, changed: list[str]) -> Any:
    """Get an entry of `uns` that h5ad can hold."""
    if isinstance(value, Mapping):
        found = {str(key): _writable_entry(part, f"{place}[{key!r}]", changed) for key, part in value.items()}
        changed += [f"`{place}[{key!r}]`" for key in value if not isinstance(key, str)]
        return found
    if isinstance(value, pd.DataFrame):
        return writable_table(value, place, changed)
    if not _is_refused(value):
        return value
    changed.append(f"`{place}`")
    if not isinstance(value, Iterable) or isinstance(value, str | bytes):
        return str(value)
    parts = list(value)
    numbers = parts and all(isinstance(part, int | float | np.number) for part in parts)
    return np.array(parts if numbers else list(map(str, parts)))


def _is_refused(value: Any) -> bool:
    """Whether h5ad cannot hold a value: it is written to memory, unless it is an array of numbers."""
    dtype = value.dtypes.iloc[0] if isinstance(value, pd.DataFrame) else getattr(value, "dtype", None)
    if not isinstance(value, pd.Series) and getattr(dtype, "kind", "O") in "biuf":
        return False
    import h5py
    from anndata.io import write_elem

    with h5py.File("memory", "w", driver="core", backing_store=False) as file:
        try:
            write_elem(file, "value", value)
        except Exception:  # noqa: BLE001 - each writer refuses in its own way
            return True
    return False
