"""Predicted changes and their intervals beside those in test cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import norm

from unlasting.screen import TEST, Condition, require_integers
from unlasting.tl._differential import Moments, top_genes
from unlasting.tl._screen import Screen, screen_of, store
from unlasting.tl._tables import agreement

if TYPE_CHECKING:
    from unlasting.model import UnlastingModel

_LEVEL = 0.95


def calibration(model: UnlastingModel, *, min_cells: int = 20, key_added: str = "calibration") -> pd.DataFrame:
    """Compare the posterior of changes with test cells, without generating cells.

    Intervals contain the uncertainty of the prediction and the sampling error of the observed change.

    Parameters
    ----------
    model
        A model with a screen that has `test` cells.
    min_cells
        Fewest test cells per condition.
    key_added
        Key under `uns["unlasting"]`.

    Returns
    -------
    A frame with a row for each condition and gene: `condition`, `cell_type`, `dose`, `gene`, `observed` and `predicted` mean
    change from training controls, `low` and `high` (95 % interval for the observed change), `is_de20` (among the 20 genes
    with the largest change over its error), `pearson` and `slope` (observed on predicted changes), `expected_error` and
    `p_active`, as in `model.effects`.

    Updates the following field in `model.adata`:

    - `uns["unlasting"][key_added]`: the frame, for :func:`unlasting.pl.calibration` with `key="calibration"`.

    Raises
    ------
    ValueError
        If the model has no screen, or no condition has `min_cells` test cells and controls.
    """
    adata = screen_of(model)
    require_integers(1, min_cells=min_cells)
    screen = Screen.read(adata, None)
    wanted = [c for c in screen.test_conditions() if len(screen.part(c, TEST)) >= min_cells]
    frames = []
    for dose in dict.fromkeys(condition.dose for condition in wanted):
        labels = list(dict.fromkeys(condition.perturbation for condition in wanted if condition.dose == dose))
        for found, _, changes in model.iterate_changes(labels, dose=dose or None):
            for row, condition in enumerate(found):
                if condition in wanted:
                    table = _compared(screen, condition, changes.mean[row], changes.sd[row])
                    table = table.assign(**agreement(table["observed"].to_numpy(), table["predicted"].to_numpy()))
                    trust = {"expected_error": changes.expected_error[row], "p_active": changes.p_active[row]}
                    frames.append(table.assign(**trust))
    if not frames:
        raise ValueError(
            f"No condition has `min_cells={min_cells}` test cells. Lower `min_cells`, or hold larger conditions out with "
            "`ul.pp.split`."
        )
    frame = pd.concat(frames, ignore_index=True)
    store(adata, **{key_added: frame})
    return frame.copy()


def _compared(screen: Screen, condition: Condition, predicted: np.ndarray, sd: np.ndarray) -> pd.DataFrame:
    """Write one condition's rows."""
    cells = Moments.read(screen.observed, screen.part(condition, TEST))
    controls = Moments.read(screen.observed, screen.control_rows(condition.cell_type))
    observed = cells.mean - controls.mean
    noise = cells.variance / cells.n + controls.variance / controls.n
    margin = norm.ppf(0.5 + _LEVEL / 2) * np.sqrt(sd**2 + noise)
    top = top_genes(np.where(noise > 0, observed / np.sqrt(np.maximum(noise, 1e-30)), 0.0), screen.genes, 20)
    return pd.DataFrame(
        {
            **condition.columns(),
            "gene": np.asarray(screen.genes, dtype=object),
            "observed": observed,
            "predicted": predicted,
            "low": predicted - margin,
            "high": predicted + margin,
            "is_de20": np.isin(np.arange(len(observed)), top),
        }
    )
