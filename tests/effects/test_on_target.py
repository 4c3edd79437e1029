"""What perturbations do to their own transcripts, against Poisson counts and explicit formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import DotProduct

from unlasting.effects import (
    ContextKernel,
    EffectRegression,
    Errors,
    HurdleParameters,
    MeasuredEffects,
    OnTargetEffects,
    Spectrum,
    TargetVocabulary,
)
from unlasting.screen import Perturbation

N_GENES = 40
X_MAX = 4.0
GENES = [f"G{i}" for i in range(N_GENES)]


def controls(log_odds=0.0, base=0.5, scale=0.2, n_populations=1) -> HurdleParameters:
    return HurdleParameters(
        *(torch.as_tensor(part).float().expand(n_populations, N_GENES) for part in (log_odds, base, scale))
    )


def vocabulary(conditions, nodes=GENES) -> TargetVocabulary:
    known = [Perturbation(names) for names in conditions]
    return TargetVocabulary(nodes, known, [], np.zeros((0, 0)), {}, [], np.zeros((0, 0)))


def measured_effects(shifts, noise=1e-9, condition=None, population=0) -> MeasuredEffects:
    condition = np.arange(len(shifts)) if condition is None else np.asarray(condition)
    population, noise = (
        np.broadcast_to(population, condition.shape),
        np.broadcast_to(noise, condition.shape).astype(float),
    )
    return MeasuredEffects(condition, population, 2.0 / noise, noise, shifts, np.full(shifts.shape[2], 0.5))


def separate(known, measured, mode="knockout", of=None):
    return OnTargetEffects.find(known, measured, controls() if of is None else of, X_MAX, mode).separate(measured)


def targets_and_effects(names, nodes, own, seed=0):
    """Single knock-outs that change their own gene by `own`, and all genes a little."""
    shifts = np.random.default_rng(seed).normal(0, 0.05, (len(names), 3, N_GENES))
    for row, name in enumerate(names):
        if name in nodes[:N_GENES]:
            shifts[row, :, nodes.index(name)] += own
    return vocabulary([(name,) for name in names], nodes), measured_effects(shifts)


def poisson_genes(mean, one=0.5):
    """Log-odds of a count, and log1p of the mean of the positive counts, of which a single one is `one`."""
    expressed = stats.poisson.sf(0, mean)
    return np.log(expressed) + mean, np.log1p(one * mean / expressed)


def poisson_shifts(mean, fold, scale):
    """Shifts `(3, n_genes)` of Poisson counts whose mean changes by a factor; `scale` is in log1p."""
    before, after = poisson_genes(mean), poisson_genes(mean * fold)
    return np.stack([after[0] - before[0], (after[1] - before[1]) / scale, 0.0 * before[0]])


def test_what_a_knock_out_does_to_its_own_gene_is_told_apart_from_the_rest():
    nodes = [*GENES, "TFX"]
    known, measured = targets_and_effects(["G0", "G1", "G2", "TFX"], nodes, np.array([-2.0, -1.0, 0.1]))
    own, rest = separate(known, measured)
    for gene in range(3):
        np.testing.assert_allclose(own[:, gene], measured.effects[gene, :, gene], rtol=1e-5)
        assert rest.effects[gene, :, gene] == pytest.approx(0.0, abs=1e-5)
    is_target = np.eye(4, N_GENES, dtype=bool)
    is_target[3] = False
    np.testing.assert_array_equal(rest.effects.swapaxes(1, 2)[~is_target], measured.effects.swapaxes(1, 2)[~is_target])


@pytest.mark.parametrize(
    ("mode", "prior_fold"),
    [
        pytest.param("knockout", 1.0, id="knockout"),
        pytest.param("knockdown", 0.25, id="knockdown"),
        pytest.param("activation", 4.0, id="activation"),
    ],
)
def test_an_untrained_target_changes_by_the_fold_that_is_usual_whatever_its_expression(mode, prior_fold):
    """From genes that few cells express to those with many counts in all, which log-odds and s.d. do not compare."""
    mean = np.geomspace(0.05, 6.0, N_GENES)
    log_odds, base = poisson_genes(mean)
    scale = np.linspace(0.02, 0.3, N_GENES)
    trained = np.array([3, 15, 20, 30, 38])
    folds = np.array([0.5, 0.3, 0.4, 0.9, 0.35])  # of which .4 is the median
    shifts = np.zeros((5, 3, N_GENES))
    for row, (gene, fold) in enumerate(zip(trained, folds, strict=True)):
        shifts[row, :, gene] = poisson_shifts(mean, fold, scale * X_MAX)[:, gene]
    known = vocabulary([(GENES[gene],) for gene in trained])
    own, _ = separate(known, measured_effects(shifts), mode, controls(log_odds, base / X_MAX, scale))
    usual = np.exp((5 * np.log(0.4) + np.log(prior_fold)) / 6)
    others = np.setdiff1d(np.arange(N_GENES), trained)
    np.testing.assert_allclose(own[:, others], poisson_shifts(mean, usual, scale * X_MAX)[:, others], atol=1e-4)
    np.testing.assert_allclose(own[:, trained], shifts[np.arange(5), :, trained].T, atol=1e-4)


def test_where_no_target_is_measured_the_mode_says_what_becomes_of_its_transcript():
    nodes = [*GENES, "TFX"]
    known, measured = targets_and_effects(["TFX", "IFN"], nodes, 9.0)
    mean = np.geomspace(0.05, 1.5, N_GENES)
    log_odds, base = poisson_genes(mean)
    of = controls(log_odds, base / X_MAX)
    for mode, fold in (("knockdown", 0.25), ("activation", 4.0)):
        own, rest = separate(known, measured, mode, of)
        np.testing.assert_allclose(own, poisson_shifts(mean, fold, 0.2 * X_MAX), atol=1e-4)
        np.testing.assert_array_equal(rest.effects, measured.effects)


def test_a_gene_with_many_counts_in_all_cells_changes_its_counts_and_not_who_expresses_it():
    """No control is without it, which does not tell 8 counts from 80; the value of single counts of other genes does."""
    mean = np.r_[np.geomspace(0.05, 2.0, N_GENES - 2), 40.0, 80.0]
    base = poisson_genes(mean[:-2])[1]
    log_odds, base = np.r_[poisson_genes(mean[:-2])[0], 9.0, 9.0], np.r_[base, np.log1p(0.5 * mean[-2:])]
    known, measured = targets_and_effects(["TFX"], [*GENES, "TFX"], 0.0)
    for mode, fold in (("knockdown", 0.25), ("activation", 4.0)):
        own, _ = separate(known, measured, mode, controls(log_odds, base / X_MAX))
        left = np.minimum(poisson_genes(mean[-2:] * min(fold, 1.0))[0], 7.0)
        np.testing.assert_allclose(own[0, -2:], left - 7.0, atol=1e-2)
        after = base[-2:] + own[1, -2:] * 0.2 * X_MAX
        np.testing.assert_allclose(np.expm1(after), 0.5 * mean[-2:] * fold, rtol=0.02)


def test_where_zeros_are_values_like_others_the_fold_is_in_the_values():
    """`use_mask=False`: all genes count as expressed."""
    known, measured = targets_and_effects(["TFX"], [*GENES, "TFX"], 0.0)
    own, _ = separate(known, measured, "knockdown", controls(6.0, 0.1))
    assert (own[0] == 0).all()
    after = 0.1 * X_MAX + own[1] * 0.2 * X_MAX
    np.testing.assert_allclose(np.expm1(after), 0.25 * np.expm1(0.1 * X_MAX), rtol=1e-4)


def test_targets_that_are_not_measured_tell_nothing_of_their_own():
    nodes = [*GENES, "TFX"]
    known, measured = targets_and_effects(["TFX", "IFN"], nodes, 9.0)
    own, rest = separate(known, measured)
    assert (own == 0).all()
    np.testing.assert_array_equal(rest.effects, measured.effects)


@pytest.mark.parametrize("log_odds", [-30.0, 30.0])
@pytest.mark.parametrize("mode", ["knockout", "knockdown", "activation"])
def test_genes_that_all_controls_express_or_none_get_finite_shifts(log_odds, mode):
    known, measured = targets_and_effects(["G0", "G1"], GENES, np.array([-3.0, -1.0, 0.0]))
    own, rest = separate(known, measured, mode, controls(log_odds))
    assert np.isfinite(own).all()
    assert np.isfinite(rest.effects).all()
    assert (np.abs(own[0]) <= 7.0).all()


def test_a_target_has_one_own_shift_from_where_it_is_alone_or_else_from_combinations():
    shifts = np.random.default_rng(0).normal(size=(4, 3, N_GENES))
    noise = np.array([1.0, 2.0, 4.0, 8.0]) * 1e-9
    measured = measured_effects(shifts, noise, [0, 0, 1, 2], [0, 1, 0, 0])
    own, rest = separate(vocabulary([("G0",), ("G0", "G1"), ("G1", "G2")]), measured)
    np.testing.assert_allclose(own[:, 0], np.average(shifts[:2, :, 0], axis=0, weights=1 / noise[:2]), rtol=1e-5)
    np.testing.assert_allclose(own[:, 1], np.average(shifts[2:, :, 1], axis=0, weights=1 / noise[2:]), rtol=1e-5)
    np.testing.assert_allclose(own[:, 2], shifts[3, :, 2], rtol=1e-5)
    np.testing.assert_allclose(rest.effects[2, :, :2], shifts[2, :, :2] - own[:, :2])
    assert (rest.effects[:, :, 3:] == shifts[:, :, 3:]).all()


def test_what_a_partner_does_is_not_taken_for_what_untrained_targets_do_to_themselves():
    """Three targets lose their transcript alone; in six pairs the partner raises it by more."""
    names = [(f"G{i}",) for i in range(3)] + [(f"G{i}", f"G{10 + i + j}") for i in range(3) for j in (0, 3)]
    lost = poisson_shifts(np.ones(N_GENES), 0.2, 0.2 * X_MAX)[:, 0]
    log_odds, base = poisson_genes(np.ones(N_GENES))
    shifts = np.zeros((9, 3, N_GENES))
    for row, targets in enumerate(names):
        shifts[row, :, [int(name[1:]) for name in targets]] = lost
        shifts[row, :, int(targets[0][1:])] += 3.0 * (len(targets) - 1)
    own, _ = separate(vocabulary(names), measured_effects(shifts), of=controls(log_odds, base / X_MAX))
    usual = poisson_shifts(np.ones(N_GENES), 0.2**0.9, 0.2 * X_MAX)[:, 0]
    np.testing.assert_allclose(own[:, 30], usual, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(own[:, :3], np.tile(lost[:, None], 3), rtol=1e-5, atol=1e-6)


def test_noise_is_not_taken_for_what_a_target_does_to_itself():
    known = vocabulary([(name,) for name in GENES])
    rng = np.random.default_rng(0)
    mean, rows = np.ones(N_GENES), np.arange(N_GENES)
    log_odds, base = poisson_genes(mean)
    true = poisson_shifts(mean, np.exp(rng.normal(np.log(0.4), 0.05, N_GENES)), 0.2 * X_MAX)
    shifts = np.zeros((N_GENES, 3, N_GENES))
    units = measured_effects(shifts, 0.1).units
    shifts[rows, :, rows] = (true + rng.normal(size=true.shape) * np.sqrt(0.1) / units).T
    own, _ = separate(known, measured_effects(shifts, 0.1), of=controls(log_odds, base / X_MAX))
    error, measured_error = (((one - true) ** 2).mean(axis=1) for one in (own, shifts[rows, :, rows].T))
    assert (error < 0.3 * measured_error).all()


def pathways(seed=0):
    """Five pathways of two targets that act alike on every gene, but each on its own transcript."""
    pathway = np.repeat(np.eye(5), 2, axis=0)
    rest = np.repeat(np.random.default_rng(seed).normal(size=(5, 3, N_GENES)), 2, axis=0)
    shifts = rest.copy()
    shifts[np.arange(10), :, np.arange(10)] -= 5.0
    return vocabulary([(name,) for name in GENES[:10]]), pathway, rest, shifts


def fitted(known, features, measured, mode="knockout"):
    own = OnTargetEffects.find(known, measured, controls(), X_MAX, mode)
    contexts = ContextKernel.centred(np.zeros((1, N_GENES)))
    return EffectRegression.fit(features, None, contexts, measured, own)


def expected(fit, features, node) -> np.ndarray:
    """Add the effect on each row's target, if any."""
    n = len(features)
    features = np.asarray(features, dtype=np.float32)
    untrained = np.where(fit.is_trained(features)[:, None], 0.0, features)
    effects = fit.effects(features, untrained, np.zeros(n, dtype=int), np.zeros((n, N_GENES)))
    for row, gene in enumerate(node):
        if gene >= 0:
            effects[row, :, gene] += fit.on_target[:, gene]
    return effects


