"""The published architecture as one would write it down: a graph for every cell, and PyG's `GATConv` over all of them.

Written for comparison. Every number is that of `preset="paper"`: only how it is computed differs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GATConv

from unlasting.module import UnlastingModule
from unlasting.nn import Denoiser, SharedGraphAttention


class PerCellGraphAttention(nn.Module):
    """`GATConv` over the graphs of all cells, which are collated anew for every batch.

    Parameters
    ----------
    shared
        The layer whose weights are copied.
    """

    def __init__(self, shared: SharedGraphAttention) -> None:
        super().__init__()
        self.conv = GATConv(shared.lin.in_features, shared.out_features, heads=shared.heads, concat=False)
        with torch.no_grad():
            self.conv.lin.weight.copy_(shared.lin.weight)
            self.conv.att_src.copy_(shared.att_src[None])
            self.conv.att_dst.copy_(shared.att_dst[None])
            self.conv.bias.copy_(shared.bias)
        is_loop = shared.graph.source == shared.graph.target
        self.edge_index = torch.stack([shared.graph.source, shared.graph.target])[:, ~is_loop]

    def forward(self, features: Tensor) -> Tensor:
        """Attend, shapes `(n_cells, n_nodes, n_features)`."""
        batch = Batch.from_data_list([Data(x=nodes, edge_index=self.edge_index) for nodes in features])
        return self.conv(batch.x, batch.edge_index).view(*features.shape[:2], -1)


def without_shared_graph(denoiser: Denoiser) -> Denoiser:
    """Exchange the attention of a denoiser, in place."""
    for i, layer in enumerate(denoiser.grn.attention):
        denoiser.grn.attention[i] = PerCellGraphAttention(layer)
    return denoiser


def generate(module: UnlastingModule, cells: Tensor, condition: int) -> Tensor:
    """Carry control cells to one registered condition by 50 DDIM steps up and 50 down, each cell from its beginning."""
    n = cells.shape[0]
    rows = torch.zeros(n, dtype=torch.long)
    with torch.inference_mode():
        populations, asked = module.populations()[rows], module.conditions(rows + condition)
        before, after = (module.registered_expected(rows + code, rows) for code in (0, condition))
        zero = torch.zeros_like(cells)
        latent = module.encode(cells, zero, zero, module.conditions(rows), populations, before)
        return module.decode(latent, torch.ones_like(cells), cells, asked, populations, after)
