"""What is timed: each case prepares its work, and gives a function that does it once and the number of its units.

A number that the function returns is kept beside its time.
"""

from __future__ import annotations

import itertools
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import anndata
import distances
import numpy as np
import pandas as pd
import plain
import screens
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GATConv

from unlasting import UnlastingModel
from unlasting.data import CellSplitter
from unlasting.module import UnlastingModule
from unlasting.nn import SharedGraph, SharedGraphAttention

Work = Callable[[], object]
N_CELLS = 32
N_GENES = 2_000
N_EDGES = 40_000
logging.getLogger("unlasting").setLevel(logging.WARNING)
PROFILE = Path(__file__).parent / "results" / "profile.csv"


def _edges(n_edges: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    pairs = torch.randperm(N_GENES * N_GENES, generator=generator)[:n_edges]
    return torch.stack([pairs // N_GENES, pairs % N_GENES])


def _features(n_cells: int) -> Tensor:
    return torch.randn(n_cells, N_GENES, 64, generator=torch.Generator().manual_seed(0)).requires_grad_(True)


def attention(n_cells: int = N_CELLS, n_edges: int = N_EDGES) -> tuple[Work, float]:
    """Forward and backward through our attention, of 2 heads and width 64."""
    features = _features(n_cells)
    layer = SharedGraphAttention(SharedGraph(_edges(n_edges), N_GENES), 64, 64, heads=2)
    return lambda: layer(features).square().sum().backward(), n_cells


def attention_pyg(n_cells: int = N_CELLS, n_edges: int = N_EDGES) -> tuple[Work, float]:
    """Get the same from PyG, over a copy of the graph for every cell, made beforehand."""
    features = _features(n_cells)
    graph = Data(edge_index=_edges(n_edges), num_nodes=N_GENES)
    edge_index = Batch.from_data_list([graph] * n_cells).edge_index
    layer = GATConv(64, 64, heads=2, concat=False)
    return lambda: layer(features.view(-1, 64), edge_index).square().sum().backward(), n_cells


def _step(module: UnlastingModule, adata: anndata.AnnData, n_cells: int) -> tuple[Work, float]:
    x0 = torch.from_numpy(adata.X[:n_cells].toarray()) / module.statistics.x_max
    condition = torch.as_tensor(adata.obs["_unlasting_perturbation"].to_numpy()[:n_cells]).long()
    optimizer = torch.optim.AdamW(module.denoiser.parameters(), lr=1e-4, fused=True)
    module.train()

    def step() -> None:
        loss = module.denoising_loss(x0, condition, torch.zeros_like(condition))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step, n_cells


def step_paper() -> tuple[Work, float]:
    """Train the published architecture for a step."""
    model = screens.model("paper")
    return _step(model.module, model.adata, N_CELLS)


def step_paper_plain(n_cells: int = 4) -> tuple[Work, float]:
    """Do the same with a graph for every cell; 32 cells take 15 GB, so that fewer are compared, per cell."""
    model = screens.model("paper")
    plain.without_shared_graph(model.module.denoiser)
    return _step(model.module, model.adata, n_cells)


def step_default(n_genes: int = N_GENES) -> tuple[Work, float]:
    """Train the default model for a step, at its own batch size; count what its matrix products compute."""
    model = screens.model("default", n_genes=n_genes, n_edges=20 * n_genes)
    step, n_cells = _step(model.module, model.adata, model.preset.train_denoiser.batch_size)
    counted = FlopCounterMode(display=False)

    def counting() -> float:
        if counted.get_total_flops():
            step()
        else:
            with counted:
                step()
        return float(counted.get_total_flops())

    return counting, n_cells


def profile_default() -> tuple[Work, float]:
    """Write where the time of such a step goes, and get the share of its matrix products."""
    step, n_cells = step_default()
    step()

    def profiled() -> float:
        with profile(activities=[ProfilerActivity.CPU]) as found:
            step()
        spent = pd.Series({event.key: event.self_cpu_time_total for event in found.key_averages()})
        share = (spent / spent.sum()).sort_values(ascending=False)
        share.rename("share").rename_axis("operation").head(15).to_csv(PROFILE, float_format="%.3f")
        return float(share[share.index.isin(["aten::mm", "aten::addmm", "aten::bmm"])].sum())

    return profiled, n_cells


def generation(n_steps: int = 5) -> tuple[Work, float]:
    """Generate 150 cells for each of 2 perturbations with the default model; a control cell is encoded once."""
    model = screens.model("default", n_cells=500)
    model.module.preset = model.module.preset.replace(n_steps=n_steps)
    labels, n_each = ["G0", "G1"], 150
    return lambda: model.generate(labels, n_each, show_progress=False), n_each * len(labels)


def generation_paper(n_cells: int = 8) -> tuple[Work, float]:
    """Generate cells with the published architecture and its 50 steps on each way."""
    model = screens.model("paper")
    return lambda: model.generate("G0", n_cells, show_progress=False), n_cells


def generation_plain() -> tuple[Work, float]:
    """Generate 2 cells with the published steps, a graph for each; one evaluation of 50 on each way is timed."""
    model = screens.model("paper")
    module = model.module
    plain.without_shared_graph(module.averaged["denoiser"])
    module.preset = module.preset.replace(n_steps=1)  # once up and once down, for 50 times each
    cells = torch.from_numpy(model.adata.X[:2].toarray()) / module.statistics.x_max
    return lambda: plain.generate(module.eval(), cells, 1), 2 / 50


def on_disk(n_cells: int = 100_000, n_batches: int = 200) -> tuple[Work, float]:
    """Fit what is fitted before training to a screen on disk, then read cells at random in batches of 64.

    The number is the cells that are read in a second of the processors.
    """
    folder = tempfile.TemporaryDirectory()
    file = Path(folder.name) / "screen.h5ad"
    screens.write_screen(file, n_cells)

    def read() -> float:
        adata = anndata.read_h5ad(file, backed="r")
        UnlastingModel.setup_anndata(adata)
        model = UnlastingModel(adata)
        codes = adata.obs["_unlasting_split"].to_numpy()
        splitter = CellSplitter(model.adata_manager, [np.flatnonzero(codes == code) for code in range(3)], 64)
        splitter.setup()
        start = time.process_time()
        for _ in itertools.islice(splitter.train_dataloader(), n_batches):
            pass
        rate = 64 * n_batches / (time.process_time() - start)
        folder.cleanup()
        return rate

    return read, n_cells


def fit(n_conditions: int = 500, n_batches: int = 1, n_genes: int = 300, n_each: int = 3) -> tuple[Work, float]:
    """Fit the effects model to a screen with few cells of every condition in every batch."""
    adata = screens.perturbed(n_conditions, n_batches, n_genes, n_each)
    UnlastingModel.setup_anndata(adata, batch_key="batch")
    model = UnlastingModel(adata)
    return lambda: model.effects_model, n_conditions


def fit_genome(n_conditions: int = 4_000) -> tuple[Work, float]:
    """Fit the effects model to knock-outs of human genes, which the default prior describes."""
    adata = screens.genome(n_conditions)
    UnlastingModel.setup_anndata(adata)
    model = UnlastingModel(adata)
    return lambda: model.effects_model, n_conditions


def matmul() -> tuple[Work, float]:
    """Multiply two matrices of 2,048 x 2,048; a unit is a floating-point operation."""
    one = torch.randn(2048, 2048)
    return lambda: one @ one, 2 * 2048**3


CASES: dict[str, Callable[..., tuple[Work, float]]] = {
    "matrix product": matmul,
    "attention": attention,
    "attention, PyG GATConv": attention_pyg,
    "step published": step_paper,
    "step published, plain": step_paper_plain,
    "step default": step_default,
    "profile": profile_default,
    "generation": generation,
    "generation published": generation_paper,
    "generation, plain": generation_plain,
    "on disk": on_disk,
    "fit": fit,
    "genome": fit_genome,
    **{name: distances.case(name) for name in distances.DISTANCES},
}
