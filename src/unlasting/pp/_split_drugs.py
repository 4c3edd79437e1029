"""Which drugs must be held out together, because they are one molecule or too much alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from anndata import AnnData
from scipy import sparse

from unlasting.pp._sciplex3_drugs import drug_table, table_name
from unlasting.screen import (
    UNS_KEY,
    ScreenKeys,
    canonical_smiles,
    murcko_scaffold,
    one_molecule_each,
    smiles_by_name,
    tanimoto_similarity,
)

Method = Literal["random", "scaffold", "similarity", "published", "published_epigenetic"]


def molecules_of(adata: AnnData, keys: ScreenKeys) -> dict[str, str]:
    """Find the canonical SMILES of each drug of a screen, by name.

    Raises
    ------
    ValueError
        If nothing says what is a drug, or SMILES cannot be read.
    """
    stored = adata.uns.get(UNS_KEY, {}).get("molecules")
    if stored is not None:
        return dict(zip(map(str, stored["drugs"]), map(str, stored["drug_smiles"]), strict=True))
    if keys.smiles_key is None:
        raise ValueError(
            "`kind='unseen_drug'` needs `smiles_key`, the column of `adata.obs` with the SMILES of drugs, or "
            "`unlasting.pp.molecules(adata)` first. Without structures, use `kind='unseen_perturbation'`."
        )
    columns = (keys.column(adata, argument) for argument in ("perturbation_key", "smiles_key"))
    found, unclear = smiles_by_name(*columns, control=keys.control, delimiter=keys.delimiter)
    names, faults = one_molecule_each(found)
    listed = [*unclear, *(fault for each in faults.values() for fault in each)]
    if listed:
        raise ValueError(f"`smiles_key={keys.smiles_key!r}` holds SMILES that cannot be used: {', '.join(listed)}.")
    return {name: smiles for name, smiles in names.items() if smiles}


def drug_groups(molecules: Mapping[str, str], method: Method, max_similarity: float) -> dict[str, str]:
    """Give each drug the name of its group: the first, in alphabetical order, of those it is held out with.

    Parameters
    ----------
    molecules
        The canonical SMILES of each drug.
    method
        `"scaffold"` joins drugs of one scaffold, `"similarity"` those that a chain of similar drugs connects, any
        other method only names of one molecule.
    max_similarity
        Drugs are similar when the Tanimoto similarity of their fingerprints is above this.
    """
    distinct = sorted(set(molecules.values()))
    if method == "scaffold":
        key = {smiles: murcko_scaffold(smiles) or smiles for smiles in distinct}
    elif method == "similarity":
        alike = sparse.csr_matrix(tanimoto_similarity(distinct) > max_similarity)
        _, component = sparse.csgraph.connected_components(alike, directed=False)
        key = dict(zip(distinct, component.astype(str), strict=True))
    else:
        key = {smiles: smiles for smiles in distinct}
    first: dict[str, str] = {}
    return {name: first.setdefault(key[molecules[name]], name) for name in sorted(molecules)}


def published(molecules: Mapping[str, str], method: Method) -> list[str]:
    """List the drugs of a screen that are in a published list, by their name in sci-Plex3 or by their molecule.

    Raises
    ------
    ValueError
        If none of them is.
    """
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
