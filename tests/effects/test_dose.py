"""Dose-response curves: found where they were planted, by brute force, and left alone where nothing tells them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from unlasting.effects import DoseCurves, MeasuredEffects, TargetVocabulary
from unlasting.screen import Perturbation

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


def screen(halves: dict[str, float], *, slope=1.4, size=0.5, n_genes=40, seed=0):
    """Plant effects of drugs that share the error of their controls, in two populations."""
    rng = np.random.default_rng(seed)
    trained = [Perturbation((name,), (dose,)) for name in halves for dose in DOSES] + [Perturbation(("G0",))]
    full = {(name, population): rng.normal(0, np.sqrt(size), (3, n_genes)) for name in halves for population in (0, 1)}
    condition = np.tile(np.arange(len(trained)), 2)
    population = np.repeat([0, 1], len(trained))
    control_error = rng.normal(0, N_CONTROLS**-0.5, (2, 3, n_genes))
    detection = np.full(n_genes, 0.4)
    zeros = np.zeros((len(population), 3, n_genes))
    measured = MeasuredEffects(
        condition,
        population,
        np.full(len(population), float(N_CELLS)),
        np.full(len(population), 1 / N_CELLS + 1 / N_CONTROLS),
        zeros,
        detection,
    )
    for row, (code, context) in enumerate(zip(condition, population, strict=True)):
        perturbation = trained[code]
        [name], [dose] = perturbation.targets, perturbation.doses
        effect = 0.0 if dose is None else full[name, context] / (1 + (halves[name] / dose) ** slope)
        noise = rng.normal(0, N_CELLS**-0.5, (3, n_genes)) - control_error[context]
        zeros[row] = (effect + noise) / measured.units
    return vocabulary(trained), measured


def only(measured: MeasuredEffects, rows: np.ndarray) -> MeasuredEffects:
    """Keep some of the measurements."""
    arrays = ("condition", "context", "n_cells", "noise", "effects")
    return dataclasses.replace(measured, **{name: getattr(measured, name)[rows] for name in arrays})


@pytest.mark.parametrize("slope", [1.0, 2.0])
def test_planted_curves_are_found(slope: float) -> None:
    known, measured = screen({"A": 0.05, "B": 2.0}, slope=slope)
    curves = DoseCurves.fit(known, measured)
    assert [known.drugs[name] for name in ("A", "B")] == [smiles for _, smiles in known.trained_drugs]
    np.testing.assert_allclose(curves.half_doses[:2], [0.05, 2.0], rtol=0.35)
    np.testing.assert_allclose(curves.slopes[:2], slope, rtol=0.3)
    for found in (curves.half_doses, curves.slopes):
        assert found[2] == pytest.approx(np.exp(np.median(np.log(found[:2]))), rel=1e-5)
        assert found.dtype == np.float32


@pytest.mark.parametrize("seed", range(3))
def test_a_dose_that_was_not_measured_is_found_between_those_that_were(seed: int) -> None:
    """Where most of the effect comes between two doses, the curve must not place all of it at the higher one."""
    known, measured = screen({"A": 1.0}, slope=1.6, seed=seed)
    rows = np.array([known.trained_conditions[code].doses[0] != 1.0 for code in measured.condition])
    without = vocabulary([p for p in known.trained_conditions if p.doses[0] != 1.0])
    curves = DoseCurves.fit(without, only(measured, rows))
    at = [curves.share_of_effect(np.array([1.0]), dose) for dose in (1.0, 10.0)]
    assert 0.3 < at[0] / at[1] < 0.8  # it is 0.51


def test_a_drug_seen_at_one_dose_has_half_of_its_effect_there() -> None:
    known, measured = screen({"A": 0.05, "B": 2.0})
    kept = [p for p in known.trained_conditions if p.targets != ("B",) or p.doses == (1.0,)]
    rows = np.isin(measured.condition, [known.trained_conditions.index(p) for p in kept])
    half = DoseCurves.fit(vocabulary(kept), only(measured, rows)).half_doses
    assert half[0] == pytest.approx(0.05, rel=0.35)
    assert half[1] == pytest.approx(1.0, rel=0.2)


def test_a_drug_given_at_one_low_dose_keeps_its_effect_there() -> None:
    """Whatever doses others were given at: half of the effect is expected at the only dose."""
    known = vocabulary([Perturbation(("A",), (0.01,)), Perturbation(("B",), (10.0,)), Perturbation(("C",), (100.0,))])
    usual = DoseCurves.prior(known)
    at = dict(zip(known.trained_drugs, usual.half_doses[:3], strict=True))
    assert [at[known.target(name)] for name in "ABC"] == pytest.approx([0.01, 10.0, 100.0])
    assert usual.half_doses[3] == pytest.approx(10.0)


@pytest.mark.parametrize("seed", range(3))
def test_a_drug_without_an_effect_has_no_curve_of_its_own(seed: int) -> None:
    """Though all of its doses share the error of the controls."""
    known, measured = screen({"A": 0.1, "C": 1.0}, size=0.0, seed=seed)
    curves, usual = DoseCurves.fit(known, measured), DoseCurves.prior(known)
    assert np.abs(np.log10(curves.half_doses / usual.half_doses)).max() < 0.7
    assert np.abs(np.log(curves.slopes / usual.slopes)).max() < 0.35  # the s.d. before anything is seen


def test_without_drugs_nothing_is_fitted() -> None:
    known = vocabulary([Perturbation(("G0",))])
    measured = MeasuredEffects(
        np.array([1]), np.array([0]), np.array([9.0]), np.array([0.2]), np.ones((1, 3, 4)), np.full(4, 0.5)
    )
    np.testing.assert_array_equal(DoseCurves.fit(known, measured).half_doses, [1.0])


def test_curves_are_the_posterior_means_under_the_joint_normal_density() -> None:
    """Brute force over half doses, slopes and sizes of full effects."""
    rng = np.random.default_rng(3)
    known = vocabulary([Perturbation(("A",), (dose,)) for dose in DOSES])
    rows, n_genes = np.arange(4), 6
    share = 1 / (1 + (0.3 / np.array(DOSES)) ** 1.2)
    effects = share[:, None, None] * rng.normal(0, 0.3, (3, n_genes)) + rng.normal(0, 0.15, (4, 3, n_genes))
    measured = MeasuredEffects(
        rows, 0 * rows, np.full(4, 100.0), np.full(4, 1 / 100 + 1 / 400), effects, np.full(n_genes, 0.4)
    )
    values, noise = effects * measured.units, np.eye(4) / 100 + 1 / 400
    log_halves = np.linspace(-3.0, 3.0, 61) * np.log(10.0)  # around the middle of the doses
    log_halves, log_slopes = log_halves + np.log(0.01 * 10) / 2, np.linspace(np.log(0.5), np.log(4.0), 13)
    ratio = (np.array(DOSES) / np.exp(log_halves)[:, None]) ** np.exp(log_slopes)[:, None, None]
    curves = ratio / (1 + ratio)  # (n_slopes, n_half_doses, n_doses)
    log_posterior = -0.5 * ((log_slopes[:, None] - np.log(1.4)) / 0.35) ** 2
    spread = max(np.log(1000.0) / 6, np.log(10.0) / 3)
    log_posterior = log_posterior - 0.5 * ((log_halves - log_halves[30]) / spread) ** 2
    for parameter in range(3):
        best = np.full(curves.shape[:2], -np.inf)
        for size in [0.0, *np.geomspace(1e-4, 10.0, 120)]:
            covariance = noise + size * curves[..., :, None] * curves[..., None, :]
            precision, (_, log_determinant) = np.linalg.inv(covariance), np.linalg.slogdet(covariance)
            squared = np.einsum("dg,...de,eg->...", values[:, parameter], precision, values[:, parameter])
            best = np.maximum(best, -0.5 * (squared + n_genes * log_determinant))
        log_posterior = log_posterior + best
    weights = np.exp(log_posterior - log_posterior.max())
    weights /= weights.sum()
    fit = DoseCurves.fit(known, measured)
    assert np.log(fit.half_doses[0]) == pytest.approx(weights.sum(axis=0) @ log_halves, abs=1e-2)
    assert np.log(fit.slopes[0]) == pytest.approx(weights.sum(axis=1) @ log_slopes, abs=5e-3)
