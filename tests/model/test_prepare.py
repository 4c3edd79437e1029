"""Cells that come later are prepared as the training cells were."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from scipy import sparse

from unlasting import datasets, pp
from unlasting.model import UnlastingModel

SIZES = {"width": 16, "gene_features": 2, "attention_features": 2, "time_frequencies": 8}


def raw():
    return datasets.simulate_screen(n_cells=20, n_controls=60, n_genes=50)


def prepared(**options):
    adata = raw()
    pp.split(adata, "unseen_perturbation")
    adata.obs["umis"] = 2.0 * np.asarray(adata.X.sum(1)).ravel()
    pp.prepare(adata, n_top_genes=20, **options)
    return adata


def make_model(adata, **setup) -> UnlastingModel:
    UnlastingModel.setup_anndata(adata, **setup)
    return UnlastingModel(adata, **SIZES)


@pytest.fixture(scope="module")
def model() -> UnlastingModel:
    return make_model(prepared())


def test_the_training_screen_comes_out_as_it_was(model):
    adata = raw()
    shuffled = adata[np.random.default_rng(0).permutation(adata.n_obs), list(adata.var_names)[::-1]].copy()
    assert model.prepare(shuffled) is None
    again = shuffled[model.adata.obs_names]
    np.testing.assert_array_equal(again.X.toarray(), model.adata.X.toarray())
    np.testing.assert_array_equal(again.layers["counts"].toarray(), model.adata.layers["counts"].toarray())
    assert list(again.var_names) == model.get_var_names()
    assert list(again.obs["unlasting_split"]) == list(model.adata.obs["unlasting_split"])
    assert shuffled.uns["unlasting"]["keys"] == model.adata.uns["unlasting"]["keys"]
    assert shuffled.uns["unlasting"]["grn"]["edges"].equals(model.adata.uns["unlasting"]["grn"]["edges"])


def test_new_cells_keep_the_scale_of_the_training_screen(model):
    new = raw()
    new.X = 3 * new.X
    new.obs_names = [f"new{i}" for i in range(new.n_obs)]
    counts = new.to_df()
    target_sum = model.adata.uns["unlasting"]["prepare"]["target_sum"]
    assert counts.sum(axis=1).median() != target_sum
    result = model.prepare(new, copy=True)
    expected = np.log1p(counts.div(counts.sum(axis=1), axis=0) * target_sum)[model.get_var_names()]
    np.testing.assert_allclose(result.X.toarray(), expected, rtol=1e-5)
    assert "unlasting_split" not in result.obs
    assert new.n_vars == 50


def test_library_sizes_come_from_the_same_column():
    model = make_model(prepared(library_size_key="umis"))
    adata = raw()
    adata.obs["umis"] = 2.0 * np.asarray(adata.X.sum(1)).ravel()
    np.testing.assert_array_equal(model.prepare(adata, copy=True).X.toarray(), model.adata.X.toarray())
    del adata.obs["umis"]
    with pytest.raises(KeyError, match="`library_size_key` is 'umis'"):
        model.prepare(adata)
    assert adata.n_vars == 50


def test_a_saved_model_knows_it_without_its_screen(model, tmp_path):
    model.train(max_steps=0)
    model.save(tmp_path / "model")
    loaded = UnlastingModel.load(tmp_path / "model", adata=False, accelerator="cpu")
    adata = raw()
    loaded.prepare(adata)
    np.testing.assert_array_equal(adata.X.toarray(), model.adata.X.toarray())
    assert "unlasting_split" not in adata.obs


def test_the_split_is_taken_over_for_known_cells_only(model):
    for change in ("names", "labels", "own split", "no labels"):
        adata = raw()
        if change == "names":
            adata.obs_names = ["someone", *adata.obs_names[1:]]
        elif change == "labels":
            adata.obs["perturbation"] = list(adata.obs["perturbation"].astype(str))[::-1]
        elif change == "own split":
            adata.obs["unlasting_split"] = "test"
        else:
            del adata.obs["perturbation"]
        before = adata.obs.get("unlasting_split")
        model.prepare(adata)
        assert before is None or (adata.obs["unlasting_split"] == before).all()
        assert (before is None) == ("unlasting_split" not in adata.obs)


def test_another_number_of_genes_is_told(model, caplog):
    adata = raw()
    used = model.get_var_names()
    fewer = adata[:, [*used, *[name for name in adata.var_names if name not in used][:-1]]].copy()
    with caplog.at_level(logging.WARNING):
        logging.getLogger("unlasting").addHandler(caplog.handler)
        model.prepare(fewer)
        logging.getLogger("unlasting").removeHandler(caplog.handler)
    assert "counts of 49 genes, the training screen had 50" in caplog.text


def test_refusals_leave_the_cells_as_they_were(model):
    adata = raw()
    missing = adata[:, [name for name in adata.var_names if name != model.get_var_names()[2]]].copy()
    with pytest.raises(ValueError, match="1 of the .* genes of the model are missing in the new cells"):
        model.prepare(missing)
    assert missing.n_vars == 49
    fractions = adata.copy()
    fractions.X = sparse.csr_matrix(fractions.X * 0.5)
    with pytest.raises(ValueError, match="Raw counts are needed"):
        model.prepare(fractions)
    with pytest.raises(ValueError, match="fractions"):
        model.prepare(model.adata, copy=True)
    by_hand = prepared()
    del by_hand.uns["unlasting"]["prepare"]
    by_layer = prepared()
    by_layer.layers["mine"] = by_layer.X.copy()
    for other in (make_model(by_hand), make_model(by_layer, layer="mine")):
        with pytest.raises(ValueError, match="not normalised by `unlasting.pp.prepare`.*get_var_names"):
            other.prepare(adata)
    assert adata.n_vars == 50
    assert "prepare" not in adata.uns["unlasting"]
