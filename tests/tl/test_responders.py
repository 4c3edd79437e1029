"""Responders and non-responders against planted ones, by the definition of the effects model."""

from __future__ import annotations

import numpy as np
import pytest
import scanpy as sc
from scipy import sparse
from sklearn.metrics import roc_auc_score

from unlasting import datasets, tl


def test_planted_responders_are_found_almost_as_if_their_genes_were_known(planted_screen):
    for share, storage in ((0.4, np.asarray), (0.6, sparse.csr_matrix), (0.9, sparse.csc_matrix)):
        adata = planted_screen(300, share=share, storage=storage)
        row = tl.responders(adata).set_index("condition").loc["half"]
        assert row["responders_observed"] == pytest.approx(share, abs=0.06)
        assert row["responders_generated"] == pytest.approx(share, abs=0.06)
        half = adata.obs["perturbation"] == "half"
        responds = adata.obs.loc[half, "responds"].to_numpy()
        for suffix, matrix in (("", adata.X), ("_generated", adata.layers["unlasting"])):
            # the best classifier by the planted genes, whose sum has a known distribution in both groups
            known = np.asarray(matrix[:, :6].sum(axis=1)).ravel()[half]
            probability = adata.obs.loc[half, f"unlasting_responders_probability{suffix}"]
            assert roc_auc_score(responds, probability) > roc_auc_score(responds, known) - 0.02
            label = adata.obs.loc[half, f"unlasting_responders{suffix}"]
            assert ((label == "responder") == responds).mean() > 0.93
            np.testing.assert_array_equal(label == "responder", probability > 0.5)


def test_without_an_effect_cells_stay_unlabelled(planted_screen):
    adata = planted_screen(300)
    frame = tl.responders(adata).set_index("condition")
    assert frame.loc["none", ["responders_observed", "responders_generated"]].isna().all()
    assert (adata.obs.loc[adata.obs["perturbation"] == "none", "unlasting_responders"] == "unlabelled").all()
    # loss of expression is a response, too
    assert frame.loc["all", "responders_observed"] > 0.95
    assert frame.loc["all", "separation"] > 2


def test_labels_cover_every_cell(planted_screen):
    adata = planted_screen(100)
    tl.responders(adata, conditions=["half"])
    labels = adata.obs["unlasting_responders"]
    assert (labels[adata.obs["perturbation"] == "control"] == "control").all()
    assert (labels[adata.obs["perturbation"] == "all"] == "unlabelled").all()
    assert set(labels[adata.obs["perturbation"] == "half"]) == {"responder", "non-responder"}
    assert adata.obs["unlasting_responders_probability"].notna().sum() == 100
    assert adata.obs["unlasting_responders_probability_generated"].notna().sum() == 100


def test_a_condition_without_observed_cells_is_fitted_to_generated_cells(planted_screen):
    whole = planted_screen(300, share=0.4)
    generated = whole[whole.obs["perturbation"] == "half"].copy()
    generated.X = generated.layers["unlasting"]
    adata = whole[whole.obs["perturbation"] != "half"].copy()
    frame = tl.responders(adata, predictions=generated)
    assert list(frame["fitted_to"]) == ["generated"]
    assert frame["responders_generated"].iloc[0] == pytest.approx(0.4, abs=0.05)
    right = (generated.obs["unlasting_responders"] == "responder") == generated.obs["responds"]
    assert right.mean() > 0.93
    assert "unlasting_responders_generated" not in adata.obs


def test_copies_of_controls_do_not_respond(planted_screen):
    adata = planted_screen(200)
    adata.layers["unlasting"] = adata[adata.obs["unlasting_source"].to_numpy()].X.copy()
    frame = tl.responders(adata, conditions=["half", "all"]).set_index("condition")
    np.testing.assert_allclose(frame["responders_generated"], 0, atol=0.03)


def test_few_cells_are_an_error_that_names_the_way_out(planted_screen):
    adata = planted_screen(30)
    columns = list(adata.obs.columns)
    with pytest.raises(ValueError, match="Generate at least 50 cells"):
        tl.responders(adata)
    assert list(adata.obs.columns) == columns
    assert "unlasting" not in adata.uns


@pytest.mark.slow
def test_probabilities_separate_the_responders_of_a_simulated_screen():
    adata = datasets.simulate_screen(n_cells=300, responders=0.5, seed=1)
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    adata.layers["unlasting"] = adata.X.copy()
    frame = tl.responders(adata, conditions=[f"T{i}" for i in range(1, 10)]).set_index("condition")
    separated = frame.index[frame["responders_observed"].notna()]
    assert len(separated) >= 6
    for label in separated:
        cells = adata.obs[adata.obs["perturbation"] == label]
        area = roc_auc_score(cells["responder"].astype(bool), cells["unlasting_responders_probability"])
        assert area > 0.9, label


@pytest.mark.slow
def test_real_knockouts_with_and_without_an_effect():
    adata = datasets.papalexi()
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    adata.layers["unlasting"] = adata.X
    found = tl.responders(adata).set_index("condition")["responders_observed"]
    assert (found[["IFNGR1", "IFNGR2", "JAK2", "STAT1"]] > 0.7).all()
    assert found[["ATF2", "CAV1", "CD86", "ETV7", "MARCH8", "STAT5A"]].isna().all()
