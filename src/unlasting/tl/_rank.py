"""In-silico screen: rank perturbations by what they do, or by how near they bring the cells to a wanted state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import stats
from sklearn.metrics.pairwise import euclidean_distances

from unlasting.effects import t_scores
from unlasting.screen import PREDICTION_KEY, TRAIN, Condition, logger, sample
from unlasting.tl._groups import Groups, named_genes, store


def rank(
    adata: AnnData,
    *,
    layer: str = PREDICTION_KEY,
    predictions: AnnData | None = None,
    conditions: Iterable[str | tuple[str, ...]] | None = None,
    toward: AnnData | Sequence[str] | pd.Series | None = None,
    gene_sets: Mapping[str, Sequence[str]] | None = None,
    n_top_genes: int = 50,
    seed_key: str = "unlasting_seed",
    source_key: str = "unlasting_source",
    n_bootstraps: int = 200,
    min_cells: int = 10,
    max_cells: int = 500,
    key_added: str = "rank",
    seed: int = 0,
    perturbation_key: str | None = None,
    control: str | None = None,
    cell_type_key: str | None = None,
    split_key: str | None = None,
    delimiter: str | None = None,
) -> pd.DataFrame:
    """Rank perturbations by what the generated cells say they do.

    Generated cells of each condition are compared with the training controls of the same cell type. The score is
    the size of the effect, or with `toward` how far the mean moves towards a wanted state.

    Parameters
    ----------
    adata
        The screen with the control cells, log-normalised.
    layer
        Layer with the generated cells.
    predictions
        Generated cells as an AnnData of their own (from `model.generate`, or any model), instead of `layer`.
    conditions
        Perturbations, or tuples of perturbation, cell type and dose. All conditions with generated cells if `None`.
    toward
        What is scored. `None`: the size of the effect, as the unbiased E-distance to the controls (no square root;
        around 0 without an effect). Otherwise a wanted state: an AnnData of cells in that state (the score is the
        projection of the mean change on the way from the controls to their mean: 0 stays, 1 arrives, negative
        leaves); a list of genes (mean change of these genes minus that of all others); or a Series of weights with
        gene names as index (weighted mean change, divided by the sum of absolute weights).
    gene_sets
        Pathways as lists of genes. The `n_top_genes` genes that change most, by absolute Welch t, are tested for each
        pathway (hypergeometric, all genes of the panel as background, Benjamini-Hochberg over the pathways of a
        condition). For the direction of a pathway, see :func:`enrich`.
    n_top_genes
        Number of genes taken for `gene_sets`.
    seed_key
        Column of generated cells that tells several runs apart.
    source_key
        Column with the name of the control cell from which each generated cell came. Two cells that go back to the
        same control cell are no pair in an E-distance: they are alike for that reason alone.
    n_bootstraps
        Number of bootstrap samples of generated and control cells.
    min_cells
        Conditions with fewer generated or control cells are left out, and the log says so.
    max_cells
        Largest number of cells drawn from the controls and from each condition and run.
    key_added
        Where under `uns["unlasting"]` the results go.
    seed
        Seed of draws and bootstraps.
    perturbation_key, control, cell_type_key, split_key, delimiter
        Where the labels are, if other than recorded by `pp` or `setup_anndata`.

    Returns
    -------
    A frame sorted by descending `score`: `condition`, `cell_type`, `dose`, `score`, `low` and `high` (95 % interval: Student's
    t over runs if there are several, else percentiles of the bootstrap), `n_cells`, `n_runs`, `seen` (whether
    the condition has training cells), and `criterion` (what was scored: `effect`, `state`, `gene set` or `signature`).

    Updates the following fields:

    - `adata.uns["unlasting"][key_added]`: the frame.
    - `adata.uns["unlasting"][key_added + "_genes"]`: `genes`, and `t`: Welch's t of each against the controls, in the order
      of the frame, shape `(n_conditions, n_genes)`.
    - `adata.uns["unlasting"][key_added + "_pathways"]`: with `gene_sets`, a frame with `condition`, `cell_type`,
      `dose`, `pathway`, `n_overlap`, `n_genes`, `p_value`, `p_adjusted` and `genes`, sorted within each condition.

    Raises
    ------
    KeyError
        If the layer, a label column or a named gene is missing.
    ValueError
        If `toward` is empty or does not differ from the controls, no pathway has a gene in the panel, or no
        condition has `min_cells` cells.
    """
    groups = Groups.read(
        adata,
        layer=layer,
        predictions=predictions,
        perturbation_key=perturbation_key,
        control=control,
        cell_type_key=cell_type_key,
        split_key=split_key,
        delimiter=delimiter,
    )
    chosen = groups.conditions(conditions)
    criterion = _criterion(toward)
    pathways = _pathway_members(gene_sets, groups.genes)
    rng = np.random.default_rng(seed)
    rows = []
    left_out: list[str] = []
    of_genes: list[np.ndarray] = []
    enriched: list[pd.DataFrame] = []
    for condition in chosen:
        control_rows = sample(groups.control_rows(condition.cell_type), max_cells, rng)
        run_rows = [sample(rows, max_cells, rng) for rows in _runs(groups, condition, seed_key)]
        if min(len(control_rows), *map(len, run_rows)) < min_cells:
            left_out.append(str(condition))
            continue
        controls = _Sample(groups.observed.values(control_rows), control_rows)
        runs = [_Sample(groups.generated.values(rows), _sources(groups, rows, source_key)) for rows in run_rows]
        direction = None if toward is None else _direction(toward, groups.genes, controls.values.mean(axis=0))
        score, low, high = _score(runs, controls, direction, n_bootstraps, rng)
        rows.append(
            {
                **condition.columns(),
                "score": score,
                "low": low,
                "high": high,
                "n_cells": sum(map(len, run_rows)),
                "n_runs": len(runs),
                "seen": bool((groups.split[groups.observed.rows(condition)] == TRAIN).any()),
                "criterion": criterion,
            }
        )
        t = t_scores(np.concatenate([run.values for run in runs]), controls.values)
        of_genes.append(t.astype(np.float32))
        if pathways:
            enriched.append(_enrichment(condition, t, pathways, groups.genes, n_top_genes))
    if left_out:
        logger.info("Left out, with fewer than %d generated or control cells: %s.", min_cells, ", ".join(left_out))
    if not rows:
        raise ValueError(f"No condition has `min_cells={min_cells}` generated and control cells.")
    frame = pd.DataFrame(rows).sort_values("score", ascending=False, kind="stable")
    of_ranked = {"genes": np.asarray(groups.genes, dtype=object), "t": np.array(of_genes)[frame.index]}
    frame = frame.reset_index(drop=True)
    results: dict[str, Any] = {key_added: frame, f"{key_added}_genes": of_ranked}
    if enriched:
        results[f"{key_added}_pathways"] = pd.concat(enriched, ignore_index=True)
    store(adata, **results)
    return frame.copy()


def _criterion(toward: AnnData | Sequence[str] | pd.Series | None) -> str:
    if toward is None:
        return "effect"
    if isinstance(toward, AnnData):
        return "state"
    if isinstance(toward, pd.Series):
        return "signature"
    if isinstance(toward, str) or not len(toward):
        raise ValueError("`toward` is an AnnData, a Series of weights, or a list with at least one gene.")
    return "gene set"


def _direction(toward: AnnData | Sequence[str] | pd.Series, genes: pd.Index, control_mean: np.ndarray) -> np.ndarray:
    """Write the wanted state as weights of the mean change, shape `(n_genes,)`."""
    direction = np.zeros(len(genes))
    if isinstance(toward, AnnData):
        places = named_genes(genes, toward.var_names, "adata.var_names")
        way = np.asarray(toward.X.mean(axis=0)).ravel()[places] - control_mean
        if np.allclose(way, 0, atol=1e-6):
            raise ValueError("The mean of `toward` is that of the control cells: there is no way to go.")
        return way / (way @ way)
    if isinstance(toward, pd.Series):
        weights = toward.to_numpy(dtype=np.float64)
        if not np.isfinite(weights).all() or not weights.any():
            raise ValueError("`toward` needs finite weights, of which at least one is not zero.")
        direction[named_genes(list(toward.index), genes, "toward")] = weights / np.abs(weights).sum()
        return direction
    members = np.zeros(len(genes), dtype=bool)
    members[named_genes(list(toward), genes, "toward")] = True
    direction[members] = 1 / members.sum()
    direction[~members] = -1 / max((~members).sum(), 1)
    return direction


class _Sample(NamedTuple):
    """Cells with the row of the observed cell that each goes back to (its own, if it was observed)."""

    values: np.ndarray
    sources: np.ndarray


def _sources(groups: Groups, rows: np.ndarray, source_key: str) -> np.ndarray:
    """Get the source of each generated cell; unknown ones are all different."""
    found = groups.source_rows(rows, source_key)
    return np.where(found >= 0, found, -1 - np.arange(len(rows)))


def _runs(groups: Groups, condition: Condition, seed_key: str) -> list[np.ndarray]:
    """Find the rows of each run of the model."""
    rows = groups.generated.rows(condition)
    if seed_key not in groups.generated.obs:
        return [rows]
    runs = np.asarray(groups.generated.obs[seed_key])[rows]
    return [rows[runs == run] for run in pd.unique(runs)]


def _score(
    runs: list[_Sample],
    controls: _Sample,
    direction: np.ndarray | None,
    n_bootstraps: int,
    rng: np.random.Generator,
) -> tuple[float, float, float]:
    """Score every run and give mean and 95 % interval: over runs, or of the bootstrap for a single one."""
    # the first row of weights is the sample itself
    n_rows = 1 if len(runs) > 1 else n_bootstraps + 1
    scores = np.array([_weighted_scores(cells, controls, direction, n_rows, rng) for cells in runs])
    value = float(scores[:, 0].mean())
    if len(runs) > 1:
        margin = stats.t.ppf(0.975, len(runs) - 1) * stats.sem(scores[:, 0])
        return value, float(value - margin), float(value + margin)
    if n_bootstraps == 0:
        return value, float("nan"), float("nan")
    low, high = np.quantile(scores[0, 1:], [0.025, 0.975])
    return value, float(low), float(high)


def _weighted_scores(
    cells: _Sample, controls: _Sample, direction: np.ndarray | None, n_rows: int, rng: np.random.Generator
) -> np.ndarray:
    """Score the sample and its bootstraps, shape `(n_rows,)`, from one pass over the cells."""
    x, y = (
        np.vstack([np.ones(n), rng.multinomial(n, np.full(n, 1 / n), n_rows - 1)])
        for n in (len(cells.values), len(controls.values))
    )  # (n_rows, n_cells), (n_rows, n_controls): how often each cell was drawn
    if direction is not None:
        return x @ (cells.values @ direction) / x.shape[1] - y @ (controls.values @ direction) / y.shape[1]
    between = _mean_distances(cells, controls, x, y)
    return 2 * between - _mean_distances(cells, cells, x, x) - _mean_distances(controls, controls, y, y)


def _mean_distances(a: _Sample, b: _Sample, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Mean distance over the pairs of cells that do not go back to the same cell, for every row of weights."""
    pair = a.sources[:, None] != b.sources[None, :]
    total = np.einsum("rb,rb->r", x @ (euclidean_distances(a.values, b.values) * pair), y)
    return total / np.maximum(np.einsum("rb,rb->r", x @ pair, y), 1)


