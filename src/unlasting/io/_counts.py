"""Generated cells as integer counts."""

from __future__ import annotations

import numpy as np
from anndata import AnnData
from scipy import sparse

from unlasting.screen import (
    PREDICTION_KEY,
    UNS_KEY,
    MissingKeyError,
    counts_per_unit,
    find_screen_counts,
    is_counts,
    require_integers,
    rounded_counts,
    screen_counts,
)


def to_counts(
    predictions: AnnData, *, screen: AnnData | None = None, layer: str | None = None, seed: int = 0
) -> sparse.csr_array:
    """Turn generated cells into integer counts.

    Parameters
    ----------
    predictions
        Generated cells, log-normalised like `screen`, shape `(n_cells, n_genes)`: from `model.generate`, or the screen
        itself with a layer from `model.predict`.
    screen
        The screen with raw counts for the control cells; `predictions` by default.
    layer
        Layer with the cells; `X` by default.
    seed
        Seed for rounding: a value between two integers becomes one of them at random, so that means are kept.

    Returns
    -------
    The counts, shape `(n_cells, n_genes)`. A cell has the depth of its control cell in `obs["unlasting_source"]`, or the
    median depth. Rows without a generated cell are empty. Counts, and those that `model.generate` wrote, are returned
    unchanged.

    Raises
    ------
    KeyError
        If the layer is missing.
    ValueError
        If the screen has no counts.
    """
    require_integers(0, seed=seed)
    if layer is not None and layer not in predictions.layers:
        raise MissingKeyError(
            f"`predictions.layers` has no {layer!r} (it has {[name for name in predictions.layers if name is not None]}). Name another `layer`."
        )
    cells = predictions.X if layer is None else predictions.layers[layer]
    matrix = sparse.csr_array(cells, dtype=np.float64, copy=True)
    if is_counts(matrix):
        return matrix.astype(np.float32)
    own = find_screen_counts(predictions) if layer is None and "generated" in predictions.uns.get(UNS_KEY, {}) else None
    if own is not None:
        return sparse.csr_array(own, dtype=np.float32)
    screen = predictions if screen is None else screen
    per_unit = counts_per_unit(screen_counts(screen), screen.X)
    key = f"{layer or PREDICTION_KEY}_source"
    if key in predictions.obs:
        source = screen.obs_names.get_indexer(predictions.obs[key].astype(str))
    else:
        source = np.full(predictions.n_obs, -1)
    unit = np.where(source >= 0, per_unit[source], np.median(per_unit))
    return rounded_counts(matrix, unit, np.random.default_rng(seed))
