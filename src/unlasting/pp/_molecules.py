"""The molecules of a drug screen, from which a model predicts drugs that it was never trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from anndata import AnnData

from unlasting.pp import _molecule_features as features
from unlasting.pp._checks import require_whole
from unlasting.screen import UNS_KEY, ScreenKeys, logger, nearest_name, one_molecule_each, smiles_by_name

Embedding = Literal["morgan", "descriptors", "unimol"]
DEFAULT_COLUMN = "smiles"


def molecules(
    adata: AnnData,
    smiles_key: str | None = None,
    *,
    embedding: Embedding | pd.DataFrame = "morgan",
    smiles: Mapping[str, str] | None = None,
    perturbation_key: str | None = None,
    control: str | None = None,
    delimiter: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Tell the drugs of a screen from other perturbations, and represent their molecules.

    A name with a SMILES is a drug. Its SMILES is brought to one form: salts and solvents are stripped and charges
    neutralised, so that one molecule under two names is one molecule. Only structures are looked at, never the
    expression, so that it does not matter which drugs are held out.

    Parameters
    ----------
    adata
        The screen.
    smiles_key
        Column of `obs` with the SMILES of the drug of each cell, by default `"smiles"` if there is one. For a
        combination, the SMILES stand in the order of the label and are separated by `..`, which no SMILES contains
        (`CCO..CCN` for `drugA+drugB`, `..CCN` for `geneA+drugB`); where the column is empty, each name is looked up
        in other cells. What stands beside controls is ignored.
    embedding
        What molecules are compared by:

        - `"morgan"`: counts of circular substructures (radius 2, folded to 2,048), as `log1p`. Which trained drugs one is
          like is told by the substructures that both have, and not by how often.
        - `"descriptors"`: the descriptors of RDKit, standardised over the given molecules and cut off at three standard
          deviations. A later call with other molecules gives other values.
        - `"unimol"`: the pre-trained Uni-Mol, from the package `unimol_tools`, which downloads its weights when it is
          first used.
        - a DataFrame with one row of numbers per molecule, and either names of drugs or SMILES as its index.
    smiles
        SMILES by name: of drugs that the column does not tell, and of further drugs that may be asked for later. An
        empty text says that the name is no drug.
    perturbation_key
        Column of `obs` with the perturbation labels.
    control
        Label of unperturbed cells.
    delimiter
        What separates the targets of a combination.
    copy
        Return a changed copy, and leave `adata` as it is.

    Returns
    -------
    `None`, or the copy. Updates the following fields:

    - `adata.uns["unlasting"]["molecules"]`: `smiles`, the canonical SMILES of each molecule (or its name, where a
      DataFrame by name was given and no SMILES); `matrix`, shape `(n_molecules, n_features)`, rows of length 1, whose
      dot product is the similarity of all kinds but `morgan`; `drugs`, all names, and `drug_smiles`, the molecule of
      each; `kind` (`morgan`, `descriptors`, `unimol` or `given`); `report`, what was found.
    - `adata.uns["unlasting"]["keys"]`: which columns hold the labels.

    Raises
    ------
    KeyError
        If a column is missing.
    ValueError
        If there is no drug; or if SMILES are invalid, one name has different molecules, or a name has none and is neither
        a measured gene, nor known to the prior of :func:`unlasting.pp.grn`, nor marked as no drug. All are listed at
        once.
    TypeError
        If `embedding` has none of these forms.
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
    require_whole(adata, "molecules")
    if not isinstance(embedding, pd.DataFrame) and not isinstance(embedding, str):
        raise TypeError(
            f"`embedding` is a {type(embedding).__name__}. Give one of {list(get_args(Embedding))}, or a DataFrame with "
            "one row of numbers per molecule."
        )
    if isinstance(embedding, str) and embedding not in get_args(Embedding):
        raise ValueError(
            f"`embedding` is {embedding!r}; choose one of {list(get_args(Embedding))}, or give a DataFrame."
            f"{nearest_name(embedding, get_args(Embedding))}"
        )
    keys = ScreenKeys.read(
        adata, perturbation_key=perturbation_key, control=control, delimiter=delimiter, smiles_key=smiles_key
    )
    if keys.smiles_key is None and (DEFAULT_COLUMN in adata.obs or (smiles is None and isinstance(embedding, str))):
        keys = replace(keys, smiles_key=DEFAULT_COLUMN)
    keys.labels(adata)  # refuses a screen without controls
    column = keys.column(adata, "smiles_key") if keys.smiles_key else np.full(adata.n_obs, None, dtype=object)
    found, unclear = smiles_by_name(
        keys.column(adata, "perturbation_key"), column, control=keys.control, delimiter=keys.delimiter
    )
    for name, text in (smiles or {}).items():
        found[name] = list(dict.fromkeys([*found.get(name, []), str(text).strip()]))
    names, faults = one_molecule_each(found)
    if unclear:
        faults["Combinations whose SMILES cannot be told apart (separate them by '..', in the order of the label)"] = (
            unclear
        )

    rows: dict[str, np.ndarray] = {}
    if isinstance(embedding, pd.DataFrame):
        drugs, rows = features.given(embedding, names)
        faults["Drugs without a row in `embedding`"] = sorted(n for n, s in names.items() if s and n not in drugs)
    else:
        drugs = {name: canonical for name, canonical in names.items() if canonical}
    undeclared = {name for name, texts in found.items() if not texts} - drugs.keys() - _genes(adata)
    faults[
        "Names without a SMILES (give it in the column or as `smiles={name: SMILES}`, or an empty text where it is no drug)"
    ] = sorted(undeclared)
    listed = " ".join(f"{what}: {', '.join(which)}." for what, which in faults.items() if which)
    if listed:
        raise ValueError(f"The molecules of this screen cannot all be read. {listed}")
    if not drugs:
        raise ValueError("No perturbation of this screen has a SMILES, so there are no molecules.")
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


def _genes(adata: AnnData) -> set[str]:
    """Collect the names that are known to be genes: measured, or in the prior of `pp.grn`."""
    prior = adata.uns.get(UNS_KEY, {}).get("target_embedding", {})
    return {*adata.var_names.astype(str), *map(str, prior.get("names", ()))}
