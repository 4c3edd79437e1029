"""Graph attention for a batch of cells that share one graph."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_SPARSE_DEVICES = ("cpu", "cuda")
"""Where torch has sparse kernels; elsewhere messages are gathered edge by edge."""


class SharedGraph(nn.Module):
    """The edges of one graph with self-loops, sorted by target, as index tensors.

    Parameters
    ----------
    edge_index
        Source and target node of every directed edge, shape `(2, n_edges)`. Self-loops and repeated edges are
        removed first; one self-loop for every node is added.
    n_nodes
        The number of nodes.
    """

    def __init__(self, edge_index: Tensor, n_nodes: int) -> None:
        super().__init__()
        loops = torch.arange(n_nodes, device=edge_index.device).expand(2, -1)
        edges = torch.cat([edge_index[:, edge_index[0] != edge_index[1]], loops], dim=1)
        target, source = torch.unique(edges.flip(0), dim=1)  # sorted by target, then by source
        self.n_nodes = n_nodes
        self.register_buffer("source", source.contiguous())
        self.register_buffer("target", target.contiguous())
        # Where the edge (target, source) of the transposed graph is found among the edges sorted by target.
        self.register_buffer("transposed", torch.argsort(source * n_nodes + target))
        self.register_buffer("row_start", self._row_start(target, n_nodes))
        self.register_buffer("transposed_row_start", self._row_start(source, n_nodes))
        self.source: Tensor
        self.target: Tensor
        self.transposed: Tensor
        self.row_start: Tensor
        self.transposed_row_start: Tensor
        self._stacked: dict[tuple[int, torch.device], tuple[Tensor, ...]] = {}

    @staticmethod
    def _row_start(row: Tensor, n_nodes: int) -> Tensor:
        counts = torch.zeros(n_nodes, dtype=torch.long, device=row.device).index_add_(0, row, torch.ones_like(row))
        return torch.cat([counts.new_zeros(1), counts.cumsum(0)])

    @property
    def n_edges(self) -> int:
        """Number of edges with the self-loops."""
        return self.source.shape[0]

    def stacked(self, n_copies: int) -> tuple[Tensor, ...]:
        """Get the CSR indices of `n_copies` of the graph side by side, and of their transpose.

        The indices are kept for the batch sizes used last: training uses one, with another for the last batch.
        """
        key = (n_copies, self.source.device)
        if key not in self._stacked:
            if len(self._stacked) >= 4:
                self._stacked.pop(next(iter(self._stacked)))
            copy = torch.arange(n_copies, device=self.source.device)[:, None]

            def starts(row_start: Tensor) -> Tensor:
                stacked = (row_start[1:] + copy * self.n_edges).reshape(-1)
                return torch.cat([stacked.new_zeros(1), stacked]).int()

            def columns(column: Tensor) -> Tensor:
                return (column + copy * self.n_nodes).reshape(-1).int()

            self._stacked[key] = (
                starts(self.row_start),
                columns(self.source),
                starts(self.transposed_row_start),
                columns(self.target[self.transposed]),
                (self.transposed + copy * self.n_edges).reshape(-1),
            )
        return self._stacked[key]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stacked": {}}


def _csr(starts: Tensor, columns: Tensor, values: Tensor, n: int) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(starts, columns, values, (n, n), check_invariants=False)


def _product(matrix: Tensor, dense: Tensor) -> Tensor:
    """Multiply; on the CPU `reduce` selects torch's own threaded kernel, several times faster than the default."""
    return torch.sparse.mm(matrix, dense, "sum") if dense.device.type == "cpu" else matrix @ dense


