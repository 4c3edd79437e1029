"""The kinds of split: which condition, or which cell, goes to which part. Labels in, parts out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from unlasting.screen import TEST, TRAIN, VAL, Perturbation, nearest_name


@dataclass(frozen=True)
class Screen:
    """The labels of a screen, all that a split may read.

    Parameters
    ----------
    labels
        Canonical perturbation label of every cell, shape `(n_cells,)`.
    cell_types
        Cell type of every cell, shape `(n_cells,)`.
    batches
        Batch of every cell, shape `(n_cells,)`.
    doses
        Doses of every cell as text, shape `(n_cells,)`; empty where there are none.
    perturbations
        What each label means.
    control
        Label of unperturbed cells.
    """

    labels: np.ndarray
    cell_types: np.ndarray
    batches: np.ndarray
    doses: np.ndarray
    perturbations: dict[str, Perturbation]
    control: str

    @property
    def perturbed(self) -> np.ndarray:
        """Whether each cell is perturbed, shape `(n_cells,)`."""
        return self.labels != self.control

    def frequent(self, names: np.ndarray, min_cells: int) -> list[str]:
        """List the distinct `names` of perturbed cells that at least `min_cells` of them carry, sorted."""
        distinct, count = np.unique(names[self.perturbed].astype(str), return_counts=True)
        return distinct[count >= min_cells].tolist()


@dataclass(frozen=True)
class Draw:
    """How much is held out, what the user named, and the randomness.

    Parameters
    ----------
    test_fraction, val_fraction
        Parts of the whole that become test and validation.
    test, val
        What the user named for each part, if anything.
    min_cells
        Conditions with fewer cells are not drawn.
    rng
        Source of randomness.
    """

    test_fraction: float
    val_fraction: float
    test: list[str] | None
    val: list[str] | None
    min_cells: int
    rng: np.random.Generator

    def parts(self, names: Collection[str], known: Collection[str], what: str) -> dict[str, str]:
        """Give a part to each of `known`; only `names` are drawn from, anything known may be named by the user."""
        part = dict.fromkeys(sorted(known), TRAIN)
        for argument, named in ((TEST, self.test), (VAL, self.val)):
            for name in named or ():
                if name not in part:
                    raise ValueError(
                        f"`{argument}` names {name!r}, but no perturbed cell has this {what}.{nearest_name(name, part)}"
                    )
                if part[name] != TRAIN:
                    raise ValueError(f"`test` and `val` both name {name!r}; a {what} can be in one part only.")
                part[name] = argument
        free = [str(name) for name in self.rng.permutation(sorted(set(names))) if part[name] == TRAIN]
        n_test = 0 if self.test is not None else held_out(self.test_fraction, len(names))
        n_val = 0 if self.val is not None else held_out(self.val_fraction, len(names))
        left = list(part.values()).count(TRAIN) - n_test - n_val
        if n_test + n_val > len(free) or left < 1:
            rare = len(known) - len(names)
            raise ValueError(
                f"There are {len(known)} {what}s with perturbed cells, {rare} of them with fewer than {self.min_cells}. "
                f"This split asks for {n_test or len(self.test or ())} in test and {n_val or len(self.val or ())} in "
                f"val, which leaves {max(left, 0)} for training, and at least 1 is needed in each part. Lower "
                "`test_fraction` or `min_cells`, set `val_fraction=0`, or use `kind='random'`."
            )
        part.update(dict.fromkeys(free[:n_test], TEST))
        part.update(dict.fromkeys(free[n_test : n_test + n_val], VAL))
        return part


def held_out(fraction: float, n: int) -> int:
    """Count what is held out of `n`: the nearest whole number, but at least one when anything is asked for."""
    return max(1, round(fraction * n)) if fraction > 0 else 0


def by_cells(screen: Screen, draw: Draw) -> np.ndarray:
    """Hold out cells of every label, cell type and batch, controls too."""
    part = np.full(len(screen.labels), TRAIN, dtype=object)
    groups: dict[tuple[str, str, str], list[int]] = {}
    for cell, key in enumerate(zip(screen.labels, screen.cell_types, screen.batches, strict=True)):
        groups.setdefault(key, []).append(cell)
    for _, cells in sorted(groups.items()):
        order = draw.rng.permutation(cells)
        n_test = min(round(draw.test_fraction * len(cells)), len(cells) - 1)
        n_val = min(round(draw.val_fraction * len(cells)), len(cells) - 1 - n_test)
        part[order[:n_test]] = TEST
        part[order[n_test : n_test + n_val]] = VAL
    return part


def by_perturbation(screen: Screen, draw: Draw) -> np.ndarray:
    """Hold out whole perturbations; a combination is one of its own."""
    known = set(screen.labels[screen.perturbed])
    part = draw.parts(screen.frequent(screen.labels, draw.min_cells), known, "perturbation")
    return np.array([part.get(label, TRAIN) for label in screen.labels], dtype=object)


def by_target(screen: Screen, draw: Draw) -> np.ndarray:
    """Hold out the named targets with every combination that contains one of them."""
    known = {name for perturbation in screen.perturbations.values() for name in perturbation.targets}
    if not draw.test:
        raise ValueError(
            "`kind='leave_one_out'` needs the target to leave out, such as `test='STAT1'`; the targets are "
            f"{sorted(known)[:10]}{' and more' if len(known) > 10 else ''}."
        )
    drawn = {
        name
        for label in screen.frequent(screen.labels, draw.min_cells)
        for name in screen.perturbations[label].targets
        if not set(screen.perturbations[label].targets) & set(draw.test)
    }
    part = draw.parts(drawn | (set(draw.test) & known), known, "target")
    return _with_combinations(screen, part)


def by_drug(screen: Screen, draw: Draw, groups: dict[str, str]) -> np.ndarray:
    """Hold out whole groups of drugs, with every combination that contains one; `groups` names that of each drug."""
    targets = {label: perturbation.targets for label, perturbation in screen.perturbations.items()}
    drugs = {name for names in targets.values() for name in names if name in groups}
    if not drugs:
        raise ValueError("`kind='unseen_drug'` needs drugs, but no perturbation of the screen has a SMILES.")
    named = {TEST: draw.test, VAL: draw.val}
    for part, names in named.items():
        for name in names or ():
            if name not in drugs:
                raise ValueError(f"`{part}` names {name!r}, which is no drug of the screen.{nearest_name(name, drugs)}")
        named[part] = None if names is None else list(dict.fromkeys(groups[name] for name in names))
    count = Counter(
        group for label in screen.labels for group in {groups[name] for name in targets[label] if name in groups}
    )
    frequent = [group for group, n_cells in count.items() if n_cells >= draw.min_cells]
    part_of = replace(draw, test=named[TEST], val=named[VAL]).parts(frequent, set(count), "drug group")
    return _with_combinations(screen, {name: part_of[groups[name]] for name in drugs})


def by_combination(screen: Screen, draw: Draw, n_seen: int) -> np.ndarray:
    """Hold out combinations of which exactly `n_seen` targets are trained on as singles, the others not at all."""
    combos = {label for label, perturbation in screen.perturbations.items() if len(perturbation.targets) > 1}
    if not combos:
        raise ValueError("`kind='unseen_combo'` needs combinations, but every label names one target at most.")
    frequent = sorted(combos & set(screen.frequent(screen.labels, draw.min_cells)))
    held = _HeldOut(screen.perturbations, n_seen)
    for part, named, fraction in ((TEST, draw.test, draw.test_fraction), (VAL, draw.val, draw.val_fraction)):
        strange = sorted(set(named or ()) - combos)
        if strange:
            raise ValueError(
                f"`{part}` names {strange[0]!r}, which is no combination of the screen.{nearest_name(strange[0], combos)}"
            )
        wanted = len(named) if named is not None else held_out(fraction, len(frequent))
        for label in named if named is not None else draw.rng.permutation(frequent):
            if named is None and len(held.of_kind(part)) >= wanted:
                break
            held = held.joined_by(str(label), part, draw.rng)
        missing = sorted(set(named or ()) - set(held.of_kind(part)))
        if missing or (wanted and not held.of_kind(part)):
            raise ValueError(
                f"{len(missing) or wanted} combinations are asked for in {part!r}, but of the {len(combos)} in the screen "
                f"({len(frequent)} with at least {draw.min_cells} cells) {len(held.of_kind(part))} can be held out so "
                f"that exactly {n_seen} of their targets are trained on as singles{f', not {missing}' if missing else ''}. "
                f"Choose another `n_seen`, lower `min_cells` or set `{part}_fraction=0`."
            )
    parts = {label: held.part(label) for label in screen.perturbations}
    return np.array([parts[label] for label in screen.labels], dtype=object)


@dataclass(frozen=True)
class _HeldOut:
    """Which combinations are held out, and which targets are hidden with all that contains them."""

    perturbations: dict[str, Perturbation]
    n_seen: int
    combos: tuple[tuple[str, str], ...] = ()  # (label, part)
    hidden: tuple[tuple[str, str], ...] = ()  # (target, part)

    def part(self, label: str) -> str:
        """Find the part of a label; test goes before val."""
        targets = self.perturbations[label].targets
        parts = {part for name, part in self.combos if name == label}
        parts |= {part for name, part in self.hidden if name in targets}
        return TEST if TEST in parts else VAL if VAL in parts else TRAIN

    def of_kind(self, part: str) -> list[str]:
        """List the combinations of this part of which as many singles are seen as asked for."""
        parts = {label: self.part(label) for label in self.perturbations}
        return combinations_of_kind(self.perturbations, parts, part, self.n_seen)

    def joined_by(self, label: str, part: str, rng: np.random.Generator) -> _HeldOut:
        """Hold out one more combination, if this costs no combination that is held out already."""
        targets = self.perturbations[label].targets
        seen = [name for name in targets if name in self.perturbations and self.part(name) == TRAIN]
        if self.part(label) != TRAIN or len(seen) < self.n_seen:
            return self
        kept = {str(name) for name in rng.permutation(seen)[: self.n_seen]}
        more = replace(
            self,
            combos=(*self.combos, (label, part)),
            hidden=(*self.hidden, *((name, part) for name in targets if name not in kept)),
        )
        before, after = ({p: len(held.of_kind(p)) for p in (TEST, VAL)} for held in (self, more))
        return more if after[part] > before[part] and all(after[p] >= before[p] for p in before) else self


def combinations_of_kind(
    perturbations: dict[str, Perturbation], parts: dict[str, str], part: str, n_seen: int
) -> list[str]:
    """List the combinations of a part of which `n_seen` targets are trained on as singles, the others not at all."""
    trained = [p.targets for label, p in perturbations.items() if p.targets and parts[label] == TRAIN]
    alone = {targets[0] for targets in trained if len(targets) == 1}
    anywhere = {name for targets in trained for name in targets}
    found = []
    for label, perturbation in perturbations.items():
        targets = set(perturbation.targets)
        unseen = targets - alone
        if len(targets) > 1 and parts[label] == part and len(targets & alone) == n_seen and not unseen & anywhere:
            found.append(label)
    return sorted(found)


def by_cell_type(screen: Screen, draw: Draw, n_shots: int) -> np.ndarray:
    """Hold out the perturbed cells of whole cell types, but for `n_shots` cells of each perturbation."""
    with_controls = set(screen.cell_types[~screen.perturbed])
    bare = [name for name in (*(draw.test or ()), *(draw.val or ())) if name in set(screen.cell_types) - with_controls]
    if bare:
        raise ValueError(
            f"The cell type {bare[0]!r} has no control cells, from which every prediction starts; it cannot be held out."
        )
    known = set(screen.cell_types[screen.perturbed]) & with_controls
    frequent = set(screen.frequent(screen.cell_types, draw.min_cells)) & with_controls
    part = draw.parts(frequent, known, "cell type")
    parts = np.array([part.get(name, TRAIN) for name in screen.cell_types], dtype=object)
    parts[~screen.perturbed] = TRAIN
    if n_shots:
        for label, cell_type in sorted(set(zip(screen.labels, screen.cell_types, strict=True))):
            cells = np.flatnonzero((screen.labels == label) & (screen.cell_types == cell_type) & (parts != TRAIN))
            parts[draw.rng.permutation(cells)[:n_shots]] = TRAIN
    return parts


def _with_combinations(screen: Screen, part: dict[str, str]) -> np.ndarray:
    """Give every cell the part of its targets: test if one is test, else val if one is val."""
    parts = {
        label: next((p for p in (TEST, VAL) if p in {part.get(name) for name in perturbation.targets}), TRAIN)
        for label, perturbation in screen.perturbations.items()
    }
    return np.array([parts[label] for label in screen.labels], dtype=object)
