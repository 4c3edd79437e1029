"""Preparation: against scanpy and by hand, from training cells only, and what is refused."""

from __future__ import annotations

import functools

import anndata
import numpy as np
import pytest
import scanpy as sc
from anndata import AnnData
from scipy import sparse

from unlasting import datasets, pp


@functools.cache
def simulated(**options) -> AnnData:
    """Each simulated screen once; tests change copies."""
    adata = datasets.simulate_screen(n_cells=40, n_controls=120, n_genes=60, **options)
    pp.split(adata, "unseen_perturbation")
    return adata


def screen(**options) -> AnnData:
    return simulated(**options).copy()


def dense(matrix) -> np.ndarray:
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


def test_expression_is_log_normalised_to_the_median_of_training_cells() -> None:
    adata = screen()
    counts, names = dense(adata.X).astype(float), list(adata.var_names)
    in_training = (adata.obs["unlasting_split"] == "train").to_numpy()
    median = np.median(counts.sum(1)[in_training])
    pp.prepare(adata)
    kept = adata.var_names
    assert adata.uns["unlasting"]["prepare"]["target_sum"] == median
    place = [names.index(gene) for gene in kept]
    expected = np.log1p(counts / counts.sum(1, keepdims=True) * median)[:, place]
    np.testing.assert_allclose(dense(adata.X), expected, rtol=1e-5)
    np.testing.assert_array_equal(dense(adata.layers["counts"]), counts[:, place])
    assert isinstance(adata.X, sparse.csr_matrix)
    assert adata.X.dtype == np.float32


def test_a_given_library_size_is_used() -> None:
    adata = screen()
    counts = dense(adata.X).astype(float)
    size = np.random.default_rng(0).uniform(500, 2000, adata.n_obs)
    adata.obs["library"] = size
    pp.prepare(adata, library_size_key="library", target_sum=1e4, min_cells=1)
    np.testing.assert_allclose(dense(adata.X), np.log1p(counts / size[:, None] * 1e4), rtol=1e-5)


def test_variable_genes_are_those_of_scanpy_on_training_cells_and_the_targets() -> None:
    adata = screen()
    train = adata[adata.obs["unlasting_split"] == "train"].copy()
    names = list(adata.var_names)
    sc.pp.normalize_total(train, target_sum=float(np.median(dense(train.X).sum(1))))
    sc.pp.log1p(train)
    seen = np.asarray((dense(train.X) > 0).sum(0)) >= 5
    train = train[:, seen].copy()
    sc.pp.highly_variable_genes(train, n_top_genes=20, flavor="seurat")
    targets = {t for label in adata.obs["perturbation"].unique() for t in label.split("+")} & set(names)
    expected = set(train.var_names[train.var["highly_variable"]]) | targets
    pp.prepare(adata, n_top_genes=20)
    assert set(adata.var_names) == expected
    assert list(adata.var_names) == [name for name in names if name in expected]
    assert len(targets) > 0


def test_fewer_genes_than_asked_for_all_stay_but_the_unseen() -> None:
    adata = screen()
    matrix = dense(adata.X)
    in_training = (adata.obs["unlasting_split"] == "train").to_numpy()
    gene, target = list(adata.var_names).index("G1"), list(adata.var_names).index("N1")
    matrix[:, [gene, target]] = 0
    matrix[np.flatnonzero(in_training)[:4], gene] = 1  # one cell too few
    adata.X = matrix
    pp.prepare(adata)
    assert adata.n_vars == 59
    assert "N1" in adata.var_names


def test_nothing_fitted_knows_the_cells_that_are_held_out() -> None:
    adata, changed = screen(), screen()
    held_out = (changed.obs["unlasting_split"] != "train").to_numpy()
    matrix = dense(changed.X)
    matrix[held_out] = np.random.default_rng(1).poisson(50, size=(held_out.sum(), changed.n_vars))
    changed.X = matrix
    for screen_ in (adata, changed):
        pp.prepare(screen_, n_top_genes=20)
        pp.grn(screen_, prior=None, min_correlation=0.1)
    assert list(adata.var_names) == list(changed.var_names)
    assert adata.uns["unlasting"]["prepare"] == changed.uns["unlasting"]["prepare"]
    first, second = (screen_.uns["unlasting"]["grn"]["edges"] for screen_ in (adata, changed))
    assert len(first) > 0
    assert first.equals(second)
    train = (~held_out)[:, None]
    np.testing.assert_array_equal(dense(adata.X) * train, dense(changed.X) * train)


