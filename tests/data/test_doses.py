"""The dose of half the effect: found where it was planted, by brute force, and left alone where nothing tells it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from unlasting._perturbation import Perturbation
from unlasting.data import TargetVocabulary, fit_half_doses
from unlasting.data._doses import _SIZES, _log_likelihood
from unlasting.data._statistics import MeasuredEffects

DOSES = [0.01, 0.1, 1.0, 10.0]
N_CELLS, N_CONTROLS = 100, 400


def vocabulary(trained: list[Perturbation]) -> TargetVocabulary:
    return TargetVocabulary(
        nodes=["G0"],
        trained_conditions=trained,
        embedded=[],
        features=np.zeros((0, 0)),
        drugs={"A": "CCN", "B": "CCO", "C": "CCC"},
        smiles=["CCC", "CCN", "CCO"],
        molecules=np.eye(3, dtype=np.float32),
    )


def screen(halves: dict[str, float], *, size=0.5, n_genes=40, seed=0):
    """Plant effects of drugs that share the error of their controls, in two pools."""
    rng = np.random.default_rng(seed)
    trained = [Perturbation((name,), (dose,)) for name in halves for dose in DOSES] + [Perturbation(("G0",))]
    full = {(name, pool): rng.normal(0, np.sqrt(size), (3, n_genes)) for name in halves for pool in (0, 1)}
    condition = np.tile(np.arange(len(trained)), 2)
    pool = np.repeat([0, 1], len(trained))
    of_controls = rng.normal(0, N_CONTROLS**-0.5, (2, 3, n_genes))
    expressed = np.full(n_genes, 0.4)
    zeros = np.zeros((len(pool), 3, n_genes))
    measured = MeasuredEffects(
        condition,
        pool,
        np.full(len(pool), float(N_CELLS)),
        np.full(len(pool), 1 / N_CELLS + 1 / N_CONTROLS),
        zeros,
        expressed,
    )
    for row, (code, of_pool) in enumerate(zip(condition, pool, strict=True)):
        perturbation = trained[code]
        [name], [dose] = perturbation.targets, perturbation.doses
        effect = 0.0 if dose is None else full[name, of_pool] * dose / (dose + halves[name])
        noise = rng.normal(0, N_CELLS**-0.5, (3, n_genes)) - of_controls[of_pool]
        zeros[row] = (effect + noise) / measured.units
    return vocabulary(trained), measured


def test_planted_half_doses_are_found() -> None:
    known, measured = screen({"A": 0.05, "B": 2.0})
    half = fit_half_doses(known, measured)
    assert [known.drugs[name] for name in ("A", "B")] == [smiles for _, smiles in known.trained_drugs]
    np.testing.assert_allclose(half[:2], [0.05, 2.0], rtol=0.35)
    assert half[2] == pytest.approx(np.exp(np.median(np.log(half[:2]))), rel=1e-5)
    assert half.dtype == np.float32


def test_a_drug_seen_at_one_dose_takes_the_median_trained_dose() -> None:
    known, measured = screen({"A": 0.05, "B": 2.0})
    kept = [p for p in known.trained_conditions if p.targets != ("B",) or p.doses == (1.0,)]
    rows = np.isin(measured.condition, [known.trained_conditions.index(p) for p in kept])
    few = MeasuredEffects(
        measured.condition[rows],
        measured.pool[rows],
        measured.n_cells[rows],
        measured.noise[rows],
        measured.shifts[rows],
        measured.expressed,
    )
    half = fit_half_doses(vocabulary(kept), few)
    usual = np.exp(np.median(np.log([p.doses[0] for p in kept if p.doses[0]])))
    assert half[0] == pytest.approx(0.05, rel=0.35)
    assert 0.2 * usual < half[1] < 5 * usual


@pytest.mark.parametrize("seed", range(3))
def test_a_drug_without_an_effect_has_no_half_dose_of_its_own(seed: int) -> None:
    """Though all of its doses share the error of the controls."""
    known, measured = screen({"A": 0.1, "C": 1.0}, size=0.0, seed=seed)
    usual = np.exp(np.median(np.log(DOSES)))
    off = np.log10(fit_half_doses(known, measured) / usual)
    assert np.abs(off).max() < 1  # the s.d. before anything is seen


def test_without_drugs_nothing_is_fitted() -> None:
    known = vocabulary([Perturbation(("G0",))])
    measured = MeasuredEffects(
        np.array([1]), np.array([0]), np.array([9.0]), np.array([0.2]), np.ones((1, 3, 4)), np.full(4, 0.5)
    )
    np.testing.assert_array_equal(fit_half_doses(known, measured), [1.0])


def test_likelihood_is_that_of_the_joint_normal_distribution() -> None:
    rng = np.random.default_rng(0)
    dose, values = np.array(DOSES), rng.normal(size=(4, 7))
    noise = np.diag(rng.uniform(0.5, 1, 4)) + 0.3
    half = np.array([0.02, 0.5, 7.0])
    ours = _log_likelihood(np.log(half), dose, noise, values)
    for at, each in enumerate(half):
        share = dose / (dose + each)
        for row, size in enumerate(_SIZES):
            joint = stats.multivariate_normal(np.zeros(4), noise + size * np.outer(share, share))
            null = stats.multivariate_normal(np.zeros(4), noise)
            expected = (joint.logpdf(values.T) - null.logpdf(values.T)).sum()
            assert ours[row, at] == pytest.approx(expected, rel=1e-6, abs=1e-9)
