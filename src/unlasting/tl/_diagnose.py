"""Checks for a trained model, without test cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from scipy import sparse

from unlasting.screen import PREDICTION_KEY, TEST, TRAIN, UNS_KEY, ScreenKeys, expression, logger, sample, to_memory
from unlasting.tl._evaluate import evaluate
from unlasting.tl._screen import screen_of, store

if TYPE_CHECKING:
    from anndata import AnnData

SHAPE: Final = (
    "zero_fraction_error",
    "detected_genes_error",
    "dispersion_error",
    "correlation_error",
    "bimodality_error",
    "perturbation_spread",
)
_LARGEST_RATIO: Final = 1.25
"""Largest error, relative to that between two halves of the true cells."""

_MAX_CONTROLS: Final = 2_000


def diagnose(
    model: Any, *, n_conditions: int = 20, n_cells: int = 300, min_expressed: int = 400, seed: int = 0
) -> pd.DataFrame:
    """Check a model's invariants, and its generated cells for trained conditions.

    - *latent*: expressed values in encoded control cells are standard normal, in each gene and each cell.
    - *round trip*: a control cell under the control label is returned unchanged, with the same genes detected; the solver
      alone changes it little.
    - *shape*: generated cells for trained conditions have the same zeros, detected genes, dispersion, gene-gene correlation and
      bimodality as the training cells, evaluated as in :func:`unlasting.tl.evaluate` against two halves of these.
    - *effect*: predicted mean changes in the 20 genes with the largest change have the true size (slope of observed on
      predicted), and differ between conditions as much as the true ones.

    Cells labelled `test` are not read. If latent or round trip fails, the recipe or its solver is at fault. If
    shape or effect fails, training was too short, or that the screen is richer than the model. For
    unseen conditions, use :func:`unlasting.tl.evaluate`.

    Parameters
    ----------
    model
        A trained :class:`unlasting.UnlastingModel` with its AnnData.
    n_conditions
        Number of trained conditions, those with the most cells.
    n_cells
        Generated cells per condition.
    min_expressed
        Fewest control cells that express a gene for its latent to be checked, at most half of the controls.
    seed
        Random seed.

    Returns
    -------
    A frame with a row for each check: `check`, `meaning`, `value`, `low` and `high` (the accepted range) and `passed`.
    Checks with too few cells are missing.

    Updates the following fields:

    - `model.adata.uns["unlasting"]["diagnosis"]`: the frame.

    Raises
    ------
    ValueError
        If the model has no AnnData, or fewer than 20 training controls.
    RuntimeError
        If the model is not trained.
    """
    adata = screen_of(model)
    keys = ScreenKeys.read(adata)
    labels, split = keys.labels(adata), keys.split(adata)
    is_trained = np.ones(adata.n_obs, dtype=bool) if split is None else split == TRAIN
    is_control = is_trained & (labels == keys.control)
    rng = np.random.default_rng(seed)
    controls = sample(np.flatnonzero(is_control), _MAX_CONTROLS, rng)
    if len(controls) < 20:
        raise ValueError(f"The screen has {len(controls)} training control cells; label at least 20 as `train`.")
    rows = [*_latent(model, to_memory(adata[controls]), min_expressed, seed), *_round_trip(model, adata, controls)]
    if (is_trained & ~is_control).any():
        rows += _generated(model, is_trained, labels, keys, n_conditions, n_cells, seed)
    frame = pd.DataFrame(rows, columns=["check", "meaning", "value", "low", "high"])
    frame["passed"] = frame["value"].between(frame["low"], frame["high"])
    store(adata, diagnosis=frame)
    failed = frame[~frame["passed"]]
    logger.info(
        "tl.diagnose: %d of %d checks passed%s.",
        frame["passed"].sum(),
        len(frame),
        f"; not {', '.join(failed['check'])}" if len(failed) else "",
    )
    return frame.copy()


def _latent(model: Any, controls: AnnData, min_expressed: int, seed: int) -> list[tuple[Any, ...]]:
    """Check moments in encoded control cells, over cells and over genes."""
    latent = model.encode(controls, seed=seed)
    on = _dense(_values(model, controls)) > 0
    masked = np.where(on, latent, np.nan)
    genes = on.sum(axis=0) >= min(min_expressed, len(on) // 2)
    cells = on.sum(axis=1) >= 20
    rows = []
    if genes.any():
        mean, deviation = np.nanmean(masked[:, genes], axis=0), np.nanstd(masked[:, genes], axis=0)
        farthest = deviation[np.abs(deviation - 1).argmax()]
        rows += [
            ("latent mean of genes", "largest absolute mean over cells", float(np.abs(mean).max()), 0.0, 0.15),
            ("latent s.d. of genes", "s.d. over cells, farthest from 1", float(farthest), 0.8, 1.2),
        ]
    if cells.any():
        deviation = float(np.median(np.nanstd(masked[cells], axis=1)))
        rows.append(("latent s.d. of cells", "s.d. over genes, median", deviation, 0.8, 1.2))
    return rows


def _round_trip(model: Any, adata: AnnData, controls: np.ndarray) -> list[tuple[Any, ...]]:
    """Predict control cells under the control label; check the solver alone too, whose small errors rounding removes."""
    before, keys = to_memory(adata[controls]), model.keys
    values, latent, moved = _dense(_values(model, before)), model.encode(before), 0.0
    places = pd.DataFrame({"cell_type": keys.cell_types(before), "batch": keys.batches(before)})
    for (cell_type, batch), rows in places.groupby(["cell_type", "batch"], observed=True).indices.items():
        part = values[rows]
        where = {"cell_type": cell_type if keys.cell_type_key else None, "batch": batch if keys.batch_key else None}
        back = model.decode(latent[rows], keys.control, mask=part > 0, controls=part, **where)
        moved = max(moved, float(np.abs(part - back).max()))
    model.predict(before, perturbation=keys.control, key_added="returned", show_progress=False)
    returned = _dense(before.layers["returned"])
    largest = max(float(values.max()), 1e-12)
    changed = float(np.abs(values - returned).max())
    return [
        ("solver", "largest error of a value, as a share of the largest value", moved / largest, 0.0, 1e-3),
        ("round trip", "largest change of a value, as a share of the largest value", changed / largest, 0.0, 1e-3),
        (
            "round trip of the mask",
            "share of genes that became detected or undetected",
            ((values > 0) != (returned > 0)).mean(),
            0,
            0,
        ),
    ]


def _generated(
    model: Any, is_trained: np.ndarray, labels: np.ndarray, keys: ScreenKeys, n_conditions: int, n_cells: int, seed: int
) -> list[tuple[Any, ...]]:
    """Compare generated cells for trained conditions with the training cells."""
    adata, control = screen_of(model), keys.control
    perturbed = is_trained & (labels != control)
    largest = pd.Series(labels[perturbed]).value_counts().index[:n_conditions]
    chosen = np.flatnonzero(is_trained & np.isin(labels, [control, *largest]))
    cells = to_memory(adata[chosen])
    cells.X = _values(model, cells)
    for name in [name for name in cells.layers if name is not None]:  # anndata 0.13 lists X as None
        del cells.layers[name]
    cells.obs[keys.split_key] = np.where(labels[chosen] == control, TRAIN, TEST)
    wanted = np.flatnonzero(labels[chosen] != control)
    rng = np.random.default_rng(seed)
    kept = [sample(wanted[labels[chosen][wanted] == name], n_cells, rng) for name in largest]
    generated = cells[np.sort(np.concatenate([np.flatnonzero(labels[chosen] == control), *kept]))].copy()
    perturbed_rows = np.flatnonzero(generated.obs[keys.split_key] == TEST)
    model.predict(generated, indices=perturbed_rows, seed=seed, show_progress=False)
    generated = generated[perturbed_rows].copy()
    generated.X = generated.layers[PREDICTION_KEY]
    frame = evaluate(cells, predictions=generated, baselines=(), metrics=SHAPE, gene_sets="all", seed=seed)
    frame = frame[frame["predictor"] == "prediction"]
    rows = []
    for metric, part in frame.groupby("metric", sort=False):
        if metric == "perturbation_spread":
            if len(largest) > 1:
                spread = float(part["value"].mean())
                rows.append(("spread", "differences between conditions, relative to the true ones", spread, 0.75, 1.33))
            continue
        ratio = float(part["value"].mean() / part["floor"].mean())
        meaning = "error in trained conditions, relative to that between two halves of the true cells"
        rows.append((str(metric).removesuffix("_error").replace("_", " "), meaning, ratio, 0.0, _LARGEST_RATIO))
    effects = cells.uns[UNS_KEY]["effects"]
    top = effects[effects["is_de20"]]
    slope = float(top["observed"] @ top["predicted"] / (top["predicted"] @ top["predicted"]))
    rows.append(
        ("size of effects", "slope of observed on predicted mean changes", slope, 1 / _LARGEST_RATIO, _LARGEST_RATIO)
    )
    return rows


def _values(model: Any, adata: AnnData) -> Any:
    """Get the model's expression matrix."""
    return expression(adata, model.registry_["setup_args"]["layer"])


def _dense(matrix: Any) -> np.ndarray:
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)
