from __future__ import annotations

import contextlib

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse
from sklearn.linear_model import Ridge

from unlasting.baselines import (
    BASELINES,
    Additive,
    Baseline,
    DoseInterpolation,
    Linear,
    MeanShift,
    ModelPredictor,
    NearestDose,
    NearestTarget,
    NearestTargetOrNothing,
    NoEffect,
    NoPrediction,
    Pooled,
    PublishedLinear,
)
from unlasting.metrics import e_distance
from unlasting.screen import Condition


def _dense(adata: AnnData, **where: str) -> np.ndarray:
    chosen = np.logical_and.reduce([adata.obs[key] == value for key, value in where.items()])
    return adata.X[np.flatnonzero(chosen)].toarray().astype(np.float64)


def _effect(adata: AnnData, name: str, cell_type: str) -> np.ndarray:
    where = {"cell_type": cell_type, "unlasting_split": "train"}
    control = _dense(adata, perturbation="control", **where).mean(axis=0)
    return _dense(adata, perturbation=name, **where).mean(axis=0) - control


def _same_cells(found: np.ndarray, expected: np.ndarray) -> None:
    """Compare two sets of cells, whatever their order."""
    assert found.shape == expected.shape
    np.testing.assert_allclose(*(cells[np.lexsort(cells.T)] for cells in (found, expected)), rtol=1e-5, atol=1e-6)


TRAINED = ("A", "B", "C", "A+B")


def test_no_effect_gives_the_training_controls_of_the_cell_type(screen):
    cells = NoEffect().fit(screen).predict(Condition("D", "two"), 1000)
    _same_cells(cells, _dense(screen, perturbation="control", cell_type="two"))
    assert cells.dtype == np.float32


def test_mean_shift_adds_the_mean_over_trained_perturbations(screen):
    cells = MeanShift().fit(screen).predict(Condition("D", "one"), 1000)
    shift = np.mean([_effect(screen, name, "one") for name in TRAINED], axis=0)
    _same_cells(cells, _dense(screen, perturbation="control", cell_type="one") + shift)


def test_mean_shift_of_an_unseen_cell_type_is_the_mean_over_the_trained_types(screen):
    cells = MeanShift().fit(screen).predict(Condition("A", "new"), 1000)
    shift = np.mean([_effect(screen, name, t) for name in TRAINED for t in ("one", "two")], axis=0)
    _same_cells(cells, _dense(screen, perturbation="control", cell_type="new") + shift)


def test_pooled_gives_all_perturbed_training_cells(screen):
    fitted = Pooled().fit(screen)
    in_two = np.vstack([_dense(screen, perturbation=name, cell_type="two") for name in TRAINED])
    _same_cells(fitted.predict(Condition("D", "two"), 1000), in_two)
    everywhere = np.vstack([_dense(screen, perturbation=n, cell_type=t) for n in TRAINED for t in ("one", "two")])
    _same_cells(fitted.predict(Condition("A", "new"), 1000), everywhere)


def test_additive_sums_the_singles(screen):
    fitted = Additive().fit(screen)
    shift = _effect(screen, "B", "one") + _effect(screen, "C", "one")
    expected = _dense(screen, perturbation="control", cell_type="one") + shift
    _same_cells(fitted.predict(Condition("B+C", "one"), 1000), expected)
    with pytest.raises(NoPrediction, match="no combination"):
        fitted.predict(Condition("A", "one"), 10)
    with pytest.raises(NoPrediction, match="D alone is not trained"):
        fitted.predict(Condition("A+D", "one"), 10)


