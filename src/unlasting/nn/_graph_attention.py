"""Graph attention for a batch of cells that share one graph."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from unlasting.effects import full_precision

_SPARSE_DEVICES = ("cpu", "cuda")
"""Where torch has sparse kernels; elsewhere messages are gathered edge by edge."""

_ENTRIES_AT_ONCE = 400_000
"""Edges times heads of the cells that attend together: as fast as all cells of a batch at once, in less memory."""


class StackedGraph(NamedTuple):
    """CSR indices of copies of a graph; a row is a head of a target node of a copy, a column a source node."""

    edge: Tensor
    """Edge of the entries of one copy, shape `(heads * n_edges,)`."""
    source: Tensor
    """Source node of the entries of one copy, shape `(heads * n_edges,)`."""
    source_score: Tensor
    """Place of the source in scores of shape `(n_nodes, heads)`, shape `(heads * n_edges,)`."""
    row: Tensor
    """Row, which is the place of the target in such scores as well, shape `(heads * n_edges,)`."""
    starts: Tensor
    columns: Tensor
    transposed: Tensor
    """Where the entries of the transposed matrix are found, shape `(n_copies * heads * n_edges,)`."""
    transposed_starts: Tensor
    transposed_columns: Tensor


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
        self.source: Tensor
        self.target: Tensor
        self._stacked: dict[tuple[int, int, torch.device], StackedGraph] = {}

    @staticmethod
    def _row_start(row: Tensor, n_nodes: int) -> Tensor:
        counts = torch.zeros(n_nodes, dtype=torch.long, device=row.device).index_add_(0, row, torch.ones_like(row))
        return torch.cat([counts.new_zeros(1), counts.cumsum(0)])

    @property
    def n_edges(self) -> int:
        """Number of edges with the self-loops."""
        return self.source.shape[0]

    def stacked(self, n_copies: int, heads: int) -> StackedGraph:
        """Get the indices of `n_copies` of the graph side by side, with a row for each head of every target.

        They are kept for the batch sizes used last: training uses one, with another for the last batch.
        """
        key = (n_copies, heads, self.source.device)
        if key not in self._stacked:
            if len(self._stacked) >= 4:
                self._stacked.pop(next(iter(self._stacked)))
            head = torch.arange(heads, device=self.source.device)[:, None]
            row, order = (self.target * heads + head).reshape(-1).sort(stable=True)
            edge, of_head = order % self.n_edges, order // self.n_edges
            source, n_rows = self.source[edge], self.n_nodes * heads
            transposed = torch.argsort(source * n_rows + row)
            copy = torch.arange(n_copies, device=self.source.device)[:, None]

            def starts(row_start: Tensor) -> Tensor:
                stacked = (row_start[1:] + copy * len(row)).reshape(-1)
                return torch.cat([stacked.new_zeros(1), stacked]).int()

            self._stacked[key] = StackedGraph(
                edge=edge,
                source=source,
                source_score=source * heads + of_head,
                row=row,
                starts=starts(self._row_start(row, n_rows)),
                columns=(source + copy * self.n_nodes).reshape(-1).int(),
                transposed=(transposed + copy * len(row)).reshape(-1),
                transposed_starts=starts(self._row_start(source, self.n_nodes)),
                transposed_columns=(row[transposed] + copy * n_rows).reshape(-1).int(),
            )
        return self._stacked[key]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stacked": {}}


def _csr(starts: Tensor, columns: Tensor, values: Tensor, n_columns: int) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            starts, columns, values, (starts.shape[0] - 1, n_columns), check_invariants=False
        )


def _product(matrix: Tensor, dense: Tensor) -> Tensor:
    """Multiply; on the CPU `reduce` selects torch's own threaded kernel, several times faster than the default."""
    return torch.sparse.mm(matrix, dense, "sum") if dense.device.type == "cpu" else matrix @ dense


