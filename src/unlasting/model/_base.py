"""State and checks that all parts of the model share."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scvi import settings

from unlasting.effects import DRUG, GENE, STIMULUS, TargetVocabulary
from unlasting.model._effects import EffectsMixin
from unlasting.model._mudata import expression_of, modality_of
from unlasting.screen import (
    Perturbation,
    Scale,
    check_cells,
    check_genes,
    check_log_normalised,
    expression,
    in_micromolar,
    logger,
    not_none,
    require_integers,
)

Dose = float | str | None
"""A dose in uM, or several as text."""

_BATCH_SIZE = 128  # chunks of this size stay in a processor's cache: half the time of 512 cells


class ModelBase(EffectsMixin):
    """A scvi-tools model with its preset, networks and vocabulary."""

    preparation_: dict[str, Any]
    history_: dict[str, pd.DataFrame] | None
    _preset_name: str
    _told: set[str]
    """Names that were said to be taken as another symbol: each once."""

    @property
    def targets(self) -> dict[str, list[str]]:
        """Names of the screen's targets by kind: `gene`, `drug` and `stimulus`."""
        return targets_by_kind(self.vocabulary, self._conditions())

    def get_var_names(self, legacy_mudata_format: bool = False) -> list[str]:
        """Get the model's genes in order.

        Parameters
        ----------
        legacy_mudata_format
            Without effect: scvi-tools passes it to every model.

        Returns
        -------
        Names, shape `(n_genes,)`.
        """
        return list(self.var_names_ if self.adata is None else self.adata.var_names)

    def _repr_html_(self) -> str:
        """Show the model as a table in notebooks."""
        steps = {name.split("_")[0]: int(frame.index.max()) for name, frame in (self.history_ or {}).items()}
        rows = {
            "preset": self._preset_name,
            "conditions": self.summary_stats["n_conditions"],
            **{f"{kind} targets": len(names) for kind, names in self.targets.items() if names},
            "genes": self.summary_stats["n_vars"],
            **({"graph": self._graph_summary} if self._graph_summary else {}),
            "trained": "yes" if self.is_trained_ else "no: call `model.train()`",
            **{f"last step of {name}": step for name, step in steps.items()},
        }
        cells = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(str(v))}</td></tr>" for k, v in rows.items())
        return f"<table><caption>{type(self).__name__}</caption>{cells}</table>"

    # -- shared by the mixins

    @property
    def _graph_summary(self) -> str:
        """Size of the graph, or an empty text where no network has a graph block."""
        if not (self.preset.denoiser.use_grn or self.preset.mask_network.use_grn):
            return ""
        return f"{self.summary_stats['n_nodes']} nodes, {self.summary_stats['n_edges']} edges"

    @property
    def _modalities(self) -> dict[str, str] | None:
        return self.registry_["setup_args"].get("modalities")

    @property
    def _layer(self) -> str | None:
        return self.registry_["setup_args"]["layer"]

    def _require_trained(self) -> None:
        if not self.is_trained_:
            raise RuntimeError(
                "The model is not trained yet. Call `model.train()` first, or `UnlastingModel.load(...)`."
            )

    def _require_controls(self, perturbations: np.ndarray, argument: str) -> None:
        others = sorted({p.label(**self.keys.grammar) for p in perturbations} - {self.keys.control})
        if others:
            raise ValueError(
                f"`{argument}` holds cells labelled {others[:5]}, but only controls ({self.keys.control_text}) can get "
                f"another perturbation. Pass `adata[adata.obs[{self.keys.perturbation_key!r}].isin("
                f"[{self.keys.control_text}])].copy()`."
            )

    def _resolve(self, adata: AnnData | MuData | None, argument: str = "adata") -> AnnData:
        """Check the given cells, or get the model's own."""
        if isinstance(adata, MuData):
            own = modality_of(adata, self._modalities)
            adata = own if own is self.adata else expression_of(adata, self._modalities, self.keys)
        if adata is None:
            if self.adata is None:
                raise ValueError("The model was loaded without an AnnData: give the control cells (`controls=...`).")
            return self.adata
        if adata is not self.adata:
            check_cells(adata, argument)
            check_genes(adata, self.get_var_names())
            check_scale(adata, self._layer, self.preparation_, argument)
        return adata

    def _asked(self, label: object, dose: Dose = None) -> Perturbation:
        """Parse a requested perturbation, and refuse unknown targets and missing doses."""
        drugs, dose_key = self.vocabulary.names_of_drugs, self.keys.dose_key
        if dose is not None and dose_key is None:
            raise ValueError(
                f"`dose` is {dose!r}, but the screen was set up without `dose_key`: its drugs have no dose. Leave `dose` "
                "out, or set up with `dose_key=...`."
            )
        asked = Perturbation.parse(label, in_micromolar(dose, "uM"), **self.keys.grammar, drugs=drugs)
        self.vocabulary.require_known([asked], **self.keys.grammar)
        for name in asked.targets:
            kind, target = self.vocabulary.target(name)
            if kind == GENE and target != name and name not in {*self.vocabulary.trained, *self._told}:
                self._told.add(name)
                logger.warning(
                    "%r is taken as the gene %r. If it is another one, write its present symbol.", name, target
                )
        undosed = asked.undosed(drugs)
        if dose_key is not None and undosed:
            raise ValueError(
                f"The drug {undosed[0]!r} of {str(label)!r} has no dose. Give `dose` in uM, such as `dose=1.0`, or "
                "'1+0.5' for two drugs in the order of the label."
            )
        return asked

    def _all_asked(self, perturbations: str | Sequence[str], dose: Dose | Sequence[Dose]) -> list[Perturbation]:
        """Parse requested perturbations and doses; a single one is repeated for all others."""
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


def targets_by_kind(vocabulary: TargetVocabulary, conditions: Iterable[Perturbation]) -> dict[str, list[str]]:
    """Group the names of all targets in some conditions by kind: `gene`, `drug` and `stimulus`."""
    names = sorted({name for condition in conditions for name in condition.targets})
    kinds = {"gene": GENE, "drug": DRUG, "stimulus": STIMULUS}
    return {kind: [n for n in names if vocabulary.target(n)[0] == code] for kind, code in kinds.items()}


def check_scale(adata: AnnData, layer: str | None, preparation: Mapping[str, Any], argument: str = "adata") -> None:
    """Refuse values that are not log-normalised, or on another scale than a model's training controls."""
    check_log_normalised(expression(adata, layer))
    if "control_totals" in preparation:
        fix = f"Pass raw counts on all genes through `model.prepare({argument})`."
        if "target_sum" in preparation:
            fix += f" The model's cells have {preparation['target_sum']:.6g} counts each, over all measured genes."
        scale = Scale(*preparation["control_totals"])
        scale.check(expression(adata, layer), np.arange(adata.n_obs), f"`{argument}`", fix)


def seed_or_default(seed: int | None) -> int:
    """Get a given seed, else `scvi.settings.seed`, else 0."""
    require_integers(0, **not_none(seed=seed))
    return next(one for one in (seed, settings.seed, 0) if one is not None)


def size_or_default(batch_size: int | None) -> int:
    """Get a given number of cells in a chunk, or the default."""
    require_integers(1, **not_none(batch_size=batch_size))
    return batch_size or _BATCH_SIZE
