"""Bimodal genes: genes that only some of the cells switch, in observed and generated cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.mixture import GaussianMixture

from unlasting.metrics import sarle_coefficient
from unlasting.screen import PREDICTION_KEY, Condition, logger, sample
from unlasting.tl._responders import fit_response
from unlasting.tl._screen import Screen, gene_positions, store

if TYPE_CHECKING:
    from anndata import AnnData

GROUPS = ("control", "observed", "generated")
CLEAR_SEPARATION = 2.0
DENSITY_POINTS = 80
MIN_FOR_DENSITY = 5
DENSITY_COLUMNS = ["condition", "cell_type", "dose", "gene", "group", "value", "density"]


def bimodality(
    adata: AnnData,
    *,
    layer: str = PREDICTION_KEY,
    predictions: AnnData | None = None,
    conditions: Iterable[str | tuple[str, ...]] | None = None,
    genes: Sequence[str] | None = None,
    n_genes: int = 20,
    min_cells: int = 20,
    max_cells: int = 1000,
    key_added: str = "bimodality",
    seed: int = 0,
) -> pd.DataFrame:
    """Compare generated and observed cells by bimodality, gene by gene.

    A perturbation often changes some cells and not others. A mean predictor puts every cell in between, and no
    mean-based score shows this. Three groups of equal size are described: training controls, observed cells (`test` cells,
    or all cells without any `test` cell) and generated cells. Zeros are kept apart: shape statistics use
    expressed values only, so that dropout is no mode.

    Normalised low counts form clusters (cells with one molecule, with two, ...) that can look bimodal in every group.
    Compare with the control before you call a response bimodal.

    Parameters
    ----------
    adata
        The screen, log-normalised.
    layer
        Layer with the generated cells.
    predictions
        Generated cells as an AnnData, instead of `layer`.
    conditions
        Perturbations, or tuples (perturbation, cell type, dose). All conditions with generated cells if `None`.
    genes
        Genes to describe. If `None`, the `n_genes` genes with the largest absolute Welch t between observed cells and
        training controls.
    n_genes
        Number of genes per condition.
    min_cells
        Fewest cells in each group, and fewest expressed values for shape statistics. Conditions left out are logged.
    max_cells
        Most cells sampled from each group.
    key_added
        Key under `uns["unlasting"]`.
    seed
        Random seed.

    Returns
    -------
    A frame with a row for each condition and gene: first genes that are bimodal in observed and generated cells, by
    ascending `error`, then those bimodal in observed cells only, then the others. Columns are `condition`, `cell_type`,
    `dose`, `gene`, `t`, `bimodal_control`, `bimodal_observed`, `bimodal_generated` (BIC prefers two components, more than
    2 s.d. apart), `recovered` (bimodal in observed and generated), `error` (mean absolute difference between generated
    and observed `sarle`, `zero_fraction` and `responders`), `error_no_effect` (the same for controls), and
    `<statistic>_<group>` for each group:

    - `n_cells`, `zero_fraction`
    - `sarle`: Sarle's bimodality coefficient (1/3 for a normal, 5/9 for a uniform, 1 for a two-point distribution)
      :cite:p:`pfister2013bimodality`
    - `dip`, `dip_pvalue`: Hartigan's dip test; missing without the extra `unlasting[bimodality]`
    - `bic_gain`: BIC with one normal component minus BIC with two; positive values favour two
    - `mode_low`, `mode_high`, `weight_high`: component means, and the upper component's share
    - `separation`: Ashman's D, the distance between the means in root-mean-square s.d.
    - `responders`: the condition's share of responders, as in :func:`responders`; equal for all genes,
      missing without a clear separation

    Updates the following fields:

    - `adata.uns["unlasting"][key_added]`: the frame.
    - `adata.uns["unlasting"][key_added + "_density"]`: frame with `condition`, `cell_type`, `dose`, `gene`, `group`,
      `value`, `density` over expressed values (area 1, from 5 values on).

    Raises
    ------
    KeyError
        If the layer, a label column or a gene is missing.
    ValueError
        If no condition has `min_cells` cells in each group.
    """
    from unlasting.effects import t_scores  # imports torch, which is slow

    screen = Screen.read(adata, layer, predictions)
    chosen = None if genes is None else gene_positions(genes, screen.genes, "genes")
    dip_test = _dip_test()
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    curves: list[pd.DataFrame] = []
    left_out: list[str] = []
    for condition in screen.generated_conditions(conditions):
        values = _equal_groups(screen, condition, min_cells, max_cells, rng)
        if values is None:
            left_out.append(str(condition))
            continue
        response = fit_response(
            values["control"], {name: values[name] for name in ("observed", "generated", "control")}
        )
        share = dict.fromkeys(GROUPS, np.nan) if response is None else response.share
        t = t_scores(values["observed"], values["control"])
        for position in np.argsort(-np.abs(t), kind="stable")[:n_genes] if chosen is None else chosen:
            gene = {**condition.columns(), "gene": screen.genes[position]}
            columns = {name: block[:, position] for name, block in values.items()}
            rows.append({**gene, "t": t[position], **_describe(columns, share, min_cells, dip_test)})
            curves += [pd.DataFrame({**gene, "group": name, **curve}) for name, curve in _densities(columns)]
    if left_out:
        logger.info("Left out, with fewer than %d cells in a group: %s.", min_cells, ", ".join(left_out))
    if not rows:
        raise ValueError(
            f"No condition has `min_cells={min_cells}` cells among training controls, observed cells and generated "
            "cells. Generate more cells, or lower `min_cells`."
        )
    frame = _sorted(pd.DataFrame(rows))
    density = pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(columns=DENSITY_COLUMNS)
    store(adata, **{key_added: frame, f"{key_added}_density": density})
    return frame.copy()


def two_modes(values: np.ndarray) -> dict[str, float]:
    """Fit one and two normal components: gain in BIC, both means, the upper share, Ashman's D."""
    if np.ptp(values) == 0:
        return dict.fromkeys(("bic_gain", "mode_low", "mode_high", "weight_high", "separation"), float("nan"))
    column = values[:, None]
    # keeps components from shrinking onto tied values (cells with one molecule and equal depth)
    floor = (0.05 * values.std()) ** 2
    one = GaussianMixture(1, reg_covar=floor).fit(column)
    # starts from the two halves: no random start, and no k-means with its threads
    middle = np.median(values)
    halves = np.array([values[values <= middle].mean(), values[values >= middle].mean()])
    two = GaussianMixture(
        2,
        reg_covar=floor,
        max_iter=500,
        weights_init=[0.5, 0.5],
        means_init=halves[:, None],
        precisions_init=np.full((2, 1, 1), 1 / values.var()),
    ).fit(column)
    low, high = np.argsort(two.means_[:, 0])
    means, variances = two.means_[:, 0], two.covariances_[:, 0, 0]
    return {
        "bic_gain": float(one.bic(column) - two.bic(column)),
        "mode_low": float(means[low]),
        "mode_high": float(means[high]),
        "weight_high": float(two.weights_[high]),
        "separation": float((means[high] - means[low]) / np.sqrt(variances.mean())),
    }