def _pathway_members(gene_sets: Mapping[str, Sequence[str]] | None, genes: pd.Index) -> dict[str, np.ndarray]:
    """Find the measured genes of each pathway, and say which pathways have none."""
    if gene_sets is None:
        return {}
    members = {name: np.flatnonzero(genes.isin(list(names))) for name, names in gene_sets.items()}
    absent = [name for name, found in members.items() if not len(found)]
    if len(absent) == len(members):
        raise ValueError("No pathway of `gene_sets` has a gene in the panel: are the names of the same kind?")
    if absent:
        logger.info("%d pathways have no gene in the panel, for example %s.", len(absent), absent[0])
    return {name: found for name, found in members.items() if len(found)}


def _enrichment(
    condition: Condition, t: np.ndarray, pathways: dict[str, np.ndarray], genes: pd.Index, n_top_genes: int
) -> pd.DataFrame:
    top = np.argsort(-np.abs(t), kind="stable")[:n_top_genes]
    top = top[t[top] != 0]
    rows = []
    for name, members in pathways.items():
        shared = top[np.isin(top, members)]
        rows.append(
            {
                **condition.columns(),
                "pathway": name,
                "n_overlap": len(shared),
                "n_genes": len(members),
                "p_value": float(stats.hypergeom.sf(len(shared) - 1, len(genes), len(members), len(top))),
                "genes": ", ".join(genes[shared]),
            }
        )
    frame = pd.DataFrame(rows)
    frame.insert(7, "p_adjusted", stats.false_discovery_control(frame["p_value"]))
    return frame.sort_values(["p_value", "pathway"], kind="stable")
