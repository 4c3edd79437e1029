"""Division into cells for training, validation and tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from unlasting.pp._split_combinations import by_combination
from unlasting.pp._split_conditions import by_dose, by_pair
from unlasting.pp._split_drugs import Method, by_drug, by_drug_and_dose
from unlasting.pp._split_labels import by_cell_type, by_cells, by_perturbation, by_reference, by_target
from unlasting.pp._split_request import Labels, Request
from unlasting.screen import (
    SPLIT_KEY,
    SPLITS,
    TEST,
    TRAIN,
    UNS_KEY,
    VAL,
    Perturbation,
    ScreenKeys,
    check_cells,
    listed,
    logger,
    require_choices,
    require_integers,
    require_numbers,
    split_hash,
    target_by_guide,
    warn_of_labels,
)

SPLIT_KINDS: dict[str, Callable[[Labels, Request], np.ndarray]] = {
    "random": by_cells,
    "unseen_perturbation": by_perturbation,
    "leave_one_out": by_target,
    "unseen_combo": by_combination,
    "unseen_drug": by_drug,
    "unseen_dose": by_dose,
    "unseen_drug_and_dose": by_drug_and_dose,
    "unseen_cell_type": by_cell_type,
    "unseen_pair": by_pair,
    "reference": by_reference,
}
"""Each kind: a function from labels and request to `train`, `val` or `test` per cell, shape `(n_cells,)`."""

LABEL_KINDS = ("unseen_perturbation", "leave_one_out", "unseen_combo")
"""The kinds that hold out all cells of a label."""


def split(
    adata: AnnData,
    kind: str = "unseen_perturbation",
    *,
    test: str | float | Sequence[str | float] | None = None,
    val: str | float | Sequence[str | float] | None = None,
    test_fraction: float = 0.3,
    val_fraction: float = 0.1,
    n_seen: int = 2,
    n_shots: int = 0,
    method: Method = "random",
    min_cells: int = 10,
    perturbation_key: str | None = None,
    control: str | Sequence[str] | None = None,
    cell_type_key: str | None = None,
    batch_key: str | None = None,
    dose_key: str | None = None,
    dose_unit: str | None = None,
    smiles_key: str | None = None,
    delimiter: str | None = None,
    key_added: str = SPLIT_KEY,
    seed: int = 0,
    copy: bool = False,
) -> AnnData | None:
    """Divide a screen into `train`, `val` and `test`.

    This is the first step: it reads labels only, and every later step is fitted to the `train` cells. The `val` part, for
    early stopping and model choice, is of the same kind as the `test` part. Controls are `train` in every kind but
    `random`. A second call starts over: it replaces the recorded keys that it is given.

    Parameters
    ----------
    adata
        The screen.
    kind
        The held-out part, an entry of `SPLIT_KINDS`:

        - `"random"`: cells in every condition, controls too.
        - `"unseen_perturbation"`: whole perturbations, in all cell types. A combination counts as one of its own; its
          targets may be seen elsewhere. If `val_fraction` is less than one perturbation, none is `val`; training then
          validates on a tenth of the cells of each condition.
        - `"leave_one_out"`: the targets named by `test`, with every combination that contains one of them.
        - `"unseen_combo"`: combinations with `n_seen` targets trained as singles; the others appear in no training cell,
          so all their combinations are held out too.
        - `"unseen_drug"`: whole drugs, in all cell types and at all doses, with every combination that contains one.
        - `"unseen_dose"`: doses of a drug in a cell type; it stays in training at another dose at least.
        - `"unseen_drug_and_dose"`: whole drugs, and doses of the other drugs, as in the published experiment.
        - `"unseen_cell_type"`: the perturbed cells of whole cell types; their controls are `train`. If a drawn `val` cell type
          would leave fewer than two for training, cells from each training condition are `val` instead.
        - `"unseen_pair"`: pairs of perturbation and cell type. The perturbation is trained in another cell type, and the
          cell type with another perturbation.
        - `"reference"`: the published split of a shipped data set.
    test, val
        Names to hold out: perturbations, targets, combinations, drugs or cell types, depending on the kind; a pair as
        `"A in CD14 Mono"`. For `unseen_dose` a number of uM holds out this dose of every drug with another dose, and
        `"A at 10 uM in A549"` a single one; `unseen_drug_and_dose` takes both kinds of names. By default drawn at random.
    test_fraction, val_fraction
        Fractions to draw among cells (`random`), perturbations, combinations, drug groups, doses, cell types or pairs. The
        nearest whole number is taken, and at least one unless the fraction is 0 (`unseen_perturbation` may have no `val`).
    n_seen
        For `unseen_combo`: number of targets trained as singles (0, 1 or 2 for pairs).
    n_shots
        For `unseen_cell_type`: number of cells per perturbation in a held-out cell type that stay in training (0 for
        zero-shot).
    method
        For `unseen_drug` and `unseen_drug_and_dose`, the drugs that are held out together:

        - `"random"`: one molecule under several names.
        - `"scaffold"`: drugs with one Bemis-Murcko scaffold; a drug without rings is on its own.
        - `"similarity"`: drugs with a Tanimoto similarity (Morgan fingerprints) above 0.4, and chains of them.
        - `"published"`, `"published_epigenetic"`: the out-of-distribution drugs of sci-Plex3 in chemCPA, as `test`; see
          :func:`unlasting.datasets.sciplex3_drugs`.
    min_cells
        Conditions with fewer perturbed cells are not drawn (they may be named).
    perturbation_key, cell_type_key, batch_key, dose_key, smiles_key
        `obs` columns with labels (by default `"perturbation"`), cell types, batches, doses, and SMILES like in
        :func:`unlasting.pp.molecules`.
    dose_unit
        Unit of the doses in this column, an entry of `DOSE_UNITS` such as `"nM"` or `"log10 M"`; `"uM"` by default, unless
        the column's name or negative values tell otherwise. Every other dose, here and later, is in uM.
    control
        Control label, by default `"control"`. Several labels, or a pattern such as `"non-targeting*"`, name one control; the
        first label, or the most frequent match, then stands for all.
    delimiter
        Separator between targets, by default `"+"`.
    key_added
        `obs` column to write.
    seed
        The same seed gives the same split.
    copy
        Return a changed copy, and leave `adata` as it is.

    Returns
    -------
    `None`, or the copy. Updates the following fields:

    - `adata.obs[key_added]`: `train`, `val` or `test`.
    - `adata.uns["unlasting"]["split"]`: the kind, the seed, the numbers of cells and the perturbations (and cell types)
      in each part, and a hash that lets later steps notice a change. `also_held_out` names test conditions that had to go
      with the others, but do not have `n_seen` trained targets. `trained_in_combinations` names trained combinations with
      a target that is held out alone.
    - `adata.uns["unlasting"]["keys"]`: the columns with the labels.
    - `adata.uns["unlasting"]["label_review"]`: the warning about labels, or an empty text.

    Raises
    ------
    KeyError
        If a column is missing.
    ValueError
        If a label, a dose or a SMILES cannot be read, a name is unknown, or a part would be empty.
    ImportError
        If molecular structures are needed and RDKit is not installed.

    Examples
    --------
    >>> import unlasting as ul
    >>> adata = ul.datasets.papalexi()
    >>> ul.pp.split(adata, "leave_one_out", test="STAT1")
    >>> adata.uns["unlasting"]["split"]["test_conditions"].tolist()
    ['STAT1']
    """
    adata = adata.copy() if copy else adata
    check_cells(adata, writable=True)
    require_choices(SPLIT_KINDS, kind=kind)
    require_numbers(test_fraction=test_fraction, val_fraction=val_fraction)
    require_integers(0, n_seen=n_seen, n_shots=n_shots, min_cells=min_cells, seed=seed)
    if not (0 <= test_fraction < 1 and 0 <= val_fraction < 1 and test_fraction + val_fraction < 1):
        raise ValueError(
            f"`test_fraction` is {test_fraction} and `val_fraction` is {val_fraction}; "
            "neither may be negative, and together they must leave something for training."
        )
    keys = ScreenKeys.restart(
        adata,
        perturbation_key=perturbation_key,
        control=control,
        cell_type_key=cell_type_key,
        batch_key=batch_key,
        dose_key=dose_key,
        dose_unit=dose_unit,
        smiles_key=smiles_key,
        delimiter=delimiter,
        split_key=key_added,
    )
    labels = Labels(adata, keys)
    request = Request(
        names={TEST: _names(test), VAL: _names(val)},
        fractions={TEST: test_fraction, VAL: val_fraction},
        min_cells=min_cells,
        n_seen=n_seen,
        n_shots=n_shots,
        method=method,
        rng=np.random.default_rng(seed),
    )
    parts = SPLIT_KINDS[kind](labels, request)
    said = _keep_guides_together(labels, parts, set(map(str, adata.var_names))) if kind in LABEL_KINDS else []
    _require_parts(labels, parts, request)
    report: dict[str, Any] = {"kind": kind, "seed": seed, "hash": split_hash(adata.obs_names, parts)}
    report |= _describe(labels, parts) | request.report
    adata.obs[key_added] = pd.Categorical(parts, categories=list(SPLITS))
    recorded = adata.uns.setdefault(UNS_KEY, {})
    recorded["split"] = report
    if "prepare" in recorded:
        recorded["prepare"]["split_since"] = True
    keys.write(adata)
    counts = ", ".join(f"{report[f'n_{part}']} cells {part}" for part in SPLITS)
    in_training = labels.is_perturbed & (parts == TRAIN)
    trained = {*labels.perturbation[in_training], *labels.cell_type[in_training]}
    held_out: dict[str, list[str]] = {
        part: [n for n in report[f"{part}_conditions"] if n not in trained]
        or [n for n in report.get(f"{part}_cell_types", ()) if n not in trained]
        for part in (TEST, VAL)
    }
    held_out["also held out"] = list(report.get("also_held_out", ()))
    names = "".join(f"; {part}: {listed(found)}" for part, found in held_out.items() if len(found))
    logger.info("pp.split: %s; %s%s.", kind, counts, names)
    if kind in LABEL_KINDS:
        said += _trained_elsewhere(labels, parts, report)
    warn_of_labels(adata, keys, "pp.split", said)
    return adata if copy else None


def _keep_guides_together(labels: Labels, parts: np.ndarray, genes: set[str]) -> list[str]:
    """Hold out all guides of a target with one of them, `test` before `val`, and report them in a sentence."""
    targets = {name for perturbation in labels.perturbations.values() for name in perturbation.targets}
    guides = target_by_guide(targets, genes)
    groups: dict[frozenset[str], list[str]] = {}
    for label, perturbation in labels.perturbations.items():
        if not perturbation.is_control:
            groups.setdefault(frozenset(guides.get(name, name) for name in perturbation.targets), []).append(label)
    label_by_cell = pd.Series(labels.perturbation.astype(str))
    rows = label_by_cell.groupby(label_by_cell).indices
    moved: list[str] = []
    for group in groups.values():
        if len(group) < 2:
            continue
        cells = np.concatenate([rows[label] for label in group])
        held_out = next((part for part in (TEST, VAL) if (parts[cells] == part).any()), TRAIN)
        if (parts[cells] != held_out).any():
            parts[cells] = held_out
            moved += group
    return [f"Guides of one target are held out together: {listed(moved)}."] if moved else []


def _trained_elsewhere(labels: Labels, parts: np.ndarray, report: dict[str, Any]) -> list[str]:
    """Report targets that are held out alone and trained in a combination, and name them in a sentence."""
    trained = {str(label) for label in labels.perturbation[labels.is_perturbed & (parts == TRAIN)]}
    found: dict[str, list[str]] = {}
    for label in map(str, report["test_conditions"]):
        targets = set(labels.perturbations[label].targets)
        within = sorted(other for other in trained if targets < set(labels.perturbations[other].targets))
        if label not in trained and len(targets) == 1 and within:
            found[label] = within
    combinations = sorted({other for within in found.values() for other in within})
    report["trained_in_combinations"] = np.array(combinations, dtype=str)
    if not found:
        return []
    return [
        f"Held-out targets are trained within combinations, so they are not unseen: {listed(found)} (in "
        f"{listed(combinations)}). To hold these out too: `pp.split(adata, 'leave_one_out', test={sorted(found)[:8]})`."
    ]


def _names(names: str | float | Sequence[str | float] | None) -> list[str] | None:
    """Read one name or several, each once; a dose is named as it is written in a condition."""
    if names is None:
        return None
    several = names if isinstance(names, Sequence | np.ndarray) and not isinstance(names, str) else [names]
    texts = [name if isinstance(name, str) else Perturbation(("drug",), (float(name),)).dose_text() for name in several]
    return list(dict.fromkeys(texts))


def _require_parts(labels: Labels, parts: np.ndarray, request: Request) -> None:
    """Refuse a split with an empty part."""
    held_out = {part for part, names in request.names.items() if names or (names is None and request.fractions[part])}
    count = {part: len(set(labels.perturbation[labels.is_perturbed & (parts == part)])) for part in SPLITS}
    empty = sorted(part for part in {TRAIN} | held_out if not count[part])
    if empty:
        raise ValueError(
            f"The part {empty[0]!r} would hold no perturbed cell: train, val and test would have "
            f"{count[TRAIN]}, {count[VAL]} and {count[TEST]} perturbations. Change what is held out, or set "
            "`val_fraction=0` to do without validation."
        )
    if not (~labels.is_perturbed & (parts == TRAIN)).any():
        raise ValueError("No control cell would be left for training. Lower `test_fraction`.")


def _describe(labels: Labels, parts: np.ndarray) -> dict[str, Any]:
    """Count the cells in each part and name the held-out conditions."""
    report: dict[str, Any] = {f"n_{part}": int((parts == part).sum()) for part in SPLITS}
    for part in (VAL, TEST):
        cells = labels.is_perturbed & (parts == part)
        report[f"{part}_conditions"] = np.unique(labels.perturbation[cells].astype(str))
        if labels.keys.cell_type_key is not None:
            report[f"{part}_cell_types"] = np.unique(labels.cell_type[cells].astype(str))
    return report
