"""Split kinds that hold out cells, perturbations, targets or cell types."""

from __future__ import annotations

import json
from importlib.resources import files

import numpy as np

from unlasting.pp._split_request import Labels, Request
from unlasting.screen import TEST, TRAIN, VAL, logger


def by_cells(labels: Labels, request: Request) -> np.ndarray:
    """Hold out cells with every label, cell type and batch, controls too."""
    request.refuse_names("`kind='random'` holds out cells of all of them")
    part = np.full(len(labels.perturbation), TRAIN, dtype=object)
    for cells in _by_condition(labels).values():
        order = request.rng.permutation(cells)
        n_test = min(round(request.fractions[TEST] * len(cells)), len(cells) - 1)
        n_val = min(round(request.fractions[VAL] * len(cells)), len(cells) - 1 - n_test)
        part[order[:n_test]] = TEST
        part[order[n_test : n_test + n_val]] = VAL
    return part


def _by_condition(labels: Labels) -> dict[tuple[str, str, str], list[int]]:
    """Find the cells with each label, cell type and batch, in this order."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for cell, key in enumerate(zip(labels.perturbation, labels.cell_type, labels.batch, strict=True)):
        groups.setdefault(key, []).append(cell)
    return dict(sorted(groups.items()))


def by_perturbation(labels: Labels, request: Request) -> np.ndarray:
    """Hold out whole perturbations; a combination counts as its own.

    None is drawn for validation if the fraction is less than one of them.
    """
    request = request.canonical(labels.keys)
    known = set(labels.perturbation[labels.is_perturbed])
    frequent = labels.frequent(labels.perturbation, request.min_cells)
    if request.n_drawn(VAL, len(frequent)) and request.fractions[VAL] * len(frequent) < 1.0:
        logger.info(
            "pp.split: %g %% of %d perturbations is less than one, so that none is 'val'. Training then validates on a tenth "
            "of the cells of each condition. Name `val` to hold out a perturbation all the same.",
            100 * request.fractions[VAL],
            len(frequent),
        )
        request.fractions[VAL] = 0.0
    return labels.from_labels(request.parts(frequent, known, "perturbation"))


def by_target(labels: Labels, request: Request) -> np.ndarray:
    """Hold out the named targets, with their combinations."""
    known = {name for perturbation in labels.perturbations.values() for name in perturbation.targets}
    left_out = set(request.names[TEST] or ())
    if not left_out:
        raise ValueError(
            "`kind='leave_one_out'` needs the target to leave out, such as `test='STAT1'`; the targets are "
            f"{sorted(known)[:10]}{' and more' if len(known) > 10 else ''}."
        )
    targets = [set(labels.perturbations[x].targets) for x in labels.frequent(labels.perturbation, request.min_cells)]
    drawn = {name for names in targets if not names & left_out for name in names}
    return labels.from_targets(request.parts(drawn | (left_out & known), known, "target"))


def by_cell_type(labels: Labels, request: Request) -> np.ndarray:
    """Hold out perturbed cells in whole cell types, except `n_shots` cells per perturbation.

    No cell type is drawn for validation if fewer than two would be left for training; then cells in every trained condition
    validate.
    """
    labels.require("cell_type_key", "cell type")
    with_controls = set(labels.cell_type[~labels.is_perturbed])
    named = [name for names in request.names.values() for name in names or ()]
    bare = [name for name in named if name in set(labels.cell_type) - with_controls]
    if bare:
        raise ValueError(
            f"The cell type {bare[0]!r} has no control cells, and every prediction starts from them. Name another one."
        )
    known = set(labels.cell_type[labels.is_perturbed]) & with_controls
    frequent = set(labels.frequent(labels.cell_type, request.min_cells)) & with_controls
    n_test = len(request.names[TEST] or ()) or request.n_drawn(TEST, len(frequent))
    n_val = request.n_drawn(VAL, len(frequent))
    val_fraction = request.fractions[VAL] if n_val and len(known) - n_test - n_val < 2 else 0.0
    if val_fraction:
        request = request.naming({**request.names, VAL: []})
        logger.warning(
            "pp.split: a cell type for validation would leave fewer than two cell types for training. %g %% of the cells of "
            "each training condition are 'val' instead. Name `val` to hold out a cell type all the same.",
            100 * val_fraction,
        )
    part = request.parts(frequent, known, "cell type")
    parts = np.array([part.get(name, TRAIN) for name in labels.cell_type], dtype=object)
    parts[~labels.is_perturbed] = TRAIN
    for cells in _by_condition(labels).values() if val_fraction else ():
        if labels.is_perturbed[cells[0]] and part.get(labels.cell_type[cells[0]]) == TRAIN:
            n_cells = min(max(1, round(val_fraction * len(cells))), len(cells) - 1)
            parts[request.rng.permutation(cells)[:n_cells]] = VAL
    if request.n_shots:
        for label, cell_type in sorted(set(zip(labels.perturbation, labels.cell_type, strict=True))):
            in_condition = (labels.perturbation == label) & (labels.cell_type == cell_type)
            held_out = np.flatnonzero(in_condition & (parts != TRAIN))
            parts[request.rng.permutation(held_out)[: request.n_shots]] = TRAIN
    return parts


def by_reference(labels: Labels, request: Request) -> np.ndarray:
    """Hold out the published conditions of a shipped data set."""
    request.refuse_names("`kind='reference'` is a fixed split")
    table = json.loads((files("unlasting.pp") / "_data" / "reference_splits.json").read_text(encoding="utf-8"))
    if labels.dataset not in table:
        raise ValueError(
            f"`kind='reference'` is for the shipped data sets {sorted(table)}, named in "
            f"`adata.uns['unlasting']['dataset']`; here it is {labels.dataset!r}. Choose another `kind`."
        )
    entry = table[labels.dataset]
    function = by_cell_type if "cell_type_key" in entry else by_perturbation
    return function(labels, request.naming({part: entry[part] for part in (TEST, VAL)}))
