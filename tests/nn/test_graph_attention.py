"""Graph attention over one shared graph equals PyG's over a copy of the graph for every cell."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.nn import GATConv

from unlasting.nn import SharedGraph, SharedGraphAttention


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, torch.Tensor]:
    """Edges with repeats and self-loops; often some nodes have none."""
    n_nodes = draw(st.integers(1, 9))
    node = st.integers(0, n_nodes - 1)
    edges = draw(st.lists(st.tuples(node, node), max_size=25))
    return n_nodes, torch.tensor(edges, dtype=torch.long).reshape(-1, 2).T


def peer_of(layer: SharedGraphAttention, in_features: int) -> GATConv:
    peer = GATConv(in_features, layer.out_features, heads=layer.heads, concat=False)
    with torch.no_grad():
        peer.lin.weight.copy_(layer.lin.weight)
        peer.att_src.copy_(layer.att_src[None])
        peer.att_dst.copy_(layer.att_dst[None])
        peer.bias.copy_(layer.bias)
    return peer


def copies_of(edge_index: torch.Tensor, n_nodes: int, n_copies: int) -> torch.Tensor:
    """Repeated edges count once in a graph of genes, so PyG gets each once."""
    edges = torch.unique(edge_index, dim=1)
    return torch.cat([edges + i * n_nodes for i in range(n_copies)], dim=1)


def assert_same_as_pyg(n_nodes: int, edge_index: torch.Tensor, n_cells: int, heads: int, seed: int) -> None:
    torch.manual_seed(seed)
    layer = SharedGraphAttention(SharedGraph(edge_index, n_nodes), 3, 5, heads)
    torch.nn.init.normal_(layer.bias)
    peer = peer_of(layer, 3)
    ours = torch.randn(n_cells, n_nodes, 3, requires_grad=True)
    theirs = ours.detach().reshape(-1, 3).clone().requires_grad_(True)
    out = layer(ours)
    expected = peer(theirs, copies_of(edge_index, n_nodes, n_cells)).view(n_cells, n_nodes, -1)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)

    direction = torch.randn_like(out)
    (out * direction).sum().backward()
    (expected * direction).sum().backward()
    gradients = {
        "input": (ours.grad.reshape(-1, 3), theirs.grad),
        "lin": (layer.lin.weight.grad, peer.lin.weight.grad),
        "att_src": (layer.att_src.grad, peer.att_src.grad[0]),
        "att_dst": (layer.att_dst.grad, peer.att_dst.grad[0]),
        "bias": (layer.bias.grad, peer.bias.grad),
    }
    for name, (ours_, theirs_) in gradients.items():
        torch.testing.assert_close(ours_, theirs_, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@settings(max_examples=25, deadline=None)
@given(graphs(), st.integers(1, 4), st.integers(1, 3), st.integers(0, 1000))
def test_values_and_gradients_are_those_of_pyg(graph, n_cells, heads, seed):
    assert_same_as_pyg(*graph, n_cells, heads, seed)


def test_values_and_gradients_do_not_depend_on_the_number_of_threads():
    before = torch.get_num_threads()
    edge_index = torch.randint(9, (2, 30), generator=torch.Generator().manual_seed(1))
    try:
        for n_threads in (1, 2, 3, 8):  # 5 cells: fewer and more than threads
            torch.set_num_threads(n_threads)
            assert_same_as_pyg(9, edge_index, 5, 2, seed=0)
    finally:
        torch.set_num_threads(before)


@settings(max_examples=15, deadline=None)
@given(graphs(), st.integers(1, 4), st.integers(0, 1000))
def test_without_the_kernel_of_this_device_the_result_is_the_same(graph, n_cells, seed):
    for kernels in ({"cpu": "sparse"}, {}):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("unlasting.nn._attention._KERNELS", kernels)
            assert_same_as_pyg(*graph, n_cells, 2, seed)


@settings(max_examples=15, deadline=None)
@given(graphs(), st.integers(1, 4), st.integers(1, 3), st.integers(0, 1000))
def test_the_attention_of_every_edge_is_that_of_pyg(graph, n_cells, heads, seed):
    n_nodes, edge_index = graph
    torch.manual_seed(seed)
    shared = SharedGraph(edge_index, n_nodes)
    layer = SharedGraphAttention(shared, 3, 5, heads)
    features = torch.randn(n_cells, n_nodes, 3)
    _, (edges, attention) = peer_of(layer, 3)(
        features.reshape(-1, 3), copies_of(edge_index, n_nodes, n_cells), return_attention_weights=True
    )
    expected = torch.zeros(n_cells * n_nodes, n_nodes)
    expected[edges[1], edges[0] % n_nodes] = attention.detach().mean(1)
    expected = expected.view(n_cells, n_nodes, n_nodes)  # of every target, to every source
    found = layer.attention(features)
    torch.testing.assert_close(found, expected[:, shared.target, shared.source], rtol=1e-4, atol=1e-6)
    total = torch.zeros(n_cells, n_nodes).index_add(1, shared.target, found)
    torch.testing.assert_close(total, torch.ones(n_cells, n_nodes))


def test_a_larger_graph_and_another_number_of_cells_each_time():
    generator = torch.Generator().manual_seed(0)
    edge_index = torch.randint(120, (2, 900), generator=generator)
    graph = SharedGraph(edge_index, 120)
    layer = SharedGraphAttention(graph, 3, 5)
    peer = peer_of(layer, 3)
    for n_cells in (7, 1, 4, 2, 9, 7, 3):
        features = torch.randn(n_cells, 120, 3, generator=generator)
        expected = peer(features.reshape(-1, 3), copies_of(edge_index, 120, n_cells)).view(n_cells, 120, -1)
        torch.testing.assert_close(layer(features), expected, rtol=1e-4, atol=1e-5)


def test_attention_survives_large_scores():
    torch.manual_seed(0)
    edge_index = torch.randint(30, (2, 60))
    layer = SharedGraphAttention(SharedGraph(edge_index, 30), 3, 5)
    features = (20 * torch.randn(2, 30, 3)).requires_grad_(True)
    expected = peer_of(layer, 3)(features.reshape(-1, 3), copies_of(edge_index, 30, 2)).view(2, 30, -1)
    torch.testing.assert_close(layer(features), expected, rtol=1e-3, atol=1e-3)
    far = (1e4 * torch.randn(2, 30, 3)).requires_grad_(True)
    out = layer(far)
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert torch.isfinite(far.grad).all()


def test_numbering_the_nodes_anew_moves_the_output_along():
    generator = torch.Generator().manual_seed(0)
    edge_index = torch.randint(40, (2, 200), generator=generator)
    order = torch.randperm(40, generator=generator)  # new node i is old node order[i]
    place = torch.argsort(order)
    layer = SharedGraphAttention(SharedGraph(edge_index, 40), 3, 5)
    moved = SharedGraphAttention(SharedGraph(place[edge_index], 40), 3, 5)
    moved.load_state_dict({k: v for k, v in layer.state_dict().items() if not k.startswith("graph.")}, strict=False)
    features = torch.randn(3, 40, 3, generator=generator)
    torch.testing.assert_close(moved(features[:, order]), layer(features)[:, order])
