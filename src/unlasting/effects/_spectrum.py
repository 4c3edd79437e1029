"""Common diagonal form of two covariances: that between effects, and that between measurement errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Final, Self

import numpy as np
from scipy import sparse
from scipy.linalg import eigh
from scipy.special import softmax

from unlasting.effects._contexts import aligned

SIZES: Final = np.array([0.0, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0])
"""Candidate variances for the effects on a gene; 0: no perturbation acts on it."""
_SIZE_ROUNDS: Final = 20
"""Updates to the distribution over effect sizes."""

MAX_EXACT: Final = 10_000
"""Measurements up to which all directions are decomposed: a knock-out of every expressed gene, in minutes, but cubic."""
RANK: Final = 5_000
"""Directions with the most variance that are decomposed above that, which is linear in the number of measurements."""
_FURTHER: Final = 50
_POWERS: Final = 3
"""Further random directions, and products with the covariance, that find the leading ones :cite:p:`halko2011`."""


@dataclass(frozen=True)
class Errors:
    """Covariance between measurement errors, `diag(own) + shared @ shared.T`.

    Parameters
    ----------
    own
        Error variance that a measurement shares with no other, shape `(n_measured,)`.
    shared
        Errors of control cells, which measurements share, shape `(n_measured, n_populations)`.
    """

    own: np.ndarray
    shared: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> Self:
        return type(self)(self.own[rows], self.shared[rows])

    def averaged(self, weights: sparse.csr_matrix) -> Self:
        """Average measurements, of which each counts in one average at most; weights `(n_averages, n_measured)`."""
        return type(self)(weights.multiply(weights) @ self.own, weights @ self.shared)

    @property
    def variance(self) -> np.ndarray:
        """Variance of every error, shape `(n_measured,)`."""
        return np.asarray(self.own + (self.shared**2).sum(axis=1))

    def matrix(self) -> np.ndarray:
        """Compute all covariances, shape `(n_measured, n_measured)`."""
        return np.asarray(np.diag(self.own) + self.shared @ self.shared.T)

    def times(self, right: np.ndarray) -> np.ndarray:
        """Multiply by the covariance, shape `(n_measured, n)`."""
        return np.asarray(self.own[:, None] * right + self.shared @ (self.shared.T @ right))

    def solve(self, right: np.ndarray) -> np.ndarray:
        """Multiply by its inverse, by the Woodbury identity, shape `(n_measured, n)`."""
        divided = right / self.own[:, None]
        return np.asarray(divided - self._divided @ np.linalg.solve(self._inner, self.shared.T @ divided))

    def inverse(self, rows: np.ndarray) -> np.ndarray:
        """Compute a block of the inverse, shape `(n_rows, n_rows)`."""
        divided = self._divided[rows]
        return np.asarray(np.diag(1.0 / self.own[rows]) - divided @ np.linalg.solve(self._inner, divided.T))

    def whitened(self, right: np.ndarray, *, transposed: bool = False) -> np.ndarray:
        """Multiply by the root that makes errors independent with variance one, shape `(n_measured, n)`."""
        directions, shrunken = self._common
        scale = 1.0 / np.sqrt(self.own)[:, None]
        found = right if transposed else scale * right
        found = found - directions @ (shrunken[:, None] * (directions.T @ found))
        return np.asarray(scale * found if transposed else found)

    @cached_property
    def _common(self) -> tuple[np.ndarray, np.ndarray]:
        """Directions of shared errors beside independent ones, and by how much the root shrinks them."""
        directions, length, _ = np.linalg.svd(self.shared / np.sqrt(self.own)[:, None], full_matrices=False)
        return directions, 1.0 - 1.0 / np.sqrt(1.0 + length**2)

    @property
    def _divided(self) -> np.ndarray:
        return np.asarray(self.shared / self.own[:, None])

    @cached_property
    def _inner(self) -> np.ndarray:
        return np.asarray(np.eye(self.shared.shape[1]) + self.shared.T @ self._divided)


@dataclass(frozen=True)
class Rotated:
    """Measured effects in the diagonal form.

    Parameters
    ----------
    leading
        Their part along every direction of the spectrum, shape `(n_directions, n_outputs)`.
    beyond
        Their part in all other directions, through the inverse of the errors' covariance, shape `(n_measured, n_outputs)`; no rows
        where there is no other direction.
    squares
        Squared length of the part in all other directions, shape `(1, n_outputs)`; no rows without any.
    """

    leading: np.ndarray
    beyond: np.ndarray
    squares: np.ndarray

    def __getitem__(self, outputs: np.ndarray | slice) -> Self:
        return type(self)(*(getattr(self, part.name)[:, outputs] for part in fields(self)))


@dataclass(frozen=True)
class Spectrum:
    """Form in which errors are independent with variance one, and effects independent.

    Above `MAX_EXACT` measurements, only the directions with the most variance are decomposed. All other ones share the mean
    of their variances, so that the total is right. Everything else is exact in this form. A function of the covariance is given by
    its values at :attr:`variances`.

    Parameters
    ----------
    root
        The directions, `root.T @ errors @ root` is the identity, shape `(n_measured, n_directions)`.
    values
        Variance of effects along each direction, shape `(n_directions,)`.
    rest
        Variance of effects along every other direction, shape `(1,)`; empty where there is none.
    own, shared
        Covariance between measurement errors, see :class:`Errors`.
    """

    root: np.ndarray
    values: np.ndarray
    rest: np.ndarray
    own: np.ndarray
    shared: np.ndarray

    @classmethod
    def exact(cls, covariance: np.ndarray, errors: Errors) -> Self:
        """Decompose a covariance of shape `(n_measured, n_measured)`."""
        whitened = errors.whitened(errors.whitened(covariance).T)
        values, vectors = eigh(whitened, driver="evd", overwrite_a=True)
        root = errors.whitened(vectors, transposed=True)
        return cls(root, np.maximum(values, 0.0), np.zeros(0), errors.own, errors.shared)

    @classmethod
    def largest(
        cls, times: Callable[[np.ndarray], np.ndarray], variance: np.ndarray, errors: Errors, rank: int
    ) -> Self:
        """Find the directions in which a covariance is largest.

        Parameters
        ----------
        times
            Multiplies by the covariance.
        variance
            Its diagonal, shape `(n_measured,)`.
        errors
            Covariance between errors.
        rank
            Number of directions, less than that of measurements.
        """

        def whitened(right: np.ndarray) -> np.ndarray:
            return errors.whitened(times(errors.whitened(right, transposed=True)))

        n_measured = len(variance)
        n_found = min(rank + _FURTHER, n_measured)
        found = np.random.default_rng(0).standard_normal((n_measured, n_found))
        for _ in range(_POWERS):
            found = np.linalg.qr(whitened(found))[0]
        values, vectors = eigh(found.T @ whitened(found))
        values, vectors = np.maximum(values[-rank:], 0.0), vectors[:, -rank:]
        total = (variance / errors.own).sum()
        total -= np.trace(np.linalg.solve(errors._inner, errors._divided.T @ times(errors._divided)))
        rest = max(total - values.sum(), 0.0) / (n_measured - rank)
        root = errors.whitened(found @ vectors, transposed=True)
        return cls(root, values, np.array([rest]), errors.own, errors.shared)

    def stored(self) -> Self:
        """Copy to single precision."""
        return type(self)(*(aligned(getattr(self, part.name).astype(np.float32)) for part in fields(self)))

    @cached_property
    def errors(self) -> Errors:
        """Covariance between measurement errors."""
        return Errors(self.own, self.shared)

    @cached_property
    def through(self) -> np.ndarray:
        """Errors' covariance times the directions, shape `(n_measured, n_directions)`."""
        return self.errors.times(self.root)

    @cached_property
    def variances(self) -> np.ndarray:
        """Variance along each direction, and along every other one, shape `(n_directions,)` or one longer."""
        return np.concatenate([self.values, self.rest])

    @property
    def share_of_variance(self) -> float:
        """Share of the effects' variance along the directions that were decomposed."""
        beyond = (len(self.root) - len(self.values)) * self.rest.sum()
        return float(self.values.sum() / max(self.values.sum() + beyond, 1e-30))

    def log_determinant(self, inflated: np.ndarray) -> np.ndarray:
        """Sum the logarithms of a function of the covariance, shape `(..., n_variances)`, over all directions."""
        n_directions = len(self.values)
        logs = np.log(inflated)
        beyond = (len(self.root) - n_directions) * logs[..., n_directions:].sum(axis=-1)
        return np.asarray(logs[..., :n_directions].sum(axis=-1) + beyond)

    def rotate(self, measured: np.ndarray) -> Rotated:
        """Bring measured effects, shape `(n_measured, n_outputs)`, into this form."""
        leading = self.root.T @ measured
        if not len(self.rest):
            none = np.zeros((0, measured.shape[1]), dtype=measured.dtype)
            return Rotated(leading, none, none)
        beyond = self.errors.solve(measured) - self.root @ leading
        return Rotated(leading, beyond, np.maximum((measured * beyond).sum(axis=0, keepdims=True), 0.0))

    def quadratic(self, weights: np.ndarray, rotated: Rotated) -> np.ndarray:
        """Compute the quadratic form of effects in functions of shape `(..., n_variances)`, shape `(..., n_outputs)`."""
        return np.asarray(weights @ np.concatenate([rotated.leading**2, rotated.squares]))

    def combine(self, weights: np.ndarray, rotated: Rotated, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Multiply effects by a function of the covariance, one for each output or one for all, shape `(n_rows, n_outputs)`."""
        weights, n_directions = weights.reshape(len(weights), -1), len(self.values)
        found = self.root[rows] @ (weights[:n_directions] * rotated.leading)
        return np.asarray(found + weights[n_directions:] * rotated.beyond[rows] if len(self.rest) else found)

    def combine_covariance(
        self, weights: np.ndarray, rotated: Rotated, rows: np.ndarray | slice = slice(None)
    ) -> np.ndarray:
        """Multiply by a function of the covariance, then by the covariance, shape `(n_rows, n_outputs)`."""
        weights, n_directions = (self.variances * weights)[:, None], len(self.values)
        found = self.through[rows] @ (weights[:n_directions] * rotated.leading)
        if len(self.rest):
            shared = self.shared.T @ rotated.beyond
            found += weights[-1] * (self.own[rows, None] * rotated.beyond[rows] + self.shared[rows] @ shared)
        return np.asarray(found)

    def explained(self, weights: np.ndarray, kernel: np.ndarray, projected: np.ndarray) -> np.ndarray:
        """Compute the quadratic form of covariances in functions, weights `(n_variances, m)`, shape `(n, m)`.

        `kernel` are covariances with the measurements, shape `(n, n_measured)`, and `projected` those times the directions.
        """
        squares, n_directions = projected**2, len(self.values)
        found = squares @ weights[:n_directions]
        if len(self.rest):
            beyond = (kernel * self.errors.solve(kernel.T).T).sum(axis=1) - squares.sum(axis=1)
            found += np.maximum(beyond, 0.0)[:, None] * weights[n_directions:]
        return np.asarray(found)

    def product(self, weights: np.ndarray, kernel: np.ndarray, projected: np.ndarray) -> np.ndarray:
        """Compute the same for each pair of rows, by one function, shape `(n, n)`."""
        n_directions = len(self.values)
        found = (projected * weights[:n_directions]) @ projected.T
        if len(self.rest):
            found += weights[-1] * (kernel @ self.errors.solve(kernel.T) - projected @ projected.T)
        return np.asarray(found)

    def block(self, weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Compute a block of a function of the covariance, shape `(n_rows, n_rows)`."""
        root, n_directions = self.root[rows], len(self.values)
        found = (root * weights[:n_directions]) @ root.T
        if len(self.rest):
            found += weights[-1] * (self.errors.inverse(rows) - root @ root.T)
        return np.asarray(found)

    def covariance_block(self, weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Compute a block of the covariance times a function of it, shape `(n_rows, n_rows)`."""
        root, through, n_directions = self.root[rows], self.through[rows], len(self.values)
        weights = self.variances * weights
        found = (through * weights[:n_directions]) @ root.T
        if len(self.rest):
            found += weights[-1] * (np.eye(len(root)) - through @ root.T)
        return np.asarray(found)

    def diagonal(self, weights: np.ndarray) -> np.ndarray:
        """Compute the diagonals of functions of the covariance, weights `(n_variances, n)`, shape `(n_measured, n)`."""
        squares, n_directions = self.root**2, len(self.values)
        found = squares @ weights[:n_directions]
        if len(self.rest):
            scaled = np.linalg.solve(self.errors._inner, self.errors._divided.T).T
            inverse = 1.0 / self.own - (scaled * self.errors._divided).sum(axis=1)
            found += (inverse - squares.sum(axis=1))[:, None] * weights[n_directions:]
        return np.asarray(found)

    def size_posterior(self, measured: np.ndarray) -> np.ndarray:
        """Compute every output's posterior over effect sizes, shape `(n_sizes, n_outputs)`."""
        inflated = 1.0 + SIZES[:, None] * self.variances  # (n_sizes, n_variances)
        quadratic = self.quadratic(1.0 / inflated, self.rotate(measured))
        likelihood = -0.5 * (self.log_determinant(inflated)[:, None] + quadratic)
        prior = np.full((len(SIZES), 1), 1.0 / len(SIZES))
        for _ in range(_SIZE_ROUNDS):
            posterior = softmax(likelihood + np.log(prior), axis=0)
            prior = np.maximum(posterior.mean(axis=1, keepdims=True), 1e-12)
        return np.asarray(posterior)

    def without(
        self, group: np.ndarray, measured: np.ndarray, sizes: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predict every row from the rows outside its group: its effects, and the error that it shares with them.

        Each output has its likeliest size. `sizes` is the posterior over them, if it is known already.
        """
        likeliest = SIZES[(self.size_posterior(measured) if sizes is None else sizes).argmax(axis=0)]
        groups, rotated = rows_of_groups(group), self.rotate(measured)
        predicted, shared = np.zeros((2, *measured.shape))
        for size in np.unique(likeliest[likeliest > 0]):
            outputs = np.flatnonzero(likeliest == size)
            shrunken = 1.0 / (self.variances + 1.0 / size)  # the inverse, in this form, times the size
            solved = self.combine(shrunken, rotated[outputs])
            expected = self.combine_covariance(shrunken, rotated[outputs])
            error = np.empty_like(solved)  # measured minus expected from all others
            for rows in groups:
                error[rows] = np.linalg.solve(self.block(shrunken, rows), solved[rows])
                expected[rows] -= self.covariance_block(shrunken, rows) @ error[rows]
            predicted[:, outputs] = expected
            shared[:, outputs] = measured[:, outputs] - error - expected
        return predicted, shared

    def left_out(self, measured: np.ndarray, sizes: np.ndarray, left_out: np.ndarray) -> np.ndarray:
        """Predict left-out values from the others in their output, else 0, shape `(n_measured, n_outputs)`."""
        expected = np.zeros_like(measured)
        likeliest = SIZES[sizes.argmax(axis=0)]
        outputs = np.flatnonzero(left_out.any(axis=0) & (likeliest > 0))
        rotated = self.rotate(measured[:, outputs])
        for place, output in enumerate(outputs):
            rows = np.flatnonzero(left_out[:, output])
            shrunken = 1.0 / (self.variances + 1.0 / likeliest[output])
            solved = self.combine(shrunken, rotated[place : place + 1], rows)[:, 0]
            expected[rows, output] = measured[rows, output] - np.linalg.solve(self.block(shrunken, rows), solved)
        return expected


def rows_of_groups(group: np.ndarray) -> list[np.ndarray]:
    """List the rows of every group."""
    sizes = np.unique(group, return_counts=True)[1]
    return np.split(group.argsort(kind="stable"), sizes.cumsum()[:-1])
