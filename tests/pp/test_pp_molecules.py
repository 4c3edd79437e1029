"""Molecules of a screen: what is a drug, one row for each molecule, and everything that is wrong said at once."""

from __future__ import annotations

import logging
import sys
from types import ModuleType

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem import Descriptors, rdFingerprintGenerator
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.preprocessing import StandardScaler

import unlasting as ul
from unlasting import datasets, pp
from unlasting.screen import ScreenKeys

DRUGS = {
    "valproate": "CCCC(CCC)C(=O)[O-].[Na+]",
    "valproic acid": "CCCC(CCC)C(O)=O",
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "caffeine": "CN1C=NC2=C1C(=O)N(C(=O)N2C)C",
}
CANONICAL = {name: Chem.CanonSmiles(smiles.split(".")[0].replace("[O-]", "O")) for name, smiles in DRUGS.items()}


def screen(cells: list[tuple[object, object]], genes: tuple[str, ...] = ("STAT1", "IRF1")) -> AnnData:
    """Make an AnnData with these labels and SMILES, each twice, and two controls."""
    rows = [*cells, ("control", "CS(C)=O")] * 2
    obs = pd.DataFrame(rows, columns=["perturbation", "smiles"], index=[f"cell{i}" for i in range(len(rows))])
    return AnnData(np.ones((len(rows), len(genes)), dtype=np.float32), obs=obs, var=pd.DataFrame(index=list(genes)))


def drug_screen() -> AnnData:
    return screen([*DRUGS.items(), ("STAT1", None)])


def molecules(adata: AnnData) -> dict:
    return adata.uns["unlasting"]["molecules"]


def test_one_molecule_under_two_names_is_one_row() -> None:
    adata = drug_screen()
    pp.molecules(adata)
    stored = molecules(adata)
    assert stored["drugs"].tolist() == sorted(DRUGS)
    assert stored["drug_smiles"].tolist() == [CANONICAL[name] for name in sorted(DRUGS)]
    assert stored["smiles"].tolist() == sorted(set(CANONICAL.values()))
    assert stored["kind"] == "morgan"
    assert stored["report"]["synonyms"].tolist() == ["valproate = valproic acid"]
    assert ScreenKeys.read(adata).smiles_key == "smiles"
    assert ScreenKeys.read(adata).drugs(adata) == {*DRUGS, *CANONICAL.values()}


def test_fingerprints_are_counts_of_substructures() -> None:
    adata = drug_screen()
    pp.molecules(adata)
    stored = molecules(adata)
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    counts = [generator.GetCountFingerprintAsNumPy(Chem.MolFromSmiles(smiles)) for smiles in stored["smiles"]]
    expected = cosine_similarity(np.log1p(np.array(counts, dtype=float)))
    np.testing.assert_allclose(stored["matrix"] @ stored["matrix"].T, expected, atol=1e-6)
    assert stored["matrix"].dtype == np.float32


@pytest.mark.slow
def test_descriptors_are_standardised_over_the_molecules() -> None:
    table = datasets.sciplex3_drugs().head(25)
    adata = screen(list(zip(table["name"], table["smiles"], strict=True)))
    pp.molecules(adata, embedding="descriptors")
    stored = molecules(adata)
    functions = dict(Descriptors.descList)
    names = stored["report"]["features"]
    values = [[functions[name](Chem.MolFromSmiles(smiles)) for name in names] for smiles in stored["smiles"]]
    expected = np.clip(StandardScaler().fit_transform(values), -3, 3)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(stored["matrix"], expected, atol=1e-4)
    assert {"MolWt", "TPSA", "MolLogP"} <= set(names)
    assert np.ptp(values, axis=0).min() > 0


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(6)), seed=st.integers(1, 1000))
def test_neither_the_order_of_cells_nor_the_spelling_matters(order: list[int], seed: int) -> None:
    table = datasets.sciplex3_drugs().iloc[::30].head(6)
    cells = list(zip(table["name"], table["smiles"], strict=True))
    respelt = [
        (cells[place][0], Chem.MolToRandomSmilesVect(Chem.MolFromSmiles(cells[place][1]), 1, randomSeed=seed)[0])
        for place in order
    ]
    first, second = screen(cells), screen(respelt)
    for adata in (first, second):
        pp.molecules(adata)
    for key in ("smiles", "drugs", "drug_smiles", "matrix"):
        np.testing.assert_array_equal(molecules(first)[key], molecules(second)[key])


