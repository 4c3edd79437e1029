"""The input to a split kind: the labels, and the parts that the user asks for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from anndata import AnnData

from unlasting.screen import (
    TEST,
    TRAIN,
    UNS_KEY,
    VAL,
    Perturbation,
    ScreenKeys,
    nearest_name,
    one_molecule_each,
    parse_labels,
    require_perturbed,
    smiles_by_name,
)


class Labels:
    """All labels, one per cell: canonical label, cell type, batch and dose (uM, as text), empty texts without a key.

    A split kind sees no expression. `perturbations` holds the perturbation for each label, and `dataset` the name of a
    shipped data set or an empty text.
    """

    def __init__(self, adata: AnnData, keys: ScreenKeys) -> None:
        self._adata, self.keys = adata, keys
        self.perturbation, self.dose = keys.labels(adata), keys.doses(adata)
        self.cell_type, self.batch = keys.cell_types(adata), keys.batches(adata)
        self.is_perturbed = self.perturbation != keys.control
        require_perturbed(~self.is_perturbed, keys)
        self.perturbations = {str(k): p for k, p in parse_labels(self.perturbation, **keys.grammar).items()}
        self.dataset = str(adata.uns.get(UNS_KEY, {}).get("dataset", ""))

    def require(self, argument: str, content: str) -> None:
        """Refuse a screen without a key."""
        if getattr(self.keys, argument) is None:
            raise ValueError(f"This kind of split needs `{argument}`, the column of `adata.obs` with the {content}.")

    def frequent(self, names: np.ndarray, min_cells: int) -> list[str]:
        """List the distinct `names` with at least `min_cells` perturbed cells, sorted."""
        distinct, count = np.unique(names[self.is_perturbed].astype(str), return_counts=True)
        return distinct[count >= min_cells].tolist()

    def from_labels(self, part: Mapping[str, str]) -> np.ndarray:
        """Get the part per cell from its label, shape `(n_cells,)`; `train` for labels without a part."""
        return np.array([part.get(label, TRAIN) for label in self.perturbation], dtype=object)

    def from_targets(self, part: Mapping[str, str]) -> np.ndarray:
        """Get the part per cell from its targets, shape `(n_cells,)`: test if one is test, else val if one is val."""
        found = {
            label: {part.get(name, TRAIN) for name in perturbation.targets}
            for label, perturbation in self.perturbations.items()
        }
        return self.from_labels(
            {label: next((p for p in (TEST, VAL) if p in ps), TRAIN) for label, ps in found.items()}
        )

    @cached_property
    def molecules(self) -> dict[str, str]:
        """The canonical SMILES by drug name."""
        stored = self._adata.uns.get(UNS_KEY, {}).get("molecules")
        if stored is not None:
            return dict(zip(map(str, stored["drugs"]), map(str, stored["drug_smiles"]), strict=True))
        if self.keys.smiles_key is None:
            raise ValueError(
                "`kind='unseen_drug'` needs `smiles_key`, the column of `adata.obs` with the SMILES of drugs, or "
                "`unlasting.pp.molecules(adata)` first. Without structures, use `kind='unseen_perturbation'`."
            )
        columns = (self.keys.column(self._adata, argument) for argument in ("perturbation_key", "smiles_key"))
        found, unclear = smiles_by_name(*columns, **self.keys.grammar)
        names, faults = one_molecule_each(found)
        listed = [*unclear, *(fault for each in faults.values() for fault in each)]
        if listed:
            raise ValueError(
                f"`smiles_key={self.keys.smiles_key!r}` contains SMILES that cannot be used: {', '.join(listed)}. "
                "Correct them, or choose: `pp.molecules(adata, smiles={name: SMILES})` before the split."
            )
        return {name: smiles for name, smiles in names.items() if smiles}


@dataclass(frozen=True)
class Request:
    """The parts that the user asks for: names for `test` and `val`, or fractions to draw.

    A split kind may add entries to `report`, which is stored as `uns["unlasting"]["split"]`, and set a fraction to 0.
    """

    names: Mapping[str, list[str] | None]
    fractions: dict[str, float]
    min_cells: int
    n_seen: int
    n_shots: int
    method: str
    rng: np.random.Generator
    report: dict[str, Any] = field(default_factory=dict)

    def n_drawn(self, part: str, n: int) -> int:
        """Count the conditions to draw from `n`: the nearest integer, but at least one for a fraction above 0."""
        if self.names[part] is not None or not self.fractions[part]:
            return 0
        return max(1, round(self.fractions[part] * n))

    def canonical(self, keys: ScreenKeys) -> Request:
        """Write the given names like canonical labels, `B+A` as `A+B`."""

        def write(names: list[str]) -> list[str]:
            return list(dict.fromkeys(Perturbation.parse(n, **keys.grammar).label(**keys.grammar) for n in names))

        return self.naming({part: None if names is None else write(names) for part, names in self.names.items()})

    def naming(self, names: Mapping[str, list[str] | None]) -> Request:
        """Replace the given names."""
        return Request(**{**self.__dict__, "names": names})

    def refuse_names(self, reason: str) -> None:
        """Refuse names where a kind takes none."""
        given = [part for part, names in self.names.items() if names is not None]
        if given:
            raise ValueError(f"`{given[0]}` names conditions, but {reason}. Leave `{given[0]}` out.")

    def parts(self, frequent: Collection[str], known: Collection[str], noun: str) -> dict[str, str]:
        """Assign a part to each `known` name; the user may name any, and draws are from the `frequent` ones.

        `noun` is the word for such a name in messages.
        """
        part = dict.fromkeys(sorted(known), TRAIN)
        for argument, names in self.names.items():
            for name in names or ():
                if name not in part:
                    raise ValueError(
                        f"`{argument}` names {name!r}, but no perturbed cell has this {noun}.{nearest_name(name, part)}"
                    )
                if part[name] != TRAIN:
                    raise ValueError(f"`test` and `val` both name {name!r}; a {noun} can be in one part only.")
                part[name] = argument
        free = [str(name) for name in self.rng.permutation(sorted(set(frequent))) if part[name] == TRAIN]
        n_test, n_val = (self.n_drawn(argument, len(frequent)) for argument in (TEST, VAL))
        left = list(part.values()).count(TRAIN) - n_test - n_val
        if n_test + n_val > len(free) or left < 1:
            rare = len(known) - len(frequent)
            raise ValueError(
                f"There are {len(known)} {noun}s with perturbed cells, {rare} of them with fewer than {self.min_cells}. "
                f"This split asks for {n_test or len(self.names[TEST] or ())} in test and "
                f"{n_val or len(self.names[VAL] or ())} in val, which leaves {max(left, 0)} for training, and at least 1 "
                "is needed in each part. Lower `test_fraction` or `min_cells`, set `val_fraction=0`, or use `kind='random'`."
            )
        part.update(dict.fromkeys(free[:n_test], TEST))
        part.update(dict.fromkeys(free[n_test : n_test + n_val], VAL))
        return part
