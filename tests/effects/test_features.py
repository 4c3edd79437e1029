"""How conditions are described: laws of the features, and of the effects that follow from them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from unlasting.effects import (
    DRUG,
    ConditionFeatures,
    ContextKernel,
    DoseCurves,
    EffectRegression,
    MeasuredEffects,
    TargetVocabulary,
)
from unlasting.screen import Perturbation

GENES = [f"G{i}" for i in range(8)]
DRUGS = {"drugA": "CCN", "synonym": "CCN", "drugB": "CCO", "drugN": "CCON"}


class Described(ConditionFeatures):
    """Features as arrays, which are easier to compare."""

    def __call__(self, perturbations):
        return super().__call__(perturbations).toarray()

    def untrained(self, perturbations):
        return super().untrained(perturbations).toarray()


def parse(*labels: str) -> list[Perturbation]:
    """Write `drugA@1` for a dose, in uM."""
    parsed = []
    for label in labels:
        names, doses = zip(*((*part.split("@"), "")[:2] for part in label.split("+")), strict=True)
        parsed.append(Perturbation.parse("+".join(names), "+".join(doses) if any(doses) else None))
    return parsed


def vocabulary(trained, *, as_sparse=False, seed=0) -> TargetVocabulary:
    rng = np.random.default_rng(seed)
    features = (rng.random((8, 6)) < 0.5) * rng.random((8, 6))
    features[7] = features[0]  # G7 is like G0
    smiles = ["CCN", "CCO", "CCON"]
    molecules = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.8, 0.0, 0.6]], dtype=np.float32)
    return TargetVocabulary(
        nodes=[*GENES, "TFX"],
        trained_conditions=trained,
        embedded=GENES,
        features=sparse.csr_matrix(features) if as_sparse else features,
        drugs=DRUGS,
        smiles=smiles,
        molecules=molecules,
    )


TRAINED = parse("G0", "G1", "G2", "TFX", "IFN", "G0+G1", "drugA@0.1", "drugA@10", "drugB@1", "G2+drugA@1")


@pytest.fixture(scope="module")
def describe():
    return Described(vocabulary(TRAINED))


def test_the_control_and_dose_zero_are_zero(describe):
    nothing = [Perturbation(), *parse("drugA@0", "drugN@0", "drugA@0+drugB@0")]
    assert (describe(nothing) == 0).all()
    assert describe(nothing).shape == (4, len(describe))
    assert (np.abs(describe(TRAINED)).sum(axis=1) > 0).all()


def test_a_typical_trained_condition_has_length_one(describe):
    """The shares of prior, identity and generic features add up to 1 for genes that have all of them."""
    genes = parse("G0", "G1", "G2")
    of_genes = Described(vocabulary(genes))
    assert np.mean((of_genes(genes) ** 2).sum(axis=1)) == pytest.approx(1.0, rel=1e-5)
    assert np.mean((describe(TRAINED) ** 2).sum(axis=1)) == pytest.approx(1.0, abs=0.35)


@settings(max_examples=50, deadline=None)
@given(st.permutations(["G2", "drugA", "IFN"]), st.floats(0.01, 100.0))
def test_targets_have_no_order_and_add_up(names, dose):
    describe = Described(vocabulary(TRAINED))
    ordered, moved = (
        parse("+".join(n if n != "drugA" else f"drugA@{dose!r}" for n in one)) for one in (sorted(names), names)
    )
    np.testing.assert_array_equal(describe(ordered), describe(moved))
    alone = describe(parse("G2", f"drugA@{dose!r}", "IFN"))
    np.testing.assert_allclose(describe(moved)[0], alone.sum(axis=0), rtol=1e-5, atol=1e-6)


def test_a_trained_combination_is_something_of_its_own(describe):
    both, one, other = describe(parse("G0+G1", "G0", "G1"))
    assert np.count_nonzero(np.abs(both - one - other) > 1e-6) == 1
    untrained, third = describe(parse("G0+G2", "G2"))
    np.testing.assert_allclose(untrained, one + third, atol=1e-6)


def test_two_names_of_a_molecule_are_one_drug(describe):
    np.testing.assert_array_equal(describe(parse("drugA@1")), describe(parse("synonym@1")))
    np.testing.assert_array_equal(describe(parse("drugA@1")), describe(parse("CCN@1")))


def test_an_unseen_target_has_the_features_of_its_like_but_for_its_identity(describe):
    like, unseen = describe(parse("G0", "G7"))
    assert np.count_nonzero(like != unseen) == 1
    nothing_known, another = describe(parse("TFX", "G3"))
    assert (nothing_known @ another) < (like @ unseen)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.0, 1_000.0), min_size=2, max_size=6))
def test_features_of_a_drug_rise_with_the_dose_and_saturate(doses):
    describe = Described(vocabulary(TRAINED))
    told = describe(parse(*(f"drugA@{dose!r}" for dose in sorted(doses))))
    assert (np.diff(told, axis=0) >= -1e-6).all()
    assert (told <= describe(parse("drugA@1e30")) + 1e-6).all()


def test_the_untrained_part_of_a_condition():
    """None for trained targets at any dose; all for an untrained target; in a combination as far as the others act."""
    describe = Described(vocabulary(TRAINED))
    trained = [Perturbation(), *parse("G0", "drugA@3", "drugA", "synonym@1", "G0+G1", "G2+drugA@1", "G2+drugA@5")]
    assert (describe.untrained(trained) == 0).all()
    new = parse("G5", "drugN@3", "NEW", "G5+drugN@1", "G0+G2", "G0+IFN", "drugA+drugB")
    np.testing.assert_array_equal(describe.untrained(new), describe(new))
    gene, drug, both, other = describe(parse("G0", "drugA@0.5", "G0+drugA@0.5", "G0+drugN@0.5"))
    share = describe.strength(parse("drugA@0.5", "drugN@0.5"))
    assert (0 < share).all()
    assert (share < 1).all()
    together = describe.strength([Perturbation(), *parse("drugA@0.5+drugN@0.5", "G0+drugA@0.5", "drugA", "G0")])
    np.testing.assert_allclose(together, [0.0, 1 - (1 - share[0]) * (1 - share[1]), 1.0, 1.0, 1.0])
    found = describe.untrained(parse("G0+drugA@0.5", "G0+drugN@0.5"))
    np.testing.assert_allclose(found[0], share[0] * gene + drug, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], share[1] * gene + other - gene, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(both, gene + drug, rtol=1e-5, atol=1e-6)


def test_sparse_and_dense_priors_are_the_same():
    asked = [*TRAINED, *parse("G5", "drugN@3")]
    of_sparse = Described(vocabulary(TRAINED, as_sparse=True))
    np.testing.assert_array_equal(of_sparse(asked), Described(vocabulary(TRAINED))(asked))


def test_the_order_of_the_trained_changes_no_covariance():
    one, other = (Described(vocabulary(trained)) for trained in (TRAINED, TRAINED[::-1]))
    np.testing.assert_allclose(one(TRAINED) @ one(TRAINED).T, other(TRAINED) @ other(TRAINED).T, atol=1e-5)


def test_without_a_dose_a_drug_has_its_full_effect(describe):
    without, doses = Described(vocabulary(parse("G0", "drugA"))), Described(vocabulary(TRAINED))
    assert (without(parse("G0", "drugA")) != 0).any(axis=1).all()
    np.testing.assert_allclose(doses(parse("drugA"))[0], doses(parse("drugA@1e300"))[0], rtol=1e-2)


def test_half_of_the_effect_is_reached_at_the_median_trained_dose():
    describe = Described(vocabulary(parse("drugA@0.1", "drugA@1", "drugA@10", "drugB@1")))
    half, full = describe(parse("drugB@1", "drugB"))
    np.testing.assert_allclose(2 * half, full, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=6, unique=True))
def test_whatever_was_measured_no_expected_shift_turns_back(seed, doses):
    """Of a trained drug, an unseen one, and a drug beside a gene, whose shifts start at those of the gene."""
    rng = np.random.default_rng(seed)
    trained = parse("drugA@0.1", "drugA@1", "drugA@10", "drugB@1", "drugB@5", "G0")
    features = Described(vocabulary(trained, seed=seed))
    measured = MeasuredEffects(
        np.arange(6), np.zeros(6, int), np.full(6, 50.0), np.full(6, 0.02), rng.normal(size=(6, 3, 9)), np.full(9, 0.4)
    )
    regression = EffectRegression.fit(
        features(trained), features.families, ContextKernel.centred(np.zeros((1, 9))), measured
    )
    for name in ("drugA", "drugN", "G0+drugA", "G0+drugN", "G1+drugA", "drugB@2+drugA"):
        asked = parse(*(f"{name}@{dose!r}" for dose in (0.0, *sorted(doses))))
        described, untrained = features(asked), features.untrained(asked)
        effects = regression.effects(described, untrained, np.zeros(len(asked), dtype=int), np.zeros((len(asked), 9)))
        steps = np.diff(effects, axis=0)
        assert np.minimum(steps.max(axis=0), -steps.min(axis=0)).max() < 1e-5 * (1.0 + np.abs(effects).max())


def test_planted_monotone_doses_are_predicted_monotone():
    """A saturating effect, seen at three doses, rises between and beyond them."""
    doses = [0.1, 1.0, 10.0]
    trained = parse(*(f"drugA@{dose}" for dose in doses), "drugB@1", "G0")
    features = Described(vocabulary(trained))
    full = np.random.default_rng(1).normal(size=(3, 30))
    share = np.array([*(dose / (1.0 + dose) for dose in doses), 0.0, 0.0])
    population = np.zeros(5, dtype=int)
    measured = MeasuredEffects(
        np.arange(5), population, np.full(5, 200.0), np.full(5, 0.01), share[:, None, None] * full, np.full(30, 0.5)
    )
    fit = EffectRegression.fit(features(trained), features.families, ContextKernel.centred(np.zeros((1, 30))), measured)
    asked = features(parse("drugA@0", "drugA@0.1", "drugA@0.5", "drugA@1", "drugA@3", "drugA@10", "drugA@30"))
    told = fit.effects(asked, np.zeros_like(asked), np.zeros(7, dtype=int), np.zeros((7, 30)))
    along = (told * full).sum(axis=(1, 2)) / (full**2).sum()
    assert along[0] == 0
    assert (np.diff(along) > 0).all()
    np.testing.assert_allclose(along[[1, 3, 5]], share[:3], atol=0.12)


def many_drugs(similarity: float) -> Described:
    """Four trained drugs of unrelated molecules, and one whose molecule is like that of the first."""
    molecules = np.eye(5, dtype=np.float32)
    molecules[:4] += 0.1 * np.random.default_rng(0).random((4, 5), dtype=np.float32)
    molecules[4] = similarity * molecules[0] + (1 - similarity) * np.eye(5)[4]
    molecules /= np.linalg.norm(molecules, axis=1, keepdims=True)
    smiles = ["CC", "CCC", "CCCC", "CCO", "CCN"]
    known = TargetVocabulary(
        nodes=["G0"],
        trained_conditions=[Perturbation((name,), (dose,)) for name in "ABCD" for dose in (0.1, 1.0, 10.0)],
        embedded=[],
        features=np.zeros((0, 0)),
        drugs=dict(zip("ABCDX", smiles, strict=True)),
        smiles=smiles,
        molecules=molecules,
    )
    half_doses = np.array([0.02, 1.0, 1.0, 1.0, 1.0], dtype=np.float32)  # in the order of SMILES, then the usual
    return Described(known, DoseCurves(half_doses, slopes=np.ones(5, dtype=np.float32)))


def test_an_untrained_drug_is_described_as_the_trained_one_that_its_molecule_is_like():
    alike, unlike = (many_drugs(similarity) for similarity in (0.9, 0.0))
    for features, much in ((alike, True), (unlike, False)):
        described = features([Perturbation((name,), (1e9,)) for name in "AX"])
        covariance = described @ described.T
        of_first = covariance[0, 1] / covariance[0, 0]
        assert (of_first > 0.8) if much else (of_first < 0.3)


def test_an_untrained_drug_takes_over_the_half_dose_with_the_likeness():
    for similarity, half in ((0.9, 0.02), (0.0, 1.0)):
        features = many_drugs(similarity)
        at_half, full = features([Perturbation(("X",), (half,)), Perturbation(("X",), (1e9,))])
        np.testing.assert_allclose(np.linalg.norm(at_half) / np.linalg.norm(full), 0.5, atol=0.08)


def test_similarity_is_the_cosine_of_molecules_and_none_of_unknown_ones():
    known = vocabulary(TRAINED)
    drugs = [known.target(name) for name in ("drugA", "drugB", "CCON")] + [(DRUG, "CCCC")]
    rows = np.concatenate([known.molecules[[known.smiles.index(smiles) for _, smiles in drugs[:3]]], np.zeros((1, 3))])
    np.testing.assert_allclose(known.similarity(drugs, drugs[:2]), rows @ rows[:2].T, atol=1e-6)
    assert known.similarity([], []).shape == (0, 0)


def test_fingerprints_are_alike_as_far_as_they_have_the_same_parts_however_often():
    trained = parse("drugA@1", "drugB@1", "drugC@1")
    parts = np.array([[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 1, 0, 1], [9, 1, 0, 0, 0]], dtype=np.float32)
    names = {"drugA": "C", "drugB": "CC", "drugC": "CCC", "drugN": "CCCC"}
    known = TargetVocabulary(
        nodes=["G0"],
        trained_conditions=trained,
        embedded=[],
        features=np.zeros((0, 0)),
        drugs=names,
        smiles=list(names.values()),
        molecules=parts / np.linalg.norm(parts, axis=1, keepdims=True),
        molecule_kind="morgan",
    )
    assert known.similarity([known.target("drugN")], known.trained_drugs)[0].tolist() == pytest.approx([1, 0, 0])
    by_count = dataclasses.replace(known, molecule_kind="given")
    first = by_count.similarity([known.target("drugN")], known.trained_drugs)[0]
    assert first.tolist() == pytest.approx([10 / np.sqrt(2 * 82), 0, 0], rel=1e-5)
