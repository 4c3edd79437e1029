"""Predictions of other tools, ready for `tl.evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Final

import numpy as np
from anndata import AnnData
from scipy import sparse

from unlasting.io import _tools
from unlasting.screen import UNS_KEY, MissingKeyError, ScreenKeys, nearest_name

TOOLS: Final[dict[str, Callable[[Path, Sequence[str] | None], AnnData]]] = {
    "gears": _tools.gears,
    "cpa": _tools.cpa,
    "chemcpa": _tools.chemcpa,
    "graphvci": _tools.graphvci,
    "scgpt": _tools.scgpt,
    "grape": _tools.grape,
    "cellflow": _tools.cellflow,
    "state": _tools.state,
    "scgen": _tools.scgen,
    "cell-eval": _tools.cell_eval,
}
"""The reader of each tool's files."""

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
    """Read the predictions of another tool.

    Parameters
    ----------
    path
        The file; what each tool writes is described at its reader in `io.TOOLS`.
    tool
        `"gears"`, `"cpa"`, `"chemcpa"`, `"graphvci"`, `"scgpt"`, `"grape"`, `"cellflow"`, `"state"`, `"scgen"` or
        `"cell-eval"`.
    screen
        The screen that the predictions will be compared with. Its recorded keys name the columns, and its genes and
        their order are taken.
    genes
        Names of the genes in the order of the model, where the file lacks them.
    perturbation
        Label of all cells, for files that do not name it.
    counts
        The file holds counts, or expected counts. They are normalised to the total of `screen` (10,000 without one) and
        become `log1p`.

    Returns
    -------
    Predictions without control cells, shape `(n_cells, n_genes)`, with `obs["perturbation"]`, and with `obs["cell_type"]`
    and `obs["dose"]` (uM) where the file has them. With one row for each condition they are mean profiles. Pass it
    to :func:`unlasting.tl.evaluate` as `predictions`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    KeyError
        If the tool is unknown, or genes or columns of the screen are missing.
    ValueError
        If the file has another form than the tool writes.

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
        raise FileNotFoundError(f"There is no file {path}. Give the file that {tool} has written.")
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
    """Name genes and columns as in the screen.

    Raises
    ------
    KeyError
        If genes or columns are missing.
    """
    names = [found.var_names, *(found.var[key] for key in found.var)]
    best = max(names, key=lambda column: screen.var_names.isin(column).sum())
    found.var_names = best.astype(str)
    missing = screen.var_names[~screen.var_names.isin(found.var_names)]
    if len(missing):
        raise MissingKeyError(
            f"The predictions lack {len(missing)} of the {screen.n_vars} genes of the screen, such as {list(missing[:3])}. "
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
