"""The graph of genes: against numpy, whatever the order of the genes, and every form of prior."""

from __future__ import annotations

import functools
import json
from importlib.resources import files

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats
from sklearn.metrics.pairwise import cosine_similarity

from unlasting import UnlastingModel, datasets, pp
from unlasting.screen import logger


@functools.cache
def simulated(**options) -> AnnData:
    """Each simulated screen once; tests change copies."""
    adata = datasets.simulate_screen(n_cells=40, n_controls=120, n_genes=60, **options)
    pp.split(adata, "unseen_perturbation")
    pp.prepare(adata)
    return adata


def screen(**options) -> AnnData:
    return simulated(**options).copy()


def annotations() -> tuple[list[str], sparse.csr_matrix]:
    """Read the shipped Gene Ontology: genes, and the terms of each."""
    stored = np.load(files("unlasting.pp") / "_data" / "go_human.npz")
    genes = stored["genes"].tobytes().decode().split("\n")
    shape = (len(genes), len(stored["terms"]))
    return genes, sparse.csr_matrix((np.ones(len(stored["indices"])), stored["indices"], stored["indptr"]), shape=shape)


def pairs(adata: AnnData, origin: str | None = None) -> dict[tuple[str, str], float]:
    edges = adata.uns["unlasting"]["grn"]["edges"]
    edges = edges if origin is None else edges[edges["origin"] == origin]
    return dict(zip(zip(edges["source"], edges["target"], strict=True), edges["weight"], strict=True))


def test_coexpression_is_the_correlation_of_training_cells() -> None:
    adata = screen()
    pp.grn(adata, prior=None, min_correlation=0.15)
    matrix = adata.X[(adata.obs["unlasting_split"] == "train").to_numpy()].toarray().astype(float)
    correlation = np.corrcoef(matrix.T)
    genes = adata.var_names
    expected = {
        (genes[i], genes[j]): correlation[i, j]
        for i in range(len(genes))
        for j in range(len(genes))
        if i != j and abs(correlation[i, j]) >= 0.15
    }
    found = pairs(adata)
    assert found.keys() == expected.keys()
    assert len(found) > 20
    np.testing.assert_allclose([found[pair] for pair in expected], list(expected.values()), atol=1e-10)


def test_coexpression_is_that_within_cell_types() -> None:
    """Genes that distinguish two cell types are not joined for that; those that vary together in both are."""
    rng = np.random.default_rng(0)
    cell_type = np.repeat(["B", "T"], 200)
    shared = rng.normal(size=400)
    levels = 3.0 + rng.normal(size=(400, 6)) * 0.3
    levels[:, :2] += 2.0 * (cell_type == "B")[:, None]  # B cells have more of both
    levels[:, 2:4] += 0.5 * shared[:, None]
    adata = AnnData(
        sparse.csr_matrix(np.maximum(levels, 0.0).astype(np.float32)),
        obs=pd.DataFrame({"perturbation": "control", "kind": cell_type}, index=[f"c{i}" for i in range(400)]),
        var=pd.DataFrame(index=[f"G{i}" for i in range(6)]),
    )
    pp.grn(adata, prior=None)
    assert set(pairs(adata)) >= {("G0", "G1"), ("G2", "G3")}
    pp.grn(adata, prior=None, cell_type_key="kind")
    assert set(pairs(adata)) == {("G2", "G3"), ("G3", "G2")}
    again = adata.copy()
    pp.grn(again, prior=None)  # it is remembered
    assert pairs(again) == pairs(adata)


