"""What a screen has to be before it can be trained on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from anndata import AnnData

from unlasting.data import PerturbationField, PopulationField, split_codes
from unlasting.effects import KINDS, STIMULUS, TargetVocabulary
from unlasting.screen import (
    SPLIT_KEY,
    SPLITS,
    TEST,
    UNS_KEY,
    Perturbation,
    ScreenKeys,
    check_cells,
    check_log_normalised,
    expression,
    logger,
    require_choices,
    split_hash,
)

MODES = ("knockout", "knockdown", "activation")


def check_setup(adata: AnnData, keys: ScreenKeys, layer: str | None, mode: str) -> None:
    """Refuse whatever cannot be trained on, before anything is written."""
    require_choices(MODES, mode=mode)
    check_cells(adata, writable=True)
    check_log_normalised(expression(adata, layer))
    if keys.split_key != SPLIT_KEY:  # without a column of this name nothing is held out; any other is there
        keys.column(adata, "split_key")
    labels, split = keys.labels(adata), keys.split(adata)
    perturbations = set(keys.perturbations(adata))
    _check_drugs(adata, keys, perturbations)
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
    populations = list(zip(keys.cell_types(adata), keys.batches(adata), strict=True))
    without = sorted(set(populations) - {populations[row] for row in np.flatnonzero(in_training & is_control)})
    if without:
        cell_type, batch = without[0]
        named = [f"`cell_type_key` {cell_type!r}"] * bool(keys.cell_type_key)
        named += [f"`batch_key` {batch!r}"] * bool(keys.batch_key)
        raise ValueError(
            f"{len(without)} of {len(set(populations))} populations have no control cells in training, the first: "
            f"{', '.join(named)}. Every prediction starts from controls of its own cell type and batch: add controls, "
            "drop these cells, or delete this key from `adata.uns['unlasting']['keys']` and set up without it."
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
        known = set(adata.uns[UNS_KEY].get("target_embedding", {}).get("names", ()))
        lost = sorted((_names(perturbations) & known) - set(nodes) - (keys.drugs(adata) or frozenset()))
        if lost:
            raise ValueError(
                f"The targets {lost[:5]} are no nodes of the graph in `adata.uns['unlasting']['grn']`. "
                "Call `pp.grn(adata)` again, with the labels that the cells have now."
            )
        if keys.cell_type_key is not None and graph.get("report", {}).get("cell_type_key") == "":
            logger.info(
                "setup_anndata: what distinguishes the cell types joins genes in the graph, which was made without them. "
                "`pp.grn(adata, cell_type_key=%r)` takes it away.",
                keys.cell_type_key,
            )


def check_transfer(adata: AnnData, keys: ScreenKeys, layer: str | None, saved: dict[str, Any]) -> None:
    """Refuse a screen that a saved model cannot go on with, before anything is written."""
    check_cells(adata, writable=True)
    check_log_normalised(expression(adata, layer))
    in_training = split_codes(adata, keys) < SPLITS.index(TEST)
    populations = [
        ", ".join(filter(None, population))
        for population in zip(keys.cell_types(adata), keys.batches(adata), strict=True)
    ]
    for field, what, values in (
        (PerturbationField(keys), "perturbation", keys.labels(adata)),
        (PopulationField(keys), "cell type or batch", populations),
    ):
        unknown = in_training & (field.codes(adata, saved[field.registry_key]["state_registry"]) < 0)
        if unknown.any():
            row = int(np.argmax(unknown))
            raise ValueError(
                f"The cell {adata.obs_names[row]!r} is for training or validation, but its {what} {values[row]!r} was not "
                f"in the screen of the saved model. Label such cells 'test' in `adata.obs[{keys.split_key!r}]`, or load the "
                "model without them (`adata=False`)."
            )


def _check_drugs(adata: AnnData, keys: ScreenKeys, perturbations: set[Perturbation]) -> None:
    """Refuse drugs without a molecule, and doses where nothing is a drug."""
    stored = adata.uns.get(UNS_KEY, {}).get("molecules", {"drugs": (), "smiles": ()})
    molecules = {*map(str, stored["drugs"]), *map(str, stored["smiles"])}
    names = _names(perturbations)
    without = sorted((names & set(keys.smiles(adata))) - molecules)
    if without:
        raise ValueError(
            f"The drugs {without[:5]} have a SMILES in `smiles_key={keys.smiles_key!r}`, but `pp.molecules` does not know "
            f"them. Call `pp.molecules(adata, smiles_key={keys.smiles_key!r})` with the labels that the cells have now."
        )
    if keys.dose_key is not None and not names & molecules:
        raise ValueError(
            f"`dose_key` is {keys.dose_key!r}, but no perturbation is a drug: only drugs have doses. Call "
            "`pp.molecules(adata, smiles_key=...)` first, or set up without `dose_key`."
        )


def _names(perturbations: set[Perturbation]) -> set[str]:
    """Collect the names of all targets."""
    return {name for perturbation in perturbations for name in perturbation.targets}


def make_graph(adata: AnnData) -> None:
    """Make a co-expression graph where the user made none."""
    from unlasting import pp

    logger.warning(
        "`pp.grn` was not called: the graph is made from the co-expression of training cells alone, without a prior. "
        "Trained perturbations can be predicted, targets that were never trained cannot be told apart."
    )
    pp.grn(adata, prior=None)


def report_kinds(vocabulary: TargetVocabulary, perturbations: Iterable[Perturbation]) -> None:
    """Say how many targets of each kind there are, and name the stimuli: a misspelt gene would be among them."""
    targets = {vocabulary.target(name) for name in _names(set(perturbations))}
    by_kind = {kind: sorted(name for of, name in targets if of == kind) for kind in KINDS}
    counts = ", ".join(f"{len(names)} {KINDS[kind]}" for kind, names in by_kind.items())
    stimuli = by_kind[STIMULUS]
    logger.info("setup_anndata: %s%s.", counts, f" ({', '.join(stimuli[:10])})" if stimuli else "")
