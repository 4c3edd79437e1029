from __future__ import annotations

import pytest
import torch

from unlasting.diffusion import (
    AngleCoordinates,
    CosineSchedule,
    LinearBetaSchedule,
    NoiseCoordinates,
    alpha_sigma,
    integrate,
)

SCHEDULES = {"cosine": CosineSchedule, "linear_beta": LinearBetaSchedule}


@pytest.fixture(params=SCHEDULES)
def schedule(request):
    return SCHEDULES[request.param]()


def test_noise_grows_with_time(schedule):
    times = schedule.times(40)
    assert times.shape == (41,)
    assert (times[0], times[-1]) == (0, 1)
    assert (times.diff() > 0).all()
    assert (schedule.log_snr(times).diff() < 0).all()


def test_variance_is_preserved(schedule):
    alpha, sigma = alpha_sigma(schedule.log_snr(schedule.times(50)))
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(51))
    assert (alpha > 0).all()
    assert (sigma > 0).all()


def test_training_times_lie_in_the_unit_interval_and_repeat_with_the_seed(schedule):
    first, second = (schedule.sample_times(200, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.shape == (200,)
    assert ((first >= 0) & (first <= 1)).all()
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert torch.isfinite(schedule.log_snr(first)).all()


def test_cosine_times_are_stratified_and_in_random_order():
    times = CosineSchedule().sample_times(100, torch.Generator().manual_seed(0))
    assert sorted((times * 100).long().tolist()) == list(range(100))
    assert (times.diff() < 0).any()


def test_published_steps_are_the_training_steps():
    schedule = LinearBetaSchedule(500)
    steps = schedule.sample_times(1000, torch.Generator().manual_seed(0)) * 499
    torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
    assert steps.min() < 10
    assert steps.max() > 489


@pytest.mark.parametrize("scale", [0.02, 0.07, 0.3])
def test_cosine_starts_far_below_the_spread_of_the_data(scale):
    schedule = CosineSchedule(scale)
    sigma = alpha_sigma(schedule.log_snr(torch.tensor(0.0)))[1]
    assert sigma < 0.02 * scale
    assert alpha_sigma(schedule.log_snr(torch.tensor(1.0)))[0] * scale < 0.02


@pytest.mark.parametrize("name", ["angle", "noise"])
def test_coordinates_invert_themselves_and_their_target_is_the_derivative(name):
    """`d state / d clock = target` along every line from a value to its noise."""
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.rand(3, 4, generator=generator).double(), torch.randn(3, 4, generator=generator).double()
    base, scale = torch.rand(4, generator=generator).double(), 0.05 + torch.rand(4, generator=generator).double()
    coordinates = AngleCoordinates(base, scale) if name == "angle" else NoiseCoordinates()
    log_snr = torch.tensor(0.7).double()
    torch.testing.assert_close(coordinates.read(coordinates.place(x0, log_snr), log_snr), x0)
    torch.testing.assert_close(coordinates.network_input(coordinates.from_network_input(x0, log_snr), log_snr), x0)

    log_snr.requires_grad_(True)
    state = coordinates.noised(x0, eps, log_snr)
    clock = coordinates.clock(log_snr).expand(4)
    for cell in range(3):
        for gene in range(4):
            of_state = torch.autograd.grad(state[cell, gene], log_snr, retain_graph=True)[0]
            of_clock = torch.autograd.grad(clock[gene], log_snr, retain_graph=True)[0]
            torch.testing.assert_close(of_state / of_clock, coordinates.target(x0, eps, log_snr)[cell, gene])


def test_angle_coordinates_see_unit_variance_and_are_exact_for_gaussians():
    generator = torch.Generator().manual_seed(0)
    base, scale = torch.tensor([0.2, 0.6]), torch.tensor([0.05, 0.3])
    x0 = base + scale * torch.randn(50_000, 2, generator=generator)
    eps = torch.randn(50_000, 2, generator=generator)
    coordinates, schedule = AngleCoordinates(base, scale), CosineSchedule()
    for t in torch.linspace(0, 1, 5):
        seen = coordinates.network_input(coordinates.noised(x0, eps, schedule.log_snr(t)), schedule.log_snr(t))
        torch.testing.assert_close(seen.std(0), torch.ones(2), atol=0.02, rtol=0)
    start = coordinates.place(x0, schedule.log_snr(torch.tensor(0.0)))
    latent = integrate(
        lambda state, t: torch.zeros_like(state), start, schedule.times(1), lambda t: coordinates.clock(t), "euler"
    )
    torch.testing.assert_close(latent.std(0), torch.ones(2), atol=0.02, rtol=0)


def test_a_schedule_is_made_and_not_saved():
    assert LinearBetaSchedule().state_dict() == {}


def test_noise_is_added_to_the_data():
    x0, eps, log_snr = torch.rand(4, 3), torch.randn(4, 3), torch.tensor(0.7)
    coordinates = NoiseCoordinates()
    torch.testing.assert_close(coordinates.noised(x0, eps, log_snr), coordinates.clock(log_snr) * x0 + eps)
    seen = coordinates.network_input(coordinates.noised(x0, eps, log_snr), log_snr)
    alpha, sigma = alpha_sigma(log_snr)
    torch.testing.assert_close(seen, alpha * x0 + sigma * eps)


def test_times_are_on_the_device_of_the_schedule(schedule):
    """`meta` stands for a device that is not the CPU."""
    schedule = schedule.to("meta")
    assert schedule.times(3).device.type == "meta"
    assert schedule.sample_times(3).device.type == "meta"


@pytest.mark.parametrize("crowding", [0.0, 0.2, 0.6])
def test_the_first_and_last_steps_are_shorter_by_the_crowding(crowding):
    steps = CosineSchedule(crowding=crowding).times(500).diff()
    assert float(steps[0] / steps.mean()) == pytest.approx(1 - crowding, abs=1e-3)
    assert float(steps[-1] / steps.mean()) == pytest.approx(1 - crowding, abs=1e-3)


def test_the_published_schedule_has_500_noise_levels():
    levels = LinearBetaSchedule().log_snr(torch.linspace(0, 1, 20_001))
    assert len(torch.unique(levels)) == 500