def welch(cells: np.ndarray, controls: np.ndarray, kinds: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
    """Welch's test for one gene: scipy's own for one cell type, else differences averaged by the number of cells."""
    types = [one for one in np.unique(kinds[0]) if min((kind == one).sum() for kind in kinds) > 1]
    if len(np.unique(kinds[1])) == 1:
        return cells.mean() - controls.mean(), stats.ttest_ind(cells, controls, equal_var=False).pvalue
    pairs = [(cells[kinds[0] == one], controls[kinds[1] == one]) for one in types]
    n = sum(len(x) for x, _ in pairs)
    difference = sum(len(x) / n * (x.mean() - y.mean()) for x, y in pairs)
    parts = [((len(x) / n) ** 2 * z.var(ddof=1) / len(z), len(z) - 1) for x, y in pairs for z in (x, y)]
    variance = sum(part for part, _ in parts)
    degrees = variance**2 / sum(part**2 / df for part, df in parts) if variance else 1.0
    return difference, 2 * stats.t.sf(abs(difference) / np.sqrt(variance), degrees) if variance else 1.0


def test_response_edges_lead_from_a_target_to_the_genes_that_change() -> None:
    """Gene by gene: Welch's test within each target, at a false discovery rate; each cell type has its controls."""
    for n_types in (1, 2):
        adata = datasets.simulate_screen(n_cells=60, n_controls=120, n_genes=60, n_cell_types=n_types)
        pp.split(adata, "unseen_perturbation", cell_type_key="cell_type" if n_types > 1 else None)
        pp.prepare(adata)
        pp.grn(adata, prior=None, min_correlation=1.0, response_fdr=0.1)
        label, training = adata.obs["perturbation"].to_numpy(), (adata.obs["unlasting_split"] == "train").to_numpy()
        values = adata.X.toarray().astype(float)
        types = adata.obs["cell_type"].to_numpy() if n_types > 1 else np.zeros(adata.n_obs)
        genes, expected = adata.var_names, {}
        control = training & (label == "control")
        for target in sorted(set(label[training]) - {"control"}):
            if "+" in target:
                continue
            rows = training & (label == target)
            found = [
                welch(values[rows, i], values[control, i], (types[rows], types[control])) for i in range(len(genes))
            ]
            change, p = np.array(found).T
            p = stats.false_discovery_control(np.where(np.isfinite(p), p, 1.0))
            expected |= {(target, genes[i]): change[i] for i in np.flatnonzero(p <= 0.1) if genes[i] != target}
        edges = pairs(adata, "response")
        assert edges.keys() == expected.keys()
        assert len(edges) > 20
        np.testing.assert_allclose([edges[pair] for pair in expected], list(expected.values()), atol=1e-8)


def test_few_controls_of_a_cell_type_make_no_responses() -> None:
    """Cells without an effect in a type with three controls: the error of those counts, not that of all controls."""
    rng = np.random.default_rng(0)
    label = np.repeat(["control", "control", *(f"G{i}" for i in range(20))], [300, 3, *[40] * 20])
    kind = np.where(np.arange(len(label)) < 300, "B", "T")
    values = 3.0 + rng.normal(size=(len(label), 40)) * 0.3
    values[kind == "T", :20] += 1.0
    adata = AnnData(
        sparse.csr_matrix(values.astype(np.float32)),
        obs=pd.DataFrame({"perturbation": label, "kind": kind}, index=[f"c{i}" for i in range(len(label))]),
        var=pd.DataFrame(index=[f"G{i}" for i in range(40)]),
    )
    pp.grn(adata, prior=None, min_correlation=1.0, response_fdr=0.1, cell_type_key="kind")
    assert len(pairs(adata, "response")) < 0.02 * 20 * 40


def test_a_screen_without_single_genes_is_told_that_there_are_no_responses(caplog, monkeypatch) -> None:
    monkeypatch.setattr(logger, "propagate", True)
    adata = datasets.simulate_drug_screen(n_drugs=4, n_genes=30)
    pp.split(adata, "random", dose_key="dose", smiles_key="smiles")
    pp.prepare(adata)
    with caplog.at_level("INFO"):
        pp.grn(adata, prior=None, response_fdr=0.2)
    assert "0 edges by response" in caplog.text


def test_response_edges_do_not_depend_on_cells_outside_training() -> None:
    adata, other = screen(), screen()
    held_out = (other.obs["unlasting_split"] != "train").to_numpy()
    changed = other.X.toarray()
    changed[held_out] = np.random.default_rng(0).permuted(changed[held_out], axis=1)
    other.X = sparse.csr_matrix(changed)
    for one in (adata, other):
        pp.grn(one, prior=None, response_fdr=0.2)
    assert pairs(adata, "response") == pairs(other, "response")
    unseen = set(adata.obs["perturbation"][held_out]) - set(adata.obs["perturbation"][~held_out])
    assert unseen
    assert not unseen & {source for source, _ in pairs(adata, "response")}


def test_a_graph_that_was_made_without_the_cell_types_is_told_of(caplog) -> None:
    adata = datasets.kang()
    adata = adata[adata.obs["cell_type"].isin(["B", "NK"])][::5].copy()
    del adata.uns["unlasting"]["keys"]
    pp.split(adata, "random")
    pp.prepare(adata, n_top_genes=50)
    pp.grn(adata, prior=None)
    logger.addHandler(caplog.handler)
    try:
        UnlastingModel.setup_anndata(adata, cell_type_key="cell_type")
        assert "`pp.grn(adata, cell_type_key='cell_type')` removes such edges" in caplog.text
        caplog.clear()
        pp.grn(adata, prior=None)  # the key is recorded now
        UnlastingModel.setup_anndata(adata)
        assert "removes such edges" not in caplog.text
    finally:
        logger.removeHandler(caplog.handler)


@pytest.mark.slow
def test_labels_that_are_no_names_of_genes_are_warned_of(caplog) -> None:
    """With a suffix, say: the prior would know them without it."""
    adata = datasets.papalexi()[::20].copy()
    pp.split(adata, "random")
    pp.prepare(adata, n_top_genes=200)
    logger.addHandler(caplog.handler)
    try:
        pp.grn(adata, prior="go")
        assert "WARNING" not in caplog.text
        caplog.clear()
        labels = adata.obs["perturbation"].astype(str)
        adata.obs["perturbation"] = labels.where(labels == "control", labels + "_KO")
        pp.grn(adata, prior="go")
    finally:
        logger.removeHandler(caplog.handler)
    [record] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "the prior lacks 25 of 25 targets: ATF2_KO" in record.getMessage()
    assert "labels with a suffix" in record.getMessage()


THRESHOLD = 0.2 + np.pi * 1e-6  # which no correlation of small numbers hits


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), block=st.integers(1, 200), dense=st.booleans(), n_types=st.integers(1, 4))
def test_blocks_and_forms_do_not_change_the_correlation(seed: int, block: int, dense: bool, n_types: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.poisson(1.0, size=(30, 12)) * rng.uniform(0.5, 2, size=12)
    matrix[:, 3] = 2.5  # never varies
    matrix[:, 4] = 0
    matrix[:, 5] = matrix[:, 6]
    types = rng.integers(n_types, size=30)
    residual = matrix - np.stack([matrix[types == one].mean(axis=0) for one in types])
    whole = np.corrcoef(np.delete(residual, [3, 4], axis=1).T)
    obs = pd.DataFrame({"perturbation": "control", "kind": types.astype(str)}, index=[f"c{i}" for i in range(30)])
    genes = pd.DataFrame(index=[f"G{i}" for i in range(12)])
    adata = AnnData(matrix if dense else sparse.csr_matrix(matrix), obs=obs, var=genes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unlasting.pp._coexpression.BLOCK_ENTRIES", block)
        pp.grn(adata, prior=None, min_correlation=THRESHOLD, cell_type_key="kind")
    kept = [f"G{i}" for i in range(12) if i not in (3, 4)]
    np.fill_diagonal(whole, 0)
    expected = {(kept[i], kept[j]): whole[i, j] for i, j in zip(*np.nonzero(np.abs(whole) >= THRESHOLD), strict=True)}
    found = pairs(adata)
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([found[pair] for pair in expected], list(expected.values()), atol=1e-9)


@pytest.mark.slow
def test_the_order_of_the_genes_does_not_matter() -> None:
    adata = datasets.papalexi()[::8].copy()
    pp.prepare(adata, n_top_genes=800)
    rng = np.random.default_rng(0)
    names = [*adata.var_names, "IFNGR1", "SPI1"]
    order = rng.permutation(adata.n_vars)
    permuted = adata[:, order].copy()
    for prior in (
        "go",
        pd.DataFrame({"source": rng.choice(names, 300), "target": rng.choice(names, 300)}),
        pd.DataFrame(rng.normal(size=(len(names), 6)), index=names),
        None,
    ):
        for one in (adata, permuted):
            pp.grn(one, prior=prior, min_correlation=0.2, max_neighbors=3)
        first, second = pairs(adata), pairs(permuted)
        assert first.keys() == second.keys()
        np.testing.assert_allclose([first[pair] for pair in second], list(second.values()), atol=1e-6)
        nodes, moved = (one.uns["unlasting"]["grn"]["nodes"] for one in (adata, permuted))
        assert list(nodes[order]) == list(moved[: adata.n_vars])
        assert list(nodes[adata.n_vars :]) == list(moved[adata.n_vars :])


def test_nodes_are_the_genes_in_order_and_then_the_unmeasured_targets() -> None:
    adata = datasets.papalexi()
    pp.prepare(adata)
    pp.grn(adata, prior=None, targets=["TP53", "JAK1+STAT1"])
    stored = adata.uns["unlasting"]["grn"]
    present = set(adata.obs["perturbation"].astype(str).replace("MARCH8", "MARCHF8"))
    unmeasured = sorted((present | {"TP53", "JAK1"}) - set(adata.var_names) - {"control"})
    assert list(stored["nodes"]) == [*adata.var_names, *unmeasured]
    assert len(unmeasured) == 18
    assert list(stored["report"]["unmeasured_targets"]) == unmeasured
    assert "target_embedding" not in adata.uns["unlasting"]


@pytest.mark.slow
def test_go_knows_the_pathways_and_targets_without_a_label() -> None:
    adata = datasets.papalexi()
    pp.prepare(adata)
    pp.grn(adata, prior="go")
    embedding = adata.uns["unlasting"]["target_embedding"]
    row = {name: i for i, name in enumerate(embedding["names"])}
    assert embedding["matrix"].dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embedding["matrix"], axis=1), 1, atol=1e-5)

    def similarity(a: str, b: str) -> float:
        return float(embedding["matrix"][row[a]] @ embedding["matrix"][row[b]])

    assert similarity("IFNGR1", "IFNGR2") > 0.5
    assert similarity("STAT1", "STAT2") > 0.3
    assert similarity("IFNGR2", "CAV1") < 0.3
    assert "TP53" in row
    report = adata.uns["unlasting"]["grn"]["report"]
    assert report["renamed_targets"] == {"MARCH8": "MARCHF8"}
    assert report["aliases"]["C10orf11"] == "LRMDA"
    assert len(report["targets_without_prior"]) == 0
    assert ("IFNGR1", "IFNGR2") in pairs(adata, "go")


