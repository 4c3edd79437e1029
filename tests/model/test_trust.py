"""`model.effects` and trust: against the generated cells, the truth of simulated screens, and worse twins."""

from __future__ import annotations

import functools
import logging

import numpy as np
import pandas as pd
import pytest
import torch

import unlasting as ul
from unlasting.model import UnlastingModel

N_TARGETS = 12
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 5))]


@functools.cache
def simulated(**arguments):
    """Each simulated screen once; tests change copies."""
    options = {
        "n_cells": 80,
        "n_controls": 400,
        "n_genes": 150,
        "n_targets": N_TARGETS,
        "n_unmeasured": 0,
        "responders": 1.0,
    }
    return ul.datasets.simulate_screen(**{**options, **arguments})


def screen(seed=0, *, held_out=("T3", "T6"), few=None, inert=False, **arguments):
    """Simulate a screen, prepare it, and hold targets out."""
    adata = simulated(**arguments, seed=seed).copy()
    if inert:
        adata.obs["perturbation"] = np.random.default_rng(seed).permutation(adata.obs["perturbation"].astype(str))
    label = adata.obs["perturbation"].astype(str).to_numpy()
    adata.obs["unlasting_split"] = np.where(np.isin(label, held_out), "test", "train")
    if few is not None:
        rows = np.flatnonzero(label == few)
        adata = adata[np.delete(np.arange(adata.n_obs), rows[5:])].copy()
    ul.pp.prepare(adata)
    return adata


def model_of(adata, prior="edges", **setup) -> UnlastingModel:
    """Fit the effects model, with the simulated network as prior."""
    edges = adata.uns["simulation"]["edges"] if isinstance(prior, str) else prior
    ul.pp.grn(adata, prior=edges)
    ul.UnlastingModel.setup_anndata(adata, **setup)
    model = ul.UnlastingModel(adata)
    model.train(max_steps=0, show_progress=False)
    return model


def error(model, *perturbations, **arguments) -> np.ndarray:
    return model.effects(list(perturbations), **arguments).obs["unlasting_expected_error"].to_numpy()


@functools.cache
def model_of_screen(seed) -> UnlastingModel:
    """The model of each screen once; tests only ask it."""
    return model_of(screen(seed))


@pytest.fixture(scope="module")
def model():
    return model_of_screen(0)


def test_the_posterior_mean_is_the_change_in_the_models_hurdle_parameters(model):
    found = model.effects(["T1", "T3", "T1+T2", "control"])
    populations = model.module.populations()
    after = model.effects_model.predict(model._all_asked("T1", None), populations)
    x_max = float(model.module.statistics.x_max)
    rate = 1.0 / (1.0 + np.exp(-after.log_odds[0].double().numpy()))
    before = populations.hurdle_parameters().changed_by(populations.correction)
    rate_before = 1.0 / (1.0 + np.exp(-before.log_odds[0].double().numpy()))
    responding = 1.0 - model.effects_model.nonresponder_share(model._all_asked("T1", None))[0]
    expected = rate * after.base[0].numpy() - rate_before * before.base[0].numpy()
    np.testing.assert_allclose(found.X[0], responding * x_max * expected, atol=1e-4)
    np.testing.assert_allclose(found.layers["detection"][0], responding * (rate - rate_before), atol=1e-4)
    assert (found.X[3] == 0).all()
    assert found.obs["question"].tolist() == [
        "trained condition",
        "unseen target",
        "unseen combination",
        "trained condition",
    ]
    assert (found.obs["low"] <= found.obs["e_distance"] + 1e-9).all()
    assert found.obs["n_left_out"].tolist()[1] >= N_TARGETS - 2


@pytest.mark.slow
def test_intervals_of_trained_conditions_contain_the_truth_as_often_as_they_say():
    """The truth is the change between many cells and their counterfactuals, without noise of the trained cells."""
    inside, n_false, n_called = [], 0, 0
    for seed in range(3):
        adata, truth = ul.datasets.simulate_screen(
            n_cells=60,
            n_controls=600,
            n_genes=120,
            n_targets=9,
            n_unmeasured=0,
            responders=1.0,
            seed=seed,
            return_counterfactuals=True,
        )
        ul.pp.prepare(adata, library_size_key="library_size")
        found = model_of(adata).effects(["T1", "T4", "T7"])
        target_sum = adata.uns["unlasting"]["prepare"]["target_sum"]
        control = adata.obs["perturbation"] == "control"
        size = adata.obs.loc[control, "library_size"].to_numpy()[:, None] / target_sum
        counts = adata.layers["counts"][control.to_numpy()].toarray()
        for row, label in enumerate(("T1", "T4", "T7")):
            after, before = (np.log1p(np.asarray(part) / size) for part in (truth[label].toarray(), counts))
            change = (after - before).mean(axis=0)
            inside.append(np.abs(change - found.X[row]) < 1.96 * found.layers["sd"][row] + 0.01)
            called = found.layers["false_sign_rate"][row] < 0.1  # a change of zero has no sign
            n_called += called.sum()
            n_false += (np.sign(change) != np.sign(found.X[row]))[called].sum()
    assert np.mean(inside) > 0.88
    assert n_called > 100
    assert n_false <= 0.12 * n_called


