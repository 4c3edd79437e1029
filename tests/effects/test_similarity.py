"""How far drugs with similar molecules act alike: learnt where the screen tells it, as usual where it does not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from unlasting.effects import (
    DoseCurves,
    MeasuredEffects,
    MolecularSimilarity,
    TargetVocabulary,
)
from unlasting.effects._similarity import _products_of_full_effects
from unlasting.screen import Perturbation

DOSES = np.array([0.1, 1.0, 10.0])
N_CELLS, N_CONTROLS = 100, 50


def vocabulary(molecules: np.ndarray) -> TargetVocabulary:
    names = [f"D{i:02d}" for i in range(len(molecules))]
    smiles = [f"C{'C' * i}" for i in range(len(molecules))]
    return TargetVocabulary(
        nodes=["G0"],
        trained_conditions=[Perturbation((name,), (float(dose),)) for name in names for dose in DOSES],
        embedded=[],
        features=np.zeros((0, 0)),
        drugs=dict(zip(names, smiles, strict=True)),
        smiles=smiles,
        molecules=molecules.astype(np.float32),
    )


def families(n_families: int, n_members: int, seed: int) -> np.ndarray:
    """Draw molecules of which those of a family are similar, rows of length one."""
    rng = np.random.default_rng(seed)
    molecules = np.repeat(rng.random((n_families, 60)) < 0.3, n_members, axis=0).astype(float)
    molecules += rng.random(molecules.shape) < 0.05
    return molecules / np.linalg.norm(molecules, axis=1, keepdims=True)


def measure(full: np.ndarray, *, seed: int) -> tuple[DoseCurves, MeasuredEffects]:
    """Measure drugs with a half dose of 1 uM, of full effects of shape `(n_drugs, 3, n_genes)`, in one population."""
    rng = np.random.default_rng(seed)
    n_drugs, _, n_genes = full.shape
    share = DOSES / (1.0 + DOSES)
    values = (full[:, None] * share[:, None, None]).reshape(-1, 3, n_genes)
    values += rng.normal(0, N_CELLS**-0.5, values.shape) - rng.normal(0, N_CONTROLS**-0.5, (3, n_genes))
    rows = np.arange(len(values))
    noise = np.full(len(rows), 1 / N_CELLS + 1 / N_CONTROLS)
    n_cells = np.full(len(rows), float(N_CELLS))
    measured = MeasuredEffects(rows, 0 * rows, n_cells, noise, values, np.full(n_genes, 0.4))
    ones = np.ones(n_drugs + 1, dtype=np.float32)
    return DoseCurves(ones, ones), MeasuredEffects(
        rows, 0 * rows, n_cells, noise, values / measured.units, measured.detection
    )


def effects_of_families(n_families: int, n_members: int, seed: int) -> np.ndarray:
    return np.repeat(np.random.default_rng(seed).normal(0, 0.5, (n_families, 3, 80)), n_members, axis=0)


def error_left_out(molecular_similarity: MolecularSimilarity, molecules: np.ndarray, full: np.ndarray) -> float:
    """Squared error of each drug's effect as told from the others, relative to no effect."""
    similarity, effects = molecules @ molecules.T, full.reshape(len(full), -1)
    error = 0.0
    for drug in range(len(molecules)):
        others = np.delete(np.arange(len(molecules)), drug)
        usual = similarity[np.ix_(others, others)][~np.eye(len(others), dtype=bool)]
        told = molecular_similarity.shares(similarity[drug, others], usual) @ effects[others]
        error += ((told - effects[drug]) ** 2).sum()
    return error / (effects**2).sum()


@pytest.mark.parametrize("seed", range(4))
def test_molecules_that_tell_are_believed_and_those_that_mislead_are_not(seed: int) -> None:
    full, molecules = effects_of_families(6, 4, seed), families(6, 4, seed)
    curves, measured = measure(full, seed=seed)
    assert error_left_out(MolecularSimilarity.fit(vocabulary(molecules), measured, curves), molecules, full) < 0.1
    molecules = np.random.default_rng(seed).permutation(molecules)
    believed = MolecularSimilarity.fit(vocabulary(molecules), measured, curves)
    assert error_left_out(believed, molecules, full) < error_left_out(MolecularSimilarity(), molecules, full) - 0.05


def test_the_unit_of_effects_does_not_matter() -> None:
    full, molecules = effects_of_families(6, 4, 0), np.random.default_rng(0).permutation(families(6, 4, 0))
    curves, measured = measure(full, seed=0)
    expected = dataclasses.astuple(MolecularSimilarity.fit(vocabulary(molecules), measured, curves))
    assert expected != pytest.approx(dataclasses.astuple(MolecularSimilarity()), rel=0.05)
    for unit in (1e-3, 1e3):
        arrays = {
            "effects": unit * measured.effects,
            "noise": unit**2 * measured.noise,
            "n_cells": measured.n_cells / unit**2,
        }
        found = MolecularSimilarity.fit(vocabulary(molecules), dataclasses.replace(measured, **arrays), curves)
        assert dataclasses.astuple(found) == pytest.approx(expected, rel=0.05)


