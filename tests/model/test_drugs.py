"""One model for gene targets, drugs with doses, a stimulus, and their combinations."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from unlasting import datasets, pp
from unlasting.data import PERTURBATION
from unlasting.effects import DRUG, GENE, STIMULUS, MolecularSimilarity
from unlasting.model import UnlastingModel
from unlasting.screen import Perturbation, ScreenKeys, logger

pytestmark = pytest.mark.slow

QUIET = {"show_progress": False}
SETUP = {"dose_key": "dose", "cell_type_key": "cell_type"}
UP, DOWN, OTHER = np.arange(20, 30), np.arange(10, 20), np.arange(40, 50)
REST = np.r_[0:3, 4:10, 50:60]
ASKED = {"G3": None, "drugA": 1.0, "synonym": 1.0, "drugC": 1.0, "drugN": 1.0, "IFN": None}
LABELS = ["control", "G3", "drugA", "synonym", "drugC", "G3+drugA", "IFN"]
DOSES = [0.1, 1.0, 10.0]


def with_molecules(adata: AnnData) -> AnnData:
    """`drugA` and `synonym` are one molecule, `drugN` (never trained) is much like it, `drugC` is another."""
    matrix = np.eye(4, 6, dtype=np.float32)
    matrix[3] = [0.0, 0.98, 0.0, 0.0, 0.2, 0.0]
    adata.uns["unlasting"]["molecules"] = {
        "smiles": np.array(["C", "CCN", "CCO", "CCON"], dtype=object),
        "matrix": matrix / np.linalg.norm(matrix, axis=1, keepdims=True),
        "drugs": np.array(["drugA", "drugC", "drugN", "other", "synonym"], dtype=object),
        "drug_smiles": np.array(["CCN", "CCO", "CCON", "C", "CCN"], dtype=object),
        "kind": "given",
    }
    return adata


def drug_screen(base: AnnData, seed: int = 7) -> AnnData:
    """`G3` switches genes 10-19 off; `drugA` switches 20-29 on, half of it at 1 uM; `drugC` and `IFN` 40-49."""
    rng = np.random.default_rng(seed)
    n = base.n_obs
    label = rng.choice(LABELS, size=n, p=[0.3, 0.12, 0.14, 0.08, 0.14, 0.1, 0.12])
    dose = rng.choice(DOSES, size=n)
    rate = np.tile(rng.gamma(2.0, 1.0, size=60) + 0.3, (n, 1))
    has = {name: np.array([name in one.split("+") for one in label]) for name in ("G3", "drugA", "drugC", "IFN")}
    has["drugA"] |= label == "synonym"
    rate[np.ix_(has["G3"], DOWN)] *= 0.1
    rate[:, UP] *= np.where(has["drugA"], 1 + 5 * dose / (1 + dose), 1.0)[:, None]
    rate[:, OTHER] *= np.where(has["drugC"], 1 + 5 * dose / (1 + dose), np.where(has["IFN"], 6.0, 1.0))[:, None]
    counts = rng.poisson(rate)
    adata = base.copy()
    adata.X = sparse.csr_matrix(np.log1p(counts / counts.sum(1).mean() * 100).astype(np.float32))
    adata.obs["perturbation"] = pd.Categorical(label)
    adata.obs["dose"] = dose  # for controls, genes and the stimulus too, where it means nothing
    return with_molecules(adata)


@pytest.fixture(scope="session")
def drugs(screen) -> AnnData:
    return drug_screen(screen(n_cells=900))


@pytest.fixture(scope="session")
def trained(build, drugs) -> UnlastingModel:
    return build(drugs, train=60, **SETUP)


@pytest.fixture(scope="session")
def published(build, drugs) -> UnlastingModel:
    adata = drugs[drugs.obs["perturbation"] != "IFN"].copy()
    return build(adata, "paper", train=20, **SETUP)


@pytest.fixture(scope="session", params=["default", "paper"])
def any_preset(request, trained, published) -> UnlastingModel:
    return trained if request.param == "default" else published


def dense(adata: AnnData) -> np.ndarray:
    return adata.X.toarray()


def mean_change(model: UnlastingModel, *asked: str, **options) -> np.ndarray:
    cells = [
        dense(model.generate(label, 150, seed=0, **kw, **QUIET)) for label, kw in (("control", {}), (*asked, options))
    ]
    return cells[1].mean(0) - cells[0].mean(0)


# -- what a label is


def test_every_name_has_a_kind(drugs, caplog):
    adata = drugs.copy()
    logger.addHandler(caplog.handler)
    try:
        UnlastingModel.setup_anndata(adata, **SETUP)
    finally:
        logger.removeHandler(caplog.handler)
    assert "1 gene targets, 2 drugs, 1 stimuli (IFN)" in caplog.text


def test_the_vocabulary_keeps_kinds_apart(trained):
    known = trained.vocabulary
    assert [known.target(name)[0] for name in ("G3", "TFX", "NEW1", "drugA", "CCO", "IFN", "typo")] == [
        *(GENE, GENE, GENE, DRUG, DRUG),
        *(STIMULUS, STIMULUS),
    ]
    assert known.target("drugA") == known.target("synonym") == known.target("CCN")
    assert known.trained_targets == [(GENE, "G3"), (DRUG, "CCN"), (DRUG, "CCO"), (STIMULUS, "IFN")]
    features = {
        label: trained.effects_model.features([Perturbation.parse(label, dose)]).toarray()[0]
        for label, dose in ASKED.items()
    }
    np.testing.assert_array_equal(features["drugA"], features["synonym"])
    assert features["drugN"] @ features["drugA"] > 2 * features["drugN"] @ features["drugC"] > 0
    assert features["drugA"] @ features["G3"] == features["drugA"] @ features["IFN"] == 0


def test_conditions_are_labels_at_doses(trained, drugs):
    state = trained._state(PERTURBATION)
    written = set(zip(state["conditions"], state["doses"], strict=True))
    of_drugs = {(name, f"{dose:g}") for name in ("drugA", "synonym", "drugC") for dose in DOSES}
    pairs = {("G3+drugA", f"+{dose:g}") for dose in DOSES}
    assert written == {("control", ""), ("G3", ""), ("IFN", "")} | of_drugs | pairs
    codes = trained.adata.obs["_unlasting_perturbation"].to_numpy()
    one = ((drugs.obs["perturbation"] == "drugC") & (drugs.obs["dose"] == 1.0)).to_numpy()
    assert len(set(codes[one])) == 1
    assert (state["conditions"][codes[one][0]], state["doses"][codes[one][0]]) == ("drugC", "1")


# -- laws


def test_combinations_have_no_order(any_preset):
    pairs = [(("G3+drugA", 1.0), ("drugA+G3", 1.0)), (("drugC+drugA", "1+0.5"), ("drugA+drugC", "0.5+1"))]
    for (one, dose), (other, other_dose) in pairs:
        first, second = (any_preset.generate(a, 10, dose=d, **QUIET) for a, d in ((one, dose), (other, other_dose)))
        np.testing.assert_array_equal(dense(first), dense(second))
        assert first.obs.equals(second.obs)


def test_dose_zero_is_control_exactly(any_preset):
    null = any_preset.generate("control", 20, **QUIET)
    for label, dose in (("drugA", 0), ("drugA", "0.0"), ("drugA+drugC", "0+0"), ("drugN", 0.0)):
        new = any_preset.generate(label, 20, dose=dose, **QUIET)
        np.testing.assert_array_equal(dense(new), dense(null))
        assert set(new.obs["perturbation"]) == {"control"}
    pair, gene = any_preset.generate("G3+drugA", 20, dose=0, **QUIET), any_preset.generate("G3", 20, **QUIET)
    np.testing.assert_array_equal(dense(pair), dense(gene))


def test_a_dose_near_zero_is_near_control(trained):
    near, null = trained.generate("drugA", 20, dose=1e-7, **QUIET), trained.generate("control", 20, **QUIET)
    assert np.mean((dense(near) > 0) != (dense(null) > 0)) < 0.01
    both = (dense(near) > 0) & (dense(null) > 0)
    assert np.abs(dense(near) - dense(null))[both].max() < 0.05


def test_one_molecule_under_two_names_is_one_drug(any_preset):
    one, other, smiles = (any_preset.generate(name, 15, dose=1.0, **QUIET) for name in ("drugA", "synonym", "CCN"))
    np.testing.assert_array_equal(dense(one), dense(other))
    np.testing.assert_array_equal(dense(one), dense(smiles))
    assert list(smiles.uns["unlasting"]["generated"]["unseen_targets"]) == []
    assert list(smiles.uns["unlasting"]["generated"]["unseen_conditions"]) == []


def test_a_trained_combination_is_itself_under_another_name(any_preset):
    one, other = (any_preset.generate(name, 10, dose=1.0, **QUIET) for name in ("G3+drugA", "synonym+G3"))
    np.testing.assert_array_equal(dense(one), dense(other))
    assert list(other.uns["unlasting"]["generated"]["unseen_conditions"]) == []


def test_no_perturbation_returns_the_control_cell(trained, drugs):
    controls = drugs[drugs.obs["perturbation"] == "control"].copy()
    trained.predict(controls, "drugA", 0.0, **QUIET)
    before, after = dense(controls), controls.layers["unlasting"].toarray()
    assert np.array_equal(before > 0, after > 0)
    assert np.abs(before - after).max() < 1e-3 * float(trained.module.statistics.x_max)


# -- what is learnt


def test_the_response_rises_with_the_dose(trained):
    doses = [0.01, 0.1, 0.3, 1.0, 10.0]
    new = trained.generate("drugA", 150, dose=doses, seed=0, **QUIET)
    rise = [dense(new)[(new.obs["dose"] == dose).to_numpy()][:, UP].mean() for dose in doses]
    assert rise == sorted(rise)
    assert rise[-1] - rise[0] > 0.3


def test_a_dose_beside_a_trained_one_gives_the_same_cells(trained):
    """What the networks learnt of a drug holds at all its doses; else curves would jump at the trained ones."""
    new = trained.generate("drugA", 100, dose=[1.0, 1.00001], seed=0, **QUIET)
    at, beside = (dense(new)[(new.obs["dose"] == dose).to_numpy()] for dose in (1.0, 1.00001))
    assert np.mean(np.abs(at - beside) < 1e-3) > 0.999
    shares = [trained._tensors(trained._all_asked([label], 1.00001)).weight.item() for label in ("drugA", "drugN")]
    assert shares[1] < shares[0] == 1.0


def test_gene_and_drug_together_were_learnt_apart(trained):
    """`G3+drugC` was never trained, neither gene nor drug with any partner of this kind."""
    change = mean_change(trained, "G3+drugC", dose=10.0)
    assert change[DOWN].mean() < -3 * np.abs(change[REST]).mean()
    assert change[OTHER].mean() > 3 * np.abs(change[REST]).mean()


def test_a_drug_that_was_never_trained_acts_like_one_that_resembles_it(trained):
    like_a, other = mean_change(trained, "drugN", dose=10.0), mean_change(trained, "drugC", dose=10.0)
    assert like_a[UP].mean() > 2 * np.abs(like_a[OTHER]).mean()
    assert other[OTHER].mean() > 2 * np.abs(other[UP]).mean()
    made = trained.generate(["drugN", "drugA"], 3, dose=1.0, **QUIET)
    assert list(made.uns["unlasting"]["generated"]["unseen_targets"]) == ["drugN"]
    error = made.obs.groupby("perturbation", observed=True)["unlasting_expected_error"].first()
    assert error["drugA"] < error["drugN"] < 1.0


def test_a_stimulus_acts_in_a_cell_type_that_was_not_trained(trained, drugs):
    controls = drugs[drugs.obs["perturbation"] == "control"].copy()
    controls.obs["cell_type"] = "NK"
    del controls.obs["dose"]  # controls have none
    new = trained.generate(["IFN", "control"], 100, controls=controls, **QUIET)
    by_label = {name: dense(new[new.obs["perturbation"] == name]).mean(0) for name in ("IFN", "control")}
    change = by_label["IFN"] - by_label["control"]
    assert change[OTHER].mean() > 3 * np.abs(change[REST]).mean()


# -- doses in and out


def test_doses_come_back_under_their_key(any_preset, tmp_path):
    new = any_preset.generate(["drugA", "G3", "drugC"], 2, dose=[0.5, None, 20], **QUIET)
    dose = new.obs.groupby("perturbation", observed=True)["dose"].first()
    assert (dose["drugA"], dose["drugC"]) == (0.5, 20.0)
    assert np.isnan(dose["G3"])
    beyond = new.obs.groupby("perturbation", observed=True)["unlasting_dose_extrapolated"].first()
    assert beyond.to_dict() == {"drugA": False, "G3": False, "drugC": True}
    assert list(new.uns["unlasting"]["generated"]["unseen_conditions"]) == ["drugA at 0.5 uM", "drugC at 20 uM"]
    assert [p.doses for p in ScreenKeys.read(new).perturbations(new)[::4]] == [(0.5,), (None,), (20.0,)]
    new.write_h5ad(tmp_path / "new.h5ad")
    assert anndata.read_h5ad(tmp_path / "new.h5ad").obs["dose"].dtype == float

    pair = any_preset.generate("drugC+drugA", 2, dose="1+0.5", **QUIET)
    assert set(pair.obs["dose"]) == {"0.5+1"}  # in the order of the label that it stands beside
    assert set(pair.obs["perturbation"]) == {"drugA+drugC"}
    assert {p.doses for p in ScreenKeys.read(pair).perturbations(pair)} == {(0.5, 1.0)}


def test_an_untrained_drug_is_extrapolated_beyond_all_doses(trained):
    new = trained.generate("drugN", 1, dose=[0.05, 5.0, 50.0], cell_type="B", **QUIET)
    assert new.obs.set_index("dose")["unlasting_dose_extrapolated"].to_dict() == {0.05: True, 5.0: False, 50.0: True}


def test_one_dose_for_all_and_several_for_one(trained):
    one = trained.generate(["drugA", "drugC", "G3"], 1, dose=1.0, cell_type="B", **QUIET)
    assert one.obs["dose"].fillna(-1).tolist() == [1.0, 1.0, -1.0]
    several = trained.generate("drugA", 1, dose=np.array([0.1, 1.0, 0.1], dtype=np.float32), cell_type="B", **QUIET)
    assert several.obs["dose"].tolist() == [0.1, 1.0]  # each once


def test_every_cell_is_predicted_at_its_own_dose(trained, drugs):
    """The cells of a drug at high dose differ from those at low dose, and follow a call with that dose."""
    written = trained.predict(cells="all", copy=True, seed=0, **QUIET)
    layer, obs = written.layers["unlasting"].toarray(), written.obs
    low, high = (layer[((obs["perturbation"] == "drugA") & (obs["dose"] == d)).to_numpy()][:, UP] for d in (0.1, 10.0))
    assert high.mean() - low.mean() > 0.2


def test_encode_and_decode_know_the_dose(trained, drugs):
    chosen = (drugs.obs["perturbation"] == "drugA") & (drugs.obs["dose"] == 10.0) & (drugs.obs["cell_type"] == "B")
    cells = drugs[chosen.to_numpy()].copy()
    latent = trained.encode(cells, seed=1)
    np.testing.assert_allclose(trained.encode(cells, "drugA", 10.0, seed=1), latent, atol=1e-6)
    assert np.abs(trained.encode(cells, "drugA", 0.1, seed=1) - latent).max() > 0.05
    mask = dense(cells) > 0
    back = trained.decode(latent, "synonym", 10.0, mask=mask, cell_type="B")
    np.testing.assert_allclose(back, dense(cells), atol=5e-3 * float(trained.module.statistics.x_max))


# -- refusals


REFUSED = [
    ({"perturbations": "drugA"}, "The drug 'drugA' of 'drugA' has no dose. Give `dose` in uM"),
    ({"perturbations": "drugA", "dose": -1}, "'-1' of 'drugA' is not a number of uM"),
    ({"perturbations": "drugA", "dose": "high"}, "'high' of 'drugA' is no number"),
    ({"perturbations": "drugA", "dose": "1+2"}, "has 2 parts for 1 drugs"),
    ({"perturbations": "drugA+drugC", "dose": 1.0}, r"has 1 parts for 2 drugs.*such as '1\+0.5'"),
    ({"perturbations": "drugA", "dose": []}, "`dose` is empty"),
    ({"perturbations": ["drugA", "drugC"], "dose": [1, 2, 3]}, "`perturbations` has 2 entries and `dose` 3"),
    ({"perturbations": "drugA+synonym", "dose": "1+1"}, "'drugA' and 'synonym' are one molecule, 'CCN'"),
    (
        {"perturbations": "drugX", "dose": 1.0},
        "Nothing is known of the target 'drugX'.*Did you mean 'drug.'.*pp.molecules",
    ),
    ({"perturbations": "TNF"}, "Nothing is known of the target 'TNF'.*A stimulus has to be trained"),
]


def test_generate_refuses(any_preset):
    for arguments, message in REFUSED:
        with pytest.raises(ValueError, match=message):
            any_preset.generate(**arguments, **QUIET)


def test_predict_refuses_doses(trained, drugs, unchanged):
    controls = drugs[drugs.obs["perturbation"] == "control"].copy()
    same = unchanged(controls)
    for arguments, message in (
        ({"perturbation": "drugA"}, "'drugA' of 'drugA' has no dose"),
        ({"perturbation": "drugA", "dose": "x"}, "'x' of 'drugA' is no number"),
        ({"dose": 1.0}, "`dose` is 1.0 without `perturbation`"),
    ):
        with pytest.raises(ValueError, match=message):
            trained.predict(controls, **arguments, **QUIET)
    same()


WRONG_DOSES = [
    (lambda obs: obs["dose"].where(obs["perturbation"] != "drugC", -2.0), "`dose_key='dose'`.*'-2.0' of 'drugC'"),
    (lambda obs: obs["dose"].astype(object).where(obs["perturbation"] != "drugC", "low"), "'low' of 'drugC'"),
    (lambda obs: obs["dose"].where(obs["perturbation"] != "drugC"), "'drugC' has none in some cells"),
]


def test_setup_refuses_doses(drugs, unchanged):
    for change, message in WRONG_DOSES:
        adata = drugs.copy()
        adata.obs["dose"] = change(adata.obs)
        same = unchanged(adata)
        with pytest.raises(ValueError, match=message):
            UnlastingModel.setup_anndata(adata, **SETUP)
        same()


def test_setup_refuses_drugs_without_molecules(drugs, unchanged):
    adata = drugs.copy()
    adata.obs["smiles"] = np.where(adata.obs["perturbation"].isin(["drugC", "IFN"]), "CCO", "")
    same = unchanged(adata)
    with pytest.raises(
        ValueError, match=r"drugs \['IFN'\] have a SMILES.*Call `pp.molecules\(adata, smiles_key='smiles'\)`"
    ):
        UnlastingModel.setup_anndata(adata, smiles_key="smiles", **SETUP)
    same()
    del adata.uns["unlasting"]["molecules"]
    same = unchanged(adata)
    with pytest.raises(ValueError, match="`dose_key='dose'`.*'G3.drugA' has 1 parts.*call `pp.molecules` first"):
        UnlastingModel.setup_anndata(adata, **SETUP)
    same()


def test_drugs_with_doses_but_without_molecules_are_known_by_name(drugs):
    adata = drugs[drugs.obs["perturbation"] != "G3+drugA"].copy()
    del adata.uns["unlasting"]["molecules"]
    UnlastingModel.setup_anndata(adata, **SETUP)
    assert {"drugA", "drugC", "synonym"} <= set(UnlastingModel(adata).targets["drug"])


def test_the_published_recipe_knows_no_stimulus(build, drugs):
    with pytest.raises(ValueError, match=r"\['IFN'\] cannot act in it.*Use the default preset"):
        build(drugs.copy(), "paper", **SETUP)


def test_a_screen_without_doses_takes_none(build, drugs):
    adata = drugs.copy()
    adata.uns["unlasting"].pop("keys", None)  # of the fixture, whose drugs have doses
    model = build(adata, train=3, cell_type_key="cell_type")
    with pytest.raises(ValueError, match="`dose` is 1.0, but the screen was set up without `dose_key`"):
        model.generate("drugA", 3, dose=1.0, **QUIET)
    new = model.generate(["drugA", "G3+drugC"], 3, **QUIET)
    assert "dose" not in new.obs
    assert "unlasting_dose_extrapolated" not in new.obs


# -- saving


def test_molecules_and_doses_are_saved(any_preset, tmp_path):
    any_preset.save(tmp_path / "model")
    asked = {"perturbations": ["drugN", "CCO", "G3+drugA"], "dose": 2.0, "n_cells": 5}
    expected = any_preset.generate(**asked, **QUIET)
    adata = any_preset.adata.copy()
    del adata.uns["unlasting"]["molecules"]  # the model knows them
    loaded = UnlastingModel.load(tmp_path / "model", adata, accelerator="cpu")
    new = loaded.generate(**asked, **QUIET)
    np.testing.assert_array_equal(dense(new), dense(expected))
    assert new.obs.equals(expected.obs)
    alone = UnlastingModel.load(tmp_path / "model", adata=False, accelerator="cpu")
    controls = adata[adata.obs["perturbation"] == "control"].copy()
    one, other = (m.generate(**asked, controls=controls, **QUIET) for m in (alone, any_preset))
    np.testing.assert_array_equal(dense(one), dense(other))


@pytest.fixture
def many_drugs() -> tuple[AnnData, str]:
    """Eight drugs, of which one is not trained, and its name."""
    adata = datasets.simulate_drug_screen(
        n_drugs=8, n_families=2, doses=(1.0, 10.0), n_cells=10, n_genes=40, n_controls=40
    )
    [unseen] = adata.uns["simulation"]["drugs"]["drug"].iloc[:1]
    pp.split(adata, kind="unseen_drug", test=[unseen], val_fraction=0.0)
    pp.prepare(adata, library_size_key="library_size")
    pp.molecules(adata)
    pp.grn(adata)
    UnlastingModel.setup_anndata(adata, cell_type_key="cell_type", dose_key="dose", smiles_key="smiles")
    return adata, unseen


def test_what_was_learnt_of_similar_molecules_is_saved(many_drugs, tmp_path, monkeypatch):
    adata, unseen = many_drugs
    asked = [Perturbation.parse(unseen, 10.0)]
    monkeypatch.setattr(MolecularSimilarity, "fit", lambda *_: MolecularSimilarity(1.0, 2.0))
    model = UnlastingModel(adata)
    expected = model.effects_model.features(asked).toarray()
    monkeypatch.undo()
    model.save(tmp_path / "model")
    assert np.abs(UnlastingModel(adata).effects_model.features(asked).toarray() - expected).max() > 0.01
    for given in (adata, False):
        loaded = UnlastingModel.load(tmp_path / "model", adata=given, accelerator="cpu")
        np.testing.assert_array_equal(loaded.effects_model.features(asked).toarray(), expected)
        loaded.save(tmp_path / "again", overwrite=True)
        again = UnlastingModel.load(tmp_path / "again", adata=False, accelerator="cpu")
        np.testing.assert_array_equal(again.effects_model.features(asked).toarray(), expected)


def test_test_cells_tell_nothing_of_drugs(many_drugs):
    """Neither their doses nor how far similar molecules act alike."""
    adata, _ = many_drugs
    is_test = (adata.obs["unlasting_split"] == "test").to_numpy()
    one, values = UnlastingModel(adata).effects_model, adata.X.toarray()
    values[is_test] = np.abs(np.random.default_rng(0).normal(3.0, 2.0, size=values[is_test].shape))
    adata.X = values
    other = UnlastingModel(adata).effects_model.state()
    assert is_test.sum() > 30
    for name, ours in one.state().items():
        np.testing.assert_array_equal(ours, other[name], err_msg=name)
    assert one.features.similarity != MolecularSimilarity()
    assert len(set(one.features.dose_curves.half_doses.tolist())) > 7
