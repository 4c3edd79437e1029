"""The split kind that holds out combinations by their number of trained targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from unlasting.pp._split_request import Labels, Request
from unlasting.screen import TEST, TRAIN, VAL, Perturbation, nearest_name


def by_combination(labels: Labels, request: Request) -> np.ndarray:
    """Hold out combinations with exactly `n_seen` targets trained as singles, the other targets not at all."""
    request = request.canonical(labels.keys)
    combos = {label for label, perturbation in labels.perturbations.items() if len(perturbation.targets) > 1}
    if not combos:
        raise ValueError(
            "`kind='unseen_combo'` needs combinations, but every label has at most one target. Choose another `kind`, or "
            "name the `delimiter` of the labels."
        )
    frequent = sorted(combos & set(labels.frequent(labels.perturbation, request.min_cells)))
    held = _HeldOut(labels.perturbations, request.n_seen)
    for part, named in request.names.items():
        strange = sorted(set(named or ()) - combos)
        if strange:
            raise ValueError(
                f"`{part}` names {strange[0]!r}, which is no combination of the screen.{nearest_name(strange[0], combos)}"
            )
        wanted = request.n_drawn(part, len(frequent)) if named is None else len(named)
        for label in request.rng.permutation(frequent) if named is None else named:
            if named is None and len(held.matching(part)) >= wanted:
                break
            held = held.joined_by(str(label), part, request.rng)
        found = held.matching(part)
        missing = sorted(set(named or ()) - set(found))
        if missing or (wanted and not found):
            raise ValueError(
                f"{len(missing) or wanted} combinations are asked for in {part!r}, but of the {len(combos)} in the screen "
                f"({len(frequent)} with at least {request.min_cells} cells) {len(found)} can be held out so that exactly "
                f"{request.n_seen} of their targets are trained as singles{f', not {missing}' if missing else ''}. "
                f"Choose another `n_seen`, lower `min_cells` or set `{part}_fraction=0`."
            )
    parts = held.parts
    asked = {part: held.matching(part) for part in (VAL, TEST)}
    others = {label for label, part in parts.items() if part != TRAIN} - {*asked[VAL], *asked[TEST]}
    request.report.update({f"{part}_conditions": np.array(names, dtype=str) for part, names in asked.items()})
    request.report.update(n_seen=request.n_seen, also_held_out=np.array(sorted(others), dtype=str))
    return labels.from_labels(parts)


@dataclass(frozen=True)
class _HeldOut:
    """The held-out combinations, and the targets hidden from training with all their combinations."""

    perturbations: Mapping[str, Perturbation]
    n_seen: int
    combos: tuple[tuple[str, str], ...] = ()  # (label, part)
    hidden: tuple[tuple[str, str], ...] = ()  # (target, part)

    @property
    def parts(self) -> dict[str, str]:
        """The part by label; test goes before val."""
        return {label: self.part(label) for label in self.perturbations}

    def part(self, label: str) -> str:
        """Find the part for a label."""
        targets = self.perturbations[label].targets
        parts = {part for name, part in self.combos if name == label}
        parts |= {part for name, part in self.hidden if name in targets}
        return TEST if TEST in parts else VAL if VAL in parts else TRAIN

    def matching(self, part: str) -> list[str]:
        """List combinations in a part with exactly `n_seen` trained singles, and no other target in training."""
        parts = self.parts
        trained = [p.targets for label, p in self.perturbations.items() if p.targets and parts[label] == TRAIN]
        alone = {targets[0] for targets in trained if len(targets) == 1}
        anywhere = {name for targets in trained for name in targets}
        found = []
        for label, perturbation in self.perturbations.items():
            targets = set(perturbation.targets)
            n_alone, unseen = len(targets & alone), targets - alone
            if len(targets) > 1 and parts[label] == part and n_alone == self.n_seen and not unseen & anywhere:
                found.append(label)
        return sorted(found)

    def joined_by(self, label: str, part: str, rng: np.random.Generator) -> _HeldOut:
        """Hold out one more combination, unless this costs a combination that is held out already."""
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
        before, after = ({p: len(held.matching(p)) for p in (TEST, VAL)} for held in (self, more))
        return more if after[part] > before[part] and all(after[p] >= before[p] for p in before) else self