def test_every_form_of_counts_gives_the_same() -> None:
    adata = screen()
    pp.prepare(adata)
    for form in (
        np.asarray,
        sparse.csc_matrix,
        sparse.csr_array,
        lambda matrix: matrix.astype(np.int64),
        lambda matrix: matrix.astype(np.float64),
        lambda matrix: matrix.astype(np.float16),
    ):
        other = screen()
        other.X = form(dense(other.X))
        pp.prepare(other)
        np.testing.assert_array_equal(dense(adata.X), dense(other.X))


def test_explicit_zeros_are_not_counts() -> None:
    adata = screen()
    matrix = dense(adata.X)
    matrix[:, 0] = 0
    stored = sparse.csr_matrix(np.where(matrix == 0, 1, matrix).astype(np.float32))
    stored.data[stored.toarray().ravel() != matrix.ravel()] = 0
    gene = adata.var_names[0]
    adata.X = stored
    pp.prepare(adata, perturbation_key="perturbation")
    assert gene not in adata.var_names or gene[0] in "TN"


def test_without_a_split_every_cell_is_looked_at() -> None:
    adata = datasets.simulate_screen(n_cells=30, n_controls=50)
    size = dense(adata.X).sum(1)
    pp.prepare(adata)
    assert adata.uns["unlasting"]["prepare"]["target_sum"] == np.median(size)


def test_genes_asked_for_are_kept_in_their_order() -> None:
    adata, chosen = screen(), screen()
    genes = list(adata.var_names[[30, 2, 17]])
    pp.prepare(adata)
    pp.prepare(chosen, genes=genes)
    assert list(chosen.var_names) == genes
    np.testing.assert_array_equal(dense(chosen.X), dense(adata[:, genes].X))
    assert chosen.uns["unlasting"]["prepare"]["target_sum"] == adata.uns["unlasting"]["prepare"]["target_sum"]


def test_with_genes_and_scale_given_neither_controls_nor_training_cells_are_needed() -> None:
    adata = screen()
    held_out = adata[(adata.obs["unlasting_split"] == "test") & (adata.obs["perturbation"] != "control")].copy()
    genes = list(adata.var_names[:5])
    pp.prepare(adata, genes=genes, target_sum=500.0)
    pp.prepare(held_out, genes=genes, target_sum=500.0)
    np.testing.assert_array_equal(dense(held_out.X), dense(adata[held_out.obs_names].X))
    assert held_out.uns["unlasting"]["prepare"]["split_hash"] == ""


def test_what_is_written_survives_a_file_and_a_copy_leaves_the_screen(tmp_path) -> None:
    adata = screen()
    prepared = pp.prepare(adata, n_top_genes=20, copy=True)
    assert adata.n_vars == 60
    assert "prepare" not in adata.uns["unlasting"]
    prepared.write_h5ad(tmp_path / "screen.h5ad")
    again = anndata.read_h5ad(tmp_path / "screen.h5ad").uns["unlasting"]["prepare"]
    assert again["split_hash"] == prepared.uns["unlasting"]["split"]["hash"]
    assert again["genes_kept"] == prepared.n_vars
    assert again["counts_layer"] == "counts"
    assert again["library_size_key"] == ""


def spoil(value: float):
    def change(adata: AnnData) -> None:
        matrix = dense(adata.X)
        matrix[3, 4] = value
        adata.X = matrix

    return change


def empty_cell(adata: AnnData) -> None:
    matrix = dense(adata.X)
    matrix[3] = 0
    adata.X = matrix


def repeat_gene(adata: AnnData) -> None:
    adata.var_names = ["G1", *adata.var_names[1:]]


def forget_keys(adata: AnnData) -> None:
    del adata.uns["unlasting"]["keys"]


def no_training(adata: AnnData) -> None:
    adata.obs["unlasting_split"] = "test"


def strange_split(adata: AnnData) -> None:
    adata.obs["unlasting_split"] = "training"