@pytest.mark.parametrize("seeds", [[0], pytest.param([0, 1, 2], marks=pytest.mark.slow)])
def test_a_screen_without_effects_excludes_zero_rarely(seeds):
    excluded, active = [], []
    for seed in seeds:
        adata = screen(seed, inert=True)
        found = model_of(adata).effects([f"T{i + 1}" for i in range(N_TARGETS)])
        excluded.append((found.layers["false_sign_rate"] < 0.025).mean())
        active.append((found.obs["p_active"] > 0.5).mean())
    assert np.mean(excluded) <= 0.07
    assert np.mean(active) <= 0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_worse_twins_are_trusted_less(seed):
    """Permuted controls, five training cells, a random prior: each has a larger expected error than its honest twin."""
    adata = screen(seed)
    honest = model_of_screen(seed)
    controls = adata[adata.obs["perturbation"] == "control"].copy()
    permuted = controls.copy()
    permuted.X = controls.X[:, np.random.default_rng(seed).permutation(adata.n_vars)]
    for one in (controls, permuted):
        one.obs["batch"] = "new"
    assert error(honest, "T1") < error(model_of(screen(seed, few="T1")), "T1")
    names = np.unique(adata.uns["simulation"]["edges"][["source", "target"]])
    rng = np.random.default_rng(seed)
    random = adata.uns["simulation"]["edges"].assign(
        source=rng.choice(names, len(adata.uns["simulation"]["edges"])),
        target=rng.choice(names, len(adata.uns["simulation"]["edges"])),
    )
    random = random[random["source"] != random["target"]].drop_duplicates(["source", "target"])
    assert error(honest, "T3") < error(model_of(adata.copy(), prior=random), "T3")


@pytest.mark.parametrize("seed", SEEDS)
def test_far_contexts_and_permuted_controls_are_trusted_less(seed):
    adata = screen(seed, n_cell_types=2)
    kind, label = (adata.obs[name].astype(str).to_numpy() for name in ("cell_type", "perturbation"))
    adata.obs["unlasting_split"] = np.where((kind == "type2") & (label != "control"), "test", "train")
    del adata.uns["unlasting"]
    adata.X = adata.layers["counts"].copy()
    ul.pp.prepare(adata)
    model = model_of(adata, cell_type_key="cell_type")
    near, far = error(model, "T1")
    assert near < far
    controls = adata[(label == "control") & (kind == "type1")].copy()
    controls.obs["cell_type"] = "new"
    permuted = controls.copy()
    permuted.X = controls.X[:, np.random.default_rng(seed).permutation(adata.n_vars)]
    assert error(model, "T1", controls=controls) < error(model, "T1", controls=permuted)


def test_a_target_without_any_feature_is_not_called_trained():
    """Genes share no feature with the trained cytokines."""
    adata = screen(held_out=("T3",), n_targets=3, n_inert=0, n_genes=60)
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(str).replace({"T1": "IL-4", "T2": "IL-6"})
    model = model_of(adata)
    assert model.targets["stimulus"] == ["IL-4", "IL-6"]
    gene = "T3"
    found = model.effects(["IL-4", gene, f"IL-4+{gene}", "control"]).obs.set_index("perturbation")
    first, second = f"{gene}+IL-4", f"IL-4+{gene}"
    pair = first if first in found.index else second
    assert list(found["question"]) == ["trained condition", "unseen target", "unseen target", "trained condition"]
    assert found.loc[gene, "unlasting_expected_error"] >= found.loc[pair, "unlasting_expected_error"]
    assert found.loc[pair, "unlasting_expected_error"] > found.loc["IL-4", "unlasting_expected_error"]
    assert found.loc[gene, "unlasting_p_better"] <= 0.5 < found.loc["IL-4", "unlasting_p_better"]
    assert found.loc[gene, "high"] > 0.0
    assert not ul.tl.rank(model, [gene])["seen"].any()


