"""Euler's rule in noise coordinates is DDIM, as diffusers has it."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from torch import Tensor

from unlasting.diffusion import LinearBetaSchedule, NoiseCoordinates, integrate


def schedulers(n_train_steps: int, n_steps: int) -> tuple[DDIMScheduler, DDIMInverseScheduler]:
    options = {
        "num_train_timesteps": n_train_steps,
        "trained_betas": torch.linspace(0.1 / n_train_steps, 20 / n_train_steps, n_train_steps).tolist(),
        "prediction_type": "sample",
        "clip_sample": False,
        "set_alpha_to_one": False,
    }
    both = DDIMScheduler(**options), DDIMInverseScheduler(**options)
    for scheduler in both:
        scheduler.num_inference_steps = n_steps
    return both


def predicted_x0(x_t: Tensor, step: int) -> Tensor:
    """Some function of state and time, not linear and coupling the genes."""
    weights = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    return torch.tanh(x_t @ weights + step / 100) + 0.1 * x_t


# The first and the last of T steps are always taken, so that n must divide T - 1 for equal steps.
@pytest.mark.parametrize(("n_train_steps", "n_steps"), [(501, 50), (501, 20), (500, 499)])
@pytest.mark.parametrize("encode", [False, True])
def test_every_step_and_the_whole_way_agree_with_diffusers(n_train_steps, n_steps, encode):
    ddim, inverse = schedulers(n_train_steps, n_steps)
    schedule, coordinates = LinearBetaSchedule(n_train_steps), NoiseCoordinates()
    width = (n_train_steps - 1) // n_steps

    def log_snr(t: Tensor) -> Tensor:
        return schedule.log_snr(t)

    def prediction(state: Tensor, t: Tensor) -> Tensor:
        step = round(float(t) * (n_train_steps - 1))
        return predicted_x0(coordinates.network_input(state, log_snr(t)), step)

    times = schedule.times(n_steps)
    times = times if encode else times.flip(0)
    sample = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    state = coordinates.from_network_input(sample, log_snr(times[0]))
    whole = integrate(prediction, state, times, lambda t: coordinates.clock(log_snr(t)), "euler")
    for i, t in enumerate(times[:-1]):
        at = round(float(t) * (n_train_steps - 1))
        assert at == (i * width if encode else (n_steps - i) * width)
        before = coordinates.from_network_input(sample, log_snr(t))
        ours = integrate(prediction, before, times[i : i + 2], lambda t: coordinates.clock(log_snr(t)), "euler")
        output = predicted_x0(sample, at)
        # The inverse scheduler is told where a step ends, the scheduler where it begins.
        step = inverse.step(output, at + width, sample) if encode else ddim.step(output, at, sample, eta=0.0)
        sample = step.prev_sample
        seen = coordinates.network_input(ours, log_snr(times[i + 1]))
        torch.testing.assert_close(seen, sample, rtol=1e-3, atol=2e-4)
    torch.testing.assert_close(coordinates.network_input(whole, log_snr(times[-1])), sample, rtol=5e-3, atol=2e-3)


def test_the_noise_levels_are_those_of_diffusers():
    ddim, _ = schedulers(500, 50)
    log_snr = LinearBetaSchedule(500).log_snr(torch.linspace(0, 1, 500))
    torch.testing.assert_close(torch.sigmoid(log_snr), ddim.alphas_cumprod, rtol=1e-3, atol=1e-7)
