"""Registration of screens, and preparation of new cells like those of the registered screen."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data.fields import LayerField

from unlasting import pp
from unlasting.data import (
    GRAPH,
    PERTURBATION,
    GraphField,
    PerturbationField,
    PopulationField,
    SplitField,
    split_codes,
)
from unlasting.effects import TargetVocabulary
from unlasting.model._base import ModelBase, targets_by_kind
from unlasting.model._mudata import expression_of, modality_of
from unlasting.model._sources import label_as_controls
from unlasting.pp._genes import gene_names, looks_like_gene
from unlasting.pp._molecules import drugs_by_name
from unlasting.screen import (
    SPLIT_KEY,
    SPLITS,
    TEST,
    TRAIN,
    UNS_KEY,
    Perturbation,
    Scale,
    ScreenKeys,
    check_cells,
    check_log_normalised,
    expression,
    is_in_memory,
    listed,
    logger,
    not_none,
    require_choices,
    require_controls,
    require_perturbed,
    split_hash,
    use_one_index_width,
    warn_of_labels,
)

MODES = ("knockout", "knockdown", "activation")


class SetupMixin(ModelBase):
    """`setup_anndata`, `setup_mudata` and `prepare`."""

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        perturbation_key: str | None = None,
        control: str | Sequence[str] | None = None,
        *,
        cell_type_key: str | None = None,
        batch_key: str | None = None,
        dose_key: str | None = None,
        dose_unit: str | None = None,
        smiles_key: str | None = None,
        layer: str | None = None,
        split_key: str | None = None,
        delimiter: str | None = None,
        mode: str = "knockout",
        **kwargs: Any,
    ) -> None:
        """Register a screen.

        Cells labelled `test` never enter training. Without a split column every condition is trained, and a tenth of its
        cells is kept for validation. Without :func:`unlasting.pp.grn` nothing is known about genes beside this screen, and
        untrained targets get little more than their on-target effect.

        Keys that earlier steps recorded are used by default; a different one is refused.

        Parameters
        ----------
        adata
            Log-normalised cells (:func:`unlasting.pp.prepare`), shape `(n_cells, n_genes)`.
        perturbation_key
            Column of `obs` with targets, `A+B` for combinations in any order, or the control label; `"perturbation"` by
            default. A name in :func:`unlasting.pp.molecules` is a drug; else a gene in the panel or prior is a gene
            target; any other is a stimulus. An untrained stimulus cannot be predicted.
        control
            Label of unperturbed cells, `"control"` by default. Several labels, or a pattern such as `"NT*"`, name one control.
        cell_type_key
            Column of `obs` with cell types. Each needs control cells in training.
        batch_key
            Column of `obs` with batches, where controls differ between batches.
        dose_key
            Column of `obs` with drug doses: a number, or text such as `1+0.5` in the label's order. Ignored for
            controls, genes and stimuli. Dose 0 is the control. Without it, drugs have no dose.
        dose_unit
            Unit of the doses in this column, such as `"nM"` or `"log10 M"`; `"uM"` by default. Other doses are in uM.
        smiles_key
            Column of `obs` with SMILES, as for :func:`unlasting.pp.molecules`. Not needed after it.
        layer
            Layer with log-normalised values; `X` by default.
        split_key
            Column of `obs` with `train`, `val` or `test`, `"unlasting_split"` by default.
        delimiter
            Separator between the targets of a combination, `"+"` by default.
        mode
            Effect of a perturbation on its target. `knockout` zeroes the target's node, where networks have a graph. With
            `knockdown` and `activation` the node stays, and the learnt effect acts on it. An untrained target's transcript changes as
            those of trained targets do; where few are measured, to a quarter for `knockdown` and fourfold for
            `activation`.
        **kwargs
            For scvi-tools.

        Returns
        -------
        `None`. Updates the following fields:

        - `adata.uns["unlasting"]["keys"]`: names of the columns.
        - `adata.uns["unlasting"]["label_review"]`: the warning about labels, or an empty text.
        - `adata.obs["_unlasting_perturbation"]`, `["_unlasting_population"]`, `["_unlasting_split"]`: integer codes.
        - `adata.uns["unlasting"]["grn"]`, if absent.

        Raises
        ------
        KeyError
            If a column or layer is missing.
        ValueError
            If a key differs from the recorded one, labels or doses cannot be read, values are not log-normalised,
            controls are missing, the split has changed since `pp.prepare` or `pp.grn`, the graph does not fit the genes,
            or drugs have no molecule.
        """
        arguments = locals()
        cls._register(adata, adata, arguments)

    @classmethod
    def setup_mudata(
        cls,
        mdata: MuData,
        perturbation_key: str | None = None,
        control: str | Sequence[str] | None = None,
        *,
        modalities: Mapping[str, str],
        cell_type_key: str | None = None,
        batch_key: str | None = None,
        dose_key: str | None = None,
        dose_unit: str | None = None,
        smiles_key: str | None = None,
        layer: str | None = None,
        split_key: str | None = None,
        delimiter: str | None = None,
        mode: str = "knockout",
        **kwargs: Any,
    ) -> None:
        """Register a screen with expression and labels in different modalities.

        Label columns are copied to the cells of the expression modality. All methods then take the MuData in place of an
        AnnData, and write into this modality. For labels from guide counts, call :func:`unlasting.pp.assign_guides`
        first.

        Parameters
        ----------
        mdata
            Modalities of the same cells.
        perturbation_key, control, cell_type_key, batch_key, dose_key, dose_unit, smiles_key, split_key, delimiter, mode
            As for :meth:`setup_anndata`.
        modalities
            Modality of each argument: `{"layer": "rna", "perturbation_key": "guides"}` takes the expression from
            `mdata["rna"]` and the perturbations from `mdata["guides"].obs`. `layer` is needed. Columns without a modality
            come from `mdata.obs`, or else from the expression modality.
        layer
            Layer of the expression modality with log-normalised values; its `X` by default.
        **kwargs
            For scvi-tools.

        Returns
        -------
        `None`. Updates the following fields, in the expression modality:

        - label columns of `obs`.
        - those of :meth:`setup_anndata`.

        Raises
        ------
        KeyError
            If a modality or a column is missing, or `modalities` lacks `layer`.
        ValueError
            If the expression modality has other values in a column, or as for :meth:`setup_anndata`.
        """
        arguments = {**locals(), "modalities": dict(modalities)}
        cls._register(mdata, modality_of(mdata, modalities), arguments)

    @classmethod
    def _register(cls, data: AnnData | MuData, adata: AnnData, arguments: dict[str, Any]) -> None:
        """Check the expression `adata` of a screen, and register it with the arguments of its setup."""
        kwargs, layer = arguments["kwargs"], arguments["layer"]
        saved = kwargs.get("source_registry")
        check_cells(adata, writable=True)
        given = {name: arguments[name] for name in ScreenKeys().as_dict()}
        # a saved model keeps its own keys, whatever is recorded
        keys = ScreenKeys.read(adata, **given) if saved is None else ScreenKeys(**not_none(**given))
        if isinstance(data, MuData):
            labelled = expression_of(data, arguments["modalities"], keys)
        else:
            labelled = adata
        matrix = expression(adata, layer)
        use_one_index_width(matrix)
        if getattr(matrix, "format", "csr") == "csc" and not is_in_memory(matrix):
            logger.warning(
                "setup_anndata: the expression on disk is stored by genes (CSC), so that each block of cells takes a read of the "
                "whole file. Store it by cells: `adata = adata.to_memory()`, `adata.X = adata.X.tocsr()`, `adata.write_h5ad(...)`."
            )
        if saved is None:
            check_setup(labelled, keys, layer, arguments["mode"])
        if labelled is not adata:
            adata.obs = labelled.obs
        if saved is None:
            keys.write(adata)
            warn_of_labels(adata, keys, "setup_anndata")
            if keys.dose_key is not None and keys.drugs(adata) is None:
                pp.molecules(adata, embedding="names")
                logger.warning(
                    "setup_anndata: there are doses but no SMILES, so %s are drugs by name alone, and untrained drugs cannot be "
                    "predicted. For these, call `pp.molecules(adata, smiles_key=...)` first.",
                    listed(adata.uns[UNS_KEY]["molecules"]["drugs"]),
                )
            if "grn" not in adata.uns[UNS_KEY]:
                logger.warning(
                    "`pp.grn` was not called, so nothing is known about genes beside this screen: untrained targets get little more "
                    "than their on-target effect. Call `pp.grn(adata)` first for these."
                )
                pp.grn(adata, prior=None)
        else:
            graph = saved["field_registries"][GRAPH]["state_registry"]
            keys = dataclasses.replace(keys, known_drugs=frozenset({*graph["drugs"], *graph["smiles"]}))
            label_as_controls(adata, keys)
            label_as_test(adata, keys, saved["field_registries"])
            check_transfer(adata, keys, layer, saved["field_registries"])
        field = PerturbationField(keys)
        expression_field = LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=False)
        fields = [expression_field, SplitField(keys), field, PopulationField(keys), GraphField()]
        setup_method_args = cls._get_setup_method_args(**{**arguments, **keys.as_dict()})
        manager = AnnDataManager(fields=fields, setup_method_args=setup_method_args)
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)
        if saved is not None:
            return
        if keys.split_key not in adata.obs:
            logger.info(
                "setup_anndata: no `obs[%r]`: all conditions are trained, and none is left for evaluation. Call `pp.split` "
                "to hold some out.",
                keys.split_key,
            )
        conditions = manager.get_state_registry(PERTURBATION)
        vocabulary = TargetVocabulary.read(
            manager.get_state_registry(GRAPH), field.conditions(conditions, trained=True)
        )
        targets = targets_by_kind(vocabulary, field.conditions(conditions))
        logger.info(
            "setup_anndata: %d gene targets, %d drugs, %d stimuli%s.",
            *(len({vocabulary.target(name) for name in names}) for names in targets.values()),
            f" ({listed(targets['stimulus'], 10)})"
            if targets["stimulus"]
            else "",  # a misspelt gene would be among them
        )
        spelt = [name for name in targets["stimulus"] if looks_like_gene(name)]
        if spelt:
            logger.warning(
                "setup_anndata: the stimuli %s are spelt like genes, but neither measured nor in the prior. Correct the names, "
                "or name genes in `pp.grn(adata, targets=[...])`.",
                listed(spelt),
            )

    def prepare(self, adata: AnnData, *, copy: bool = False) -> AnnData | None:
        """Normalise raw counts like the training screen, on the model's genes.

        For new cells: controls to start from, or a screen to predict and evaluate. They get the graph, embeddings and
        molecules of the model's screen, which baselines read. If all of them belong to that screen, by name and label,
        they get its split too.

        Parameters
        ----------
        adata
            Cells with raw counts in `X` on all genes of the training screen, in any order, shape `(n_cells, n_genes)`.
        copy
            Whether a changed copy is returned, and `adata` left unchanged.

        Returns
        -------
        `None`, or the copy. Updates the fields of :func:`unlasting.pp.prepare`, `adata.uns["unlasting"]["grn"]`,
        `["target_embedding"]` and `["molecules"]`, and `adata.obs[split_key]` for cells in the training screen.

        Raises
        ------
        KeyError
            If the training screen had a column with library sizes, and `adata` has none.
        ValueError
            If `X` holds other values than raw counts, genes are missing, or the training screen was not normalised by
            `pp.prepare`.
        """
        if "target_sum" not in self.preparation_ or self._layer is not None:
            raise ValueError(
                "This model's screen was not normalised by `unlasting.pp.prepare`, so its normalisation is unknown. "
                "Normalise the new cells in the same way, and pass `adata[:, model.get_var_names()].copy()`."
            )
        check_cells(adata)
        missing = [
            gene for gene in self.get_var_names() if gene not in set(gene_names(adata, self.get_var_names(), None)[0])
        ]
        if missing:
            raise ValueError(
                f"{len(missing)} of the {len(self.get_var_names())} genes of the model are missing in the new cells: "
                f"{listed(missing)}. Train on the genes in common (`pp.prepare(adata, genes=...)`), or pass cells with all "
                "measured genes. If these genes were measured and never detected, add them as zeros."
            )
        adata = adata.copy() if copy else adata
        label_as_controls(adata, self.keys)
        split = self._known_split(adata)
        n_genes, before = adata.n_vars, self.preparation_["genes_before"]
        pp.prepare(
            adata,
            genes=self.get_var_names(),
            library_size_key=self.preparation_["library_size_key"] or None,
            target_sum=self.preparation_["target_sum"],
            perturbation_key=self.keys.perturbation_key,
            control=self.keys.as_dict()["control"],
            split_key=self.keys.split_key,
            delimiter=self.keys.delimiter,
        )
        if split is not None:
            adata.obs[self.keys.split_key] = split
        self.keys.write(adata)
        stored = {} if self.adata is None else self.adata.uns[UNS_KEY]
        present = [key for key in ("grn", "target_embedding", "molecules") if key in stored]
        adata.uns[UNS_KEY] |= {key: deepcopy(stored[key]) for key in present}
        if n_genes != before and not self.preparation_["library_size_key"]:
            logger.warning(
                "The new cells have counts of %d genes, the training screen had %d: library sizes, and with them all "
                "values, are comparable only if the further genes hold few counts. Pass the same genes if you can.",
                n_genes,
                before,
            )
        return adata if copy else None

    def _known_split(self, adata: AnnData) -> np.ndarray | None:
        """Look up each cell's split, if all are cells of the training screen."""
        key, screen = self.keys.split_key, self.adata
        if screen is None or key not in screen.obs or key in adata.obs or self.keys.perturbation_key not in adata.obs:
            return None
        rows = screen.obs_names.get_indexer(adata.obs_names)
        own = self.keys.perturbations(screen)
        if (rows < 0).any() or not np.array_equal(self.keys.perturbations(adata), own[rows]):
            return None
        return screen.obs[key].to_numpy()[rows]


