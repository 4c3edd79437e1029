"""The effects model as a whole: fit, prediction and state."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import torch
from scipy import sparse

from unlasting.effects import (
    NO_DOSE,
    EffectsModel,
    ExpectedParameters,
    ScreenCells,
    TargetVocabulary,
    condition_tensors,
)
from unlasting.screen import Perturbation

N_GENES = 30
GENES = [f"G{i}" for i in range(N_GENES)]
CONDITIONS = [
    Perturbation(),
    *(Perturbation((name,)) for name in ("G0", "G1", "IFN")),
    Perturbation(("G0", "G1")),
    *(Perturbation(("drugA",), (dose,)) for dose in (0.1, 1.0)),
    Perturbation(("drugB",), (1.0,)),
]


def screen(seed: int = 0) -> ScreenCells:
    """G0 and drugA (both doses alike) raise genes 10 to 19; IFN switches genes 20 to 24 on; two populations."""
    rng = np.random.default_rng(seed)
    condition = np.repeat(np.arange(8), [300, *[80] * 7])
    population, split = rng.integers(2, size=len(condition)), rng.choice([0, 0, 0, 2], size=len(condition))
    cells = rng.normal(2.0, 0.4, (len(condition), N_GENES)) + 0.5 * population[:, None] * (np.arange(N_GENES) < 5)
    cells[:, 10:20] += 1.0 * np.isin(condition, [1, 4, 5, 6])[:, None]
    rate = np.full(cells.shape, 0.7)
    rate[:, 20:25] = np.where(condition == 3, 0.95, 0.4)[:, None]
    rate[:, 0] = np.where(np.isin(condition, [1, 4]), 0.2, 0.7)
    cells = np.where(rng.random(cells.shape) < rate, cells.clip(0.1), 0.0)
    return ScreenCells(sparse.csr_matrix(cells.astype(np.float32)), condition, population, split, 8, 2)


VOCABULARY = TargetVocabulary(
    nodes=[*GENES, "TFX"],
    trained_conditions=CONDITIONS[1:],
    embedded=GENES[:4],
    features=np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.1, 1.0]]),
    drugs={"drugA": "CCN", "drugB": "CCO", "drugC": "CCC"},
    smiles=["CCN", "CCO"],
    molecules=np.eye(2, dtype=np.float32),
)


@pytest.fixture(scope="module")
def model() -> EffectsModel:
    return EffectsModel.fit(screen(), CONDITIONS, VOCABULARY)


@pytest.fixture(scope="module")
def populations(model):
    return model.statistics.populations(torch.tensor([0, 1]))


def test_measured_conditions_are_predicted_and_the_control_is_unchanged(model, populations):
    cells = screen()
    found = model.predict(CONDITIONS, populations[torch.zeros(8, dtype=torch.long)])
    for part, controls in (
        ("log_odds", populations.log_odds),
        ("base", populations.base),
        ("scale", populations.scale),
    ):
        torch.testing.assert_close(getattr(found, part)[0], controls[0], rtol=0, atol=0)
    x_max = float(model.statistics.x_max)
    for code in (1, 3, 6):
        rows = (cells.condition == code) & (cells.split == 0)
        values = cells.matrix[rows].toarray()
        expressed = np.array([column[column > 0].mean() for column in values.T]) / x_max
        np.testing.assert_allclose(found.base[code, 10:20], expressed[10:20], atol=0.05)
    assert (found.base[1, 10:20] - found.base[0, 10:20]).min() > 0.5 / x_max
    assert (found.log_odds[3, 20:25] - found.log_odds[0, 20:25]).min() > 1.5
    assert found.log_odds[1, 0] < found.log_odds[0, 0] - 1.0  # on target


def test_an_unseen_gene_acts_like_a_similar_one(model, populations):
    similar, other = model.effects([Perturbation(("G2",)), Perturbation(("G3",))], populations)
    assert similar[1, 10:20].mean() > 5 * abs(other[1, 10:20].mean())
    support = model.support([CONDITIONS[1], Perturbation(), *(Perturbation((name,)) for name in ("G2", "TFX", "NEW"))])
    assert support[:2].tolist() == [1.0, 1.0]
    assert support[3:].max() < support[2] < 1.0
    assert model.support([Perturbation(("drugC",), (1.0,))]).item() < 0.1


def test_a_dose_is_the_same_condition_for_support_of_the_networks(model):
    asked = [CONDITIONS[5], Perturbation(("drugA",), (0.5,)), Perturbation(("drugC",), (0.5,)), Perturbation(("G2",))]
    assert model.is_trained(asked).tolist() == [True, True, False, False]
    others = [Perturbation(("G0", "drugA"), (None, 2.0)), Perturbation()]
    tensors = condition_tensors([*asked, *others], model)
    support = model.support(asked)
    np.testing.assert_allclose(tensors.weight[:4], [1.0, 1.0, support[2] ** 4, support[3] ** 4], rtol=1e-6)
    assert tensors.kind.tolist() == [[1, -1], [1, -1], [1, -1], [0, -1], [0, 1], [-1, -1]]
    assert tensors.node.tolist() == [[-1, -1], [-1, -1], [-1, -1], [2, -1], [0, -1], [-1, -1]]
    assert tensors.molecule.tolist() == [[0, -1], [0, -1], [-1, -1], [-1, -1], [-1, 0], [-1, -1]]
    assert tensors.dose[4].tolist() == pytest.approx([NO_DOSE, np.log1p(2.0)])
    np.testing.assert_array_equal(tensors.features, model.features([*asked, *others]).toarray())
    with pytest.raises(ValueError, match="are one molecule, 'CCN'"):
        condition_tensors([Perturbation(("drugA", "CCN"), (1.0, 1.0))], model)


def test_pairs_are_predicted_once(model, populations, monkeypatch):
    expected = ExpectedParameters(model, CONDITIONS, populations)
    condition, population = torch.tensor([1, 3, 1, -1]), torch.tensor([0, 1, 0, 1])
    found = expected(condition, population)
    direct = model.predict([CONDITIONS[code] for code in condition], populations[population])
    for name, values in vars(direct).items():
        torch.testing.assert_close(getattr(found, name), values, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(EffectsModel, "predict", None)
    torch.testing.assert_close(expected(condition, population).base, found.base, rtol=0, atol=0)
    without = ExpectedParameters(None, CONDITIONS, populations)
    torch.testing.assert_close(without(condition, population).base, populations.base[population])


def test_the_state_restores_the_model(model, populations):
    copies = [
        EffectsModel.from_state(model.state(), VOCABULARY),
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
    ]
    asked = [*CONDITIONS, Perturbation(("G2",)), Perturbation(("drugC",), (3.0,))]
    rows = torch.zeros(len(asked), dtype=torch.long)
    for other in copies:
        for name, values in vars(model.predict(asked, populations[rows])).items():
            assert torch.equal(values, getattr(other.predict(asked, populations[rows]), name))
        np.testing.assert_array_equal(other.support(asked), model.support(asked))
        np.testing.assert_array_equal(other.nonresponder_share(asked), model.nonresponder_share(asked))
        for name, array in model.state().items():
            np.testing.assert_array_equal(other.state()[name], array, err_msg=name)
            assert other.state()[name].shape == array.shape


def test_test_cells_are_not_read(model):
    cells = screen()
    spoilt = cells.matrix.toarray()
    spoilt[cells.split == 2] = 9.0
    other = ScreenCells(spoilt, cells.condition, cells.population, cells.split, 8, 2)
    state = EffectsModel.fit(other, CONDITIONS, VOCABULARY).state()
    for name, array in model.state().items():
        np.testing.assert_array_equal(state[name], array, err_msg=name)


def test_validation_controls_are_not_read(model):
    cells = screen()
    split = np.where((cells.condition == 0) & (np.arange(len(cells.condition)) % 4 == 0), 1, cells.split)
    spoilt = cells.matrix.toarray()
    spoilt[(split == 1) & (cells.condition == 0)] = 9.0
    one, other = (
        EffectsModel.fit(dataclasses.replace(cells, matrix=matrix, split=split), CONDITIONS, VOCABULARY).state()
        for matrix in (cells.matrix, sparse.csr_matrix(spoilt))
    )
    for name, array in one.items():
        np.testing.assert_array_equal(other[name], array, err_msg=name)


def test_the_order_of_the_cells_changes_nothing(model):
    cells = screen()
    order = np.random.default_rng(0).permutation(len(cells.condition))
    moved = {name: getattr(cells, name)[order] for name in ("matrix", "condition", "population", "split")}
    state = EffectsModel.fit(dataclasses.replace(cells, **moved), CONDITIONS, VOCABULARY).state()
    for name, array in model.state().items():
        np.testing.assert_allclose(state[name], array, rtol=1e-4, atol=1e-5, err_msg=name)


def test_dose_zero_is_the_control_and_is_reached_continuously(model, populations):
    """With the correction of the controls, whose part is the dose's share of the effect."""
    assert populations.correction.abs().max() > 0.01
    doses = (1.0, 0.1, 1e-2, 1e-4, 1e-8, 1e-30)
    for targets in (("drugA",), ("drugC",), ("drugA", "drugB")):
        asked = [Perturbation(targets, (dose,) * len(targets)) for dose in doses]
        found = model.predict([*asked, Perturbation()], populations[torch.zeros(7, dtype=torch.long)])
        for name, values in vars(found).items():
            np.testing.assert_array_equal(values[-1], getattr(populations, name)[0])
            distance = (values[:-1] - values[-1]).abs().amax(dim=1)
            assert len(targets) > 1 or (distance.diff() <= 1e-6).all()
            assert distance[-1] < 1e-6


