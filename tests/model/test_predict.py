from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from unlasting.model import _generator  # rounding and the memory for latents have no public name

QUIET = {"show_progress": False}


def dense(matrix) -> np.ndarray:
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


def test_every_cell_gets_a_cell_and_a_source(either):
    adata = either.adata.copy()
    assert either.predict(adata, cells="all", seed=1, **QUIET) is None
    cells, source = dense(adata.layers["unlasting"]), adata.obs["unlasting_source"].astype(str)
    assert cells.shape == adata.shape
    assert np.isfinite(cells).all()
    assert (cells >= 0).all()
    assert cells.dtype == np.float32

    is_control = (adata.obs["perturbation"] == "control").to_numpy()
    assert (source[is_control] == adata.obs_names[is_control]).all()
    of_source = adata.obs.loc[source]
    assert (of_source["perturbation"] == "control").all()
    assert (of_source["cell_type"].to_numpy() == adata.obs["cell_type"].to_numpy()).all()
    assert (of_source["unlasting_split"][~is_control] == "train").all()


def test_cells_have_the_total_that_all_training_cells_have(model, build, screen):
    controls = model.adata[model.adata.obs["perturbation"] == "control"]
    cells = np.expm1(dense(model.predict(controls, perturbation="G3+TFX", copy=True, **QUIET).layers["unlasting"]))
    np.testing.assert_allclose(cells.sum(1), 100.0, rtol=1e-4)

    varying = screen()
    depth = np.random.default_rng(0).uniform(0.5, 2.0, (varying.n_obs, 1))
    varying.X = sparse.csr_matrix(np.log1p(np.expm1(dense(varying.X)) * depth).astype(np.float32))
    free = build(varying, train=2)
    assert free.module.statistics.total == 0
    cells = np.expm1(dense(free.generate("TFX", 20, cell_type="B", **QUIET).X))
    assert np.ptp(cells.sum(1)) > 1.0


def test_the_models_own_cells_and_a_copy_get_the_same(either):
    copy = either.predict(seed=2, copy=True, key_added="copied", **QUIET)
    given = either.adata.copy()
    either.predict(given, seed=2, key_added="copied", **QUIET)
    assert "copied" not in either.adata.layers
    assert "copied_source" not in either.adata.obs
    np.testing.assert_allclose(dense(copy.layers["copied"]), dense(given.layers["copied"]), atol=1e-5)
    assert (copy.obs["copied_source"].astype(str) == given.obs["copied_source"].astype(str)).all()
    assert not set(copy.obs) - set(either.adata.obs) - {"copied_source", "copied_expected_error", "copied_p_better"}


@pytest.mark.slow
def test_in_place_on_the_models_own_cells(build, screen):
    model = build(screen(), train=5)
    other = model.predict(seed=2, copy=True, **QUIET)
    model.predict(seed=2, **QUIET)
    np.testing.assert_allclose(dense(model.adata.layers["unlasting"]), dense(other.layers["unlasting"]), atol=1e-5)
    assert (model.adata.obs["unlasting_source"] == other.obs["unlasting_source"]).all()


@pytest.mark.slow
def test_sources_come_from_the_batch_too(build, screen):
    model = build(screen(batches=True), train=5, batch_key="batch")
    adata = model.predict(cells="all", copy=True, **QUIET)
    of_source = adata.obs.loc[adata.obs["unlasting_source"].astype(str)]
    assert (of_source["batch"].to_numpy() == adata.obs["batch"].to_numpy()).all()
    assert (of_source["cell_type"].to_numpy() == adata.obs["cell_type"].to_numpy()).all()
    new = model.generate("G3", 7, batch="one", **QUIET)
    assert (new.obs["batch"] == "one").all()
    assert (model.adata.obs.loc[new.obs["unlasting_source"].astype(str), "batch"] == "one").all()


def test_indices_leave_the_rest_empty(model, adata):
    for chosen in ("integers", "booleans"):
        rows = np.array([4, 17, 300])
        indices = np.isin(np.arange(adata.n_obs), rows) if chosen == "booleans" else rows
        some = model.predict(indices=indices, seed=1, copy=True, **QUIET)
        cells = dense(some.layers["unlasting"])
        assert np.isfinite(cells[rows]).all()
        rest = np.setdiff1d(np.arange(adata.n_obs), rows)
        assert sparse.issparse(some.layers["unlasting"])
        assert not cells[rest].any()
        assert (some.obs["unlasting_source"].iloc[rest] == "").all()
        every = model.predict(cells="all", seed=1, copy=True, **QUIET)
        np.testing.assert_allclose(cells[rows], dense(every.layers["unlasting"])[rows], atol=1e-5)


