"""Overview of a screen before anything is done: labels, doses, genes, scale, oddities and the next call."""

from __future__ import annotations

import inspect
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from anndata import AnnData

from unlasting.pp._genes import find_counts, gene_names, is_gene, looks_like_gene, unmatched_names
from unlasting.pp._grn import grn
from unlasting.pp._molecules import molecules
from unlasting.pp._prepare import prepare
from unlasting.pp._shipped_knowledge import annotated_genes
from unlasting.pp._split import split
from unlasting.screen import (
    TRAIN,
    UNS_KEY,
    GeneNames,
    Scale,
    ScreenKeys,
    check_cells,
    check_log_normalised,
    expression,
    integer_counts,
    is_in_memory,
    listed,
    not_none,
    require_controls,
    require_perturbed,
    review_labels,
)

_FIRST: Final = 4096
"""Cells of a file whose scale is read."""
_UNNAMED: Final = {
    "contexts": "one; `cell_type_key` names their column",
    "batches": "one; `batch_key` names their column",
}


@dataclass(frozen=True, repr=False)
class Overview:
    """A screen as the package understands it.

    `cells` has numbers of cells by name for each kind of label. `counts` and `split_kind` are empty without raw counts, and
    with a split. Every sentence in `oddities` ends with its fix.
    """

    n_cells: int
    n_features: int
    cells: dict[str, dict[str, int]]
    doses: dict[str, list[float]]
    gene_names: str
    measured: list[str]
    expression: str
    counts: str
    oddities: list[str]
    split_kind: str
    next_call: str

    def __repr__(self) -> str:
        """Name the screen in a line, for the end of a notebook cell."""
        return f"<Overview: {self.n_cells} cells x {self.n_features} features, {len(self.oddities)} oddities>"

    def __str__(self) -> str:
        """Write a line for each fact."""
        lines = {"screen": f"{self.n_cells} cells x {self.n_features} features"}
        for section, cells in self.cells.items():
            named = listed(f"{name} ({n})" for name, n in cells.items())
            lines[section] = f"{len(cells)} (cells): {named}" if cells else _UNNAMED.get(section, "none")
        lines["doses in µM"] = listed(f"{name} ({', '.join(f'{x:g}' for x in xs)})" for name, xs in self.doses.items())
        genes = len(self.cells["gene targets"])
        lines["gene names"] = self.gene_names
        if genes:
            lines["gene names"] += f"; {len(self.measured)} of {genes} gene targets are measured"
        lines |= {"expression": self.expression, "raw counts": self.counts or "none"}
        lines["oddities"] = "".join(f"\n  ({i}) {one}" for i, one in enumerate(self.oddities, 1))
        lines["next"] = self.next_call
        written = "\n".join(f"{name}: {text or 'none'}" for name, text in lines.items())
        return written.replace(": \n", ":\n")


def check(
    adata: AnnData,
    *,
    perturbation_key: str | None = None,
    control: str | Sequence[str] | None = None,
    cell_type_key: str | None = None,
    batch_key: str | None = None,
    dose_key: str | None = None,
    dose_unit: str | None = None,
    smiles_key: str | None = None,
    split_key: str | None = None,
    delimiter: str | None = None,
    symbols_key: str | None = None,
) -> Overview:
    """Print a screen's labels, doses, genes and scale as the package understands them.

    Nothing is fitted, and `adata` stays unchanged. Of expression on disk, the first 4096 cells are read.

    Parameters
    ----------
    adata
        The screen, shape `(n_cells, n_features)`.
    perturbation_key, control, cell_type_key, batch_key, dose_key, dose_unit, smiles_key, split_key, delimiter
        `obs` columns and label grammar, like in :func:`unlasting.pp.split`; recorded ones by default.
    symbols_key
        `var` column with gene symbols, like in :func:`unlasting.pp.prepare`.

    Returns
    -------
    The printed facts as attributes, with all oddities and the next call.

    Raises
    ------
    KeyError
        If a column is missing.
    ValueError
        If a label, a dose or a SMILES cannot be read.
    """
    given = not_none(**{name: value for name, value in locals().items() if name != "adata"})
    found = overview(adata, **given)
    print(found)  # noqa: T201
    return found


