"""What the parts of the model share."""

from __future__ import annotations

from typing import Any

import pandas as pd
from scvi.model.base import BaseModelClass

from unlasting._keys import ScreenKeys
from unlasting._perturbation import Perturbation
from unlasting.data import TargetVocabulary
from unlasting.module import Preset, UnlastingModule


class ModelBase(BaseModelClass):
    """A scvi-tools model with its recipe, networks and names."""

    preset: Preset
    keys: ScreenKeys
    vocabulary: TargetVocabulary
    module: UnlastingModule
    preparation_: dict[str, Any]
    history_: dict[str, pd.DataFrame] | None
    _preset_name: str
    _options: dict[str, Any]

    def _state(self, field: str) -> dict[str, Any]:
        """Get the vocabulary of a registered field."""
        return self.registry_["field_registries"][field]["state_registry"]

    def _parse(self, label: object) -> Perturbation:
        return Perturbation.parse(label, control=self.keys.control, delimiter=self.keys.delimiter)
