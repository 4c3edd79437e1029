"""The effects model behind the networks: fitted on first use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scvi import REGISTRY_KEYS
from scvi.model.base import BaseModelClass

from unlasting.data import PERTURBATION, POPULATION, SPLIT, PerturbationField
from unlasting.effects import ConditionTensors, EffectsModel, ScreenCells, TargetVocabulary
from unlasting.module import Preset, UnlastingModule
from unlasting.screen import Perturbation, ScreenKeys, logger


class EffectsMixin(BaseModelClass):
    """`effects_model`, and conditions as its descriptions."""

    preset: Preset
    keys: ScreenKeys
    vocabulary: TargetVocabulary
    module: UnlastingModule

    @property
    def effects_model(self) -> EffectsModel:
        """The effects model, fitted to the training cells on first use.

        Raises
        ------
        RuntimeError
            If there are no cells to fit it to.
        """
        if not self.module.has_effects:
            if self.adata is None:
                raise RuntimeError("The effects model needs the training cells. Make the model with an AnnData.")
            fitted = EffectsModel.fit(
                self._cells(),
                self._conditions(),
                self.vocabulary,
                mode=self.registry_["setup_args"]["mode"],
                use_mask=self.preset.use_mask,
                use_responders=self.preset.use_responders,
            )
            spectrum = fitted.regression.posterior.spectrum
            if len(spectrum.rest):
                logger.warning(
                    f"The effects model has {len(spectrum.root)} conditions and contexts, too many for the exact solution: "
                    f"{len(spectrum.values)} directions with {spectrum.share_of_variance:.0%} of the effects' variance are exact, "
                    "and the rest is averaged. Effects are shrunken more than need be. Train on fewer conditions or contexts to "
                    "avoid this."
                )
            self.module.use_effects(fitted)
        return self.module.effects

    def _cells(self) -> ScreenCells:
        """Get the registered cells with their codes."""
        condition, population, split = (
            np.asarray(self.adata_manager.get_from_registry(name)).ravel() for name in (PERTURBATION, POPULATION, SPLIT)
        )
        return ScreenCells(
            self.adata_manager.get_from_registry(REGISTRY_KEYS.X_KEY),
            condition,
            population,
            split,
            self.summary_stats["n_conditions"],
            self.summary_stats["n_populations"],
            self.module.cell_type.cpu().numpy(),
        )

    def _state(self, field: str) -> dict[str, Any]:
        """Get the vocabulary of a registered field."""
        return self.registry_["field_registries"][field]["state_registry"]

    def _conditions(self, *, trained: bool = False) -> list[Perturbation]:
        """List the registered conditions, the control first, or those in training cells."""
        return PerturbationField(self.keys).conditions(self._state(PERTURBATION), trained=trained)

    def _tensors(self, perturbations: Sequence[Perturbation]) -> ConditionTensors:
        """Write perturbations as tensors for the networks."""
        self.effects_model  # noqa: B018  fitted on first use
        return self.module.tensors(perturbations)
