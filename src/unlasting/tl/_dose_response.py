"""Mean expression against the dose, in observed and generated cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from unlasting.effects import t_scores
from unlasting.screen import PREDICTION_KEY, Cells, MissingKeyError
from unlasting.tl._groups import Groups, named_genes, store

if TYPE_CHECKING:
    from anndata import AnnData


def dose_response(
    adata: AnnData,
    *,
    dose_key: str = "dose",
    layer: str = PREDICTION_KEY,
    predictions: AnnData | None = None,
    drugs: Iterable[str | tuple[str, str]] | None = None,
    genes: Sequence[str] | None = None,
    n_genes: int = 6,
    key_added: str = "dose_response",
    perturbation_key: str | None = None,
    control: str | None = None,
    cell_type_key: str | None = None,
    split_key: str | None = None,
    delimiter: str | None = None,
) -> pd.DataFrame:
    """Summarise observed and generated cells of each drug by dose.

    Parameters
    ----------
    adata
        The screen, log-normalised.
    dose_key
        Column of `obs` with the dose in uM, of observed and generated cells. That of controls is not read.
    layer
        Layer with the generated cells.
    predictions
        Generated cells as an AnnData of their own, from any model, instead of `layer`.
    drugs
        Drugs, or pairs of drug and cell type. All with generated cells if `None`.
    genes
        Genes to summarise. If `None`, the `n_genes` genes of each drug with the largest absolute Welch t between
        cells at its highest dose (observed, or else generated) and training controls.
    n_genes
        How many genes are taken for each drug.
    key_added
        Where under `uns["unlasting"]` the results go.
    perturbation_key, control, cell_type_key, split_key, delimiter
        Where the labels are, if other than recorded by `pp` or `setup_anndata`.

    Returns
    -------
    A frame with `drug`, `cell_type`, `gene` (those that change most first), `group` (`control`, `observed`,
    `generated`), `dose` (uM, 0 for the training controls), `mean`, `low` and `high` (95 % interval of the mean) and
    `n_cells`.

    Updates the following fields:

    - `adata.uns["unlasting"][key_added]`: the frame.

    Raises
    ------
    KeyError
        If the layer, a label column, the doses or a gene are missing.
    ValueError
        If a dose is negative or not a number.
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
    rows = []
    for drug, cell_type in dict.fromkeys((c.perturbation, c.cell_type) for c in groups.conditions(drugs)):
        control_values = groups.observed.values(groups.control_rows(cell_type))
        by_dose = {
            name: _by_dose(cells, cells.rows_at_any_dose(drug, cell_type), dose_key)
            for name, cells in (("observed", groups.observed), ("generated", groups.generated))
        }
        doses = by_dose["observed"] or by_dose["generated"]
        if not doses:
            continue
        if chosen is None:
            places = np.argsort(-np.abs(t_scores(doses[max(doses)], control_values)), kind="stable")[:n_genes]
        else:
            places = chosen
        for place in places:
            for name, curve in {"control": {0.0: control_values}, **by_dose}.items():
                for dose, values in sorted(curve.items()):
                    rows.append(
                        {
                            "drug": drug,
                            "cell_type": cell_type,
                            "gene": groups.genes[place],
                            "group": name,
                            "dose": dose,
                            **_mean(values[:, place]),
                        }
                    )
    if not rows:
        raise ValueError(f"No drug has cells at a dose above 0 in `obs[{dose_key!r}]`.")
    frame = pd.DataFrame(rows)
    store(adata, **{key_added: frame})
    return frame.copy()


def _by_dose(cells: Cells, rows: np.ndarray, dose_key: str) -> dict[float, np.ndarray]:
    """Get the cells at each dose; dose 0 is control."""
    if dose_key not in cells.obs:
        raise MissingKeyError(
            f"The table of {cells.origin} has no column {dose_key!r}: name the doses (in uM) as `dose_key`."
        )
    doses = pd.to_numeric(cells.obs[dose_key].iloc[rows].astype(object), errors="coerce").to_numpy(dtype=float)
    wrong = ~(doses >= 0) | np.isinf(doses)
    if wrong.any():
        value = cells.obs[dose_key].iloc[rows[wrong][0]]
        raise ValueError(f"`obs[{dose_key!r}]` holds {value!r}: a dose is a number of uM, not negative.")
    return {float(dose): cells.values(rows[doses == dose]) for dose in np.unique(doses[doses > 0])}


def _mean(values: np.ndarray) -> dict[str, float]:
    margin = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values) if len(values) > 1 else np.nan
    mean = float(values.mean())
    return {"mean": mean, "low": float(mean - margin), "high": float(mean + margin), "n_cells": len(values)}
