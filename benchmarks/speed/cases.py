"""What is timed: each case prepares its work, and gives a function that does it once and the number of its units."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import anndata
import plain
import screens
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GATConv

from unlasting import UnlastingModel
from unlasting.module import UnlastingModule
from unlasting.nn import SharedGraph, SharedGraphAttention

Work = Callable[[], object]
N_CELLS = 32
N_GENES = 2_000
N_EDGES = 40_000


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


def step_paper_plain() -> tuple[Work, float]:
    """Do the same with a graph for every cell."""
    model = screens.model("paper")
    plain.without_shared_graph(model.module.denoiser)
    return _step(model.module, model.adata, N_CELLS)


def step_default() -> tuple[Work, float]:
    """Train the default model for a step, at its own batch size."""
    model = screens.model("default")
    return _step(model.module, model.adata, model.preset.train_denoiser.batch_size)


def _generation(preset: str) -> tuple[Work, float]:
    model = screens.model(preset, n_cells=2_000)
    labels = [f"G{i}" for i in range(8)]
    n_each = 16
    return lambda: model.generate(labels, n_each, show_progress=False), n_each * len(labels)


def generation() -> tuple[Work, float]:
    """Generate 16 cells for each of 8 perturbations with the default model."""
    return _generation("default")


def generation_plain() -> tuple[Work, float]:
    """Generate 2 cells with the published steps, a graph for each; one evaluation of 100 is timed."""
    model = screens.model("paper")
    module = model.module
    plain.without_shared_graph(module.averaged["denoiser"])
    module.preset = module.preset.replace(n_steps=1)  # once up and once down, for 50 times each
    cells = torch.from_numpy(model.adata.X[:2].toarray()) / module.statistics.x_max
    return lambda: plain.generate(module.eval(), cells, 1), 2 / 50


def loader(n_cells: int = 100_000) -> tuple[Work, float]:
    """Read every training cell of a screen on disk once, in batches of 64."""
    folder = tempfile.TemporaryDirectory()
    file = Path(folder.name) / "screen.h5ad"
    screens.write_screen(file, n_cells)
    adata = anndata.read_h5ad(file, backed="r")

    def epoch() -> None:
        UnlastingModel.setup_anndata(adata)
        model = UnlastingModel(adata)
        for _ in model._make_data_loader(adata, batch_size=64, shuffle=True):
            pass
        folder.cleanup()

    return epoch, n_cells


def matmul() -> tuple[Work, float]:
    """Multiply two matrices of 2,048 x 2,048; a unit is a floating-point operation."""
    one = torch.randn(2048, 2048)
    return lambda: one @ one, 2 * 2048**3


CASES: dict[str, Callable[..., tuple[Work, float]]] = {
    "attention": attention,
    "attention PyG": attention_pyg,
    "step paper": step_paper,
    "step paper plain": step_paper_plain,
    "step default": step_default,
    "generation": generation,
    "generation plain": generation_plain,
    "loader": loader,
    "matmul": matmul,
}
