"""Attention for cells that share one gene graph."""

from __future__ import annotations

import inspect
import sys
import warnings
from contextlib import suppress
from importlib import import_module
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import add_self_loops, coalesce, degree, remove_self_loops, scatter

from unlasting.nn._fused import SLOPE, attend, is_compiled
from unlasting.nn._precision import full_precision

FUSED: Final = "gat"
"""The fused kernel among the choices of `attention`."""

_KERNELS: dict[str, str] = {"cpu": "fused" if is_compiled() else "sparse", "cuda": "sparse"}
"""Kernel on each device: our own, or torch's sparse products; elsewhere messages are gathered edge by edge."""

_ENTRIES_AT_ONCE = 400_000
"""Edges times heads of the cells whose sparse products fit the cache of a CPU."""


class StackedGraph(NamedTuple):
    """CSR indices for graph copies; a row is one head of a target node in a copy, a column a source node."""

    edge: Tensor
    """Edge of each entry in one copy, shape `(heads * n_edges,)`."""
    source: Tensor
    """Source node of each entry in one copy, shape `(heads * n_edges,)`."""
    source_score: Tensor
    """The source's place in scores with shape `(n_nodes, heads)`, shape `(heads * n_edges,)`."""
    row: Tensor
    """Row, which is also the target's place in such scores, shape `(heads * n_edges,)`."""
    starts: Tensor
    columns: Tensor
    transposed: Tensor
    """Entries in the order of the transposed matrix, shape `(n_copies * heads * n_edges,)`."""
    transposed_starts: Tensor
    transposed_columns: Tensor


