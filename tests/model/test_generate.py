from __future__ import annotations

import dataclasses

import anndata
import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from unlasting.model import UnlastingModel
from unlasting.screen import logger

QUIET = {"show_progress": False}


def test_a_new_anndata_with_provenance(either, tmp_path):
    new = either.generate(["G7", "TFX+G3", "control"], n_cells=15, seed=3, **QUIET)
    assert new.n_obs == 3 * 2 * 15
    assert list(new.var_names) == list(either.adata.var_names)
    counts = new.obs.groupby(["perturbation", "cell_type"], observed=True).size()
    assert set(counts) == {15}
    assert set(new.obs["perturbation"]) == {"G7", "G3+TFX", "control"}
    assert new.obs_names.is_unique

    source = either.adata.obs.loc[new.obs["unlasting_source"].astype(str)]
    assert (source["perturbation"] == "control").all()
    assert (source["unlasting_split"] == "train").all()
    assert (source["cell_type"].to_numpy() == new.obs["cell_type"].to_numpy()).all()
    cells = new.X.toarray()
    assert np.isfinite(cells).all()
    assert (cells >= 0).all()

    made = new.uns["unlasting"]["generated"]
    assert made["seed"] == 3
    assert made["preset"] == either._preset_name
    assert (made["solver"], made["n_steps"]) == (either.preset.solver, either.preset.n_steps)
    assert list(made["unseen_targets"]) == []
    new.write_h5ad(tmp_path / "new.h5ad")
    read = anndata.read_h5ad(tmp_path / "new.h5ad")
    assert read.uns["unlasting"]["generated"]["version"] == made["version"]
    assert read.uns["unlasting"]["keys"]["cell_type_key"] == "cell_type"


def test_more_cells_than_controls_and_every_one_is_another(either):
    new = either.generate("TFX", n_cells=400, cell_type="B", seed=0, **QUIET)
    sources = new.obs["unlasting_source"].nunique()
    assert sources < 100
    cells = new.X.toarray()
    assert len(np.unique(cells, axis=0)) == 400
    pairs = new.obs[["unlasting_source", "unlasting_replicate"]].astype(str)
    assert not pairs.duplicated().any()


@pytest.mark.slow
def test_a_cell_does_not_depend_on_its_chunk_or_its_neighbours(either):
    whole = either.generate(["G3", "G7"], n_cells=16, seed=1, **QUIET)
    chunks = either.generate(["G3", "G7"], n_cells=16, seed=1, batch_size=7, **QUIET)
    turned = either.generate(["G7", "G3"], n_cells=16, seed=1, **QUIET)
    assert (whole.obs["unlasting_source"] == chunks.obs["unlasting_source"]).all()
    np.testing.assert_array_equal(whole.X.toarray() > 0, chunks.X.toarray() > 0)
    np.testing.assert_allclose(whole.X.toarray(), chunks.X.toarray(), atol=1e-5)
    for label in ("G3", "G7"):
        one, other = (a[a.obs["perturbation"] == label].X.toarray() for a in (whole, turned))
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_seed_decides(either):
    one, same, other = (either.generate("G3", 20, seed=s, **QUIET) for s in (5, 5, 6))
    np.testing.assert_array_equal(one.X.toarray(), same.X.toarray())
    assert one.obs.equals(same.obs)
    assert not np.array_equal(one.X.toarray(), other.X.toarray())


def test_a_pair_has_no_order(either):
    one, other = (either.generate(label, 10, **QUIET) for label in ("G3+TFX", "TFX+G3"))
    np.testing.assert_array_equal(one.X.toarray(), other.X.toarray())
    assert set(one.obs["perturbation"]) == set(other.obs["perturbation"]) == {"G3+TFX"}


def test_labels_are_read_like_those_of_the_screen(model):
    new = model.generate(["G3+ctrl", "G3", "TFX + G3+G7"], 5, **QUIET)
    assert list(dict.fromkeys(new.obs["perturbation"])) == ["G3", "G3+G7+TFX"]