def test_faults_are_named_and_nothing_is_written() -> None:
    for change, arguments, message in [
        (spoil(np.nan), {}, "1 NaN or infinite"),
        (spoil(np.inf), {}, "1 NaN or infinite"),
        (spoil(-1), {}, "negative values .the smallest is -1"),
        (spoil(0.5), {}, r"fractions \(such as 0.5\), like counts after"),
        (empty_cell, {}, "1 cells have no counts .the first: 'cell3'.*filter_cells"),
        (repeat_gene, {}, "The gene name 'G1' is repeated. Call `adata.var_names_make_unique"),
        (no_training, {}, "No cell is labelled 'train'"),
        (strange_split, {}, "only 'train', 'val' and 'test' are allowed"),
        (None, {"n_top_genes": 0}, "`n_top_genes` is 0"),
        (None, {"genes": []}, "`genes` is empty"),
        (None, {"genes": ["T1", "T2", "T1"]}, "`genes` names 'T1' more than once"),
        (None, {"genes": ["T1", "TT2"]}, "1 of the 2 `genes` are not among.*'TT2' the first. Did you mean 'T2'"),
        (None, {"target_sum": -1.0}, "`target_sum` is -1.0"),
        (None, {"library_size_key": "respondr"}, "Did you mean 'responder'"),
        (None, {"library_size_key": "bad"}, "no library size .the first is nan, of cell 'cell0'"),
        (None, {"library_size_key": "perturbation"}, "no library size .the first is (T1|control)"),
        (forget_keys, {"perturbation_key": "perturbaton"}, "Did you mean 'perturbation'"),
        (
            forget_keys,
            {"control": "ctl"},
            "No cell of .* has the control label .* most frequent labels are 'control', ",
        ),
    ]:
        adata = screen()
        adata.obs["bad"] = np.nan
        if change is not None:
            change(adata)
        before = adata.copy()
        with pytest.raises((ValueError, KeyError), match=message):
            pp.prepare(adata, **arguments)
        assert adata.shape == before.shape
        np.testing.assert_array_equal(dense(adata.X), dense(before.X))
        assert set(adata.uns["unlasting"]) == set(before.uns["unlasting"])


def test_targets_stay_however_few_cells_show_them() -> None:
    adata = screen()
    pp.prepare(adata, min_cells=10_000)
    assert 0 < adata.n_vars
    assert set(adata.var_names) <= {f"T{i}" for i in range(1, 10)} | {"N1"}


def test_preparing_twice_views_and_backed_files_are_refused(tmp_path) -> None:
    adata = screen()
    with pytest.raises(ValueError, match="view of another AnnData"):
        pp.prepare(adata[:100])
    adata.write_h5ad(tmp_path / "screen.h5ad")
    with pytest.raises(ValueError, match="to_memory"):
        pp.prepare(anndata.read_h5ad(tmp_path / "screen.h5ad", backed="r"))
    pp.prepare(adata)
    with pytest.raises(ValueError, match="put them back"):
        pp.prepare(adata)


@pytest.mark.filterwarnings("error")
def test_after_a_new_split_a_screen_with_all_genes_starts_again_as_if_it_were_new() -> None:
    """Nothing of the former split is left; without the counts of all genes, or on another scale, it is refused."""
    again, raw, fresh = screen(), screen(), screen()
    for adata in (again, raw, fresh):
        if adata is not fresh:
            pp.prepare(adata, min_cells=1)
            assert adata.uns["unlasting"]["prepare"]["genes_kept"] == adata.uns["unlasting"]["prepare"]["genes_before"]
        pp.split(adata, "unseen_perturbation", seed=3)
    raw.X = raw.layers["counts"].copy()
    for adata in (again, raw, fresh):
        pp.prepare(adata, min_cells=1)
    np.testing.assert_array_equal(dense(again.X), dense(fresh.X))
    np.testing.assert_array_equal(dense(raw.X), dense(fresh.X))
    fewer, other = screen(), screen()
    pp.prepare(fewer, n_top_genes=20)
    pp.prepare(other, min_cells=1)
    other.X = other.X * 1.5
    for adata in (fewer, other):
        pp.split(adata, "unseen_perturbation", seed=3)
        with pytest.raises(ValueError, match="contains fractions"):
            pp.prepare(adata)
