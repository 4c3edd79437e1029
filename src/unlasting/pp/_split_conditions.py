"""Split kinds that hold out a condition while related ones stay in training: another dose, cell type or perturbation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping

import numpy as np

from unlasting.pp._split_request import Labels, Request
from unlasting.screen import TEST, TRAIN, VAL, Condition, nearest_name


def by_pair(labels: Labels, request: Request) -> np.ndarray:
    """Hold out pairs of perturbation and cell type; each of the two is trained elsewhere."""
    labels.require("cell_type_key", "cell type")
    conditions = [
        Condition(label, cell_type) if perturbed else None
        for label, cell_type, perturbed in zip(labels.perturbation, labels.cell_type, labels.is_perturbed, strict=True)
    ]
    groups = {str(c): (("perturbation", c.perturbation), ("cell type", c.cell_type)) for c in set(conditions) if c}
    return _by_condition(conditions, groups, request, "pair of perturbation and cell type")


def by_dose(labels: Labels, request: Request) -> np.ndarray:
    """Hold out doses of a drug in a cell type; the drug is trained there at another dose."""
    labels.require("dose_key", "doses in uM")
    conditions = [
        Condition(*cell) if cell[2] else None
        for cell in zip(labels.perturbation, labels.cell_type, labels.dose, strict=True)
    ]
    distinct = sorted({c for c in conditions if c})
    groups = {str(c): ((c.perturbation, c.cell_type),) for c in distinct}
    doses = sorted({c.dose for c in distinct})
    everywhere = {name for names in request.names.values() for name in names or ()} & set(doses)
    elsewhere = {groups[str(c)] for c in distinct if c.dose not in everywhere}

    def expanded(argument: str, names: list[str] | None) -> list[str] | None:
        """Replace a dose by the conditions at this dose, for all drugs and cell types with another one."""
        if names is None:
            return None
        strange = [name for name in names if name not in groups and name not in everywhere]
        if strange:
            raise ValueError(
                f"`{argument}` names {strange[0]!r}, which is neither one of the doses {doses} nor a condition such as "
                f"{next(iter(groups), 'DRUG at 1 uM')!r}.{nearest_name(strange[0], groups)}"
            )
        found = [str(c) for c in distinct if str(c) in names or (c.dose in names and groups[str(c)] in elsewhere)]
        if not found:
            raise ValueError(
                f"`{argument}` names the doses {names}, but no drug was given at another dose as well. Name other doses."
            )
        return found

    request = request.naming({part: expanded(part, names) for part, names in request.names.items()})
    return _by_condition(conditions, groups, request, "dose of a drug in a cell type")


def _by_condition(
    conditions: list[Condition | None], groups: Mapping[str, tuple[Hashable, ...]], request: Request, noun: str
) -> np.ndarray:
    """Hold out named or drawn conditions; at least one condition of each group stays in training."""
    names = [str(condition) if condition else "" for condition in conditions]
    part = dict.fromkeys(sorted(groups), TRAIN)
    left = Counter(group for belongs in groups.values() for group in belongs)

    def hold_out(name: str, where: str) -> bool:
        if part[name] != TRAIN or any(left[group] < 2 for group in groups[name]):
            return False
        part[name] = where
        left.subtract(groups[name])
        return True

    for argument, named in request.names.items():
        for name in named or ():
            if name not in part:
                raise ValueError(
                    f"`{argument}` names {name!r}, which is no {noun} of the screen.{nearest_name(name, part)}"
                )
            if not hold_out(name, argument):
                raise ValueError(
                    f"`{argument}` names {name!r}, which cannot be held out: it is named twice, or no related condition "
                    "would stay in training. Name fewer."
                )
    count = Counter(names)
    frequent = [name for name in part if count[name] >= request.min_cells]
    drawn = [frequent[place] for place in request.rng.permutation(len(frequent))]
    for argument in (TEST, VAL):
        wanted = request.n_drawn(argument, len(frequent))
        for name in drawn:
            if wanted and hold_out(name, argument):
                wanted -= 1
        if wanted:
            raise ValueError(
                f"{wanted} more are asked for in {argument!r}: of {len(part)} ({len(frequent)} with at least "
                f"{request.min_cells} cells), no other {noun} can be held out with a related condition in training. "
                f"Lower `{argument}_fraction` or `min_cells`, or set `val_fraction=0`."
            )
    for argument in (TEST, VAL):
        held_out = [name for name, where in part.items() if where == argument]
        request.report[f"{argument}_conditions"] = np.array(held_out, dtype=str)
    return np.array([part.get(name, TRAIN) for name in names], dtype=object)
