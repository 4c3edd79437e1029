"""The overview of a screen: the facts are those of the file, and the file stays as it is."""

from __future__ import annotations

import json

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse
from typer.testing import CliRunner

import unlasting as ul
from unlasting.cli import app

GENES = ["STAT1", "JAK2", "IRF1", "MYC", "ACTB", "GAPDH"]
SMILES = {"aspirin": "CC(=O)Oc1ccccc1C(=O)O", "caffeine": "Cn1c(=O)c2c(ncn2C)n(C)c1=O", "ethanol": "CCO"}


def screen(labels: dict[str, int], key: str = "perturbation", names: list[str] = GENES, **obs) -> AnnData:
    """A screen with so many cells under each label."""
    column = np.repeat(list(labels), list(labels.values()))
    counts = np.random.default_rng(0).poisson(4.0, (len(column), len(names))).astype(np.float32)
    frame = pd.DataFrame({key: column, **obs}, index=[f"c{i}" for i in range(len(column))])
    return AnnData(sparse.csr_matrix(counts), obs=frame, var=pd.DataFrame(index=names))


def unchanged(adata: AnnData, **keys) -> object:
    """Check a screen, which has to stay as it is."""
    before = adata.copy()
    found = ul.pp.check(adata, **keys)
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    pd.testing.assert_frame_equal(adata.var, before.var)
    assert list(adata.uns) == list(before.uns)
    assert repr(adata.uns.get("unlasting")) == repr(before.uns.get("unlasting"))
    assert list(adata.layers) == list(before.layers)
    if before.X is not None:
        assert (adata.X != before.X).sum() == 0
    return found


def run(call: str, adata: AnnData) -> None:
    exec(call, {"ul": ul, "adata": adata})


def test_other_columns_several_controls_and_combinations(capsys):
    labels = {"NT-1": 20, "NT-2": 15, "STAT1": 12, "JAK2": 11, "IRF1": 13, "IRF1_JAK2": 14, "IFNB": 10}
    adata = screen(labels, "target", line=np.resize(["A", "A", "B"], 95), lane=np.resize([1, 2], 95))
    keys = {
        "perturbation_key": "target",
        "control": "NT-*",
        "delimiter": "_",
        "cell_type_key": "line",
        "batch_key": "lane",
    }
    found = unchanged(adata, **keys)
    assert found.cells == {
        "controls": {"NT-1": 20, "NT-2": 15},
        "gene targets": {"IRF1": 27, "JAK2": 25, "STAT1": 12},
        "drugs": {},
        "stimuli": {"IFNB": 10},
        "combinations": {"IRF1_JAK2": 14},
        "contexts": {"A": 64, "B": 31},
        "batches": {"1": 48, "2": 47},
        "split": {},
    }
    assert found.measured == ["IRF1", "JAK2", "STAT1"]
    assert found.counts == "adata.X"
    printed = capsys.readouterr().out
    assert printed == f"{found}\n"
    assert "controls: 2 (cells): NT-1 (20), NT-2 (15)" in printed
    assert "3 of 3 gene targets are measured" in printed
    assert "\n" not in repr(found)
    run(found.next_call, adata)
    assert adata.uns["unlasting"]["keys"]["control"] == ["NT-1", "NT-*"]


def test_a_screen_that_nobody_has_described_gets_the_fix():
    adata = screen({"non-targeting": 20, "STAT1_g1": 12, "STAT1_g2": 11, "unassigned": 5})
    found = unchanged(adata)
    assert found.cells["controls"] == {}
    assert found.next_call == "ul.pp.check(adata, control='LABEL')"
    for fix in ("Name their label as `control`", "seem to be guides", "'unassigned'", "may be meant as control"):
        assert any(fix in sentence for sentence in found.oddities), fix
    assert len(set(found.oddities)) == len(found.oddities)
    assert "\noddities:\n  (1) No cell of" in str(found)
    misspelt = unchanged(screen({"control": 20, "STTA1": 12, "interferon": 12}))
    assert list(misspelt.cells["stimuli"]) == ["STTA1", "interferon"]
    assert [sentence.split(". ")[0] for sentence in misspelt.oddities] == [
        "Unknown names that look like genes count as stimuli: STTA1"
    ]
    with pytest.raises(KeyError, match="has no such column"):
        ul.pp.check(adata, perturbation_key="guide")
    only = unchanged(screen({"control": 20}))
    assert any("All 20 cells are controls" in sentence for sentence in only.oddities)


def test_names_and_counts_are_found_in_other_places():
    adata = screen({"control": 30, "STAT1": 12, "JAK2": 12, "IRF1": 12, "KLF4": 12})
    adata.var["gene_name"] = GENES
    adata.var_names = [f"ENSG{i:011d}.2" for i in range(len(GENES))]
    adata.layers["umi"] = adata.X.copy()
    total = np.asarray(adata.X.sum(axis=1))
    adata.X = sparse.csr_matrix(np.log1p(adata.X.toarray() / total * 1e4))
    found = unchanged(adata)
    assert found.gene_names == "`adata.var['gene_name']`"
    assert found.measured == ["IRF1", "JAK2", "STAT1"]
    assert found.counts == "adata.layers['umi']"
    assert found.expression.startswith("log-normalised, 10000 counts")
    assert found.oddities == []
    assert list(found.cells["gene targets"]) == ["STAT1", "JAK2", "IRF1", "KLF4"]