@pytest.mark.slow
def test_the_embedding_keeps_similarities_of_annotations() -> None:
    """Against tf-idf without reduction."""
    adata = datasets.papalexi()[::20].copy()
    pp.prepare(adata, n_top_genes=50)
    pp.grn(adata, prior="go")
    embedding = adata.uns["unlasting"]["target_embedding"]
    place = {name: i for i, name in enumerate(embedding["names"])}
    genes, annotated = annotations()
    weighted = annotated @ sparse.diags(np.log(len(genes) / np.maximum(np.asarray(annotated.sum(axis=0)).ravel(), 1)))
    chosen = ["IFNGR1", "IFNGR2", "JAK2", "STAT1", "SMAD4", "CAV1", "IRF1", "IRF7", "SPI1", "MYC"]
    exact = cosine_similarity(weighted[[genes.index(name) for name in chosen]])
    rows = embedding["matrix"][[place[name] for name in chosen]]
    upper = np.triu_indices(len(chosen), 1)
    assert np.corrcoef(exact[upper], (rows @ rows.T)[upper])[0, 1] > 0.7


@pytest.mark.slow
def test_features_are_the_terms_that_two_targets_share() -> None:
    """Against sets of terms, for genes, targets and an alias."""
    genes, annotated = annotations()
    terms = {gene: set(annotated[i].indices) for i, gene in enumerate(genes)}
    obs = pd.DataFrame({"perturbation": ["control", "STAT1", "JAK2", "MARCH8"] * 3}, index=[f"c{i}" for i in range(12)])
    values = np.random.default_rng(0).uniform(0.1, 2, (12, 3))
    adata = AnnData(values, obs=obs, var=pd.DataFrame(index=["STAT1", "IRF1", "CAV1"]))
    pp.grn(adata, prior="go", targets=["UNKNOWN"])
    embedding = adata.uns["unlasting"]["target_embedding"]
    row = {name: i for i, name in enumerate(embedding["names"])}
    targets = [terms[symbol] for symbol in ("STAT1", "JAK2", "MARCHF8")]
    shared = sorted(t for t in set.union(*targets) if sum(t in one for one in targets) >= 2)
    frequency = {t: sum(t in one for one in terms.values()) for t in shared}
    symbols = {"STAT1": "STAT1", "IRF1": "IRF1", "JAK2": "JAK2", "MARCHF8": "MARCHF8", "CAV1": "CAV1", "MYC": "MYC"}
    expected = [
        [np.log(len(genes) / frequency[t]) * (t in terms[symbol]) for t in shared] for symbol in symbols.values()
    ]
    found = embedding["features"][[row[name] for name in symbols]]
    assert found.dtype == np.float32
    assert 0 < len(shared) < annotated.shape[1]
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-6)
    adata.obs["perturbation"] = ["control", "STAT1"] * 6
    pp.grn(adata, prior="go")
    assert "features" not in adata.uns["unlasting"]["target_embedding"]


