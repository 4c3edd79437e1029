"""`tl.design` against brute-force conditioning, exhaustive choice and planted structure."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

import unlasting as ul
from unlasting.effects import CandidateCovariance

TARGETS = [f"T{i + 1}" for i in range(12)]


@pytest.fixture(scope="module")
def model():
    """T1 to T3 are trained; T4 to T12 form three chains with similar effects."""
    adata = ul.datasets.simulate_screen(n_targets=12, n_genes=100, n_cells=60, n_unmeasured=0, responders=1.0, seed=0)
    known = adata.obs["perturbation"].isin(["control", "N1", *TARGETS[:3]])
    adata.obs["unlasting_split"] = np.where(known, "train", "test")
    ul.pp.prepare(adata)
    ul.pp.grn(adata, prior=adata.uns["simulation"]["edges"], targets=TARGETS)
    ul.UnlastingModel.setup_anndata(adata)
    model = ul.UnlastingModel(adata)
    model.train(max_steps=0, show_progress=False)
    return model


def conditioned(covariance, noise, rows):
    """Posterior covariance by solving the whole system at once."""
    if not len(rows):
        return covariance
    inverse = np.linalg.inv(covariance[np.ix_(rows, rows)] + noise * np.eye(len(rows)))
    return covariance - covariance[:, rows] @ inverse @ covariance[rows]


def test_downdates_equal_conditioning_and_gains_add_up():
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(2, 6, 4))
    covariance, weights, noise = roots @ roots.swapaxes(1, 2), np.array([0.7, 0.2]), 0.3
    joint = CandidateCovariance(covariance, weights, noise)

    def variance(rows):
        return sum(w * np.diag(conditioned(c, noise, rows)) for w, c in zip(weights, covariance, strict=True))

    chosen = []
    for _ in range(3):
        exhaustive = [variance(chosen).sum() - variance([*chosen, one]).sum() for one in range(6)]
        np.testing.assert_allclose(joint.gains(), exhaustive, rtol=1e-9)
        chosen.append(int(np.argmax(exhaustive)))
        joint.measure(chosen[-1])
        np.testing.assert_allclose(joint.variance, variance(chosen), rtol=1e-9)


def test_the_variance_of_untrained_targets_is_that_of_the_posterior(model):
    """The diagonal equals the posterior variance given the effect sizes, summed over genes."""
    joint = model.candidate_covariance(TARGETS[3:])
    regression = model.effects_model.regression
    posterior, features = regression.posterior, model.effects_model.features
    described = features(model._all_asked(TARGETS[3:], None)).toarray().astype(float)
    relevance, trained = regression.relevance.astype(float), regression.features.toarray().astype(float)
    prior, cross = (described * relevance) @ described.T, (described * relevance) @ trained.T
    typical = ((trained * relevance) * trained).sum(axis=1).mean()
    own = np.diag(np.maximum(typical - np.diag(prior), 0.0))
    expected = 0.0
    for size, weight in zip(posterior.candidates, posterior.sizes.astype(float) @ posterior.weights, strict=True):
        inner = np.linalg.inv(size * (trained * relevance) @ trained.T + posterior.spectrum.errors.matrix())
        expected = expected + weight * np.diag(size * (prior + own) - size**2 * cross @ inner @ cross.T)
    np.testing.assert_allclose(joint.variance, expected, rtol=0.02)


def test_an_untrained_partner_adds_its_own_variance(model):
    alone, pair, known = model.candidate_covariance(["T4", "T1+T4", "T1"]).variance
    assert pair > 0.9 * alone > known


def test_one_target_of_each_chain_comes_first(model):
    found = ul.tl.design(model, TARGETS[3:], 5)
    chain = [(int(name[1:]) - 1) // 3 for name in found["condition"]]
    assert len(set(chain[:3])) == 3
    assert found["gain"].is_monotonic_decreasing
    np.testing.assert_allclose(1.0 - found["gain"].cumsum(), found["remaining"], atol=1e-6)
    assert not found["seen"].any()
    pd.testing.assert_frame_equal(found, model.adata.uns["unlasting"]["design"])
    # the greedy pair is nearly the best of all pairs
    joint = model.candidate_covariance(TARGETS[3:])
    total, best = joint.variance.sum(), 0.0
    for first, second in combinations(range(9), 2):
        pair = model.candidate_covariance(TARGETS[3:])
        pair.measure(first)
        pair.measure(second)
        best = max(best, 1.0 - pair.variance.sum() / total)
    assert found["gain"][:2].sum() > 0.95 * best


def test_costs_move_the_choice(model):
    first = ul.tl.design(model, TARGETS[3:], 1)["condition"][0]
    dear = ul.tl.design(model, TARGETS[3:], 1, cost={first: 50.0})
    assert dear["condition"][0] != first
    again = ul.tl.design(model, TARGETS[3:], 9, cost={first: 50.0})
    assert again["condition"].iloc[-1] == first
    assert again["cost"].iloc[-1] == 50.0


def test_a_cost_holds_in_any_order_of_targets(model):
    pair, other = "T5+T4", "T7"
    found = ul.tl.design(model, [pair, other], 2, cost={pair: 7.0}).set_index("condition")
    assert found["cost"].to_dict() == {"T4+T5": 7.0, other: 1.0}
    again = ul.tl.design(model, [pair, other], 2, cost=pd.Series({"T4+T5": 7.0})).set_index("condition")
    pd.testing.assert_frame_equal(found, again)


def test_hits_have_the_largest_upper_bound(model):
    genes = list(model.adata.var_names[:5])
    found = ul.tl.design(model, TARGETS, 3, goal="hits", toward=genes)
    ranked = ul.tl.rank(model, TARGETS, toward=genes).set_index("condition")
    assert (found["upper"] >= found["score"]).all()
    np.testing.assert_allclose(found["score"], ranked.loc[found["condition"], "score"], rtol=1e-6)
    # trained targets have little left to learn: their bound is near their score
    margin = ul.tl.design(model, TARGETS, 12, goal="hits", toward=genes).set_index("condition")
    width = margin["upper"] - margin["score"]
    assert width[["T1", "T2", "T3"]].max() < width.drop(["T1", "T2", "T3"]).median()
    assert found["upper"][0] >= ranked["score"].max()


def test_errors_name_the_way_out(model):
    for arguments, match in (
        ({"n": 0}, "`n` is 0"),
        ({"n": 10}, "9 candidates"),
        ({"goal": "win"}, "'learn' or 'hits'"),
        ({"goal": "hits"}, "`toward`"),
        ({"toward": ["G1"]}, "goal='hits'"),
        ({"cost": {"T44": 1.0}}, "Did you mean 'T4'"),
        ({"cost": {"T4": 0.0}}, "positive"),
        ({"cost": {"T4": "dear"}}, "positive"),
        ({"cost": 3.0}, "Give a dict"),
        ({"n": 2.5}, "whole number"),
        ({"candidates": ["T4", "control"], "n": 1}, "Leave it out"),
        ({"goal": "hits", "toward": ["G1", "nowhere"]}, "Choose among"),
    ):
        with pytest.raises((ValueError, TypeError, KeyError), match=match):
            ul.tl.design(model, **{"candidates": TARGETS[3:], "n": 2, **arguments})


def test_a_screen_in_place_of_a_model_is_named(model):
    for call in (lambda: ul.tl.design(model.adata, TARGETS, 2), lambda: ul.tl.calibration(model.adata)):
        with pytest.raises(TypeError, match="pass the trained model"):
            call()
