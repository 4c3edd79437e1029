"""Error against evaluations of our solver and of diffusers' schedulers, where the exact cells are known.

The values of a gene have two modes, for which the best denoiser has a closed form. The probability flow keeps the order
of values, so the cell that belongs to a latent is known as well: it is the quantile of the same rank.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from scipy.special import ndtr
from torch import Tensor

from unlasting.diffusion import AngleCoordinates, CosineSchedule, integrate

MODES, SPREAD = torch.tensor([0.3, 0.6], dtype=torch.float64), 0.05
MEAN, SCALE = float(MODES.mean()), float((SPREAD**2 + MODES.var(correction=0)).sqrt())
T = 500


def latents_and_cells() -> tuple[Tensor, Tensor]:
    """Get latents at equal ranks, shape `(n, 1)`, and the values at the same ranks."""
    latent = torch.special.ndtri((torch.arange(1_000, dtype=torch.float64) + 0.5) / 1_000)
    grid = np.linspace(0.0, 0.9, 200_001)
    below = ndtr((grid[:, None] - MODES.numpy()) / SPREAD).mean(axis=1)
    return latent[:, None], torch.from_numpy(np.interp(ndtr(latent.numpy()), below, grid))[:, None]


def denoised(x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Get the expected value behind a noised one."""
    variance = alpha**2 * SPREAD**2 + sigma**2
    odds = torch.softmax(-0.5 * (x_t - alpha * MODES) ** 2 / variance, dim=-1)
    modes = MODES + alpha * SPREAD**2 / variance * (x_t - alpha * MODES)
    return (odds * modes).sum(-1, keepdim=True)


def ours(n_evaluations: int) -> float:
    """Decode with the default schedule, coordinates and solver, of two evaluations a step."""
    latent, cells = latents_and_cells()
    schedule = CosineSchedule(SCALE).double()
    coordinates = AngleCoordinates(torch.tensor([MEAN]), torch.tensor([SCALE]))

    def prediction(state: Tensor, t: Tensor) -> Tensor:
        log_snr = schedule.log_snr(t)
        alpha, sigma = torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()
        x_t = alpha * MEAN + state * (alpha**2 * SCALE**2 + sigma**2).sqrt()
        x0 = denoised(x_t, alpha, sigma)
        return coordinates.target(x0, (x_t - alpha * x0) / sigma, log_snr)

    times = schedule.times(n_evaluations // 2).double().flip(0)
    state = integrate(prediction, latent, times, lambda t: coordinates.clock(schedule.log_snr(t)))
    return _error(coordinates.read(state, schedule.log_snr(times[-1])), cells)


def _diffusers(scheduler: type, n_evaluations: int, **options: object) -> float:
    """Decode with a scheduler in its loop, on the published schedule."""
    latent, cells = latents_and_cells()
    stepper = scheduler(T, 0.1 / T, 20.0 / T, "linear", prediction_type="sample", **options)
    stepper.set_timesteps(n_evaluations)
    state = latent
    for t in stepper.timesteps:
        kept = stepper.alphas_cumprod[t].double()
        x0 = denoised(state, kept.sqrt(), (1.0 - kept).sqrt())
        state = stepper.step(x0, t, state).prev_sample
    return _error(state, cells)


def _error(found: Tensor, cells: Tensor) -> float:
    """Root mean square error, in s.d. of the values."""
    return float((found - cells).square().mean().sqrt()) / SCALE


SOLVERS: dict[str, Callable[[int], float]] = {
    "ours": ours,
    "diffusers DDIM": lambda n: _diffusers(DDIMScheduler, n, clip_sample=False, set_alpha_to_one=True),
    "diffusers DPM-Solver++": lambda n: _diffusers(DPMSolverMultistepScheduler, n, timestep_spacing="trailing"),
}


def errors(n_evaluations: tuple[int, ...] = (4, 6, 10, 14, 20, 50, 100)) -> pd.DataFrame:
    """Get the error of every solver at every number of evaluations."""
    rows = [(name, n, solver(n)) for name, solver in SOLVERS.items() for n in n_evaluations]
    return pd.DataFrame(rows, columns=["solver", "n_evaluations", "error"])
