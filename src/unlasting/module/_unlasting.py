"""Denoiser and mask network with their losses, and the bridge they make."""

from __future__ import annotations

import copy
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from unlasting.diffusion import (
    AngleCoordinates,
    Coordinates,
    CosineSchedule,
    LinearBetaSchedule,
    NoiseCoordinates,
    bridge_mask,
    integrate,
    mask_latent,
)
from unlasting.effects import (
    ConditionTensors,
    ControlPopulations,
    EffectFit,
    ExpectedEffects,
    HurdleParameters,
    ResponderFit,
    Responders,
    ScreenStatistics,
    StatisticsBuffers,
)
from unlasting.module._presets import Preset
from unlasting.nn import Denoiser, MaskNetwork, SharedGraph

NetworkName = Literal["denoiser", "mask_network"]
_CONDITIONS_AT_ONCE = 1024


class UnlastingModule(nn.Module):
    """Dual conditional diffusion implicit bridges with a graph block and a mask network.

    Parameters
    ----------
    preset
        The recipe.
    edge_index
        Source and target node of the edges of the gene regulatory network, shape `(2, n_edges)`.
    n_nodes
        Number of nodes, the measured genes first.
    statistics
        What was fitted from the training cells.
    conditions
        The registered conditions.
    cell_type_of_population
        Index of the cell type of every population of controls, shape `(n_populations,)`.
    effects
        What the conditions are expected to do.
    responders
        Which cells of the conditions nonresponding.
    molecules
        Embeddings of all molecules, shape `(n_molecules, n_features)`.
    """

    def __init__(
        self,
        preset: Preset,
        edge_index: Tensor,
        n_nodes: int,
        statistics: ScreenStatistics,
        conditions: ConditionTensors,
        cell_type_of_population: Tensor,
        effects: EffectFit,
        responders: ResponderFit,
        molecules: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.preset = preset
        self.n_genes = statistics.base.shape[1]
        self.statistics = StatisticsBuffers(statistics)
        self.register_buffer("cell_type_of_population", cell_type_of_population)
        self.cell_type_of_population: Tensor
        self._conditions = conditions
        n_cell_types = int(cell_type_of_population.max()) + 1
        graph = SharedGraph(edge_index, n_nodes)
        sizes = (graph, self.n_genes, conditions.features.shape[1], n_cell_types)
        self.denoiser = Denoiser(*sizes, preset.denoiser, molecules)
        self.mask_network = MaskNetwork(*sizes, preset.mask_network, molecules)
        self.averaged = nn.ModuleDict(
            {"denoiser": copy.deepcopy(self.denoiser), "mask_network": copy.deepcopy(self.mask_network)}
        ).requires_grad_(False)
        self.effects = ExpectedEffects(effects)
        self.responders = Responders(responders)
        # the power of the support with which the mask network sees conditions; 0 in models of earlier versions
        self.register_buffer("mask_down_weighting", torch.tensor(4.0))
        self.mask_down_weighting: Tensor
        self._registered: dict[tuple[int, int], HurdleParameters] = {}
        self._registered_weights: Tensor | None = None
        self.schedule = (
            CosineSchedule(float(statistics.typical_scale)) if preset.schedule == "cosine" else LinearBetaSchedule()
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.statistics.base.device

    def hurdle_parameters(self, conditions: ConditionTensors, populations: ControlPopulations) -> HurdleParameters:
        """Get what is expected of single genes under conditions in populations, one row for each."""
        known = populations.hurdle_parameters()
        if not self.preset.use_effects:
            return known
        return known.shifted(self.effects(conditions.features, conditions.node, populations.mean))

    def registered_hurdle_parameters(self, condition: Tensor, population: Tensor) -> HurdleParameters:
        """Get the same for registered conditions and populations by their codes; they are computed once."""
        pairs, row = torch.unique(torch.stack([condition, population], dim=-1), dim=0, return_inverse=True)
        with torch.inference_mode(False), torch.no_grad():  # validation begins, and training reads what it left
            for pair in map(tuple, pairs.tolist()):
                if pair not in self._registered:
                    codes = torch.tensor(pair, device=self.device)
                    self._registered[pair] = self.hurdle_parameters(
                        self.conditions(codes[:1]), self.populations()[codes[1:]]
                    )
        return HurdleParameters.concatenate([self._registered[pair] for pair in map(tuple, pairs.tolist())])[row]

    def registered_weights(self, condition: Tensor) -> Tensor:
        """Get which share of registered conditions the mask network sees, by their codes; it is computed once."""
        if self._registered_weights is None:
            with torch.inference_mode(False), torch.no_grad():
                of_all = self.conditions(torch.arange(len(self._conditions), device=self.device)).features
                parts = of_all.split(_CONDITIONS_AT_ONCE)
                self._registered_weights = torch.cat([self.condition_weight(part) for part in parts])
        return self._registered_weights[condition]

    def condition_weight(self, features: Tensor) -> Tensor:
        """Get which share of conditions the mask network sees, as far as training tells of them, in [0, 1], shape `(n,)`.

        What the trained ones tell of others is in their expected effects. What the network learnt of trained ones beyond that
        does not carry over, and would be wrong elsewhere; but it does to other doses.
        """
        share = self.effects.support(features).pow(self.mask_down_weighting)
        return torch.where(self.effects.is_trained_at_a_dose(features), torch.ones_like(share), share)

    def _forget(self) -> None:
        """Drop what was computed of the registered conditions."""
        self._registered.clear()
        self._registered_weights = None

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        """Move to a device, and leave behind what was computed on another."""
        self._forget()
        return super()._apply(*args, **kwargs)

    def _coordinates(self, hurdle_parameters: HurdleParameters) -> Coordinates:
        if self.preset.coordinates == "angle":
            return AngleCoordinates(hurdle_parameters.base, hurdle_parameters.scale)
        return NoiseCoordinates()

    @property
    def _averaged_mask_network(self) -> MaskNetwork:
        return cast(MaskNetwork, self.averaged["mask_network"])

    def conditions(self, codes: Tensor) -> ConditionTensors:
        """Get registered conditions by their codes, shape `(n_cells,)`."""
        if self._conditions.kind.device != self.device:
            self._conditions = self._conditions.to(self.device)
        return self._conditions[codes]

    def describe(self, conditions: ConditionTensors) -> None:
        """Describe the registered conditions anew."""
        self._conditions = conditions
        self._forget()

    def populations(self) -> ControlPopulations:
        """Get the registered populations of controls."""
        return self.statistics.values().populations(self.cell_type_of_population)

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
        """Get the squared error over expressed genes, divided by their number (Eq. 13 of the method).

        Parameters
        ----------
        x0
            Cells on the [0, 1] scale, shape `(n_cells, n_genes)`.
        condition
            Codes of registered conditions, shape `(n_cells,)`.
        population
            Codes of registered populations, shape `(n_cells,)`.
        averaged
            Whether the averaged weights are used.
        generator
            Where the random numbers come from; the global state by default.

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
        coordinates = self._coordinates(self.registered_hurdle_parameters(condition, population))
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
        """Get the binary cross-entropy of the mask; parameters as in :meth:`denoising_loss`."""
        random: dict[str, Any] = {"generator": generator, "device": x0.device}
        condition = self.assigned_condition(x0, condition, population, generator)
        network = self._averaged_mask_network if averaged else self.mask_network
        if self.preset.control_signal == "cell":
            populations = self.populations()[population]
            control = populations.mean + populations.sd * torch.randn(x0.shape, **random)
            log_odds = network(control, 0.0 * populations.log_odds, self.conditions(condition), populations.cell_type)
        else:
            # The network looks at conditions, of which a batch holds few: each is passed once.
            keys = torch.stack([condition, population], dim=-1)
            rows, inverse = torch.unique(keys, dim=0, return_inverse=True)
            once = self.populations()[rows[:, 1]]
            start = self.registered_hurdle_parameters(rows[:, 0], rows[:, 1]).log_odds
            conditions = self.conditions(rows[:, 0]).down_weighted(self.registered_weights(rows[:, 0]))
            log_odds = network(once.mean, start, conditions, once.cell_type)[inverse]
        mask = self.is_expressed(x0)
        usual = self.statistics.values()
        detected = self.detected(
            mask, usual.log_detected_mean[condition, population], usual.log_detected_sd[population]
        )
        return functional.binary_cross_entropy_with_logits(network.at_detected_genes(log_odds, detected), mask)

    def assigned_condition(
        self, x0: Tensor, condition: Tensor, population: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Draw the condition that each cell underwent: its own, or the control (code 0) if it nonresponding."""
        if not self.preset.use_responders:
            return condition
        responded = self.responders(x0 * self.statistics.x_max, condition, population)
        drawn = torch.rand(responded.shape, generator=generator, device=responded.device)
        return torch.where(drawn < responded, condition, torch.zeros_like(condition))

    def nonresponder_share(self, conditions: ConditionTensors) -> Tensor:
        """Get which share of the cells is expected to escape each condition, shape `(n_conditions,)`."""
        return self.effects.transferred(conditions.features, self.responders.of_trained).clamp(0.0, 1.0)

    @staticmethod
    def detected(mask: Tensor, usual: Tensor, sd: Tensor) -> Tensor:
        """Get how many genes a cell expresses, in s.d. from what is usual for its condition, shape `(n_cells,)`."""
        return (mask.sum(-1).clamp(min=1.0).log() - usual) / sd

    @torch.no_grad()
    def average(self, name: NetworkName, decay: float) -> None:
        """Move the averaged weights of one network towards its weights."""
        averaged, trained = (list(network.parameters()) for network in (self.averaged[name], getattr(self, name)))
        torch._foreach_lerp_(averaged, trained, 1.0 - decay)

    # -- the bridge

    def encode(
        self, x0: Tensor, eps: Tensor, control: Tensor, conditions: ConditionTensors, populations: ControlPopulations
    ) -> Tensor:
        """Follow cells on the [0, 1] scale to the shared latent, shape `(n_cells, n_genes)`.

        In the default recipe the latent of a silent gene is the noise `eps` that stands in for it.
        """
        return self._solve(x0, self.is_expressed(x0), control, conditions, populations, eps=eps, encode=True)

    def decode(
        self,
        latent: Tensor,
        mask: Tensor,
        control: Tensor,
        conditions: ConditionTensors,
        populations: ControlPopulations,
    ) -> Tensor:
        """Follow latents to cells on the [0, 1] scale; values outside of the mask mean nothing."""
        return self._solve(latent, mask, control, conditions, populations, eps=None, encode=False)

    def _solve(
        self,
        start: Tensor,
        mask: Tensor,
        control: Tensor,
        conditions: ConditionTensors,
        populations: ControlPopulations,
        *,
        eps: Tensor | None,
        encode: bool,
    ) -> Tensor:
        network, masked = self.averaged["denoiser"], self.preset.denoiser.mask_as_input
        coordinates = self._coordinates(self.hurdle_parameters(conditions, populations))
        times = self.schedule.times(self.preset.n_steps)
        first, last = self.schedule.log_snr(times[0]), self.schedule.log_snr(times[-1])

        def prediction(state: Tensor, t: Tensor) -> Tensor:
            seen = coordinates.network_input(state, self.schedule.log_snr(t))
            predicted = network(seen, t.expand(seen.shape[0]), mask, control, conditions, populations.cell_type)
            return predicted * mask if masked else predicted  # a silent gene stays the noise that it is

        if encode:
            state = coordinates.place(start, first)
            if masked and eps is not None:
                state = torch.where(mask > 0, state, eps)
        else:
            state = coordinates.from_network_input(start, last)
            times = times.flip(0)
        state = integrate(
            prediction,
            state,
            times,
            lambda t: coordinates.clock(self.schedule.log_snr(t)),
            self.preset.solver,
        )
        return coordinates.network_input(state, last) if encode else coordinates.read(state, first)

    def mask_log_odds(self, populations: ControlPopulations, conditions: ConditionTensors) -> Tensor:
        """Get the log-odds that genes are expressed at the usual detected, shape `(n, n_genes)`."""
        start = self.hurdle_parameters(conditions, populations).log_odds
        seen = conditions.down_weighted(self.condition_weight(conditions.features))
        return self.averaged["mask_network"](populations.mean, start, seen, populations.cell_type)

    def probability_at_detected_genes(self, log_odds: Tensor, detected: Tensor) -> Tensor:
        """Get the probability of every gene in cells of a detected, never quite 0 or 1, `(n_cells, n_genes)`."""
        return torch.sigmoid(self._averaged_mask_network.at_detected_genes(log_odds, detected)).clamp(1e-3, 1.0 - 1e-3)

    def published_mask_rate(self, controls: Tensor, condition: ConditionTensors, cell_type: Tensor) -> Tensor:
        """Get the rate of every gene from K control cells on the [0, 1] scale, shape `(n_genes,)`."""
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
        """Carry the masks of source cells over the bridge, from probabilities `before` to `after`."""
        return bridge_mask(mask_latent(mask, before, uniform), after).to(mask.dtype)
