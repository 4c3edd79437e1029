"""The mathematics of the bridge: noise schedules, coordinates and solvers, in torch and without AnnData."""

from unlasting.diffusion._coordinates import AngleCoordinates, Coordinates, NoiseCoordinates
from unlasting.diffusion._mask_bridge import bridge_mask, mask_latent
from unlasting.diffusion._schedule import CosineSchedule, LinearBetaSchedule, NoiseSchedule, alpha_sigma, log_snr_times
from unlasting.diffusion._solver import SOLVERS, integrate

__all__ = [
    "SOLVERS",
    "AngleCoordinates",
    "Coordinates",
    "CosineSchedule",
    "LinearBetaSchedule",
    "NoiseCoordinates",
    "NoiseSchedule",
    "alpha_sigma",
    "bridge_mask",
    "integrate",
    "log_snr_times",
    "mask_latent",
]
