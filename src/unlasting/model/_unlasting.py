"""The user-facing model."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from anndata import AnnData
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data.fields import LayerField

from unlasting._constants import SPLIT_KEY, UNS_KEY
from unlasting._keys import ScreenKeys, split_hash
from unlasting._logging import logger
from unlasting._perturbation import parse_labels
from unlasting.data import (
    GRAPH,
    PERTURBATION,
    POOL,
    SPLIT,
    GraphField,
    PerturbationField,
    PoolField,
    SplitField,
    TargetVocabulary,
    check_screen,
    fit_statistics,
    split_codes,
)
from unlasting.model._prediction import PredictionMixin
from unlasting.model._preparation import PreparationMixin, preparation_of
from unlasting.model._saving import SavingMixin
from unlasting.model._training import TrainingMixin
from unlasting.module import Preset, UnlastingModule
from unlasting.nn import ScreenStatistics

MODES = ("knockout", "knockdown", "activation")


class UnlastingModel(PreparationMixin, TrainingMixin, PredictionMixin, SavingMixin):
    r"""Predict single cells under perturbations, measured or not.

    A control cell is encoded to a Gaussian latent by the probability-flow ODE of a diffusion model of unperturbed
    cells, and decoded under the perturbation: dual conditional diffusion implicit bridges, which need no pairs of
    cells. A graph of genes carries the signal of the perturbation, and a mask network predicts which genes are
    silent. See the method page of the documentation.

    Parameters
    ----------
    adata
        A screen registered by :meth:`setup_anndata`.
    registry
        The registry of a saved model, in place of `adata`. Used by :meth:`load`.
    preset
        `default`: the identity bridge. `paper`: the published recipe.
    **options
        Changes to entries of the preset (:class:`unlasting.module.Preset`) or to the sizes and switches of both
        networks (:class:`unlasting.nn.Architecture`), such as `width=512` or `use_grn=False`.

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
        adata: AnnData | None = None,
        registry: dict[str, Any] | None = None,
        preset: str = "default",
        **options: Any,
    ) -> None:
        super().__init__(adata, registry)
        self.preset = Preset.named(preset).replace(**options)
        setup = self.registry_["setup_args"]
        if setup["mode"] != "knockout":
            self.preset = self.preset.replace(knock_out=False)
        self.keys = ScreenKeys(**{f.name: setup[f.name] for f in dataclasses.fields(ScreenKeys) if f.name in setup})
        graph, perturbations = self._state(GRAPH), self._state(PERTURBATION)
        self.vocabulary = TargetVocabulary(
            nodes=list(graph["nodes"]),
            trained=list(perturbations["trained_targets"]),
            embedded=list(graph["embedded"]),
            embedding=graph["embedding"],
        )
        self.module = self._module_cls(
            self.preset,
            torch.as_tensor(graph["edge_index"]),
            len(graph["nodes"]),
            self._fit_statistics(),
            self.vocabulary.tensors([self._parse(label) for label in perturbations["conditions"]]),
            len(self.vocabulary.trained),
            torch.as_tensor(np.unique(self._state(POOL)["cell_types"].astype(str), return_inverse=True)[1]),
        )
        self.preparation_ = {} if adata is None else preparation_of(adata)
        self._preset_name, self._options = preset, options
        self._model_summary_string = (
            f"UnlastingModel with preset {preset!r}: {self.summary_stats['n_conditions']} conditions, "
            f"{self.summary_stats['n_trained_targets']} trained targets, {self.summary_stats['n_vars']} genes, "
            f"{self.summary_stats['n_nodes']} nodes, {self.summary_stats['n_edges']} edges"
        )
        self.init_params_ = self._get_init_params(locals())

    def _fit_statistics(self) -> ScreenStatistics:
        n_conditions, n_pools = self.summary_stats["n_conditions"], self.summary_stats["n_pools"]
        if self.adata is None:
            return ScreenStatistics.empty(self.summary_stats["n_vars"], n_pools, n_conditions)
        codes = {name: np.asarray(self.adata_manager.get_from_registry(name)) for name in (PERTURBATION, POOL, SPLIT)}
        return fit_statistics(
            self.adata_manager.get_from_registry(REGISTRY_KEYS.X_KEY),
            condition=codes[PERTURBATION].ravel(),
            pool=codes[POOL].ravel(),
            split=codes[SPLIT].ravel(),
            control_code=0,
            n_conditions=n_conditions,
            n_pools=n_pools,
        )

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
        perturbation_key: str = "perturbation",
        control: str = "control",
        *,
        cell_type_key: str | None = None,
        batch_key: str | None = None,
        layer: str | None = None,
        split_key: str = SPLIT_KEY,
        delimiter: str = "+",
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
            Log-normalised cells (:func:`unlasting.pp.prepare`), shape `(n_cells, n_genes)`.
        perturbation_key
            Column of `obs` with the target, `A+B` for combinations in any order, or the control label.
        control
            Label of unperturbed cells.
        cell_type_key
            Column of `obs` with the cell type. Every cell type needs control cells in training.
        batch_key
            Column of `obs` with the batch, where controls differ between batches.
        layer
            Layer with the log-normalised values; `X` by default.
        split_key
            Column of `obs` with `train`, `val` or `test`.
        delimiter
            What separates the targets of a combination.
        mode
            What a perturbation does to its target. `knockout`: its node is zeroed. `knockdown`, `activation`: its
            node stays, and the learnt effect acts on it.
        **kwargs
            For scvi-tools.

        Returns
        -------
        `None`. Updates the following fields:

        - `adata.uns["unlasting"]["keys"]`: the names of the columns.
        - `adata.obs["_unlasting_perturbation"]`, `["_unlasting_pool"]`, `["_unlasting_split"]`: integer codes.
        - `adata.uns["unlasting"]["grn"]`, if there was none.

        Raises
        ------
        KeyError
            If a column or layer is missing.
        ValueError
            If labels cannot be read, values are not log-normalised, there are no control cells, the split has changed
            since `pp.prepare` or `pp.grn`, or the graph does not fit the genes.
        """
        setup_method_args = cls._get_setup_method_args(
            adata=adata,
            perturbation_key=perturbation_key,
            control=control,
            cell_type_key=cell_type_key,
            batch_key=batch_key,
            layer=layer,
            split_key=split_key,
            delimiter=delimiter,
            mode=mode,
            cls=cls,
        )
        keys = ScreenKeys(perturbation_key, control, cell_type_key, batch_key, split_key, delimiter)
        if "source_registry" not in kwargs:
            _check_setup(adata, keys, layer, mode)
            if "grn" not in adata.uns.get(UNS_KEY, {}):
                _make_graph(adata, keys)
            keys.write(adata)
        fields = [
            LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=False),
            SplitField(keys),
            PerturbationField(keys),
            PoolField(keys),
            GraphField(),
        ]
        manager = AnnDataManager(fields=fields, setup_method_args=setup_method_args)
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)


def _check_setup(adata: AnnData, keys: ScreenKeys, layer: str | None, mode: str) -> None:
    """Refuse whatever cannot be trained on, before anything is written."""
    if mode not in MODES:
        raise ValueError(f"`mode` is {mode!r}; choose one of {list(MODES)}.")
    check_screen(adata, layer)
    labels, split = keys.labels(adata), keys.split(adata)
    in_training = split_codes(adata, keys) == 0
    is_control = labels == keys.control
    if not (in_training & is_control).any():
        raise ValueError(
            f"No control cell is labelled 'train' in `adata.obs[{keys.split_key!r}]`; training needs some. "
            "`pp.split` labels them so."
        )
    if not (in_training & ~is_control).any():
        raise ValueError(
            f"No perturbed cell is labelled 'train' in `adata.obs[{keys.split_key!r}]`: there is nothing to learn from."
        )
    pools = list(zip(keys.cell_types(adata), keys.batches(adata), strict=True))
    without = sorted(set(pools) - {pools[row] for row in np.flatnonzero(in_training & is_control)})
    if without:
        cell_type, batch = without[0]
        named = [f"`cell_type_key` {cell_type!r}"] * bool(keys.cell_type_key)
        named += [f"`batch_key` {batch!r}"] * bool(keys.batch_key)
        raise ValueError(
            f"{len(without)} of {len(set(pools))} pools have no control cells in training, the first: "
            f"{', '.join(named)}. Every prediction starts from controls of its own cell type and batch: add controls, "
            "drop these cells, or set up without this key."
        )
    for step in ("prepare", "split", "grn"):
        report = adata.uns.get(UNS_KEY, {}).get(step, {})
        report = report.get("report", report)
        recorded = report.get("split_hash", report.get("hash", "")) if isinstance(report, dict) else ""
        if recorded and recorded != split_hash(adata.obs_names, split):
            raise ValueError(
                f"`adata.obs[{keys.split_key!r}]` or the cells have changed since `pp.{step}`: what it fitted may "
                f"know the test cells. Run `pp.{step}` and the steps after it again on the raw counts."
            )
    graph = adata.uns.get(UNS_KEY, {}).get("grn")
    if graph is not None:
        nodes = np.asarray(graph["nodes"], dtype=object)
        if list(nodes[: adata.n_vars]) != list(adata.var_names):
            raise ValueError(
                f"The graph in `adata.uns['unlasting']['grn']` has {len(nodes)} nodes that do not begin with the "
                f"{adata.n_vars} genes of `adata` in their order. Call `pp.grn(adata)` after the last change of genes."
            )
        strange = sorted({*graph["edges"]["source"], *graph["edges"]["target"]} - set(nodes))
        if strange:
            raise ValueError(
                f"The graph in `adata.uns['unlasting']['grn']` has edges at {strange[:5]}, which are no nodes of it. "
                "Call `pp.grn(adata)`, or add them to its nodes."
            )
        lost = sorted(
            {
                name
                for p in parse_labels(labels, control=keys.control, delimiter=keys.delimiter).values()
                for name in p.targets
            }
            - set(nodes)
        )
        if lost:
            raise ValueError(
                f"The targets {lost[:5]} are no nodes of the graph in `adata.uns['unlasting']['grn']`. "
                "Call `pp.grn(adata)` again, with the labels that the cells have now."
            )


def _make_graph(adata: AnnData, keys: ScreenKeys) -> None:
    """Make a co-expression graph where the user made none."""
    from unlasting import pp

    logger.warning(
        "`pp.grn` was not called: the graph is made from the co-expression of training cells alone, without a prior. "
        "Trained perturbations can be predicted, targets that were never trained cannot be told apart."
    )
    pp.grn(
        adata,
        prior=None,
        perturbation_key=keys.perturbation_key,
        control=keys.control,
        split_key=keys.split_key,
        delimiter=keys.delimiter,
    )
