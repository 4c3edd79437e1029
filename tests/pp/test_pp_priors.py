from __future__ import annotations

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
    alone = pp._priors.read_prior("go", 16).features(names[1:], names[1:], names).toarray()
    features = with_go.features(names, names, names).toarray()
    assert not features[0].any()
    np.testing.assert_array_equal(features[1:], alone)
    assert pp._priors.read_prior(["go"], 16).origin == "go"
    with pytest.raises(TypeError, match="or a list of these"):
        pp._priors.read_prior([], 4)
