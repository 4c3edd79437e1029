"""Molecules: one SMILES for each, whatever it was written as, and similarities that agree with RDKit's own."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator

from unlasting import screen as chemistry

MOLECULES = [
    "CC(=O)Oc1ccccc1C(=O)O",  # aspirin
    "CN1C=NC2=C1C(=O)N(C(=O)N2C)C",  # caffeine
    "C[C@@H]1CCN(C(=O)CC#N)C[C@@H]1N(C)c1ncnc2[nH]ccc12",  # tofacitinib
    "NCCCC(O)(P(=O)(O)O)P(=O)(O)O",  # alendronate
    "ONC(=O)/C=C/c1ccc(CNCCc2c(C)[nH]c3ccccc23)cc1",  # panobinostat
    "CCCC(CCC)C(=O)O",  # valproate
    "C[N+](C)(C)CC(O)CC(=O)O",  # carnitine
    "[2H]C([2H])([2H])Oc1ccccc1",
]
SALTS = ["Cl", "Cl.Cl", "O.O", "CS(=O)(=O)O", "[Na+].[Cl-]", "OC(=O)CC(O)(C(=O)O)CC(=O)O"]


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, len(MOLECULES) - 1), salt=st.sampled_from(["", *SALTS]), seed=st.integers(1, 10_000))
def test_one_molecule_is_one_smiles(place: int, salt: str, seed: int) -> None:
    expected = chemistry.canonical_smiles(MOLECULES[place])
    spellings = Chem.MolToRandomSmilesVect(Chem.MolFromSmiles(MOLECULES[place]), 1, randomSeed=seed)
    for spelling in spellings:
        heaviest = Chem.MolFromSmiles(spelling).GetNumHeavyAtoms()
        if salt and Chem.MolFromSmiles(salt).GetNumHeavyAtoms() >= heaviest:
            continue  # citric acid is no salt former of something smaller
        assert chemistry.canonical_smiles(f"{salt}.{spelling}" if salt else spelling) == expected
    assert chemistry.canonical_smiles(expected) == expected


def test_salts_are_stripped_where_this_makes_sense():
    for written, molecule in [
        ("O=C(CCCc1ccccc1)O[Na]", "O=C(O)CCCc1ccccc1"),  # sodium drawn as if it were covalent
        ("CCCC(CCC)C(=O)O.CCCC(CCC)C(=O)[O-].[Na+]", "CCCC(CCC)C(=O)O"),
        ("CC(=O)O[Ca]OC(C)=O", "CC(=O)O"),
        ("[NH3+]CC(=O)[O-]", "NCC(=O)O"),
        ("C[N+](C)(C)C.[Cl-]", "C[N+](C)(C)C"),  # no proton can neutralise it
        ("N.N.Cl[Pt]Cl", "N.N.Cl[Pt]Cl"),  # cisplatin stays whole
        ("O=[As]O[As]=O", "O=[As]O[As]=O"),
        (r"CCO |c:1,t:2|", "CCO"),  # the extension that vendors write
    ]:
        assert chemistry.canonical_smiles(written) == Chem.CanonSmiles(molecule)


def test_what_is_no_smiles_is_refused_silently(capfd):
    for text in ["C1CC", "not a molecule", "", "C(C)(C)(C)(C)C", "CO..CC"]:
        with pytest.raises(ValueError, match="is no valid SMILES"):
            chemistry.canonical_smiles(text)
        assert capfd.readouterr() == ("", "")


def test_stereoisomers_are_different_molecules() -> None:
    assert chemistry.canonical_smiles("C[C@H](N)C(=O)O") != chemistry.canonical_smiles("C[C@@H](N)C(=O)O")


def test_similarity_is_that_of_rdkit() -> None:
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    prints = [generator.GetFingerprint(Chem.MolFromSmiles(smiles)) for smiles in MOLECULES]
    expected = [DataStructs.BulkTanimotoSimilarity(each, prints) for each in prints]
    np.testing.assert_allclose(chemistry.tanimoto_similarity(MOLECULES), expected, atol=1e-6)
    counts = [generator.GetCountFingerprint(Chem.MolFromSmiles(smiles)).GetNonzeroElements() for smiles in MOLECULES]
    for row, expected_counts in zip(chemistry.morgan_counts(MOLECULES), counts, strict=True):
        assert {int(bit): int(row[bit]) for bit in np.flatnonzero(row)} == expected_counts


def test_scaffolds_are_rings_and_what_links_them() -> None:
    assert chemistry.murcko_scaffold("CC(=O)Oc1ccccc1C(=O)O") == "c1ccccc1"
    assert chemistry.murcko_scaffold("Cc1ccc(CCc2ccccc2C)cc1") == Chem.CanonSmiles("c1ccc(CCc2ccccc2)cc1")
    assert chemistry.murcko_scaffold("CCCC(CCC)C(=O)O") == ""


def test_names_get_what_the_column_says() -> None:
    found, faults = chemistry.smiles_by_name(
        ["control", "A", "A", "B+A", "GENE+B", "X", "Y", "Z+control", "GENE"],
        ["CS(C)=O", "OCC", "CCO", "CCN..CCO", "..CCN", None, "", "CCF", float("nan")],
    )
    assert found == {"A": ["CCO", "OCC"], "B": ["CCN"], "GENE": [""], "X": [], "Y": [""], "Z": ["CCF"]}
    assert faults == []
    names, faults_by_kind = chemistry.one_molecule_each({**found, "Q": ["C1C"], "R": ["CCO", "CCN", "OCC"]})
    assert names == {"A": "CCO", "B": "CCN", "GENE": "", "Q": "", "R": "CCN", "X": "", "Y": "", "Z": "CCF"}
    assert faults_by_kind == {
        "Invalid SMILES": ["'C1C' of 'Q'"],
        "Different molecules under one name (choose one: `smiles={name: SMILES}`)": ["'R' (CCN, CCO)"],
    }


def test_without_rdkit_the_way_out_is_told(monkeypatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *args, **kwargs):
        if name.startswith("rdkit"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"pip install 'unlasting\[drugs\]'"):
        chemistry.canonical_smiles("CCOCCOCC")


def test_fingerprints_are_compared_by_what_rdkit_finds_in_both() -> None:
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    prints = [generator.GetFingerprint(Chem.MolFromSmiles(smiles)) for smiles in MOLECULES]
    theirs = [DataStructs.BulkCosineSimilarity(one, prints) for one in prints]
    for embedding in (np.log1p(chemistry.morgan_counts(MOLECULES)), chemistry.morgan_counts(MOLECULES) / 7):
        rows = chemistry.compared_by(embedding, "morgan")
        np.testing.assert_allclose(rows @ rows.T, theirs, rtol=1e-5)


def test_other_embeddings_are_compared_as_they_are():
    for kind in ["descriptors", "unimol", "given"]:
        embedding = np.random.default_rng(0).normal(size=(4, 9))
        np.testing.assert_array_equal(chemistry.compared_by(embedding, kind), embedding)
