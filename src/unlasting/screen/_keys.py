"""Which columns of an AnnData mean what: written once by `pp` or `setup_anndata`, read by everything after."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from unlasting.screen._chemistry import smiles_by_name
from unlasting.screen._constants import SPLIT_KEY, SPLITS, UNS_KEY
from unlasting.screen._errors import MissingKeyError
from unlasting.screen._perturbation import Perturbation, nearest_name, parse_labels

if TYPE_CHECKING:
    from anndata import AnnData

LABELS_OF_SPLIT = ("perturbation_key", "control", "cell_type_key")
"""What a split goes by: under other labels, its held-out conditions may be trained."""


@dataclass(frozen=True)
class ScreenKeys:
    """Where a screen keeps its labels.

    Parameters
    ----------
    perturbation_key
        Column of `obs` with the perturbation labels.
    control
        Label of unperturbed cells.
    cell_type_key
        Column of `obs` with the cell type, if there is more than one.
    batch_key
        Column of `obs` with the batch, if controls differ between batches.
    split_key
        Column of `obs` with `train`, `val` or `test`.
    delimiter
        What separates the targets of a combination.
    dose_key
        Column of `obs` with the doses of drugs in uM: a number, or text such as `1+0.5` in the order of the drugs in
        the label. What it holds for controls, gene targets and stimuli is ignored, where something says what is a
        drug: `smiles_key`, or :func:`unlasting.pp.molecules`.
    smiles_key
        Column of `obs` with the SMILES of drugs. For a combination: one for each part of the label, separated by `..`
        and empty for what is no drug; not needed where its drugs are known from other cells.
    known_drugs
        Names of the drugs, where a model knows them whatever an AnnData says. Not recorded.
    """

    perturbation_key: str = "perturbation"
    control: str = "control"
    cell_type_key: str | None = None
    batch_key: str | None = None
    split_key: str = SPLIT_KEY
    delimiter: str = "+"
    dose_key: str | None = None
    smiles_key: str | None = None
    known_drugs: frozenset[str] | None = None

    @classmethod
    def read(cls, adata: AnnData, **overrides: Any) -> ScreenKeys:
        """Take what earlier steps recorded in `uns["unlasting"]["keys"]`; arguments that are not `None` win."""
        stored = {k: v for k, v in adata.uns.get(UNS_KEY, {}).get("keys", {}).items() if v != ""}
        keys = replace(cls(), **stored)
        return replace(keys, **{k: v for k, v in overrides.items() if v is not None})

    def write(self, adata: AnnData) -> None:
        """Record the keys in `uns["unlasting"]["keys"]` (an absent key is an empty string, which h5ad can hold)."""
        keys = {k: v or "" for k, v in asdict(self).items() if k != "known_drugs"}
        adata.uns.setdefault(UNS_KEY, {})["keys"] = keys

    def column(self, adata: AnnData, argument: str) -> np.ndarray:
        """Get the values of the `obs` column that `argument` (such as `"perturbation_key"`) names.

        Raises
        ------
        KeyError
            If `obs` has no such column.
        """
        key = getattr(self, argument)
        if key not in adata.obs:
            columns = list(map(str, adata.obs.columns))
            hint = nearest_name(str(key), columns)
            recorded = adata.uns.get(UNS_KEY, {}).get("keys", {}).get(argument)
            if not hint and recorded in columns:
                hint = f" Earlier steps were given {recorded!r}: name it here as well."
            elif not hint and argument == "perturbation_key" and key == ScreenKeys.perturbation_key:
                hint = (
                    " This is the default: name your own column (`perturbation_key=...`; on the command line "
                    "`--perturbation-key`)."
                )
            raise MissingKeyError(
                f"`{argument}` is {key!r}, but `adata.obs` has no such column (it has {columns}).{hint}"
            )
        column = adata.obs[key].astype(object)
        return np.asarray(column.where(column.notna(), None))

    @property
    def grammar(self) -> dict[str, str]:
        """How labels are written: `control` and `delimiter`."""
        return {"control": self.control, "delimiter": self.delimiter}

    def perturbations(self, adata: AnnData) -> np.ndarray:
        """Get the perturbation of every cell with its doses, shape `(n_cells,)`; equal ones are the same object.

        Raises
        ------
        KeyError
            If `obs` lacks a column.
        ValueError
            If a label is missing, a label or a dose cannot be read, or a drug has no dose.
        """
        labels = self.column(adata, "perturbation_key")
        missing = [row for row, label in enumerate(labels) if label is None]
        if missing:
            raise ValueError(
                f"{len(missing)} cells have no perturbation label in `adata.obs[{self.perturbation_key!r}]` (missing "
                f"values), {adata.obs_names[missing[0]]!r} the first. Remove such cells "
                f"(`adata = adata[adata.obs[{self.perturbation_key!r}].notna()].copy()`), or label them "
                f"{self.control!r} if they are controls."
            )
        only_controls = all(p.is_control for p in parse_labels(labels, **self.grammar).values())
        without = self.dose_key is None or only_controls  # which may come without this column
        doses = np.full(adata.n_obs, None) if without else self.column(adata, "dose_key")
        drugs = None if without else self.drugs(adata)
        parsed: dict[tuple[object, object], Perturbation] = {}
        faults: dict[str, None] = {}
        cells = list(zip(labels, doses, strict=True))
        for label, dose in dict.fromkeys(cells):
            try:
                parsed[label, dose] = Perturbation.parse(label, dose, **self.grammar, drugs=drugs)
            except ValueError as error:
                faults[str(error)] = None
                continue
            if drugs is not None:
                faults |= dict.fromkeys(
                    f"{name!r} has none in some cells." for name in parsed[label, dose].undosed(drugs)
                )
        if faults:
            more = f" There are {len(faults) - 20} more." if len(faults) > 20 else ""
            if drugs is None:
                more += (
                    " Where some targets are no drugs, say which are: give `smiles_key`, or call `pp.molecules` first."
                )
            raise ValueError(f"`dose_key={self.dose_key!r}` holds wrong doses: {' '.join(list(faults)[:20])}{more}")
        same = {p: p for p in parsed.values()}
        found = np.empty(adata.n_obs, dtype=object)
        found[:] = [same[parsed[cell]] for cell in cells]
        return found

    def labels(self, adata: AnnData) -> np.ndarray:
        """Get the canonical perturbation label of every cell, shape `(n_cells,)`. A drug at dose 0 is not in it.

        Raises
        ------
        KeyError
            If `obs` lacks a column.
        ValueError
            If a label or a dose cannot be read, or no cell is a control.
        """
        labels = _written(self.perturbations(adata), lambda p: p.label(**self.grammar))
        if not (labels == self.control).any():
            if "generated" in adata.uns.get(UNS_KEY, {}):
                raise ValueError(
                    "`adata` holds new cells that a model generated, and no controls beside them. To judge them, give the "
                    "screen as `adata` and them as `predictions` (on the command line: "
                    "`unlasting evaluate my_model/adata.h5ad --predictions new_cells.h5ad`)."
                )
            found = Counter(map(str, self.column(adata, "perturbation_key")))
            common = ", ".join(repr(label) for label, _ in found.most_common(5))
            raise ValueError(
                f"No cell of `adata.obs[{self.perturbation_key!r}]` carries the control label "
                f"`control={self.control!r}`.{nearest_name(self.control, sorted(found))} "
                "Unperturbed cells are needed: every prediction starts from them. "
                f"Name their label as `control`; the most frequent labels are {common}."
            )
        return labels

    def doses(self, adata: AnnData) -> np.ndarray:
        """Get the canonical doses of every cell in uM as text, shape `(n_cells,)`.

        One part for each target of the canonical label, in its order: `0.1` for one drug, `1+0.5` for two, `+0.5` for a
        gene and a drug. Empty for controls, gene targets and stimuli, and everywhere without a `dose_key`.

        Raises
        ------
        KeyError
            If `obs` lacks a column.
        ValueError
            If a label or a dose cannot be read, or a drug has no dose.
        """
        return _written(self.perturbations(adata), Perturbation.dose_text)

    def smiles(self, adata: AnnData) -> dict[str, str]:
        """Get a SMILES of every drug by name, as the column of `smiles_key` has it; none without this key.

        Raises
        ------
        KeyError
            If `obs` lacks a column.
        ValueError
            If the SMILES of a combination cannot be told apart.
        """
        if self.smiles_key is None:
            return {}
        columns = (self.column(adata, argument) for argument in ("perturbation_key", "smiles_key"))
        found, faults = smiles_by_name(*columns, **self.grammar)
        if faults:
            raise ValueError(
                f"`smiles_key={self.smiles_key!r}` holds combinations whose SMILES cannot be told apart: separate them by "
                f"'..', in the order of the label. {'; '.join(faults[:20])}."
            )
        return {name: texts[0] for name, texts in found.items() if any(texts)}

    def drugs(self, adata: AnnData) -> frozenset[str] | None:
        """Get the names of drugs and their canonical SMILES; `None` where nothing says what is a drug.

        A drug is what :func:`unlasting.pp.molecules` knows, or has a SMILES in the column of `smiles_key`.
        """
        if self.known_drugs is not None:
            return self.known_drugs
        molecules = adata.uns.get(UNS_KEY, {}).get("molecules")
        if molecules is None and self.smiles_key is None:
            return None
        stored = [] if molecules is None else [*molecules["drugs"], *molecules["smiles"]]
        return frozenset({*map(str, stored), *self.smiles(adata)})

    def cell_types(self, adata: AnnData) -> np.ndarray:
        """Get the cell type of every cell, or one empty name for all, shape `(n_cells,)`."""
        if self.cell_type_key is None:
            return np.full(adata.n_obs, "", dtype=object)
        return self.column(adata, "cell_type_key").astype(str).astype(object)

    def batches(self, adata: AnnData) -> np.ndarray:
        """Get the batch of every cell, or one empty name for all, shape `(n_cells,)`."""
        if self.batch_key is None:
            return np.full(adata.n_obs, "", dtype=object)
        return self.column(adata, "batch_key").astype(str).astype(object)

    def split(self, adata: AnnData) -> np.ndarray | None:
        """Get `train`, `val` or `test` of every cell, or `None` without a split column.

        Raises
        ------
        ValueError
            If the column holds anything else.
        """
        if self.split_key not in adata.obs:
            return None
        split = self.column(adata, "split_key").astype(str).astype(object)
        strange = sorted(set(split) - set(SPLITS))
        if strange:
            raise ValueError(
                f"`adata.obs[{self.split_key!r}]` holds {strange[:5]}; only 'train', 'val' and 'test' are allowed."
            )
        return split


def _written(found: np.ndarray, write: Callable[[Perturbation], str]) -> np.ndarray:
    """Write each distinct perturbation once, shape `(n_cells,)`."""
    distinct = {id(p): p for p in found}
    text = {key: write(p) for key, p in distinct.items()}
    return np.array([text[id(p)] for p in found], dtype=object)


def split_hash(obs_names: Iterable[str], split: np.ndarray | None) -> str:
    """Fingerprint which cell is in which part of the split, so that a later change is noticed."""
    digest = hashlib.sha256()
    names = list(obs_names)
    for name, part in zip(names, split if split is not None else ["train"] * len(names), strict=True):
        digest.update(f"{name}\0{part}\n".encode())
    return digest.hexdigest()