def test_a_similar_target_is_not_expected_to_lose_the_transcript_of_another():
    known, pathway, rest, shifts = pathways()
    found = expected(fitted(known, pathway, measured_effects(shifts, 0.01)), pathway, np.arange(10))
    rows = np.arange(10)
    partner = rows ^ 1
    np.testing.assert_allclose(found[rows, :, partner], rest[rows, :, partner], atol=0.25)
    np.testing.assert_allclose(found[rows, :, rows], shifts[rows, :, rows], atol=0.25)


def test_what_targets_do_to_themselves_says_nothing_of_what_others_do_to_them():
    """However much of its transcript a knock-out loses, others are expected to do the same to it."""
    known, pathway, _, shifts = pathways()
    more = shifts.copy()
    more[np.arange(10), :, np.arange(10)] -= 1.0
    less, more_lost = (fitted(known, pathway, measured_effects(one, 0.01)) for one in (shifts, more))
    new = np.random.default_rng(1).normal(size=(6, 5))
    none = np.full(6, -1)
    np.testing.assert_allclose(expected(less, new, none), expected(more_lost, new, none), atol=1e-3)


def test_left_out_values_are_those_of_a_regression_on_the_others():
    rng = np.random.default_rng(0)
    features, values, noise = rng.normal(size=(12, 3)), rng.normal(size=(12, 4)), rng.uniform(0.1, 0.5, 12)
    sizes = np.array([1.0, 0.3, 0.0, 1.0])
    posterior = 0.05 + (np.array([0.0, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0])[:, None] == sizes)
    which = np.zeros((12, 4), dtype=bool)
    which[2, 0] = which[[3, 7, 8], 1] = which[5, 2] = True
    found = Spectrum.exact(features @ features.T, Errors(noise, np.zeros((12, 0)))).left_out(values, posterior, which)
    assert (found[~which] == 0).all()
    assert found[5, 2] == 0  # nothing acts on this gene
    for output in (0, 1):
        rows = which[:, output]
        process = GaussianProcessRegressor(DotProduct(0.0, "fixed"), alpha=noise[~rows] / sizes[output], optimizer=None)
        process.fit(features[~rows], values[~rows, output])
        np.testing.assert_allclose(found[rows, output], process.predict(features[rows]), rtol=1e-6)