def label_as_test(adata: AnnData, keys: ScreenKeys, saved: Mapping[str, Any]) -> None:
    """Label the cells of a screen without a split that holds more than a saved model's screen, and log it.

    Perturbed cells are `test`, and so are controls of cell types and batches that the model does not know.
    """
    if keys.split_key in adata.obs:
        return
    is_control = keys.labels(adata) == keys.control
    new = {field: field.codes(adata, saved[field.registry_key]["state_registry"]) < 0 for field in transferred(keys)}
    if not any(cells.any() for cells in new.values()):
        return
    held_out = ~is_control | np.any(list(new.values()), axis=0)
    parts = np.where(held_out, TEST, TRAIN)
    adata.obs[keys.split_key] = pd.Categorical(parts, categories=list(SPLITS))
    logger.warning(
        "load: the cells have no split, and %d of them a perturbation, cell type or batch that the model was not trained on. "
        "Perturbed cells are labelled 'test' in `adata.obs[%r]`. For another split, write this column first.",
        int(np.any(list(new.values()), axis=0).sum()),
        keys.split_key,
    )


def transferred(keys: ScreenKeys) -> tuple[PerturbationField, PopulationField]:
    """Get the fields with a vocabulary that a saved model keeps."""
    return PerturbationField(keys), PopulationField(keys)


