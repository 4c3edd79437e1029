"""Whether a model brings out the genes that only a part of the cells switches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.mixture import GaussianMixture

from unlasting.effects import t_scores
from unlasting.metrics import sarle_coefficient
from unlasting.screen import PREDICTION_KEY, Condition, logger, sample
from unlasting.tl._groups import Groups, named_genes, store

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
    perturbation_key: str | None = None,
    control: str | None = None,
    cell_type_key: str | None = None,
    split_key: str | None = None,
    delimiter: str | None = None,
) -> pd.DataFrame:
    """Measure, gene by gene, whether generated cells are as bimodal as the observed ones.

    A perturbation often changes some of the cells and leaves the others. A model that predicts the mean puts every
    cell in between, which no mean-based score notices. Each gene is described in three groups of equal size
    (training controls, observed cells of the condition and generated cells), with the zeros kept apart: the shape
    statistics are those of the expressed values, so that dropout does not pass for a mode. Observed cells are the
    `test` cells of a condition, or all of its cells if it has none.

    Normalised low counts cluster (cells with one molecule, with two, ...), which can look bimodal in every group:
    compare with the control before calling a response bimodal.

    Parameters
    ----------
    adata
        The screen, log-normalised.
    layer
        Layer with the generated cells.
    predictions
        Generated cells as an AnnData of their own, from any model, instead of `layer`.
    conditions
        Perturbations, or tuples of perturbation, cell type and dose. All conditions with generated cells if `None`.
    genes
        Genes to describe. If `None`, the `n_genes` genes with the largest absolute Welch t between the observed
        cells of the condition and the training controls.
    n_genes
        How many genes are taken for each condition.
    min_cells
        Conditions with fewer cells in a group are left out, and the log says so. Shapes are described from as many
        expressed values on.
    max_cells
        Largest number of cells that is drawn from each group.
    key_added
        Where under `uns["unlasting"]` the results go.
    seed
        Seed of the draws.
    perturbation_key, control, cell_type_key, split_key, delimiter
        Where the labels are, if other than recorded by `pp` or `setup_anndata`.

    Returns
    -------
    A frame with one row for each condition and gene: first the genes that are bimodal in observed and generated
    cells, by ascending `error`, then the missed ones, then those that are not bimodal. Columns are `condition`,
    `cell_type`, `dose`, `gene`, `t`, `bimodal_control`, `bimodal_observed`, `bimodal_generated` (BIC prefers two components,
    which lie more than 2 s.d. apart), `recovered` (observed and generated), `error` (mean absolute difference between
    generated and observed in `sarle`, `zero_fraction` and `responders`), `error_no_effect` (the same for the controls
    in place of generated cells), and for each group, as `<statistic>_<group>`:

    - `n_cells`, `zero_fraction`
    - `sarle`: Sarle's bimodality coefficient (1/3 for a normal, 5/9 for a uniform, 1 for a two-point distribution)
    - `dip`, `dip_pvalue`: Hartigan's dip test (needs `diptest`; missing without it)
    - `bic_gain`: BIC of one normal component minus that of two; positive values speak for two
    - `mode_low`, `mode_high`, `weight_high`: the means of the components and the share of the upper one
    - `separation`: Ashman's D, the distance of the means in units of their root mean square s.d.
    - `responders`: share of cells, zeros included, beyond the value that best parts observed perturbed cells from
      controls, in excess of the controls' share

    Updates the following fields:

    - `adata.uns["unlasting"][key_added]`: the frame.
    - `adata.uns["unlasting"][key_added + "_density"]`: frame with `condition`, `cell_type`, `dose`, `gene`, `group`,
      `value`, `density` of the expressed values (area 1; from 5 of them on).

    Raises
    ------
    KeyError
        If the layer, a label column or a gene is missing.
    ValueError
        If no condition has `min_cells` cells in each group.

    References
    ----------
    Hartigan and Hartigan, The dip test of unimodality, Annals of Statistics 1985. Pfister et al., Good things peak
    in pairs, Frontiers in Psychology 2013. Ashman et al., Astronomical Journal 1994.
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
    chosen = None if genes is None else named_genes(genes, groups.genes, "genes")
    dip_test = _dip_test()
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    curves: list[pd.DataFrame] = []
    left_out: list[str] = []
    for condition in groups.conditions(conditions):
        values = _equal_groups(groups, condition, min_cells, max_cells, rng)
        if values is None:
            left_out.append(str(condition))
            continue
        t = t_scores(values["observed"], values["control"])
        places = np.argsort(-np.abs(t), kind="stable")[:n_genes] if chosen is None else chosen
        for place in places:
            gene = {**condition.columns(), "gene": groups.genes[place]}
            columns = {name: block[:, place] for name, block in values.items()}
            rows.append({**gene, "t": t[place], **_describe(columns, min_cells, dip_test)})
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
    """Fit one and two normal components: gain in BIC, the two means, the share of the upper one, Ashman's D."""
    if np.ptp(values) == 0:
        return dict.fromkeys(("bic_gain", "mode_low", "mode_high", "weight_high", "separation"), float("nan"))
    column = values[:, None]
    # no component may shrink onto tied values (cells with one molecule at equal depth)
    floor = (0.05 * values.std()) ** 2
    one = GaussianMixture(1, reg_covar=floor).fit(column)
    # started from the two halves: no random start, and no k-means, whose threads cost more than these few values
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


