"""Whatever a screen looks like, every step takes it or says what is wrong, and then leaves it as it was."""

from __future__ import annotations

import os
import string
import traceback
from collections.abc import Callable

import anndata
import mudata
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

import unlasting as ul

SIZES = {"width": 16, "gene_features": 4, "attention_features": 4, "time_frequencies": 8}
DENSE = [np.asarray, np.asfortranarray]
FORMS = [*DENSE, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array]
TYPES = ["int8", "uint16", "int32", "int64", "float32", "float64", "bool", "float16"]
GENES = [
    "STAT1",
    "JAK2",
    "HLA-A",
    "NKX2-1",
    "ERVK3+1",
    "gène",
    "遺伝子",
    " space ",
    "1",
    "1.0",
    "nan",
    "None",
    "a/b",
    "x",
]
NAMES = st.one_of(
    st.sampled_from(
        [*GENES, "control", "ctrl", "Control", "non-targeting", "", " ", "+", "A+", "+B", "A++B", "A+B", "B+A", "A+A"]
    ),
    st.text(string.printable + "äéß中☃\u200b\x00", max_size=8),
    st.sampled_from(GENES).flatmap(lambda first: st.sampled_from(GENES).map(lambda second: f"{first}+{second}")),
)
CLEAN = st.one_of(st.sampled_from(GENES), NAMES.filter(lambda name: "+" not in name and name.strip()))
LABELS = st.one_of(NAMES, st.none(), st.just(np.nan), st.integers(-2, 3), st.floats(allow_nan=True, width=32))
TIMES = int(os.environ.get("FUZZ_TIMES", "1"))
"""How many times the usual number of cases are drawn, new ones at each run if more than once."""
FORGIVING = settings(
    max_examples=60 * TIMES,
    deadline=None,
    derandomize=TIMES == 1,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@st.composite
def screens(draw) -> anndata.AnnData:
    """Draw a screen: half of its cells are controls, the others have labels of any sort."""
    n_cells, n_genes = draw(st.integers(1, 60)), draw(st.integers(1, 14))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    counts = rng.poisson(draw(st.sampled_from([0.1, 1.0, 30.0])), (n_cells, n_genes)) + draw(st.sampled_from([0, 1]))
    form = draw(st.sampled_from(FORMS))
    matrix = form(counts.clip(max=120).astype(draw(st.sampled_from(TYPES if form in DENSE else TYPES[:-1]))))
    kinds = draw(st.one_of([st.lists(one, min_size=1, max_size=5) for one in (CLEAN, CLEAN, LABELS)]))
    labels = ["control" if i % 2 else kinds[i // 2 % len(kinds)] for i in range(n_cells)]
    column = pd.Series(labels, dtype=object)
    if draw(st.booleans()) and column.map(lambda value: isinstance(value, str)).all():
        column = pd.Series(pd.Categorical(column, categories=[*dict.fromkeys(labels), "not used"]))
    obs = pd.DataFrame({"perturbation": column, "cell_type": rng.choice(["B", "T cell +"], n_cells)})
    obs.index = pd.Index([f"cell {i}" for i in range(n_cells)])
    genes = draw(st.lists(st.sampled_from(GENES), min_size=n_genes, max_size=n_genes, unique=True))
    return anndata.AnnData(matrix, obs=obs, var=pd.DataFrame(index=genes))


def snapshot(adata: anndata.AnnData) -> tuple[object, ...]:
    values = adata.X.toarray() if sparse.issparse(adata.X) else np.array(adata.X)
    return values, adata.X.dtype, adata.obs.copy(), sorted(adata.layers), sorted(adata.uns.get("unlasting", {}))


def is_same(first: tuple[object, ...], second: tuple[object, ...]) -> bool:
    np.testing.assert_array_equal(first[0], second[0])
    pd.testing.assert_frame_equal(first[2], second[2])
    return first[1] == second[1] and first[3:] == second[3:]


def takes(step: Callable[..., object], adata: anndata.AnnData, **arguments: object) -> bool:
    """Tell whether a step takes a screen. If not, it has to be on purpose, with a message, and without a trace."""
    before = snapshot(adata)
    refusal = None
    try:
        step(adata, **arguments)
    except (ValueError, KeyError, TypeError) as error:
        refusal = error
    if refusal is None:
        return True
    raised_in = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(refusal.__traceback__)][-1]
    assert raised_in.startswith("unlasting"), f"{type(refusal).__name__}: {refusal}, raised in {raised_in}"
    assert len(str(refusal)) > 20
    assert is_same(before, snapshot(adata))
    return False


def goes_through(adata: anndata.AnnData, cell_type_key: str | None) -> bool:
    edges = pd.DataFrame({"source": GENES[:-1], "target": GENES[1:]})
    return (
        takes(ul.pp.split, adata, kind="random")
        and takes(ul.pp.prepare, adata, min_cells=1)
        and takes(ul.pp.grn, adata, prior=edges)
        and takes(ul.UnlastingModel.setup_anndata, adata, cell_type_key=cell_type_key)
    )


@settings(FORGIVING, max_examples=80 * TIMES)
@given(adata=screens(), cell_type_key=st.sampled_from([None, "cell_type"]))
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_any_screen_is_taken_or_refused(adata, cell_type_key):
    if goes_through(adata, cell_type_key):
        ul.UnlastingModel(adata, **SIZES)


@settings(FORGIVING, max_examples=8 * TIMES)
@given(adata=screens(), cell_type_key=st.sampled_from([None, "cell_type"]))
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_what_is_taken_can_be_trained_on(adata, cell_type_key):
    if goes_through(adata, cell_type_key):
        model = ul.UnlastingModel(adata, n_steps=2, **SIZES)
        model.train(max_steps=1, batch_size=8, accelerator="cpu", show_progress=False)
        trained = adata.obs["perturbation"][adata.obs["unlasting_split"] == "train"]
        new = model.generate(str(next(label for label in trained if label != "control")), 2, show_progress=False)
        assert np.isfinite(new.X.toarray()).all()
        assert (new.X.toarray() >= 0).all()


@settings(FORGIVING, max_examples=20 * TIMES)
@given(adata=screens(), data=st.data())
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_any_mudata_is_taken_or_refused(adata, data):
    """Labels stand in the expression, in another modality or in the MuData; cells differ in number or order."""
    if not takes(ul.pp.prepare, adata, min_cells=1, genes=list(adata.var_names)):
        return
    guides = anndata.AnnData(np.ones((adata.n_obs, 2), dtype=np.float32), obs=adata.obs.copy())
    order = data.draw(st.sampled_from(["same", "turned", "fewer", "none of them"]))
    if order == "turned":
        guides = guides[::-1].copy()
    elif order == "fewer":
        guides = guides[: max(1, adata.n_obs // 2)].copy()
    elif order == "none of them":
        guides.obs_names = [f"other {name}" for name in guides.obs_names]
    mdata = mudata.MuData({"rna": adata, "guides": guides})
    if data.draw(st.booleans()):
        mdata.obs["perturbation"] = mdata["rna"].obs["perturbation"].reindex(mdata.obs_names)
    names = st.sampled_from(["rna", "rna", "guides", "protein"])
    modalities = {"layer": data.draw(names)}
    if data.draw(st.booleans()):
        modalities["perturbation_key"] = data.draw(names)
    before = snapshot(mdata["rna"])
    if not takes(lambda _, **given: ul.UnlastingModel.setup_mudata(mdata, **given), adata, modalities=modalities):
        assert is_same(before, snapshot(mdata["rna"]))
    else:
        ul.UnlastingModel(mdata, **SIZES)
