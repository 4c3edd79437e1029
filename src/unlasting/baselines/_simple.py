"""No effect, mean shift, pooled cells and additive effects."""

from __future__ import annotations

import numpy as np

from unlasting.baselines._base import Baseline, Shift, ZeroAware
from unlasting.baselines._protocol import NO_COMBINATION, NOT_TRAINED, NoPrediction
from unlasting.baselines._training_cells import Effects, TrainingCells
from unlasting.screen import Condition


class NoEffect(Baseline):
    """Training controls from the cell type: nothing happens."""


class TrainedCells(Baseline):
    """Training cells of the same condition: the ceiling where it was seen, and no rival."""

    is_ceiling = True

    def _rows(self, condition: Condition) -> np.ndarray:
        if condition not in self.training_.perturbed:
            raise NoPrediction(NOT_TRAINED)
        return self.training_.perturbed[condition]


class Pooled(Baseline):
    """All perturbed training cells in the cell type, or in all types if none is trained there."""

    def _rows(self, condition: Condition) -> np.ndarray:
        trained = self.training_.perturbed_in(condition.cell_type) or self.training_.perturbed
        if not trained:
            raise NoPrediction("no perturbation is trained")
        return np.concatenate(list(trained.values()))


class MeanShift(Shift):
    """Control cells plus the mean change over all perturbations trained in the cell type.

    In a cell type without trained perturbations, the mean change over the other types.
    """

    def _shift(self, condition: Condition) -> np.ndarray:
        return np.mean(list(self.training_.effects(condition.cell_type).values()), axis=0)


class ZeroAwareMeanShift(ZeroAware):
    """Control cells under the mean effects on detection and on expressed values over all trained perturbations."""

    def _effects(self, condition: Condition) -> np.ndarray:
        mean = np.mean(list(self._off_target(condition.cell_type).values()), axis=0)
        return self._with_on_target(mean, condition)


class Additive(Shift):
    """For combinations: control cells plus the single perturbations' summed mean changes."""

    def _shift(self, condition: Condition) -> np.ndarray:
        return _summed(self.training_, condition, self.training_.effects(condition.cell_type))


class ZeroAwareAdditive(ZeroAware):
    """For combinations: control cells under the single perturbations' summed effects."""

    def _effects(self, condition: Condition) -> np.ndarray:
        return _summed(self.training_, condition, self.training_.hurdle_effects(condition.cell_type))


def _summed(training: TrainingCells, condition: Condition, effects: Effects) -> np.ndarray:
    """Sum the single perturbations' effects."""
    targets = training.targets(condition.perturbation)
    if len(targets) < 2:
        raise NoPrediction(NO_COMBINATION)
    doses = condition.dose.split("+") if condition.dose else [""] * len(targets)
    if len(doses) != len(targets):
        raise NoPrediction(f"it has {len(targets)} targets and {len(doses)} doses")
    singles = list(zip(targets, doses, strict=True))
    untrained = [name for name, dose in singles if (name, dose) not in effects]
    if untrained:
        raise NoPrediction(f"{', '.join(untrained)} alone is not trained")
    return np.sum([effects[single] for single in singles], axis=0)
