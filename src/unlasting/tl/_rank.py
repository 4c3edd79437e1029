"""In-silico screen: rank perturbations by effect size, or by the change towards a wanted state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from unlasting.metrics import resampled_e_distance
from unlasting.screen import PREDICTION_KEY, TRAIN, logger, sample
from unlasting.tl._screen import Screen, gene_positions, screen_of, store

if TYPE_CHECKING:
    from unlasting.effects import ExpressionChanges
    from unlasting.model import UnlastingModel


_LEVELS = np.array([0.025, 0.975])


def rank(
    model: UnlastingModel | AnnData,
    conditions: Iterable[str | tuple[str, ...]] | None = None,
    *,
    cell_type: str | Sequence[str] | None = None,
    dose: Any = None,
    toward: AnnData | Sequence[str] | pd.Series | None = None,
    layer: str = PREDICTION_KEY,
    predictions: AnnData | None = None,
    n_bootstraps: int = 200,
    min_cells: int = 10,
    max_cells: int = 500,
    key_added: str = "rank",
    seed: int = 0,
) -> pd.DataFrame:
    """Rank perturbations by their predicted effects.

    With a model, no cell is generated: scores, intervals and false discovery rates come from the posterior of its effects
    model, and intervals contain the uncertainty of the prediction. With an AnnData, generated cells of any model
    are compared with training controls of the same cell type, and intervals contain the number of generated cells only.

    Parameters
    ----------
    model
        A trained model, or a screen with generated cells, log-normalised.
    conditions
        Perturbations: any labels with a model, by default all trained targets. With generated cells, also tuples (perturbation,
        cell type, dose), by default all conditions with generated cells.
    cell_type
        Cell types to start from, all by default; for a model.
    dose
        The drugs' dose in uM, as in `model.generate`; for a model.
    toward
        The criterion. `None`: effect size, as the unbiased E-distance from the controls (no square root). Two generated cells from one control cell form no pair, as they are similar by origin. An
        AnnData: cells in the wanted state; the score is the mean change, projected on the path from controls to
        their mean (0 stays, 1 arrives, negative leaves). A list of genes: their mean change minus the mean over all other
        genes. A Series of weights with gene names as index: weighted mean change, divided by the sum of absolute weights.
    layer
        Layer with generated cells.
    predictions
        Generated cells as an AnnData (from `model.generate`, or any model), instead of `layer`.
    n_bootstraps
        Bootstrap samples, for generated cells.
    min_cells
        Fewest generated and control cells. Conditions left out are logged.
    max_cells
        Most cells sampled from the controls and from each condition.
    key_added
        Key under `uns["unlasting"]`.
    seed
        Random seed, for generated cells.

    Returns
    -------
    A frame sorted by descending `score`: `condition`, `cell_type`, `dose`, `score`, `low` and `high` (95 % interval),
    `seen` (whether the condition has training cells), and `criterion` (`effect`, `state`, `gene set` or `signature`). A
    model adds

    - `fdr`: expected share of conditions without an effect, or with a score of another sign, among those at least as certain.
    - `expected_error`, `p_better`: trust, as in `model.effects`.

    Generated cells add `n_cells`.

    Updates the following fields:

    - `adata.uns["unlasting"][key_added]`: the frame, in the model's screen if a model is given.
    - `adata.uns["unlasting"][key_added + "_genes"]`: `genes`, and `t` in the frame's order, shape `(n_conditions,
      n_genes)`: Welch's t against the controls or, with a model, posterior mean over s.d. :func:`enrich` finds the pathways behind it.

    Raises
    ------
    KeyError
        If the layer, a label column or a named gene is missing.
    ValueError
        If `toward` is empty or equals the controls, no condition has `min_cells` cells, or the model has no screen.
    """
    if not isinstance(model, AnnData):
        return _rank_posterior(model, conditions, cell_type, dose, toward, key_added)
    adata = model
    from unlasting.effects import t_scores  # imports torch, which is slow

    screen = Screen.read(adata, layer, predictions)
    criterion = criterion_of(toward)
    rng = np.random.default_rng(seed)
    rows = []
    left_out: list[str] = []
    gene_scores: list[np.ndarray] = []
    for condition in screen.generated_conditions(conditions):
        control_rows = sample(screen.control_rows(condition.cell_type), max_cells, rng)
        cell_rows = sample(screen.generated.rows(condition), max_cells, rng)
        if min(len(control_rows), len(cell_rows)) < min_cells:
            left_out.append(str(condition))
            continue
        controls, cells = screen.observed.values(control_rows), screen.generated.values(cell_rows)
        direction = None if toward is None else _direction(toward, screen.genes, controls.mean(axis=0))
        # cells with an unknown source are all different
        found = screen.source_rows(cell_rows)
        source = np.concatenate([np.where(found >= 0, found, -1 - np.arange(len(found))), control_rows])
        score, *bootstraps = _scores(cells, controls, direction, source, n_bootstraps, rng)
        low, high = np.quantile(bootstraps, [0.025, 0.975]) if n_bootstraps else (np.nan, np.nan)
        rows.append(
            {
                **condition.columns(),
                "score": score,
                "low": low,
                "high": high,
                "n_cells": len(cell_rows),
                "seen": bool(len(screen.part(condition, TRAIN))),
                "criterion": criterion,
            }
        )
        gene_scores.append(t_scores(cells, controls).astype(np.float32))
    if left_out:
        logger.info("Left out, with fewer than %d generated or control cells: %s.", min_cells, ", ".join(left_out))
    if not rows:
        raise ValueError(
            f"No condition has `min_cells={min_cells}` generated and control cells. Generate more cells, or lower it."
        )
    frame = pd.DataFrame(rows).sort_values("score", ascending=False, kind="stable")
    genes = {"genes": np.asarray(screen.genes, dtype=object), "t": np.array(gene_scores)[frame.index]}
    frame = frame.reset_index(drop=True)
    store(adata, **{key_added: frame, f"{key_added}_genes": genes})
    return frame.copy()


def _rank_posterior(
    model: UnlastingModel,
    conditions: Iterable[str | tuple[str, ...]] | None,
    cell_type: str | Sequence[str] | None,
    dose: Any,
    toward: AnnData | Sequence[str] | pd.Series | None,
    key_added: str,
) -> pd.DataFrame:
    """Rank perturbations by the posterior of the effects model."""
    adata, criterion = screen_of(model), criterion_of(toward)
    if conditions is None:
        conditions = [name for names in model.targets.values() for name in names]
    asked = [conditions] if isinstance(conditions, str) else [str(name) for name in conditions]
    parts, t = [], []
    for found, controls, changes in model.iterate_changes(asked, cell_type=cell_type, dose=dose):
        score, (low, high), wrong = changes.distance, changes.distance_quantiles(_LEVELS).T, 1.0 - changes.p_active
        if toward is not None:
            score, (low, high), positive = along(changes, toward, adata.var_names, controls, _LEVELS)
            wrong = 1.0 - positive
        part = pd.DataFrame([condition.columns() for condition in found])
        parts.append(
            part.assign(
                score=score,
                low=low,
                high=high,
                fdr=wrong,
                expected_error=changes.expected_error,
                p_better=changes.p_better,
                seen=changes.question == 0,
                criterion=criterion,
            )
        )
        t.append((changes.mean / np.maximum(changes.sd, 1e-12)).astype(np.float32))
    frame = pd.concat(parts, ignore_index=True)
    order = np.argsort(frame["fdr"], kind="stable")
    frame.loc[order, "fdr"] = np.cumsum(frame["fdr"].to_numpy()[order]) / np.arange(1, len(frame) + 1)
    frame = frame.sort_values("score", ascending=False, kind="stable")
    genes = {"genes": np.asarray(adata.var_names, dtype=object), "t": np.concatenate(t)[frame.index]}
    frame = frame.reset_index(drop=True)
    store(adata, **{key_added: frame, f"{key_added}_genes": genes})
    return frame.copy()


def along(
    changes: ExpressionChanges,
    toward: AnnData | Sequence[str] | pd.Series,
    genes: pd.Index,
    controls: np.ndarray,
    levels: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Project changes on the wanted one.

    Returns the posterior mean, shape `(n,)`, quantiles, shape `(n_levels, n)`, and the probability that the projection is
    positive, shape `(n,)`.
    """
    # only an AnnData makes the direction depend on the controls
    unique, row = np.unique(controls, axis=0, return_inverse=True)
    mean, positive, quantiles = np.zeros(len(controls)), np.zeros(len(controls)), np.zeros((len(levels), len(controls)))
    for place, control in enumerate(unique):
        chosen = row.ravel() == place
        found = changes.along(_direction(toward, genes, control), levels)
        mean[chosen], quantiles[:, chosen], positive[chosen] = found[0][chosen], found[1][chosen].T, found[2][chosen]
    return mean, quantiles, positive


def criterion_of(toward: AnnData | Sequence[str] | pd.Series | None) -> str:
    if toward is None:
        return "effect"
    if isinstance(toward, AnnData):
        return "state"
    if isinstance(toward, pd.Series):
        return "signature"
    if isinstance(toward, str) or not len(toward):
        raise ValueError("Pass `toward` as an AnnData, a Series of weights, or a list with at least one gene.")
    return "gene set"


def _direction(toward: AnnData | Sequence[str] | pd.Series, genes: pd.Index, control_mean: np.ndarray) -> np.ndarray:
    """Express the wanted state as weights for the mean change, shape `(n_genes,)`."""
    direction = np.zeros(len(genes))
    if isinstance(toward, AnnData):
        positions = gene_positions(genes, toward.var_names, "adata.var_names")
        path = np.asarray(toward.X.mean(axis=0)).ravel()[positions] - control_mean
        if np.allclose(path, 0, atol=1e-6):
            raise ValueError("The mean of `toward` equals that of the control cells. Pass cells in another state.")
        return path / (path @ path)
    if isinstance(toward, pd.Series):
        weights = toward.to_numpy(dtype=np.float64)
        if not np.isfinite(weights).all() or not weights.any():
            raise ValueError("`toward` needs finite weights, at least one of them not zero.")
        direction[gene_positions(list(toward.index), genes, "toward")] = weights / np.abs(weights).sum()
        return direction
    members = np.zeros(len(genes), dtype=bool)
    members[gene_positions(list(toward), genes, "toward")] = True
    direction[members] = 1 / members.sum()
    direction[~members] = -1 / max((~members).sum(), 1)
    return direction


def _scores(
    cells: np.ndarray,
    controls: np.ndarray,
    direction: np.ndarray | None,
    source: np.ndarray,
    n_bootstraps: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Score the sample, then its bootstraps, shape `(1 + n_bootstraps,)`."""
    x, y = (
        np.vstack([np.ones(n), rng.multinomial(n, np.full(n, 1 / n), n_bootstraps)])
        for n in (len(cells), len(controls))
    )  # frequency of every cell, (1 + n_bootstraps, n_cells)
    if direction is not None:
        return x @ (cells @ direction) / len(cells) - y @ (controls @ direction) / len(controls)
    first, second = np.hstack([x, np.zeros_like(y)]), np.hstack([np.zeros_like(x), y])
    return resampled_e_distance(np.vstack([cells, controls]), first, second, source=source)
