"""Planted mixtures of responders and non-responding cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from unlasting.effects import CellBlocks, NonresponderMixture, ScreenCells, fit_response_mixture

N_GENES = 60


def screen(seed: int = 0, *, nonresponding: float = 0.3, strength: float = 1.5, n: int = 300):
    """Controls (code 0) and a condition (code 1) in two populations; genes 0-9 change in the cells that respond."""
    rng = np.random.default_rng(seed)
    condition = np.repeat([0, 1, 0, 1], n)
    population = np.repeat([0, 0, 1, 1], n)
    responds = (rng.random(4 * n) >= nonresponding) & (condition == 1)
    cells = rng.normal(2.0, 0.6, size=(4 * n, N_GENES)) + 0.5 * population[:, None]
    cells[:, :10] += strength * responds[:, None]
    cells = np.where(rng.random(cells.shape) < 0.2, 0.0, cells.clip(0.01))
    codes = {"condition": condition, "population": population, "split": np.zeros(4 * n, dtype=int)}
    return cells.astype(np.float32), codes, responds


def fitted(cells, codes, n_conditions: int = 2):
    return NonresponderMixture.fit(ScreenCells(cells, **codes, n_conditions=n_conditions, n_populations=2))


@pytest.mark.parametrize("nonresponding", [0.15, 0.3, 0.6])
def test_planted_shares_are_found_and_cells_told_apart(nonresponding):
    cells, codes, responds = screen(nonresponding=nonresponding)
    fit = fitted(cells, codes)
    is_perturbed = codes["condition"] == 1
    for population in range(2):
        share = 1 - responds[is_perturbed & (codes["population"] == population)].mean()
        assert float(fit.share[1, population]) == pytest.approx(share, abs=0.05)
    assert float(fit.trained_share[0]) == pytest.approx(1 - responds[is_perturbed].mean(), abs=0.04)
    probability = fit.response_probability(
        torch.from_numpy(cells), torch.from_numpy(codes["condition"]), torch.from_numpy(codes["population"])
    ).numpy()
    assert roc_auc_score(responds[is_perturbed], probability[is_perturbed]) > 0.97
    assert (probability[~is_perturbed] == 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("nonresponding", [0.15, 0.3, 0.6])
def test_planted_shares_are_found_without_bias_and_cells_told_apart(nonresponding):
    """A single screen may have no mixture that is clearly likelier than one mode; the others have the planted share."""
    errors, found, planted, n_pairs = [], [], [], 0
    for seed in range(16):
        cells, codes, responds = screen(seed, nonresponding=nonresponding)
        fit = fitted(cells, codes)
        probability = fit.response_probability(
            torch.from_numpy(cells), torch.from_numpy(codes["condition"]), torch.from_numpy(codes["population"])
        ).numpy()
        assert (probability[codes["condition"] == 0] == 1).all()
        shares = []
        for population in range(2):
            chosen = (codes["condition"] == 1) & (codes["population"] == population)
            n_pairs += 1
            if fit.share[1, population]:
                errors.append(float(fit.share[1, population]) - (1 - responds[chosen].mean()))
                shares.append(float(fit.share[1, population]))
                found.append(roc_auc_score(responds[chosen], probability[chosen]))
                planted.append(roc_auc_score(responds[chosen], cells[chosen, :10].sum(axis=1)))
        if len(shares) == 2:
            assert float(fit.trained_share[0]) == pytest.approx(np.mean(shares), abs=1e-6)
    assert len(errors) > 0.85 * n_pairs
    assert abs(np.mean(errors)) < 0.035
    assert np.std(errors) < 0.06
    assert np.mean(found) > np.mean(planted) - 0.01


def test_the_order_of_the_cells_changes_nothing():
    cells, codes, _ = screen(n=120)
    order = np.random.default_rng(0).permutation(len(cells))
    one, other = fitted(cells, codes), fitted(cells[order], {name: part[order] for name, part in codes.items()})
    assert one.share.any()
    for name, values in vars(one).items():
        torch.testing.assert_close(getattr(other, name), values, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize(("nonresponding", "strength"), [(0.0, 1.5), (0.0, 0.3), (0.5, 0.0)])
def test_no_mixture_where_none_is_called_for(nonresponding, strength):
    """All respond, strongly or weakly; or nothing happens. Dropout makes the one mode skew, which may look like a few."""
    fits = [fitted(*screen(seed, nonresponding=nonresponding, strength=strength)[:2]) for seed in range(8)]
    assert np.mean([float(fit.trained_share[0]) for fit in fits]) < 0.01
    assert max(float(fit.share.max()) for fit in fits) < 0.1


def test_probabilities_are_those_of_the_mixture_between_its_modes():
    cells, codes, _ = screen()
    fit = fitted(cells, codes)
    chosen = (codes["condition"] == 1) & (codes["population"] == 0)
    place = cells[chosen][:, fit.genes[1, 0]] @ fit.weights[1, 0].numpy() - float(fit.centre[1, 0])
    control = (
        cells[(codes["condition"] == 0) & (codes["population"] == 0)][:, fit.genes[1, 0]] @ fit.weights[1, 0].numpy()
    )
    assert control.mean() == pytest.approx(float(fit.centre[1, 0]), abs=1e-3)
    assert control.std() == pytest.approx(1.0, abs=1e-3)
    nonresponding, separation, spread = (float(value[1, 0]) for value in (fit.share, fit.separation, fit.spread))
    inside = np.clip(place, 0, separation)
    responders = (1 - nonresponding) * norm.pdf(inside, separation, spread)
    expected = responders / (responders + nonresponding * norm.pdf(inside))
    n = int(chosen.sum())
    ones, zeros = torch.ones(n, dtype=torch.long), torch.zeros(n, dtype=torch.long)
    found = fit.response_probability(torch.from_numpy(cells[chosen]), ones, zeros).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_test_cells_are_not_read_and_storage_changes_nothing():
    cells, codes, _ = screen()
    codes["split"] = np.tile([0, 0, 0, 2], len(cells) // 4)
    fit = fitted(cells, codes)
    spoilt = cells.copy()
    spoilt[codes["split"] == 2] = 9.0
    for other in (spoilt, sparse.csr_matrix(cells)):
        again = fitted(other, codes)
        assert torch.equal(fit.share, again.share)
        assert torch.equal(fit.weights, again.weights)


def test_few_cells_count_as_responders():
    cells, codes, _ = screen(n=40)
    assert not fitted(cells, codes).share.any()


def small_screen(seed: int = 0, *, nonresponding: float = 0.25, n: int = 30):
    """Controls (code 0) and three doses of a drug (codes 1 to 3) in two populations, the lowest of which does nothing."""
    rng = np.random.default_rng(seed)
    sizes = [150, n, n, n] * 2
    condition, population = np.repeat([0, 1, 2, 3] * 2, sizes), np.repeat([0] * 4 + [1] * 4, sizes)
    responds = (rng.random(len(condition)) >= nonresponding) & (condition > 0)
    cells = rng.normal(2.0, 0.6, size=(len(condition), N_GENES)) + 0.5 * population[:, None]
    cells[:, :10] += (np.array([0.0, 0.0, 1.5, 2.0])[condition] * responds)[:, None]
    codes = {"condition": condition, "population": population, "split": np.zeros(len(condition), dtype=int)}
    return cells.clip(0.01).astype(np.float32), codes, responds


def fitted_together(cells, codes, perturbation=(0, 1, 1, 1)):
    screen = ScreenCells(cells, **codes, n_conditions=4, n_populations=2)
    return NonresponderMixture.fit(screen, np.array(perturbation))


def test_doses_and_populations_with_few_cells_have_one_share_that_is_found_from_all():
    shares, true = [], []
    for seed in range(5):
        cells, codes, responds = small_screen(seed)
        fit = fitted_together(cells, codes)
        assert not fit.share[1].any()  # without an effect nothing tells a cell that nonresponding
        shares.append(float(fit.share[3, 0]))
        assert torch.equal(fit.share[2:], torch.full((2, 2), shares[-1]))
        assert fit.trained_share.tolist() == pytest.approx([shares[-1]] * 3)  # of the drug, whatever the dose tells
        true.append(1 - responds[codes["condition"] > 1].mean())
        chosen = codes["condition"] == 3
        probability = fit.response_probability(
            *(torch.from_numpy(part[chosen]) for part in (cells, codes["condition"], codes["population"]))
        )
        assert roc_auc_score(responds[chosen], probability.numpy()) > 0.97
    np.testing.assert_allclose(shares, true, atol=0.08)
    assert not any(fitted_together(*small_screen(seed, nonresponding=0.0)[:2]).share.any() for seed in range(5))


def test_each_dose_has_its_share_where_one_for_all_is_clearly_less_likely():
    """More cells respond to more of a drug."""
    nonresponding, strength = np.array([0.0, 0.7, 0.4, 0.02]), np.array([0.0, 1.5, 2.0, 2.0])
    for seed in range(4):
        cells, codes, _ = small_screen(seed, n=45)
        rng = np.random.default_rng(seed)
        responds = (rng.random(len(cells)) >= nonresponding[codes["condition"]]) & (codes["condition"] > 0)
        cells = rng.normal(2.0, 0.6, size=cells.shape) + 0.5 * codes["population"][:, None]
        cells[:, :10] += (strength[codes["condition"]] * responds)[:, None]
        fit = fitted_together(cells.clip(0.01).astype(np.float32), codes)
        true = [1 - responds[codes["condition"] == code].mean() for code in (1, 2, 3)]
        np.testing.assert_allclose(fit.share[1:].mean(dim=1).numpy(), true, atol=0.1)
        assert torch.equal(fit.share[:, 0], fit.share[:, 1])  # the populations of a dose have one


def test_other_perturbations_and_a_handful_of_cells_do_not_take_part():
    cells, codes, _ = small_screen()
    assert not fitted_together(cells, codes, (0, 1, 2, 3)).share[1].any()
    alone, together = fitted_together(cells, codes, (0, 1, 2, 3)), fitted_together(cells, codes)
    assert not torch.equal(alone.share, together.share)
    cells, codes, _ = small_screen(n=19)
    assert not fitted_together(cells, codes).share.any()


def test_many_cells_speak_for_themselves():
    cells, codes, _ = screen()
    alone = fitted(cells, codes)
    screen_cells = ScreenCells(cells, **codes, n_conditions=2, n_populations=2)
    together = NonresponderMixture.fit(screen_cells, np.array([0, 1]))
    for one, other in zip(vars(alone).values(), vars(together).values(), strict=True):
        assert torch.equal(one, other)


def test_too_few_cells_on_either_side_have_no_mixture() -> None:
    cells = np.random.default_rng(0).normal(2.0, 0.5, (60, 5))
    assert fit_response_mixture(cells, cells) is not None
    assert fit_response_mixture(cells[:49], cells) is None
    assert fit_response_mixture(cells, cells[:49]) is None


def test_moments_in_blocks_of_genes_are_those_of_numpy():
    """Over some of the cells, to the last bit: mixtures of a saved screen stay as they are."""
    cells = np.log1p(np.random.default_rng(0).poisson(0.3, (60, 700))).astype(np.float32)
    rows = np.arange(0, 60, 3)
    found = CellBlocks(cells).moments(rows)
    assert found.n_cells == 20
    np.testing.assert_array_equal(found.mean, cells[rows].mean(axis=0))
    np.testing.assert_array_equal(found.variance, cells[rows].var(axis=0, ddof=1))
