"""A tiny screen, and tiny models trained on it once for all tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scvi
from anndata import AnnData
from scipy import sparse

from unlasting.model import UnlastingModel, _streaming  # parts are far larger than these screens

SIZES = {"width": 32, "gene_features": 4, "attention_features": 4, "time_frequencies": 16}
QUIET = {"show_progress": False, "accelerator": "cpu"}
LABELS = ["control", "G3", "G7", "TFX", "G3+TFX"]


def make_screen(n_cells: int = 500, n_genes: int = 60, seed: int = 0, batches: bool = False) -> AnnData:
    """Two cell types, four conditions: two measured targets, one that is not measured, and a pair.

    `G3` switches genes 10-19 off, `TFX` switches genes 20-29 on, `G7` does nothing. `NEW1` is known to the prior only
    (like `G3`), `NEW2` is a node without an embedding.
    """
    rng = np.random.default_rng(seed)
    genes = [f"G{i}" for i in range(n_genes)]
    label = rng.choice(LABELS, size=n_cells, p=[0.4, 0.15, 0.15, 0.15, 0.15])
    cell_type = rng.choice(["B", "T"], size=n_cells)
    rate = np.tile(rng.gamma(2.0, 1.0, size=n_genes), (n_cells, 1))
    rate[cell_type == "B", 30:40] *= 3.0
    of_g3, of_tfx = (np.array([target in one.split("+") for one in label]) for target in ("G3", "TFX"))
    rate[np.ix_(of_g3, np.arange(10, 20))] *= 0.1
    rate[np.ix_(of_tfx, np.arange(20, 30))] *= 4.0
    rate[of_g3, 3] = 0.05
    counts = rng.poisson(rate * rng.lognormal(0.0, 0.3, size=(n_cells, 1)))
    size = np.maximum(counts.sum(1, keepdims=True), 1)
    obs = pd.DataFrame(
        {
            "perturbation": pd.Categorical(label),
            "cell_type": pd.Categorical(cell_type),
            "unlasting_split": pd.Categorical(
                rng.choice(["train", "val", "test"], size=n_cells, p=[0.7, 0.1, 0.2]),
                categories=["train", "val", "test"],
            ),
        },
        index=[f"cell{i}" for i in range(n_cells)],
    )
    if batches:
        obs["batch"] = pd.Categorical(rng.choice(["one", "two"], size=n_cells))
    adata = AnnData(
        sparse.csr_matrix(np.log1p(counts / size * 100).astype(np.float32)), obs=obs, var=pd.DataFrame(index=genes)
    )
    embedded = [*genes, "TFX", "NEW1"]
    matrix = rng.normal(size=(len(embedded), 8))
    matrix[-1] = matrix[3] + 0.1 * matrix[-1]
    edges = np.unique(rng.integers(n_genes + 2, size=(150, 2)), axis=0)
    nodes = np.array([*genes, "NEW2", "TFX"], dtype=object)
    adata.uns["unlasting"] = {
        "grn": {
            "nodes": nodes,
            "edges": pd.DataFrame(
                {"source": nodes[edges[:, 0]], "target": nodes[edges[:, 1]], "weight": 1.0, "origin": "given"}
            ),
            "report": {},
        },
        "target_embedding": {
            "names": np.array(embedded, dtype=object),
            "matrix": (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32),
            "origin": "given",
        },
    }
    return adata


def make_model(
    adata: AnnData, preset: str = "default", *, train: int = 0, seed: int = 0, options: dict | None = None, **setup
) -> UnlastingModel:
    """Set up, initialise and train, all with one seed."""
    UnlastingModel.setup_anndata(adata, **{"cell_type_key": "cell_type", **setup})
    before = scvi.settings.seed
    scvi.settings.seed = seed
    model = UnlastingModel(adata, preset=preset, **SIZES, **(options or {}))
    scvi.settings.seed = before
    if train:
        model.train(max_steps=train, seed=seed, batch_size=64, lr=2e-3, **QUIET)
    return model


def make_parts_small() -> None:
    """Write parts with 17 cells."""
    _streaming._VALUES_IN_PART = 17 * 60


def state_of(adata: AnnData) -> dict[str, object]:
    """Everything that must not change when a call is refused."""
    return {
        "X": np.asarray(adata.X.toarray() if sparse.issparse(adata.X) else adata.X).copy(),
        "obs": adata.obs.copy(),
        "layers": sorted(adata.layers),
        "uns": sorted(adata.uns.get("unlasting", {})),
        "keys": dict(adata.uns.get("unlasting", {}).get("keys", {})),
        "var_names": list(adata.var_names),
    }


def assert_unchanged(adata: AnnData, before: dict[str, object]) -> None:
    after = state_of(adata)
    np.testing.assert_array_equal(after.pop("X"), before["X"])
    pd.testing.assert_frame_equal(after.pop("obs"), before["obs"])
    assert after == {k: v for k, v in before.items() if k not in ("X", "obs")}


def pytest_collection_modifyitems(items):
    """Mark the tests that read a model trained here as slow."""
    for item in items:
        if item.path.parent == Path(__file__).parent and {"model", "paper_model", "either"} & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def screen() -> Callable[..., AnnData]:
    return make_screen


@pytest.fixture(scope="session")
def build() -> Callable[..., UnlastingModel]:
    return make_model


@pytest.fixture
def unchanged():
    """Take the state of an AnnData; call the result to compare."""

    def watch(adata: AnnData) -> Callable[[], None]:
        before = state_of(adata)
        return lambda: assert_unchanged(adata, before)

    return watch


@pytest.fixture(scope="session")
def adata() -> AnnData:
    """The screen that `model` was trained on; tests do not write to it."""
    return make_screen()


@pytest.fixture(scope="session")
def model(adata) -> UnlastingModel:
    return make_model(adata, train=60)


@pytest.fixture(scope="session")
def paper_model() -> UnlastingModel:
    """With fewer steps of generation than published, which change no law."""
    return make_model(make_screen(), "paper", train=20, options={"n_steps": 10})


@pytest.fixture(scope="session", params=["default", pytest.param("paper", marks=pytest.mark.slow)])
def either(request, model, paper_model) -> UnlastingModel:
    return model if request.param == "default" else paper_model


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(_streaming, "_VALUES_IN_PART", _streaming._VALUES_IN_PART)
    make_parts_small()


@pytest.fixture
def controls(adata) -> AnnData:
    """Training controls of the screen, as the user would pass them."""
    return adata[(adata.obs["perturbation"] == "control") & (adata.obs["unlasting_split"] == "train")].copy()
