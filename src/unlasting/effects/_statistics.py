"""What is fitted from the training cells before any network is trained."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class HurdleParameters:
    """What is known of single genes in a condition before the networks look.

    Parameters
    ----------
    log_odds
        Log-odds that a gene is expressed in a cell of usual detected, shape `(n, n_genes)`.
    base
        Mean of its expressed values on the [0, 1] scale, shape `(n, n_genes)`.
    scale
        Their standard deviation, shape `(n, n_genes)`.
    """

    log_odds: Tensor
    base: Tensor
    scale: Tensor

    def __getitem__(self, index: Tensor | slice) -> HurdleParameters:
        """Take some rows, or repeat them."""
        return HurdleParameters(*(getattr(self, f.name)[index] for f in fields(self)))

    @classmethod
    def concatenate(cls, parts: list[HurdleParameters]) -> HurdleParameters:
        """Put rows one after the other."""
        return cls(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    def shifted(self, effect: Tensor) -> HurdleParameters:
        """Let a perturbation act: shifts of log-odds, of the base in s.d. and of the log s.d., `(n, 3, n_genes)`."""
        log_odds, base, log_scale = effect.unbind(-2)
        return HurdleParameters(
            self.log_odds + log_odds, self.base + base * self.scale, self.scale * log_scale.clamp(-1.0, 1.0).exp()
        )


@dataclass(frozen=True)
class ControlPopulations:
    """What the networks know of cell types and batches: moments of their control cells.

    Parameters
    ----------
    mean
        Mean of the control cells on the [0, 1] scale, zeros included, shape `(n_populations, n_genes)`.
    sd
        Their standard deviation, shape `(n_populations, n_genes)`.
    log_odds
        Log-odds that a gene is expressed in them, shape `(n_populations, n_genes)`.
    base, scale
        Mean and standard deviation of the expressed values, shape `(n_populations, n_genes)`.
    log_detected_mean
        Mean log number of expressed genes, shape `(n_populations,)`.
    log_detected_sd
        Its standard deviation, shape `(n_populations,)`.
    cell_type
        Index of the cell type, -1 for one that was not trained, shape `(n_populations,)`.
    """

    mean: Tensor
    sd: Tensor
    log_odds: Tensor
    base: Tensor
    scale: Tensor
    log_detected_mean: Tensor
    log_detected_sd: Tensor
    cell_type: Tensor

    def __getitem__(self, index: Tensor | slice) -> ControlPopulations:
        """Take some populations, or repeat them."""
        return ControlPopulations(*(getattr(self, f.name)[index] for f in fields(self)))

    def __len__(self) -> int:
        return self.mean.shape[0]

    def to(self, device: torch.device) -> ControlPopulations:
        """Move all tensors to a device."""
        return ControlPopulations(*(getattr(self, f.name).to(device) for f in fields(self)))

    def rescaled(self, factor: float) -> ControlPopulations:
        """Bring moments of values that were divided by another x_max to the scale of the model."""
        return replace(self, **{name: getattr(self, name) * factor for name in ("mean", "sd", "base", "scale")})

    def hurdle_parameters(self) -> HurdleParameters:
        """Get what is known of single genes without a perturbation."""
        return HurdleParameters(self.log_odds, self.base, self.scale)

    @classmethod
    def concatenate(cls, parts: list[ControlPopulations]) -> ControlPopulations:
        """Put populations one after the other."""
        return cls(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)))


@dataclass(frozen=True)
class ScreenStatistics:
    """Moments of the training cells, all on the [0, 1] scale but the first.

    A *population* is the control cells of one cell type and batch.

    Parameters
    ----------
    x_max
        The largest log-normalised value, shape `()`.
    base, scale
        Mean and s.d. of the expressed values of the control cells, shape `(n_populations, n_genes)`.
    typical_scale
        The s.d. of a typical expressed value, shape `()`.
    control_mean, control_sd
        Mean and s.d. of the control cells, zeros included, shape `(n_populations, n_genes)`.
    control_log_odds
        Log-odds that a gene is expressed in a control cell, shape `(n_populations, n_genes)`.
    log_detected_mean
        Mean log number of expressed genes of a cell, shape `(n_conditions, n_populations)`.
    log_detected_sd
        Its standard deviation among the controls, shape `(n_populations,)`.
    total
        Sum of the normalised counts of every cell, 0 where it is not the same for all, shape `()`.
    integer_counts
        1 where the normalised counts of a cell are whole multiples of its smallest one, else 0, shape `()`.
    """

    x_max: Tensor
    base: Tensor
    scale: Tensor
    typical_scale: Tensor
    control_mean: Tensor
    control_sd: Tensor
    control_log_odds: Tensor
    log_detected_mean: Tensor
    log_detected_sd: Tensor
    total: Tensor
    integer_counts: Tensor

    def populations(self, cell_type: Tensor) -> ControlPopulations:
        """Get all populations of controls; the control is condition 0. `cell_type` has shape `(n_populations,)`."""
        return ControlPopulations(
            self.control_mean,
            self.control_sd,
            self.control_log_odds,
            self.base,
            self.scale,
            self.log_detected_mean[0],
            self.log_detected_sd,
            cell_type,
        )

    @classmethod
    def empty(cls, n_genes: int, n_populations: int, n_conditions: int) -> ScreenStatistics:
        """Get placeholders of the right shapes, to be overwritten by a saved model."""
        population, one = torch.zeros(n_populations, n_genes), torch.tensor(1.0)
        detected, no = torch.zeros(n_conditions, n_populations), torch.tensor(0.0)
        return cls(
            one,
            population,
            population,
            one,
            population,
            population,
            population,
            detected,
            torch.ones(n_populations),
            no,
            no,
        )


class StatisticsBuffers(nn.Module):
    """The statistics as buffers, so that they are saved and moved with the networks."""

    def __init__(self, statistics: ScreenStatistics) -> None:
        super().__init__()
        for f in fields(statistics):
            self.register_buffer(f.name, getattr(statistics, f.name).clone())
        self.x_max: Tensor
        self.base: Tensor
        self.scale: Tensor
        self.total: Tensor
        self.integer_counts: Tensor

    def values(self) -> ScreenStatistics:
        """Get the statistics."""
        return ScreenStatistics(*(getattr(self, f.name) for f in fields(ScreenStatistics)))