def test_an_untrained_partner_is_as_unknown_as_alone(model):
    """Prior variances of both targets add up: the trained one is known, and the other one is not."""
    populations = model.module.populations()
    alone, pair = (model._all_asked(name, None) for name in ("T3", "T1+T3"))
    regression, effects = model.effects_model.regression, model.effects_model
    relevance = regression.relevance.astype(float)
    typical = (regression.features.toarray().astype(float) ** 2 @ relevance).mean()
    known = effects.features(alone).toarray()[0].astype(float) ** 2 @ relevance
    assert effects.missing(pair)[0] == pytest.approx(max(typical - known, 0.0), rel=1e-5)
    places = populations[torch.zeros(2, dtype=torch.long)]
    one, other = effects.moments([*alone, *pair], places).variance.sum(axis=1)
    assert other > 0.9 * one
    assert error(model, "T1+T3") > error(model, "T1+T2") > error(model, "T1")


def test_a_dose_that_was_measured_in_another_context_is_unseen_here():
    adata = ul.datasets.simulate_drug_screen(n_drugs=4, n_families=2, n_genes=60)
    drug = next(name for name in adata.obs["perturbation"].unique() if name != "control")
    at_one = (adata.obs["perturbation"] == drug) & (adata.obs["dose"].astype(float) == 1.0)
    first, second = sorted(adata.obs["cell_type"].unique())
    adata.obs["unlasting_split"] = np.where(at_one & (adata.obs["cell_type"] == first), "test", "train")
    ul.pp.prepare(adata)
    ul.pp.molecules(adata, smiles_key="smiles")
    model = model_of(adata, prior=None, dose_key="dose", cell_type_key="cell_type")
    found = model.effects([drug, drug], dose=[1.0, 10.0]).obs.set_index(["dose", "cell_type"])
    question = found["question"].astype(str).to_dict()
    assert question["1", first] == "unseen dose"
    assert {question["1", second], question["10", first], question["10", second]} == {"trained condition"}
    error = found["unlasting_expected_error"]
    assert error["1", first] > error["1", second]
    ranking = ul.tl.rank(model, [drug], dose=1.0).set_index("cell_type")
    assert ranking["seen"].to_dict() == {first: False, second: True}


def test_probabilities_are_at_most_one(model):
    targets = [f"T{i + 1}" for i in range(N_TARGETS)]
    assert model.effects(targets).obs["p_active"].between(0.0, 1.0).all()
    for toward in (None, list(model.adata.var_names[:5])):
        assert ul.tl.rank(model, targets, toward=toward)["fdr"].between(0.0, 1.0).all()


def test_saving_keeps_it(model, tmp_path):
    model.save(tmp_path / "m", save_anndata=True)
    again = UnlastingModel.load(tmp_path / "m", accelerator="cpu")
    one, other = (made.effects(["T1", "T3"]) for made in (model, again))
    np.testing.assert_array_equal(one.X, other.X)
    pd.testing.assert_frame_equal(one.obs, other.obs)
    for layer in one.layers:
        np.testing.assert_array_equal(one.layers[layer], other.layers[layer])


def test_a_missing_batch_is_named_as_one():
    adata = screen(n_targets=3, n_genes=60)
    adata.obs["batch"] = np.resize(["one", "two"], adata.n_obs)
    model = model_of(adata, batch_key="batch")
    with pytest.raises(
        ValueError, match=r"no control cells of `batch='twoo'`.*batches: \['one', 'two'\].*Did you mean 'two'"
    ):
        model.generate("T1", n_cells=2, batch="twoo")


def test_another_case_is_suggested_before_a_similar_name():
    adata = screen(held_out=("T3",), n_targets=3, n_genes=60)
    names = {"T1": "STAT3", "T3": "STAT1"}
    adata.var_names = [names.get(name, name) for name in adata.var_names]
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(str).replace(names)
    with pytest.raises(ValueError, match="Did you mean 'STAT1'"):
        model_of(adata, prior=None).effects("stat1")


def test_the_warning_about_a_new_context_asks_for_cells_there(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("unlasting"), "propagate", True)
    adata = ul.datasets.simulate_screen(n_targets=4, n_genes=60, n_cell_types=2, strength=0.3, n_unmeasured=0)
    is_new = (adata.obs["cell_type"] == "type2") & (adata.obs["perturbation"] != "control")
    adata.obs["unlasting_split"] = np.where(is_new, "test", "train")
    ul.pp.prepare(adata)
    model = model_of(adata, prior=None, cell_type_key="cell_type")
    found = model.effects(["T1", "T2", "T3", "T4"], cell_type="type2").obs
    assert (found["question"] == "unseen context").all()
    poor = found.loc[found["unlasting_p_better"] < 0.6, "perturbation"].astype(str)
    model.generate(poor.iloc[0], n_cells=2, cell_type="type2")
    assert "Measure perturbations in these cell types: https" in caplog.text
