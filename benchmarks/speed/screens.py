"""Screens for benchmarks, made of random numbers."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from anndata.io import write_elem
from scipy import sparse

from unlasting import UnlastingModel, pp

N_CONDITIONS = 20


def cells(n_cells: int, n_genes: int, rng: np.random.Generator) -> sparse.csr_matrix:
    """Draw log-normalised cells of which a fifth of the entries is not zero."""
    n_expressed = n_genes // 5
    # A shifted stride visits distinct genes without a permutation for every cell.
    column = (rng.integers(n_genes, size=(n_cells, 1)) + 5 * np.arange(n_expressed)) % n_genes
    column.sort(axis=1)
    values = np.log1p(rng.gamma(1.0, 2.0, (n_cells, n_expressed))).astype(np.float32)
    start = np.arange(n_cells + 1) * n_expressed
    return sparse.csr_matrix((values.ravel(), column.ravel().astype(np.int32), start), (n_cells, n_genes))


def _labels(n_cells: int, n_genes: int, n_edges: int, rng: np.random.Generator) -> AnnData:
    """Make everything of a screen but its expression."""
    names = np.array(["control", *(f"G{i}" for i in range(N_CONDITIONS))])
    obs = pd.DataFrame(
        {
            "perturbation": pd.Categorical(names[rng.integers(len(names), size=n_cells)]),
            "unlasting_split": pd.Categorical(rng.choice(["train", "val"], size=n_cells, p=[0.95, 0.05])),
        },
        index=pd.RangeIndex(n_cells).astype(str),
    )
    adata = AnnData(obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(n_genes)]))
    pairs = rng.choice(n_genes * n_genes, size=n_edges, replace=False)
    nodes = np.array(adata.var_names, dtype=object)
    edges = pd.DataFrame(
        {"source": nodes[pairs // n_genes], "target": nodes[pairs % n_genes], "weight": 1.0, "origin": "given"}
    )
    adata.uns["unlasting"] = {"grn": {"nodes": nodes, "edges": edges, "report": {}}}
    return adata


def screen(n_cells: int, n_genes: int = 2_000, n_edges: int = 40_000) -> AnnData:
    """Make a screen in memory."""
    rng = np.random.default_rng(0)
    adata = _labels(n_cells, n_genes, n_edges, rng)
    adata.X = cells(n_cells, n_genes, rng)
    return adata


def perturbed(n_conditions: int, n_batches: int, n_genes: int, n_each: int, n_controls: int = 60) -> AnnData:
    """Make a screen with cells of every condition in every batch, whose targets have an embedding."""
    rng = np.random.default_rng(0)
    names = [f"G{i}" for i in range(n_conditions)]
    labels = np.tile(np.repeat(["control", *names], [n_controls] + n_conditions * [n_each]), n_batches)
    batch = np.repeat(np.arange(n_batches), len(labels) // n_batches).astype(str)
    adata = AnnData(cells(len(labels), n_genes, rng), var=pd.DataFrame(index=[f"G{i}" for i in range(n_genes)]))
    adata.obs["perturbation"], adata.obs["batch"] = pd.Categorical(labels), pd.Categorical(batch)
    nodes = np.array(list(dict.fromkeys([*adata.var_names, *names])), dtype=object)
    matrix = rng.normal(size=(len(nodes), 16)).astype(np.float32)
    edges = pd.DataFrame({"source": nodes[:1], "target": nodes[1:2], "weight": 1.0, "origin": "given"})
    adata.uns["unlasting"] = {
        "grn": {"nodes": nodes, "edges": edges, "report": {}},
        "target_embedding": {"names": nodes, "matrix": matrix, "origin": "given"},
    }
    return adata


def genome(n_conditions: int, n_genes: int = 300, n_each: int = 3) -> AnnData:
    """Make a screen whose targets are human genes of the default prior."""
    known = pp.PRIORS["default"](2).names
    names = [str(known[i]) for i in np.random.default_rng(0).permutation(len(known))[:n_conditions]]
    labels = np.repeat(["control", *names], [60] + n_conditions * [n_each])
    adata = AnnData(cells(len(labels), n_genes, np.random.default_rng(1)))
    adata.var_names = [f"measured {i}" for i in range(n_genes)]
    adata.obs["perturbation"] = pd.Categorical(labels)
    adata.obs["unlasting_split"] = "train"
    adata.uns["unlasting"] = {}
    pp.grn(adata, prior="default")
    return adata


def write_screen(file: Path, n_cells: int, n_genes: int = 2_000, n_edges: int = 40_000, block: int = 10_000) -> None:
    """Write a screen to a file, of which only a block of cells is in memory."""
    rng = np.random.default_rng(0)
    _labels(n_cells, n_genes, n_edges, rng).write_h5ad(file)
    with h5py.File(file, "r+") as written:
        write_elem(written, "X", cells(0, n_genes, rng), dataset_kwargs={"indptr_dtype": "int64"})
        matrix = written["X"]
        for name in ("data", "indices", "indptr"):
            kept, attributes = matrix[name][:], dict(matrix[name].attrs)
            del matrix[name]
            matrix.create_dataset(name, data=kept, maxshape=(None,), chunks=(1 << 16,))
            matrix[name].attrs.update(attributes)
        for start in range(0, n_cells, block):
            drawn = cells(min(block, n_cells - start), n_genes, rng)
            n_stored = len(matrix["data"])
            for name, values in (
                ("data", drawn.data),
                ("indices", drawn.indices),
                ("indptr", drawn.indptr[1:] + n_stored),
            ):
                stored = matrix[name]
                stored.resize(len(stored) + len(values), axis=0)
                stored[-len(values) :] = values
        matrix.attrs["shape"] = (n_cells, n_genes)


def model(
    preset: str, n_cells: int = 400, n_genes: int = 2_000, n_edges: int = 40_000, **options: object
) -> UnlastingModel:
    """Make a model with random weights, which takes as long as one that is trained."""
    adata = screen(n_cells, n_genes, n_edges)
    UnlastingModel.setup_anndata(adata)
    made = UnlastingModel(adata, preset=preset, **options)
    made.effects_model  # noqa: B018  fitted on first use
    made.is_trained_ = True
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in made.module.named_parameters():
            if name.endswith(("out.weight", "gate.weight", "read_out")):  # zero before training: not evaluated
                parameter.add_(1e-3 * torch.randn_like(parameter))
    return made
