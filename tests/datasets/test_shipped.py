"""The shipped screens have their documented sizes and labels, and a licence each."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest
from scipy import sparse

from unlasting import datasets
from unlasting.screen import canonical_smiles, parse_labels

SHIPPED = {
    "papalexi": (16093, 299, 1912, 25),
    "norman_mini": (3375, 500, 100, 33),
    "kang": (2800, 14053, 1310, 1),
}


def test_shipped_screens_are_raw_counts_with_labels() -> None:
    for name, (n_cells, n_genes, n_controls, n_conditions) in SHIPPED.items():
        adata = datasets.DATASETS[name]()
        assert adata.shape == (n_cells, n_genes)
        assert sparse.issparse(adata.X)
        assert (adata.X.data == np.rint(adata.X.data)).all()
        assert (adata.obs["perturbation"] == "control").sum() == n_controls
        parsed = parse_labels(adata.obs["perturbation"])
        assert len({p.targets for p in parsed.values()} - {()}) == n_conditions
        assert adata.obs_names.is_unique
        assert adata.var_names.is_unique
        assert adata.uns["unlasting"]["dataset"] == name
        assert ("keys" in adata.uns["unlasting"]) == (name == "kang")  # its column with cell types


def test_every_data_set_is_registered_under_its_name() -> None:
    for name, load in datasets.DATASETS.items():
        assert load is getattr(datasets, name)
    with pytest.raises(AttributeError, match="no attribute 'kangg'; data sets: adamson, kang"):
        _ = datasets.kangg


def test_every_shipped_file_is_attributed_and_they_are_small() -> None:
    for folder in ("datasets", "pp"):
        data = files(f"unlasting.{folder}") / "_data"
        notice = (data / "README.md").read_text(encoding="utf-8")
        shipped = [path for path in data.iterdir() if path.name.endswith((".h5ad", ".npz", ".tsv"))]
        assert shipped
        assert all(path.name in notice for path in shipped)
        assert sum(len(path.read_bytes()) for path in shipped) < 8e6


def test_the_drugs_of_sciplex3_are_molecules_and_the_published_lists_complete() -> None:
    table = datasets.sciplex3_drugs()
    assert list(table.columns) == ["name", "smiles", "ood", "ood_epigenetic"]
    assert len(table) == 187
    assert table["name"].is_unique
    molecules = table["smiles"].map(canonical_smiles)
    assert table["name"][molecules.duplicated(keep=False)].tolist() == ["Divalproex", "Valproic"]
    assert not molecules.str.contains(r"\.").any()
    assert molecules.map(canonical_smiles).equals(molecules)
    assert set(table["name"][table["ood"]]) == {
        "Dacinostat", "CUDC-907", "Givinostat", "CUDC-101", "Pirarubicin", "Hesperadin", "Tanespimycin", "Trametinib",
        "Raltitrexed",
    }  # fmt: skip
    assert set(table["name"][table["ood_epigenetic"]]) == {
        "Dacinostat", "Quisinostat", "CUDC-907", "Abexinostat", "Panobinostat", "Belinostat", "Givinostat", "AR-42",
    }  # fmt: skip