def test_nearest_target_is_the_other_one_with_the_largest_cosine(screen):
    fitted = NearestTarget().fit(screen)
    # D is at cosine .8 from A and .96 from C
    _same_cells(fitted.predict(Condition("D", "one"), 1000), _dense(screen, perturbation="C", cell_type="one"))
    # A itself is trained, and left out: A+B at cosine .71 is nearer than C at .6
    _same_cells(fitted.predict(Condition("A", "one"), 1000), _dense(screen, perturbation="A+B", cell_type="one"))
    with pytest.raises(NoPrediction, match="does not know X"):
        fitted.predict(Condition("X", "one"), 10)
    with pytest.raises(NoPrediction, match="in this cell type"):
        fitted.predict(Condition("A", "new"), 10)
    other = pd.DataFrame([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0]], index=["A", "B", "D"])
    cells = NearestTarget(other).fit(screen).predict(Condition("D", "one"), 1000)
    _same_cells(cells, _dense(screen, perturbation="B", cell_type="one"))


def test_nearest_target_needs_a_prior(screen):
    del screen.uns["unlasting"]["target_embedding"]
    with pytest.raises(NoPrediction, match=r"pp\.grn"):
        NearestTarget().fit(screen).predict(Condition("D", "one"), 10)


@pytest.fixture
def doses() -> AnnData:
    """Drugs X, Y (like X), Z and W (the same as X by another name): 20 cells at each trained dose, 40 controls.

    Every cell holds its own number, and the dose of X at 1 uM is held out.
    """
    trained = ["X@0.1", "X@10", "Y@0.1", "Y@2", "Z@1", "A+X@1", "W@5"]
    labels = [*["control"] * 40, *(name for name in [*trained, "X@1"] for _ in range(20))]
    names, uM = zip(*((*label.split("@"), "")[:2] for label in labels), strict=True)
    obs = pd.DataFrame({"perturbation": names, "uM": uM, "unlasting_split": "train"})
    obs.loc[np.array(labels) == "X@1", "unlasting_split"] = "test"
    obs["uM"] = obs["uM"].where(obs["perturbation"] != "A+X", "+1")
    obs.index = [f"cell{i}" for i in range(len(obs))]
    adata = AnnData(np.arange(len(obs), dtype=np.float32)[:, None] / 100 + [[0.0, 0.5]], obs=obs)
    adata.uns["unlasting"] = {
        "keys": {"dose_key": "uM"},
        "target_embedding": {"names": np.array(["A", "B"], dtype=object), "matrix": np.array([[3.0, 0.0], [0.0, 3.0]])},
        "molecules": {
            "drugs": np.array(["W", "X", "Y", "Z"], dtype=object),
            "drug_smiles": np.array(["C", "C", "CC", "O"], dtype=object),
            "smiles": np.array(["C", "CC", "O"], dtype=object),
            "matrix": np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]),
        },
    }
    return adata


def _from(adata: AnnData, cells: np.ndarray) -> dict[str, int]:
    """Count the cells by the perturbation and dose that they come from."""
    rows = np.round(cells[:, 0] * 100).astype(int)
    assert len(set(rows)) == len(rows)
    return (adata.obs["perturbation"] + "@" + adata.obs["uM"]).iloc[rows].value_counts().to_dict()


def test_nearest_drug_is_the_most_similar_molecule_at_the_nearest_dose(doses):
    fitted = NearestTarget().fit(doses)
    assert _from(doses, fitted.predict(Condition("X", dose="1"), 100)) == {"W@5": 20}  # the same molecule
    doses = doses[doses.obs["perturbation"] != "W"].copy()
    doses.X[:, 0] = np.arange(len(doses)) / 100
    fitted = NearestTarget().fit(doses)
    # A+X is at cosine .71 from X, Y at .8
    assert _from(doses, fitted.predict(Condition("X", dose="1"), 100)) == {"Y@2": 20}
    assert _from(doses, fitted.predict(Condition("X", dose="0.3"), 100)) == {"Y@0.1": 20}
    assert _from(doses, fitted.predict(Condition("B+Y", dose="+1"), 100)) == {"Y@2": 20}


def test_linear_knows_drugs_by_their_molecules(doses):
    assert len(Linear().fit(doses).predict(Condition("X", dose="1"), 5)) == 5