def test_a_matrix_by_name_or_by_smiles() -> None:
    rng = np.random.default_rng(0)
    values = dict(zip(sorted(set(CANONICAL.values())), rng.normal(size=(3, 5)), strict=True))
    by_name = pd.DataFrame({name: values[CANONICAL[name]] for name in DRUGS} | {"later": np.ones(5)}).T
    by_smiles = pd.DataFrame({DRUGS[name]: values[CANONICAL[name]] for name in DRUGS}).T
    first, second = drug_screen(), drug_screen()
    pp.molecules(first, embedding=by_name)
    pp.molecules(second, embedding=by_smiles)
    assert molecules(first)["drugs"].tolist() == sorted([*DRUGS, "later"])
    assert molecules(first)["smiles"].tolist() == sorted([*values, "later"])  # no SMILES is known of it
    assert molecules(second)["smiles"].tolist() == sorted(values)
    for stored in map(molecules, (first, second)):
        assert stored["kind"] == "given"
        for smiles, row in zip(stored["smiles"], stored["matrix"], strict=True):
            expected = values.get(smiles, np.ones(5))
            np.testing.assert_allclose(row, expected / np.linalg.norm(expected), atol=1e-6)


def test_a_matrix_by_name_needs_neither_smiles_nor_rdkit(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "rdkit", None)
    adata = screen([("A", ""), ("B", ""), ("STAT1", "")])
    del adata.obs["smiles"]
    pp.molecules(adata, embedding=pd.DataFrame(np.eye(2), index=["A", "B"]))
    assert molecules(adata)["drugs"].tolist() == molecules(adata)["drug_smiles"].tolist() == ["A", "B"]
    assert ScreenKeys.read(adata).smiles_key is None


def test_further_drugs_can_be_named() -> None:
    adata = drug_screen()
    pp.molecules(adata, smiles={"ethanol": "OCC", "aspirin": "CC(=O)Oc1ccccc1C(O)=O"})
    assert molecules(adata)["drugs"].tolist() == sorted([*DRUGS, "ethanol"])
    del adata.obs["smiles"], adata.uns["unlasting"]
    pp.molecules(adata, smiles=DRUGS)
    assert molecules(adata)["drugs"].tolist() == sorted(DRUGS)


def test_combinations_and_genes() -> None:
    adata = screen(
        [
            ("aspirin+ethanol", "CC(=O)Oc1ccccc1C(=O)O..CCO"),
            ("STAT1+methanol", "..CO"),
            ("ethanol+methanol", ""),
            ("cytokine", ""),
            ("aspirin", None),
        ]
    )
    pp.molecules(adata)
    found = dict(zip(molecules(adata)["drugs"], molecules(adata)["drug_smiles"], strict=True))
    assert found == {"aspirin": CANONICAL["aspirin"], "ethanol": "CCO", "methanol": "CO"}


def test_an_unmeasured_gene_of_the_prior_is_no_drug_without_smiles() -> None:
    adata = screen([("aspirin", DRUGS["aspirin"]), ("IFNGR1", None)])
    with pytest.raises(ValueError, match="Names without a SMILES .*: IFNGR1"):
        pp.molecules(adata)
    pp.molecules(adata, smiles={"IFNGR1": ""}, copy=True)
    adata.uns["unlasting"] = {"target_embedding": {"names": np.array(["IFNGR1"], dtype=object)}}
    pp.molecules(adata)
    assert molecules(adata)["drugs"].tolist() == ["aspirin"]


def test_drugs_are_neither_targets_among_the_genes_nor_nodes_of_the_graph() -> None:
    adata = datasets.simulate_drug_screen(n_drugs=2, n_families=2, n_inert=0, n_gene_targets=1, n_combos=1, n_cells=12)
    drug = adata.uns["simulation"]["drugs"]["drug"].iloc[0]
    adata.X[:, -1] = 0  # would be left out, if it were not a target
    adata.X.eliminate_zeros()
    adata.var_names = [*adata.var_names[:-1], drug]
    pp.split(adata, "random")
    pp.prepare(adata, min_cells=1)
    assert drug not in adata.var_names
    assert "T1" in adata.var_names
    pp.grn(adata, prior=None)
    assert list(adata.uns["unlasting"]["grn"]["nodes"]) == list(adata.var_names)