class _WeightedNeighbourSum(torch.autograd.Function):
    """`out[row] = sum over entries of weight * features[column]`, without a tensor of edges times features."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, features: Tensor, *indices: Tensor) -> Tensor:
        starts, columns = indices[:2]
        ctx.save_for_backward(weights, features, *indices)
        return _product(_csr(starts, columns, weights, features.shape[0]), features)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weights, features, starts, columns, order, starts_t, columns_t = ctx.saved_tensors
        gradient = gradient.contiguous()
        pattern = _csr(starts, columns, torch.zeros_like(weights), features.shape[0])
        of_weights = torch.sparse.sampled_addmm(pattern, gradient, features.t(), beta=0.0).values()
        of_features = _product(_csr(starts_t, columns_t, weights.index_select(0, order), gradient.shape[0]), gradient)
        return of_weights, of_features, None, None, None, None, None


def weighted_neighbour_sum(graph: SharedGraph, weights: Tensor, features: Tensor, heads: int) -> Tensor:
    """Sum the features of the neighbours of every node, with one weight for each edge and head.

    Parameters
    ----------
    graph
        The graph that all copies share.
    weights
        Shape `(n_copies, heads * n_edges)`, in the order of the entries of `graph.stacked`.
    features
        Shape `(n_copies, n_nodes, n_features)`.
    heads
        The number of heads.

    Returns
    -------
    Shape `(n_copies, n_nodes, heads, n_features)`.
    """
    n_copies, n_nodes, n_features = features.shape
    stacked = graph.stacked(n_copies, heads)
    if features.device.type in _SPARSE_DEVICES:
        forward = (stacked.starts, stacked.columns)
        backward = (stacked.transposed, stacked.transposed_starts, stacked.transposed_columns)
        flat = (weights.reshape(-1), features.reshape(-1, n_features))
        summed = _WeightedNeighbourSum.apply(*flat, *forward, *backward)
    else:
        messages = features[:, stacked.source] * weights[..., None]  # (n_copies, heads * n_edges, n_features)
        summed = features.new_zeros(n_copies, n_nodes * heads, n_features).index_add(1, stacked.row, messages)
    return summed.view(n_copies, n_nodes, heads, n_features)


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
        """Get the attention of every edge and head, which sums to 1 for a target, `(n_cells, heads * n_edges)`."""
        weight = self.lin.weight.view(self.heads, self.out_features, -1)
        n_cells, n_nodes, _ = features.shape
        entries = self.graph.stacked(n_cells, self.heads)
        # <att, W x> = <W^T att, x>: a product with a few columns instead of all projected features.
        directions = torch.cat([torch.einsum("hoi,ho->ih", weight, att) for att in (self.att_src, self.att_dst)], dim=1)
        of_source, of_target = (features @ directions).chunk(2, dim=-1)  # (n_cells, n_nodes, heads)
        scores = of_source.flatten(1).index_select(1, entries.source_score)
        scores = functional.leaky_relu(scores + of_target.flatten(1).index_select(1, entries.row), 0.2)
        # The softmax does not change under a shift that is common to the edges of a target: an upper bound of its
        # scores is cheaper than their maximum and keeps the exponential from overflowing just as well.
        bound = functional.leaky_relu(of_source.amax(1, keepdim=True) + of_target, 0.2).detach().flatten(1)
        below = scores - bound.index_select(1, entries.row)
        unscaled = torch.exp(below.clamp(min=-80.0))  # no target is left with zero weight in all
        total = unscaled.new_zeros(n_cells, n_nodes * self.heads).index_add(1, entries.row, unscaled)
        return unscaled * total.reciprocal().index_select(1, entries.row)

    def attention(self, features: Tensor) -> Tensor:
        """Get the attention of every edge, averaged over heads, in the order of the graph, `(n_cells, n_edges)`."""
        with full_precision(features.device.type):
            weights = self.edge_weights(features.float())
        edge = self.graph.stacked(features.shape[0], self.heads).edge
        total = weights.new_zeros(weights.shape[0], self.graph.n_edges)
        return total.index_add(1, edge, weights) / self.heads

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
        at_once = max(1, _ENTRIES_AT_ONCE // (self.heads * self.graph.n_edges))
        with full_precision(features.device.type):  # the sparse kernels know float32 only
            return torch.cat([self._attend(cells) for cells in features.float().split(at_once)])

    def _attend(self, features: Tensor) -> Tensor:
        # Sums of neighbours are projected, not projections summed: the widths before the layer are not larger than
        # those behind it, and one product projects all heads and averages them.
        summed = weighted_neighbour_sum(self.graph, self.edge_weights(features), features, self.heads)
        by_head = self.lin.weight.view(self.heads, self.out_features, -1).transpose(0, 1)  # (out, heads, in)
        return functional.linear(summed.flatten(2), by_head.flatten(1) / self.heads, self.bias)