def _equal_groups(
    screen: Screen, condition: Condition, min_cells: int, max_cells: int, rng: np.random.Generator
) -> dict[str, np.ndarray] | None:
    """Sample equally many cells from the three groups: BIC, dip and Sarle's coefficient depend on the number."""
    rows = {
        "control": screen.control_rows(condition.cell_type),
        "observed": screen.compared_rows(condition),
        "generated": screen.generated.rows(condition),
    }
    n = min(max_cells, *(len(found) for found in rows.values()))
    if n < min_cells:
        return None
    return {
        name: (screen.generated if name == "generated" else screen.observed).values(sample(found, n, rng))
        for name, found in rows.items()
    }


def _describe(
    columns: dict[str, np.ndarray],
    responders: dict[str, float],
    min_expressed: int,
    dip_test: Callable[..., Any] | None,
) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, values in columns.items():
        expressed = values[values > 0]
        enough = len(expressed) >= min_expressed
        dip = dip_test(expressed) if enough and dip_test is not None else (float("nan"),) * 2
        found = {
            "n_cells": len(values),
            "zero_fraction": 1 - len(expressed) / len(values),
            "sarle": sarle_coefficient(expressed) if enough else float("nan"),
            "dip": float(dip[0]),
            "dip_pvalue": float(dip[1]),
            **two_modes(expressed if enough else np.zeros(1)),
            "responders": responders[name],
        }
        row |= {f"{statistic}_{name}": value for statistic, value in found.items()}
    bimodal = {
        name: bool(row[f"bic_gain_{name}"] > 0 and row[f"separation_{name}"] > CLEAR_SEPARATION) for name in GROUPS
    }
    return {
        **{f"bimodal_{name}": found for name, found in bimodal.items()},
        "recovered": bimodal["observed"] and bimodal["generated"],
        "error": _error(row, "generated"),
        "error_no_effect": _error(row, "control"),
        **row,
    }


def _error(row: dict[str, Any], name: str) -> float:
    """Average the absolute differences to the observed cells over the statistics between 0 and 1 that exist."""
    differences = [abs(row[f"{s}_{name}"] - row[f"{s}_observed"]) for s in ("sarle", "zero_fraction", "responders")]
    return float(np.nanmean(differences))


def _sorted(frame: pd.DataFrame) -> pd.DataFrame:
    order = frame.assign(kind=2 - frame["bimodal_observed"].astype(int) - frame["recovered"].astype(int))
    order = order.sort_values(["kind", "error", "condition", "cell_type", "dose", "gene"], kind="stable")
    return order.drop(columns="kind").reset_index(drop=True)


def _densities(columns: dict[str, np.ndarray]) -> list[tuple[str, dict[str, np.ndarray]]]:
    top = max(values.max() for values in columns.values())
    grid = np.linspace(0, 1.15 * top, DENSITY_POINTS)
    curves = []
    for name, values in columns.items():
        expressed = values[values > 0]
        if len(expressed) >= MIN_FOR_DENSITY and np.ptp(expressed) > 0:
            kernel = stats.gaussian_kde(expressed)
            # density below zero is folded back, since expression is positive
            curves.append((name, {"value": grid, "density": kernel(grid) + kernel(-grid)}))
    return curves


def _dip_test() -> Callable[..., Any] | None:
    try:
        from diptest import diptest
    except ImportError:
        logger.info(
            "Without Hartigan's dip test. Install it with `pip install 'unlasting[bimodality]'` (its licence is GPL)."
        )
        return None
    return diptest