@pytest.mark.slow
def test_features_survive_a_file(tmp_path) -> None:
    adata = datasets.papalexi()
    pp.prepare(adata)
    pp.grn(adata)
    embedding = adata.uns["unlasting"]["target_embedding"]
    features = embedding["features"]
    assert features.shape[0] == len(embedding["names"])
    row = {name: i for i, name in enumerate(embedding["names"])}
    assert features[row["MARCHF8"]].nnz > 0
    adata.write_h5ad(tmp_path / "screen.h5ad")
    read = anndata.read_h5ad(tmp_path / "screen.h5ad").uns["unlasting"]["target_embedding"]["features"]
    assert sparse.issparse(read)
    assert (read != features).nnz == 0


def test_a_target_that_the_prior_does_not_know_is_named() -> None:
    adata = datasets.norman_mini()
    pp.prepare(adata, library_size_key="ncounts_full")
    pp.grn(adata, n_components=8)
    assert list(adata.uns["unlasting"]["grn"]["report"]["targets_without_prior"]) == ["IER5L"]
    assert "IER5L" not in adata.uns["unlasting"]["grn"]["nodes"]  # trained, it might as well be a stimulus


def test_an_untrained_target_that_nothing_knows_is_a_node() -> None:
    adata = datasets.norman_mini()
    pp.split(adata, test="IER5L")
    pp.prepare(adata, library_size_key="ncounts_full")
    pp.grn(adata, n_components=8)
    assert "IER5L" in adata.uns["unlasting"]["grn"]["nodes"]


