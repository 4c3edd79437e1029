"""Splits of drug screens: doses, drugs by structure, and pairs of perturbation and cell type."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator
from rdkit.Chem.Scaffolds import MurckoScaffold

from unlasting import datasets, pp
from unlasting.screen import ScreenKeys

KEYS = {"dose_key": "dose", "smiles_key": "smiles", "cell_type_key": "kind"}


def screen(
    smiles: dict[str, str],
    doses: tuple[object, ...] = (0.1, 1.0, 10.0),
    kinds: tuple[str, ...] = ("a", "b"),
    n_cells: int = 3,
    more: list[tuple[str, object, str, str]] | None = None,
) -> AnnData:
    """Make a screen of all drugs at all doses in all cell types, with controls, and more cells as given."""
    cells = [(name, dose, text, kind) for name, text in smiles.items() for dose in doses for kind in kinds]
    cells += [("control", 1.0, "CS(C)=O", kind) for kind in kinds] * 3 + (more or [])
    obs = pd.DataFrame(cells * n_cells, columns=["perturbation", "dose", "smiles", "kind"])
    obs.index = [f"cell{i}" for i in range(len(obs))]
    return AnnData(np.ones((len(obs), 2), dtype=np.float32), obs=obs)


@pytest.fixture(scope="module")
def drugs() -> dict[str, str]:
    table = datasets.sciplex3_drugs()
    return dict(zip(table["name"], table["smiles"], strict=True))


def part_of(adata: AnnData, *columns: str) -> dict:
    """Find the part of each group of cells, which must be one."""
    found = adata.obs.groupby(list(columns), observed=True)["unlasting_split"].agg(set)
    assert all(len(parts) == 1 for parts in found)
    return {key: min(parts) for key, parts in found.items()}


def similarities(smiles: list[str]) -> np.ndarray:
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    prints = [generator.GetFingerprint(Chem.MolFromSmiles(text)) for text in smiles]
    return np.array([DataStructs.BulkTanimotoSimilarity(each, prints) for each in prints])


# -- drugs


@pytest.mark.slow
def test_unseen_drugs_are_whole_and_one_molecule_is_in_one_part(drugs) -> None:
    adata = screen(drugs, doses=(1.0,), n_cells=1)
    for method, seed in itertools.product(("random", "scaffold", "similarity"), range(3)):
        pp.split(adata, "unseen_drug", method=method, seed=seed, min_cells=1, **KEYS)
        part = part_of(adata, "perturbation")
        assert part.pop("control") == "train"
        assert part["Valproic"] == part["Divalproex"]
        assert list(part.values()).count("test") == pytest.approx(0.3 * len(drugs), rel=0.25)
        report = adata.uns["unlasting"]["split"]
        assert report["test_conditions"].tolist() == sorted(name for name, p in part.items() if p == "test")
        assert report["method"] == method


def test_no_scaffold_is_in_two_parts(drugs) -> None:
    adata = screen(drugs, doses=(1.0,), n_cells=1)
    pp.split(adata, "unseen_drug", method="scaffold", min_cells=1, **KEYS)
    pp.molecules(adata)
    stored = adata.uns["unlasting"]["molecules"]
    canonical = dict(zip(stored["drugs"], stored["drug_smiles"], strict=True))
    parts: dict[str, set[str]] = {}
    for name, part in part_of(adata, "perturbation").items():
        if name != "control":
            scaffold = MurckoScaffold.GetScaffoldForMol(Chem.MolFromSmiles(canonical[name]))
            parts.setdefault(
                Chem.MolToSmiles(scaffold, isomericSmiles=False) or f"acyclic {canonical[name]}", set()
            ).add(part)
    assert all(len(found) == 1 for found in parts.values())
    assert len(parts) < len(drugs) - 5  # some do share one
    assert sum(scaffold.startswith("acyclic") for scaffold in parts) > 1


def test_no_held_out_drug_is_similar_to_a_trained_one(drugs) -> None:
    adata = screen(drugs, doses=(1.0,), n_cells=1)
    pp.split(adata, "unseen_drug", method="similarity", min_cells=1, **KEYS)
    pp.molecules(adata)
    stored = adata.uns["unlasting"]["molecules"]
    similarity = similarities(stored["drug_smiles"].tolist())
    part = part_of(adata, "perturbation")
    parts = np.array([part[name] for name in stored["drugs"]])
    for first, second in itertools.permutations(("train", "val", "test"), 2):
        assert similarity[np.ix_(parts == first, parts == second)].max() <= 0.4


def test_the_published_lists_are_held_out_whatever_the_seed(drugs) -> None:
    table = datasets.sciplex3_drugs()
    renamed = {("(+)-JQ1" if name == "JQ1" else f"{name} (X-1)"): text for name, text in drugs.items()}
    renamed["my own name"] = renamed.pop("Dacinostat (X-1)")  # known by its molecule
    adata = screen(renamed, doses=(1.0,), n_cells=1)
    for method, column, n_drugs in [("published", "ood", 9), ("published_epigenetic", "ood_epigenetic", 8)]:
        expected = {"my own name" if name == "Dacinostat" else f"{name} (X-1)" for name in table["name"][table[column]]}
        for seed in (0, 1):
            pp.split(adata, "unseen_drug", method=method, seed=seed, min_cells=1, **KEYS)
            found = set(adata.uns["unlasting"]["split"]["test_conditions"])
            assert found == expected
            assert len(found) == n_drugs
            assert adata.uns["unlasting"]["split"]["n_val"] > 0


def test_combinations_go_with_their_drug_and_genes_are_no_drugs() -> None:
    smiles = {"A": "CCO", "B": "CCN", "C": "CCF", "D": "CCCl"}
    more = [("A+STAT1", 1.0, "CCO..", "a"), ("B+A", "1+1", "CCN..CCO", "a"), ("STAT1", 1.0, "", "a")]
    adata = screen(smiles, more=more)
    pp.split(adata, "unseen_drug", test="A", val="D", min_cells=1, **KEYS)
    part = part_of(adata, "perturbation")
    assert {name for name, p in part.items() if p == "test"} == {"A", "A+STAT1", "B+A"}
    assert {name for name, p in part.items() if p == "val"} == {"D"}
    for seed in range(6):
        pp.split(adata, "unseen_drug", seed=seed, min_cells=1, **KEYS)
        assert part_of(adata, "perturbation")["STAT1"] == "train"


def test_naming_a_drug_holds_out_its_scaffold() -> None:
    smiles = {"benzene": "c1ccccc1", "toluene": "Cc1ccccc1", "furan": "c1ccoc1", "ethanol": "CCO", "ethane": "CC"}
    adata = screen(smiles)
    pp.split(adata, "unseen_drug", method="scaffold", test=["toluene"], val=["ethane"], min_cells=1, **KEYS)
    part = part_of(adata, "perturbation")
    assert {name for name, p in part.items() if p == "test"} == {"benzene", "toluene"}
    assert part["ethanol"] == "train"


def test_molecules_can_say_what_is_a_drug() -> None:
    smiles = {"A": "CCO", "B": "CCN", "C": "CCF", "D": "CCCl"}
    adata = screen(smiles)
    del adata.obs["smiles"]
    with pytest.raises(ValueError, match="needs `smiles_key`.*`unlasting.pp.molecules"):
        pp.split(adata, "unseen_drug")
    pp.molecules(adata, smiles=smiles)
    pp.split(adata, "unseen_drug", test_fraction=0.5, val_fraction=0)
    assert len(adata.uns["unlasting"]["split"]["test_conditions"]) == 2


# -- doses


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    given_doses=st.lists(st.sets(st.sampled_from([0.01, 0.1, 1.0, 10.0]), min_size=1), min_size=3, max_size=5),
    seed=st.integers(0, 3),
)
def test_a_drug_with_an_unseen_dose_is_trained_at_another(given_doses: list[set[float]], seed: int) -> None:
    cells = [(f"D{i}", dose, kind) for i, doses in enumerate(given_doses) for dose in doses for kind in "ab"]
    obs = pd.DataFrame([*cells, ("control", 0.0, "a"), ("control", 0.0, "b")], columns=["perturbation", "dose", "kind"])
    obs.index = [f"cell{i}" for i in range(len(obs))]
    adata = AnnData(np.ones((len(obs), 2), dtype=np.float32), obs=obs)
    can = sum(2 * (len(doses) - 1) for doses in given_doses)
    asked = max(1, round(0.3 * len(cells)))
    arguments = {"dose_key": "dose", "cell_type_key": "kind", "val_fraction": 0, "min_cells": 1, "seed": seed}
    if can < asked:
        with pytest.raises(ValueError, match="can be held out with a related condition in training"):
            pp.split(adata, "unseen_dose", **arguments)
        return
    pp.split(adata, "unseen_dose", **arguments)
    part = part_of(adata, "perturbation", "kind", "dose")
    assert list(part.values()).count("test") == asked
    for (name, kind, _), where in part.items():
        others = [p for (n, k, _), p in part.items() if (n, k) == (name, kind)]
        assert where == "train" or "train" in others


def test_a_dose_stands_for_all_drugs_that_were_given_at_another() -> None:
    adata = screen({"A": "CCO", "B": "CCN"}, more=[("C", 10, "CCF", "a"), ("STAT1", 10.0, "", "a")])
    pp.split(adata, "unseen_dose", test=10, val=["B at 0.1 uM in a"], **KEYS)
    part = part_of(adata, "perturbation", "dose", "kind")
    assert {key for key, p in part.items() if p == "test"} == {(n, 10.0, k) for n in "AB" for k in "ab"}
    assert {key for key, p in part.items() if p == "val"} == {("B", 0.1, "a")}
    report = adata.uns["unlasting"]["split"]
    assert report["test_conditions"].tolist() == [f"{n} at 10 uM in {k}" for n in "AB" for k in "ab"]
    assert report["val_conditions"].tolist() == ["B at 0.1 uM in a"]
    assert ScreenKeys.read(adata).dose_key == "dose"


def test_doses_of_combinations_are_doses() -> None:
    more = [("A+B", dose, "CCO..CCN", kind) for dose in ("1+0.5", "1+5", "2+0.5") for kind in "ab"]
    adata = screen({"A": "CCO", "B": "CCN"}, more=more)
    pp.split(adata, "unseen_dose", test=["1+0.5", "A at 1 uM in b"], val_fraction=0, **KEYS)
    report = adata.uns["unlasting"]["split"]
    assert report["test_conditions"].tolist() == ["A at 1 uM in b", "A+B at 1+0.5 uM in a", "A+B at 1+0.5 uM in b"]


# -- drugs and doses


def test_drugs_and_doses_are_held_out_together(drugs) -> None:
    adata = screen(dict(list(drugs.items())[:20]), n_cells=2)
    for seed in range(3):
        pp.split(adata, "unseen_drug_and_dose", min_cells=1, seed=seed, **KEYS)
        parts = adata.obs.groupby("perturbation")["unlasting_split"].agg(set)
        assert parts.pop("control") == {"train"}
        whole, split = parts[parts.map(len) == 1], parts[parts.map(len) > 1]
        assert whole.map(lambda part: part == {"test"}).sum() == pytest.approx(0.3 * 20, abs=1)
        assert split.map(lambda part: "train" in part).all()
        report = set(adata.uns["unlasting"]["split"]["test_conditions"])
        assert {name for name, part in whole.items() if part == {"test"}} <= report
        trained = part_of(adata, "perturbation", "dose", "kind")
        held_out = {k for k, part in trained.items() if part == "test" and k[0] in split.index}
        assert {f"{name} at {dose:g} uM in {kind}" for name, dose, kind in held_out} <= report
        assert len(held_out) == pytest.approx(0.3 * 3 * 2 * len(split), rel=0.25)
        for name, _, kind in held_out:  # another dose of the drug is trained in the cell type
            assert any(part == "train" and (k[0], k[2]) == (name, kind) for k, part in trained.items())


def test_drugs_and_doses_can_be_named(drugs) -> None:
    adata = screen(dict(list(drugs.items())[:4]))
    a, b, *_ = drugs
    pp.split(adata, "unseen_drug_and_dose", test=[a, 10], val=f"{b} at 1 uM in a", **KEYS)
    part = part_of(adata, "perturbation", "dose", "kind")
    for (name, dose, kind), found in part.items():
        expected = "test" if name == a or (dose == 10 and name != "control") else "train"
        assert found == ("val" if (name, dose, kind) == (b, 1.0, "a") else expected)


def test_published_drugs_are_held_out_with_a_dose() -> None:
    published = datasets.sciplex3_drugs()
    named = dict(zip(published["name"], published["smiles"], strict=True))
    adata = screen({name: named[name] for name in ("Trametinib", "A-366", "AG-14361", "AG-490")})
    pp.split(adata, "unseen_drug_and_dose", method="published", test=10, val_fraction=0, **KEYS)
    part = part_of(adata, "perturbation", "dose")
    ood = set(published["name"][published["ood"]])
    assert {part[name, 0.1] for name in ood & {"Trametinib", "A-366", "AG-14361", "AG-490"}} == {"test"}
    assert {part[name, 10.0] for name in ("A-366", "AG-14361", "AG-490")} == {"test"}
    assert {part[name, 0.1] for name in ("A-366", "AG-14361", "AG-490")} == {"train"}


# -- pairs


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(table=st.lists(st.sets(st.sampled_from("abcd"), min_size=2), min_size=3, max_size=6), seed=st.integers(0, 3))
def test_both_sides_of_an_unseen_pair_are_trained_elsewhere(table: list[set[str]], seed: int) -> None:
    cells = [(f"D{i}", kind) for i, kinds in enumerate(table) for kind in kinds] + [("control", k) for k in "abcd"]
    obs = pd.DataFrame(cells, columns=["perturbation", "kind"], index=[f"cell{i}" for i in range(len(cells))])
    adata = AnnData(np.ones((len(obs), 2), dtype=np.float32), obs=obs)
    pp.split(adata, "unseen_pair", cell_type_key="kind", test_fraction=0.15, val_fraction=0.1, min_cells=1, seed=seed)
    part = part_of(adata, "perturbation", "kind")
    trained = {key for key, p in part.items() if p == "train" and key[0] != "control"}
    assert {p for key, p in part.items() if key[0] == "control"} == {"train"}
    held_out = {key for key, p in part.items() if p == "test"}
    assert held_out
    for name, kind in held_out:
        assert any(n == name for n, _ in trained)
        assert any(k == kind for _, k in trained)
    assert set(adata.uns["unlasting"]["split"]["test_conditions"]) == {f"{n} in {k}" for n, k in held_out}


def test_pairs_can_be_named() -> None:
    adata = screen({"A": "CCO", "B": "CCN"})
    pp.split(adata, "unseen_pair", test="A in a", val="B in b", cell_type_key="kind")
    part = part_of(adata, "perturbation", "kind")
    assert (part["A", "a"], part["B", "b"], part["A", "b"], part["B", "a"]) == ("test", "val", "train", "train")


def test_faults_are_named_and_nothing_is_written() -> None:
    adata = screen({"A": "CCO", "B": "CCN"})
    for arguments, message in [
        ({"kind": "unseen_drug", "test": "Z"}, "`test` names 'Z', which is no drug of the screen"),
        ({"kind": "unseen_drug", "method": "scafold"}, "Did you mean 'scaffold'"),
        ({"kind": "unseen_drug", "method": "published"}, "None of the 2 drugs is in the published list"),
        ({"kind": "unseen_drug", "method": "published", "test": "A"}, "is a fixed list"),
        ({"kind": "unseen_drug", "min_cells": 100}, "There are 2 drug groups .*, 2 of them with fewer than 100"),
        ({"kind": "unseen_dose", "test": 3.0}, r"names '3', which is neither one of the doses \['0.1', '1', '10'\]"),
        ({"kind": "unseen_dose", "test": [0.1, 1, 10]}, "no drug was given at another dose as well"),
        ({"kind": "unseen_dose", "dose_key": None}, "needs `dose_key`"),
        ({"kind": "unseen_dose", "test_fraction": 0.9, "val_fraction": 0}, "3 more are asked for in 'test'"),
        (
            {"kind": "unseen_pair", "test": "A in c"},
            "which is no pair of perturbation and cell type of the screen.*Did you mean 'A in",
        ),
        ({"kind": "unseen_pair", "test": ["A in a", "A in b"]}, "'A in b', which cannot be held out"),
        ({"kind": "unseen_pair", "cell_type_key": None}, "needs `cell_type_key`"),
    ]:
        with pytest.raises(ValueError, match=message):
            pp.split(adata, **{"min_cells": 1, **KEYS, **arguments})
        assert "unlasting" not in adata.uns
        assert "unlasting_split" not in adata.obs


def test_smiles_that_cannot_be_read_are_listed() -> None:
    adata = screen({"A": "C1CC", "B": "?", "C": "CCO"}, more=[("C", 1.0, "CCN", "a")])
    with pytest.raises(ValueError, match="'C1CC' of 'A', '[?]' of 'B', 'C' [(]CCN, CCO[)]"):
        pp.split(adata, "unseen_drug", **KEYS)
