"""Splits that hold out conditions, of which something else stays in training: another dose, cell type or perturbation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import replace

import numpy as np

from unlasting.pp._split_kinds import Draw, Screen, held_out
from unlasting.screen import TEST, TRAIN, VAL, Condition, nearest_name

Groups = Mapping[str, tuple[Hashable, ...]]
"""What each condition belongs to, by its name: of each of these, at least one condition stays in training."""


def by_pair(screen: Screen, draw: Draw) -> np.ndarray:
    """Hold out pairs of perturbation and cell type; each of the two is trained on elsewhere."""
    conditions = [
        Condition(label, cell_type) if perturbed else None
        for label, cell_type, perturbed in zip(screen.labels, screen.cell_types, screen.perturbed, strict=True)
    ]
    groups = {str(c): (("perturbation", c.perturbation), ("cell type", c.cell_type)) for c in set(conditions) if c}
    return _by_condition(conditions, groups, draw, "pair of perturbation and cell type")


def by_dose(screen: Screen, draw: Draw) -> np.ndarray:
    """Hold out doses of a drug in a cell type, of which it is trained on at another dose."""
    conditions = [
        Condition(*cell) if cell[2] else None
        for cell in zip(screen.labels, screen.cell_types, screen.doses, strict=True)
    ]
    distinct = sorted({c for c in conditions if c})
    groups = {str(c): ((c.perturbation, c.cell_type),) for c in distinct}
    doses = sorted({c.dose for c in distinct})
    everywhere = {*(draw.test or ()), *(draw.val or ())} & set(doses)
    elsewhere = {groups[str(c)] for c in distinct if c.dose not in everywhere}

    def expanded(names: list[str] | None, argument: str) -> list[str] | None:
        """Let a dose stand for all drugs and cell types in which there is another one."""
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
            raise ValueError(f"`{argument}` names the doses {names}, but no drug was given at another dose as well.")
        return found

    draw = replace(draw, test=expanded(draw.test, TEST), val=expanded(draw.val, VAL))
    return _by_condition(conditions, groups, draw, "dose of a drug in a cell type")


def _by_condition(conditions: list[Condition | None], groups: Groups, draw: Draw, what: str) -> np.ndarray:
    """Hold out what is named or drawn, if enough of what it belongs to stays in training."""
    names = [str(condition) if condition else "" for condition in conditions]
    part = dict.fromkeys(sorted(groups), TRAIN)
    left = Counter(group for belongs in groups.values() for group in belongs)

    def hold_out(name: str, where: str) -> bool:
        if part[name] != TRAIN or any(left[group] < 2 for group in groups[name]):
            return False
        part[name] = where
        left.subtract(groups[name])
        return True

    for argument, named in ((TEST, draw.test), (VAL, draw.val)):
        for name in named or ():
            if name not in part:
                raise ValueError(
                    f"`{argument}` names {name!r}, which is no {what} of the screen.{nearest_name(name, part)}"
                )
            if not hold_out(name, argument):
                raise ValueError(
                    f"`{argument}` names {name!r}, which cannot be held out: it is named twice, or nothing else that it "
                    "could be learnt from would stay in training."
                )
    count = Counter(names)
    frequent = [name for name in part if count[name] >= draw.min_cells]
    drawn = [frequent[place] for place in draw.rng.permutation(len(frequent))]
    for argument, named, fraction in ((TEST, draw.test, draw.test_fraction), (VAL, draw.val, draw.val_fraction)):
        wanted = 0 if named is not None else held_out(fraction, len(frequent))
        for name in drawn:
            if wanted and hold_out(name, argument):
                wanted -= 1
        if wanted:
            raise ValueError(
                f"{wanted} more are asked for in {argument!r}: of {len(part)} ({len(frequent)} with at least "
                f"{draw.min_cells} cells), no other {what} can be held out so that what it belongs to stays in training. "
                f"Lower `{argument}_fraction` or `min_cells`, or set `val_fraction=0`."
            )
    return np.array([part.get(name, TRAIN) for name in names], dtype=object)
