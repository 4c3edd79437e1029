"""Screens with expression and labels in different modalities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from anndata import AnnData

from unlasting.screen import MissingKeyError, ScreenKeys, nearest_name

if TYPE_CHECKING:
    from mudata import MuData

EXPRESSION = "layer"
"""The argument in `modalities` that names the expression modality."""

COLUMNS = ("perturbation_key", "cell_type_key", "batch_key", "dose_key", "smiles_key", "split_key")


def modality_of(mdata: MuData, modalities: Mapping[str, str] | None) -> AnnData:
    """Get the expression modality."""
    if modalities is None:
        raise ValueError("The model was set up with an AnnData, and a MuData is given. Pass its expression modality.")
    if mdata.is_view:
        raise ValueError("`mdata` is a view of another MuData. Pass a copy: `mdata = mdata.copy()`.")
    if EXPRESSION not in modalities:
        raise ValueError(
            f"`modalities` is {dict(modalities)}, without the expression: add 'layer', such as {{'layer': 'rna'}}."
        )
    for argument, modality in modalities.items():
        if argument not in (EXPRESSION, *COLUMNS):
            raise ValueError(
                f"`modalities` names {argument!r}; choose among {[EXPRESSION, *COLUMNS]}."
                f"{nearest_name(argument, [EXPRESSION, *COLUMNS])}"
            )
        if modality not in mdata.mod:
            raise MissingKeyError(
                f"`modalities[{argument!r}]` is {modality!r}; choose one of {list(mdata.mod)}."
                f"{nearest_name(modality, mdata.mod)}"
            )
    return mdata[modalities[EXPRESSION]]


def expression_of(mdata: MuData, modalities: Mapping[str, str] | None, keys: ScreenKeys) -> AnnData:
    """Copy label columns to the expression modality's cells, in an AnnData that shares its matrices."""
    expression = modality_of(mdata, modalities)
    obs = expression.obs.copy()
    for argument in COLUMNS:
        column, modality = getattr(keys, argument), (modalities or {}).get(argument)
        table = mdata.obs if modality is None else mdata[modality].obs
        if modality is None and column not in table and column in obs:
            table = obs
        if column is None or (argument == "split_key" and column not in table):
            continue
        if column not in table:
            place = "mdata.obs" if modality is None else f"mdata[{modality!r}].obs"
            others = [name for name in mdata.mod if column in mdata[name].obs]
            raise MissingKeyError(
                f"`{argument}` is {column!r}, but `{place}` has no such column. "
                + (
                    f"It is in {others[0]!r}: pass `modalities={{{argument!r}: {others[0]!r}, ...}}`."
                    if others
                    else f"Choose one of {list(map(str, table.columns))}."
                )
            )
        values = table[column].reindex(obs.index)
        if column in obs and not values.astype(object).equals(obs[column].astype(object)):
            raise ValueError(
                f"`{argument}` is {column!r}, and the expression modality has a column of this name with other values. "
                "Rename one of them."
            )
        obs[column] = values
    layers = dict(expression.layers.items())
    return AnnData(expression.X, obs=obs, var=expression.var, uns=expression.uns, layers=layers)