def test_a_signed_graph_gives_edges_and_embeddings_beyond_the_panel() -> None:
    adata = screen()
    shared = [f"G{i}" for i in range(1, 7)]
    prior = pd.DataFrame(
        {
            "source": ["T1"] * 6 + ["X"] * 6 + ["Y"] * 6 + ["Y", "G1"],
            "target": [*shared, *shared, *shared, "elsewhere", "G1"],
            "weight": [2.0] * 6 + [1.0] * 12 + [1.0, 9.0],
            "sign": [-1] * 6 + [1] * 14,
        }
    )
    pp.grn(adata, prior=prior, targets="X", min_correlation=1)
    expected = {("T1", gene): -2.0 for gene in shared} | {("X", gene): 1.0 for gene in shared}
    assert pairs(adata, "prior") == expected  # neither a loop nor what is outside the nodes
    embedding = adata.uns["unlasting"]["target_embedding"]
    assert set(embedding["names"]) == {"T1", "X", "Y", "elsewhere", *shared}
    row = {name: embedding["matrix"][i] for i, name in enumerate(embedding["names"])}
    assert row["X"] @ row["Y"] > 0.3
    assert row["X"] @ row["T1"] < -0.2  # the same genes, with opposite signs
    assert "T2" in adata.uns["unlasting"]["grn"]["report"]["targets_without_prior"]


