"""Which cells responded to a perturbation, and which escaped it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from unlasting.effects import direction
from unlasting.screen import PREDICTION_KEY, Condition
from unlasting.tl._groups import Groups, store

if TYPE_CHECKING:
    from anndata import AnnData

UNLABELLED = "unlabelled"
CONTROL = "control"
NON_RESPONDER = "non-responder"
RESPONDER = "responder"
LABELS = (CONTROL, NON_RESPONDER, RESPONDER, UNLABELLED)


def responders(
    adata: AnnData,
    *,
    layer: str = PREDICTION_KEY,
    predictions: AnnData | None = None,
    conditions: Iterable[str | tuple[str, ...]] | None = None,
    n_genes: int = 50,
    false_positives: float = 0.05,
    min_cells: int = 20,
    source_key: str = "unlasting_source",
    key_added: str = "responders",
    seed: int = 0,
    perturbation_key: str | None = None,
    control: str | None = None,
    cell_type_key: str | None = None,
    split_key: str | None = None,
    delimiter: str | None = None,
) -> pd.DataFrame:
    """Label observed and generated cells as responders or not.

    For each condition every cell gets one number: its place along the change from control to perturbed cells, each
    of the `n_genes` genes with the largest absolute Welch t weighted by change over variance (a discriminant with
    a diagonal covariance), in units of the control cells' s.d. around their mean. A cell whose score is above that of
    all but a fraction `false_positives` of the controls is a responder. Where a perturbation has no effect, just
    that fraction is; a weak effect labels few cells rather than all.

    The cells are dealt at random into two halves, and each half is scored with the direction of the other.
    Otherwise noise alone would part perturbed cells from controls. A generated cell goes with its source cell.

    The direction comes from the observed cells of the condition (all of them: nothing of a model is judged
    here), or, where the condition was never observed, from the generated cells.

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
    n_genes
        Number of genes that make up the direction.
    false_positives
        Fraction of the control cells that may pass for responders.
    min_cells
        Fewest cells from which a direction is taken; cells of smaller conditions stay unlabelled.
    source_key
        Column with the name of the control cell from which each generated cell came, if there is one.
    key_added
        Prefix of the columns, and where under `uns["unlasting"]` the frame goes.
    seed
        Seed of the halves.
    perturbation_key, control, cell_type_key, split_key, delimiter
        Where the labels are, if other than recorded by `pp` or `setup_anndata`.

    Returns
    -------
    A frame with one row for each condition: `condition`, `cell_type`, `dose`, `direction_from` (`observed` or `generated`),
    `n_observed`, `n_generated`, the fractions `responders_observed` and `responders_generated` in excess of the false
    positives, `(labelled - false_positives) / (1 - false_positives)` and at least 0 (where responders and controls
    overlap, these are lower bounds), and the mean scores `score_observed` and `score_generated` in control s.d.

    Updates the following fields:

    - `adata.obs["unlasting_" + key_added]`: `control`, `responder`, `non-responder` or `unlabelled`.
    - `adata.obs["unlasting_" + key_added + "_score"]`: the scores of the perturbed cells.
    - the same columns with `_generated` at the end for cells of `layer`, or without it in `predictions.obs`.
    - `adata.uns["unlasting"][key_added]`: the frame.

    Raises
    ------
    KeyError
        If the layer or a label column is missing.
    ValueError
        If `false_positives` is not between 0 and 1, a cell type has no training controls, or no condition has
        `min_cells` cells.

    References
    ----------
    Papalexi et al., Characterizing the molecular regulation of inhibitory immune checkpoints with multimodal
    single-cell screens, Nature Genetics 2021 (perturbation scores and escaping cells).
    """
    if not 0 < false_positives < 1:
        raise ValueError(f"`false_positives` is {false_positives}; it is a fraction between 0 and 1, such as 0.05.")
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
    observed = _Labels.empty(len(groups.observed.names))
    observed.label[groups.observed.labels == groups.keys.control] = CONTROL
    generated = _Labels.empty(len(groups.generated.names))
    rng = np.random.default_rng(seed)
    rows = []
    for condition in groups.conditions(conditions):
        found = _one_condition(groups, condition, n_genes, min_cells, false_positives, source_key, rng)
        if found is None:
            continue
        row, of_observed, of_generated = found
        observed.write(groups.observed.rows(condition), *of_observed)
        generated.write(groups.generated.rows(condition), *of_generated)
        rows.append(row)
    if not rows:
        raise ValueError(
            f"No condition has `min_cells={min_cells}` observed or generated cells to take a direction from."
        )
    frame = pd.DataFrame(rows)
    column = f"unlasting_{key_added}"
    observed.store(adata, column)
    if predictions is None:
        generated.store(adata, f"{column}_generated", score=f"{column}_score_generated")
    else:
        generated.store(predictions, column)
    store(adata, **{key_added: frame})
    return frame.copy()


@dataclass(frozen=True)
class _Labels:
    """Labels and scores of all cells of a table, filled condition by condition."""

    label: np.ndarray
    score: np.ndarray

    @classmethod
    def empty(cls, n: int) -> _Labels:
        return cls(np.full(n, UNLABELLED, dtype=object), np.full(n, np.nan))

    def write(self, rows: np.ndarray, scores: np.ndarray, responds: np.ndarray) -> None:
        self.score[rows] = scores
        self.label[rows] = np.where(responds, RESPONDER, NON_RESPONDER)

    def store(self, adata: AnnData, column: str, score: str | None = None) -> None:
        adata.obs[column] = pd.Categorical(self.label, categories=list(LABELS))
        adata.obs[score or f"{column}_score"] = self.score


def _one_condition(
    groups: Groups,
    condition: Condition,
    n_genes: int,
    min_cells: int,
    false_positives: float,
    source_key: str,
    rng: np.random.Generator,
) -> tuple[dict[str, object], tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] | None:
    control_rows, generated_rows = groups.control_rows(condition.cell_type), groups.generated.rows(condition)
    control = groups.observed.values(control_rows)
    observed = groups.observed.values(groups.observed.rows(condition))
    generated = groups.generated.values(generated_rows)
    reference = "observed" if len(observed) >= min_cells else "generated"
    if min(len(control), len(observed if reference == "observed" else generated)) < min_cells:
        return None
    cells = {"control": control, "observed": observed, "generated": generated}
    half = {name: rng.permutation(len(block)) % 2 == 0 for name, block in cells.items()}
    source = pd.Index(control_rows).get_indexer(groups.source_rows(generated_rows, source_key))
    half["generated"] = np.where(source >= 0, half["control"][source], half["generated"])
    scores = _cross_scores(cells, half, reference, n_genes)
    threshold = np.quantile(scores["control"], 1 - false_positives)
    responds = {name: found > threshold for name, found in scores.items()}
    row: dict[str, object] = {
        **condition.columns(),
        "direction_from": reference,
        "n_observed": len(observed),
        "n_generated": len(generated),
    }
    for name in ("observed", "generated"):
        excess = (responds[name].mean() - false_positives) / (1 - false_positives) if len(responds[name]) else np.nan
        row[f"responders_{name}"] = float(np.maximum(excess, 0.0))
        row[f"score_{name}"] = float(scores[name].mean()) if len(scores[name]) else np.nan
    return row, (scores["observed"], responds["observed"]), (scores["generated"], responds["generated"])


def _cross_scores(
    cells: dict[str, np.ndarray], half: dict[str, np.ndarray], reference: str, n_genes: int
) -> dict[str, np.ndarray]:
    """Score each half of the cells of every group along the direction of the other half, in control s.d."""
    scores = {name: np.zeros(len(block)) for name, block in cells.items()}
    for first in (True, False):
        control, perturbed = (cells[name][half[name] == first] for name in ("control", reference))
        places, weights = direction(perturbed, control, n_genes)
        for name, block in cells.items():
            scores[name][half[name] != first] = block[half[name] != first][:, places] @ weights
        held_out = half["control"] != first
        mean, deviation = scores["control"][held_out].mean(), scores["control"][held_out].std(ddof=1)
        for name in cells:
            scores[name][half[name] != first] -= mean
            scores[name][half[name] != first] /= deviation if deviation > 0 else 1.0
    return scores
