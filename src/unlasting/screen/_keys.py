"""Keys: the label columns, recorded by `pp` and `setup_anndata`, read by every later step."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from unlasting.screen._checks import MissingKeyError, not_none
from unlasting.screen._chemistry import smiles_by_name
from unlasting.screen._constants import SPLIT_KEY, SPLITS, UNS_KEY
from unlasting.screen._doses import assumed_unit, canonical_unit, in_micromolar
from unlasting.screen._labels import control_candidates
from unlasting.screen._perturbation import Perturbation, nearest_name, parse_labels

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class ScreenKeys:
    """The label columns, and the label grammar.

    Parameters
    ----------
    perturbation_key
        `obs` column with the perturbation labels.
    control
        Control label. Several labels or patterns such as `NT*` may be given; the first label then stands for all.
    cell_type_key
        `obs` column with the cell type.
    batch_key
        `obs` column with the batch.
    split_key
        `obs` column with `train`, `val` or `test`.
    delimiter
        Separator between targets.
    dose_key
        `obs` column with doses in uM: a number, or text such as `1+0.5` in the order in which the label names its
        drugs. Values of other cells are ignored if the drugs are known from `smiles_key` or
        :func:`unlasting.pp.molecules`.
    smiles_key
        `obs` column with SMILES. In a combination: one for each part, separated by `..` and empty for other targets;
        not needed if its drugs are known from other cells.
    known_drugs
        A saved model's drug names, in place of those in an AnnData. Not recorded.
    other_controls
        Further control labels and patterns.
    dose_unit
        Unit of the doses in the column, such as `nM` or `log10 M`; uM by default. All other doses are in uM.
    assumptions
        Sentences on everything that was inferred from the column. Not recorded.
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
    other_controls: tuple[str, ...] = ()
    dose_unit: str | None = None
    assumptions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.dose_unit is not None:
            object.__setattr__(self, "dose_unit", canonical_unit(self.dose_unit))
        if not isinstance(self.control, str):
            first, *others = _names(self.control) or [""]
            object.__setattr__(self, "control", first)
            object.__setattr__(self, "other_controls", tuple(others))

    @classmethod
    def read(cls, adata: AnnData, **given: Any) -> ScreenKeys:
        """Read the recorded keys, and add those given.

        A key that is neither recorded nor given has its default. `None` counts as not given.
        """
        recorded, given = _recorded(adata), not_none(**given)
        if "dose_unit" in given:
            given["dose_unit"] = canonical_unit(given["dose_unit"])
        if "control" in given and {*_names(given["control"])} <= {*_names(recorded.get("control", ()))}:
            del given["control"]
        for argument, value in given.items():
            known = recorded.get(argument, value)
            if known != value:
                again = f"`pp.split(adata, ..., {argument}={value!r})`"
                if argument == "split_key":
                    again = f"`del adata.uns['unlasting']`, then `pp.prepare(adata, split_key={value!r})`"
                raise ValueError(
                    f"`{argument}` is {value!r}, but earlier steps used {known!r} and recorded it in "
                    f"`adata.uns['unlasting']['keys']`. Leave `{argument}` out, or start over on the raw counts: {again} "
                    "and the steps after it."
                )
        return cls._resolved(adata, {**recorded, **given})

    @classmethod
    def restart(cls, adata: AnnData, **given: Any) -> ScreenKeys:
        """Read the recorded keys, and replace those given: for `pp.split`, the first step, which may be repeated."""
        return cls._resolved(adata, {**_recorded(adata), **not_none(**given)})

    @classmethod
    def _resolved(cls, adata: AnnData, keys: dict[str, Any]) -> ScreenKeys:
        """Put the most frequent match of a control pattern first, and infer the unit of doses."""
        names, key = (
            _names(keys.get("control", cls.control)) or [""],
            keys.get("perturbation_key", cls.perturbation_key),
        )
        if "*" in names[0] and key in adata.obs:
            labels = Counter(map(str, adata.obs[key]))
            matches = [label for label, _ in labels.most_common() if _pattern(names).fullmatch(label)]
            keys = {**keys, "control": [*matches[:1], *names]}
        dose_key = keys.get("dose_key")
        if dose_key is not None and dose_key in adata.obs and "dose_unit" not in keys:
            unit, sentence = assumed_unit(dose_key, adata.obs[dose_key].dropna().unique())
            keys = {**keys, "dose_unit": unit, "assumptions": (sentence,)} if unit else keys
        return cls(**keys)

    def write(self, adata: AnnData) -> None:
        """Record the keys in `uns["unlasting"]["keys"]`, `split_key` only with its column."""
        used: dict[str, Any] = not_none(**self.as_dict())
        if self.split_key not in adata.obs:
            del used["split_key"]
        adata.uns.setdefault(UNS_KEY, {})["keys"] = {**_recorded(adata), **used}

    def as_dict(self) -> dict[str, Any]:
        """Get the keys by argument name, several controls as a list."""
        keys = asdict(self)
        del keys["known_drugs"], keys["other_controls"], keys["assumptions"]
        return keys | ({"control": [self.control, *self.other_controls]} if self.other_controls else {})

    @property
    def control_text(self) -> str:
        """The control labels for a message."""
        return ", ".join(map(repr, (self.control, *self.other_controls)))

    def column(self, adata: AnnData, argument: str) -> np.ndarray:
        """Get the values in a key's column, such as `"perturbation_key"`, shape `(n_cells,)`; `None` if missing.

        Other control labels are replaced by the first, also within combinations.
        """
        key = getattr(self, argument)
        if key not in adata.obs:
            columns = list(map(str, adata.obs.columns))
            hint = nearest_name(str(key), columns)
            if not hint and argument == "perturbation_key" and key == ScreenKeys.perturbation_key:
                hint = " This is the default: name your own column (`perturbation_key=...`)."
            raise MissingKeyError(
                f"`{argument}` is {key!r}, but `adata.obs` has no such column (it has {columns}).{hint}"
            )
        column = adata.obs[key].astype(object)
        if argument == "perturbation_key" and self.other_controls:
            column = column.map({label: self._with_one_control(label) for label in column.dropna().unique()})
        return np.asarray(column.where(column.notna(), None))

    def _with_one_control(self, label: object) -> object:
        """Write a label with the first control label in place of the others."""
        text, pattern = str(label).strip(), _pattern((self.control, *self.other_controls))
        if pattern.fullmatch(text):
            return self.control
        parts = text.split(self.delimiter) if self.delimiter else [text]
        others = [part for part in parts if not pattern.fullmatch(part.strip())]
        return label if len(others) == len(parts) else self.delimiter.join(others) or self.control

    @property
    def grammar(self) -> dict[str, str]:
        """The label grammar: `control` and `delimiter`."""
        return {"control": self.control, "delimiter": self.delimiter}

    def perturbations(self, adata: AnnData) -> np.ndarray:
        """Get perturbations with doses per cell, shape `(n_cells,)`; equal ones are the same object."""
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
        without = self.dose_key is None or only_controls  # controls alone may lack this column
        doses = np.full(adata.n_obs, None) if without else self.micromolar(self.column(adata, "dose_key"))
        drugs = None if without else self.drugs(adata)
        parsed: dict[tuple[object, object], Perturbation] = {}
        faults: dict[str, None] = {}
        first, second = (pd.factorize(part, use_na_sentinel=False)[0].astype(np.int64) for part in (labels, doses))
        code = pd.factorize(first * (adata.n_obs + 1) + second)[0]
        rows = np.unique(code, return_index=True)[1]
        pairs = list(zip(labels[rows], doses[rows], strict=True))
        for label, dose in pairs:
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
                    " If some targets are no drugs, name the drugs: give `smiles_key`, or call `pp.molecules` first."
                )
            if any("from 0 on" in fault for fault in faults):
                more += " If doses are logarithms, give their unit: `dose_unit='log10 uM'`."
            raise ValueError(f"`dose_key={self.dose_key!r}` contains wrong doses: {' '.join(list(faults)[:20])}{more}")
        same = {p: p for p in parsed.values()}
        distinct = np.empty(len(pairs), dtype=object)
        distinct[:] = [same[parsed[pair]] for pair in pairs]
        return distinct[code]

    def micromolar(self, doses: np.ndarray) -> np.ndarray:
        """Convert a column of doses to uM, shape `(n_cells,)`."""
        unit = self.dose_unit or "uM"
        converted = {dose: in_micromolar(dose, unit) for dose in dict.fromkeys(doses)}
        return np.array([converted[dose] for dose in doses], dtype=object)

    def labels(self, adata: AnnData) -> np.ndarray:
        """Get canonical perturbation labels per cell, without drugs at dose 0, shape `(n_cells,)`."""
        labels = by_perturbation(self.perturbations(adata), lambda p: p.label(**self.grammar))
        if not (labels == self.control).any():
            if "generated" in adata.uns.get(UNS_KEY, {}):
                raise ValueError(
                    "`adata` contains cells generated by a model, and no controls. To evaluate them, give the "
                    "screen as `adata` and these cells as `predictions` (on the command line: "
                    "`unlasting evaluate my_model/adata.h5ad --predictions new_cells.h5ad`)."
                )
            found = Counter(map(str, self.column(adata, "perturbation_key")))
            common = ", ".join(repr(label) for label, _ in found.most_common(5))
            likely = control_candidates(found)[:5]
            hint = nearest_name(self.control, sorted(found))
            if likely and not hint:
                hint = f" It may be `control={(likely[0] if len(likely) == 1 else likely)!r}`."
            raise ValueError(
                f"No cell of `adata.obs[{self.perturbation_key!r}]` has the control label "
                f"`control={self.as_dict()['control']!r}`.{hint} "
                "Unperturbed cells are needed: every prediction starts from them. "
                f"Name their label as `control`; the most frequent labels are {common}."
            )
        return labels

    def doses(self, adata: AnnData) -> np.ndarray:
        """Get canonical doses per cell in uM as text, shape `(n_cells,)`.

        One part for each target in the canonical label: `0.1` for one drug, `1+0.5` for two, `+0.5` for a gene and a
        drug. Empty for controls, gene targets and stimuli, and for all cells without a `dose_key`.
        """
        return by_perturbation(self.perturbations(adata), Perturbation.dose_text)

    def smiles(self, adata: AnnData) -> dict[str, str]:
        """Get SMILES by drug name, from the `smiles_key` column; none without this key."""
        if self.smiles_key is None:
            return {}
        columns = (self.column(adata, argument) for argument in ("perturbation_key", "smiles_key"))
        found, faults = smiles_by_name(*columns, **self.grammar)
        if faults:
            raise ValueError(
                f"`smiles_key={self.smiles_key!r}` contains combinations with ambiguous SMILES: {'; '.join(faults[:20])}. "
                "Separate them by '..', in the order of the label."
            )
        return {name: texts[0] for name, texts in found.items() if any(texts)}

    def drugs(self, adata: AnnData) -> frozenset[str] | None:
        """Get drug names and canonical SMILES; `None` without any SMILES.

        Drugs are known from :func:`unlasting.pp.molecules` or a SMILES in the `smiles_key` column.
        """
        if self.known_drugs is not None:
            return self.known_drugs
        molecules = adata.uns.get(UNS_KEY, {}).get("molecules")
        if molecules is None and self.smiles_key is None:
            return None
        stored = [] if molecules is None else [*molecules["drugs"], *molecules["smiles"]]
        return frozenset({*map(str, stored), *self.smiles(adata)})

    def cell_types(self, adata: AnnData) -> np.ndarray:
        """Get the cell type per cell, or one empty name for all, shape `(n_cells,)`."""
        return self._groups(adata, "cell_type_key")

    def batches(self, adata: AnnData) -> np.ndarray:
        """Get the batch per cell, or one empty name for all, shape `(n_cells,)`."""
        return self._groups(adata, "batch_key")

    def _groups(self, adata: AnnData, argument: str) -> np.ndarray:
        """Get the names in a column, or one empty name for all without this key, shape `(n_cells,)`."""
        if getattr(self, argument) is None:
            return np.full(adata.n_obs, "", dtype=object)
        groups = self.column(adata, argument)
        missing = np.flatnonzero([group is None for group in groups])
        if len(missing):
            key = getattr(self, argument)
            raise ValueError(
                f"{len(missing)} cells have no value in `adata.obs[{key!r}]` (`{argument}`), {adata.obs_names[missing[0]]!r} the "
                f"first. Remove such cells (`adata = adata[adata.obs[{key!r}].notna()].copy()`), or name their group."
            )
        return np.array(
            [str(int(x)) if isinstance(x, float) and x.is_integer() else str(x) for x in groups], dtype=object
        )

    def split(self, adata: AnnData) -> np.ndarray | None:
        """Get `train`, `val` or `test` for each cell, or `None` without a split column."""
        if self.split_key not in adata.obs:
            return None
        split = self.column(adata, "split_key").astype(str).astype(object)
        strange = sorted(set(split) - set(SPLITS))
        if strange:
            raise ValueError(
                f"`adata.obs[{self.split_key!r}]` contains {strange[:5]}; only 'train', 'val' and 'test' are allowed. "
                "Rename them, or call `pp.split`."
            )
        return split