def test_the_network_of_a_simulated_screen_is_a_prior() -> None:
    adata = screen()
    edges = adata.uns["simulation"]["edges"]
    pp.grn(adata, prior=edges)
    nodes = set(adata.uns["unlasting"]["grn"]["nodes"])
    wanted = {(s, t) for s, t in zip(edges["source"], edges["target"], strict=True) if {s, t} <= nodes}
    assert wanted <= set(pairs(adata))


def test_a_graph_is_embedded_by_the_genes_within_two_steps() -> None:
    rng = np.random.default_rng(0)
    n = 25
    names = np.array([f"G{i:02}" for i in range(n)], dtype=object)
    graph = np.where(rng.uniform(size=(n, n)) < 0.1, rng.normal(size=(n, n)), 0)
    np.fill_diagonal(graph, 0)
    step = graph / np.abs(graph[graph != 0]).mean()
    sides = []
    for one in (step, step.T):
        out, into = (one != 0).sum(1), (one != 0).sum(0)
        two = one @ np.diag(np.maximum(out, 1) ** -0.5) @ one
        rarity = np.maximum(np.log(n / (1 + into)), 0.1)
        sides.append(((np.eye(n) + one + two) / np.sqrt(1 + out)[:, None]) * rarity)
    left, values, _ = np.linalg.svd(np.hstack(sides))
    source, target = np.nonzero(graph)
    weight = graph[source, target]
    edges = pd.DataFrame(
        {"source": names[source], "target": names[target], "weight": np.abs(weight), "sign": np.sign(weight)}
    )
    obs = pd.DataFrame({"perturbation": "control"}, index=[f"c{i}" for i in range(6)])
    adata = AnnData(rng.uniform(0.1, 2, (6, n)), obs=obs, var=pd.DataFrame(index=names))
    for k in (5, n - 1):
        pp.grn(adata, prior=edges, n_components=k)
        found = adata.uns["unlasting"]["target_embedding"]["matrix"]
        np.testing.assert_allclose(found @ found.T, cosine_similarity(left[:, :k] * values[:k]), atol=1e-5)


def test_neighbours_in_a_chain_of_regulation_are_similar() -> None:
    adata = screen()
    pp.grn(adata, prior=adata.uns["simulation"]["edges"])
    embedding = adata.uns["unlasting"]["target_embedding"]
    row = {name: embedding["matrix"][i] for i, name in enumerate(embedding["names"])}
    for first, second, other in (("T1", "T2", "T5"), ("T2", "T3", "T8"), ("T4", "T5", "T1")):
        assert row[first] @ row[second] > 0.2 + row[first] @ row[other]


