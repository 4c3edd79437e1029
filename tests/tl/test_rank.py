from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist

import unlasting as ul
from unlasting import tl


def _generated(adata, perturbation):
    found = adata[adata.obs["perturbation"] == perturbation].copy()
    found.X = found.layers["unlasting"]
    return found


def test_effects_are_unbiased_energy_distances(planted_screen, storage):
    adata = planted_screen(80, storage=storage, dtype=np.float64)
    frame = tl.rank(adata).set_index("condition")
    dense = np.asarray(adata.X.todense() if hasattr(adata.X, "todense") else adata.X)
    layer = adata.layers["unlasting"]
    layer = np.asarray(layer.todense() if hasattr(layer, "todense") else layer)
    x = layer[adata.obs["perturbation"] == "half"]
    y = dense[adata.obs["perturbation"] == "control"]
    # pairs of cells with the same source are left out
    source = adata.obs.loc[adata.obs["perturbation"] == "half", "unlasting_source"].to_numpy()
    control = adata.obs_names[adata.obs["perturbation"] == "control"].to_numpy()
    means = [
        np.mean([d for i, row in enumerate(cdist(a, b)) for j, d in enumerate(row) if s[i] != t[j]])
        for a, b, s, t in ((x, y, source, control), (x, x, source, source), (y, y, control, control))
    ]
    assert frame.loc["half", "score"] == pytest.approx(2 * means[0] - means[1] - means[2], rel=1e-8)

    del adata.obs["unlasting_source"]
    frame = tl.rank(adata).set_index("condition")
    within = [cdist(a, a).sum() / (len(a) * (len(a) - 1)) for a in (x, y)]
    assert frame.loc["half", "score"] == pytest.approx(2 * cdist(x, y).mean() - sum(within), rel=1e-8)


def test_a_perturbation_that_returns_its_source_cells_has_no_effect(planted_screen):
    adata = planted_screen(100)
    adata.layers["unlasting"] = adata[adata.obs["unlasting_source"].to_numpy()].X.copy()
    frame = tl.rank(adata)
    assert ((frame["low"] < 0) & (frame["high"] > 0)).all()
    assert frame["score"].abs().max() < 0.03


def test_order_and_intervals(planted_screen):
    frame = tl.rank(planted_screen(240))
    assert list(frame["condition"])[2] == "none"
    assert frame["score"].is_monotonic_decreasing
    assert ((frame["low"] < frame["score"]) & (frame["score"] < frame["high"])).all()
    none = frame.iloc[2]
    assert none["low"] < 0.05
    assert frame.iloc[1]["low"] > none["high"]


def test_bootstrap_is_centred_on_the_score(planted_screen):
    adata = planted_screen(120)
    middle = []
    for seed in range(5):
        row = tl.rank(adata, conditions="none", n_bootstraps=100, seed=seed).iloc[0]
        middle.append((row["low"] + row["high"]) / 2 - row["score"])
    assert abs(np.mean(middle)) < 0.3 * (row["high"] - row["low"])


def test_gene_set_score_is_the_mean_change_against_other_genes(planted_screen):
    adata = planted_screen(100)
    genes = [f"gene{i}" for i in range(6)]
    frame = tl.rank(adata, toward=genes).set_index("condition")
    change = _generated(adata, "half").X.mean(axis=0) - adata[adata.obs["perturbation"] == "control"].X.mean(axis=0)
    assert frame.loc["half", "score"] == pytest.approx(change[:6].mean() - change[6:].mean(), rel=1e-4)
    assert frame.index[0] == "half"
    assert set(frame["criterion"]) == {"gene set"}


def test_signature_is_a_weighted_mean(planted_screen):
    adata = planted_screen(100)
    weights = pd.Series({"gene7": -2.0, "gene1": 1.0})
    frame = tl.rank(adata, toward=weights).set_index("condition")
    change = _generated(adata, "all").X.mean(axis=0) - adata[adata.obs["perturbation"] == "control"].X.mean(axis=0)
    assert frame.loc["all", "score"] == pytest.approx((change[1] - 2 * change[7]) / 3, rel=1e-4)
    assert frame.index[0] == "all"


def test_the_source_of_another_layer_is_its_own(planted_screen):
    """`predict(key_added="new")` writes `new_source`, and two cells from one control form no pair."""
    adata = planted_screen(60)
    expected = tl.rank(adata)
    adata.layers["new"] = adata.layers.pop("unlasting")
    adata.obs["new_source"] = adata.obs.pop("unlasting_source")
    pd.testing.assert_frame_equal(tl.rank(adata, layer="new"), expected)


def test_target_state_is_reached_by_its_own_cells(planted_screen):
    adata = planted_screen(240)
    state = _generated(adata, "all")[:, ::-1].copy()
    frame = tl.rank(adata, toward=state).set_index("condition")
    assert frame.loc["all", "score"] == pytest.approx(1)
    assert frame.loc["none", "score"] == pytest.approx(0, abs=0.1)


