"""For Gaussian data the exact denoiser is known, and so is everything that the bridge has to return."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from unlasting.diffusion import (
    AngleCoordinates,
    Coordinates,
    CosineSchedule,
    LinearBetaSchedule,
    NoiseCoordinates,
    NoiseSchedule,
    integrate,
)
from unlasting.module import PRESETS

Prediction = Callable[[Tensor, Tensor], Tensor]


def alpha_sigma(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """The definition, written once more."""
    ratio = torch.exp(0.5 * log_snr.double())
    return ratio / torch.sqrt(1 + ratio**2), 1 / torch.sqrt(1 + ratio**2)


def exact_prediction(coordinates: Coordinates, schedule: NoiseSchedule, mean: Tensor, covariance: Tensor) -> Prediction:
    """The conditional expectation of what the network is trained on, for data from N(mean, covariance)."""
    identity = torch.eye(len(mean), dtype=torch.float64)

    def prediction(state: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = alpha_sigma(schedule.log_snr(t))
        if isinstance(coordinates, AngleCoordinates):
            base, scale = coordinates.base, coordinates.scale
            x_t = alpha * base + state * torch.sqrt(alpha**2 * scale**2 + sigma**2)
        else:
            x_t = state * sigma
        gain = alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * identity)
        x0 = mean + (x_t - alpha * mean) @ gain.T
        if not isinstance(coordinates, AngleCoordinates):
            return x0
        angle = torch.atan(alpha * scale / sigma)
        eps = (x_t - alpha * x0) / sigma
        return torch.cos(angle) * (x0 - base) / scale - torch.sin(angle) * eps

    return prediction


def follow(
    coordinates: Coordinates,
    schedule: NoiseSchedule,
    prediction: Prediction,
    start: Tensor,
    *,
    n_steps: int,
    method: str,
    encode: bool,
) -> Tensor:
    times = schedule.times(n_steps).double()
    first, last = schedule.log_snr(times[0]).double(), schedule.log_snr(times[-1]).double()

    def clock(t: Tensor) -> Tensor:
        return coordinates.clock(schedule.log_snr(t).double())

    if encode:
        state = integrate(prediction, coordinates.place(start, first), times, clock, method)
        return coordinates.network_input(state, last)
    state = integrate(prediction, coordinates.from_network_input(start, last), times.flip(0), clock, method)
    return coordinates.read(state, first)


def spread(values: Tensor) -> float:
    """Half the distance between the images of mean - s.d. and mean + s.d.: the maps here are affine."""
    return float(values[1, 0] - values[0, 0]) / 2


@pytest.mark.parametrize(("sd", "scale"), [(0.05, 0.1), (0.10, 0.1), (0.15, 0.1), (0.30, 0.2), (0.30, 0.3)])
@pytest.mark.parametrize(("n_steps", "way_back"), [(10, 0.01), (PRESETS["default"].n_steps, 0.05)])
def test_the_default_solver_gives_a_standard_normal_latent(sd, scale, n_steps, way_back):
    """Although the scale that the coordinates know is wrong by a factor of up to two, and their base is not the mean.

    Half of the evaluations, the default, give as good a latent. The way back loses up to 5 % of a s.d., which no score shows.
    """
    mean, evaluations = torch.tensor([0.5], dtype=torch.float64), []
    coordinates = AngleCoordinates(torch.tensor([0.45]).double(), torch.tensor([scale]).double())
    schedule = CosineSchedule().double()
    exact = exact_prediction(coordinates, schedule, mean, torch.tensor([[sd**2]]).double())

    def counted(state, t):
        evaluations.append(t)
        return exact(state, t)

    start = torch.tensor([[0.5 - sd], [0.5 + sd]]).double()
    way = {"n_steps": n_steps, "method": PRESETS["default"].solver}
    latent = follow(coordinates, schedule, counted, start, encode=True, **way)
    assert len(evaluations) == 2 * n_steps
    assert spread(latent) == pytest.approx(1.0, abs=0.01)
    assert float(latent.mean()) == pytest.approx(0.0, abs=0.02)
    back = follow(coordinates, schedule, exact, latent, encode=False, **way)
    torch.testing.assert_close(back, start, atol=way_back * sd, rtol=0)


@pytest.mark.parametrize(
    ("sd", "encoded", "round_trip"), [(0.05, 0.69, 0.51), (0.10, 0.80, 0.65), (0.15, 0.85, 0.73), (0.30, 0.92, 0.85)]
)
def test_the_published_steps_lose_amplitude(sd, encoded, round_trip):
    mean = torch.tensor([0.5], dtype=torch.float64)
    coordinates, schedule = NoiseCoordinates(), LinearBetaSchedule()
    exact = exact_prediction(coordinates, schedule, mean, torch.tensor([[sd**2]]).double())
    start = torch.tensor([[0.5 - sd], [0.5 + sd]]).double()
    latent = follow(coordinates, schedule, exact, start, n_steps=50, method="euler", encode=True)
    assert spread(latent) == pytest.approx(encoded, abs=0.011)
    back = follow(coordinates, schedule, exact, latent, n_steps=50, method="euler", encode=False)
    assert spread(back) / sd == pytest.approx(round_trip, abs=0.011)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("adams", 3)])
@pytest.mark.parametrize("sd", [0.05, 0.30])
def test_the_error_falls_at_the_order_of_the_solver(method, order, sd):
    mean = torch.tensor([0.5], dtype=torch.float64)
    coordinates = AngleCoordinates(torch.tensor([0.4]).double(), torch.tensor([0.1]).double())
    schedule = CosineSchedule().double()
    exact = exact_prediction(coordinates, schedule, mean, torch.tensor([[sd**2]]).double())
    start = torch.tensor([[0.5 - sd], [0.5 + 2 * sd]]).double()

    # The exact flow keeps (y - mean of y) / (s.d. of y) at every time.
    standard = []
    for t in schedule.times(1).double():
        angle = torch.atan(0.1 * torch.exp(0.5 * schedule.log_snr(t)))
        standard.append((angle.sin(), torch.sqrt(angle.sin() ** 2 * (sd / 0.1) ** 2 + angle.cos() ** 2)))
    (sin_first, sd_first), (sin_last, sd_last) = standard
    truth = sin_last + sd_last / sd_first * ((start - 0.4) / 0.1 - sin_first)

    steps = np.array([16, 32, 64, 128])
    errors = [
        float((follow(coordinates, schedule, exact, start, n_steps=n, method=method, encode=True) - truth).abs().max())
        for n in steps
    ]
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert -order - 0.5 < slope < -order + 0.3


def random_covariance(rng: np.random.Generator, n: int) -> np.ndarray:
    orthogonal = np.linalg.qr(rng.normal(size=(n, n)))[0]
    return orthogonal @ np.diag(rng.uniform(0.05, 0.25, size=n) ** 2) @ orthogonal.T


@pytest.mark.parametrize("seed", range(3))
def test_the_bridge_between_two_gaussians_is_the_known_linear_map(seed):
    """x goes to S2^(1/2) S1^(-1/2) (x - m1) + m2, covariances full and not commuting, and the way back returns x."""
    rng, n = np.random.default_rng(seed), 4
    (m1, m2), s1, s2 = rng.uniform(0.2, 0.7, size=(2, n)), random_covariance(rng, n), random_covariance(rng, n)
    x = rng.multivariate_normal(m1, s1, size=20)
    expected = (x - m1) @ (np.real(sqrtm(s2)) @ np.linalg.inv(np.real(sqrtm(s1)))).T + m2

    coordinates = AngleCoordinates(torch.from_numpy((m1 + m2) / 2), torch.from_numpy(rng.uniform(0.05, 0.2, size=n)))
    schedule = CosineSchedule(margin=1e-4).double()
    source = exact_prediction(coordinates, schedule, torch.from_numpy(m1), torch.from_numpy(s1))
    target = exact_prediction(coordinates, schedule, torch.from_numpy(m2), torch.from_numpy(s2))
    way = {"n_steps": 200, "method": "adams"}
    latent = follow(coordinates, schedule, source, torch.from_numpy(x), encode=True, **way)
    crossed = follow(coordinates, schedule, target, latent, encode=False, **way)
    np.testing.assert_allclose(crossed.numpy(), expected, atol=2e-3)

    latent = follow(coordinates, schedule, target, crossed, encode=True, **way)
    back = follow(coordinates, schedule, source, latent, encode=False, **way)
    np.testing.assert_allclose(back.numpy(), x, atol=1e-4)


def test_the_solver_that_is_not_named_is_the_one_of_third_order():
    """`dy / dt = y` from 1 at time 0 ends at e; halving the step makes the error smaller eightfold."""
    start = torch.ones(1, 1, dtype=torch.float64)
    errors = []
    for n_steps in (20, 40):
        times = torch.linspace(0, 1, n_steps + 1, dtype=torch.float64)
        end = integrate(lambda state, t: state, start, times, lambda t: t)
        errors.append(abs(float(end) - np.e))
    assert errors[0] < 1e-4
    assert 6 < errors[0] / errors[1] < 10
