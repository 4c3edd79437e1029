"""Mean expression by dose, in observed and generated cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from unlasting.screen import PREDICTION_KEY, TRAIN, Cells, MissingKeyError
from unlasting.tl._screen import Screen, gene_positions, store

if TYPE_CHECKING:
    from anndata import AnnData

    from unlasting.model import UnlastingModel


def dose_response(
    adata: AnnData,
    *,
    model: UnlastingModel | None = None,
    layer: str = PREDICTION_KEY,
    predictions: AnnData | None = None,
    drugs: Iterable[str | tuple[str, str]] | None = None,
    genes: Sequence[str] | None = None,
    n_genes: int = 6,
    key_added: str = "dose_response",
) -> pd.DataFrame:
    """Summarise observed and generated cells by drug and dose.

    Doses come from the recorded `dose_key`. Drug combinations have no single dose and are left out.

    Parameters
    ----------
    adata
        The screen, log-normalised, with a recorded `dose_key`.
    model
        The model behind the generated cells, whose posterior is added.
    layer
        Layer with the generated cells.
    predictions
        Generated cells as an AnnData, instead of `layer`.
    drugs
        Drugs, or pairs of drug and cell type. All with generated cells if `None`.
    genes
        Genes to summarise. If `None`, the `n_genes` genes with the largest absolute Welch t between cells at the drug's
        highest dose (observed, or else generated) and training controls.
    n_genes
        Number of genes per drug.
    key_added
        Key under `uns["unlasting"]`.

    Returns
    -------
    A frame with `drug`, `cell_type`, `gene` (largest change first), `group` (`control`, `observed`, `generated`), `dose`
    (uM, 0 for training controls), `mean`, `low` and `high` (95 % interval for the mean), `n_cells`, and `trained` (whether
    the drug has training cells at the dose). A model adds the group `posterior` at the generated doses, whose interval
    contains the uncertainty of the prediction, and `expected_error` and `p_active` as in `model.effects`, missing in other
    groups.

    Updates the following fields:

    - `adata.uns["unlasting"][key_added]`: the frame.

    Raises
    ------
    KeyError
        If no `dose_key` is recorded, or the layer, a label column or a gene is missing.
    ValueError
        If no drug has cells with a dose, or a dose cannot be read.
    """
    from unlasting.effects import t_scores  # imports torch, which is slow

    screen = Screen.read(adata, layer, predictions)
    if screen.keys.dose_key is None:
        raise MissingKeyError(
            "No column with doses is recorded in `adata`. Name it in an earlier step, such as "
            "`UnlastingModel.setup_anndata(adata, dose_key=...)` or `pp.split(adata, ..., dose_key=...)`."
        )
    chosen = None if genes is None else gene_positions(genes, screen.genes, "genes")
    rows = []
    for drug, cell_type in dict.fromkeys((c.perturbation, c.cell_type) for c in screen.generated_conditions(drugs)):
        control = screen.observed.values(screen.control_rows(cell_type))
        observed, generated = (_by_dose(cells, drug, cell_type) for cells in (screen.observed, screen.generated))
        doses = observed or generated
        if not doses:
            continue
        t = t_scores(doses[max(doses)], control)
        groups = {"control": {0.0: control}, "observed": observed, "generated": generated}
        posterior = {} if model is None else _posterior(model, drug, cell_type, sorted(generated), control.mean(axis=0))
        trained = {0.0, *_trained(screen, drug, cell_type)}
        for position in np.argsort(-np.abs(t), kind="stable")[:n_genes] if chosen is None else chosen:
            gene = {"drug": drug, "cell_type": cell_type, "gene": screen.genes[position]}
            rows += [
                {**gene, "group": name, "dose": dose, **_mean(values[:, position]), "trained": dose in trained}
                for name, curve in groups.items()
                for dose, values in sorted(curve.items())
            ]
            rows += [
                {
                    **gene,
                    "group": "posterior",
                    "dose": dose,
                    "trained": dose in trained,
                    **{name: part[position] for name, part in found.items()},
                }
                for dose, found in posterior.items()
            ]
    if not rows:
        raise ValueError(
            f"No drug has generated cells with a single dose in `obs[{screen.keys.dose_key!r}]`. Generate cells of a drug "
            "at a dose above 0."
        )
    frame = pd.DataFrame(rows)
    store(adata, **{key_added: frame})
    return frame.copy()


def _trained(screen: Screen, drug: str, cell_type: str) -> set[float]:
    """List a drug's single doses with training cells."""
    found = [c for c in screen.observed.conditions if c[:2] == (drug, cell_type) and c.dose and "+" not in c.dose]
    return {float(c.dose) for c in found if len(screen.part(c, TRAIN))}


def _by_dose(cells: Cells, drug: str, cell_type: str) -> dict[float, np.ndarray]:
    """Read a drug's cells at each single dose."""
    found = {c.dose: rows for c, rows in cells.conditions.items() if c[:2] == (drug, cell_type)}
    return {float(dose): cells.values(rows) for dose, rows in found.items() if dose and "+" not in dose}


def _posterior(
    model: UnlastingModel, drug: str, cell_type: str, doses: list[float], control: np.ndarray
) -> dict[float, dict[str, np.ndarray]]:
    """Get each gene's mean and interval, and trust, by dose."""
    found: dict[float, dict[str, np.ndarray]] = {}
    for _, _, changes in model.iterate_changes([drug], cell_type=cell_type or None, dose=doses):
        for row in range(len(changes.mean)):
            mean, margin = control + changes.mean[row], stats.norm.ppf(0.975) * changes.sd[row]
            trust = {"expected_error": changes.expected_error[row], "p_active": changes.p_active[row]}
            found[doses[len(found)]] = {
                "mean": mean,
                "low": mean - margin,
                "high": mean + margin,
                **{name: np.full(len(mean), value) for name, value in trust.items()},
            }
    return found


def _mean(values: np.ndarray) -> dict[str, float]:
    margin = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values) if len(values) > 1 else np.nan
    mean = float(values.mean())
    return {"mean": mean, "low": float(mean - margin), "high": float(mean + margin), "n_cells": len(values)}