def preparation_of(adata: AnnData, keys: ScreenKeys, layer: str | None) -> dict[str, Any]:
    """Get the options of `pp.prepare` that new cells need, and the scale of training controls."""
    report = adata.uns.get(UNS_KEY, {}).get("prepare", {})
    found = {key: report[key] for key in ("target_sum", "library_size_key", "genes_before") if key in report}
    scale = Scale.training_controls(adata, keys, layer)
    return found if scale is None else {**found, "control_totals": scale.as_list()}


def check_setup(adata: AnnData, keys: ScreenKeys, layer: str | None, mode: str) -> None:
    """Refuse a screen that cannot be trained on, before anything is written."""
    require_choices(MODES, mode=mode)
    check_log_normalised(expression(adata, layer))
    if keys.split_key != SPLIT_KEY:  # only the default column may be missing: then nothing is held out
        keys.column(adata, "split_key")
    labels, split = keys.labels(adata), keys.split(adata)
    perturbations = set(keys.perturbations(adata))
    _check_drugs(adata, keys, perturbations)
    in_training = split_codes(adata, keys) == 0
    is_control = labels == keys.control
    require_perturbed(is_control, keys)
    if not (in_training & is_control).any():
        raise ValueError(
            f"No control cell is labelled 'train' in `adata.obs[{keys.split_key!r}]`; training needs some. "
            "`pp.split` labels them so."
        )
    if not (in_training & ~is_control).any():
        raise ValueError(
            f"No perturbed cell is labelled 'train' in `adata.obs[{keys.split_key!r}]`; training needs some. "
            "`pp.split` labels them so."
        )
    require_controls(adata, keys, in_training & is_control)
    _check_scale(adata, keys, layer, np.flatnonzero(~is_control))
    for step in ("prepare", "split", "grn"):
        report = adata.uns.get(UNS_KEY, {}).get(step, {})
        report = report.get("report", report)
        recorded = report.get("split_hash", report.get("hash", "")) if isinstance(report, dict) else ""
        if recorded and recorded != split_hash(adata.obs_names, split):
            raise ValueError(
                f"`adata.obs[{keys.split_key!r}]` or the cells have changed since `pp.{step}`: its fit may include test "
                f"cells. Run `pp.{step}` and the steps after it again on the raw counts."
            )
    graph = adata.uns.get(UNS_KEY, {}).get("grn")
    if graph is not None:
        _check_graph(adata, keys, graph, _names(perturbations))


