"""Predictions from other tools, for `tl.evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Final

import numpy as np
from anndata import AnnData
from scipy import sparse

from unlasting.io._tools import TOOLS
from unlasting.screen import UNS_KEY, MissingKeyError, ScreenKeys, nearest_name

CONTROLS: Final = ("ctrl", "control", "non-targeting", "non_targeting", "NT", "DMSO_TF")


def read_predictions(
    path: str | PathLike[str],
    tool: str,
    *,
    screen: AnnData | None = None,
    genes: Sequence[str] | None = None,
    perturbation: str | None = None,
    counts: bool = False,
) -> AnnData:
    """Read predictions from another tool.

    Parameters
    ----------
    path
        The file. The guide to metrics lists the files and rows for each tool.
    tool
        `"gears"`, `"cpa"`, `"chemcpa"`, `"graphvci"`, `"scgpt"`, `"grape"`, `"cellflow"`, `"state"`, `"scgen"` or
        `"cell-eval"`.
    screen
        The screen to compare with. Its recorded keys name the columns, and its genes are used in their order.
    genes
        Gene names in the model's order, if the file lacks them, as with STATE and GEARS.
    perturbation
        Label for all cells, if the file lacks it.
    counts
        Whether the file holds counts, or expected counts. They are normalised to the total in `screen` (10,000 without
        a screen) and transformed by `log1p`.

    Returns
    -------
    Predictions without control cells, shape `(n_cells, n_genes)`, with `obs["perturbation"]`, and with `obs["cell_type"]`
    and `obs["dose"]` (uM) if present. One row per condition is a mean profile. Pass it to
    :func:`unlasting.tl.evaluate` as `predictions`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    KeyError
        If the tool is unknown, or genes or columns are missing.
    ValueError
        If the file has another form.

    Examples
    --------
    >>> import unlasting as ul
    >>> predictions = ul.io.read_predictions("gears.npz", tool="gears", screen=adata)  # doctest: +SKIP
    >>> ul.tl.evaluate(adata, predictions=predictions, metrics="pearson_change")  # doctest: +SKIP
    """
    if tool not in TOOLS:
        raise MissingKeyError(f"There is no reader for {tool!r}.{nearest_name(tool, TOOLS)} Tools are {list(TOOLS)}.")
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}. Give the output file from {tool}.")
    found = TOOLS[tool](path, genes)
    if perturbation is not None:
        found.obs["perturbation"] = perturbation
    keys = ScreenKeys() if screen is None else ScreenKeys.read(screen)
    labels = found.obs["perturbation"].astype(str)
    found = found[~labels.isin([*CONTROLS, keys.control]).to_numpy()].copy()
    if not found.n_obs:
        raise ValueError(f"{path} holds control cells only. Give the file with predicted cells.")
    if counts:
        total = 1e4 if screen is None else float(screen.uns.get(UNS_KEY, {}).get("prepare", {}).get("target_sum", 1e4))
        found.X = _log_normalised(found.X, total)
    return found if screen is None else _as_in(found, screen, keys)


def _log_normalised(counts: object, total: float) -> sparse.csr_matrix:
    matrix = sparse.csr_matrix(counts, dtype=np.float64)
    size = np.asarray(matrix.sum(axis=1)).ravel()
    matrix.data *= np.repeat(np.divide(total, size, out=np.zeros(len(size)), where=size > 0), np.diff(matrix.indptr))
    np.log1p(matrix.data, out=matrix.data)
    return matrix.astype(np.float32)


def _as_in(found: AnnData, screen: AnnData, keys: ScreenKeys) -> AnnData:
    """Name genes and columns as in the screen."""
    names = [found.var_names, *(found.var[key] for key in found.var)]
    best = max(names, key=lambda column: screen.var_names.isin(column).sum())
    found.var_names = best.astype(str)
    missing = screen.var_names[~screen.var_names.isin(found.var_names)]
    if len(missing) == screen.n_vars:
        raise MissingKeyError(
            f"The predictions have none of the screen's genes; their names begin with {list(found.var_names[:3])}. Give the "
            "model's gene names in order: `genes=[...]`."
        )
    if len(missing):
        raise MissingKeyError(
            f"The predictions lack {len(missing)} genes among the screen's {screen.n_vars}, such as {list(missing[:3])}. "
            "Compare on shared genes: `screen[:, screen.var_names.isin(predictions.var_names)].copy()`."
        )
    found = found[:, screen.var_names].copy()
    found.var = found.var[[]]
    for argument, name in (("perturbation_key", "perturbation"), ("cell_type_key", "cell_type"), ("dose_key", "dose")):
        key = getattr(keys, argument)
        if key is None:
            continue
        if name not in found.obs:
            values = screen.obs[key].dropna().unique() if name == "cell_type" else []
            if len(values) != 1:
                raise MissingKeyError(
                    f"The predictions have no {name.replace('_', ' ')}, but the screen has `obs[{key!r}]`. Add a column "
                    f"{name!r} to the file."
                )
            found.obs[name] = values[0]
        found.obs = found.obs.rename(columns={name: key})
    return found