class _WeightedNeighbourSum(torch.autograd.Function):
    """`out[target] = sum over edges of weight * features[source]`, without a tensor of edges times features."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, features: Tensor, *indices: Tensor) -> Tensor:
        starts, columns = indices[:2]
        ctx.save_for_backward(weights, features, *indices)
        return _product(_csr(starts, columns, weights, features.shape[0]), features)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weights, features, starts, columns, starts_t, columns_t, order = ctx.saved_tensors
        gradient, n = gradient.contiguous(), features.shape[0]
        pattern = _csr(starts, columns, torch.zeros_like(weights), n)
        of_weights = torch.sparse.sampled_addmm(pattern, gradient, features.t(), beta=0.0).values()
        of_features = _product(_csr(starts_t, columns_t, weights[order], n), gradient)
        return of_weights, of_features, None, None, None, None, None


def weighted_neighbour_sum(graph: SharedGraph, weights: Tensor, features: Tensor) -> Tensor:
    """Sum the features of the neighbours of every node, with one weight for each edge.

    Parameters
    ----------
    graph
        The graph that all copies share.
    weights
        Shape `(n_copies, n_edges)`, in the order of the edges of `graph`.
    features
        Shape `(n_copies, n_nodes, n_features)`.

    Returns
    -------
    Shape `(n_copies, n_nodes, n_features)`.
    """
    if features.device.type in _SPARSE_DEVICES:
        flat = _WeightedNeighbourSum.apply(
            weights.reshape(-1), features.reshape(-1, features.shape[-1]), *graph.stacked(features.shape[0])
        )
        return flat.view_as(features)
    messages = features[:, graph.source] * weights[..., None]  # (n_copies, n_edges, n_features)
    return torch.zeros_like(features).index_add(1, graph.target, messages)


def _full_precision(device_type: str) -> AbstractContextManager[object]:
    """Leave autocast: the sparse kernels know float32 only."""
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


class SharedGraphAttention(nn.Module):
    """The graph attention of :cite:t:`velickovic2018gat` with averaged heads, for cells that share one graph.

    Same values and gradients as `torch_geometric.nn.GATConv(concat=False)` on one copy of the graph for each cell,
    but memory grows as `cells x edges x heads` and not times the number of features.

    Parameters
    ----------
    graph
        The graph, with self-loops.
    in_features
        Features of a node.
    out_features
        Features of a node afterwards.
    heads
        Number of attention heads; their outputs are averaged.
    """

    def __init__(self, graph: SharedGraph, in_features: int, out_features: int, heads: int = 2) -> None:
        super().__init__()
        self.graph = graph
        self.heads = heads
        self.out_features = out_features
        self.lin = nn.Linear(in_features, heads * out_features, bias=False)
        self.att_src = nn.Parameter(torch.empty(heads, out_features))
        self.att_dst = nn.Parameter(torch.empty(heads, out_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        for parameter in (self.lin.weight, self.att_src, self.att_dst):
            nn.init.xavier_uniform_(parameter)

    def edge_weights(self, features: Tensor) -> Tensor:
        """Get the attention of every edge before normalisation, `(n_cells, heads, n_edges)`."""
        weight = self.lin.weight.view(self.heads, self.out_features, -1)
        # <att, W x> = <W^T att, x>: a product with a few columns instead of all projected features.
        of_source = (features @ torch.einsum("hoi,ho->ih", weight, self.att_src)).transpose(1, 2)
        of_target = (features @ torch.einsum("hoi,ho->ih", weight, self.att_dst)).transpose(1, 2)
        edges = of_source.index_select(-1, self.graph.source) + of_target.index_select(-1, self.graph.target)
        # The softmax does not change under a shift that is common to the edges of a target: an upper bound of its
        # scores is cheaper than their maximum and keeps the exponential from overflowing just as well.
        bound = functional.leaky_relu(of_source.amax(-1, keepdim=True) + of_target, 0.2).detach()
        below = functional.leaky_relu(edges, 0.2) - bound.index_select(-1, self.graph.target)
        return torch.exp(below.clamp(min=-80.0))  # no target is left with zero weight in all

    def forward(self, features: Tensor) -> Tensor:
        """Let every node attend to its neighbours and to itself.

        Parameters
        ----------
        features
            Shape `(n_cells, n_nodes, in_features)`.

        Returns
        -------
        Shape `(n_cells, n_nodes, out_features)`.
        """
        n_cells, n_nodes, _ = features.shape
        with _full_precision(features.device.type):
            features = features.float()
            weights = self.edge_weights(features)
            projected = self.lin(features).view(n_cells, n_nodes, self.heads, -1).transpose(1, 2)
            # One more column of ones gives the normalisation of the softmax in the same pass.
            columns = torch.cat([projected, torch.ones_like(projected[..., :1])], dim=-1)
            summed = weighted_neighbour_sum(self.graph, weights.flatten(0, 1), columns.flatten(0, 1))
            summed = summed.view(n_cells, self.heads, n_nodes, -1)
            return (summed[..., :-1] / summed[..., -1:]).mean(1) + self.bias
