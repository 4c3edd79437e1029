"""In-silico screen: rank perturbations by effect size, or by the change towards a wanted state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from unlasting.metrics import resampled_e_distance
from unlasting.screen import PREDICTION_KEY, TRAIN, logger, sample
from unlasting.tl._screen import Screen, gene_positions, store


def rank(
    adata: AnnData,
    *,
    layer: str = PREDICTION_KEY,
    predictions: AnnData | None = None,
    conditions: Iterable[str | tuple[str, ...]] | None = None,
    toward: AnnData | Sequence[str] | pd.Series | None = None,
    n_bootstraps: int = 200,
    min_cells: int = 10,
    max_cells: int = 500,
    key_added: str = "rank",
    seed: int = 0,
) -> pd.DataFrame:
    """Rank perturbations by the effects in generated cells.

    Generated cells are compared with training controls of the same cell type. The score is the effect
    size or, with `toward`, the mean change towards a wanted state.

    Parameters
    ----------
    adata
        The screen with the control cells, log-normalised.
    layer
        Layer with the generated cells.
    predictions
        Generated cells as an AnnData (from `model.generate`, or any model), instead of `layer`.
    conditions
        Perturbations, or tuples (perturbation, cell type, dose). All conditions with generated cells if `None`.
    toward
        The criterion. `None`: effect size, as the unbiased E-distance from the controls (no square root; around 0
        without an effect). Two generated cells from one control cell form no pair, as they are similar by origin. An
        AnnData: cells in the wanted state; the score is the mean change, projected on the path from controls to
        their mean (0 stays, 1 arrives, negative leaves). A list of genes: their mean change minus the mean over all other
        genes. A Series of weights with gene names as index: weighted mean change, divided by the sum of absolute weights.
    n_bootstraps
        Bootstrap samples.
    min_cells
        Fewest generated and control cells. Conditions left out are logged.
    max_cells
        Most cells sampled from the controls and from each condition.
    key_added
        Key under `uns["unlasting"]`.
    seed
        Random seed.

    Returns
    -------
    A frame sorted by descending `score`: `condition`, `cell_type`, `dose`, `score`, `low` and `high` (95 % percentile
    interval over bootstraps), `n_cells`, `seen` (whether the condition has training cells), and `criterion` (`effect`,
    `state`, `gene set` or `signature`).

    Updates the following fields:

    - `adata.uns["unlasting"][key_added]`: the frame.
    - `adata.uns["unlasting"][key_added + "_genes"]`: `genes`, and `t`: Welch's t against the controls, in the frame's
      order, shape `(n_conditions, n_genes)`. :func:`enrich` finds the pathways behind it.

    Raises
    ------
    KeyError
        If the layer, a label column or a named gene is missing.
    ValueError
        If `toward` is empty or equals the controls, or no condition has `min_cells` cells.
    """
    from unlasting.effects import t_scores  # imports torch, which is slow

    screen = Screen.read(adata, layer, predictions)
    criterion = _criterion(toward)
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


def _criterion(toward: AnnData | Sequence[str] | pd.Series | None) -> str:
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