def test_no_perturbation_returns_the_control_cell(model, controls):
    """The null law: values to 1e-3 of the [0, 1] scale, the mask exactly."""
    model.predict(controls, perturbation="control", key_added="null", **QUIET)
    before, after = dense(controls.X), dense(controls.layers["null"])
    assert np.array_equal(before > 0, after > 0)
    assert np.abs(before - after).max() < 1e-3 * float(model.module.statistics.x_max)
    assert (controls.obs["null_source"].astype(str) == controls.obs_names).all()


def test_controls_are_returned_by_plain_predict_too(model, adata):
    written = model.predict(cells="all", seed=5, copy=True, **QUIET)
    is_control = (adata.obs["perturbation"] == "control").to_numpy()
    before, after = dense(adata.X)[is_control], dense(written.layers["unlasting"])[is_control]
    assert np.array_equal(before > 0, after > 0)
    assert np.abs(before - after).max() < 1e-3 * float(model.module.statistics.x_max)


def test_counterfactuals_differ_from_controls_and_pairs_have_no_order(either, controls):
    for label, key in (("G3+TFX", "one"), ("TFX+G3", "other")):
        either.predict(controls, perturbation=label, key_added=key, seed=3, **QUIET)
    one, other = dense(controls.layers["one"]), dense(controls.layers["other"])
    np.testing.assert_array_equal(one, other)
    assert np.abs(one - dense(controls.X)).max() > 0.1


def test_only_controls_can_be_perturbed(model, adata, unchanged):
    mixed = adata[:50].copy()
    same = unchanged(mixed)
    with pytest.raises(ValueError, match=r"`adata` holds cells labelled \['G3'.*only controls \('control'\)"):
        model.predict(mixed, perturbation="G7", **QUIET)
    same()
    rows = np.flatnonzero(mixed.obs["perturbation"] == "control")
    model.predict(mixed, perturbation="G7", indices=rows, **QUIET)  # but those chosen may be
    assert (mixed.obs["unlasting_source"] != "").sum() == len(rows)


def test_the_seed_decides(either):
    one, same, other = (either.predict(indices=range(80), seed=s, copy=True, **QUIET) for s in (1, 1, 2))
    np.testing.assert_array_equal(dense(one.layers["unlasting"]), dense(same.layers["unlasting"]))
    assert not np.array_equal(dense(one.layers["unlasting"]), dense(other.layers["unlasting"]))
    assert (one.obs["unlasting_source"].astype(str) != other.obs["unlasting_source"].astype(str)).any()


def test_batch_size_changes_no_cell(either):
    large, small = (
        dense(either.predict(indices=range(80), seed=1, batch_size=size, copy=True, **QUIET).layers["unlasting"])
        for size in (512, 37)
    )
    assert np.array_equal(large > 0, small > 0)
    np.testing.assert_allclose(large, small, atol=1e-5)


def test_the_form_of_the_matrix_does_not_matter(model, controls):
    for kind in ("dense", "csc", "float64"):
        expected = model.predict(controls, perturbation="G3", copy=True, **QUIET).layers["unlasting"]
        form = {"dense": lambda x: x.toarray(), "csc": sparse.csc_matrix, "float64": lambda x: x.astype(np.float64)}
        controls.X = form[kind](controls.X)
        model.predict(controls, perturbation="G3", **QUIET)
        np.testing.assert_allclose(dense(controls.layers["unlasting"]), dense(expected), atol=1e-6)


def test_cells_without_controls_start_from_the_training_controls(model, adata):
    perturbed = adata[adata.obs["perturbation"] == "G3"].copy()
    model.predict(perturbed, cells="all", seed=1, **QUIET)
    assert np.isfinite(dense(perturbed.layers["unlasting"])).all()
    source = adata.obs.loc[perturbed.obs["unlasting_source"].astype(str)]
    assert (source["unlasting_split"] == "train").all()
    assert (source["cell_type"].to_numpy() == perturbed.obs["cell_type"].to_numpy()).all()