def test_all_that_is_wrong_is_said_at_once() -> None:
    cells = [
        ("aspirin", "CCO"),
        ("aspirin", "CCN"),
        ("bad", "C1CC"),
        ("worse", "?"),
        ("none", None),
        ("a+b", "C..O..N"),
    ]
    adata = screen([*cells, ("STAT1", None)])
    with pytest.raises(ValueError, match="cannot all be read") as caught:
        pp.molecules(adata)
    for part in (
        "Invalid SMILES: 'C1CC' of 'bad', '?' of 'worse'.",
        "Different molecules under one name (choose one: `smiles={name: SMILES}`): 'aspirin' (CCN, CCO).",
        "'a+b' has 3 SMILES for 2 names.",
        "an empty text for no drug): a, b, none.",
    ):
        assert part in str(caught.value)
    assert "unlasting" not in adata.uns


def test_a_drug_without_a_row_is_named() -> None:
    adata = drug_screen()
    with pytest.raises(ValueError, match="Drugs without a row in `embedding`: aspirin, caffeine"):
        pp.molecules(adata, embedding=pd.DataFrame(np.eye(1), index=[DRUGS["valproate"]]))


def test_faults_are_named_and_nothing_is_written():
    for arguments, error, message in [
        ({"embedding": "morgen"}, ValueError, "Did you mean 'morgan'"),
        ({"embedding": np.eye(3)}, TypeError, "`embedding` is a ndarray"),
        ({"smiles_key": "smile"}, KeyError, "Did you mean 'smiles'"),
        ({"smiles": {"new": "CC("}}, ValueError, r"Invalid SMILES: 'CC\(' of 'new'"),
        ({"embedding": pd.DataFrame([["x"]], index=["aspirin"])}, ValueError, "must hold numbers only"),
        (
            {"embedding": pd.DataFrame(np.zeros((4, 2)), index=list(DRUGS))},
            ValueError,
            "only zeros, or values that are not",
        ),
        ({"embedding": pd.DataFrame(np.full((4, 2), np.nan), index=list(DRUGS))}, ValueError, "not finite"),
        ({"embedding": pd.DataFrame(np.eye(4), index=list(DRUGS))}, ValueError, "two different rows for one molecule"),
        ({"control": "contrl"}, ValueError, "Did you mean 'control'"),
    ]:
        adata = drug_screen()
        with pytest.raises(error, match=message):
            pp.molecules(adata, **arguments)
        assert "unlasting" not in adata.uns


def test_a_screen_without_drugs_is_told() -> None:
    with pytest.raises(ValueError, match="No perturbation of this screen has a SMILES"):
        pp.molecules(screen([("STAT1", ""), ("IRF1", None)]))
    adata = screen([("STAT1", "")])
    del adata.obs["smiles"]
    with pytest.raises(KeyError, match="`smiles_key` is 'smiles', but `adata.obs` has no such column"):
        pp.molecules(adata)
    with pytest.raises(ValueError, match="there are only 1. Use `embedding='morgan'`"):
        pp.molecules(screen([("aspirin", DRUGS["aspirin"])]), embedding="descriptors")


def test_what_is_written_survives_a_file_and_a_copy_leaves_the_screen(tmp_path) -> None:
    adata = drug_screen()
    changed = pp.molecules(adata, embedding="descriptors", copy=True)
    assert "unlasting" not in adata.uns
    changed.write_h5ad(tmp_path / "screen.h5ad")
    again = anndata.read_h5ad(tmp_path / "screen.h5ad")
    for key, value in molecules(changed).items():
        if key != "report":
            np.testing.assert_array_equal(molecules(again)[key], value)
    assert molecules(again)["matrix"].dtype == np.float32
    assert molecules(again)["report"]["n_drugs"] == 4
    pp.molecules(again)  # and can be overwritten
    assert molecules(again)["kind"] == "morgan"


