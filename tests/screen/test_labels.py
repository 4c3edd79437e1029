"""The review of labels: oddities of every kind are logged once, in one warning with the fix, and usual labels are not."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from typer.testing import CliRunner

import unlasting as ul
from unlasting.cli import app
from unlasting.screen import ScreenKeys, review_labels, target_by_guide

GENES = ["STAT1", "JAK2", "IRF1", "MYC", "NKX2-5", "HLA-A", "WT1", "ATG5", "ATG7", "IFNG"]


def labelled(labels, n: int = 12, **columns) -> AnnData:
    """A screen with `n` cells under each label."""
    obs = pd.DataFrame({"perturbation": np.repeat(np.asarray(labels, dtype=object), n)})
    obs.index = [f"c{i}" for i in range(len(obs))]
    for name, values in columns.items():
        obs[name] = np.resize(np.asarray(values, dtype=object), len(obs))
    counts = np.random.default_rng(0).poisson(3.0, (len(obs), len(GENES))).astype(np.float32)
    return AnnData(counts, obs=obs, var=pd.DataFrame(index=GENES))


@pytest.fixture
def warnings(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("unlasting"), "propagate", True)
    caplog.set_level(logging.INFO, "unlasting")
    return lambda: [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


ODD = {
    "another control": (["STAT1", "NT_2"], ["'NT_2' may be meant as control", "`control=['control', 'NT_2']`"]),
    "negative controls": (["STAT1", "NegCtrl3", "scramble"], ["'NegCtrl3', 'scramble' may be meant as control"]),
    "vehicle": (["STAT1", "DMSO_TF"], ["'DMSO_TF' may be meant as control"]),
    "text of a missing value": (["STAT1", "nan"], ["'nan' in", "is no perturbation", ".isin(['nan'])"]),
    "cells without a call": (
        ["STAT1", "multiplet", "Unassigned"],
        ["'Unassigned', 'multiplet' in", "are no perturbation"],
    ),
    "guides": (["STAT1_g1", "STAT1_g2", "JAK2_g1", "JAK2_g2"], ["seem to be guides", r"str.replace(r'(_g\d+)$'"]),
    "guides of Papalexi": (["STAT1g1", "STAT1g2", "LCK2g1"], ["'STAT1g1', 'STAT1g2' seem to be guides"]),
    "guides of CRISPRi": (["STAT1_+_191878.23-P1P2", "STAT1_-_191855.23-P1P2"], ["seem to be guides"]),
    "numbered guides": (
        ["STAT1-1", "STAT1-2", "LCK-1", "LCK-2"],
        ["'LCK-1', 'LCK-2', 'STAT1-1', 'STAT1-2' seem to be"],
    ),
    "another delimiter": (["STAT1", "JAK2", "STAT1;JAK2"], ["'STAT1;JAK2' seem to be combinations", "`delimiter=';'`"]),
    "GEARS with an underscore": (["JAK2_ctrl", "STAT1_ctrl"], ["seem to be combinations", "`delimiter='_'`"]),
    "codes": (["1", "2", "3"], ["may be codes from a conversion", ".map("]),
    "switches": (["True"], ["may be codes from a conversion"]),
    "case": (["STAT1", "Stat1"], ["'STAT1', 'Stat1' differ in case only"]),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_oddity_is_reported_with_its_fix(kind):
    labels, parts = ODD[kind]
    found = review_labels(labelled(["control", *labels]), ScreenKeys())
    assert any(all(part in one for part in parts) for one in found), found
    assert all(one.endswith(".") for one in found)


def test_the_fix_renames_every_old_symbol_that_is_listed():
    old = {"ISGF-3": "STAT1", "DPC4": "SMAD4", "HUNK1": "BRD4", "MIR": "MARCHF8"}
    (found,) = [one for one in review_labels(labelled(["control", *old]), ScreenKeys()) if "Other names" in one]
    for name, gene in old.items():
        assert f"{name!r} as {gene!r}" in found
        assert f"{name!r}: {gene!r}" in found


def test_usual_labels_are_not_odd():
    usual = [
        "STAT1",
        "WT1",
        "NKX2-5",
        "NKX2-1",
        "HLA-A",
        "IL-2",
        "IL-10",
        "NT5E",
        "NAT1",
        "JAK2+STAT1",
        "IFN-b",
    ]
    assert review_labels(labelled(["control", *usual]), ScreenKeys()) == []


def test_no_measured_gene_is_a_guide():
    assert target_by_guide(["NKX2-5", "ATG5", "ATG7"], GENES) == {}
    assert target_by_guide(["STAT1_sg1", "Atg5", "Atg7"], GENES) == {"STAT1_sg1": "STAT1"}


def test_missing_groups_are_refused_and_their_texts_reported():
    adata = labelled(["control", "STAT1"], cell_type=["T", "B", None], batch=["1", "nan"])
    with pytest.raises(ValueError, match=r"8 cells have no value in .*'cell_type'.*notna\(\)"):
        ul.pp.split(adata, "random", cell_type_key="cell_type")
    assert "unlasting_split" not in adata.obs
    (found,) = review_labels(adata, ScreenKeys(batch_key="batch"))
    assert "'nan' in `adata.obs['batch']`" in found


def test_split_and_setup_log_one_warning(warnings):
    adata = labelled(["control", "STAT1", "JAK2", "NT_2", "unassigned"])
    ul.pp.split(adata, "random")
    (said,) = warnings()
    assert "(1) 'unassigned'" in said
    assert "(2) 'NT_2'" in said
    ul.pp.prepare(adata, min_cells=1)
    ul.pp.grn(adata, prior=None)
    ul.UnlastingModel.setup_anndata(adata)
    assert warnings() == [said]
    assert "NT_2" in adata.uns["unlasting"]["label_review"]


@pytest.mark.parametrize("kind", ["unseen_perturbation", "leave_one_out"])
def test_guides_of_one_target_stay_together(kind, warnings):
    names = [f"{target}_g{i}" for target in ("STAT1", "JAK2", "MYC", "LCK") for i in (1, 2, 3)]
    adata = labelled(["control", *names])
    ul.pp.split(adata, kind, test="LCK_g2", val_fraction=0.0)
    parts = adata.obs.groupby("perturbation")["unlasting_split"].agg(lambda s: set(s))
    assert [label for label in names if parts[label] == {"test"}] == ["LCK_g1", "LCK_g2", "LCK_g3"]
    assert "held out together: LCK_g1, LCK_g2, LCK_g3" in warnings()[0]


def test_a_single_that_is_trained_in_a_pair_is_reported(warnings):
    adata = labelled(["control", "STAT1", "JAK2", "MYC", "JAK2+STAT1"])
    ul.pp.split(adata, "unseen_perturbation", test="STAT1", val_fraction=0.0)
    assert adata.uns["unlasting"]["split"]["trained_in_combinations"].tolist() == ["JAK2+STAT1"]
    assert (
        "STAT1 (in JAK2+STAT1). To hold these out too: `pp.split(adata, 'leave_one_out', test=['STAT1'])`"
        in warnings()[0]
    )
    ul.pp.split(adata, "leave_one_out", test="STAT1", val_fraction=0.0)
    assert len(adata.uns["unlasting"]["split"]["trained_in_combinations"]) == 0


# -- several controls

SEVERAL = ["NT-1", "NT-1", "NT-2", "STAT1", "JAK2", "STAT1+NT-2", "NT-1+NT-2"]


@pytest.mark.parametrize("control", [["NT-1", "NT-2"], "NT-*", ["NT-1", "NT*"]])
def test_several_controls_are_one(control):
    adata = labelled(SEVERAL)
    ul.pp.split(adata, "random", control=control)
    found = ScreenKeys.read(adata)
    assert found.control == "NT-1"
    labels = pd.Series(found.labels(adata)).groupby(adata.obs["perturbation"].to_numpy()).first()
    assert labels.to_dict() == {
        "NT-1": "NT-1",
        "NT-2": "NT-1",
        "STAT1": "STAT1",
        "JAK2": "JAK2",
        "STAT1+NT-2": "STAT1",
        "NT-1+NT-2": "NT-1",
    }
    assert review_labels(adata, found) == []
    assert ScreenKeys.read(adata, control=control) == found
    assert ScreenKeys.read(adata, control="NT-1") == found
    with pytest.raises(ValueError, match=r"`control` is 'STAT1', but earlier steps used \['NT-1'"):
        ScreenKeys.read(adata, control="STAT1")


@pytest.mark.parametrize("control", [[], "XX*", ["a", "b"]])
def test_controls_that_no_cell_has_are_refused(control):
    with pytest.raises(ValueError, match="No cell of .* has the control label"):
        ul.pp.split(labelled(SEVERAL), "random", control=control)


def test_a_half_of_a_control_of_two_guides_is_no_target():
    adata = labelled(["NC_NC", "STAT1_NC", "NC_JAK2", "JAK2_STAT1", "NC"])
    keys = ScreenKeys(control="NC_NC", delimiter="_")
    assert sorted(set(keys.labels(adata))) == ["JAK2", "JAK2_STAT1", "NC_NC", "STAT1"]
    adata = labelled(["non_targeting", "STAT1", "non_JAK2"])  # the halves differ: no such control
    assert "JAK2_non" in ScreenKeys(control="non_targeting", delimiter="_").labels(adata)


@pytest.mark.slow
def test_several_controls_survive_files_and_the_command_line(tmp_path):
    adata = labelled(SEVERAL, n=30)
    adata.write_h5ad(tmp_path / "screen.h5ad")
    command = ["train", tmp_path / "screen.h5ad", "--split", "random", "--control", "NT-*", "--model", tmp_path / "m"]
    result = CliRunner().invoke(
        app, [*map(str, command), "--max-steps", "2", "--accelerator", "cpu", "--prior", "none"]
    )
    assert result.exit_code == 0, result.output
    model = ul.UnlastingModel.load(tmp_path / "m", accelerator="cpu")
    assert model.targets["gene"] == ["JAK2", "STAT1"]
    new = adata[adata.obs["perturbation"] == "NT-2"].copy()
    model.prepare(new)
    cells = model.generate("STAT1", 5, controls=new, show_progress=False)
    assert set(cells.obs["unlasting_source"]) <= set(new.obs_names)
    with pytest.raises(ValueError, match=r"isin\(\['NT-1', 'NT-\*'\]\)"):
        model.generate("STAT1", 5, controls=model.adata, show_progress=False)
    new = adata.copy()[adata.obs["perturbation"].isin(["NT-2", "STAT1"])].copy()
    new.write_h5ad(tmp_path / "new.h5ad")
    command = ["predict", tmp_path / "new.h5ad", "--model", tmp_path / "m", "-p", "JAK2", "-o", tmp_path / "cells.h5ad"]
    result = CliRunner().invoke(app, [*map(str, command), "--n-cells", "3", "--accelerator", "cpu"])
    assert result.exit_code == 0, result.output


def test_only_controls_are_refused():
    for call in (ul.pp.split, lambda adata: ul.pp.split(adata, "random")):
        with pytest.raises(ValueError, match="nothing to learn from"):
            call(labelled(["control"]))