def test_an_untrained_combination_starts_at_its_gene(model, populations):
    """No slope applies to a trained gene as long as the drug beside it does not act."""
    doses = (1e-30, 1e-9, 1e-6)
    for gene, drug in (("G0", "drugB"), ("G1", "drugC"), ("G2", "drugC")):
        asked = [Perturbation((gene, drug), (None, dose)) for dose in doses]
        *near, alone = model.effects([*asked, Perturbation((gene,))], populations[torch.zeros(4, dtype=torch.long)])
        for effects, atol in zip(near, (1e-6, 1e-4, 1e-2), strict=True):
            np.testing.assert_allclose(effects, alone, atol=atol)


def test_few_controls_lose_their_sampling_error():
    """Twenty perturbations without any effect tell of the controls' means what 60 control cells do not."""
    rng, n_genes = np.random.default_rng(0), 500
    rate, value = np.geomspace(0.01, 0.2, n_genes), rng.uniform(1, 2, n_genes)
    condition = np.repeat(np.arange(21), [60, *[150] * 20])
    cells = rng.normal(value, 0.3, (len(condition), n_genes)).clip(0.1)
    cells = np.where(rng.random(cells.shape) < rate, cells, 0.0).astype(np.float32)
    zeros, genes = np.zeros(len(condition), dtype=int), [f"G{i}" for i in range(n_genes)]
    conditions = [Perturbation(), *(Perturbation((gene,)) for gene in genes[:20])]
    known = dataclasses.replace(
        VOCABULARY,
        nodes=genes,
        trained_conditions=conditions[1:],
        embedded=genes[:30],
        features=(rng.random((30, 8)) < 0.4) + 0.0,
    )
    model = EffectsModel.fit(ScreenCells(sparse.csr_matrix(cells), condition, zeros, zeros, 21, 1), conditions, known)
    controls, x_max = model.statistics.populations(torch.tensor([0])), float(model.statistics.x_max)

    def error(parameters) -> float:
        mean = torch.sigmoid(parameters.log_odds) * parameters.base * x_max
        return float(((mean[0].numpy() - rate * value) ** 2).mean())

    observed = float(((cells[:60].mean(axis=0) - rate * value) ** 2).mean())
    assert error(controls.hurdle_parameters()) == pytest.approx(observed, rel=0.05)
    assert error(model.predict([Perturbation(("G25",))], controls)) < 0.05 * observed
    for name, values in vars(model.predict([Perturbation()], controls)).items():
        np.testing.assert_array_equal(values, getattr(controls, name))


def test_batches_of_one_cell_type_are_one_context():
    cells = screen()
    batches = EffectsModel.fit(dataclasses.replace(cells, cell_type=np.zeros(2, dtype=int)), CONDITIONS, VOCABULARY)
    assert batches.regression.coefficients.shape[1] == len(batches.regression.contexts.profiles) == 1
    populations = batches.statistics.populations(torch.tensor([0, 0]))
    one, other = (batches.effects(CONDITIONS, populations[torch.full((8,), code)]) for code in (0, 1))
    np.testing.assert_array_equal(one, other)
    assert one[1, 1, 10:20].min() > 1.0


def test_options_reach_the_parts():
    cells = screen()
    cells.matrix.data[:] = 2.0
    plain = EffectsModel.fit(cells, CONDITIONS, VOCABULARY, mode="activation", use_mask=False, use_responders=False)
    assert not plain.mixture.share.any()
    assert plain.nonresponder_share(CONDITIONS).tolist() == [0.0] * 8
    assert (plain.statistics.control_log_odds > 4).all()  # zeros count as expressed values