def test_edges_of_an_embedding_join_the_nearest_above_the_threshold() -> None:
    adata = screen()
    rng = np.random.default_rng(2)
    names = [*adata.var_names[:30], "T1", "T2", "elsewhere"]
    frame = pd.DataFrame(rng.normal(size=(len(names), 4)), index=names)
    frame.iloc[5] = 0
    frame = frame[~frame.index.duplicated()]
    for max_neighbors in (1, 3, 100):
        pp.grn(adata, prior=frame, min_similarity=0.6, max_neighbors=max_neighbors, min_correlation=1.0)
        nodes = list(adata.uns["unlasting"]["grn"]["nodes"])
        inside = [name for name in nodes if name in frame.index and frame.loc[name].any()]
        similarity = pd.DataFrame(cosine_similarity(frame.loc[inside]), inside, inside)
        expected = set()
        for name in inside:
            others = similarity[name].drop(name).sort_values(ascending=False).head(max_neighbors)
            for other in others.index[others >= 0.6]:
                expected |= {(name, other), (other, name)}
        found = pairs(adata, "prior")
        assert set(found) == expected
        np.testing.assert_allclose(list(found.values()), [similarity.loc[pair] for pair in found], atol=1e-5)
    assert frame.index[5] not in adata.uns["unlasting"]["target_embedding"]["names"]
    assert "elsewhere" in adata.uns["unlasting"]["target_embedding"]["names"]


def test_ties_are_broken_by_name() -> None:
    names = ["b", "d", "a", "c"]
    obs = pd.DataFrame({"perturbation": "control"}, index=[f"c{i}" for i in range(6)])
    adata = AnnData(np.random.default_rng(0).uniform(0.1, 2, (6, 4)), obs=obs, var=pd.DataFrame(index=names))
    pp.grn(adata, prior=pd.DataFrame(np.ones((4, 1)), index=names), max_neighbors=1, min_correlation=1.0)
    found = {tuple(sorted(pair)) for pair in pairs(adata, "prior")}
    assert found == {("a", "b"), ("a", "c"), ("a", "d")}


def checkpoint(folder, *, wrapped: bool = False, norm: bool = True) -> np.ndarray:
    """Write a folder as scGPT does; the gene embedding that its encoder would give."""
    genes = ["<pad>", "T1", "T2", "G1", "G2", "<cls>"]
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(genes)}))
    torch.manual_seed(0)
    embedding, encoder_norm = torch.nn.Embedding(6, 8), torch.nn.LayerNorm(8)
    torch.nn.init.normal_(encoder_norm.weight)
    prefix = "module." if wrapped else ""
    state = {f"{prefix}encoder.embedding.weight": embedding.weight.detach()}
    if norm:
        state |= {f"{prefix}encoder.enc_norm.{key}": value for key, value in encoder_norm.state_dict().items()}
    torch.save({"model_state_dict": state} if wrapped else state, folder / "best_model.pt")
    with torch.no_grad():
        return (encoder_norm(embedding.weight) if norm else embedding.weight)[1:5].numpy()


def test_an_scgpt_checkpoint_is_read(tmp_path) -> None:
    adata = screen()
    for wrapped, norm in [(False, True), (True, True), (False, False)]:
        expected = checkpoint(tmp_path, wrapped=wrapped, norm=norm)
        pp.grn(adata, prior=tmp_path)
        embedding = adata.uns["unlasting"]["target_embedding"]
        assert list(embedding["names"]) == ["T1", "T2", "G1", "G2"]
        unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(embedding["matrix"], unit, atol=1e-6)


def test_a_foreign_or_incomplete_checkpoint_is_refused(tmp_path) -> None:
    adata = screen()
    with pytest.raises(FileNotFoundError, match="neither one of .*'go'.* nor an existing folder"):
        pp.grn(adata, prior="reactom")
    with pytest.raises(FileNotFoundError, match="must hold 'vocab.json' and 'best_model.pt'"):
        pp.grn(adata, prior=tmp_path)
    checkpoint(tmp_path)
    torch.save({"weight": torch.zeros(2)}, tmp_path / "best_model.pt")
    with pytest.raises(ValueError, match="has no 'encoder.embedding.weight'"):
        pp.grn(adata, prior=tmp_path)
    torch.save({"encoder.embedding.weight": torch.ones(2, 3)}, tmp_path / "best_model.pt")
    with pytest.raises(ValueError, match="do not belong together"):
        pp.grn(adata, prior=tmp_path)
    assert "grn" not in adata.uns["unlasting"]


