"""Denoiser and mask network with their losses, and the bridge between conditions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unlasting.diffusion import (
    AngleCoordinates,
    Coordinates,
    CosineSchedule,
    LinearBetaSchedule,
    NoiseCoordinates,
    NoiseSchedule,
    bridge_mask,
    integrate,
    log_snr_times,
    mask_latent,
)
from unlasting.effects import (
    ConditionTensors,
    ControlPopulations,
    EffectsModel,
    ExpectedParameters,
    HurdleParameters,
    ScreenStatistics,
    condition_tensors,
)
from unlasting.module._presets import Preset
from unlasting.nn import Denoiser, MaskNetwork, SharedGraph
from unlasting.screen import Perturbation

NetworkName = Literal["denoiser", "mask_network"]

T = TypeVar("T")


class UnlastingModule(nn.Module):
    """Dual conditional diffusion implicit bridges with a graph block and a mask network.

    The effects model is no part of the state: it has no trained weights, and :meth:`use_effects` provides it.
    Subclasses set `_denoiser_cls` and `_mask_cls` to networks with the same constructor and `forward`.

    Parameters
    ----------
    preset
        The recipe.
    edge_index
        Edges in the gene regulatory network, source before target, shape `(2, n_edges)`.
    n_nodes
        Number of nodes, the measured genes first.
    n_genes
        Number of measured genes.
    n_features
        Number of features that describe a condition.
    conditions
        The registered conditions, the control first.
    cell_type
        Index of the cell type for every control population, shape `(n_populations,)`.
    molecules
        Embeddings of all molecules, shape `(n_molecules, n_molecule_features)`.
    """

    _denoiser_cls: type[Denoiser] = Denoiser
    _mask_cls: type[MaskNetwork] = MaskNetwork

    def __init__(
        self,
        preset: Preset,
        edge_index: Tensor,
        n_nodes: int,
        n_genes: int,
        n_features: int,
        conditions: Sequence[Perturbation],
        cell_type: Tensor,
        molecules: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.preset = preset
        self.n_genes = n_genes
        self.registered_conditions = list(conditions)
        self.register_buffer("cell_type", cell_type, persistent=False)
        self.cell_type: Tensor
        sizes = (SharedGraph(edge_index, n_nodes), n_genes, n_features, int(cell_type.max()) + 1)
        self.denoiser = self._denoiser_cls(*sizes, preset.denoiser, molecules)
        self.mask_network = self._mask_cls(*sizes, preset.mask_network, molecules)
        self.averaged = nn.ModuleDict(
            {"denoiser": copy.deepcopy(self.denoiser), "mask_network": copy.deepcopy(self.mask_network)}
        ).requires_grad_(False)
        self._effects: EffectsModel | None = None
        self._computed: dict[str, Any] = {}
        self._registered_pairs: tuple[np.ndarray, np.ndarray] | None = None
        self._detection_rates: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    # -- the effects model

    def register_pairs(self, condition: np.ndarray, population: np.ndarray) -> None:
        """Take the pairs of registered codes that occur in cells, shape `(n,)`: a training step then waits for no device."""
        self._registered_pairs = condition, population
        self._computed.clear()

    def use_detection_rates(self, condition: np.ndarray, population: np.ndarray, rates: np.ndarray) -> None:
        """Take the detection rates that train the mask network, for each pair of codes, shape `(n_pairs, n_genes)`."""
        self._detection_rates = condition, population, rates
        self._computed.clear()

    def use_effects(self, effects: EffectsModel) -> None:
        """Take the expected effects from a fitted model."""
        self._effects = effects
        self._computed.clear()

    @property
    def has_effects(self) -> bool:
        """Whether the module has an effects model."""
        return self._effects is not None

    @property
    def effects(self) -> EffectsModel:
        """The effects model.

        Raises
        ------
        RuntimeError
            If there is none yet.
        """
        if self._effects is None:
            raise RuntimeError("The module has no effects model yet. Call `module.use_effects(EffectsModel.fit(...))`.")
        return self._effects

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.cell_type.device

    def _once(self, name: str, compute: Callable[[], T]) -> T:
        """Compute once for the present device."""
        if name not in self._computed:
            with torch.inference_mode(False), torch.no_grad():  # training reads tensors that validation has computed
                self._computed[name] = compute()
        return self._computed[name]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out tensors that each copy computes again."""
        return {**super().__getstate__(), "_computed": {}}

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        """Move to a device, and drop tensors on the previous one."""
        self._computed.clear()
        return super()._apply(*args, **kwargs)

    @property
    def statistics(self) -> ScreenStatistics:
        """Statistics from the training cells."""
        return self._once("statistics", lambda: self.effects.statistics.to(self.device))

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule."""
        if self.preset.schedule == "linear_beta":
            return self._once("schedule", lambda: LinearBetaSchedule().to(self.device))
        return self._once("schedule", lambda: CosineSchedule(float(self.statistics.typical_scale)).to(self.device))

    def populations(self) -> ControlPopulations:
        """Get the registered control populations."""
        return self._once("populations", lambda: self.statistics.populations(self.cell_type))

    def tensors(self, perturbations: Sequence[Perturbation]) -> ConditionTensors:
        """Write perturbations as tensors."""
        return condition_tensors(perturbations, self.effects).to(self.device)

    def conditions(self, codes: Tensor) -> ConditionTensors:
        """Get registered conditions by their codes, shape `(n_cells,)`."""
        return self._once("conditions", lambda: self.tensors(self.registered_conditions))[codes]

    def expected(self, perturbations: Sequence[Perturbation], populations: ControlPopulations) -> ExpectedParameters:
        """Get the expected hurdle parameters for pairs (condition, population)."""
        return ExpectedParameters(self.effects if self.preset.use_effects else None, perturbations, populations)

    def registered_expected(self, condition: Tensor, population: Tensor) -> HurdleParameters:
        """Get the expected hurdle parameters for registered codes, shape `(n,)`."""

        def compute() -> ExpectedParameters:
            expected = self.expected(self.registered_conditions, self.populations())
            return expected if self._registered_pairs is None else expected.restrict(*self._registered_pairs)

        return self._once("expected", compute)(condition, population)

    def _distinct(self, condition: Tensor, population: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Get pairs that hold those of a batch, and each cell's row in them: all registered pairs, or a pair for each cell."""
        if self._registered_pairs is None:
            pairs, row = torch.unique(torch.stack([condition, population], dim=-1), dim=0, return_inverse=True)
            return pairs[:, 0], pairs[:, 1], row
        pairs, place = self._once("pairs", self._pairs)
        if len(pairs) <= len(condition):
            return pairs[:, 0], pairs[:, 1], place[condition, population]
        return condition, population, torch.arange(len(condition), device=condition.device)

    def _pairs(self) -> tuple[Tensor, Tensor]:
        """Get the registered pairs, shape `(n_pairs, 2)`, and the row of each."""
        pairs = torch.unique(torch.tensor(np.stack(self._registered_pairs or ()), dtype=torch.long), dim=1).T
        place = torch.zeros(len(self.registered_conditions), len(self.cell_type), dtype=torch.long)
        place[pairs[:, 0], pairs[:, 1]] = torch.arange(len(pairs))
        return pairs.to(self.device), place.to(self.device)

    def assigned_condition(
        self, x0: Tensor, condition: Tensor, population: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Draw the condition assigned to each cell: its own, or the control (code 0) for a non-responding cell."""
        if not self.preset.use_responders:
            return condition
        mixture = self._once("mixture", lambda: self.effects.mixture.to(self.device))
        responded = mixture.response_probability(x0 * self.statistics.x_max, condition, population)
        drawn = torch.rand(responded.shape, generator=generator, device=responded.device)
        return torch.where(drawn < responded, condition, torch.zeros_like(condition))

    def _coordinates(self, expected: HurdleParameters) -> Coordinates:
        if self.preset.coordinates == "angle":
            return AngleCoordinates(expected.base, expected.scale)
        return NoiseCoordinates()

    @property
    def _averaged_mask_network(self) -> MaskNetwork:
        return cast(MaskNetwork, self.averaged["mask_network"])

    def is_expressed(self, x0: Tensor) -> Tensor:
        """Get 1 for expressed genes, else 0, `(n_cells, n_genes)`; without a mask network, all count as expressed."""
        return (x0 > 0).to(x0.dtype) if self.preset.use_mask else torch.ones_like(x0)

    # -- training

    def denoising_loss(
        self,
        x0: Tensor,
        condition: Tensor,
        population: Tensor,
        *,
        averaged: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Compute the mean squared error over expressed genes (Eq. 13 in the publication).

        Parameters
        ----------
        x0
            Cells on the [0, 1] scale, shape `(n_cells, n_genes)`.
        condition
            Registered conditions as codes, shape `(n_cells,)`.
        population
            Registered populations as codes, shape `(n_cells,)`.
        averaged
            Whether the averaged weights are used.
        generator
            Source of random numbers; the global state by default.

        Returns
        -------
        Shape `()`.
        """
        n = x0.shape[0]
        random: dict[str, Any] = {"generator": generator, "device": x0.device}
        condition = self.assigned_condition(x0, condition, population, generator)
        conditions, populations, mask = (
            self.conditions(condition),
            self.populations()[population],
            self.is_expressed(x0),
        )
        coordinates = self._coordinates(self.registered_expected(condition, population))
        t = self.schedule.sample_times(n, generator)
        log_snr = self.schedule.log_snr(t)[:, None]
        eps = torch.randn(x0.shape, **random)
        control = populations.mean
        if self.preset.control_signal == "cell":
            noisy = populations.mean + populations.sd * torch.randn(x0.shape, **random)
            control = torch.where(conditions.is_control()[:, None], 0.0, noisy)
        state = coordinates.network_input(coordinates.noised(x0, eps, log_snr), log_snr)
        network = self.averaged["denoiser"] if averaged else self.denoiser
        predicted = network(state, t, mask, control, conditions, populations.cell_type)
        error = (predicted - coordinates.target(x0, eps, log_snr)).square() * mask
        if self.preset.loss_average == "cells":
            return (error.sum(-1) / mask.sum(-1).clamp(min=1.0)).mean()
        return error.sum() / mask.sum().clamp(min=1.0)

    def mask_loss(
        self,
        x0: Tensor,
        condition: Tensor,
        population: Tensor,
        *,
        averaged: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Compute the mask's binary cross-entropy; parameters as in :meth:`denoising_loss`.

        With `mask_labels="conditions"`, the averaged weights' loss still is that of single cells: it validates.
        """
        random: dict[str, Any] = {"generator": generator, "device": x0.device}
        condition = self.assigned_condition(x0, condition, population, generator)
        network = self._averaged_mask_network if averaged else self.mask_network
        if self.preset.control_signal == "cell":
            populations = self.populations()[population]
            control = populations.mean + populations.sd * torch.randn(x0.shape, **random)
            log_odds = network(control, 0.0 * populations.log_odds, self.conditions(condition), populations.cell_type)
        else:
            rows, columns, inverse = self._distinct(condition, population)
            once, start = self.populations()[columns], self.registered_expected(rows, columns).log_odds
            log_odds = network(once.mean, start, self.conditions(rows).down_weighted(), once.cell_type)[inverse]
        mask, statistics = self.is_expressed(x0), self.statistics
        detected = self.detected(
            mask, statistics.log_detected_mean[condition, population], statistics.log_detected_sd[population]
        )
        labels = mask
        if self.preset.mask_labels == "conditions" and not averaged:
            place, rates = self._once("rates", self._rates)
            labels = rates[place[condition, population]]
        return functional.binary_cross_entropy_with_logits(network.at_detected_genes(log_odds, detected), labels)

    def _rates(self) -> tuple[Tensor, Tensor]:
        """Get each pair's row in the detection rates, shape `(n_conditions, n_populations)`, and the rates."""
        if self._detection_rates is None:
            raise RuntimeError(
                "The module has no detection rates yet. Call `module.use_detection_rates(*cells.detection_rates())`."
            )
        condition, population, rates = self._detection_rates
        place = torch.zeros(len(self.registered_conditions), len(self.cell_type), dtype=torch.long)
        place[condition, population] = torch.arange(len(rates))
        return place.to(self.device), torch.as_tensor(rates, dtype=torch.float32, device=self.device)

    @staticmethod
    def detected(mask: Tensor, usual: Tensor, sd: Tensor) -> Tensor:
        """Standardise each cell's log number of detected genes by its condition, shape `(n_cells,)`."""
        return (mask.sum(-1).clamp(min=1.0).log() - usual) / sd

    @torch.no_grad()
    def average(self, name: NetworkName, decay: float) -> None:
        """Move one network's averaged weights towards its weights."""
        averaged, trained = (list(network.parameters()) for network in (self.averaged[name], getattr(self, name)))
        torch._foreach_lerp_(averaged, trained, 1.0 - decay)

    # -- the bridge

    def encode(
        self,
        x0: Tensor,
        eps: Tensor,
        control: Tensor,
        conditions: ConditionTensors,
        populations: ControlPopulations,
        expected: HurdleParameters,
    ) -> Tensor:
        """Encode cells on the [0, 1] scale to the shared latent, shape `(n_cells, n_genes)`.

        With `hold_silent` an undetected gene has the noise `eps` as latent.
        """
        mask = self.is_expressed(x0)
        return self._solve(x0, mask, control, conditions, populations, expected, eps=eps, encode=True)

    def decode(
        self,
        latent: Tensor,
        mask: Tensor,
        control: Tensor,
        conditions: ConditionTensors,
        populations: ControlPopulations,
        expected: HurdleParameters,
    ) -> Tensor:
        """Decode latents to cells on the [0, 1] scale; values outside the mask are undefined."""
        return self._solve(latent, mask, control, conditions, populations, expected, eps=None, encode=False)

    def _solve(
        self,
        start: Tensor,
        mask: Tensor,
        control: Tensor,
        conditions: ConditionTensors,
        populations: ControlPopulations,
        expected: HurdleParameters,
        *,
        eps: Tensor | None,
        encode: bool,
    ) -> Tensor:
        network, masked = self.averaged["denoiser"], self.preset.denoiser.mask_as_input
        held = self.preset.hold_silent
        coordinates = self._coordinates(expected)
        by_time = self.preset.steps == "time"
        times = (
            self.schedule.times(self.preset.n_steps) if by_time else log_snr_times(self.schedule, self.preset.n_steps)
        )
        first, last = self.schedule.log_snr(times[0]), self.schedule.log_snr(times[-1])

        def prediction(state: Tensor, t: Tensor) -> Tensor:
            seen = coordinates.network_input(state, self.schedule.log_snr(t))
            predicted = network(seen, t.expand(seen.shape[0]), mask, control, conditions, populations.cell_type)
            return predicted * mask if masked or held else predicted  # an undetected gene keeps its noise

        if encode:
            state = coordinates.place(start, first)
            if held and eps is not None:
                state = torch.where(mask > 0, state, eps)
        else:
            state = coordinates.from_network_input(start, last)
            times = times.flip(0)
        if not (isinstance(network, Denoiser) and network.predicts_zero()):  # zero slopes leave the state as it is
            state = integrate(
                prediction,
                state,
                times,
                lambda t: coordinates.clock(self.schedule.log_snr(t)),
                self.preset.solver,
            )
        if encode:
            return coordinates.network_input(state, last)
        if self.preset.last_step and self.preset.coordinates == "noise":
            return prediction(state, times[-1])
        return coordinates.read(state, first)

    def mask_log_odds(
        self, conditions: ConditionTensors, populations: ControlPopulations, expected: HurdleParameters
    ) -> Tensor:
        """Compute log-odds of detection at the usual number of detected genes, shape `(n, n_genes)`."""
        return self.averaged["mask_network"](
            populations.mean, expected.log_odds, conditions.down_weighted(), populations.cell_type
        )

    def probability_at_detected_genes(self, log_odds: Tensor, detected: Tensor) -> Tensor:
        """Convert log-odds to probabilities in cells with `detected` genes in s.d., kept off 0 and 1."""
        return torch.sigmoid(self._averaged_mask_network.at_detected_genes(log_odds, detected)).clamp(1e-3, 1.0 - 1e-3)

    def published_mask_rate(self, controls: Tensor, condition: ConditionTensors, cell_type: Tensor) -> Tensor:
        """Predict detection rates from K control cells on the [0, 1] scale, shape `(n_genes,)`."""
        n = controls.shape[0]
        rows = torch.zeros(n, dtype=torch.long, device=controls.device)
        log_odds = self.averaged["mask_network"](
            controls, torch.zeros_like(controls), condition[rows], cell_type.expand(n)
        )
        probability = torch.sigmoid(log_odds)
        if self.preset.mask_rule == "threshold":
            probability = (probability > self.preset.mask_threshold).to(probability.dtype)
        return probability.mean(0)

    @staticmethod
    def transfer_mask(mask: Tensor, before: Tensor, after: Tensor, uniform: Tensor) -> Tensor:
        """Transfer source cells' masks from probabilities `before` to `after`."""
        return bridge_mask(mask_latent(mask, before, uniform), after).to(mask.dtype)