def test_unseen_perturbations_are_marked(planted_screen):
    whole = planted_screen(60)
    adata = whole[whole.obs["perturbation"] != "half"].copy()
    generated = whole[whole.obs["perturbation"] != "control"].copy()
    generated.X = generated.layers["unlasting"]
    frame = tl.rank(adata, predictions=generated).set_index("condition")
    assert frame["seen"].to_dict() == {"half": False, "all": True, "none": True}


def test_results_survive_h5ad(planted_screen, tmp_path):
    adata = planted_screen(30)
    frame = tl.rank(adata)
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = anndata.read_h5ad(tmp_path / "a.h5ad").uns["unlasting"]
    assert list(again["rank"]["condition"]) == list(frame["condition"])


def test_errors_name_the_way_out(planted_screen):
    adata = planted_screen(30)
    with pytest.raises(KeyError, match="toward.*Did you mean"):
        tl.rank(adata, toward=["gen1"])
    with pytest.raises(ValueError, match="at least one gene"):
        tl.rank(adata, toward=[])
    with pytest.raises(ValueError, match="at least one gene"):
        tl.rank(adata, toward="gene1")
    with pytest.raises(ValueError, match="not zero"):
        tl.rank(adata, toward=pd.Series({"gene1": 0.0}))
    with pytest.raises(ValueError, match="equals that of the control"):
        tl.rank(adata, toward=adata[adata.obs["perturbation"] == "control"].copy(), conditions="half")
    with pytest.raises(ValueError, match="min_cells=1000"):
        tl.rank(adata, min_cells=1000)
    assert "unlasting" not in adata.uns


def test_few_cells_are_left_out(planted_screen):
    adata = planted_screen(30)
    few = np.flatnonzero(adata.obs["perturbation"] == "half")[5:]
    adata.obs.iloc[few, adata.obs.columns.get_loc("unlasting_source")] = ""
    assert set(tl.rank(adata)["condition"]) == {"all", "none"}


@pytest.fixture(scope="module")
def model():
    adata = ul.datasets.simulate_screen(n_genes=80, n_targets=6, n_unmeasured=0, n_inert=4, n_cells=80, responders=1.0)
    ul.pp.prepare(adata)
    ul.pp.grn(adata, prior=adata.uns["simulation"]["edges"])
    ul.UnlastingModel.setup_anndata(adata)
    model = ul.UnlastingModel(adata)
    model.train(max_steps=0, show_progress=False)
    return model


def test_a_model_ranks_by_its_posterior_without_a_cell(model, monkeypatch):
    monkeypatch.setattr(type(model), "generate", lambda *_, **__: pytest.fail("a cell is generated"))
    frame = tl.rank(model)
    assert len(frame) == 10
    assert frame["score"].is_monotonic_decreasing
    assert ((frame["low"] <= frame["score"]) & (frame["score"] <= frame["high"])).all()
    found = model.effects(frame["condition"].tolist())
    np.testing.assert_allclose(frame["score"], found.obs["e_distance"])
    np.testing.assert_allclose(frame["expected_error"], found.obs["unlasting_expected_error"])
    inert = frame["condition"].str.startswith("N")
    assert frame.loc[inert, "score"].max() < frame.loc[~inert, "score"].min()
    assert (frame["fdr"] < 0.05).sum() >= 5
    # the expected share of conditions without an effect among those at least as likely active
    wrong = np.sort(1.0 - found.obs["p_active"].to_numpy())
    np.testing.assert_allclose(np.sort(frame["fdr"]), np.cumsum(wrong) / np.arange(1, 11))
    assert model.adata.uns["unlasting"]["rank_genes"]["t"].shape == (10, model.adata.n_vars)


def test_the_predicted_distance_is_that_of_the_cells(model):
    """Trained conditions, whose cells were seen: the E-distance of observed cells, computed without the model."""
    frame = tl.rank(model).set_index("condition")
    label, dense = model.adata.obs["perturbation"].astype(str).to_numpy(), model.adata.X.toarray()
    inside = []
    for name in frame.index:
        x, y = dense[label == name], dense[label == "control"]
        within = [cdist(a, a).sum() / (len(a) * (len(a) - 1)) for a in (x, y)]
        observed = 2 * cdist(x, y).mean() - sum(within)
        if observed > 0.2:
            assert frame.loc[name, "score"] == pytest.approx(observed, rel=0.25)
        inside.append(frame.loc[name, "low"] - 0.1 < observed < frame.loc[name, "high"] + 0.1)
    assert np.mean(inside) >= 0.8


def test_a_model_ranks_towards_a_state(model):
    adata = model.adata
    names = list(adata.var_names[:5])
    weights = pd.Series(dict.fromkeys(names, 1.0))
    frame = tl.rank(model, ["T1", "T2", "N1"], toward=weights)
    found = model.effects(frame["condition"].tolist())
    np.testing.assert_allclose(frame["score"], found[:, names].X.mean(axis=1), atol=1e-5)
    assert ((frame["low"] < frame["score"]) & (frame["score"] < frame["high"])).all()
    state = adata[adata.obs["perturbation"] == "T1"].copy()
    assert tl.rank(model, ["T1", "T2", "N1"], toward=state).set_index("condition").loc["T1", "score"] > 0.8
    with pytest.raises(ValueError, match="at least one gene"):
        tl.rank(model, toward=[])