def overview(adata: AnnData, *, symbols_key: str | None = None, **given: Any) -> Overview:
    """Collect the facts for :func:`check`."""
    check_cells(adata)
    keys = ScreenKeys.restart(adata, **given)
    found, drugs, part = keys.perturbations(adata), keys.drugs(adata) or frozenset(), keys.split(adata)
    is_control = np.array([p.is_control for p in found])
    together, targets = Counter[tuple[str, ...]](), Counter[str]()
    doses: dict[str, set[float]] = defaultdict(set)
    for perturbation, n in Counter(found).items():
        together[perturbation.targets] += n
        for name, dose in zip(perturbation.targets, perturbation.doses, strict=True):
            targets[name] += n
            doses[name] |= set() if dose is None else {dose}
    others = targets.keys() - drugs
    names, column = gene_names(adata, others, symbols_key)
    panel, place = set(names[is_gene(adata)].astype(str)), f"`adata.var[{column!r}]`" if column else "`adata.var_names`"
    measured, annotated = GeneNames(panel), GeneNames(annotated_genes()[0], panel=panel)
    genes = {
        name
        for name in others
        if measured.find(name) or annotated.find(name) or measured.symbol(name) not in ("", name)
    }
    dosed = sorted(name for name, several in doses.items() if several and name not in drugs | genes)
    by_structure = keys.drugs(adata) is not None
    if not by_structure:
        drugs = drugs.union(dosed)
    stimuli = others - genes - drugs
    kinds = {"gene targets": genes, "drugs": drugs, "stimuli": stimuli}
    cells = {
        "controls": _count(adata.obs[keys.perturbation_key][is_control]),
        **{kind: {name: n for name, n in targets.most_common() if name in those} for kind, those in kinds.items()},
        "combinations": {keys.delimiter.join(t): n for t, n in together.most_common() if len(t) > 1},
        "contexts": _count(keys.cell_types(adata)) if keys.cell_type_key else {},
        "batches": _count(keys.batches(adata)) if keys.batch_key else {},
        "split": {} if part is None else _count(part),
    }
    shown, first = (adata, "") if not _is_on_disk(adata) else (_first_cells(adata), f" (first {_FIRST} cells)")
    scale, counts, fault = _scale(shown, np.flatnonzero(is_control[: shown.n_obs]))
    spelt = sorted(filter(looks_like_gene, stimuli))
    oddities = [
        "" if is_control.any() else _fault(keys.labels, adata),
        _fault(require_perturbed, is_control, keys),
        _fault(require_controls, adata, keys, is_control if part is None else is_control & (part == TRAIN))
        if is_control.any()
        else "",
        *review_labels(adata, keys),
        unmatched_names(names, others),
        f"Unknown names that look like genes count as stimuli: {listed(spelt)}. Correct them, or name genes in "
        "`pp.grn(adata, targets=[...])`."
        if spelt
        else "",
        f"{listed(dosed)} have doses but no SMILES, and are drugs by name alone: untrained drugs cannot be predicted. Name the "
        "SMILES column of drugs, `smiles_key=...`, or leave `dose_key` out."
        if dosed
        else "",
        fault,
    ]
    kind = (
        _split_kind(cells, by_structure, sum(n >= 10 for names, n in together.items() if names)) if part is None else ""
    )
    return Overview(
        n_cells=adata.n_obs,
        n_features=adata.n_vars,
        cells=cells,
        doses={name: sorted(several) for name, several in sorted(doses.items()) if several},
        gene_names=place
        + (f", {adata.n_vars - len(panel)} features are no genes" if len(panel) < adata.n_vars else ""),
        measured=sorted(filter(measured.find, genes)),
        expression=scale + first * (adata.n_obs > _FIRST),
        counts=counts,
        oddities=[sentence for sentence in oddities if sentence],
        split_kind=kind,
        next_call=_next_call(adata, cells, kind, counts, not_none(**given, symbols_key=symbols_key)),
    )