def responder_fractions(groups: dict[str, np.ndarray]) -> dict[str, float]:
    """Compute the share of cells beyond the value that parts observed cells from controls, above that of controls.

    That value is where the two shares differ most in standard errors: the largest difference alone is often one by chance
    among the many cells in the middle. With responders that all lie beyond it, this is the fraction of responders;
    otherwise a lower bound.
    """
    control, observed = groups["control"], groups["observed"]
    sign = 1.0 if observed.mean() >= control.mean() else -1.0
    cuts = np.unique(np.concatenate([control, observed])) * sign
    above = {
        name: 1 - np.searchsorted(np.sort(sign * groups[name]), np.sort(cuts), side="right") / len(groups[name])
        for name in groups
    }
    n_control, n_observed = len(control), len(observed)
    pooled = (above["control"] * n_control + above["observed"] * n_observed) / (n_control + n_observed)
    error = np.sqrt(pooled * (1 - pooled) * (1 / n_control + 1 / n_observed))
    difference = above["observed"] - above["control"]
    best = int(np.argmax(np.divide(difference, error, out=np.zeros_like(difference), where=error > 0)))
    base = above["control"][best]
    if base == 1:
        return dict.fromkeys(groups, 0.0)
    return {name: float(np.clip((share[best] - base) / (1 - base), 0, 1)) for name, share in above.items()}


def _equal_groups(
    groups: Groups, condition: Condition, min_cells: int, max_cells: int, rng: np.random.Generator
) -> dict[str, np.ndarray] | None:
    """Draw equally many cells of the three groups: BIC, dip and Sarle's coefficient depend on the number."""
    rows = {
        "control": groups.control_rows(condition.cell_type),
        "observed": groups.observed_rows(condition),
        "generated": groups.generated.rows(condition),
    }
    n = min(max_cells, *(len(found) for found in rows.values()))
    if n < min_cells:
        return None
    return {
        name: (groups.generated if name == "generated" else groups.observed).values(sample(found, n, rng))
        for name, found in rows.items()
    }


def _describe(
    columns: dict[str, np.ndarray], min_expressed: int, dip_test: Callable[..., Any] | None
) -> dict[str, Any]:
    responders = responder_fractions(columns)
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
    """Mean absolute difference to the observed cells in numbers between 0 and 1, without shapes that are missing."""
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
            # what a kernel would put below zero is folded back: expression is positive
            curves.append((name, {"value": grid, "density": kernel(grid) + kernel(-grid)}))
    return curves


def _dip_test() -> Callable[..., Any] | None:
    try:
        from diptest import diptest
    except ImportError:
        logger.warning(
            "The columns of Hartigan's dip test stay empty: `pip install diptest` adds it (GPL, hence no dependency)."
        )
        return None
    return diptest