def test_targets_that_were_never_trained(model):
    """A measured one, one that only the prior knows, one that is only a node, and a pair with a trained one."""
    for label, unseen in {"G11": ["G11"], "NEW1": ["NEW1"], "NEW2": ["NEW2"], "G11+G3": ["G11"]}.items():
        new = model.generate(label, 10, **QUIET)
        made = new.uns["unlasting"]["generated"]
        assert np.isfinite(new.X.toarray()).all()
        assert list(made["unseen_targets"]) == unseen
        assert list(made["unseen_conditions"]) == ["+".join(sorted(label.split("+")))]
        assert ((new.obs["unlasting_p_better"] >= 0) & (new.obs["unlasting_p_better"] < 1)).all()
        assert (new.obs["unlasting_expected_error"] > 0).all()


def test_another_way_to_write_a_combination_is_told_the_right_one(model):
    for label in ("G3_TFX", "G3 TFX", "G3, TFX"):
        with pytest.raises(
            ValueError, match=f"Nothing is known of the target '{label}'.* A combination is written 'G3[+]TFX'"
        ):
            model.generate(label, **QUIET)


def test_trust_falls_with_the_evidence(model):
    made = {
        label: model.generate(label, 1, cell_type="B", **QUIET).obs.iloc[0]
        for label in ("G3", "control", "NEW1", "NEW2")
    }
    error, better = (
        {label: float(row[f"unlasting_{name}"]) for label, row in made.items()}
        for name in ("expected_error", "p_better")
    )
    assert error["control"] == 0.0
    assert error["G3"] < 0.5 < error["NEW2"]
    assert error["G3"] < error["NEW1"]
    assert better["G3"] > 0.95
    assert better["control"] == 0.5
    assert better["NEW2"] < 0.6  # nothing is known about it


def test_a_poor_prediction_is_named_with_the_page_that_explains_it(model, caplog):
    logger.addHandler(caplog.handler)
    try:
        model.generate(["G3", "control"], 1, cell_type="B", **QUIET)
        assert caplog.text == ""
        model.generate(["G3", "NEW2"], 1, cell_type="B", **QUIET)
    finally:
        logger.removeHandler(caplog.handler)
    assert "Predictions for NEW2 may be no nearer to the truth" in caplog.text
    assert "guide/trust.html" in caplog.text


def test_an_untrained_target_with_a_double_in_the_prior_acts_like_it(model):
    mean = {
        label: model.generate(label, 150, seed=0, **QUIET).X.toarray().mean(0) for label in ("control", "G3", "NEW1")
    }
    others = np.r_[0:3, 4:60]  # G3 itself is a node, NEW1 is none
    of_g3, of_new = ((mean[label] - mean["control"])[others] for label in ("G3", "NEW1"))
    assert np.corrcoef(of_g3, of_new)[0, 1] > 0.5


def test_trained_conditions_are_not_called_unseen(model):
    made = model.generate(["G3", "G3+TFX", "G7+TFX"], 2, **QUIET).uns["unlasting"]["generated"]
    assert list(made["unseen_targets"]) == []
    assert list(made["unseen_conditions"]) == ["G7+TFX"]


def test_given_controls_are_started_from(either, controls):
    few = controls[:6].copy()
    new = either.generate("G3", 9, controls=few, **QUIET)
    assert set(new.obs["unlasting_source"]) <= set(few.obs_names)
    assert set(new.obs["cell_type"]) == set(few.obs["cell_type"])


def test_a_cell_type_that_was_not_trained_starts_from_its_own_controls(model, controls, screen):
    other = screen(seed=1, n_cells=300)
    other = other[other.obs["perturbation"] == "control"].copy()
    other.obs["cell_type"] = "NK"
    other.obs_names = [f"nk{i}" for i in range(other.n_obs)]
    new = model.generate(["TFX", "control"], 50, controls=other, **QUIET)
    assert set(new.obs["cell_type"]) == {"NK"}
    assert set(new.obs["unlasting_source"]) <= set(other.obs_names)
    null = new[new.obs["perturbation"] == "control"]
    before = other[null.obs["unlasting_source"].astype(str)].X.toarray()
    assert np.array_equal(null.X.toarray() > 0, before > 0)
    assert np.abs(null.X.toarray() - before).max() < 2e-3 * float(model.module.statistics.x_max)


