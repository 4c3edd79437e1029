"""Which cells train a model, which choose among models, and which judge it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from anndata import AnnData

from unlasting.pp import _split_kinds as kinds
from unlasting.pp._checks import require_whole
from unlasting.pp._split_conditions import by_dose, by_pair
from unlasting.pp._split_drugs import Method, drug_groups, molecules_of, published
from unlasting.screen import (
    LABELS_OF_SPLIT,
    SPLIT_KEY,
    SPLITS,
    TEST,
    TRAIN,
    UNS_KEY,
    VAL,
    Condition,
    Perturbation,
    ScreenKeys,
    listed,
    logger,
    nearest_name,
    parse_labels,
    require_integers,
    require_numbers,
    split_hash,
)

Kind = Literal[
    "random",
    "unseen_perturbation",
    "leave_one_out",
    "unseen_combo",
    "unseen_drug",
    "unseen_dose",
    "unseen_cell_type",
    "unseen_pair",
    "reference",
]


def split(
    adata: AnnData,
    kind: Kind = "unseen_perturbation",
    *,
    test: str | float | Sequence[str | float] | None = None,
    val: str | float | Sequence[str | float] | None = None,
    test_fraction: float = 0.3,
    val_fraction: float = 0.1,
    n_seen: int = 2,
    n_shots: int = 0,
    method: Method = "random",
    max_similarity: float = 0.4,
    min_cells: int = 10,
    perturbation_key: str | None = None,
    control: str | None = None,
    cell_type_key: str | None = None,
    batch_key: str | None = None,
    dose_key: str | None = None,
    smiles_key: str | None = None,
    delimiter: str | None = None,
    key_added: str = SPLIT_KEY,
    seed: int = 0,
    copy: bool = False,
) -> AnnData | None:
    """Divide a screen into `train`, `val` and `test`.

    Only labels are read, never the expression, so this comes first: whatever is fitted later is fitted on `train`.
    The `val` part, for early stopping and the choice of a model, is of the same kind as the `test` part.
    Controls are `train` in every kind but `random`.

    Parameters
    ----------
    adata
        The screen.
    kind
        What a prediction shall be judged on:

        - `"random"`: unseen cells of every condition, controls too.
        - `"unseen_perturbation"`: whole perturbations, in all cell types. A combination counts as one of its own; its
          targets may be seen elsewhere.
        - `"leave_one_out"`: the targets named by `test`, with every combination that contains one of them.
        - `"unseen_combo"`: combinations of which `n_seen` targets are trained on as singles; the others appear in
          no training cell, so whatever contains them is held out too.
        - `"unseen_drug"`: whole drugs, in all cell types and at all doses, with every combination that contains one.
        - `"unseen_dose"`: doses of a drug in a cell type; it stays in training at another dose at least.
        - `"unseen_cell_type"`: the perturbed cells of whole cell types; their controls are `train`.
        - `"unseen_pair"`: pairs of perturbation and cell type. The perturbation is trained on in another cell type,
          and the cell type with another perturbation.
        - `"reference"`: the published split of a shipped data set.
    test, val
        What to hold out, by name: perturbations, targets, combinations, drugs or cell types, as the kind needs; a
        pair as `"A in CD14 Mono"`. For `unseen_dose` a number of uM holds out this dose of every drug that was given
        at another dose as well, and `"A at 10 uM in A549"` a single one. By default drawn at random.
    test_fraction, val_fraction
        Parts of all cells (`random`), perturbations, combinations, groups of drugs, doses, cell types or pairs that
        are drawn. The nearest whole number is taken, and at least one unless the fraction is 0.
    n_seen
        For `unseen_combo`: the number of targets that are trained on as singles (0, 1 or 2 for pairs).
    n_shots
        For `unseen_cell_type`: number of cells of each perturbation in a held-out cell type that stay in training
        (0 for zero-shot).
    method
        For `unseen_drug`, which drugs are held out together:

        - `"random"`: one molecule under several names.
        - `"scaffold"`: drugs with one Bemis-Murcko scaffold; without rings, each is on its own.
        - `"similarity"`: so that no held-out drug resembles a trained one by more than `max_similarity`.
        - `"published"`, `"published_epigenetic"`: `test` is a list of out-of-distribution drugs of sci-Plex3 as chemCPA
          has them; see :func:`unlasting.datasets.sciplex3_drugs`.
    max_similarity
        For `unseen_drug` by similarity: Tanimoto similarity of Morgan fingerprints, from 0 to 1.
    min_cells
        What has fewer perturbed cells is not drawn (it may be named).
    perturbation_key
        Column of `obs` with the perturbation labels, by default `"perturbation"`.
    control
        Label of unperturbed cells, by default `"control"`.
    cell_type_key
        Column of `obs` with the cell type.
    batch_key
        Column of `obs` with the batch.
    dose_key
        Column of `obs` with the doses in uM.
    smiles_key
        Column of `obs` with the SMILES of drugs, as for :func:`unlasting.pp.molecules`.
    delimiter
        What separates the targets of a combination, by default `"+"`.
    key_added
        Column of `obs` to write.
    seed
        The same seed gives the same split.
    copy
        Return a changed copy, and leave `adata` as it is.

    Returns
    -------
    `None`, or the copy. Updates the following fields:

    - `adata.obs[key_added]`: `train`, `val` or `test`.
    - `adata.uns["unlasting"]["split"]`: the kind, the seed, the numbers of cells and the perturbations (and cell
      types) of each part, the labels that it went by, and a hash by which later steps notice a change. For
      `unseen_dose` and `unseen_pair`, the conditions are named with their dose and cell type. `also_held_out` names
      conditions of the test part that had to go with the others but are not what the kind asks for.
    - `adata.uns["unlasting"]["keys"]`: which columns hold the labels.

    Raises
    ------
    KeyError
        If a column is missing.
    ValueError
        If a label, a dose or a SMILES cannot be read, a name is unknown, or a part would be empty.
    ImportError
        If structures of drugs are needed and RDKit is not installed.

    Examples
    --------
    >>> import unlasting as ul
    >>> adata = ul.datasets.papalexi()
    >>> ul.pp.split(adata, "leave_one_out", test="STAT1")
    >>> adata.uns["unlasting"]["split"]["test_conditions"].tolist()
    ['STAT1']
    """
    adata = adata.copy() if copy else adata
    require_whole(adata, "split")
    if kind not in get_args(Kind):
        raise ValueError(
            f"`kind` is {kind!r}; choose one of {list(get_args(Kind))}.{nearest_name(kind, get_args(Kind))}"
        )
    require_numbers(test_fraction=test_fraction, val_fraction=val_fraction, max_similarity=max_similarity)
    require_integers(0, n_seen=n_seen, n_shots=n_shots, min_cells=min_cells, seed=seed)
    if not (0 <= test_fraction < 1 and 0 <= val_fraction < 1 and test_fraction + val_fraction < 1):
        raise ValueError(
            f"`test_fraction` is {test_fraction} and `val_fraction` is {val_fraction}; "
            "neither may be negative, and together they must leave something for training."
        )
    if method not in get_args(Method):
        raise ValueError(
            f"`method` is {method!r}; choose one of {list(get_args(Method))}.{nearest_name(method, get_args(Method))}"
        )
    if not 0 <= max_similarity < 1:
        raise ValueError(f"`max_similarity` is {max_similarity}; it must be from 0 to below 1.")
    reference = _reference(adata) if kind == "reference" else {}
    keys = ScreenKeys.read(
        adata,
        perturbation_key=perturbation_key,
        control=control,
        cell_type_key=cell_type_key or reference.get("cell_type_key"),
        batch_key=batch_key,
        dose_key=dose_key,
        smiles_key=smiles_key,
        delimiter=delimiter,
        split_key=key_added,
    )
    if kind in ("unseen_cell_type", "unseen_pair") and keys.cell_type_key is None:
        raise ValueError(f"`kind={kind!r}` needs `cell_type_key`, the column of `adata.obs` with the cell type.")
    if kind == "unseen_dose" and keys.dose_key is None:
        raise ValueError("`kind='unseen_dose'` needs `dose_key`, the column of `adata.obs` with the doses in uM.")
    labels = keys.labels(adata)
    screen = kinds.Screen(
        labels=labels,
        cell_types=keys.cell_types(adata),
        batches=keys.batches(adata),
        doses=keys.doses(adata),
        perturbations={
            str(k): p for k, p in parse_labels(labels, control=keys.control, delimiter=keys.delimiter).items()
        },
        control=keys.control,
    )
    named = {TEST: _names(test), VAL: _names(val)}
    if kind == "random" and any(names is not None for names in named.values()):
        raise ValueError("`test` and `val` name conditions, but `kind='random'` holds out cells of all of them.")
    if kind in ("unseen_perturbation", "unseen_combo"):
        named = {part: _canonical(names, keys) for part, names in named.items()}
    if reference:
        if any(names is not None for names in named.values()):
            raise ValueError("`kind='reference'` is a fixed split: it takes neither `test` nor `val`.")
        named = {part: list(reference[part]) for part in (TEST, VAL)}
    molecules = molecules_of(adata, keys) if kind == "unseen_drug" else {}
    if method.startswith("published") and kind == "unseen_drug":
        if named[TEST] is not None:
            raise ValueError(f"`test` names drugs, but `method={method!r}` is a fixed list.")
        named[TEST] = published(molecules, method)
    draw = kinds.Draw(test_fraction, val_fraction, named[TEST], named[VAL], min_cells, rng=np.random.default_rng(seed))
    if kind == "random":
        parts = kinds.by_cells(screen, draw)
    elif kind == "leave_one_out":
        parts = kinds.by_target(screen, draw)
    elif kind == "unseen_combo":
        parts = kinds.by_combination(screen, draw, n_seen)
    elif kind == "unseen_drug":
        parts = kinds.by_drug(screen, draw, drug_groups(molecules, method, max_similarity))
    elif kind == "unseen_dose":
        parts = by_dose(screen, draw)
    elif kind == "unseen_pair":
        parts = by_pair(screen, draw)
    elif kind == "unseen_cell_type" or "cell_type_key" in reference:
        parts = kinds.by_cell_type(screen, draw, n_shots)
    else:
        parts = kinds.by_perturbation(screen, draw)
    _require_parts(screen, parts, {TEST: test_fraction, VAL: val_fraction}, named)

    report: dict[str, Any] = {"kind": kind, "seed": seed, "hash": split_hash(adata.obs_names, parts)}
    report |= {key: getattr(keys, key) or "" for key in LABELS_OF_SPLIT}
    report |= _describe(screen, parts, keys, kind)
    if kind == "unseen_combo":
        report |= _of_kind(screen, parts, n_seen)
    if kind == "unseen_drug":
        report["method"] = method
    adata.obs[key_added] = pd.Categorical(parts, categories=list(SPLITS))
    adata.uns.setdefault(UNS_KEY, {})["split"] = report
    keys.write(adata)
    counts = ", ".join(f"{report[f'n_{part}']} cells {part}" for part in SPLITS)
    what = "cell_types" if kind == "unseen_cell_type" or "cell_type_key" in reference else "conditions"
    held_out = {part: report[f"{part}_{what}"] for part in (TEST, VAL) if kind != "random"}
    held_out["also held out"] = report.get("also_held_out", ())
    names = "".join(f"; {part}: {listed(found)}" for part, found in held_out.items() if len(found))
    logger.info("pp.split: %s; %s%s.", kind, counts, names)
    return adata if copy else None


def _names(names: str | float | Sequence[str | float] | None) -> list[str] | None:
    """Read one name or several, each once; a dose is named as it is written in a condition."""
    if names is None:
        return None
    several = names if isinstance(names, Sequence | np.ndarray) and not isinstance(names, str) else [names]
    texts = [name if isinstance(name, str) else Perturbation(("drug",), (float(name),)).dose_text() for name in several]
    return list(dict.fromkeys(texts))


def _canonical(names: list[str] | None, keys: ScreenKeys) -> list[str] | None:
    """Write named perturbations as the labels are written, `B+A` as `A+B`."""
    grammar = {"control": keys.control, "delimiter": keys.delimiter}
    return _names(None if names is None else [Perturbation.parse(name, **grammar).label(**grammar) for name in names])


def _reference(adata: AnnData) -> dict[str, Any]:
    """Look up the published split of a shipped data set."""
    table = json.loads((files("unlasting.pp") / "_data" / "reference_splits.json").read_text(encoding="utf-8"))
    name = str(adata.uns.get(UNS_KEY, {}).get("dataset", ""))
    if name not in table:
        raise ValueError(
            f"`kind='reference'` is for the shipped data sets {sorted(table)}, which carry their name in "
            f"`adata.uns['unlasting']['dataset']`; here it is {name!r}. Choose another `kind`."
        )
    return table[name]


def _require_parts(
    screen: kinds.Screen, parts: np.ndarray, fractions: dict[str, float], named: dict[str, list[str] | None]
) -> None:
    """Refuse a split in which a part that is asked for is empty, or that leaves nothing to learn from."""
    held_out = {part for part in (TEST, VAL) if (named[part] if named[part] is not None else fractions[part])}
    count = {part: len(set(screen.labels[screen.perturbed & (parts == part)])) for part in SPLITS}
    empty = sorted(part for part in {TRAIN} | held_out if not count[part])
    if empty:
        raise ValueError(
            f"The part {empty[0]!r} would hold no perturbed cell: train, val and test would have "
            f"{count[TRAIN]}, {count[VAL]} and {count[TEST]} perturbations. Change what is held out, or set "
            "`val_fraction=0` to do without validation."
        )
    if not (~screen.perturbed & (parts == TRAIN)).any():
        raise ValueError("No control cell would be left for training. Lower `test_fraction`.")


def _describe(screen: kinds.Screen, parts: np.ndarray, keys: ScreenKeys, kind: Kind) -> dict[str, Any]:
    """Count the cells of each part and name what is held out."""
    report: dict[str, Any] = {f"n_{part}": int((parts == part).sum()) for part in SPLITS}
    for part in (VAL, TEST):
        cells = screen.perturbed & (parts == part)
        columns = [screen.labels]
        columns += [screen.cell_types] if kind in ("unseen_pair", "unseen_dose") else []
        columns += [screen.doses] if kind == "unseen_dose" else []
        conditions = {Condition(*cell) for cell in zip(*(column[cells] for column in columns), strict=True)}
        report[f"{part}_conditions"] = np.array(sorted(map(str, conditions)), dtype=str)
        if keys.cell_type_key is not None:
            report[f"{part}_cell_types"] = np.unique(screen.cell_types[cells].astype(str))
    return report


def _of_kind(screen: kinds.Screen, parts: np.ndarray, n_seen: int) -> dict[str, Any]:
    """Tell the combinations that are asked for from what had to be held out with them."""
    part_of = dict(zip(screen.labels, parts, strict=True))
    found = {p: kinds.combinations_of_kind(screen.perturbations, part_of, p, n_seen) for p in (VAL, TEST)}
    others = {label for label, part in part_of.items() if part != TRAIN} - {*found[VAL], *found[TEST]}
    report: dict[str, Any] = {f"{part}_conditions": np.array(labels, dtype=str) for part, labels in found.items()}
    return report | {"n_seen": n_seen, "also_held_out": np.array(sorted(others), dtype=str)}
