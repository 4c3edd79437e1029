"""A screen as ECCITE-seq gives it: expression, guides and surface proteins are modalities of the same cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from unlasting import pp
from unlasting.model import UnlastingModel

QUIET = {"show_progress": False}
MODALITIES = {"layer": "rna", "perturbation_key": "guides", "split_key": "rna"}
SETUP = {"cell_type_key": "cell_type", "modalities": MODALITIES}


def eccite(screen: AnnData) -> MuData:
    """Two guides for each target, with ambient counts; the split beside the expression, cell types beside neither."""
    rng = np.random.default_rng(5)
    names = ["G3", "G7", "TFX", "control"]
    counts = rng.poisson(0.3, size=(screen.n_obs, 8)).astype(np.float32)
    for row, label in enumerate(screen.obs["perturbation"]):
        for target in label.split("+"):
            counts[row, 2 * names.index(target) + rng.integers(2)] += rng.integers(20, 60)
    var = pd.DataFrame({"target": np.repeat(names, 2)}, index=[f"{n}_{i}" for n in names for i in (1, 2)])
    guides = AnnData(sparse.csr_matrix(counts), obs=pd.DataFrame(index=screen.obs_names), var=var)
    protein = AnnData(rng.normal(size=(screen.n_obs, 4)), obs=pd.DataFrame(index=screen.obs_names))
    protein.var_names = [f"CD{i}" for i in range(4)]
    rna = screen.copy()
    rna.obs = rna.obs[["unlasting_split"]]
    order = rng.permutation(screen.n_obs)  # the modalities need not have one order
    mdata = MuData({"rna": rna, "guides": guides[order].copy(), "protein": protein})
    mdata.obs["cell_type"] = screen.obs["cell_type"].reindex(mdata.obs_names)
    return mdata


@pytest.fixture(scope="module")
def mdata(screen) -> MuData:
    mdata = eccite(screen(n_cells=300))
    pp.assign_guides(mdata["guides"], mdata["guides"], target_key="target")
    return mdata


@pytest.fixture(scope="module")
def model(mdata) -> UnlastingModel:
    UnlastingModel.setup_mudata(mdata, **SETUP)
    model = UnlastingModel(mdata, width=32, gene_features=4, attention_features=4)
    model.train(max_steps=5, seed=0, accelerator="cpu", **QUIET)
    return model


def test_guides_give_the_labels_back(mdata, screen):
    expected = screen(n_cells=300).obs["perturbation"].astype(str)
    assert (mdata["guides"].obs["perturbation"].astype(str).reindex(expected.index) == expected).all()


def test_labels_come_to_the_expression(model, mdata, screen):
    assert model.adata is mdata["rna"]
    expected = screen(n_cells=300).obs
    for column in ("perturbation", "cell_type", "unlasting_split"):
        assert (mdata["rna"].obs[column].astype(str) == expected[column].astype(str)).all()
    assert model.summary_stats["n_conditions"] == 5


def test_the_same_model_as_of_an_anndata(model, screen):
    adata = screen(n_cells=300)
    UnlastingModel.setup_anndata(adata, cell_type_key="cell_type")
    other = UnlastingModel(adata, width=32, gene_features=4, attention_features=4)
    other.module.load_state_dict(model.module.state_dict())
    other.is_trained_ = True
    one, two = (m.generate(["G3", "TFX"], 10, **QUIET) for m in (model, other))
    np.testing.assert_array_equal(one.X.toarray(), two.X.toarray())


def test_predict_writes_into_the_expression(model, mdata):
    copy = model.predict(mdata, copy=True, seed=0, **QUIET)
    assert isinstance(copy, MuData)
    assert "unlasting" in copy["rna"].layers
    assert "unlasting" not in mdata["rna"].layers
    assert model.predict(mdata, seed=0, key_added="own", **QUIET) is None
    np.testing.assert_allclose(
        mdata["rna"].layers["own"].toarray(), copy["rna"].layers["unlasting"].toarray(), atol=1e-5
    )
    assert "own_source" in mdata["rna"].obs
    assert list(mdata["guides"].layers) == list(mdata["protein"].layers) == []


def test_other_cells_may_be_a_mudata_too(model, screen):
    other = eccite(screen(n_cells=80, seed=3))
    pp.assign_guides(other["guides"], other["guides"], target_key="target")
    before = list(other["rna"].obs)
    is_control = other["guides"].obs["perturbation"].reindex(other["rna"].obs_names) == "control"
    controls = other[is_control[is_control].index].copy()
    model.predict(controls, perturbation="TFX", **QUIET)
    assert np.isfinite(controls["rna"].layers["unlasting"].toarray()).all()
    added = [f"unlasting_{name}" for name in ("source", "expected_error", "p_better")]
    assert list(controls["rna"].obs) == [*before, *added]
    one, two = (model.generate("G3", 5, controls=c, **QUIET) for c in (controls, controls.copy()))
    np.testing.assert_array_equal(one.X.toarray(), two.X.toarray())
    assert model.get_latent_representation(controls).shape == controls["rna"].shape


def test_a_saved_model_takes_a_mudata(model, mdata, screen, tmp_path):
    model.save(tmp_path / "model")
    expected = model.generate("G3", 6, **QUIET)
    other = eccite(screen(n_cells=300))
    pp.assign_guides(other["guides"], other["guides"], target_key="target")
    for given in (other, model.adata.copy()):
        loaded = UnlastingModel.load(tmp_path / "model", given, accelerator="cpu")
        np.testing.assert_array_equal(loaded.generate("G3", 6, **QUIET).X.toarray(), expected.X.toarray())


REFUSED = [
    ({"modalities": {"layer": "rna"}}, KeyError, r"`perturbation_key`.*`mdata.obs` has no such.*It is in 'guides'"),
    (
        {"modalities": {**MODALITIES, "layer": "rnas"}},
        KeyError,
        r"`modalities\['layer'\]` is 'rnas'.*Did you mean 'rna'",
    ),
    (
        {"modalities": {"perturbation_key": "guides"}},
        ValueError,
        "without the expression: add 'layer'",
    ),
    ({"modalities": {**MODALITIES, "labels": "rna"}}, ValueError, "`modalities` names 'labels'"),
    ({"cell_type_key": "type"}, KeyError, "`cell_type_key` is 'type', but `mdata.obs`"),
    ({"control": "NT"}, ValueError, "`control='NT'`"),
]


def test_setup_refuses(screen, unchanged):
    mdata = eccite(screen(n_cells=80))
    pp.assign_guides(mdata["guides"], mdata["guides"], target_key="target")
    same = unchanged(mdata["rna"])
    for arguments, error, message in REFUSED:
        with pytest.raises(error, match=message):
            UnlastingModel.setup_mudata(mdata, **{**SETUP, **arguments})
        same()


def test_what_does_not_fit_is_refused(mdata, model, screen, build):
    clash = eccite(screen(n_cells=80))
    pp.assign_guides(clash["guides"], clash["guides"], target_key="target")
    clash["rna"].obs["perturbation"] = "control"
    with pytest.raises(ValueError, match="column of this name with other values"):
        UnlastingModel.setup_mudata(clash, **SETUP)
    with pytest.raises(ValueError, match="view of another MuData"):
        UnlastingModel.setup_mudata(mdata[:50], **SETUP)
    with pytest.raises(ValueError, match="0 modalities of `mdata` are registered.*setup_mudata"):
        UnlastingModel(eccite(screen(n_cells=80)))
    of_anndata = build(screen(n_cells=100), train=2)
    with pytest.raises(ValueError, match="set up with an AnnData, and a MuData is given"):
        of_anndata.predict(mdata, **QUIET)


def test_cells_without_a_guide_are_refused(screen):
    mdata = eccite(screen(n_cells=120))
    pp.assign_guides(mdata["guides"], mdata["guides"], target_key="target", min_counts=30)
    assert mdata["guides"].obs["perturbation"].isna().any()
    with pytest.raises(ValueError, match="no perturbation label"):
        UnlastingModel.setup_mudata(mdata, **SETUP)
