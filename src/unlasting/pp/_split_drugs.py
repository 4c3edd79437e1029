"""The split kinds that hold out drugs, together with drugs that have the same or a similar molecule, or with doses."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
from scipy import sparse

from unlasting.pp._sciplex3_drugs import drug_table, table_name
from unlasting.pp._split_conditions import by_dose
from unlasting.pp._split_request import Labels, Request
from unlasting.screen import (
    SPLITS,
    TEST,
    TRAIN,
    canonical_smiles,
    murcko_scaffold,
    nearest_name,
    require_choices,
    tanimoto_similarity,
)

Method = Literal["random", "scaffold", "similarity", "published", "published_epigenetic"]
MAX_SIMILARITY = 0.4
"""Drugs with a higher Tanimoto similarity (Morgan fingerprints) are held out together."""


def by_drug(labels: Labels, request: Request) -> np.ndarray:
    """Hold out whole drug groups, with every combination that contains one."""
    require_choices(get_args(Method), method=request.method)
    molecules = labels.molecules
    named = dict(request.names)
    if request.method.startswith("published"):
        if named[TEST] is not None:
            raise ValueError(f"`test` names drugs, but `method={request.method!r}` is a fixed list. Leave `test` out.")
        named[TEST] = _published(molecules, request.method)
    groups = drug_groups(molecules, request.method)
    targets = {label: perturbation.targets for label, perturbation in labels.perturbations.items()}
    drugs = {name for names in targets.values() for name in names if name in groups}
    if not drugs:
        raise ValueError(
            "`kind='unseen_drug'` needs drugs, but no perturbation of the screen has a SMILES. Name their column as "
            "`smiles_key`."
        )
    for part, names in named.items():
        for name in names or ():
            if name not in drugs:
                raise ValueError(f"`{part}` names {name!r}, which is no drug of the screen.{nearest_name(name, drugs)}")
        named[part] = None if names is None else list(dict.fromkeys(groups[name] for name in names))
    count = Counter(g for label in labels.perturbation for g in {groups[n] for n in targets[label] if n in groups})
    frequent = [group for group, n_cells in count.items() if n_cells >= request.min_cells]
    parts = request.naming(named).parts(frequent, set(count), "drug group")
    request.report["method"] = request.method
    return labels.from_targets({name: parts[groups[name]] for name in drugs})


def by_drug_and_dose(labels: Labels, request: Request) -> np.ndarray:
    """Hold out whole drug groups, and doses of the other drugs."""
    labels.require("dose_key", "doses in uM")
    drugs = {part: _named_drugs(labels, names) for part, names in request.names.items()}
    doses = {
        part: None if names is None else [name for name in names if name not in (drugs[part] or ())]
        for part, names in request.names.items()
    }
    if request.method.startswith("published") and not drugs[TEST]:
        drugs[TEST] = None
    held_out = by_drug(labels, request.naming(drugs))
    others = copy.copy(labels)
    others.dose = np.where(held_out == TRAIN, labels.dose, "")
    parts = np.where(held_out == TRAIN, by_dose(others, request.naming(doses)), held_out)
    for part in SPLITS[1:]:
        whole = np.unique(labels.perturbation[held_out == part].astype(str))
        request.report[f"{part}_conditions"] = np.concatenate([whole, request.report[f"{part}_conditions"]])
    return parts


def _named_drugs(labels: Labels, names: list[str] | None) -> list[str] | None:
    """Pick the drugs from names for drugs, doses and conditions."""
    return None if names is None else [name for name in names if name in labels.molecules]


def drug_groups(molecules: Mapping[str, str], method: str) -> dict[str, str]:
    """Name each drug's group by its first member in alphabetical order.

    `molecules` holds the canonical SMILES by drug name. The method `"scaffold"` joins drugs with one scaffold, `"similarity"`
    drugs connected by a chain of similar ones, any other method only synonyms.
    """
    distinct = sorted(set(molecules.values()))
    if method == "scaffold":
        key = {smiles: murcko_scaffold(smiles) or smiles for smiles in distinct}
    elif method == "similarity":
        similar = sparse.csr_matrix(tanimoto_similarity(distinct) > MAX_SIMILARITY)
        _, component = sparse.csgraph.connected_components(similar, directed=False)
        key = dict(zip(distinct, component.astype(str), strict=True))
    else:
        key = {smiles: smiles for smiles in distinct}
    first: dict[str, str] = {}
    return {name: first.setdefault(key[molecules[name]], name) for name in sorted(molecules)}


def _published(molecules: Mapping[str, str], method: str) -> list[str]:
    """List the drugs in a published list, by their name in sci-Plex3 or by their molecule."""
    table = drug_table()
    table = table[table["ood" if method == "published" else "ood_epigenetic"]]
    structures = set(map(canonical_smiles, table["smiles"]))
    found = sorted(
        name for name, smiles in molecules.items() if smiles in structures or table_name(name) in set(table["name"])
    )
    if not found:
        raise ValueError(
            f"None of the {len(molecules)} drugs is in the published list {table['name'].tolist()}. Choose another `method`."
        )
    return found