def test_a_trained_effect_points_the_right_way(model, controls):
    """The unmeasured target switches genes 20-29 on, `G3` switches 10-19 off."""
    before = dense(controls.X).mean(0)
    change = {}
    for label in ("G3", "TFX"):
        change[label] = (
            dense(model.predict(controls, perturbation=label, copy=True, **QUIET).layers["unlasting"]).mean(0) - before
        )
    others = np.r_[0:3, 4:10, 40:60]
    assert change["TFX"][20:30].mean() > 3 * np.abs(change["TFX"][others]).mean()
    assert change["G3"][10:20].mean() < -3 * np.abs(change["G3"][others]).mean()


def test_a_source_is_encoded_once_and_its_latent_is_held_until_its_last_use(model, controls, monkeypatch):
    encoded, held = [], []
    encode, decode = model.module.encode, _generator.Generator._decode

    def counting(x0, *others):
        encoded.extend(row.numpy().tobytes() for row in x0)
        return encode(x0, *others)

    def watching(generator, *chunk):
        held.append(len(generator._latents))
        return decode(generator, *chunk)

    monkeypatch.setattr(model.module, "encode", counting)
    monkeypatch.setattr(_generator.Generator, "_decode", watching)
    few = controls[:24].copy()
    model.predict(few, perturbation="G3", batch_size=8, show_progress=False)
    assert len(encoded) == 24
    assert held == [8, 8, 8]
    encoded.clear()
    new = model.generate(["G3", "TFX"], 10, controls=few, batch_size=8, show_progress=False)
    assert len(encoded) == len(set(encoded)) == new.obs["unlasting_source"].nunique()


# -- encode and decode


def test_what_is_encoded_is_decoded_to_itself(model, adata):
    for label, cell_type in (("G3", "B"), ("control", "T")):
        chosen = (adata.obs["cell_type"] == cell_type) & (adata.obs["perturbation"] == label)
        cells = adata[chosen].copy()
        latent = model.encode(cells, seed=1)
        assert latent.shape == cells.shape
        back = model.decode(latent, label, mask=dense(cells.X) > 0, cell_type=cell_type)
        np.testing.assert_allclose(back, dense(cells.X), atol=5e-3 * float(model.module.statistics.x_max))


def test_the_latent_of_expressed_genes_is_near_standard_normal(model, adata):
    latent = model.get_latent_representation(seed=1)
    expressed = dense(adata.X) > 0
    assert abs(latent[expressed].mean()) < 0.2
    assert latent[expressed].std() == pytest.approx(1.0, abs=0.25)
    silent = latent[~expressed]
    assert (silent.mean(), silent.std()) == pytest.approx((0.0, 1.0), abs=0.03)


def test_latents_of_chosen_cells_are_those_of_all(model):
    rows = [5, 1, 100]
    every = model.get_latent_representation(seed=4)
    np.testing.assert_allclose(model.get_latent_representation(indices=rows, seed=4), every[rows], atol=1e-4)
    np.testing.assert_allclose(model.encode(seed=4, batch_size=33), every, atol=1e-4)


def test_the_published_source_encodes_controls_only(paper_model, controls):
    assert np.isfinite(paper_model.encode(controls)).all()
    with pytest.raises(ValueError, match="only control cells can be encoded"):
        paper_model.encode()
    with pytest.raises(ValueError, match="give `controls`"):
        paper_model.decode(dense(controls.X), "G3", mask=dense(controls.X) > 0, cell_type="T")


def test_decode_refuses_what_does_not_fit(model, controls):
    latent = model.encode(controls)
    with pytest.raises(ValueError, match="shape"):
        model.decode(latent, "G3", mask=np.ones((3, 3)), cell_type="B")
    with pytest.raises(ValueError, match="name 2 control populations.*Cell types"):
        model.decode(latent, "G3", mask=np.ones(latent.shape))
    with pytest.raises(ValueError, match="name 0 control populations"):
        model.decode(latent, "G3", mask=np.ones(latent.shape), cell_type="Q")


def counts_of(cells: np.ndarray) -> np.ndarray:
    """How often the smallest value of a cell goes into each of its values."""
    normalised = np.expm1(cells.astype(np.float64))
    return normalised / np.where(normalised > 0, normalised, np.inf).min(1, keepdims=True)


