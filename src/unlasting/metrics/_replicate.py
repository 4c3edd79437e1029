"""The two ends on the scale of `vcc2026`: the mean response, and a replicate from half the cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import sparse

from unlasting.metrics._challenge import lfc_nmae
from unlasting.metrics._matrices import Matrix
from unlasting.metrics._vcc2026 import Panel, vcc2026, vcc2026_summary

N_SPLITS = 5


def mean_response(
    counts: Mapping[str, Matrix], control: Matrix, *, targets: Sequence[Sequence[int]] | None = None, seed: int = 0
) -> dict[str, sparse.csr_array]:
    """Predict all conditions' mean response for each condition.

    Parameters
    ----------
    counts
        Observed counts per condition, shape `(n_cells, n_genes)`.
    control
        Observed control counts, shape `(n_controls, n_genes)`.
    targets
        Columns of each condition's target genes, which do not enter the mean of these genes.
    seed
        Seed for the draws.

    Returns
    -------
    For each condition as many control cells as it has cells, drawn with replacement; every gene is scaled from the
    mean of the controls to the mean over conditions.

    Raises
    ------
    ValueError
        If every condition targets the same gene.

    Notes
    -----
    It is the baseline in cell-eval2, with the same draws, conditions ordered by name.
    """
    means = np.array([_mean(cells) for cells in counts.values()])
    counted = np.ones(means.shape, dtype=bool)
    for row, own in enumerate(targets or ()):
        counted[row, list(own)] = False
    n = counted.sum(axis=0)
    if not n.all():
        raise ValueError(
            "A gene is the target of every condition, so that it has no mean response. Give conditions with other "
            "targets, or `targets=None`."
        )
    control = sparse.csr_array(control)
    base = _mean(control)
    scale = np.divide((means * counted).sum(axis=0) / n, base, out=np.zeros(len(base)), where=base > 0)
    rng = np.random.default_rng(seed)
    drawn = {}
    for name, cells in counts.items():
        sample = control[rng.integers(0, control.shape[0], size=cells.shape[0])].copy()
        sample.data = (sample.data * scale[sample.indices]).astype(np.float32)
        drawn[name] = sample
    return drawn


def replicate_summary(
    counts: Mapping[str, Matrix],
    control: Matrix,
    *,
    targets: Sequence[Sequence[int]] | None = None,
    control_name: str = "control",
    seed: int = 0,
    n_splits: int = N_SPLITS,
) -> pd.Series:
    """Score one half of the observed cells against the other.

    Parameters
    ----------
    counts
        Observed counts per condition, shape `(n_cells, n_genes)`.
    control
        Observed control counts, shape `(n_controls, n_genes)`. Each half has its own.
    targets
        Columns of each condition's target genes.
    control_name
        Name of the control, which only orders the draws.
    seed
        Seed for the splits.
    n_splits
        How often the cells are split.

    Returns
    -------
    Each metric's mean aggregate over splits. The genes in `lfc_nmae` come from all cells together.

    Raises
    ------
    ValueError
        If a condition or the control has fewer than two cells.

    Notes
    -----
    It is the replicate in cell-eval2, with the same splits.
    """
    whole = Panel.of(counts, control)
    own = targets or [()] * len(counts)
    found = []
    for each in np.random.SeedSequence(seed).generate_state(n_splits):
        first, second = _halves({**counts, control_name: control}, np.random.default_rng(int(each)))
        observed, predicted = (
            Panel.of({name: half[name] for name in counts}, half[control_name]) for half in (first, second)
        )
        summary = vcc2026_summary(vcc2026(predicted, observed, targets=targets))
        tables = zip(predicted.tables, observed.tables, whole.tables, own, strict=True)
        errors = pd.Series([lfc_nmae(p, o, reference=w, targets=t) for p, o, w, t in tables])
        found.append({**summary, "lfc_nmae": errors.mean()})
    return pd.DataFrame(found).mean(skipna=False)


def _halves(
    cells: Mapping[str, Matrix], rng: np.random.Generator
) -> tuple[dict[str, sparse.csr_array], dict[str, sparse.csr_array]]:
    """Split each name's cells at random into two equal halves, ordered by name."""
    first, second = {}, {}
    for name in sorted(cells):
        matrix = sparse.csr_array(cells[name])
        rows, half = rng.permutation(matrix.shape[0]), matrix.shape[0] // 2
        if not half:
            raise ValueError(f"{name!r} has one cell, but a replicate needs two. Leave it out.")
        first[name], second[name] = matrix[rows[:half]], matrix[rows[half : 2 * half]]
    return first, second


def _mean(counts: Matrix) -> np.ndarray:
    return np.asarray(sparse.csr_array(counts, dtype=np.float64).mean(axis=0)).ravel()