def _recorded(adata: AnnData) -> dict[str, Any]:
    """Get the keys that earlier steps recorded."""
    keys = dict(adata.uns.get(UNS_KEY, {}).get("keys", {}))
    return keys | ({} if isinstance(keys.get("control", ""), str) else {"control": _names(keys["control"])})


def _names(control: object) -> list[str]:
    """List the control labels and patterns, each once."""
    names = control if isinstance(control, Iterable) and not isinstance(control, str) else [control]
    return list(dict.fromkeys(map(str, names)))


def _pattern(names: Iterable[str]) -> re.Pattern[str]:
    """Write names with `*` for any text as one expression."""
    return re.compile("|".join(re.escape(name).replace(r"\*", ".*") for name in names))


def by_perturbation(perturbations: np.ndarray, compute: Callable[[Perturbation], Any]) -> np.ndarray:
    """Compute a value for each distinct perturbation once, shape `(n_cells,)`."""
    identity = np.fromiter(map(id, perturbations), dtype=np.int64, count=len(perturbations))
    _, first, code = np.unique(identity, return_index=True, return_inverse=True)
    return np.array([compute(one) for one in perturbations[first]], dtype=object)[code]


def split_hash(obs_names: Iterable[str], split: np.ndarray | None) -> str:
    """Compute a fingerprint for cells and their parts, to detect later changes."""
    digest = hashlib.sha256()
    names = list(obs_names)
    for name, part in zip(names, split if split is not None else ["train"] * len(names), strict=True):
        digest.update(f"{name}\0{part}\n".encode())
    return digest.hexdigest()
