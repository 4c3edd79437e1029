"""Published screens whose `obs` follows the layout of scPerturb, pertpy or cell-eval."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import Any, Final

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData

from unlasting.io._tools import MICROMOLAR
from unlasting.screen import MissingKeyError, ScreenKeys, logger, nearest_name


@dataclass(frozen=True)
class Layout:
    """Label columns in a collection of screens; the first existing column is used.

    Parameters
    ----------
    perturbation
        Columns with the perturbation.
    cell_type
        Columns with the cell type.
    controls
        Labels of control cells.
    """

    perturbation: tuple[str, ...]
    cell_type: tuple[str, ...]
    controls: tuple[str, ...]


LAYOUTS: Final = {
    "scperturb": Layout(
        ("perturbation",), ("celltype", "cell_type", "cell_line"), ("control", "CTRL", "ctrl", "non-targeting", "NT")
    ),
    "pertpy": Layout(
        ("gene_target", "perturbation_name", "perturbation", "condition", "label"),
        ("cell_type", "celltype", "cell_line"),
        ("control", "ctrl", "NT", "non-targeting", "Vehicle"),
    ),
    "cell-eval": Layout(
        ("target", "target_gene", "perturbation"),
        ("cell_type", "celltype", "cell_line", "context"),
        ("non-targeting", "control"),
    ),
}
CONTROL = "control"


def read_screen(source: AnnData | str | PathLike[str], layout: str) -> AnnData:
    """Read a screen in the layout of scPerturb, pertpy, or the observed part of a cell-eval pair.

    Parameters
    ----------
    source
        The AnnData, or an `.h5ad` file.
    layout
        `"scperturb"`, `"pertpy"` or `"cell-eval"`.

    Returns
    -------
    A copy with `obs["perturbation"]` (`control`, `A`, `A+B`), `obs["cell_type"]` for several cell types, and `obs["dose"]`
    in uM if present. The keys are recorded for `pp.split` and all later calls. Cells without a label are left out.

    Raises
    ------
    KeyError
        If the layout is unknown or its columns are missing.
    ValueError
        If no cell is a control, or a dose unit is unknown.

    Examples
    --------
    >>> import unlasting as ul
    >>> adata = ul.io.read_screen("NormanWeissman2019_filtered.h5ad", "scperturb")  # doctest: +SKIP
    >>> ul.pp.split(adata, "unseen_combo")  # doctest: +SKIP
    """
    if layout not in LAYOUTS:
        raise MissingKeyError(
            f"There is no layout {layout!r}.{nearest_name(layout, LAYOUTS)} Layouts are {list(LAYOUTS)}."
        )
    adata = source.copy() if isinstance(source, AnnData) else anndata.read_h5ad(source)
    names = LAYOUTS[layout]
    key = _first(adata, names.perturbation)
    if key is None:
        raise MissingKeyError(
            f"`obs` has no column among {list(names.perturbation)} (it has {list(adata.obs.columns)}). "
            "Rename the column with the perturbation to 'perturbation'."
        )
    labels = adata.obs[key].astype(object)
    labelled = (labels.notna() & ~labels.isin(["nan", ""])).to_numpy()
    if not labelled.all():
        logger.info("read_screen: %d cells without a label are left out.", (~labelled).sum())
        adata, labels = adata[labelled].copy(), labels[labelled]
    is_control = labels.isin(names.controls)
    if not is_control.any():
        raise ValueError(
            f"No cell in `obs[{key!r}]` has a control label, one of {list(names.controls)}. Rename the control to "
            "'control'."
        )
    keys: dict[str, Any] = {"perturbation_key": "perturbation", "control": CONTROL}
    labels = labels.astype(str)
    if "nperts" in adata.obs:
        labels = _joined(labels, adata.obs["nperts"])
    adata.obs["perturbation"] = pd.Categorical(labels.where(~is_control, CONTROL))
    cell_type = _first(adata, [name for name in names.cell_type if name in adata.obs and adata.obs[name].nunique() > 1])
    if cell_type is not None:
        adata.obs["cell_type"] = pd.Categorical(adata.obs[cell_type].astype(str))
        keys["cell_type_key"] = "cell_type"
    dose = _first(adata, ("dose_value", "dose"))
    if dose is not None and pd.to_numeric(adata.obs[dose], errors="coerce").notna().any():
        adata.obs["dose"] = _micromolar(adata, dose)
        keys["dose_key"] = "dose"
    ScreenKeys(**keys).write(adata)
    return adata


def _first(adata: AnnData, names: tuple[str, ...] | list[str]) -> str | None:
    return next((name for name in names if name in adata.obs), None)


def _joined(labels: pd.Series, n: pd.Series) -> pd.Series:
    """Join the targets in combinations by a plus: `A_B` with two perturbations is `A+B`."""
    number = pd.to_numeric(n, errors="coerce").fillna(1).to_numpy()
    parts = labels.str.split("_")
    return labels.where(~((parts.str.len() == number) & (number > 1)), parts.str.join("+"))


def _micromolar(adata: AnnData, key: str) -> np.ndarray:
    """Get doses in uM."""
    value = pd.to_numeric(adata.obs[key], errors="coerce").to_numpy(dtype=float)
    if "dose_unit" not in adata.obs:
        return value
    unit = adata.obs["dose_unit"].astype(object)
    used = unit[np.isfinite(value) & unit.notna().to_numpy()].astype(str).unique()
    unknown = [name for name in used if name not in MICROMOLAR]
    if unknown:
        raise ValueError(f"`obs['dose_unit']` holds {unknown[0]!r}. Convert doses to one of {list(MICROMOLAR)}.")
    return value * unit.map(MICROMOLAR).astype(float).fillna(1.0).to_numpy()