def test_drugs_without_a_dose_are_compared_too() -> None:
    full, molecules = effects_of_families(6, 4, 0), families(6, 4, 0)
    curves, measured = measure(full, seed=0)
    known = vocabulary(molecules)
    undosed = [dataclasses.replace(p, doses=(None,)) for p in known.trained_conditions[2::3]]
    rows = np.arange(2, len(measured.condition), 3)
    arrays = {name: getattr(measured, name)[rows] for name in ("condition", "context", "n_cells", "noise", "effects")}
    [(drugs, products)] = _products_of_full_effects(
        dataclasses.replace(known, trained_conditions=undosed), dataclasses.replace(measured, **arrays), curves
    )
    assert len(drugs) == 24
    values = (measured.effects * measured.units)[rows].reshape(24, -1)  # each is measured once, at its full effect
    np.testing.assert_allclose(products[0, 1], values[0] @ values[1] - values.shape[1] / N_CONTROLS)
    np.testing.assert_allclose(products[0, 0], values[0] @ values[0] - values.shape[1] * (1 / N_CELLS + 1 / N_CONTROLS))


def test_few_drugs_are_expected_to_be_as_usual() -> None:
    full, molecules = effects_of_families(1, 3, 0), families(1, 3, 0)
    curves, measured = measure(full, seed=0)
    assert MolecularSimilarity.fit(vocabulary(molecules), measured, curves) == MolecularSimilarity()


def test_without_drugs_or_molecules_it_is_as_usual() -> None:
    known = TargetVocabulary(["G0"], [Perturbation(("G0",))], [], np.zeros((0, 0)), {}, [], np.zeros((0, 0)))
    one = np.ones(1, dtype=np.float32)
    measured = MeasuredEffects(
        np.array([1]), np.array([0]), np.array([9.0]), np.array([0.2]), np.ones((1, 3, 4)), np.full(4, 0.5)
    )
    assert MolecularSimilarity.fit(known, measured, DoseCurves(one, one)) == MolecularSimilarity()


@pytest.mark.parametrize("seed", range(3))
def test_drugs_without_an_effect_tell_nothing(seed: int) -> None:
    """Though all of them share the error of the controls."""
    molecules = families(6, 4, seed)
    curves, measured = measure(np.zeros((24, 3, 80)), seed=seed)
    [(_, products)] = _products_of_full_effects(vocabulary(molecules), measured, curves)
    noise_level = 3 * 80 * (1 / N_CELLS + 1 / N_CONTROLS)
    assert np.abs(products[~np.eye(24, dtype=bool)]).mean() < 0.25 * noise_level
    assert abs(products.mean()) < 0.2 * noise_level


def test_products_are_those_of_the_true_effects_on_average() -> None:
    full, molecules = effects_of_families(3, 2, 0), families(3, 2, 0)
    true = full.reshape(6, -1) @ full.reshape(6, -1).T
    found = []
    for seed in range(40):
        curves, measured = measure(full, seed=seed)
        [(drugs, products)] = _products_of_full_effects(vocabulary(molecules), measured, curves)
        found.append(products)
    np.testing.assert_array_equal(drugs, np.arange(6))
    error = np.std(found, axis=0) / np.sqrt(len(found))
    assert (np.abs(np.mean(found, axis=0) - true) < 4 * error).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.integers(3, 9), st.floats(0.5, 8.0), st.floats(-1.0, 3.0))
def test_shares_follow_similarity_whatever_its_unit(
    seed: int, n_drugs: int, sharpness: float, threshold: float
) -> None:
    rng = np.random.default_rng(seed)
    usual, similarity = 1 - pdist(rng.random((n_drugs, 5))), rng.random(n_drugs)
    molecular_similarity = MolecularSimilarity(sharpness, threshold)
    shares = molecular_similarity.shares(similarity, usual)
    assert (shares >= 0).all()
    assert shares.sum() <= 1.0 + 1e-9
    assert (np.diff(shares[np.argsort(similarity)]) >= -1e-12).all()
    np.testing.assert_allclose(
        molecular_similarity.shares(3.0 * similarity + 1.0, 3.0 * usual + 1.0), shares, atol=1e-9
    )


def test_equally_similar_molecules_tell_nothing() -> None:
    assert (MolecularSimilarity().shares(np.array([0.9, 0.1, 0.5]), np.full(6, 0.4)) == 0).all()
