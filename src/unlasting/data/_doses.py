"""Find out at which dose each drug has half of its effect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.special import logsumexp, softmax

if TYPE_CHECKING:
    from unlasting.data._conditions import TargetVocabulary
    from unlasting.data._statistics import MeasuredEffects

_SPREAD: Final = np.log(10.0)
"""How far the half doses of drugs lie apart before anything is seen: s.d. of their natural logarithms."""
_OFFSETS: Final = np.linspace(-3.0, 3.0, 61) * _SPREAD
"""Where half doses are looked for: three powers of ten on both sides of the usual dose."""
_SIZES: Final = np.array([0.0, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0])
"""Variances of the full effect on a gene, equally likely before anything is seen; 0: the drug does nothing."""


def fit_half_doses(vocabulary: TargetVocabulary, measured: MeasuredEffects) -> np.ndarray:
    """Find the dose at which each trained drug has half of its effect.

    The effect of a drug alone is a full effect, of its own for every pool of controls, times `dose / (dose + half)`. With a
    normal distribution of full effects, the likelihood of `half` is known in closed form; the mean of its logarithm is
    taken. It stays near the median trained dose for a drug that was seen at one dose, or does nothing.

    Parameters
    ----------
    vocabulary
        Knows the trained conditions.
    measured
        The effects in the training cells.

    Returns
    -------
    Half doses in uM of the trained drugs, in the order of `vocabulary.trained_drugs`, and last their median, for a drug
    that was not trained; float32, shape `(n_trained_drugs + 1,)`.
    """
    conditions = vocabulary.trained_conditions
    all_doses = [dose for p in conditions for dose in p.doses if dose]
    usual = float(np.median(np.log(all_doses))) if all_doses else 0.0
    grid = usual + _OFFSETS
    values = (measured.shifts * measured.units).reshape(len(measured.shifts), -1)
    of_rows = [conditions[code] for code in np.unique(measured.condition, return_inverse=True)[1]]
    dose_of = np.array([p.doses[0] or 0.0 for p in of_rows])
    drug_of = [vocabulary.target(p.targets[0]) if len(p.targets) == 1 else None for p in of_rows]
    found = []
    for drug in vocabulary.trained_drugs:
        rows = np.array([own == drug for own in drug_of]) & (dose_of > 0)
        likelihood = np.zeros((len(_SIZES), len(grid)))
        for pool in np.unique(measured.pool[rows]):
            own = rows & (measured.pool == pool)
            # The error of the controls is in all doses, and must not look like an effect that all doses have.
            of_cells = 1.0 / measured.n_cells[own]
            noise = np.diag(of_cells) + (measured.noise[own] - of_cells).mean()
            likelihood += _log_likelihood(grid, dose_of[own], noise, values[own])
        found.append(softmax(logsumexp(likelihood, axis=0) - 0.5 * (_OFFSETS / _SPREAD) ** 2) @ grid)
    return np.exp([*found, np.median(found) if found else usual]).astype(np.float32)


def _log_likelihood(log_half: np.ndarray, dose: np.ndarray, noise: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Compute the log-likelihood of half doses in a pool for every size of effects, `(n_sizes, n_half_doses)`."""
    share = dose / (dose + np.exp(log_half)[:, None])  # (n_half_doses, n_doses)
    weighted = share @ np.linalg.inv(noise)
    precision = (weighted * share).sum(axis=1)
    explained = ((weighted @ values) ** 2).sum(axis=1)
    inflated = 1.0 + _SIZES[:, None] * precision
    return 0.5 * (_SIZES[:, None] * explained / inflated - values.shape[1] * np.log(inflated))