def test_dose_interpolation_mixes_the_cells_of_the_neighbouring_doses(doses):
    fitted = DoseInterpolation().fit(doses)
    for wanted, below, above, share in (
        ("1", "X@0.1", "X@10", np.log(11 / 2) / np.log(101 / 2)),
        ("0.05", "control@", "X@0.1", np.log(1.5) / np.log(2)),
        ("0.1", "control@", "X@10", np.log(1.01) / np.log(2)),  # the dose itself is left out
    ):
        for n_cells in (10, 1_000):
            found = _from(doses, fitted.predict(Condition("X", dose=wanted), n_cells))
            assert set(found) <= {below, above}
            total = sum(found.values())
            assert found.get(above, 0) == pytest.approx(share * total, abs=1.5)
            assert n_cells != 10 or total == 10
        assert total >= 20


def test_dose_interpolation_has_a_straight_mean_and_ends_at_the_highest_dose(doses):
    assert _from(doses, DoseInterpolation().fit(doses).predict(Condition("X", dose="30"), 100)) == {"X@10": 20}
    even = doses.copy()
    even.X = np.where(doses.obs["uM"] == "10", 3.0, np.where(doses.obs["uM"] == "0.1", 1.0, 0.0))[:, None] + [
        [0.5, 0.5]
    ]
    share = np.log(11 / 2) / np.log(101 / 2)
    cells = DoseInterpolation().fit(even).predict(Condition("X", dose="1"), 100)
    np.testing.assert_allclose(cells.mean(axis=0), 1.5 + 2.0 * share, atol=0.05)


def test_where_no_dose_speaks(doses):
    for baseline in (DoseInterpolation, NearestDose):
        fitted = baseline().fit(doses)
        with pytest.raises(NoPrediction, match="no dose"):
            fitted.predict("X", 5)
        with pytest.raises(NoPrediction, match="no other dose is trained"):
            fitted.predict(Condition("Z", dose="1"), 5)
    with pytest.raises(NoPrediction, match="no single drug"):
        DoseInterpolation().fit(doses).predict(Condition("A+X", dose="+2"), 5)


def test_linear_is_ridge_with_the_penalty_that_leaves_one_out_best(screen):
    embedding = pd.DataFrame(np.random.default_rng(1).normal(size=(4, 2)), index=["A", "B", "C", "D"])
    fitted = Linear(embedding).fit(screen)
    features = np.array([embedding.loc[name.split("+")].sum(axis=0) for name in TRAINED])
    changes = np.array([_effect(screen, name, "one") for name in TRAINED])
    errors = {}
    for penalty in np.logspace(-3, 4, 15):
        left_out = [np.arange(4) != i for i in range(4)]
        predicted = [
            Ridge(penalty).fit(features[kept], changes[kept]).predict(features[[i]])[0]
            for i, kept in enumerate(left_out)
        ]
        errors[penalty] = np.mean((np.array(predicted) - changes) ** 2)
    best = Ridge(min(errors, key=errors.get)).fit(features, changes)
    shift = best.predict(embedding.loc[["D"]].to_numpy())[0]
    cells = fitted.predict(Condition("D", "one"), 1000)
    _same_cells(cells, _dense(screen, perturbation="control", cell_type="one") + shift)


def test_linear_knows_measured_genes_without_a_prior_and_others_with_it(screen):
    assert len(Linear().fit(screen).predict(Condition("D", "one"), 5)) == 5
    del screen.uns["unlasting"]["target_embedding"]
    fitted = Linear().fit(screen)
    with pytest.raises(NoPrediction, match="does not know D"):
        fitted.predict(Condition("D", "one"), 5)
    # only A, B and A+B are measured
    assert len(fitted.predict(Condition("gene0", "one"), 5)) == 5