def test_the_published_preset_knows_cell_types_by_index(paper_model, controls):
    controls.obs["cell_type"] = "NK"
    with pytest.raises(ValueError, match="'NK' was not trained.*default preset"):
        paper_model.generate("G3", 5, controls=controls, **QUIET)


@pytest.mark.slow
def test_screens_without_cell_types_and_batches(build, screen):
    adata = screen(n_cells=300)
    del adata.obs["cell_type"]
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(str).replace({"control": "NT", "G3+TFX": "G3;TFX"})
    model = build(adata, train=5, cell_type_key=None, control="NT", delimiter=";")
    new = model.generate(["TFX;G3", "NT"], 12, **QUIET)
    assert list(new.obs["perturbation"].unique()) == ["G3;TFX", "NT"]
    assert "cell_type" not in new.obs
    assert model.predict(copy=True, **QUIET).layers["unlasting"].shape == adata.shape


@pytest.mark.slow
def test_with_and_without_a_knocked_out_node(build, screen):
    model = build(screen(n_cells=200), train=3, mode="activation")
    assert isinstance(model, UnlastingModel)
    assert not model.preset.denoiser.knock_out
    assert model.generate("G3", 4, **QUIET).n_obs == 8


def test_a_model_says_what_it_is(model, capsys):
    repr(model)
    shown = " ".join(capsys.readouterr().out.split())
    assert "5 conditions, 3 trained targets, 60 genes Training status" in shown


def test_the_mask_network_sees_a_condition_as_far_as_training_tells_of_it(model):
    """A trained one whole, one without support as if it were any; from one to the other by the fourth power of the support."""
    for label in ("G3", "G3+TFX", "control", "NEW1", "G11", "NEW2"):
        module, populations = model.module, model.module.populations()[torch.tensor([0])]
        asked, zero = model._all_asked([label], None), torch.zeros(1, dtype=torch.long)
        conditions = model._tensors(asked)
        support = float(model.effects_model.support(asked)[0])
        seen = dataclasses.replace(conditions, features=conditions.features * support**4)
        start = module.expected(asked, populations)(zero, zero)
        with torch.no_grad():
            expected = module.averaged["mask_network"](populations.mean, start.log_odds, seen, populations.cell_type)
            torch.testing.assert_close(module.mask_log_odds(conditions, populations, start), expected)


@pytest.mark.slow
def test_the_validation_score_of_an_untrained_condition_is_that_of_its_prediction(build, screen):
    """What the mask network is not told when it predicts, it is not told when it is validated."""
    adata = screen()
    adata.obs["unlasting_split"] = np.where(adata.obs["perturbation"] == "G7", "val", "train")
    model = build(adata, train=60)
    module, conditions = model.module, model._conditions()
    code = [p.label() for p in conditions].index("G7")
    is_one = (adata.obs["perturbation"] == "G7") & (adata.obs["cell_type"] == "B")
    cells = torch.from_numpy(adata[is_one.to_numpy()].X.toarray()) / module.statistics.x_max
    condition, population = (torch.full((len(cells),), value) for value in (code, 0))
    assert 0.0 < float(module.conditions(condition).weight[0]) < 1.0
    with torch.no_grad():
        loss = module.mask_loss(cells, condition, population, averaged=True)
        expected = module.registered_expected(condition, population)
        log_odds = module.mask_log_odds(module.conditions(condition), module.populations()[population], expected)
        statistics, mask = module.statistics, (cells > 0).float()
        usual = statistics.log_detected_mean[condition, population], statistics.log_detected_sd[population]
        log_odds = module.averaged["mask_network"].at_detected_genes(log_odds, module.detected(mask, *usual))
    torch.testing.assert_close(loss, binary_cross_entropy_with_logits(log_odds, mask))