@pytest.mark.slow
def test_cells_hold_integer_counts_where_all_training_cells_do(build, screen):
    for has_total in (True, False):
        adata = screen()
        if not has_total:
            depth = np.random.default_rng(0).uniform(0.5, 2.0, (adata.n_obs, 1))
            adata.X = sparse.csr_matrix(np.log1p(np.expm1(dense(adata.X)) * depth).astype(np.float32))
        counts = counts_of(dense(build(adata, train=5).generate("G3+TFX", 60, **QUIET).X))
        multiples = counts * np.arange(1, 4)[:, None, None]  # the smallest count of a cell may be 2 or 3
        assert (np.abs(multiples - multiples.round()).max(2).min(0) < 1e-3).all()
        assert set(range(1, 6)) <= set(counts.round().ravel())


@pytest.mark.slow
def test_cells_hold_any_values_where_counts_are_not_whole_or_not_wanted(build, screen):
    for fault in ("other values", "off"):
        adata = screen()
        if fault == "other values":
            adata.X.data *= np.random.default_rng(0).uniform(0.8, 1.2, adata.X.nnz).astype(np.float32)
        model = build(adata, train=5, options={"integer_counts": fault != "off"})
        counts = counts_of(dense(model.generate("G3+TFX", 60, **QUIET).X))
        assert np.mean(np.abs(counts - counts.round()) > 0.01) > 0.2


def test_control_cells_keep_their_counts(model):
    controls = model.adata[model.adata.obs["perturbation"] == "control"].copy()
    before = dense(controls.X)
    kept = dense(model.predict(controls, perturbation="control", copy=True, **QUIET).layers["unlasting"])
    np.testing.assert_allclose(kept, before, atol=1e-4)
    assert ((kept > 0) == (before > 0)).all()


def test_control_cells_without_integer_counts_are_not_rounded(model):
    controls = model.adata[model.adata.obs["perturbation"] == "control"].copy()
    factor = np.random.default_rng(0).uniform(0.7, 1.3, controls.X.nnz)
    values = dense(controls.X)
    values[values > 0] = np.log1p(np.expm1(values[values > 0]) * factor)
    counts = np.expm1(values)
    values = np.log1p(counts * (100.0 / counts.sum(1, keepdims=True)))
    controls.X = sparse.csr_matrix(values.astype(np.float32))
    kept = dense(model.predict(controls, perturbation="control", copy=True, **QUIET).layers["unlasting"])
    np.testing.assert_allclose(kept, values, atol=5e-3 * values.max())


def test_what_changes_by_less_than_the_error_of_the_solver_keeps_its_count_however_large():
    source = torch.log1p(torch.tensor([1.0, 2.0, 40.0, 700.0]).expand(1000, -1))
    uniform = torch.linspace(0, 1, 1001)[:-1, None].expand_as(source)
    error = torch.tensor(_generator._SOLVER_ERROR * 6.6)
    for change in (-0.9 * error, 0.9 * error):
        torch.testing.assert_close(_generator._with_integer_counts(source + change, source, uniform, error), source)
    assert (_generator._with_integer_counts(source + 2 * error, source, uniform, error) != source).any(0).all()


@settings(max_examples=30, deadline=None)
@given(
    value=st.floats(0.02, 200.0),
    factor=st.floats(0.01, 100.0),
    others=st.lists(st.integers(1, 50), min_size=1, max_size=5),
)
def test_rounding_goes_to_the_counts_next_to_a_value_and_keeps_its_mean(value, factor, others):
    uniform = (torch.arange(4000) + 0.5) / 4000
    source = torch.log1p(factor * torch.tensor([1.0, *others, 0.0])).expand(4000, -1)
    cells = torch.zeros_like(source)
    cells[:, -1] = np.log1p(factor * value)
    rounded = _generator._with_integer_counts(cells, source, uniform[:, None].expand_as(cells), torch.tensor(1e-3))
    assert (rounded[:, :-1] == 0).all()  # silent genes stay silent
    counts = torch.expm1(rounded[:, -1]).double() / factor
    # A value within the precision of 32 bits of an integer may count as either side of it.
    lowest, below = (max(np.floor(value * (1 + side * 2e-5)), 1) for side in (-1, 1))
    pairs = [torch.tensor([one, one + 1], dtype=torch.float64) for one in (lowest, below)]
    assert any(((counts[:, None] - pair).abs().amin(1) < 1e-2 * pair[0]).all() for pair in pairs)
    if value >= 1:
        step = np.log1p(factor * (below + 1)) - np.log1p(factor * below)
        assert rounded[:, -1].mean().item() == pytest.approx(np.log1p(factor * value), abs=0.01 * step + 1e-4)
    else:
        assert counts.round().unique().tolist() == [1.0]
