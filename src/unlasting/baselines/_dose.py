"""The same drug at other doses."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from unlasting.baselines._base import Baseline
from unlasting.baselines._protocol import NO_DOSE, NO_SINGLE_DRUG, NoPrediction
from unlasting.screen import Condition


class NearestDose(Baseline):
    """Cells of the same drugs in the same cell type at the trained dose that is nearest on a logarithmic scale."""

    def _rows(self, condition: Condition) -> np.ndarray:
        trained = _other_doses(self.training_.perturbed_in(condition.cell_type), condition)
        return trained[min(trained, key=lambda other: (dose_distance(condition, other), other))]


class DoseInterpolation(Baseline):
    """Cells of the same drug in the same cell type at the two neighbouring trained doses, in proportion.

    The mixture's mean lies on the straight line between the two means, and its cells are real ones. The line is drawn
    over `log1p(dose)` in units of the lowest other trained dose; the control is dose 0. Beyond the highest dose,
    cells at that dose.
    """

    def _drawn(self, condition: Condition, n_cells: int, rng: np.random.Generator) -> np.ndarray:
        trained = _other_doses(self.training_.perturbed_in(condition.cell_type), condition)
        if len(_log_doses(condition.dose)) > 1 or len(self.training_.targets(condition.perturbation)) > 1:
            raise NoPrediction(NO_SINGLE_DRUG)
        rows_at = {float(other.dose): rows for other, rows in trained.items()}
        wanted, lowest = float(condition.dose), min(rows_at)
        rows_at[0.0] = self.training_.controls(condition.cell_type)
        below = max(dose for dose in rows_at if dose < wanted)
        above = min((dose for dose in rows_at if dose > wanted), default=None)
        if above is None:
            return rng.permutation(rows_at[below])[:n_cells]
        start, place, end = np.log1p(np.array([below, wanted, above]) / lowest)
        share = (place - start) / (end - start)
        n = min(n_cells, len(rows_at[below]) / (1.0 - share), len(rows_at[above]) / share)
        n_above = round(share * n)
        numbers = {below: round(n) - n_above, above: n_above}
        return np.concatenate([rng.permutation(rows_at[dose])[:number] for dose, number in numbers.items()])


def _other_doses(trained: Mapping[Condition, np.ndarray], condition: Condition) -> dict[Condition, np.ndarray]:
    """Find the cells of the same perturbation at its other trained doses."""
    if not condition.dose:
        raise NoPrediction(NO_DOSE)
    others = {
        other: rows
        for other, rows in trained.items()
        if other.perturbation == condition.perturbation and other.dose not in ("", condition.dose)
    }
    if not others:
        raise NoPrediction("no other dose is trained in this cell type")
    return others


def dose_distance(one: Condition, other: Condition) -> float:
    """Compare two conditions' doses on a logarithmic scale; infinite if they differ in number."""
    doses = [_log_doses(condition.dose) for condition in (one, other)]
    return float(np.abs(doses[0] - doses[1]).sum()) if len(doses[0]) == len(doses[1]) else np.inf


def _log_doses(dose: str) -> np.ndarray:
    """Read the drugs' doses, without empty parts for gene targets."""
    return np.log([float(part) for part in dose.split("+") if part])
