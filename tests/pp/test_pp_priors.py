from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np
import pandas as pd
import pytest

from unlasting import pp


def test_several_priors_are_one():
    """A gene's similarity is the sum over priors of products, each row scaled by the number of priors that contain it."""
    rng = np.random.default_rng(0)
    one = pd.DataFrame(rng.normal(size=(6, 3)), index=list("ABCDEF"))
    two = pd.DataFrame(rng.normal(size=(5, 4)), index=list("CDEFG"))
    joined = pp._priors.read_prior([one, two], 8)
    unit = {frame: table.div(np.linalg.norm(table, axis=1), axis=0) for frame, table in (("one", one), ("two", two))}
    full = pd.concat([unit["one"], unit["two"]], axis=1).fillna(0.0).sort_index()
    count = pd.Series({name: (name in one.index) + (name in two.index) for name in full.index})
    expected = full.to_numpy() @ full.to_numpy().T / np.sqrt(np.outer(count, count))
    assert list(joined.names) == list(full.index)
    np.testing.assert_allclose(joined.matrix @ joined.matrix.T, expected, atol=1e-6)
    assert joined.edges is None

    edges = pd.DataFrame({"source": ["A"], "target": ["Z"]})
    both = pp._priors.read_prior([edges, edges.assign(target="Y")], 4)
    assert set(both.edges["target"]) == {"Y", "Z"}
    with_go = pp._priors.read_prior(["go", one], 16)
    names = ["A", "STAT1", "JAK2", "TP53"]
    (of_go,) = pp._priors.read_prior("go", 16).features.values()
    features = {source: of(names, names, names).toarray() for source, of in with_go.features.items()}
    assert list(features) == ["go", "prior"]
    assert not features["go"][0].any()
    np.testing.assert_array_equal(features["go"][1:], of_go(names[1:], names[1:], names).toarray())
    np.testing.assert_allclose(features["prior"][0], unit["one"].loc["A"], rtol=1e-6)
    assert not features["prior"][1:].any()
    assert pp._priors.read_prior(["go"], 16).origin == "go"
    with pytest.raises(TypeError, match="or a list of these"):
        pp._priors.read_prior([], 4)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["go", "reactome", "string"])
def test_targets_are_as_similar_as_their_annotations_or_partners(source):
    """Products of features against a computation by sets, from the shipped files."""
    targets = ["IFNGR1", "JAK2", "STAT1", "SMAD4", "BRD4", "MAP2K3"]
    with as_file(files("unlasting.pp") / "_data" / f"{source}_human.npz") as path, np.load(path) as stored:
        stored = dict(stored)
    genes = stored["genes"].tobytes().decode().split("\n")
    described = pd.DataFrame(
        0.0, index=targets, columns=range(len(genes) if source == "string" else len(stored["terms"]))
    )
    if source == "string":
        score = np.zeros((len(genes), len(genes)), dtype=np.float32)
        score[stored["first"], stored["second"]] = score[stored["second"], stored["first"]] = stored["score"] / 1000
        root = np.sqrt(score.sum(axis=1))
        for target in targets:
            row = genes.index(target)
            partners = score[row] / root[row] / root
            partners /= np.linalg.norm(partners)
            partners[row] += 0.5
            described.loc[target] = partners / np.linalg.norm(partners)
    else:
        terms = [set(stored["indices"][i:j]) for i, j in zip(stored["indptr"], stored["indptr"][1:], strict=False)]
        frequency = np.bincount(stored["indices"], minlength=described.shape[1])
        for target in targets:
            for term in terms[genes.index(target)]:
                described.loc[target, term] = np.log(len(genes) / frequency[term])
        described = described.loc[:, (described > 0).sum() >= 2]
    prior = pp._priors.read_prior(source, 8)
    found, columns, is_term = pp._priors.described(prior, list(prior.names), targets)
    rows = found[[list(prior.names).index(target) for target in targets]].toarray()
    np.testing.assert_allclose(rows @ rows.T, described.to_numpy() @ described.to_numpy().T, rtol=1e-4, atol=1e-5)
    assert set(columns) == {source}
    assert is_term.all() == (source != "string")
    assert len(prior.names) > 10_000


def test_the_default_prior_holds_all_sources():
    prior = pp._priors.read_prior("default", 8)
    targets = ["IFNGR1", "JAK2", "STAT1"]
    found, columns, _ = pp._priors.described(prior, list(prior.names), targets)
    assert list(dict.fromkeys(columns)) == ["go", "reactome", "string"]
    alone = pp._priors.read_prior("reactome", 8)
    expected, *_ = pp._priors.described(alone, list(alone.names), targets)
    row, own = (list(one.names).index("JAK2") for one in (prior, alone))
    np.testing.assert_array_equal(found[row, columns == "reactome"].toarray(), expected[own].toarray())


@pytest.mark.parametrize("sources", [["go", "go"], ["default", "string"]])
def test_a_source_counts_once(sources):
    with pytest.raises(ValueError, match=f"names '{sources[1]}' twice.*Name it once"):
        pp._priors.read_prior(sources, 8)