@pytest.mark.parametrize(
    ("change", "fix"),
    [(lambda x: x - 2.0, "Raw counts are needed"), (lambda x: x * 7.3, "np.rint"), (lambda x: x * 0.0, "only zeros")],
)
def test_unusable_expression_is_an_oddity(change, fix):
    adata = screen({"control": 30, "STAT1": 12})
    adata.X = sparse.csr_matrix(change(adata.X.toarray()))
    found = unchanged(adata)
    assert (found.expression, found.counts) == ("neither counts nor log-normalised", "")
    assert any(fix in sentence for sentence in found.oddities)


def test_drugs_have_doses():
    labels = {"DMSO": 30, "aspirin": 24, "caffeine": 24, "ethanol": 24}
    adata = screen(labels, "drug")
    adata.obs["uM"] = np.where(adata.obs["drug"] == "DMSO", 0.0, np.resize([0.1, 10.0], adata.n_obs))
    keys = {"perturbation_key": "drug", "control": "DMSO", "dose_key": "uM"}
    unnamed = unchanged(adata, **keys)
    assert (list(unnamed.cells["drugs"]), unnamed.split_kind) == (list(SMILES), "unseen_perturbation")
    assert any("aspirin, caffeine, ethanol have doses but no SMILES" in sentence for sentence in unnamed.oddities)
    adata.obs["smiles"] = adata.obs["drug"].map(SMILES)
    found = unchanged(adata, **keys, smiles_key="smiles")
    assert found.cells["drugs"] == {"aspirin": 24, "caffeine": 24, "ethanol": 24}
    assert found.doses == dict.fromkeys(SMILES, [0.1, 10.0])
    assert "doses in µM: aspirin (0.1, 10)" in str(found)
    assert (found.split_kind, found.oddities) == ("unseen_drug", [])


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ({"control": 60, "aspirin": 60}, "random"),
        ({"control": 60, "aspirin": 30, "caffeine": 30, "ethanol": 5}, "unseen_cell_type"),
        ({"control": 60, "aspirin": 20, "caffeine": 20, "ethanol": 20}, "unseen_drug"),
        ({"control": 60, "aspirin": 20, "caffeine": 20, "STAT1": 20}, "unseen_perturbation"),
    ],
)
def test_the_suggested_split_can_be_made(labels, kind):
    adata = screen(labels)
    adata.obs["dose"] = np.resize([1.0, 2.0, 4.0], adata.n_obs)
    adata.obs["smiles"] = adata.obs["perturbation"].map(SMILES)
    adata.obs["line"] = np.resize(["A", "B", "C"], adata.n_obs)
    keys = {"dose_key": "dose", "smiles_key": "smiles"}
    keys |= {"cell_type_key": "line"} if kind == "unseen_cell_type" else {}
    found = unchanged(adata, **keys)
    assert found.split_kind == kind
    run(found.next_call, adata)
    assert adata.uns["unlasting"]["split"]["kind"] == kind


@pytest.mark.slow
def test_a_file_on_disk_is_read_and_leads_to_its_preparation(tmp_path):
    screen({"control": 40, "STAT1": 20, "JAK2": 20, "IRF1": 20}).write_h5ad(tmp_path / "screen.h5ad")
    backed = anndata.read_h5ad(tmp_path / "screen.h5ad", backed="r")
    found = ul.pp.check(backed)
    assert found.expression.startswith("integers, ")
    assert found.counts == "adata.X"
    assert found.oddities == []
    run(found.next_call, backed)
    call = ul.pp.check(backed).next_call
    assert call == "adata = ul.pp.prepare(adata, copy=True)"
    names = {"ul": ul, "adata": backed}
    exec(call, names)
    assert not names["adata"].isbacked
    assert ul.pp.check(names["adata"]).next_call == "ul.pp.grn(adata)"


@pytest.mark.slow
def test_each_step_leads_to_the_next():
    adata = screen({"control": 40, "STAT1": 20, "JAK2": 20, "IRF1": 20, "MYC": 20})
    for step in ("split", "prepare", "grn"):
        found = unchanged(adata, perturbation_key="perturbation")
        assert found.next_call.startswith(f"ul.pp.{step}(adata")
        run(found.next_call, adata)
    found = unchanged(adata)
    assert found.next_call == "ul.UnlastingModel.setup_anndata(adata)"
    assert found.counts == "adata.layers['counts']"
    assert sum(found.cells["split"].values()) == adata.n_obs


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_the_command_line_shows_the_same(kind, tmp_path):
    adata = screen({"NT a": 20, "NTb": 20, "STAT1": 20, "JAK2": 20, "IRF1": 20}, "target")
    path = tmp_path / f"a screen.{kind}"
    getattr(adata, f"write_{kind}")(path)
    options = ["--perturbation-key", "target", "--control", "NT a", "--control", "NTb"]
    done = CliRunner().invoke(app, ["check", str(path), *options])
    assert done.exit_code == 0, done.output
    read = anndata.read_h5ad(path) if kind == "h5ad" else anndata.read_zarr(path)
    expected = ul.pp.check(read, perturbation_key="target", control=["NT a", "NTb"])
    text = (
        str(expected)
        .replace("adata.X", "X")
        .replace("cell_type_key", "--cell-type-key")
        .replace("batch_key", "--batch-key")
    )
    assert done.stdout.splitlines()[:-1] == text.splitlines()[:-1]
    found = json.loads(CliRunner().invoke(app, ["check", str(path), *options, "--json"]).stdout)
    call = (
        f"unlasting train '{path}' --split unseen_perturbation --perturbation-key target --control 'NT a' --control NTb"
    )
    assert found["next_call"] == call
    assert found["cells"] == expected.cells
    again = CliRunner().invoke(app, ["check", str(path), "--perturbation-key", "target"]).stdout
    assert again.splitlines()[-1] == f"next: unlasting check '{path}' --perturbation-key target --control LABEL"