def _check_scale(adata: AnnData, keys: ScreenKeys, layer: str | None, perturbed: np.ndarray) -> None:
    """Refuse perturbed cells on another scale than training controls, and a screen normalised again after `pp.prepare`."""
    scale, origin = (
        Scale.training_controls(adata, keys, layer),
        "adata.X" if layer is None else f"adata.layers[{layer!r}]",
    )
    if scale is None:
        return
    fix = "Normalise all cells in the same way: call `pp.prepare(adata)` on their raw counts."
    scale.check(expression(adata, layer), perturbed, f"the perturbed cells in {origin}", fix)
    total = adata.uns.get(UNS_KEY, {}).get("prepare", {}).get("target_sum")
    if layer is None and total is not None and scale.median > 1.05 * total:
        raise ValueError(
            f"`{origin}` was scaled to {total:.6g} counts per cell by `pp.prepare`, but now the median sum of `expm1` is "
            f"{scale.median:.6g}. Leave further normalisation out, or repeat `pp.prepare` on the raw counts."
        )


def _check_graph(adata: AnnData, keys: ScreenKeys, graph: Mapping[str, Any], names: set[str]) -> None:
    """Refuse a graph without some gene, end of an edge, or target."""
    nodes = np.asarray(graph["nodes"], dtype=object)
    if list(nodes[: adata.n_vars]) != list(adata.var_names):
        raise ValueError(
            f"The graph in `adata.uns['unlasting']['grn']` has {len(nodes)} nodes that do not begin with the "
            f"{adata.n_vars} genes of `adata` in their order. Call `pp.grn(adata)` after the last change of genes."
        )
    strange = sorted({*graph["edges"]["source"], *graph["edges"]["target"]} - set(nodes))
    if strange:
        raise ValueError(
            f"The graph in `adata.uns['unlasting']['grn']` has edges at {strange[:5]}, which are no nodes. "
            "Call `pp.grn(adata)`, or add them to its nodes."
        )
    known = set(adata.uns[UNS_KEY].get("target_embedding", {}).get("names", ()))
    lost = sorted((names & known) - set(nodes) - (keys.drugs(adata) or frozenset()))
    if lost:
        raise ValueError(
            f"The targets {lost[:5]} are no nodes of the graph in `adata.uns['unlasting']['grn']`. "
            "Call `pp.grn(adata)` again, with the present labels."
        )
    if keys.cell_type_key is not None and graph.get("report", {}).get("cell_type_key") == "":
        logger.info(
            "setup_anndata: differences between cell types join genes in the graph, which was made without them. "
            "`pp.grn(adata, cell_type_key=%r)` removes such edges.",
            keys.cell_type_key,
        )


