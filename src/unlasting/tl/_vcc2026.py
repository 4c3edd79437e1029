"""Scores in the Virtual Cell Challenge 2026."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from unlasting.baselines import NoPrediction, Predictor
from unlasting.metrics import (
    VCC2026,
    Panel,
    mean_response,
    replicate_summary,
    vcc2026,
    vcc2026_scores,
    vcc2026_summary,
)
from unlasting.screen import (
    TEST,
    Condition,
    MissingKeyError,
    counts_per_unit,
    is_counts,
    logger,
    rounded_counts,
    screen_counts,
)
from unlasting.tl._screen import Screen, store

if TYPE_CHECKING:
    from anndata import AnnData

PROFILES = ("vcc2026",)


def check_profile(profile: str) -> None:
    """Refuse an unknown profile."""
    if profile not in PROFILES:
        raise MissingKeyError(f"There is no profile {profile!r}. Choose one of {list(PROFILES)}, or `profile=None`.")


def evaluate_vcc2026(
    adata: AnnData,
    screen: Screen,
    predictors: Mapping[str, Predictor],
    evaluated: str | None = None,
    *,
    conditions: Iterable[Condition],
    min_cells: int,
    seed: int,
) -> pd.DataFrame:
    """Score predictions in the profile `vcc2026`, and store the tables; `evaluated` is the name for generated cells."""
    order = np.argsort(np.asarray(screen.genes, dtype=str), kind="stable")
    observed = screen_counts(adata)[:, order]
    per_unit = counts_per_unit(observed, sparse.csr_array(adata.X))
    columns = {name: column for column, name in enumerate(np.asarray(screen.genes, dtype=str)[order])}
    kept = [c for c in conditions if len(screen.part(c, TEST)) >= min_cells]
    cell_types = list(dict.fromkeys(condition.cell_type for condition in kept))
    units = {cell_type: float(np.median(per_unit[screen.control_rows(cell_type)])) for cell_type in cell_types}
    generated = None if evaluated is None else _generated_counts(screen, order, per_unit, units, seed)
    values, summaries, left_out = [], [], []
    for cell_type in cell_types:
        panel = sorted((c for c in kept if c.cell_type == cell_type), key=str)
        controls = screen.control_rows(cell_type)
        cells = {str(c): observed[screen.part(c, TEST)] for c in panel}
        control = observed[controls]
        targets = [_targets(c, columns, screen.keys.delimiter) for c in panel]
        truth = Panel.of(cells, control)
        zero = _mean_response(cells, control, truth, targets)
        one = replicate_summary(cells, control, targets=targets, control_name=screen.keys.control)
        without = vcc2026_scores(one, zero, one).drop("mean").pipe(lambda scores: list(scores.index[scores.isna()]))
        if without:
            logger.warning(
                "vcc2026%s: %s without a score, as half of the cells predict the others no better than the mean response.",
                f", {cell_type}" if cell_type else "",
                ", ".join(without),
            )
        given: dict[str, dict[str, sparse.csr_array]] = {}
        if generated is not None and evaluated is not None:
            given[evaluated] = {str(c): generated[screen.generated.rows(c)] for c in panel}
        for name, predictor in predictors.items():
            try:
                given[name] = {
                    str(c): _predicted(predictor, c, cells[str(c)].shape[0], order, units[cell_type], seed)
                    for c in panel
                }
            except NoPrediction as error:
                left_out.append({"cell_type": cell_type, "predictor": name, "reason": str(error)})
        for name, counts in given.items():
            found = vcc2026(Panel.of(counts, control), truth, targets=targets)
            labels = pd.DataFrame([c.columns() for c in panel], index=found.index)
            table = pd.concat([labels, found], axis=1).melt(id_vars=labels.columns, var_name="metric")
            values.append(table.assign(predictor=name))
            summary = vcc2026_summary(found)
            scores = vcc2026_scores(summary, zero, one)
            parts = {"value": summary, "mean_response": zero, "replicate": one, "score": scores}
            summaries.append(
                pd.DataFrame(parts)
                .reindex(scores.index)
                .rename_axis("metric")
                .reset_index()
                .assign(predictor=name, cell_type=cell_type, n_conditions=len(panel))
            )
    if not values:
        raise ValueError(
            f"No condition can be scored: none has {min_cells} test cells and a prediction. Lower `min_cells`, or predict "
            "the test conditions."
        )
    frame = pd.concat(values, ignore_index=True)
    frame = frame[["condition", "cell_type", "dose", "metric", "predictor", "value"]]
    summary = pd.concat(summaries, ignore_index=True)
    wanted = ["predictor", "cell_type", "metric", "score", "value", "mean_response", "replicate", "n_conditions"]
    store(
        adata,
        vcc2026=frame,
        vcc2026_summary=summary[wanted],
        vcc2026_left_out=pd.DataFrame(left_out, columns=["cell_type", "predictor", "reason"]),
    )
    return frame.copy()


def _mean_response(
    cells: Mapping[str, sparse.csr_array], control: sparse.csr_array, truth: Panel, targets: Sequence[Sequence[int]]
) -> pd.Series:
    """Aggregate the metrics for the mean response; missing for a single condition, where it is the truth itself."""
    if len(cells) < 2:
        return pd.Series(np.nan, index=list(VCC2026))
    given = mean_response(cells, control, targets=targets)
    return vcc2026_summary(vcc2026(Panel.of(given, control), truth, targets=targets))


def _targets(condition: Condition, columns: Mapping[str, int], delimiter: str) -> tuple[int, ...]:
    """Find the target genes' columns; a condition with a dose has none."""
    names = () if condition.dose else condition.perturbation.split(delimiter)
    return tuple(columns[name] for name in names if name in columns)


def _generated_counts(
    screen: Screen, order: np.ndarray, per_unit: np.ndarray, units: Mapping[str, float], seed: int
) -> sparse.csr_array:
    """Read generated cells as counts: unchanged, or scaled as the control cell behind each."""
    generated = screen.generated
    if all(len(rows) == 1 for rows in generated.conditions.values()):
        raise ValueError(
            "The predictions have one row for each condition, its mean; the profile 'vcc2026' tests cells. "
            "Give several cells for each condition, or use `profile=None`."
        )
    rows = np.flatnonzero(generated.present)
    counts = sparse.csr_array(generated.matrix[rows], dtype=np.float64)[:, generated.columns[order]]
    if not is_counts(counts):
        source = screen.source_rows(rows)
        average = np.array([units.get(cell_type, 1.0) for cell_type in generated.cell_types[rows]])
        unit = np.where(source >= 0, per_unit[source], average)
        counts = rounded_counts(counts, unit, np.random.default_rng(seed))
    # an empty cell marks a row without a generated cell
    place = np.full(len(generated.present), len(rows))
    place[rows] = np.arange(len(rows))
    return sparse.csr_array(sparse.vstack([counts, sparse.csr_array((1, counts.shape[1]))], format="csr"))[place]


def _predicted(
    predictor: Predictor, condition: Condition, n_cells: int, order: np.ndarray, unit: float, seed: int
) -> sparse.csr_array:
    """Predict as many cells as are observed, as counts."""
    draw = zlib.crc32(str(condition).encode())
    cells = np.asarray(
        predictor.predict(condition, n_cells, seed=int(np.random.default_rng([seed, draw]).integers(2**32)))
    )
    rng = np.random.default_rng([seed, draw, 1])
    return rounded_counts(cells[:, order], np.full(len(cells), unit), rng)