class SharedGraph(nn.Module):
    """One graph with self-loops, as index tensors sorted by target and then by source.

    `edge_index` holds source and target node for every directed edge, shape `(2, n_edges)`. Repeated edges count once, and
    every node gets one self-loop.
    """

    def __init__(self, edge_index: Tensor, n_nodes: int) -> None:
        super().__init__()
        with_loops, _ = add_self_loops(remove_self_loops(edge_index)[0], num_nodes=n_nodes)
        source, target = coalesce(with_loops, num_nodes=n_nodes, sort_by_row=False)
        self.n_nodes = n_nodes
        self.register_buffer("source", source.contiguous())
        self.register_buffer("target", target.contiguous())
        self.register_buffer("starts", self._row_start(target, n_nodes).int(), persistent=False)
        self.register_buffer("columns", source.int(), persistent=False)
        self.source: Tensor
        self.target: Tensor
        self.starts: Tensor
        self.columns: Tensor
        self._stacked: dict[tuple[int, int, torch.device], StackedGraph] = {}

    @staticmethod
    def _row_start(row: Tensor, n_nodes: int) -> Tensor:
        counts = degree(row, n_nodes, dtype=torch.long)
        return torch.cat([counts.new_zeros(1), counts.cumsum(0)])

    @property
    def n_edges(self) -> int:
        """Number of edges, self-loops included."""
        return self.source.shape[0]

    def edge_index(self, n_copies: int) -> Tensor:
        """Edges for copies side by side, source and target, shape `(2, n_copies * n_edges)`."""
        first_node = self.n_nodes * torch.arange(n_copies, device=self.source.device)[:, None]
        return torch.stack([(end + first_node).reshape(-1) for end in (self.source, self.target)])

    @torch.inference_mode(mode=False)  # training reads indices that validation has computed
    def stacked(self, n_copies: int, heads: int) -> StackedGraph:
        """CSR indices for copies side by side, kept for the last batch sizes."""
        key = (n_copies, heads, self.source.device)
        if key not in self._stacked:
            if len(self._stacked) >= 4:
                self._stacked.pop(next(iter(self._stacked)))
            head = torch.arange(heads, device=self.source.device)[:, None]
            row, order = (self.target * heads + head).reshape(-1).sort(stable=True)
            edge, entry_head = order % self.n_edges, order // self.n_edges
            source, n_rows = self.source[edge], self.n_nodes * heads
            transposed = torch.argsort(source * n_rows + row)
            copy = torch.arange(n_copies, device=self.source.device)[:, None]

            def starts(row_start: Tensor) -> Tensor:
                stacked = (row_start[1:] + copy * len(row)).reshape(-1)
                return torch.cat([stacked.new_zeros(1), stacked]).int()

            self._stacked[key] = StackedGraph(
                edge=edge,
                source=source,
                source_score=source * heads + entry_head,
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
    """`out[row] = sum(weight * features[column])` over entries, without a tensor over edges and features."""

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
        grad_weights = torch.sparse.sampled_addmm(pattern, gradient, features.t(), beta=0.0).values()
        grad_features = _product(_csr(starts_t, columns_t, weights.index_select(0, order), gradient.shape[0]), gradient)
        return grad_weights, grad_features, None, None, None, None, None


def weighted_neighbour_sum(graph: SharedGraph, weights: Tensor, features: Tensor, heads: int) -> Tensor:
    """Sum the neighbours' features, shape `(n_copies, n_nodes, heads, n_features)`.

    There is one weight for each edge and head, shape `(n_copies, heads * n_edges)`, ordered as in `graph.stacked`. Features
    have the shape `(n_copies, n_nodes, n_features)`.
    """
    n_copies, n_nodes, n_features = features.shape
    stacked = graph.stacked(n_copies, heads)
    if features.device.type in _KERNELS:
        forward = (stacked.starts, stacked.columns)
        backward = (stacked.transposed, stacked.transposed_starts, stacked.transposed_columns)
        flat = (weights.reshape(-1), features.reshape(-1, n_features))
        summed = _WeightedNeighbourSum.apply(*flat, *forward, *backward)
    else:
        messages = features[:, stacked.source] * weights[..., None]  # (n_copies, heads * n_edges, n_features)
        summed = scatter(messages, stacked.row, dim=1, dim_size=n_nodes * heads)
    return summed.view(n_copies, n_nodes, heads, n_features)


class SharedGraphAttention(nn.Module):
    """The fused graph attention of :cite:t:`velickovic2018gat`, heads averaged, for cells that share one graph.

    Values and gradients equal `torch_geometric.nn.GATConv(concat=False)` over one graph copy per cell. Memory grows
    as `cells x edges x heads`, whatever the number of features.
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

    def _scores(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Score nodes as sources and targets, shapes `(n_cells, n_nodes, heads)`."""
        weight = self.lin.weight.view(self.heads, self.out_features, -1)
        # <att, W x> = <W^T att, x>: a product with a few columns instead of all projected features.
        directions = torch.cat([(att[:, None] @ weight)[:, 0] for att in (self.att_src, self.att_dst)])
        source_score, target_score = functional.linear(features, directions).chunk(2, dim=-1)
        return source_score, target_score

    def edge_weights(self, features: Tensor) -> Tensor:
        """Attention per edge and head, which sums to 1 for each target, shape `(n_cells, heads * n_edges)`."""
        n_cells, n_nodes, _ = features.shape
        entries = self.graph.stacked(n_cells, self.heads)
        source_score, target_score = self._scores(features)
        scores = source_score.flatten(1).index_select(1, entries.source_score)
        scores = functional.leaky_relu(scores + target_score.flatten(1).index_select(1, entries.row), SLOPE)
        # A shift common to the edges of a target leaves the softmax unchanged. An upper bound of the scores prevents
        # overflow as well as their maximum, and is cheaper.
        bound = functional.leaky_relu(source_score.amax(1, keepdim=True) + target_score, SLOPE).detach().flatten(1)
        below = scores - bound.index_select(1, entries.row)
        unscaled = torch.exp(below.clamp(min=-80.0))  # no target has zero weight in total
        total = unscaled.new_zeros(n_cells, n_nodes * self.heads).index_add(1, entries.row, unscaled)
        return unscaled * total.reciprocal().index_select(1, entries.row)

    def attention(self, features: Tensor) -> Tensor:
        """Attention per edge, averaged over heads, in the graph's order, shape `(n_cells, n_edges)`."""
        with full_precision(features.device.type):
            weights = self.edge_weights(features.float())
        edge = self.graph.stacked(features.shape[0], self.heads).edge
        total = weights.new_zeros(weights.shape[0], self.graph.n_edges)
        return total.index_add(1, edge, weights) / self.heads

    def forward(self, features: Tensor) -> Tensor:
        """Let nodes attend to their neighbours, from `(n_cells, n_nodes, in_features)` to `(..., out_features)`."""
        with full_precision(features.device.type):  # the kernels are for float32 only
            features = features.float()
            if features.device.type != "cpu" or _KERNELS.get("cpu") == "fused":
                return self._attend(features)
            at_once = max(1, _ENTRIES_AT_ONCE // (self.heads * self.graph.n_edges))
            return torch.cat([self._attend(cells) for cells in features.split(at_once)])

    def _attend(self, features: Tensor) -> Tensor:
        # The sum over neighbours is projected afterwards: the layer does not narrow, and one product projects all
        # heads and averages them.
        if _KERNELS.get(features.device.type) == "fused":
            summed, _ = attend(features, *self._scores(features), self.graph.starts, self.graph.columns)
        else:
            summed = weighted_neighbour_sum(self.graph, self.edge_weights(features), features, self.heads)
        by_head = self.lin.weight.view(self.heads, self.out_features, -1).transpose(0, 1)  # (out, heads, in)
        return functional.linear(summed.flatten(2), by_head.flatten(1) / self.heads, self.bias)


class MessagePassingLayer(nn.Module):
    """A torch-geometric message-passing layer instead of the fused attention, over one graph copy per cell.

    The class `layer` is called as `layer(in_features, out_features)` and applied as `layer(features, edge_index)`. Its heads, if
    any, are averaged.
    """

    def __init__(
        self, graph: SharedGraph, in_features: int, out_features: int, heads: int, layer: type[MessagePassing]
    ) -> None:
        super().__init__()
        self.graph = graph
        accepted = inspect.signature(layer).parameters
        options = {name: value for name, value in (("heads", heads), ("concat", False)) if name in accepted}
        self.layer = layer(in_features, out_features, **options)

    def attention(self, features: Tensor) -> Tensor:
        """Attention per edge, averaged over heads, in the graph's order, shape `(n_cells, n_edges)`.

        Raises
        ------
        ValueError
            If the layer has no attention.
        """
        if "return_attention_weights" not in inspect.signature(self.layer.forward).parameters:
            name = type(self.layer).__name__
            raise ValueError(f"{name} has no attention. Train a model with `attention='gat'` to read attention.")
        with full_precision(features.device.type):
            nodes, edges = features.float().flatten(0, 1), self.graph.edge_index(len(features))
            _, (found, weights) = self.layer(nodes, edges, return_attention_weights=True)
        order = torch.argsort(found[1] * len(nodes) + found[0])  # some layers move the self-loops to the end
        return weights.view(len(order), -1).mean(-1)[order].view(len(features), -1)

    def forward(self, features: Tensor) -> Tensor:
        """Pass messages, from `(n_cells, n_nodes, in_features)` to `(n_cells, n_nodes, out_features)`."""
        with full_precision(features.device.type):
            out = self.layer(features.float().flatten(0, 1), self.graph.edge_index(len(features)))
        return out.view(*features.shape[:2], -1)


def layer_path(attention: str | type) -> str:
    """Name the GRN block's layer in a form that JSON can hold: `gat`, or the class's import path."""
    path = attention if isinstance(attention, str) else f"{attention.__module__}.{attention.__qualname__}"
    if path != FUSED:
        _layer_class(path)
    return path


def _layer_class(path: str) -> type[MessagePassing]:
    """Find a layer by its import path; only torch-geometric is imported, so that a saved model cannot run other code."""
    module, _, name = path.rpartition(".")
    if module.partition(".")[0] == "torch_geometric":
        with suppress(ImportError):
            import_module(module)
    found = getattr(sys.modules.get(module), name, None)
    if not (isinstance(found, type) and issubclass(found, MessagePassing)):
        raise ValueError(
            f"`attention` is {path!r}, which is no known message-passing layer. Use 'gat' or a class such as "
            "`torch_geometric.nn.GATv2Conv`; define your own at the top level of a module and import it first."
        )
    return found


def graph_layer(
    attention: str, graph: SharedGraph, in_features: int, out_features: int, heads: int
) -> SharedGraphAttention | MessagePassingLayer:
    """Make a GRN block layer from its name in :attr:`Architecture.attention`."""
    if attention == FUSED:
        return SharedGraphAttention(graph, in_features, out_features, heads)
    return MessagePassingLayer(graph, in_features, out_features, heads, _layer_class(attention))
