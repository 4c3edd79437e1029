"""Molecular representations, for the prediction of untrained drugs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from anndata import AnnData

from unlasting.pp import _molecule_features as features
from unlasting.screen import (
    UNS_KEY,
    GeneNames,
    ScreenKeys,
    check_cells,
    logger,
    one_molecule_each,
    require_choices,
    smiles_by_name,
)

Embedding = Literal["morgan", "descriptors", "unimol", "names"]
DEFAULT_COLUMN = "smiles"


def molecules(
    adata: AnnData,
    smiles_key: str | None = None,
    *,
    embedding: Embedding | pd.DataFrame = "morgan",
    smiles: Mapping[str, str] | None = None,
    perturbation_key: str | None = None,
    control: str | Sequence[str] | None = None,
    delimiter: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Find the drugs among the perturbations, and represent their molecules.

    A name with a SMILES is a drug. SMILES are made canonical: salts and solvents are stripped and charges neutralised, so
    that one molecule under two names is one molecule. Expression is not used, so held-out drugs may be included.

    Parameters
    ----------
    adata
        The screen.
    smiles_key
        `obs` column with SMILES, by default `"smiles"` if there is one. In a combination, SMILES are separated by `..` in
        label order (`CCO..CCN` for `drugA+drugB`, `..CCN` for `geneA+drugB`); if the column is empty there, names are
        looked up in other cells. SMILES beside controls are ignored.
    embedding
        The representation:

        - `"morgan"`: counts of circular substructures (radius 2, folded to 2,048), as `log1p`. Drugs are compared by
          shared substructures, not by their counts.
        - `"descriptors"`: RDKit descriptors, standardised over the given molecules and clipped at three standard
          deviations. A later call with other molecules gives other values.
        - `"unimol"`: the pre-trained Uni-Mol, from the package `unimol_tools`, which downloads its weights on first use.
        - `"names"`: none, for drugs without SMILES. A perturbation with a dose that is no gene is a drug. Untrained drugs
          cannot be told apart.
        - a DataFrame with one row of numbers per molecule, and either drug names or SMILES as its index.
    smiles
        SMILES by name, in place of those in the column, and for further drugs to predict later. An empty text marks a name
        as no drug.
    perturbation_key, control, delimiter
        `obs` column and label grammar, like in :func:`unlasting.pp.split`; recorded ones by default.
    copy
        Return a changed copy, and leave `adata` as it is.

    Returns
    -------
    `None`, or the copy. Updates the following fields:

    - `adata.uns["unlasting"]["molecules"]`: `smiles`, the canonical SMILES per molecule (or its name, in a DataFrame by name
      without SMILES); `matrix`, unit rows, shape `(n_molecules, n_features)`, with similarities as dot products except for
      `morgan`; `drugs`, all names, and `drug_smiles`, their molecules; `kind` (`morgan`, `descriptors`, `unimol` or
      `given`); and a `report`.
    - `adata.uns["unlasting"]["keys"]`: the label columns.

    Raises
    ------
    KeyError
        If a column is missing.
    ValueError
        If there is no drug, SMILES are invalid, one name has different molecules, or a key differs from the recorded one;
        or if a name without SMILES is neither a measured gene, nor in the prior of :func:`unlasting.pp.grn`, nor marked as
        no drug. All are listed at once.
    TypeError
        If `embedding` has another form.
    ImportError, ConnectionError
        If RDKit or `unimol_tools` is needed and not installed, or the weights of Uni-Mol cannot be downloaded.

    Examples
    --------
    >>> import unlasting as ul
    >>> adata = ul.datasets.simulate_drug_screen()
    >>> ul.pp.molecules(adata)
    >>> adata.uns["unlasting"]["molecules"]["matrix"].shape
    (13, 2048)
    """
    adata = adata.copy() if copy else adata
    check_cells(adata, writable=True)
    if not isinstance(embedding, pd.DataFrame) and not isinstance(embedding, str):
        raise TypeError(
            f"`embedding` is a {type(embedding).__name__}. Give one of {list(get_args(Embedding))}, or a DataFrame with "
            "one row of numbers per molecule."
        )
    if isinstance(embedding, str):
        require_choices(get_args(Embedding), embedding=embedding)
    keys = ScreenKeys.read(
        adata, perturbation_key=perturbation_key, control=control, delimiter=delimiter, smiles_key=smiles_key
    )
    if isinstance(embedding, str) and embedding == "names":
        by_name = sorted(drugs_by_name(adata, keys) | set(smiles or ()))
        embedding = pd.DataFrame(np.eye(len(by_name)), index=by_name)
    elif keys.smiles_key is None and (DEFAULT_COLUMN in adata.obs or (smiles is None and isinstance(embedding, str))):
        keys = replace(keys, smiles_key=DEFAULT_COLUMN)
    keys.labels(adata)  # refuses a screen without controls
    column = keys.column(adata, "smiles_key") if keys.smiles_key else np.full(adata.n_obs, None, dtype=object)
    found, unclear = smiles_by_name(keys.column(adata, "perturbation_key"), column, **keys.grammar)
    for name, text in (smiles or {}).items():
        found[name] = [str(text).strip()]
    names, faults = one_molecule_each(found)
    if unclear:
        faults["Combinations with ambiguous SMILES (separate them by '..', in label order)"] = unclear

    rows: dict[str, np.ndarray] = {}
    if isinstance(embedding, pd.DataFrame):
        drugs, rows = features.given(embedding, names)
        faults["Drugs without a row in `embedding`"] = sorted(n for n, s in names.items() if s and n not in drugs)
    else:
        drugs = {name: canonical for name, canonical in names.items() if canonical}
    undeclared = {name for name, texts in found.items() if not texts} - drugs.keys() - _genes(adata)
    faults[
        "Names without a SMILES (give it in the column or as `smiles={name: SMILES}`, or an empty text for no drug)"
    ] = sorted(undeclared)
    listed = " ".join(f"{fault}: {', '.join(names)}." for fault, names in faults.items() if names)
    if listed:
        raise ValueError(f"The molecules of this screen cannot all be read. {listed}")
    if not drugs:
        raise ValueError(
            "No perturbation of this screen has a SMILES. Name their column as `smiles_key`, or give `smiles={name: SMILES}`."
        )
    ordered = sorted(set(drugs.values()))
    report: dict[str, Any] = {}
    if isinstance(embedding, pd.DataFrame):
        matrix = features.unit_rows(np.stack([rows[molecule] for molecule in ordered]), ordered)
    elif embedding == "descriptors":
        report["features"], matrix = features.descriptors(ordered)
    else:
        matrix = (features.unimol if embedding == "unimol" else features.fingerprints)(ordered)

    drug_names = sorted(drugs)
    shared = pd.Series(drug_names, index=[drugs[name] for name in drug_names]).groupby(level=0).agg(list)
    synonyms = [" = ".join(group) for group in shared if len(group) > 1]
    stored = {
        "smiles": np.array(ordered, dtype=object),
        "matrix": matrix,
        "drugs": np.array(drug_names, dtype=object),
        "drug_smiles": np.array([drugs[name] for name in drug_names], dtype=object),
        "kind": "given" if isinstance(embedding, pd.DataFrame) else embedding,
        "report": {
            "n_drugs": len(drugs),
            "n_molecules": len(ordered),
            "n_features": matrix.shape[1],
            "synonyms": np.array(synonyms, dtype=str),
            **report,
        },
    }
    adata.uns.setdefault(UNS_KEY, {})["molecules"] = stored
    keys.write(adata)
    logger.info(
        "pp.molecules: %d drugs, %d molecules (%s, %d features)%s.",
        len(drugs),
        len(ordered),
        stored["kind"],
        matrix.shape[1],
        f"; one molecule under several names: {', '.join(synonyms)}" if synonyms else "",
    )
    return adata if copy else None


def drugs_by_name(adata: AnnData, keys: ScreenKeys) -> set[str]:
    """Collect targets with a dose that are no genes; without `dose_key` all targets that are no genes."""
    pairs = {pair for p in set(keys.perturbations(adata)) for pair in zip(p.targets, p.doses, strict=True)}
    genes = GeneNames(_genes(adata), panel=adata.var_names)
    return {name for name, dose in pairs if (dose is not None or keys.dose_key is None) and not genes.find(name)}


def _genes(adata: AnnData) -> set[str]:
    """Collect known genes: measured, or in the prior of `pp.grn`."""
    prior = adata.uns.get(UNS_KEY, {}).get("target_embedding", {})
    return {*adata.var_names.astype(str), *map(str, prior.get("names", ()))}
