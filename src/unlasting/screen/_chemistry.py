"""Molecules: canonical SMILES, fingerprints and similarity, read by RDKit. RDKit is optional."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from unlasting.screen._logging import logger
from unlasting.screen._perturbation import GEARS_CONTROL_PART, split_label

RADIUS = 2
N_BITS = 2048
SMILES_DELIMITER = ".."
"""Separator between SMILES in a combination: no SMILES contains two dots in a row, but many a plus or a dot."""

_SALT_FORMERS = "Li,Na,K,Rb,Cs,Mg,Ca,Sr,Ba"


def require_rdkit() -> Any:
    """Import RDKit."""
    try:
        from rdkit import Chem
    except ImportError as error:
        raise ImportError(
            "RDKit, which reads molecular structures, is not installed. Install it with `pip install 'unlasting[drugs]'`."
        ) from error
    return Chem


@cache
def canonical_smiles(smiles: str) -> str:
    """Write a molecule in its canonical form.

    Salts and solvents are stripped (the largest fragment with carbon is kept), and charges are neutralised by adding or
    removing protons. A molecule without carbon, such as arsenic trioxide, stays whole. Stereochemistry and isotopes are
    kept; tautomers are different molecules.
    """
    chem = require_rdkit()
    from rdkit import rdBase

    with rdBase.BlockLogs():
        molecule = chem.MolFromSmiles(smiles)
        if molecule is None or not molecule.GetNumAtoms():
            raise ValueError(f"{smiles!r} is no valid SMILES. Correct it.")
        if any(atom.GetAtomicNum() == 6 for atom in molecule.GetAtoms()):
            for step in _strip_salts():
                molecule = step(molecule)
        return chem.MolToSmiles(molecule)


@cache
def _strip_salts() -> tuple[Any, ...]:
    """Get the steps from a salt to its active molecule, each from molecule to molecule."""
    chem = require_rdkit()
    from rdkit.Chem.MolStandardize import rdMolStandardize as standardize

    # Only bonds to sodium and similar metals, drawn like covalent ones, are cut: cisplatin stays whole.
    metals = standardize.MetalDisconnector()
    metals.SetMetalNof(chem.MolFromSmarts(f"[{_SALT_FORMERS}]~[N,O,F]"))
    metals.SetMetalNon(chem.MolFromSmarts(f"[{_SALT_FORMERS}]~[S,P,Cl,Br,I]"))
    parameters: Any = standardize.CleanupParameters()
    parameters.preferOrganic = True
    parameters.largestFragmentChooserCountHeavyAtomsOnly = True
    return (
        metals.Disconnect,
        standardize.LargestFragmentChooser(parameters).choose,
        standardize.Uncharger().uncharge,
    )


def morgan_counts(smiles: Sequence[str]) -> np.ndarray:
    """Count circular substructures, shape `(n_molecules, 2048)`."""
    chem = require_rdkit()
    from rdkit.Chem import rdFingerprintGenerator

    generator = rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=N_BITS)
    counts = [generator.GetCountFingerprintAsNumPy(chem.MolFromSmiles(each)) for each in smiles]
    return np.array(counts, dtype=np.float32).reshape(-1, N_BITS)


def tanimoto_similarity(smiles: Sequence[str]) -> np.ndarray:
    """Compute Tanimoto similarities between Morgan fingerprints, shape `(n_molecules, n_molecules)`."""
    present = (morgan_counts(smiles) > 0).astype(np.float32)
    shared = present @ present.T
    size = present.sum(axis=1)
    return shared / (size[:, None] + size - shared)


def compared_by(embedding: np.ndarray, kind: str) -> np.ndarray:
    """Get rows whose dot products are molecular similarities, shape `(n_molecules, n_features)`.

    `embedding` has unit rows; `kind` is as in :func:`unlasting.pp.molecules`. Fingerprints are compared by present
    substructures, not by their counts: these are large for small substructures in nearly all drugs.
    """
    if kind != "morgan":
        return embedding
    present = (embedding > 0).astype(np.float32)
    return present / np.sqrt(present.sum(axis=1, keepdims=True))


def _without_stereo(smiles: str) -> str:
    """Write a canonical SMILES without stereochemistry; isotopes are kept."""
    chem = require_rdkit()
    molecule = chem.MolFromSmiles(smiles)
    chem.RemoveStereochemistry(molecule)
    return str(chem.MolToSmiles(molecule))


def murcko_scaffold(smiles: str) -> str:
    """Get the Bemis-Murcko scaffold (rings and linkers) as SMILES; empty without a ring."""
    require_rdkit()
    from rdkit.Chem.Scaffolds import MurckoScaffold

    return str(MurckoScaffold.MurckoScaffoldSmiles(smiles=smiles, includeChirality=False))


def smiles_by_name(
    labels: Iterable[object], smiles: Iterable[object], *, control: str = "control", delimiter: str = "+"
) -> tuple[dict[str, list[str]], list[str]]:
    """Find the SMILES for each part in the labels, from one label and one SMILES per cell.

    In a combination, SMILES are separated by `..` in label order, and empty for genes. They are not needed if all its
    drugs have SMILES in other cells. Returns the distinct SMILES for each part, as written: one empty text if the column is
    empty there, and nothing if values are missing. And the faults: combinations with ambiguous SMILES.
    """
    found: dict[str, set[str]] = {}
    unclear = []
    for label, value in dict.fromkeys(zip(labels, smiles, strict=True)):
        parts = split_label(label, control=control, delimiter=delimiter)
        if len(parts) > 1:
            parts = [part for part in parts if part not in (control, GEARS_CONTROL_PART)]
        missing = value is None or value != value
        given = [] if missing else [each.strip() for each in str(value).split(SMILES_DELIMITER)]
        if given == [""]:
            given *= len(parts)
        if given and parts and len(given) != len(parts):
            unclear.append((label, parts, given))
            given = []
        for place, part in enumerate(parts):
            found.setdefault(part, set()).update(given[place : place + 1])
    # An empty text beside a SMILES means: not in these cells.
    known = {part: sorted(texts - {""} or texts) for part, texts in found.items()}
    faults = []
    for label, parts, given in unclear:
        drugs = [part for part in parts if any(known[part])]
        is_clear = len(given) == len(drugs) and all(any(text in known[part] for text in given) for part in drugs)
        if len(drugs) < len(parts) and not is_clear:
            faults.append(f"{label!r} has {len(given)} SMILES for {len(parts)} names")
    return known, sorted(faults)


def one_molecule_each(found: Mapping[str, Iterable[str]]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Get the canonical SMILES for each name, or an empty text; and list the faults by kind.

    Stereoisomers under one name count as one molecule without stereochemistry, and are logged.
    """
    names: dict[str, str] = {}
    invalid, ambiguous = [], []
    for name, texts in sorted(found.items()):
        distinct = set()
        for text in filter(None, texts):
            try:
                distinct.add(canonical_smiles(text))
            except ValueError:
                invalid.append(f"{text!r} of {name!r}")
        if len(distinct) > 1 and len(flat := {_without_stereo(smiles) for smiles in distinct}) == 1:
            logger.warning(
                "%r has several stereoisomers (%s), which count as one drug without stereochemistry. If they are different "
                "drugs, give each its own name; to choose one, `pp.molecules(adata, smiles={%r: SMILES})`.",
                name,
                ", ".join(sorted(distinct)),
                name,
            )
            distinct = flat
        if len(distinct) > 1:
            ambiguous.append(f"{name!r} ({', '.join(sorted(distinct))})")
        names[name] = min(distinct, default="")
    return names, {
        "Invalid SMILES": invalid,
        "Different molecules under one name (choose one: `smiles={name: SMILES}`)": ambiguous,
    }