def test_linear_recovers_a_linear_law():
    rng = np.random.default_rng(0)
    names = [f"T{i}" for i in range(40)]
    embedding = pd.DataFrame(rng.normal(size=(40, 3)), index=names)
    changes = embedding.to_numpy() @ rng.normal(size=(3, 8)) * 0.2
    labels = np.repeat(["control", *names], 5)
    values = 5 + np.repeat(np.vstack([np.zeros(8), changes]), 5, axis=0) + 0.01
    obs = pd.DataFrame(
        {"perturbation": labels, "unlasting_split": "train"}, index=[f"c{i}" for i in range(len(labels))]
    )
    obs.loc[obs["perturbation"].isin(names[30:]), "unlasting_split"] = "test"
    fitted = Linear(embedding).fit(AnnData(values, obs=obs))
    for i in range(30, 40):
        np.testing.assert_allclose(fitted.predict(Condition(names[i]), 1)[0], 5.01 + changes[i], atol=0.02)


def test_published_linear_solves_the_published_equations():
    """`(G'G + .1) W (P'P + .1) = G' (Y - b) P`, solved here as one system of equations."""
    rng = np.random.default_rng(0)
    names = [f"T{i}" for i in range(14)]
    changes = rng.normal(0, 0.4, (12, 20))
    labels = np.repeat(["control", *names], 4)
    values = 3 + np.repeat(np.vstack([np.zeros(20), changes, rng.normal(size=(2, 20))]), 4, axis=0) + 0.01
    obs = pd.DataFrame({"perturbation": labels, "unlasting_split": "train"}, index=map(str, range(len(labels))))
    obs.loc[obs["perturbation"].isin(names[12:]), "unlasting_split"] = "test"
    adata = AnnData(values, obs=obs)
    adata.var_names = [*names[:11], "other", *names[12:], *(f"gene{i}" for i in range(6))]  # T11 is not measured
    y = changes.T
    left, scale, _ = np.linalg.svd(y - y.mean(axis=0), full_matrices=False)
    genes = (left * scale)[:, :10]
    targets, b = genes[:11], y[:, :11].mean(axis=1)
    system = np.kron(targets.T @ targets + 0.1 * np.eye(10), genes.T @ genes + 0.1 * np.eye(10))
    right = genes.T @ (y[:, :11] - b[:, None]) @ targets
    weights = np.linalg.solve(system, right.T.ravel()).reshape(10, 10).T
    fitted = PublishedLinear().fit(adata)
    expected = genes @ weights @ genes[12] + b
    np.testing.assert_allclose(fitted.predict("T12", 1)[0], 3.01 + expected, atol=1e-4)
    with pytest.raises(NoPrediction, match="not measured"):
        fitted.predict("T11", 1)


def _similar_screen(informative: bool) -> AnnData:
    """Pairs of targets from almost equal to unrelated, whose effects agree where they are similar, or nowhere."""
    rng = np.random.default_rng(1)
    angle = np.linspace(0.05, 1.5, 8)
    names = [f"{side}{i}" for i in range(8) for side in "AB"]
    axes = np.eye(16).reshape(8, 2, 16)
    rows = [row for (x, y), a in zip(axes, angle, strict=True) for row in (x, np.cos(a) * x + np.sin(a) * y)]
    effects = {}
    for i, a in enumerate(angle):
        effects[f"A{i}"] = rng.normal(0, 1, 20)
        effects[f"B{i}"] = effects[f"A{i}"] if informative and a < 0.8 else rng.normal(0, 1, 20)
    labels = np.repeat(["control", *names], 25)
    values = [5 + effects.get(label, np.zeros(20)) + rng.normal(0, 0.3, 20) for label in labels]
    adata = AnnData(np.array(values), obs=pd.DataFrame({"perturbation": labels}, index=map(str, range(len(labels)))))
    adata.uns["unlasting"] = {"target_embedding": {"names": np.array(names, dtype=object), "matrix": np.array(rows)}}
    return adata