def _count(names: Iterable[str]) -> dict[str, int]:
    """Count the cells by name, most frequent first."""
    return dict(Counter(map(str, names)).most_common())


def _fault(require: Callable[..., object], *arguments: object) -> str:
    """Get the error message of a check; empty if it passes."""
    try:
        require(*arguments)
    except ValueError as error:
        return str(error)
    return ""


def _scale(adata: AnnData, controls: np.ndarray) -> tuple[str, str, str]:
    """Get the scale of `X`, the place of raw counts, and the fault if expression is unusable."""
    matrix, place = find_counts(adata)
    if place == "adata.X":
        return f"integers, {np.median(np.asarray(matrix.sum(axis=1))):g} counts in the median cell", place, ""
    prepared = adata.uns.get(UNS_KEY, {}).get("prepare")
    place = f"adata.layers[{prepared['counts_layer']!r}]" if prepared and not place else place
    fault = _fault(lambda: check_log_normalised(expression(adata), "`adata.X`"))
    if not fault:
        total = Scale.measure(adata.X, controls if len(controls) else np.arange(adata.n_obs))
        return f"log-normalised, {total.median if total else 0:.6g} counts in the median control", place, ""
    return "neither counts nor log-normalised", place, "" if place else _fault(integer_counts, adata) or fault


def _is_on_disk(adata: AnnData) -> bool:
    return bool(adata.isbacked or not is_in_memory(adata.X))


def _first_cells(adata: AnnData) -> AnnData:
    """Read the expression in the first cells from disk."""
    return AnnData(expression(adata)[:_FIRST], obs=adata.obs[[]].iloc[:_FIRST], uns=dict(adata.uns))


def _split_kind(cells: Mapping[str, Mapping[str, int]], by_structure: bool, n_frequent: int) -> str:
    """Choose a kind of split that the screen permits; each part of it needs a perturbation or cell type."""
    if n_frequent >= 3:
        only_drugs = by_structure and cells["drugs"] and not (cells["gene targets"] or cells["stimuli"])
        return "unseen_drug" if only_drugs and len(cells["drugs"]) >= 3 else "unseen_perturbation"
    return "unseen_cell_type" if len(cells["contexts"]) >= 3 else "random"


def _next_call(
    adata: AnnData, cells: Mapping[str, Mapping[str, int]], kind: str, counts: str, given: dict[str, Any]
) -> str:
    """Write the first step that the screen lacks, with the keys that it takes and does not know yet."""
    stored = adata.uns.get(UNS_KEY, {})
    given |= {} if cells["controls"] else {"control": "LABEL"}
    steps: list[tuple[Callable[..., object], bool]] = [
        (check, not cells["controls"]),
        (split, bool(kind)),
        (prepare, "prepare" not in stored and bool(counts)),
        (molecules, "molecules" not in stored and "smiles_key" in {**given, **stored.get("keys", {})}),
        (grn, "grn" not in stored),
    ]
    step = next((function for function, is_due in steps if is_due), None)
    taken = given.keys() - {"symbols_key"} if step is None else inspect.signature(step).parameters
    new = {name: value for name, value in given.items() if name in taken and stored.get("keys", {}).get(name) != value}
    name = "ul.UnlastingModel.setup_anndata" if step is None else f"ul.pp.{step.__name__}"
    arguments = [repr(kind)] if step is split else []
    if step is prepare and _is_on_disk(adata):
        name, new = f"adata = {name}", {**new, "copy": True}
    return f"{name}({', '.join(['adata', *arguments, *(f'{key}={value!r}' for key, value in new.items())])})"
