"""The diagonal form of effects and errors: exact, and with the leading directions alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import linalg

from unlasting.effects import Errors, Spectrum

N, RANK = 40, 8


@pytest.fixture(scope="module")
def errors():
    rng = np.random.default_rng(0)
    return Errors(rng.uniform(0.1, 0.6, N), rng.normal(size=(N, 3)) * 0.3)


@pytest.fixture(scope="module")
def covariance():
    """Five strong directions, and a part of its own for each measurement."""
    features = np.random.default_rng(1).normal(size=(N, 5)) * [3.0, 2.5, 2.0, 1.5, 1.0]
    return features @ features.T + 0.2 * np.eye(N)


@pytest.fixture(scope="module")
def largest(covariance, errors):
    return Spectrum.largest(lambda right: covariance @ right, np.diag(covariance), errors, RANK)


@pytest.fixture(scope="module")
def implied(largest, errors):
    """The covariance that the leading directions and the mean of all others stand for, as a matrix."""
    noise = errors.matrix()
    through = noise @ largest.root
    return through @ np.diag(largest.values) @ through.T + float(largest.rest[0]) * (noise - through @ through.T)


def test_errors_multiply_and_divide_as_their_matrix(errors):
    matrix, right, rows = errors.matrix(), np.random.default_rng(2).normal(size=(N, 4)), np.array([3, 17, 30])
    np.testing.assert_allclose(matrix, np.diag(errors.own) + errors.shared @ errors.shared.T)
    np.testing.assert_allclose(errors.variance, np.diag(matrix))
    np.testing.assert_allclose(errors.times(right), matrix @ right)
    np.testing.assert_allclose(errors.solve(right), np.linalg.solve(matrix, right))
    np.testing.assert_allclose(errors.inverse(rows), np.linalg.inv(matrix)[np.ix_(rows, rows)])


def test_leading_directions_are_those_of_a_full_decomposition(largest, covariance, errors):
    noise = errors.matrix()
    values = linalg.eigh(covariance, noise, eigvals_only=True)
    np.testing.assert_allclose(largest.values[-5:], values[-5:], rtol=1e-6)
    np.testing.assert_allclose(largest.root.T @ noise @ largest.root, np.eye(RANK), atol=1e-8)
    total = largest.values.sum() + (N - RANK) * largest.rest[0]
    assert total == pytest.approx(values.sum())  # as in the whole covariance
    assert largest.rest[0] < largest.values.min()
    assert largest.share_of_variance == pytest.approx(largest.values.sum() / values.sum())


def test_leading_directions_are_exact_for_the_covariance_that_they_stand_for(largest, implied, errors):
    """Each method beside dense matrices, and beside the exact spectrum of the same covariance."""
    rng = np.random.default_rng(3)
    measured, rows, size = rng.normal(size=(N, 6)), np.array([2, 11, 12, 39]), 0.7
    joint = size * implied + errors.matrix()
    inverse = np.linalg.inv(joint)
    kernel = rng.normal(size=(5, N))
    for spectrum in (largest, Spectrum.exact(implied, errors)):
        inflated = 1.0 + size * spectrum.variances
        weights, rotated, projected = 1.0 / inflated, spectrum.rotate(measured), kernel @ spectrum.root
        close = {"rtol": 1e-7, "atol": 1e-9}
        log_determinant = np.linalg.slogdet(joint)[1] - np.linalg.slogdet(errors.matrix())[1]
        np.testing.assert_allclose(spectrum.log_determinant(inflated), log_determinant, **close)
        np.testing.assert_allclose(
            spectrum.quadratic(weights, rotated), ((inverse @ measured) * measured).sum(axis=0), **close
        )
        np.testing.assert_allclose(spectrum.combine(weights, rotated, rows), (inverse @ measured)[rows], **close)
        np.testing.assert_allclose(spectrum.combine_covariance(weights, rotated), implied @ inverse @ measured, **close)
        np.testing.assert_allclose(spectrum.block(weights, rows), inverse[np.ix_(rows, rows)], **close)
        np.testing.assert_allclose(
            spectrum.covariance_block(weights, rows), (implied @ inverse)[np.ix_(rows, rows)], **close
        )
        np.testing.assert_allclose(spectrum.diagonal(weights[:, None])[:, 0], np.diag(inverse), **close)
        product = kernel @ inverse @ kernel.T
        np.testing.assert_allclose(spectrum.product(weights, kernel, projected), product, **close)
        explained = spectrum.explained(weights[:, None], kernel, projected)[:, 0]
        np.testing.assert_allclose(explained, np.diag(product), **close)


def test_weights_of_each_output_are_its_own(largest, implied, errors):
    measured = np.random.default_rng(4).normal(size=(N, 2))
    weights = 1.0 / (1.0 + largest.variances[:, None] * [0.1, 2.0])
    found = largest.combine(weights, largest.rotate(measured))
    for output, size in enumerate((0.1, 2.0)):
        theirs = np.linalg.solve(size * implied + errors.matrix(), measured[:, output])
        np.testing.assert_allclose(found[:, output], theirs, rtol=1e-7)


def test_left_out_groups_and_sizes_are_those_of_the_exact_form(largest, implied, errors):
    rng = np.random.default_rng(5)
    measured = rng.multivariate_normal(np.zeros(N), 0.3 * implied + errors.matrix(), size=30).T
    exact, group = Spectrum.exact(implied, errors), np.arange(N) // 2
    sizes = exact.size_posterior(measured)
    np.testing.assert_allclose(largest.size_posterior(measured), sizes, atol=1e-8)
    np.testing.assert_allclose(largest.without(group, measured), exact.without(group, measured), atol=1e-8)
    which = rng.random(measured.shape) < 0.1
    found = largest.left_out(measured, sizes, which)
    np.testing.assert_allclose(found, exact.left_out(measured, sizes, which), atol=1e-8)
    assert np.abs(found[which]).max() > 0.1


def test_a_missing_covariance_is_refused(covariance, errors):
    """Rather than spread to every effect without a word."""
    broken = covariance.copy()
    broken[3, 5] = np.nan
    with pytest.raises(ValueError, match="infs or NaNs"):
        Spectrum.exact(broken, errors)