def test_nearest_target_or_nothing_chooses_the_threshold_that_leaves_out_best():
    adata = _similar_screen(informative=True)
    fitted = NearestTargetOrNothing().fit(adata)
    cells = {
        name: adata.X[np.flatnonzero(adata.obs["perturbation"] == name)] for name in set(adata.obs["perturbation"])
    }
    angle = np.linspace(0.05, 1.5, 8)

    def error(threshold: float) -> float:
        total = 0.0
        for i, a in enumerate(angle):
            for one, other in ((f"A{i}", f"B{i}"), (f"B{i}", f"A{i}")):
                given = cells[other] if np.cos(a) > threshold else cells["control"]
                total += e_distance(given, cells[one], unbiased=True)
        return total

    threshold = fitted.threshold("")
    assert threshold == pytest.approx(np.cos(angle)[angle > 0.8].max())
    assert error(threshold + 1e-9) == min(error(t) for t in (-1.0, *np.cos(angle) + 1e-9, 2.0))
    _same_cells(fitted.predict("A0", 100), cells["B0"].astype(np.float32))
    _same_cells(fitted.predict("A7", 100), cells["control"].astype(np.float32))
    # where no trained pair is worth copying, only a more similar one is
    adata = _similar_screen(informative=False)
    without = NearestTargetOrNothing().fit(adata)
    assert without.threshold("") == pytest.approx(np.cos(angle).max())
    controls = adata.X[np.flatnonzero(adata.obs["perturbation"] == "control")].astype(np.float32)
    _same_cells(without.predict("A0", 100), controls)
    stored = adata.uns["unlasting"]["target_embedding"]
    stored["names"] = np.append(stored["names"], "twin")
    stored["matrix"] = np.vstack([stored["matrix"], stored["matrix"][2]])
    twin = NearestTargetOrNothing().fit(adata).predict("twin", 100)
    _same_cells(twin, adata.X[np.flatnonzero(adata.obs["perturbation"] == stored["names"][2])].astype(np.float32))


# -- laws of all baselines

QUESTIONS = [Condition("B+C", "one"), Condition("A", "new"), Condition("D", "one"), Condition("A", "one")]


def _answers(baseline: Baseline, n_cells: int = 6, seed: int = 1) -> dict[Condition, np.ndarray]:
    """Ask a fitted baseline all questions to which it applies."""
    found = {}
    for question in QUESTIONS:
        with contextlib.suppress(NoPrediction):
            found[question] = baseline.predict(question, n_cells, seed=seed)
    return found


