from __future__ import annotations

import numpy as np
import pytest
import scanpy as sc
from sklearn.metrics import roc_auc_score

from unlasting import datasets, tl


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_planted_responders_are_found_almost_as_if_their_genes_were_known(planted_screen, storage, share):
    adata = planted_screen(300, share=share, storage=storage)
    frame = tl.responders(adata).set_index("condition")
    assert share - 0.08 < frame.loc["half", "responders_observed"] < share + 0.03
    assert share - 0.08 < frame.loc["half", "responders_generated"] < share + 0.03

    half, control = (adata.obs["perturbation"] == label for label in ("half", "control"))
    responds = adata.obs.loc[half, "responds"].to_numpy()
    for column, matrix in (
        ("unlasting_responders", adata.X),
        ("unlasting_responders_generated", adata.layers["unlasting"]),
    ):
        oracle = np.asarray(matrix[:, :6].sum(axis=1)).ravel()
        known = oracle[half] > np.quantile(np.asarray(adata.X[:, :6].sum(axis=1)).ravel()[control], 0.95)
        found = (adata.obs.loc[half, column] == "responder").to_numpy()
        assert found[responds].mean() > known[responds].mean() - 0.07


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_cells_that_escaped_are_taken_for_responders_as_often_as_controls(planted_screen, share):
    """On average over screens: of 30 cells, 3 pass by chance in every sixth."""
    found = []
    for seed in range(8):
        adata = planted_screen(300, share=share, seed=seed)
        tl.responders(adata, conditions="half")
        for column in ("unlasting_responders", "unlasting_responders_generated"):
            nonresponding = (adata.obs["perturbation"] == "half") & ~adata.obs["responds"]
            found.append((adata.obs.loc[nonresponding, column] == "responder").mean())
    assert np.mean(found) == pytest.approx(0.05, abs=0.025)


def test_no_effect_gives_no_responders_beyond_the_false_positives(planted_screen):
    found = [tl.responders(planted_screen(300, seed=s), conditions="none").iloc[0] for s in range(6)]
    assert np.mean([row["responders_observed"] for row in found]) < 0.03
    assert np.mean([row["score_observed"] for row in found]) == pytest.approx(0, abs=0.15)


def test_false_positives_are_those_asked_for(planted_screen):
    adata = planted_screen(600)
    tl.responders(adata, conditions="none", false_positives=0.2)
    none = adata.obs.loc[adata.obs["perturbation"] == "none", "unlasting_responders"]
    assert (none == "responder").mean() == pytest.approx(0.2, abs=0.08)


def test_loss_of_expression_is_a_response_too(planted_screen):
    frame = tl.responders(planted_screen(300), conditions="all")
    assert frame["responders_observed"].iloc[0] > 0.9


def test_labels_cover_every_cell(planted_screen):
    adata = planted_screen(100)
    tl.responders(adata, conditions=["half"])
    labels = adata.obs["unlasting_responders"]
    assert (labels[adata.obs["perturbation"] == "control"] == "control").all()
    assert (labels[adata.obs["perturbation"] == "all"] == "unlabelled").all()
    assert set(labels[adata.obs["perturbation"] == "half"]) == {"responder", "non-responder"}
    assert adata.obs["unlasting_responders_score"].notna().sum() == 100
    assert adata.obs["unlasting_responders_score_generated"].notna().sum() == 100


def test_a_condition_that_was_never_observed_takes_its_direction_from_generated_cells(planted_screen):
    whole = planted_screen(300, share=0.4)
    generated = whole[whole.obs["perturbation"] == "half"].copy()
    generated.X = generated.layers["unlasting"]
    adata = whole[whole.obs["perturbation"] != "half"].copy()
    frame = tl.responders(adata, predictions=generated)
    assert list(frame["direction_from"]) == ["generated"]
    assert frame["responders_generated"].iloc[0] == pytest.approx(0.4, abs=0.05)
    right = (generated.obs["unlasting_responders"] == "responder") == generated.obs["responds"]
    assert right.mean() > 0.93
    assert "unlasting_responders_generated" not in adata.obs


def test_copies_of_control_cells_do_not_respond_to_an_unseen_perturbation(planted_screen):
    found = []
    for seed in range(6):
        adata = planted_screen(200, seed=seed)
        unseen = adata[adata.obs["perturbation"] == "half"].copy()
        unseen.X = adata[unseen.obs["unlasting_source"].to_numpy()].X.copy()
        frame = tl.responders(adata[adata.obs["perturbation"] != "half"].copy(), predictions=unseen)
        found.append(frame["score_generated"].iloc[0])
    assert np.mean(found) == pytest.approx(0, abs=0.15)


def test_errors_name_the_way_out(planted_screen):
    adata = planted_screen(30)
    columns = list(adata.obs.columns)
    with pytest.raises(ValueError, match="false_positives"):
        tl.responders(adata, false_positives=1.5)
    with pytest.raises(ValueError, match="min_cells=500"):
        tl.responders(adata, min_cells=500)
    assert list(adata.obs.columns) == columns
    assert "unlasting" not in adata.uns


def test_scores_separate_the_responders_of_a_simulated_screen():
    adata = datasets.simulate_screen(n_cells=300, responders=0.5, seed=1)
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    adata.layers["unlasting"] = adata.X.copy()
    tl.responders(adata, conditions=[f"T{i}" for i in range(1, 10)])
    for label, cells in adata.obs.groupby("perturbation", observed=True):
        if str(label).startswith("T"):
            area = roc_auc_score(cells["responder"].astype(bool), cells["unlasting_responders_score"])
            assert area > 0.9, label


def test_real_knockouts_with_and_without_an_effect():
    adata = datasets.papalexi()
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    adata.layers["unlasting"] = adata.X
    found = tl.responders(adata).set_index("condition")["responders_observed"]
    assert (found[["IFNGR1", "IFNGR2", "JAK2", "STAT1"]] > 0.7).all()
    assert (found[["ATF2", "CAV1", "CD86", "ETV7", "MARCH8", "STAT5A"]] < 0.05).all()