def check_transfer(adata: AnnData, keys: ScreenKeys, layer: str | None, saved: Mapping[str, Any]) -> None:
    """Refuse a screen that does not fit a saved model, before anything is written."""
    check_log_normalised(expression(adata, layer))
    in_training = split_codes(adata, keys) < SPLITS.index(TEST)
    populations = [
        ", ".join(filter(None, population))
        for population in zip(keys.cell_types(adata), keys.batches(adata), strict=True)
    ]
    described: tuple[tuple[str, Sequence[str] | np.ndarray], ...] = (
        ("perturbation", keys.labels(adata)),
        ("cell type or batch", populations),
    )
    for field, (name, values) in zip(transferred(keys), described, strict=True):
        unknown = in_training & (field.codes(adata, saved[field.registry_key]["state_registry"]) < 0)
        if unknown.any():
            row = int(np.argmax(unknown))
            raise ValueError(
                f"The cell {adata.obs_names[row]!r} is for training or validation, but its {name} {values[row]!r} was not "
                f"in the saved model's screen. Label such cells 'test' in `adata.obs[{keys.split_key!r}]`, or load the "
                "model without them (`adata=False`)."
            )


def _check_drugs(adata: AnnData, keys: ScreenKeys, perturbations: set[Perturbation]) -> None:
    """Refuse drugs without a molecule, and doses without drugs."""
    stored = adata.uns.get(UNS_KEY, {}).get("molecules", {"drugs": (), "smiles": ()})
    molecules = {*map(str, stored["drugs"]), *map(str, stored["smiles"])}
    names = _names(perturbations)
    without = sorted((names & set(keys.smiles(adata))) - molecules)
    if without:
        raise ValueError(
            f"The drugs {without[:5]} have a SMILES in `smiles_key={keys.smiles_key!r}`, but no molecule. "
            f"Call `pp.molecules(adata, smiles_key={keys.smiles_key!r})` with the present labels."
        )
    if keys.dose_key is None or names & molecules or (keys.drugs(adata) is None and drugs_by_name(adata, keys)):
        return
    raise ValueError(
        f"`dose_key` is {keys.dose_key!r}, but no perturbation is a drug: only drugs have doses. Call "
        "`pp.molecules(adata, smiles_key=...)` first, without SMILES `pp.molecules(adata, embedding='names')`, or set up "
        "without `dose_key`."
    )


def _names(perturbations: set[Perturbation]) -> set[str]:
    """Collect the names of all targets."""
    return {name for perturbation in perturbations for name in perturbation.targets}