class UniMolRepr:
    """The interface of `unimol_tools` from 0.1.5 on, with invented vectors."""

    def __init__(self, data_type: str = "molecule", remove_hs: bool = False) -> None:
        assert (data_type, remove_hs) == ("molecule", False)

    def get_repr(self, data: list[str], return_atomic_reprs: bool = False) -> list[np.ndarray]:
        assert isinstance(data, list)
        return [np.random.default_rng(len(smiles)).normal(size=512).astype(np.float32) for smiles in data]


def test_unimol_is_asked_for_one_vector_per_molecule(monkeypatch) -> None:
    tools = ModuleType("unimol_tools")
    tools.UniMolRepr = UniMolRepr
    monkeypatch.setitem(sys.modules, "unimol_tools", tools)
    adata = drug_screen()
    pp.molecules(adata, embedding="unimol")
    stored = molecules(adata)
    expected = np.array(UniMolRepr().get_repr(stored["smiles"].tolist()))
    np.testing.assert_allclose(stored["matrix"], expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)
    assert (stored["kind"], stored["matrix"].shape) == ("unimol", (3, 512))


def test_unimol_says_what_is_missing(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "unimol_tools", None)
    with pytest.raises(ImportError, match=r"pip install 'unlasting\[unimol\]'"):
        pp.molecules(drug_screen(), embedding="unimol")

    class Offline:
        def __init__(self, **_: object) -> None:
            raise FileNotFoundError("mol_pre_all_h_220816.pt")

    tools = ModuleType("unimol_tools")
    tools.UniMolRepr = Offline
    monkeypatch.setitem(sys.modules, "unimol_tools", tools)
    adata = drug_screen()
    with pytest.raises(ConnectionError, match="mol_pre_all_h_220816.*UNIMOL_WEIGHT_DIR"):
        pp.molecules(adata, embedding="unimol")
    assert "unlasting" not in adata.uns


def test_stereoisomers_of_one_name_are_one_drug_and_one_may_be_chosen(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("unlasting"), "propagate", True)
    adata = ul.datasets.simulate_drug_screen()
    name = str(adata.uns["unlasting"]["molecules"]["drugs"][0]) if "molecules" in adata.uns.get("unlasting", {}) else ""
    name = name or str(adata.obs.loc[adata.obs["smiles"].astype(str).str.len() > 3, "perturbation"].iloc[0])
    rows = np.flatnonzero(adata.obs["perturbation"].astype(str) == name)
    smiles = adata.obs["smiles"].astype(object)
    smiles.iloc[rows[::2]] = "C[C@H](N)C(=O)O"
    smiles.iloc[rows[1::2]] = "C[C@@H](N)C(=O)O"
    adata.obs["smiles"] = smiles
    for chosen, expected in ({}, "CC(N)C(=O)O"), ({name: "C[C@H](N)C(=O)O"}, "C[C@H](N)C(=O)O"):
        caplog.clear()
        ul.pp.molecules(adata, smiles=chosen)
        stored = adata.uns["unlasting"]["molecules"]
        assert stored["drug_smiles"][list(stored["drugs"]).index(name)] == expected
        assert ("several stereoisomers" in caplog.text) == (not chosen)
    smiles.iloc[rows[1::2]] = "CCCC"
    adata.obs["smiles"] = smiles
    with pytest.raises(ValueError, match=r"Different molecules under one name \(choose one: `smiles="):
        ul.pp.molecules(adata)


def test_drugs_without_smiles_have_doses_by_name():
    adata = ul.datasets.simulate_drug_screen(n_combos=0, n_gene_targets=0)
    del adata.uns["unlasting"], adata.obs["smiles"]
    ul.pp.split(adata, "random", dose_key="dose")
    ul.pp.prepare(adata, min_cells=1)
    ul.pp.grn(adata, prior=None)
    ul.UnlastingModel.setup_anndata(adata)
    names = sorted(set(adata.obs["perturbation"].astype(str)) - {"control"})
    assert np.array_equal(adata.uns["unlasting"]["molecules"]["matrix"], np.eye(len(names)))
    assert ul.UnlastingModel(adata, width=32).targets["drug"] == names