def test_faults_are_named_and_nothing_is_written() -> None:
    adata = screen()
    for arguments, message in [
        ({"prior": 3}, "`prior` is a int. Give one of .*'go'.*, None"),
        ({"prior": pd.DataFrame(np.ones((2, 2)), index=["G1", "G1"])}, "'G1' more than once"),
        ({"prior": pd.DataFrame({"a": ["x"]}, index=["G1"])}, "must hold numbers only"),
        ({"prior": pd.DataFrame({"a": [np.nan]}, index=["G1"])}, "NaN or infinite"),
        ({"prior": pd.DataFrame({"a": [0.0]}, index=["G1"])}, "no gene with values other than zero"),
        ({"prior": pd.DataFrame({"source": [], "target": []})}, "`prior` has no edges"),
        ({"prior": pd.DataFrame({"source": ["a"], "target": [None]})}, "without a source or a target"),
        ({"prior": pd.DataFrame({"source": ["a"], "target": ["b"], "weight": [np.inf]})}, "in 'weight' or 'sign'"),
        ({"min_correlation": 0}, "`min_correlation` is 0"),
        ({"min_similarity": 1.5}, "`min_similarity` is 1.5"),
        ({"response_fdr": 1.0}, "`response_fdr` is 1.0"),
        ({"max_neighbors": 0}, "`max_neighbors` is 0"),
        ({"targets": ["A++B"]}, "`targets` contains labels that cannot be read"),
        ({"control": "contro"}, "earlier steps used 'control'"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            pp.grn(adata, **arguments)
        assert "grn" not in adata.uns["unlasting"]


def test_raw_counts_and_faulty_values_are_refused(tmp_path) -> None:
    adata = screen()
    for matrix, message in (
        (adata.layers["counts"], "whole numbers only, like raw counts"),
        (adata.X.toarray() - 1, "negative values, like scaled data"),
        (adata.X.toarray() * np.nan, "NaN or infinite"),
    ):
        wrong = adata.copy()
        wrong.X = matrix
        with pytest.raises(ValueError, match=message):
            pp.grn(wrong, prior=None)
    wrong.X = None
    with pytest.raises(ValueError, match="`adata.X` is empty"):
        pp.grn(wrong, prior=None)
    adata.write_h5ad(tmp_path / "screen.h5ad")
    with pytest.raises(ValueError, match="to_memory"):
        pp.grn(anndata.read_h5ad(tmp_path / "screen.h5ad", backed="r"), prior=None)


def test_what_is_written_survives_a_file_and_a_second_call_replaces_it(tmp_path) -> None:
    adata = screen()
    copied = pp.grn(adata, prior=adata.uns["simulation"]["edges"], copy=True)
    assert "grn" not in adata.uns["unlasting"]
    copied.write_h5ad(tmp_path / "screen.h5ad")
    again = anndata.read_h5ad(tmp_path / "screen.h5ad")
    stored, read = copied.uns["unlasting"], again.uns["unlasting"]
    assert list(read["grn"]["nodes"]) == list(stored["grn"]["nodes"])
    pd.testing.assert_frame_equal(
        read["grn"]["edges"].reset_index(drop=True), stored["grn"]["edges"], check_dtype=False
    )
    np.testing.assert_array_equal(read["target_embedding"]["matrix"], stored["target_embedding"]["matrix"])
    assert read["grn"]["report"]["split_hash"] == read["split"]["hash"]
    pp.grn(again, prior=None)
    assert "target_embedding" not in again.uns["unlasting"]