def _same_answers(found: dict[Condition, np.ndarray], expected: dict[Condition, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for question, cells in expected.items():
        np.testing.assert_allclose(found[question], cells, rtol=1e-4, atol=1e-5)


def test_every_baseline_answers_a_question_and_the_seed_decides(screen):
    for name, baseline in BASELINES.items():
        fitted = baseline().fit(screen)
        first, again, other = (_answers(fitted, seed=seed) for seed in (1, 1, 2))
        assert first or "dose" in name, name
        _same_answers(again, first)
        for question, cells in first.items():
            assert cells.shape == (6, screen.n_vars), name
            assert cells.dtype == np.float32, name
            assert np.isfinite(cells).all(), name
            assert not np.array_equal(cells, other[question]), name


def test_nothing_of_other_cells_enters(screen):
    changed = screen.copy()
    dense = changed.X.toarray()
    strange = np.flatnonzero(screen.obs["unlasting_split"] != "train")
    dense[strange] = np.random.default_rng(9).gamma(3, size=(len(strange), changed.n_vars))
    changed.X = sparse.csr_matrix(dense)
    for baseline in BASELINES.values():
        _same_answers(_answers(baseline().fit(changed)), _answers(baseline().fit(screen)))


def test_order_of_rows_and_genes_does_not_matter(screen):
    rng = np.random.default_rng(5)
    rows, genes = rng.permutation(screen.n_obs), rng.permutation(screen.n_vars)
    moved = screen[rows][:, genes].copy()
    for baseline in BASELINES.values():
        expected = {question: cells[:, genes] for question, cells in _answers(baseline().fit(screen)).items()}
        _same_answers(_answers(baseline().fit(moved)), expected)


def test_dense_and_sparse_are_the_same_and_the_screen_stays_as_it_was(screen):
    dense, before = screen.copy(), screen.copy()
    dense.X = dense.X.toarray()
    for baseline in BASELINES.values():
        _same_answers(_answers(baseline().fit(dense)), _answers(baseline().fit(screen)))
    assert screen.uns.keys() == before.uns.keys()
    pd.testing.assert_frame_equal(screen.obs, before.obs)
    np.testing.assert_array_equal(screen.X.toarray(), before.X.toarray())


def test_only_the_ceiling_sees_the_condition_itself(screen):
    assert [name for name, baseline in BASELINES.items() if baseline.is_ceiling] == ["training cells"]
    fitted = BASELINES["training cells"]().fit(screen)
    _same_cells(fitted.predict(Condition("A", "one"), 1000), _dense(screen, perturbation="A", cell_type="one"))
    with pytest.raises(NoPrediction, match="not trained"):
        fitted.predict(Condition("D", "one"), 5)


def test_other_names_of_columns(screen):
    renamed = screen.copy()
    renamed.obs = renamed.obs.rename(columns={"perturbation": "guide", "unlasting_split": "part"})
    renamed.obs["guide"] = renamed.obs["guide"].astype(object).replace({"control": "NT", "A+B": "A|B", "B+C": "B|C"})
    labels = {"perturbation_key": "guide", "control": "NT", "split_key": "part", "delimiter": "|"}
    found = Additive().fit(renamed, **labels).predict(Condition("B|C", "one"), 6)
    np.testing.assert_allclose(found, Additive().fit(screen).predict(Condition("B+C", "one"), 6), rtol=1e-5, atol=1e-6)


def test_a_cell_type_without_controls_is_missing(screen):
    adata = screen[screen.obs["cell_type"] != "new"].copy()
    with pytest.raises(NoPrediction, match="controls"):
        NoEffect().fit(adata).predict(Condition("A", "new"), 5)


def test_errors_name_the_way_out(screen):
    with pytest.raises(RuntimeError, match=r"NoEffect is not fitted: call `fit"):
        NoEffect().predict("A", 5)
    repeated = pd.DataFrame([[1.0], [2.0]], index=["A", "A"])
    with pytest.raises(ValueError, match="'A' more than once"):
        Linear(repeated).fit(screen)
    with pytest.raises(ValueError, match="missing or infinite"):
        NearestTarget(pd.DataFrame([[np.nan]], index=["A"])).fit(screen)
    two = screen[screen.obs["perturbation"].isin(["control", "A", "B"])].copy()
    with pytest.raises(NoPrediction, match="fewer than 3"):
        Linear().fit(two).predict(Condition("A", "one"), 5)


class _Recorder:
    """A model that tells how it was asked."""

    def __init__(self, adata: AnnData) -> None:
        self.adata = adata
        adata.obs["touched"] = 1

    def generate(self, perturbation: str, n_cells: int, **options: object) -> AnnData:
        if perturbation == "X":
            raise ValueError("nothing is known of 'X'")
        self.asked = (perturbation, n_cells, options)
        return self.adata[:n_cells, ::-1].copy()


def test_a_model_answers_in_the_order_of_the_genes(screen):
    predictor = ModelPredictor(_Recorder).fit(screen)
    cells = predictor.predict(Condition("A", "one"), 4, seed=7)
    np.testing.assert_array_equal(cells, screen.X[:4].toarray())
    assert predictor.model_.asked == ("A", 4, {"seed": 7, "cell_type": "one"})
    assert "touched" not in screen.obs
    with pytest.raises(NoPrediction, match="nothing is known of 'X'"):
        predictor.predict(Condition("X"), 4)
