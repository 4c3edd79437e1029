from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from unlasting import pp
from unlasting.screen import ScreenKeys

TARGETS = ["A", "A", "B", "C", "control"]


def guides(counts: np.ndarray) -> AnnData:
    var = pd.DataFrame({"target": TARGETS}, index=["gA1", "gA2", "gB", "gC", "NT1"])
    return AnnData(
        sparse.csr_matrix(np.asarray(counts, dtype=np.float32)),
        obs=pd.DataFrame(index=[f"cell{i}" for i in range(len(counts))]),
        var=var,
    )


def cells(names: list[str]) -> AnnData:
    return AnnData(np.ones((len(names), 2), dtype=np.float32), obs=pd.DataFrame(index=names))


def test_the_rule() -> None:
    counts = [
        [9, 0, 0, 0, 0],  # one guide
        [6, 7, 0, 0, 0],  # two of one target
        [0, 0, 9, 8, 0],  # two targets
        [0, 0, 0, 0, 9],  # no target
        [0, 0, 9, 0, 8],  # a target beside none
        [4, 0, 0, 0, 0],  # too few counts
        [90, 0, 6, 0, 0],  # too small a share
        [0, 0, 0, 0, 0],
    ]
    adata = cells([f"cell{i}" for i in (3, 2, 1, 0, 7, 6, 5, 4)] + ["elsewhere"])
    pp.assign_guides(adata, guides(np.array(counts)), target_key="target")
    label = adata.obs["perturbation"].astype(object)
    assert label.dropna().to_dict() == {
        **{"cell0": "A", "cell1": "A", "cell2": "B+C"},
        **{"cell3": "control", "cell4": "B", "cell6": "A"},
    }
    assert ScreenKeys.read(adata).perturbation_key == "perturbation"


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 12), min_size=5, max_size=5), min_size=1, max_size=6),
    st.integers(1, 8),
    st.sampled_from([0.0, 0.2, 0.5, 1.0]),
)
def test_the_rule_cell_by_cell(counts, min_counts, min_share):
    expected = {}
    for i, row in enumerate(counts):
        hit = {t for t, n in zip(TARGETS, row, strict=True) if n >= min_counts and n >= min_share * sum(row)}
        if hit:
            expected[f"cell{i}"] = "/".join(sorted(hit - {"control"})) or "control"
    adata = cells([f"cell{i}" for i in range(len(counts))])
    options = {"target_key": "target", "min_counts": min_counts, "min_share": min_share, "delimiter": "/"}
    if not expected:
        with pytest.raises(ValueError, match="None of the .* cells of `adata` has a guide"):
            pp.assign_guides(adata, guides(np.array(counts)), **options)
        assert list(adata.obs) == []
        return
    copy = pp.assign_guides(adata, guides(np.array(counts)), key_added="label", copy=True, **options)
    assert copy.obs["label"].astype(object).dropna().to_dict() == expected
    assert list(adata.obs) == []


def test_guides_may_be_named_as_their_targets() -> None:
    counts = guides(np.diag([9, 9, 9, 9, 9]))
    adata = cells(list(counts.obs_names))
    pp.assign_guides(adata, counts, control="NT1")
    assert adata.obs["perturbation"].tolist() == ["gA1", "gA2", "gB", "gC", "NT1"]


def test_refusals() -> None:
    counts, adata = guides(np.eye(5) * 9), cells(["cell0"])
    for arguments, error, message in (
        ({"target_key": "targets"}, KeyError, "`target_key` is 'targets'.*Did you mean 'target'"),
        ({"min_counts": 0}, ValueError, "`min_counts` is 0"),
        ({"min_share": "half"}, ValueError, "`min_share` is 'half'; a number"),
        ({"min_share": 1.5}, ValueError, "`min_share` is 1.5"),
        ({"min_counts": 50}, ValueError, "Lower the thresholds"),
    ):
        with pytest.raises(error, match=message):
            pp.assign_guides(adata, counts, **arguments)
    counts.var["target"] = ["A", None, "B", "C", "control"]
    with pytest.raises(ValueError, match="The guide 'gA2' has no target"):
        pp.assign_guides(adata, counts, target_key="target")
    with pytest.raises(ValueError, match="fractions"):
        pp.assign_guides(adata, guides(np.eye(5) * 0.5))
    assert list(adata.obs) == []
