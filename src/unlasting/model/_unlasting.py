"""The user-facing model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from anndata import AnnData
from mudata import MuData
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data.fields import LayerField

from unlasting.data import (
    GRAPH,
    PERTURBATION,
    POPULATION,
    SPLIT,
    GraphField,
    PerturbationField,
    PopulationField,
    SplitField,
)
from unlasting.effects import (
    GENE,
    STIMULUS,
    ConditionFeatures,
    EffectFit,
    HurdleParameters,
    OnTargetEffects,
    ResponderFit,
    Responders,
    ScreenStatistics,
    TargetVocabulary,
    fit_dose_curves,
    fit_effects,
    fit_molecular_similarity,
    fit_responders,
    fit_statistics,
)
from unlasting.model._attention import AttentionMixin
from unlasting.model._generation import GenerationMixin
from unlasting.model._mudata import expression_of, modality_of
from unlasting.model._prediction import seed_or_default
from unlasting.model._preparation import PreparationMixin, preparation_of
from unlasting.model._saving import SavingMixin
from unlasting.model._setup import check_setup, check_transfer, make_graph, report_kinds
from unlasting.model._training import TrainingMixin
from unlasting.module import Preset, UnlastingModule
from unlasting.screen import UNS_KEY, Perturbation, ScreenKeys, logger, not_none


class UnlastingModel(PreparationMixin, TrainingMixin, GenerationMixin, AttentionMixin, SavingMixin):
    r"""Predict single cells under perturbations, measured or not.

    A control cell is encoded to a Gaussian latent by the probability-flow ODE of a diffusion model of unperturbed
    cells, and decoded under the perturbation: dual conditional diffusion implicit bridges, which need no pairs of
    cells. A graph of genes carries the signal of the perturbation, and a mask network predicts which genes are
    silent. See the method page of the documentation.

    Parameters
    ----------
    adata
        A screen registered by :meth:`setup_anndata` or :meth:`setup_mudata`.
    registry
        The registry of a saved model, in place of `adata`. Used by :meth:`load`.
    preset
        `default`: the identity bridge. `paper`: the published recipe.
    **options
        Changes to entries of the preset (:class:`unlasting.module.Preset`) or to the sizes and switches of both
        networks (:class:`unlasting.nn.Architecture`), such as `width=512` or `use_grn=False`.

    Notes
    -----
    Initial weights are drawn from `scvi.settings.seed`, or 0: set it to another number for another draw.

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
    >>> ul.pp.grn(adata, prior="go")
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
        setup = self.registry_["setup_args"]
        if setup["mode"] != "knockout":
            self.preset = self.preset.replace(knock_out=False)
        graph = self._state(GRAPH)
        self.keys = ScreenKeys(
            **{f.name: setup[f.name] for f in dataclasses.fields(ScreenKeys) if f.name in setup},
            known_drugs=frozenset({*graph["drugs"], *graph["smiles"]}),
        )
        conditions = self._conditions()
        self.condition_features = ConditionFeatures(TargetVocabulary.read(graph, self._conditions(trained=True)))
        self._refuse_what_the_preset_cannot(conditions)
        statistics, effects, responders = self._fit_statistics()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_or_default(None))
            self.module = self._module_cls(
                self.preset,
                torch.as_tensor(graph["edge_index"]),
                len(graph["nodes"]),
                statistics,
                self._tensors(conditions),
                torch.as_tensor(np.unique(self._state(POPULATION)["cell_types"].astype(str), return_inverse=True)[1]),
                effects,
                responders,
                torch.as_tensor(graph["molecules"]) if len(graph["molecules"]) else None,
            )
        self.preparation_ = {} if adata is None else preparation_of(adata)
        self._preset_name, self._options = preset, options
        self._model_summary_string = (
            f"UnlastingModel with preset {preset!r}: {self.summary_stats['n_conditions']} conditions, "
            f"{self.summary_stats['n_trained_targets']} trained targets, {self.summary_stats['n_vars']} genes, "
            f"{self.summary_stats['n_nodes']} nodes, {self.summary_stats['n_edges']} edges"
        )
        self.init_params_ = self._get_init_params(locals())

    def _conditions(self, *, trained: bool = False) -> list[Perturbation]:
        """List the registered conditions, the control first, or those of training cells."""
        return PerturbationField(self.keys).conditions(self._state(PERTURBATION), trained=trained)

    def _registered_modality(self, mdata: MuData) -> AnnData:
        """Find the modality that :meth:`setup_mudata` registered."""
        found = [m for m in mdata.mod.values() if self._get_most_recent_anndata_manager(m) is not None]
        if len(found) != 1:
            raise ValueError(
                f"{len(found)} modalities of `mdata` are registered; one is needed. Call "
                "`UnlastingModel.setup_mudata(mdata, modalities={'layer': ..., ...})` first."
            )
        return found[0]

    def _refuse_what_the_preset_cannot(self, conditions: Sequence[Perturbation]) -> None:
        """Refuse targets that cannot reach networks without a learnt embedding of perturbations."""
        if self.preset.denoiser.condition_features:
            return
        targets = {self.vocabulary.target(name) for p in conditions for name in p.targets}
        stimuli = sorted(name for kind, name in targets if kind == STIMULUS)
        genes = sorted(name for kind, name in targets if kind == GENE)
        if stimuli or (genes and not self.preset.denoiser.use_grn):
            raise ValueError(
                f"The published recipe (`condition_features=0`) knows gene targets by their node in the graph, and drugs. "
                f"{(stimuli or genes)[:5]} cannot act in it"
                + (": they are no genes that `pp.grn` knows, and no drugs." if stimuli else " with `use_grn=False`.")
                + " The default preset takes them."
            )

    def _fit_statistics(self) -> tuple[ScreenStatistics, EffectFit, ResponderFit]:
        """Fit what needs no training, or make room for what was saved."""
        n_conditions, n_populations = self.summary_stats["n_conditions"], self.summary_stats["n_populations"]
        trained, n_genes = self.vocabulary.trained_conditions, self.summary_stats["n_vars"]
        if self.adata is None:
            n_features, n_drugs = len(self.condition_features), len(self.vocabulary.trained_drugs)
            return (
                ScreenStatistics.empty(n_genes, n_populations, n_conditions),
                EffectFit.empty(len(trained), n_features, n_populations, n_genes, n_drugs),
                ResponderFit.empty(n_conditions, n_populations, len(trained)),
            )
        codes = {
            name: np.asarray(self.adata_manager.get_from_registry(name)) for name in (PERTURBATION, POPULATION, SPLIT)
        }
        matrix = self.adata_manager.get_from_registry(REGISTRY_KEYS.X_KEY)
        cells: dict[str, Any] = {
            "condition": codes[PERTURBATION].ravel(),
            "population": codes[POPULATION].ravel(),
            "split": codes[SPLIT].ravel(),
            "control_code": 0,
            "n_conditions": n_conditions,
            "n_populations": n_populations,
        }
        responders = ResponderFit.empty(n_conditions, n_populations, len(trained))
        if self.preset.use_responders:
            targets = [frozenset(map(self.vocabulary.target, condition.targets)) for condition in self._conditions()]
            known = {of_condition: code for code, of_condition in enumerate(dict.fromkeys(targets))}
            perturbation = np.array([known[of_condition] for of_condition in targets])
            responders = fit_responders(matrix, **cells, perturbation=perturbation)
        statistics, measured = fit_statistics(
            matrix, **cells, responders=Responders(responders), use_mask=self.preset.use_mask
        )
        curves = fit_dose_curves(self.vocabulary, measured)
        molecular_similarity = fit_molecular_similarity(self.vocabulary, measured, curves)
        described = self.condition_features = ConditionFeatures(self.vocabulary, curves, molecular_similarity)
        profiles = statistics.control_mean.double().numpy()
        controls = HurdleParameters(statistics.control_log_odds, statistics.base, statistics.scale)
        mode = self.registry_["setup_args"]["mode"]
        own = OnTargetEffects.of(self.vocabulary, measured, controls, float(statistics.x_max), mode)
        effects = fit_effects(described(trained), described.specific, profiles, measured, own)
        of_targets = {
            "half_doses": torch.from_numpy(curves.half_doses),
            "slopes": torch.from_numpy(curves.slopes),
            "molecular_similarity": torch.tensor([molecular_similarity.sharpness, molecular_similarity.unlike]),
        }
        return statistics, dataclasses.replace(effects, **of_targets), responders

    @property
    def history(self) -> dict[str, Any] | None:
        """Losses and validation scores of both networks (`denoiser_...`, `mask_...`), one frame each.

        The validation score is the training loss on validation cells with averaged weights and fixed noise, lower is
        better: the weighted squared error over expressed genes, and the cross-entropy of the mask.
        """
        return self.history_

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        perturbation_key: str | None = None,
        control: str | None = None,
        *,
        cell_type_key: str | None = None,
        batch_key: str | None = None,
        dose_key: str | None = None,
        smiles_key: str | None = None,
        layer: str | None = None,
        split_key: str | None = None,
        delimiter: str | None = None,
        mode: str = "knockout",
        **kwargs: Any,
    ) -> None:
        """Register a screen.

        Nothing of the cells labelled `test` is used for training. Without a split column every condition is trained,
        and a tenth of the cells of each is kept for validation. Without :func:`unlasting.pp.grn` the graph is made
        from the co-expression of training cells, and the model can predict trained targets only.

        Parameters
        ----------
        adata
            Log-normalised cells (:func:`unlasting.pp.prepare`), shape `(n_cells, n_genes)`. Keys that earlier steps
            recorded are used; a different one is refused.
        perturbation_key
            Column of `obs` with the target (`"perturbation"` by default), `A+B` for combinations in any order, or the control label. A name that
            :func:`unlasting.pp.molecules` knows is a drug; else a gene of the panel or the prior is a gene target; any
            other is a stimulus, which can be predicted in other cell types, but not if it was never trained.
        control
            Label of unperturbed cells, by default `"control"`.
        cell_type_key
            Column of `obs` with the cell type. Every cell type needs control cells in training.
        batch_key
            Column of `obs` with the batch, where controls differ between batches.
        dose_key
            Column of `obs` with the doses of drugs in uM: a number, or text such as `1+0.5` in the order of the drugs.
            What it holds for controls, genes and stimuli is ignored. Dose 0 is control. Without it, drugs have no dose.
        smiles_key
            Column of `obs` with the SMILES of drugs, as it was given to :func:`unlasting.pp.molecules`. Not needed after
            it.
        layer
            Layer with the log-normalised values; `X` by default.
        split_key
            Column of `obs` with `train`, `val` or `test`, by default `"unlasting_split"`.
        delimiter
            Separator between the targets of a combination, by default `"+"`.
        mode
            What a perturbation does to its target. `knockout`: its node is zeroed. `knockdown`, `activation`: its
            node stays, and the learnt effect acts on it. The transcript of an untrained target is expected to change as
            those of trained ones do; where few are measured, a knock-down leaves a quarter, an activation makes it fourfold.
        **kwargs
            For scvi-tools.

        Returns
        -------
        `None`. Updates the following fields:

        - `adata.uns["unlasting"]["keys"]`: the names of the columns.
        - `adata.obs["_unlasting_perturbation"]`, `["_unlasting_population"]`, `["_unlasting_split"]`: integer codes.
        - `adata.uns["unlasting"]["grn"]`, if there was none.

        Raises
        ------
        KeyError
            If a column or layer is missing.
        ValueError
            If a key differs from the recorded one, labels or doses cannot be read, values are not log-normalised, there
            are no control cells, the split has changed since `pp.prepare` or `pp.grn`, the graph does not fit the genes, or drugs have
            no molecule.
        """
        arguments = locals()
        keys = _keys(adata, arguments)
        setup_method_args = cls._get_setup_method_args(**{**arguments, **keys.as_dict()})
        if "source_registry" not in kwargs:
            check_setup(adata, keys, layer, mode)
        cls._register(adata, keys, setup_method_args, **kwargs)

    @classmethod
    def setup_mudata(
        cls,
        mdata: MuData,
        perturbation_key: str | None = None,
        control: str | None = None,
        *,
        modalities: Mapping[str, str],
        cell_type_key: str | None = None,
        batch_key: str | None = None,
        dose_key: str | None = None,
        smiles_key: str | None = None,
        layer: str | None = None,
        split_key: str | None = None,
        delimiter: str | None = None,
        mode: str = "knockout",
        **kwargs: Any,
    ) -> None:
        """Register a screen whose expression and labels are in different modalities.

        The columns with the labels are copied to the cells of the expression modality, which is then what the model
        works on. Its methods take the MuData wherever they take an AnnData, and write into this modality.
        Where labels have to be found from counts of guides, call :func:`unlasting.pp.assign_guides` first.

        Parameters
        ----------
        mdata
            The modalities of the cells.
        perturbation_key, control, cell_type_key, batch_key, dose_key, smiles_key, split_key, delimiter, mode
            As for :meth:`setup_anndata`.
        modalities
            Where each argument is found: `{"layer": "rna", "perturbation_key": "guides"}` takes the expression from
            `mdata["rna"]` and the perturbations from `mdata["guides"].obs`. `layer` is needed; a column of an argument
            that is not named is taken from `mdata.obs`, or else from the expression modality.
        layer
            Layer of the expression modality with the log-normalised values; its `X` by default.
        **kwargs
            For scvi-tools.

        Returns
        -------
        `None`. Updates the following fields, of the expression modality:

        - the columns of `obs` that hold labels.
        - those of :meth:`setup_anndata`.

        Raises
        ------
        KeyError
            If a modality or a column is missing, or `modalities` does not name that of `layer`.
        ValueError
            If the expression modality has other values in a column, or as for :meth:`setup_anndata`.
        """
        arguments = {**locals(), "modalities": dict(modalities)}
        expression = modality_of(mdata, modalities)
        keys = _keys(expression, arguments)
        setup_method_args = cls._get_setup_method_args(**{**arguments, **keys.as_dict()})
        adata = expression_of(mdata, modalities, keys)
        if "source_registry" not in kwargs:
            check_setup(adata, keys, layer, mode)
        expression.obs = adata.obs
        cls._register(expression, keys, setup_method_args, **kwargs)

    @classmethod
    def _register(cls, adata: AnnData, keys: ScreenKeys, setup_method_args: dict[str, Any], **kwargs: Any) -> None:
        """Register a screen that was checked."""
        saved = kwargs.get("source_registry")
        if saved is None:
            keys.write(adata)
            if "grn" not in adata.uns[UNS_KEY]:
                make_graph(adata)
        else:
            graph = saved["field_registries"][GRAPH]["state_registry"]
            keys = dataclasses.replace(keys, known_drugs=frozenset({*graph["drugs"], *graph["smiles"]}))
            check_transfer(adata, keys, setup_method_args["setup_args"]["layer"], saved["field_registries"])
        fields = [
            LayerField(REGISTRY_KEYS.X_KEY, setup_method_args["setup_args"]["layer"], is_count_data=False),
            SplitField(keys),
            PerturbationField(keys),
            PopulationField(keys),
            GraphField(),
        ]
        manager = AnnDataManager(fields=fields, setup_method_args=setup_method_args)
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)
        if saved is None:
            if keys.split_key not in adata.obs:
                logger.info(
                    "setup_anndata: no `obs[%r]`: all conditions are trained, and none is left to judge predictions by; "
                    "`pp.split` holds some out.",
                    keys.split_key,
                )
            states = {name: manager.get_state_registry(name) for name in (GRAPH, PERTURBATION)}
            of_keys = PerturbationField(keys)
            vocabulary = TargetVocabulary.read(states[GRAPH], of_keys.conditions(states[PERTURBATION], trained=True))
            report_kinds(vocabulary, of_keys.conditions(states[PERTURBATION]))


def _keys(adata: AnnData, arguments: Mapping[str, Any]) -> ScreenKeys:
    """Read the recorded keys and add those given; a saved model keeps its own, whatever is recorded."""
    given = {name: arguments[name] for name in ScreenKeys().as_dict()}
    return (
        ScreenKeys(**not_none(**given)) if "source_registry" in arguments["kwargs"] else ScreenKeys.read(adata, **given)
    )
