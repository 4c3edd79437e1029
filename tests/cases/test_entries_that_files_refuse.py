"""Entries that h5ad refuses (mixed and dated columns, sets, objects, names that are numbers), and counts in odd places.

Expected: nothing is lost after a training, and all is named.
"""

import datetime
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from simulated import QUICK, TINY, call, counts, fit, screen, trial

import unlasting as ul


def odd(a):
    """An AnnData with entries of every refused kind."""
    n, half = a.n_obs, a.n_obs // 2
    a.obs["mixed"] = pd.Series(["a", 1] * half, index=a.obs_names, dtype=object)
    a.obs["mixed categories"] = pd.Categorical(["a", 1] * half)
    a.obs["sometimes"] = pd.Series([True, None] * half, index=a.obs_names, dtype=object)
    a.obs["date"] = pd.date_range("2020", periods=n)
    a.obs["day"] = [datetime.date(2020, 1, 1)] * n
    a.obs["list"] = pd.Series([["a"]] * n, index=a.obs_names)
    a.obs["interval"] = pd.cut(np.arange(n), 3)
    a.obs["path"] = [Path("a")] * n
    a.obs[3] = 1
    a.obs["_index"] = 2
    a.obs["cell"] = "q"
    a.obs.index.name = "cell"
    a.var["mixed"] = ["a", 1] * (a.n_vars // 2)
    a.obsm["table"] = pd.DataFrame({"x": ["a", 1] * half}, index=a.obs_names)
    a.uns["odd"] = {"set": {1, 2}, "tuple": (1, "a"), 4: object(), "day": datetime.date(2020, 1, 1), "fine": [1, 2]}
    a.uns["frame"] = pd.DataFrame({"x": [1, "b"]})
    a.uns["series"] = pd.Series([1, 2])
    return a


@pytest.mark.slow
def test_a_model_is_saved_with_its_cells(tmp_path):
    a = odd(screen())
    a.raw = a.copy()
    with trial(False) as t:
        m = fit(a, test=["IRF1"], train=False)
        m.train(max_steps=0)
        m.save(tmp_path / "m", save_anndata=True)
    assert t.error is None, t.trace
    assert t.loud("obs\\['mixed'\\]", "written as text")
    read = ad.read_h5ad(tmp_path / "m" / "adata.h5ad")
    assert list(read.obs["mixed"][:2]) == ["a", "1"]
    assert read.obs["sometimes"].isna().sum() == a.n_obs // 2
    assert str(read.obs["date"].iloc[1]).startswith("2020-01-02")
    assert list(read.uns["odd"]["set"]) == [1, 2]
    assert list(read.uns["odd"]["fine"]) == [1, 2]
    assert read.raw is not None
    assert a.obs["date"].dtype.kind == "M"  # the cells in memory stay
    again = ul.UnlastingModel.load(tmp_path / "m")
    assert again.generate("STAT1", 3, show_progress=False).n_obs == 3


@pytest.mark.slow
def test_predictions_go_to_a_file(tmp_path):
    a = odd(screen())
    m = fit(a, test=["IRF1"], train=False)
    m.train(max_steps=0)
    with trial(False) as t:
        new = m.generate("STAT1", 3, path=tmp_path / "g.h5ad", show_progress=False)
        p = m.predict(path=tmp_path / "p.h5ad", show_progress=False)
    assert t.error is None, t.trace
    assert list(new.var["mixed"][:2]) == ["a", "1"]
    assert list(p.obs["list"][:1]) == ["['a']"]


@pytest.mark.slow
def test_a_failing_writer_costs_no_weights(tmp_path, monkeypatch):
    class Refused(Exception):
        pass

    def refuse(*args, **kwargs):
        raise Refused("no")

    m = fit(screen(), test=["IRF1"], train=False)
    m.train(max_steps=0)
    monkeypatch.setattr(ad.AnnData, "write_h5ad", refuse)
    with trial(False) as t:
        m.save(tmp_path / "m", save_anndata=True)
    assert t.error is None
    assert t.loud("without its cells")
    assert ul.UnlastingModel.load(tmp_path / "m", adata=False).is_trained_


@pytest.mark.slow
def test_counts_among_several_layers(tmp_path):
    raw = screen()
    for name, places in {
        "binary and umi": {"binary": lambda x: (x > 0).astype(np.float32), "umi": lambda x: x},
        "scaled": {
            "z": lambda x: sp.csr_matrix(x.toarray() - 1.0),
            "raw_counts": lambda x: x.toarray().astype(np.int64),
        },
        "halves": {"a": lambda x: sp.csr_matrix(np.floor(x.toarray() / 2)), "umis": lambda x: x.astype(np.uint16)},
    }.items():
        a = raw.copy()
        for layer, make in places.items():
            a.layers[layer] = make(raw.X)
        a.X = sp.csr_matrix(np.log1p(raw.X.toarray() * 1.3))
        a.write_h5ad(tmp_path / "s.h5ad")
        with trial(False) as t:
            ul.pp.prepare(a, min_cells=1)
        assert t.error is None, name
        assert t.loud(f"layers\\['{list(places)[1]}'\\]"), name
        np.testing.assert_array_equal(np.asarray(a.layers["counts"].todense()), raw[:, a.var_names].X.toarray())
        r = call("train", tmp_path / "s.h5ad", "-m", tmp_path / name.replace(" ", "_"), *QUICK)
        assert r.exit_code == 0, name


@pytest.mark.slow
def test_log_normalised_values_go_on_with_the_command_line(tmp_path):
    a = screen()
    x = a.X.toarray()
    a.X = sp.csr_matrix(np.log1p(x / x.sum(1, keepdims=True) * 1e4).astype(np.float32))
    a.write_h5ad(tmp_path / "s.h5ad")
    r = call("train", tmp_path / "s.h5ad", "--split", "unseen_perturbation", "-m", tmp_path / "m", *QUICK)
    assert r.exit_code == 0
    assert "no raw counts" in r.stderr
    assert call("predict", "-m", tmp_path / "m", "-o", tmp_path / "p.h5ad").exit_code == 0
    assert call("rank", "-m", tmp_path / "m", "-o", tmp_path / "r.csv").exit_code == 0


def test_csr_indices_of_two_widths_are_made_one():
    a = screen()
    ul.pp.prepare(a, min_cells=1)
    a.X.indptr = a.X.indptr.astype(np.int64)
    a.X.indices = a.X.indices.astype(np.int32)
    before = a.X.toarray()
    ul.UnlastingModel.setup_anndata(a)
    assert a.X.indptr.dtype == a.X.indices.dtype == np.int32
    np.testing.assert_array_equal(a.X.toarray(), before)
    assert ul.UnlastingModel(a, **TINY).summary_stats["n_vars"] == a.n_vars


@pytest.mark.slow
def test_proteins_beside_genes_are_set_aside(tmp_path):
    a = screen()
    protein = ad.AnnData(sp.csr_matrix(counts(a.n_obs, seed=5)[:, :4]), obs=a.obs.copy())
    protein.var_names = [f"CD{i}-TotalSeq" for i in range(4)]
    both = ad.concat([a, protein], axis=1, merge="first")
    both.var["feature_types"] = ["Gene Expression"] * a.n_vars + ["Antibody Capture"] * 4
    both.write_zarr(tmp_path / "s.zarr")
    with trial(False) as t:
        ul.pp.prepare(both, min_cells=1)
    assert t.loud("4 features that are not genes")
    assert not [name for name in both.var_names if name.endswith("TotalSeq")]
    r = call("train", tmp_path / "s.zarr", "-m", tmp_path / "m", *QUICK)
    assert r.exit_code == 0
    assert "4 features that are not genes" in r.stderr
