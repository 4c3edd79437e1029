"""Regression of effects on condition features and contexts: a Gaussian process in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from scipy import sparse
from scipy.spatial.distance import cdist

from unlasting.effects._contexts import ContextKernel, aligned
from unlasting.effects._moments import N_PARAMETERS, MeasuredEffects
from unlasting.effects._on_target import OnTargetEffects

_ROUNDS: Final = 3
"""Updates to the relevances. More updates fit trained conditions better, and held-out conditions worse."""

_SIZES: Final = np.array([0.0, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0])
"""Candidate variances for the effects on a gene; 0: no perturbation acts on it."""

_MAX_ROWS: Final = 400
"""Measurements that choose the kernel over contexts: decompositions are cubic."""


@dataclass(frozen=True)
class EffectRegression:
    """Posterior mean of effects given those in the training cells.

    Two conditions' effects on a gene covary as `size * sum_f relevance_f phi_f(c) phi_f(c')`, times the kernel over
    contexts. Relevances come from a few expectation-maximisation steps over all genes
    :cite:p:`tipping2001relevance`, sizes from maximum likelihood, and everything else is linear algebra.

    Parameters
    ----------
    contexts
        Kernel over contexts.
    relevance
        Weight for every feature, shape `(n_features,)`.
    specific
        1 for features that distinguish targets, 0 for those common to all perturbations, shape `(n_features,)`.
    features
        The trained conditions' features, shape `(n_trained, n_features)`.
    coefficients
        Effects are kernel times coefficients, shape `(n_trained, n_contexts, 3, n_genes)`.
    precision
        Inverse covariance between measured conditions at a typical effect size, shape `(n_trained, n_trained)`.
    on_target
        Additional effect on each gene where it is the target, shape `(3, n_genes)`.
    """

    contexts: ContextKernel
    relevance: np.ndarray
    specific: np.ndarray
    features: np.ndarray
    coefficients: np.ndarray
    precision: np.ndarray
    on_target: np.ndarray

    @classmethod
    def fit(
        cls,
        features: np.ndarray,
        specific: np.ndarray,
        contexts: ContextKernel,
        measured: MeasuredEffects,
        on_target: OnTargetEffects | None = None,
    ) -> Self:
        """Fit the regression.

        Parameters
        ----------
        features
            The trained conditions' features, shape `(n_trained, n_features)`.
        specific
            1 for features that distinguish targets, else 0, shape `(n_features,)`.
        contexts
            Kernel over contexts, whose weights are learnt here.
        measured
            Effects in the training cells.
        on_target
            Separates on-target effects; any other effect on a target is predicted from other conditions. `None`: no
            separation.
        """
        n_trained, units = len(features), measured.units
        n_contexts, n_genes = len(contexts.profiles), units.shape[1]
        target_effects, rest = np.zeros((N_PARAMETERS, n_genes)), measured
        if on_target is not None:
            target_effects, rest = on_target.separate(measured)
        values = (rest.effects * units).reshape(len(rest.effects), -1)
        condition = np.unique(measured.condition, return_inverse=True)[1]
        weight = 1.0 / measured.noise
        total = np.bincount(condition, weights=weight, minlength=n_trained)
        summing = sparse.csr_matrix((weight, (condition, np.arange(len(condition)))), (n_trained, len(condition)))
        relevance, precision = _relevances(features, (summing @ values) / total[:, None], 1.0 / total)
        covariance = _product(features, relevance, features)[np.ix_(condition, condition)]
        context = measured.context
        if len(np.unique(context)) > 1:
            chosen = _subset(condition)
            square = np.ix_(chosen, chosen)
            likelihood = []
            for candidate in contexts.candidates():
                between = candidate.between()[np.ix_(context[chosen], context[chosen])]
                spectrum = _Spectrum.decompose(covariance[square] * between, measured.noise[chosen])
                likelihood.append(spectrum.sizes(values[chosen])[0])
            contexts = contexts.averaged_over(np.array(likelihood))
        spectrum = _Spectrum.decompose(covariance * contexts.between()[np.ix_(context, context)], measured.noise)
        _, sizes = spectrum.sizes(values)
        if on_target is not None:
            left_out = np.repeat(on_target.is_target[:, None], N_PARAMETERS, axis=1).reshape(values.shape)
            expected = spectrum.left_out(values, sizes, left_out).reshape(rest.effects.shape) / units
            target_effects, rest = on_target.separate(measured, expected)
            values = (rest.effects * units).reshape(values.shape)
            _, sizes = spectrum.sizes(values)
        solved = spectrum.solve(values, sizes).reshape(-1, N_PARAMETERS, n_genes) / units
        coefficients = np.zeros((n_trained, n_contexts, N_PARAMETERS, n_genes))
        np.add.at(coefficients, (condition, context), solved)  # batches of a context add up
        arrays = (relevance, specific, features, coefficients, precision, target_effects)
        return cls(contexts, *map(_single, arrays))

    def effects(self, features: np.ndarray, context: np.ndarray, means: np.ndarray) -> np.ndarray:
        """Predict effects without on-target effects.

        Parameters
        ----------
        features
            The conditions' features, shape `(n, n_features)`.
        context
            Codes of their contexts, -1 for a new one, shape `(n,)`.
        means
            Mean expression in their control cells, read for new contexts, shape `(n, n_genes)`.

        Returns
        -------
        Effects on log-odds, on the mean in s.d. and on the log s.d., shape `(n, 3, n_genes)`.
        """
        between = _single(self.contexts(context, means))
        kernel = self._kernel(features)[:, :, None] * between[:, None]  # (n, n_trained, n_contexts)
        n_parameters, n_genes = self.coefficients.shape[2:]
        coefficients = self.coefficients.reshape(-1, n_parameters * n_genes)
        return _matmul(kernel.reshape(len(kernel), -1), coefficients).reshape(-1, n_parameters, n_genes)

    def support(self, features: np.ndarray) -> np.ndarray:
        """Get the target-specific variance that trained conditions explain, as a share in [0, 1], shape `(n,)`.

        It is 1 for trained conditions and the control. Any other target has at least a typical trained
        condition's variance, so that unknown properties count as unexplained.
        """
        specific = features * self.specific
        kernel = self._kernel(specific)
        explained = ((kernel @ self.precision) * kernel).sum(axis=-1)
        typical = ((self.features * self.specific) ** 2 @ self.relevance.astype(np.float64)).mean()
        prior = np.maximum(specific**2 @ self.relevance.astype(np.float64), max(typical, 1e-12))
        return np.where(self._is_known(features).any(axis=-1), 1.0, np.clip(explained / prior, 0.0, 1.0))

    def transfer(self, features: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Predict a quantity with one value per trained condition, shape `(n,)`.

        A trained condition keeps its value, and other doses have the nearest dose's, since their features are
        parallel. The control has 0, as has a condition without similar ones. Features and effects shrink with the dose,
        whereas the quantity does not. It never exceeds a value that all trained conditions have.
        """
        kernel = self._kernel(features)
        size, trained_size = self._sizes(features)
        same = self._is_parallel(features) | self._is_known(features)[:, :-1]
        nearest = np.where(same, cdist(features, self.features), np.inf).argmin(axis=-1)
        weights = kernel @ self.precision
        transferred, total = weights @ (values * trained_size), weights @ trained_size
        interpolated = transferred / np.maximum(np.maximum(total, size), 1e-6)
        return np.where(same.any(axis=-1) & (size > 0), values[nearest], interpolated)

    def is_trained(self, features: np.ndarray) -> np.ndarray:
        """Test whether conditions were trained at any dose, shape `(n,)`."""
        return np.asarray(self._is_parallel(features).any(axis=-1))

    def _is_parallel(self, features: np.ndarray) -> np.ndarray:
        """Test for trained conditions at any dose, whose features are parallel, shape `(n, n_trained)`."""
        kernel, (size, trained_size) = self._kernel(features), self._sizes(features)
        return (kernel > 0) & (kernel > (1.0 - 1e-5) * size[:, None] * trained_size)

    def _is_known(self, features: np.ndarray) -> np.ndarray:
        """Test for the trained conditions and, in the last column, the control, shape `(n, n_trained + 1)`."""
        known = np.concatenate([self.features, np.zeros_like(self.features[:1])])
        return cdist(features, known) == 0

    def _sizes(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Get the prior s.d. for the given and the trained conditions."""
        relevance = self.relevance.astype(np.float64)
        size, trained_size = (np.sqrt(rows.astype(np.float64) ** 2 @ relevance) for rows in (features, self.features))
        return size, trained_size

    def _kernel(self, features: np.ndarray) -> np.ndarray:
        """Covariance with the trained conditions, shape `(n, n_trained)`."""
        return _matmul((features * self.relevance).astype(np.float32), self.features.T)


def _subset(condition: np.ndarray) -> np.ndarray:
    """Draw whole conditions with few enough rows to compare kernels over contexts."""
    codes, sizes = np.unique(condition, return_counts=True)
    order = np.random.default_rng(0).permutation(len(codes))
    within = sizes[order].cumsum() <= max(_MAX_ROWS, int(sizes[order[0]]))
    return np.flatnonzero(np.isin(condition, codes[order[within]]))


@dataclass(frozen=True)
class _Spectrum:
    """Eigenvectors for a covariance in noise units, which are the same for every effect size."""

    scale: np.ndarray
    values: np.ndarray
    vectors: np.ndarray

    @classmethod
    def decompose(cls, covariance: np.ndarray, noise: np.ndarray) -> Self:
        scale = 1.0 / np.sqrt(noise)
        values, vectors = np.linalg.eigh(covariance * scale[:, None] * scale)
        return cls(scale, np.maximum(values, 0.0), vectors)

    def sizes(self, measured: np.ndarray) -> tuple[float, np.ndarray]:
        """Find the likeliest effect size for each output, and the log-likelihood over all outputs."""
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
        """Compute the posterior mean's coefficients, shape `(n_measured, n_outputs)`."""
        rotated = self.vectors.T @ (measured * self.scale[:, None])
        return self.scale[:, None] * (self.vectors @ (rotated * sizes / (1.0 + sizes * self.values[:, None])))

    def left_out(self, measured: np.ndarray, sizes: np.ndarray, left_out: np.ndarray) -> np.ndarray:
        """Predict left-out values from the others in their output, else 0, shape `(n_measured, n_outputs)`."""
        expected = np.zeros_like(measured)
        outputs = np.flatnonzero(left_out.any(axis=0) & (sizes > 0))
        for size in np.unique(sizes[outputs]):
            inverse = self.inverse(size)
            for output in outputs[sizes[outputs] == size]:
                rows, values = left_out[:, output], measured[:, output]
                residual = np.linalg.solve(inverse[np.ix_(rows, rows)], inverse[rows] @ values)
                expected[rows, output] = values[rows] - residual
        return expected


def _relevances(features: np.ndarray, measured: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Estimate relevances, and the measurements' precision at a typical effect size."""
    squared = features**2
    relevance = np.ones(features.shape[1])
    for _ in range(_ROUNDS):
        spectrum = _Spectrum.decompose(_product(features, relevance, features), noise)
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
    spectrum = _Spectrum.decompose(_product(features, relevance, features), noise)
    _, sizes = spectrum.sizes(measured)
    return relevance, spectrum.inverse(float(np.median(sizes[sizes > 0])) if (sizes > 0).any() else 1.0)


def _single(array: np.ndarray) -> np.ndarray:
    return aligned(np.asarray(array, dtype=np.float32, order="C"))


def _matmul(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Multiply in double precision, so that neighbouring doses keep their order."""
    return left.astype(np.float64) @ right.astype(np.float64)


def _product(left: np.ndarray, relevance: np.ndarray, right: np.ndarray) -> np.ndarray:
    return (left * relevance) @ right.T
