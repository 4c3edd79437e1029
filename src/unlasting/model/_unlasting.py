"""The user-facing model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from anndata import AnnData
from mudata import MuData

from unlasting.data import GRAPH, POPULATION
from unlasting.effects import GENE, STIMULUS, ConditionFeatures, TargetVocabulary
from unlasting.model._base import seed_or_default
from unlasting.model._latent import LatentMixin
from unlasting.model._saving import SavingMixin
from unlasting.model._setup import SetupMixin, preparation_of
from unlasting.model._training import TrainingMixin
from unlasting.module import Preset, UnlastingModule
from unlasting.nn import GRAPH_OPTIONS
from unlasting.screen import Perturbation, ScreenKeys, logger


class UnlastingModel(SetupMixin, TrainingMixin, LatentMixin, SavingMixin):
    """Predict single cells under perturbations, measured or not.

    A source diffusion model encodes a control cell to a Gaussian latent by its probability-flow ODE, and a target model
    decodes it under the perturbation. These dual conditional diffusion implicit bridges need no pairs of cells. A mask
    network predicts silent genes. A gene graph transmits the perturbation's signal in `preset="paper"`, and with
    `use_grn=True`; the default has its signal from the effects model alone. See the documentation's method page.

    Parameters
    ----------
    adata
        A screen registered by :meth:`setup_anndata` or :meth:`setup_mudata`.
    registry
        A saved model's registry, in place of `adata`; for :meth:`load`.
    preset
        `default`: the identity bridge. `paper`: the published recipe.
    **options
        Changes to entries of the preset (:class:`unlasting.module.Preset`) or to sizes and switches of both networks
        (:class:`unlasting.nn.Architecture`), such as `width=512` or `use_grn=True`.

    Notes
    -----
    `scvi.settings.seed`, or 0, seeds the initial weights.

    A subclass may set `_module_cls`, `_training_plan_cls` and `_data_splitter_cls`.

    Raises
    ------
    ValueError
        If the preset is unknown.
    TypeError
        If an option is unknown.

    Examples
    --------
    >>> import unlasting as ul
    >>> adata = ul.datasets.papalexi()
    >>> ul.pp.split(adata, "unseen_perturbation")
    >>> ul.pp.prepare(adata)
    >>> ul.pp.grn(adata)
    >>> ul.UnlastingModel.setup_anndata(adata)
    >>> model = ul.UnlastingModel(adata)
    >>> model.train()  # doctest: +SKIP
    >>> cells = model.generate(["STAT1", "JAK2+STAT1"], n_cells=300)  # doctest: +SKIP
    """

    _module_cls = UnlastingModule

    def __init__(
        self,
        adata: AnnData | MuData | None = None,
        registry: dict[str, Any] | None = None,
        preset: str = "default",
        **options: Any,
    ) -> None:
        if isinstance(adata, MuData):
            adata = self._registered_modality(adata)
        super().__init__(adata, registry)
        self.preset = Preset.named(preset).replace(**options)
        if idle := sorted(GRAPH_OPTIONS & options.keys()):
            if not (self.preset.denoiser.use_grn or self.preset.mask_network.use_grn):
                logger.warning(
                    "%s: without effect, since this model has no graph block. Add `use_grn=True`, or leave the option out.",
                    ", ".join(f"`{name}`" for name in idle),
                )
        setup = self.registry_["setup_args"]
        # without an embedding the zeroed node is the only sign of a gene target (Eq. 10), in every mode
        if setup["mode"] != "knockout" and self.preset.denoiser.condition_features:
            self.preset = self.preset.replace(knock_out=False)
        graph = self._state(GRAPH)
        self.keys = ScreenKeys(
            **{f.name: setup[f.name] for f in dataclasses.fields(ScreenKeys) if f.name in setup},
            known_drugs=frozenset({*graph["drugs"], *graph["smiles"]}),
        )
        conditions = self._conditions()
        self.vocabulary = TargetVocabulary.read(graph, self._conditions(trained=True))
        self._check_targets(conditions)
        self._told: set[str] = set()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_or_default(None))
            self.module = self._module_cls(
                self.preset,
                torch.as_tensor(graph["edge_index"]),
                len(graph["nodes"]),
                self.summary_stats["n_vars"],
                len(ConditionFeatures(self.vocabulary)),
                conditions,
                torch.as_tensor(np.unique(self._state(POPULATION)["cell_types"].astype(str), return_inverse=True)[1]),
                torch.as_tensor(graph["molecules"]) if len(graph["molecules"]) else None,
            )
        self.preparation_ = {} if adata is None else preparation_of(adata, self.keys, setup["layer"])
        self._preset_name = preset
        self._model_summary_string = (
            f"UnlastingModel with preset {preset!r}: {self.summary_stats['n_conditions']} conditions, "
            f"{self.summary_stats['n_trained_targets']} trained targets, {self.summary_stats['n_vars']} genes"
            + (f", {self._graph_summary}" if self._graph_summary else "")
        )
        self.init_params_ = self._get_init_params(locals())

    def _registered_modality(self, mdata: MuData) -> AnnData:
        """Find the modality that :meth:`setup_mudata` registered."""
        found = [m for m in mdata.mod.values() if self._get_most_recent_anndata_manager(m) is not None]
        if len(found) != 1:
            raise ValueError(
                f"{len(found)} modalities of `mdata` are registered; one is needed. Call "
                "`UnlastingModel.setup_mudata(mdata, modalities={'layer': ..., ...})` first."
            )
        return found[0]

    def _check_targets(self, conditions: Sequence[Perturbation]) -> None:
        """Refuse targets that cannot reach the published networks, which embed no perturbations."""
        if self.preset.denoiser.condition_features:
            return
        targets = {self.vocabulary.target(name) for p in conditions for name in p.targets}
        stimuli = sorted(name for kind, name in targets if kind == STIMULUS)
        genes = sorted(name for kind, name in targets if kind == GENE)
        if stimuli or (genes and not self.preset.denoiser.use_grn):
            raise ValueError(
                f"The published recipe (`condition_features=0`) takes drugs, and genes with a node in the graph. "
                f"{(stimuli or genes)[:5]} cannot act in it"
                + (": they are neither." if stimuli else " with `use_grn=False`.")
                + " Use the default preset."
            )
