"""Effects in another screen as knowledge about targets."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData

from unlasting.screen import TRAIN, ScreenKeys, check_cells, check_log_normalised, expression

_MIN_CELLS = 3


def measured_effects(adata: AnnData) -> pd.DataFrame:
    """Measure the effect of each single target in another screen.

    An effect is the change in mean expression, in standard deviations over control cells, averaged over cell types with at
    least three cells each. Its length is reduced by the expected error, so that targets without an effect have zeros.

    Parameters
    ----------
    adata
        The other screen, log-normalised, shape `(n_cells, n_genes)`. Label columns are those that `pp.split` or
        `pp.prepare` recorded. With a split, training cells alone are read.

    Returns
    -------
    Effects with targets as index, shape `(n_targets, n_genes)`.

    Raises
    ------
    ValueError
        If `X` is not log-normalised, or no single target has cells beside controls of its cell type.
    """
    check_cells(adata)
    check_log_normalised(expression(adata, in_memory=True), "`prior.X`")
    keys = ScreenKeys.read(adata)
    split = keys.split(adata)
    if split is not None:
        adata = adata[split == TRAIN]
    perturbations, cell_types = keys.perturbations(adata), keys.cell_types(adata)
    names = np.array([p.targets[0] if len(p.targets) == 1 else "" for p in perturbations], dtype=object)
    is_control = np.array([p.is_control for p in perturbations], dtype=bool)
    sums: dict[str, list[np.ndarray]] = {}
    for cell_type in pd.unique(pd.Series(cell_types)):
        here = np.asarray(cell_types == cell_type)
        controls = _dense(adata, here & is_control)
        if len(controls) < _MIN_CELLS:
            continue
        mean, sd = controls.mean(axis=0), controls.std(axis=0)
        for name in sorted(set(names[here]) - {""}):
            cells = _dense(adata, here & (names == name))
            if len(cells) < _MIN_CELLS:
                continue
            effect = np.divide(cells.mean(axis=0) - mean, sd, out=np.zeros_like(mean), where=sd > 0)
            error = (sd > 0).sum() * (1 / len(cells) + 1 / len(controls))
            sums.setdefault(name, []).append(np.r_[effect, error])
    if not sums:
        raise ValueError(
            "`prior` is a screen without a single target beside controls. Name its labels: call `pp.split` or `pp.prepare` on "
            "it with its own `perturbation_key` and `control`."
        )
    effects = {}
    for name, found in sums.items():
        effect, error = np.mean(found, axis=0)[:-1], np.sum(found, axis=0)[-1] / len(found) ** 2
        length = (effect**2).sum()
        effects[name] = effect * np.sqrt(max(1.0 - error / length, 0.0) if length > 0 else 0.0)
    return pd.DataFrame.from_dict(effects, orient="index", columns=adata.var_names.astype(str))


def _dense(adata: AnnData, rows: np.ndarray) -> np.ndarray:
    values = expression(adata[np.flatnonzero(rows)], in_memory=True)
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values, dtype=np.float64)
