"""What generated cells rest on."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from anndata import AnnData

from unlasting.effects import DRUG, ConditionTensors
from unlasting.model._base import ModelBase
from unlasting.model._parts import digest_of
from unlasting.screen import UNS_KEY, Condition, Perturbation, ScreenKeys


class ProvenanceMixin(ModelBase):
    """Tell what was trained from what was not."""

    def _support(self, conditions: ConditionTensors) -> np.ndarray:
        """Get how much of each condition's effect the training cells tell, shape `(n_conditions,)`."""
        with torch.inference_mode():
            support = self.module.effects.support(conditions.features.to(self.module.device)).cpu()
        # What has no features of its own is no control.
        acts = (conditions.filled & (conditions.dose != 0)).any(-1).cpu()
        unknown = acts & ~conditions.features.any(-1).cpu()
        return support.masked_fill(unknown, 0.0).numpy()

    def _is_extrapolated(self, perturbations: Sequence[Perturbation]) -> np.ndarray:
        """Whether a dose is outside of those trained: of the drug, or of all drugs where it was not, `(n,)`."""
        trained: dict[str, list[float]] = {}
        for perturbation in self.vocabulary.trained_conditions:
            for smiles, dose in self._doses(perturbation):
                trained.setdefault(smiles, []).append(dose)
        every = [dose for doses in trained.values() for dose in doses]

        def outside(smiles: str, dose: float) -> bool:
            doses = trained.get(smiles, every)
            return not doses or not min(doses) <= dose <= max(doses)

        return np.array([any(outside(*one) for one in self._doses(p)) for p in perturbations])

    def _doses(self, perturbation: Perturbation) -> list[tuple[str, float]]:
        """Get the canonical SMILES and the dose of every drug that has one."""
        named = ((self.vocabulary.target(n), d) for n, d in zip(perturbation.targets, perturbation.doses, strict=True))
        return [(smiles, dose) for (kind, smiles), dose in named if kind == DRUG and dose is not None]

    def _provenance(self, perturbations: Sequence[Perturbation], seed: int) -> dict[str, Any]:
        """Say how cells were made, in what h5ad can hold."""
        trained_targets, named = set(self.vocabulary.trained_targets), self.vocabulary.named
        trained = {named(p) for p in [*self.vocabulary.trained_conditions, Perturbation()]}
        names = {name for p in perturbations for name in p.targets}
        unseen = [p for p in perturbations if named(p) not in trained]
        return {
            "version": version("unlasting"),
            "seed": seed,
            "preset": self._preset_name,
            "solver": self.preset.solver,
            "n_steps": self.preset.n_steps,
            "x_max": float(self.module.statistics.x_max),
            "scale": "log-normalised, as the training cells",
            "unseen_targets": np.array(
                sorted(name for name in names if self.vocabulary.target(name) not in trained_targets), dtype=str
            ),
            "unseen_conditions": np.array(sorted(map(self._write, unseen)), dtype=str),
        }

    def _said_of(self, keys: ScreenKeys, perturbations: Sequence[Perturbation], seed: int) -> dict[str, Any]:
        """Get `uns` of generated cells: where their labels are, and how they were made."""
        described = AnnData()
        keys.write(described)
        described.uns[UNS_KEY]["generated"] = self._provenance(perturbations, seed)
        return dict(described.uns)

    def _digest(self) -> str:
        """Get what tells this model from another, trained or set differently."""
        weights = (tensor.detach().cpu().numpy() for _, tensor in sorted(self.module.state_dict().items()))
        return digest_of(repr(self.preset), *weights)

    def _write(self, perturbation: Perturbation) -> str:
        """Name a condition, with its dose."""
        return str(Condition(perturbation.label(**self.keys.grammar), dose=perturbation.dose_text()))
