"""Fit what a perturbation does to each gene on average: a Gaussian process over conditions, in closed form."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from scipy import sparse

from unlasting.effects._expected import N_PARAMETERS, EffectFit
from unlasting.effects._moments import MeasuredEffects
from unlasting.effects._on_target import OnTargetEffects

_ROUNDS: Final = 3
"""Updates of the relevances. More fit the trained conditions better, but conditions that are left out worse."""

_SIZES: Final = np.array([0.0, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0])
"""Variances of the effects on a gene, of which the most likely is taken; 0: nothing acts on the gene."""

_POPULATION_SHARES: Final = (0.0, 0.25, 0.5, 0.75, 0.9)


def fit_effects(
    features: np.ndarray,
    specific: np.ndarray,
    profiles: np.ndarray,
    measured: MeasuredEffects,
    own: OnTargetEffects | None = None,
) -> EffectFit:
    """Fit the effects of conditions on all genes to the measured ones.

    The effects of two conditions on a gene covary as `size * sum_f relevance_f phi_f(c) phi_f(c')`, and those in two
    populations of controls as far as their profiles are alike. The relevance of a feature is found by a few steps of
    expectation and maximisation over all genes :cite:p:`tipping2001relevance`, the size of the effects on a gene by
    maximum likelihood, and everything else is linear algebra.

    Parameters
    ----------
    features
        Of every trained condition, shape `(n_trained, n_features)`.
    specific
        1 for features that tell targets apart, else 0, shape `(n_features,)`.
    profiles
        Mean expression of every population of controls, shape `(n_populations, n_genes)`.
    measured
        The effects in the training cells.
    own
        Tells effects on a target's own transcript apart. What a condition does to it beside that is known from the other
        conditions only. Nothing is told apart if `None`.

    Returns
    -------
    What prediction needs.
    """
    n_trained, n_populations, n_genes = len(features), len(profiles), profiles.shape[1]
    units = measured.units
    on_target_effects, rest = np.zeros((N_PARAMETERS, n_genes)), measured
    if own is not None:
        on_target_effects, rest = own.separate(measured)
    values = (rest.shifts * units).reshape(len(rest.shifts), -1)
    condition = np.unique(measured.condition, return_inverse=True)[1]
    weight = 1.0 / measured.noise
    total = np.bincount(condition, weights=weight, minlength=n_trained)
    over_populations = sparse.csr_matrix((weight, (condition, np.arange(len(condition)))), (n_trained, len(condition)))
    relevance, precision = _relevances(features, (over_populations @ values) / total[:, None], 1.0 / total)
    centre = profiles.mean(axis=0)
    length = np.linalg.norm(profiles - centre, axis=1, keepdims=True)
    unit_profiles = (profiles - centre) / np.where(length > 0, length, 1.0)
    alike = (unit_profiles @ unit_profiles.T)[np.ix_(measured.population, measured.population)]
    of_conditions = _product(features, relevance, features)[np.ix_(condition, condition)]
    spectra = {
        share: _Spectrum.of(of_conditions * (1.0 - share + share * alike), measured.noise)
        for share in (_POPULATION_SHARES if n_populations > 1 else _POPULATION_SHARES[:1])
    }
    fits = {share: spectrum.sizes(values) for share, spectrum in spectra.items()}
    share = max(fits, key=lambda share: fits[share][0])
    sizes = fits[share][1]
    if own is not None:
        left_out = np.repeat(own.is_own[:, None], N_PARAMETERS, axis=1).reshape(values.shape)
        expected = spectra[share].left_out(values, sizes, left_out).reshape(rest.shifts.shape) / units
        on_target_effects, rest = own.separate(measured, expected)
        values = (rest.shifts * units).reshape(values.shape)
        _, sizes = spectra[share].sizes(values)
    solved = spectra[share].solve(values, sizes).reshape(-1, N_PARAMETERS, n_genes) / units
    coefficients = np.zeros((n_trained, n_populations, N_PARAMETERS, n_genes))
    coefficients[condition, measured.population] = solved
    parts = (relevance, specific, features, unit_profiles, centre, np.array(share), coefficients, precision)
    fit = EffectFit(*(torch.as_tensor(part, dtype=torch.float32) for part in parts))
    return replace(fit, own=torch.as_tensor(on_target_effects, dtype=torch.float32))


@dataclass(frozen=True)
class _Spectrum:
    """Eigenvectors of a covariance in units of the noise: every size of effect has the same."""

    scale: np.ndarray
    values: np.ndarray
    vectors: np.ndarray

    @classmethod
    def of(cls, covariance: np.ndarray, noise: np.ndarray) -> _Spectrum:
        scale = 1.0 / np.sqrt(noise)
        values, vectors = np.linalg.eigh(covariance * scale[:, None] * scale)
        return cls(scale, np.maximum(values, 0.0), vectors)

    def sizes(self, measured: np.ndarray) -> tuple[float, np.ndarray]:
        """Find the most likely size of the effects on each output, and the log-likelihood of all."""
        rotated = (self.vectors.T @ (measured * self.scale[:, None])) ** 2
        inflated = 1.0 + _SIZES[:, None] * self.values  # (n_sizes, n_measured)
        likelihood = -0.5 * (np.log(inflated).sum(axis=1)[:, None] + (1.0 / inflated) @ rotated)
        best = likelihood.argmax(axis=0)
        return float(likelihood.max(axis=0).sum()), _SIZES[best]

    def inverse(self, size: float) -> np.ndarray:
        """Invert `covariance + noise / size`."""
        root = self.scale[:, None] * self.vectors
        return (root / (self.values + 1.0 / size)) @ root.T

    def solve(self, measured: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Get the coefficients of the posterior mean, shape `(n_measured, n_outputs)`."""
        rotated = self.vectors.T @ (measured * self.scale[:, None])
        return self.scale[:, None] * (self.vectors @ (rotated * sizes / (1.0 + sizes * self.values[:, None])))

    def left_out(self, measured: np.ndarray, sizes: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Predict values from the others of their output, shape `(n_measured, n_outputs)`; 0 where none is left out."""
        expected = np.zeros_like(measured)
        outputs = np.flatnonzero(which.any(axis=0) & (sizes > 0))
        for size in np.unique(sizes[outputs]):
            inverse = self.inverse(size)
            for output in outputs[sizes[outputs] == size]:
                rows, values = which[:, output], measured[:, output]
                residual = np.linalg.solve(inverse[np.ix_(rows, rows)], inverse[rows] @ values)
                expected[rows, output] = values[rows] - residual
        return expected


def _relevances(features: np.ndarray, measured: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find out which features matter, and the precision of the measurements at a typical size of effects."""
    squared = features**2
    relevance = np.ones(features.shape[1])
    for _ in range(_ROUNDS):
        spectrum = _Spectrum.of(_product(features, relevance, features), noise)
        _, sizes = spectrum.sizes(measured)
        moment, n_outputs = np.zeros_like(relevance), 0
        for size in np.unique(sizes[sizes > 0]):
            outputs = sizes == size
            inverse = spectrum.inverse(size)  # size times the inverse covariance
            remaining = relevance - relevance**2 * np.einsum("nf,nf->f", features, inverse @ features)
            means = relevance[:, None] * (features.T @ (inverse @ measured[:, outputs]))
            moment += outputs.sum() * remaining + (means**2).sum(axis=1) / size
            n_outputs += int(outputs.sum())
        if not n_outputs:
            break
        relevance = moment / n_outputs
        relevance = relevance / (squared @ relevance).mean()
    spectrum = _Spectrum.of(_product(features, relevance, features), noise)
    _, sizes = spectrum.sizes(measured)
    return relevance, spectrum.inverse(float(np.median(sizes[sizes > 0])) if (sizes > 0).any() else 1.0)


def _product(left: np.ndarray, relevance: np.ndarray, right: np.ndarray) -> np.ndarray:
    return (left * relevance) @ right.T
