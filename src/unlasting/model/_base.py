"""What the parts of the model share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scvi.model.base import BaseModelClass

from unlasting.effects import ConditionFeatures, ConditionTensors, TargetVocabulary, condition_tensors
from unlasting.module import Preset, UnlastingModule
from unlasting.screen import Perturbation, ScreenKeys

Dose = float | str | None
"""A dose in uM, or several as text."""


class ModelBase(BaseModelClass):
    """A scvi-tools model with its recipe, networks and names."""

    preset: Preset
    keys: ScreenKeys
    condition_features: ConditionFeatures
    module: UnlastingModule
    preparation_: dict[str, Any]
    history_: dict[str, pd.DataFrame] | None
    _preset_name: str
    _options: dict[str, Any]

    @property
    def vocabulary(self) -> TargetVocabulary:
        """What is known of targets by name."""
        return self.condition_features.vocabulary

    def _state(self, field: str) -> dict[str, Any]:
        """Get the vocabulary of a registered field."""
        return self.registry_["field_registries"][field]["state_registry"]

    def _tensors(self, perturbations: Sequence[Perturbation]) -> ConditionTensors:
        """Write perturbations as the tensors that the networks read."""
        return condition_tensors(perturbations, self.condition_features)

    def _asked(self, label: object, dose: Dose = None) -> Perturbation:
        """Read a perturbation that the user asks for.

        Raises
        ------
        ValueError
            If it cannot be read, nothing is known of a target, or a drug has no dose where drugs have one.
        """
        drugs, dose_key = self.vocabulary.names_of_drugs, self.keys.dose_key
        if dose is not None and dose_key is None:
            raise ValueError(
                f"`dose` is {dose!r}, but the screen was set up without `dose_key`: its drugs have no dose."
            )
        asked = Perturbation.parse(label, dose, **self.keys.grammar, drugs=drugs)
        self.vocabulary.require_known([asked], **self.keys.grammar)
        undosed = asked.undosed(drugs)
        if dose_key is not None and undosed:
            raise ValueError(
                f"The drug {undosed[0]!r} of {str(label)!r} has no dose. Give `dose` in uM, such as `dose=1.0`, or "
                "'1+0.5' for two drugs in the order of the label."
            )
        return asked

    def _all_asked(self, perturbations: str | Sequence[str], dose: Dose | Sequence[Dose]) -> list[Perturbation]:
        """Read perturbations and doses: one of either goes with all of the other."""
        if not isinstance(perturbations, Iterable):
            raise TypeError(
                f"`perturbations` is {perturbations!r}; give a label such as 'A' or 'A+B', or a list of them."
            )
        labels = [perturbations] if isinstance(perturbations, str) else list(perturbations)
        doses = [dose] if dose is None or isinstance(dose, str | int | float | np.generic) else list(dose)
        if not labels:
            raise ValueError("`perturbations` is empty; name at least one, such as 'A' or 'A+B'.")
        if not doses:
            raise ValueError("`dose` is empty; give at least one in uM, or leave it out.")
        if len(labels) != len(doses) and 1 not in (len(labels), len(doses)):
            raise ValueError(
                f"`perturbations` has {len(labels)} entries and `dose` {len(doses)}. Give as many, or one of either."
            )
        n = max(len(labels), len(doses))
        pairs = zip(labels * (n // len(labels)), doses * (n // len(doses)), strict=True)
        return list(dict.fromkeys(self._asked(label, dose) for label, dose in pairs))
