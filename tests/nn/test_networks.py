from __future__ import annotations

import copy
import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch
from torch_geometric import nn as pyg
from torch_geometric import utils as pyg_utils

from unlasting.module import PRESETS
from unlasting.nn import (
    Architecture,
    Denoiser,
    GRNBlock,
    MaskNetwork,
    MessagePassingLayer,
    SharedGraph,
    SharedGraphAttention,
)

N_GENES, N_NODES, N_FEATURES = 11, 14, 7
SMALL = {"gene_features": 4, "attention_features": 6, "width": 16, "time_frequencies": 8}
NETWORKS = {"denoiser": Denoiser, "mask_network": MaskNetwork}


def call(network, cells, conditions):
    names = (
        ("state", "t", "mask", "control", "conditions", "cell_type")
        if isinstance(network, Denoiser)
        else ("control", "log_odds", "conditions", "cell_type")
    )
    return network(*({**cells, "conditions": conditions}[name] for name in names))


@pytest.fixture
def networks(graph, architectures, molecules, shake):
    """Both networks with the switches of every preset."""
    torch.manual_seed(0)
    return [
        shake(network(graph, N_GENES, N_FEATURES, 2, architecture, molecules))
        for network in NETWORKS.values()
        for architecture in architectures
    ]


def permuted(network, edge_index, order, molecules):
    """The same network for genes in another order: new gene i is old gene order[i]."""
    nodes = torch.cat([order, torch.arange(N_GENES, N_NODES)])
    new = type(network)(
        SharedGraph(torch.argsort(nodes)[edge_index], N_NODES), N_GENES, N_FEATURES, 2, network.architecture, molecules
    )
    weights = {k: v for k, v in copy.deepcopy(network.state_dict()).items() if ".graph." not in k}
    for name, value in weights.items():
        if name == "grn.gene_embedding":
            weights[name] = value[nodes]
        elif name.split(".")[0] in ("out", "gate", "slope", "direct") or name.startswith("grn.read_out"):
            weights[name] = value[order]
        elif name == "block_in.weight":
            weights[name] = torch.cat([part[:, order] for part in value.split(N_GENES, dim=1)], dim=1)
        elif name == "control_proj.weight":
            weights[name] = value[:, order]
        elif name == "fuse.weight" and network.grn is not None:
            kept = value.shape[1] - N_GENES
            weights[name] = torch.cat([value[:, :kept], value[:, kept:][:, order]], dim=1)
    missing = new.load_state_dict(weights, strict=False)
    assert all(".graph." in key for key in missing.missing_keys)
    assert not missing.unexpected_keys
    return new


def test_permuting_the_genes_permutes_the_output(networks, edge_index, cells, conditions, molecules):
    for network in networks:
        order = torch.randperm(N_GENES, generator=torch.Generator().manual_seed(5))
        place = torch.cat([torch.argsort(order), torch.arange(N_GENES, N_NODES), torch.tensor([-1])])
        moved_cells = {k: v[:, order] if v.ndim == 2 else v for k, v in cells.items()}
        moved_conditions = dataclasses.replace(conditions, node=place[conditions.node])
        moved = call(permuted(network, edge_index, order, molecules), moved_cells, moved_conditions)
        torch.testing.assert_close(moved, call(network, cells, conditions)[:, order], rtol=1e-4, atol=1e-4)


def test_every_parameter_learns(networks, cells, conditions):
    for network in networks:
        out = call(network, cells, conditions)
        if isinstance(network, MaskNetwork):
            out = network.at_detected_genes(out, torch.linspace(-1, 1, 8))
        out.square().sum().backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            unconditioned = (
                isinstance(network, MaskNetwork) and network.condition is None and "modulation.weight" in name
            )
            assert (parameter.grad != 0).any() or unconditioned, name


def test_before_training_the_default_is_what_is_known_without_it(graph, cells, conditions):
    """The state stays as it is, and the log-odds are those given; one step moves the last layers, which started at 0."""
    for kind, use_grn in itertools.product(NETWORKS, (False, True)):
        architecture = dataclasses.replace(PRESETS["default"].denoiser, **SMALL, condition_features=5, use_grn=use_grn)
        network = NETWORKS[kind](graph, N_GENES, N_FEATURES, 2, architecture)
        out = call(network, cells, conditions)
        expected = torch.zeros_like(out) if kind == "denoiser" else cells["log_odds"]
        assert torch.equal(out, expected)
        (out - 1.0).square().sum().backward()
        last = [network.out.weight, *([network.grn.read_out] if use_grn else [])]
        last += [network.direct.weight] if kind == "mask_network" else []
        assert all((parameter.grad != 0).any() for parameter in last)


def test_cells_of_a_batch_do_not_see_each_other(networks, cells, conditions):
    for network in networks:
        together = call(network, cells, conditions)
        for i in range(len(conditions)):
            alone = call(network, {k: v[i : i + 1] for k, v in cells.items()}, conditions[torch.tensor([i])])
            torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-5)


def test_a_perturbation_changes_the_output(networks, cells, conditions):
    for network in networks:
        control = call(network, cells, conditions[torch.zeros(8, dtype=torch.long)])
        perturbed = call(network, cells, conditions)
        assert torch.equal(perturbed[0], control[0])
        # As published, a target without a node cannot act, nor can a stimulus.
        changed = [1, 2, 3, 5, 6] if network.condition is None else range(1, 8)
        assert ((perturbed - control).abs().amax(-1)[list(changed)] > 1e-5).all()


@pytest.mark.slow
def test_the_published_drug_branch(graph, molecules, cells, conditions, shake):
    """A drug acts through its molecule and its dose, whether trained or not; without a drug nothing is fused."""
    for kind in NETWORKS:
        for use_grn in (True, False):
            published = dataclasses.replace(PRESETS["paper"].denoiser, **SMALL, use_grn=use_grn)
            network = shake(NETWORKS[kind](graph, N_GENES, N_FEATURES, 2, published, molecules))
            without = shake(NETWORKS[kind](graph, N_GENES, N_FEATURES, 2, published))
            shared = {k: v for k, v in network.state_dict().items() if k in without.state_dict()}
            without.load_state_dict(shared)
            no_drug = [0, 1, 2, 3, 4, 7]
            out = call(network, cells, conditions)
            torch.testing.assert_close(out[no_drug], call(without, cells, conditions)[no_drug])

            def at(dose: float, molecule: int = 0, network=network) -> torch.Tensor:
                changed = {"dose": conditions.dose.clone(), "molecule": conditions.molecule.clone()}
                changed["dose"][5, 0], changed["molecule"][5, 0] = dose, molecule
                return call(network, cells, dataclasses.replace(conditions, **changed))[5]

            torch.testing.assert_close(at(0.3), out[5])
            assert (at(0.9) - at(0.3)).abs().max() > 1e-4
            assert (at(0.3, molecule=2) - at(0.3)).abs().max() > 1e-4
            torch.testing.assert_close(at(0.0, molecule=2), at(0.0))


def test_without_control_moments_the_control_signal_is_not_seen(graph, architectures, cells, conditions, shake):
    for architecture in architectures:
        for kind in NETWORKS:
            other = {**cells, "control": cells["control"].flip(0)}
            for use, same in ((True, False), (False, True)):
                changed = dataclasses.replace(architecture, use_control_moments=use)
                network = shake(NETWORKS[kind](graph, N_GENES, N_FEATURES, 2, changed))
                assert torch.allclose(call(network, other, conditions), call(network, cells, conditions)) == same


def test_networks_run_where_no_cpu_tensor_is_allowed(networks, cells, conditions):
    for network in networks:
        network, conditions = network.to("meta"), conditions.to("meta")
        out = call(network, {k: v.to("meta") for k, v in cells.items()}, conditions)
        assert out.device.type == "meta"
        assert out.shape == (8, N_GENES)


def test_half_precision_gives_finite_values_near_those_of_full(networks, cells, conditions):
    for network in networks:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = call(network, cells, conditions)
            loss = half.float().square().mean()
        loss.backward()
        full = call(network, cells, conditions)
        assert torch.isfinite(half).all()
        assert float((half.float() - full).detach().square().mean().sqrt()) < 0.1 * float(full.std())
        assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


@pytest.mark.slow
def test_compiled_networks_compute_the_same(graph, cells, conditions, shake):
    architecture = dataclasses.replace(PRESETS["default"].denoiser, **SMALL, condition_features=5)
    network = shake(Denoiser(graph, N_GENES, N_FEATURES, 2, architecture))
    compiled = copy.deepcopy(network)
    compiled.compile(backend="aot_eager")  # needs no compiler of C++
    assert list(compiled.state_dict()) == list(network.state_dict())
    outputs = [call(one, cells, conditions) for one in (network, compiled)]
    torch.testing.assert_close(outputs[1], outputs[0])
    for out in outputs:
        out.square().sum().backward()
    for (name, parameter), other in zip(network.named_parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(other.grad, parameter.grad, msg=name)


def test_silent_genes_are_not_looked_at(graph, architectures, cells, conditions, shake):
    for architecture in architectures:
        network = shake(Denoiser(graph, N_GENES, N_FEATURES, 2, architecture))
        other = cells["state"] + 5.0 * (1.0 - cells["mask"])
        same = torch.allclose(call(network, {**cells, "state": other}, conditions), call(network, cells, conditions))
        assert same == architecture.mask_as_input


def test_log_odds_are_linear_in_the_detected_genes(graph, architectures, cells, conditions, shake):
    for architecture in architectures:
        network = shake(MaskNetwork(graph, N_GENES, N_FEATURES, 2, architecture))
        log_odds = call(network, cells, conditions)
        deeper = network.at_detected_genes(log_odds, torch.full((8,), 2.0)) - log_odds
        expected = (
            2.0 * network.slope.expand(8, -1) if architecture.detected_genes_slope else torch.zeros_like(log_odds)
        )
        torch.testing.assert_close(deeper, expected)
        assert torch.equal(network.at_detected_genes(log_odds, torch.zeros(8)), log_odds)


def test_the_state_and_the_conditional_mean_are_mixed_by_the_gate(graph, cells, conditions, shake):
    """Without Decoder and read-out the prediction is the conditional mean of Gaussian genes around zero."""
    architecture = dataclasses.replace(PRESETS["paper"].denoiser, **SMALL)
    network = shake(Denoiser(graph, N_GENES, N_FEATURES, 2, architecture))
    torch.nn.init.zeros_(network.gate.weight)
    alpha_2 = np.cumprod(1.0 - np.linspace(2e-4, 4e-2, 500))[np.rint(cells["t"].numpy() * 499).astype(int)][:, None]
    state, weight, mean = cells["state"].numpy(), {}, {}
    for sd in (1e-6, 0.1, 0.3):
        torch.nn.init.constant_(network.gate.bias, 2.0 * np.log(sd / 0.1))
        weight[sd] = alpha_2 * sd**2 / (alpha_2 * sd**2 + 1.0 - alpha_2)
        found = call(network, cells, conditions).detach().numpy()
        mean[sd] = (found - weight[sd] * state / np.sqrt(alpha_2)) / (1.0 - weight[sd])
    np.testing.assert_allclose(mean[0.1], mean[1e-6], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(mean[0.3], mean[1e-6], rtol=1e-3, atol=1e-4)
    assert weight[0.3].max() > 0.1
    assert np.ptp(mean[0.3]) > 0.01
    with pytest.raises(ValueError, match="`mixing_gate=True` needs the gate"):
        dataclasses.replace(architecture, state_gate=False)
    with pytest.raises(ValueError, match="`read_out_scale` is 0.0; give a number above 0"):
        dataclasses.replace(architecture, read_out_scale=0.0)
    read_out = network.grn.read_out.detach().clone()
    torch.nn.init.zeros_(network.grn.read_out)
    torch.nn.init.zeros_(network.fuse.weight)
    torch.nn.init.constant_(network.gate.bias, 0.0)
    with pytest.raises(ValueError, match="is for `coordinates='noise'` and `schedule='linear_beta'`"):
        PRESETS["paper"].replace(schedule="cosine")
    without = call(network, cells, conditions)
    network.grn.read_out.data = read_out
    assert (call(network, cells, conditions) - without).abs().amax(
        0
    ).min() > 0  # every gene's read-out reaches its prediction


def test_normalised_nodes_are_those_of_torch_geometric(graph, edge_index, conditions, shake):
    """A knocked-out node changes the read-out as in GATConv and LayerNorm of torch-geometric and torch."""
    architecture = dataclasses.replace(PRESETS["paper"].denoiser, **SMALL)
    block = shake(GRNBlock(graph, N_GENES, architecture, context_features=0, n_inputs=2))
    inputs = torch.randn(len(conditions), N_GENES, 2)
    layers = []
    for width, ours in zip((4, 6), block.attention, strict=True):
        layer = pyg.GATConv(width, 6, heads=2, concat=False)
        layer.lin.weight.data, layer.bias.data = ours.lin.weight.data, ours.bias.data
        layer.att_src.data, layer.att_dst.data = ours.att_src.data[None], ours.att_dst.data[None]
        layers.append(layer)
    edges = pyg_utils.coalesce(pyg_utils.remove_self_loops(edge_index)[0])
    for row, keep in enumerate(conditions.keep_nodes(N_NODES)):
        nodes = torch.nn.functional.silu(block.gene_proj(block.gene_embedding * keep[:, None]))
        nodes = nodes + torch.cat([block.input_proj(inputs[row]), torch.zeros(N_NODES - N_GENES, 4)])
        for layer in layers:
            nodes = torch.nn.functional.silu(torch.nn.LayerNorm(6, elementwise_affine=False)(layer(nodes, edges)))
        expected = 40.0 * (nodes[:N_GENES] * block.read_out).sum(-1) + block.read_out_bias
        found = block(inputs, None, None, conditions)[row]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


# -- message-passing layers of torch-geometric


@pytest.mark.slow
def test_any_message_passing_layer_stands_in_the_grn_block(graph, cells, conditions, shake):
    small = dataclasses.replace(PRESETS["default"].denoiser, **SMALL, condition_features=5, use_grn=True)
    for layer in (pyg.GATv2Conv, pyg.TransformerConv, pyg.GCNConv, pyg.SAGEConv, pyg.GraphConv, Doubling):
        for kind in NETWORKS.values():
            network = shake(kind(graph, N_GENES, N_FEATURES, 2, dataclasses.replace(small, attention=layer)))
            assert isinstance(network.grn.attention[1].layer, layer)
            together = call(network, cells, conditions)
            alone = call(network, {k: v[:1] for k, v in cells.items()}, conditions[:1])
            torch.testing.assert_close(alone[0], together[0], rtol=1e-4, atol=1e-5)
            together.square().sum().backward()
            assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.grn.parameters())


class Doubling(pyg.MessagePassing):
    """A user's own layer: the sum of the neighbours, doubled and projected."""

    def __init__(self, in_channels, out_channels):
        super().__init__(aggr="sum")
        self.lin = torch.nn.Linear(in_channels, out_channels)

    def forward(self, x, edge_index):
        return 2.0 * self.lin(self.propagate(edge_index, x=x))


def test_a_layer_sees_the_edges_of_the_graph(graph):
    layer = MessagePassingLayer(graph, 3, 5, 2, Doubling)
    features = torch.randn(4, N_NODES, 3)
    adjacency = torch.zeros(N_NODES, N_NODES)
    adjacency[graph.target, graph.source] = 1.0
    torch.testing.assert_close(layer(features), 2.0 * layer.layer.lin(adjacency @ features))
    with pytest.raises(ValueError, match="Doubling has no attention"):
        layer.attention(features)


def test_gat_as_a_layer_class_is_the_fused_kernel(graph):
    fused, general = SharedGraphAttention(graph, 3, 5, 2), MessagePassingLayer(graph, 3, 5, 2, pyg.GATConv)
    with torch.no_grad():
        general.layer.lin.weight.copy_(fused.lin.weight)
        general.layer.att_src.copy_(fused.att_src[None])
        general.layer.att_dst.copy_(fused.att_dst[None])
    features = torch.randn(4, N_NODES, 3)
    torch.testing.assert_close(general(features), fused(features), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(general.attention(features), fused.attention(features), rtol=1e-4, atol=1e-6)


def test_an_architecture_survives_json():
    for given in ("gat", pyg.GATv2Conv, "torch_geometric.nn.GATv2Conv", Doubling):
        architecture = Architecture(attention=given, heads=3)
        assert Architecture(**json.loads(json.dumps(dataclasses.asdict(architecture)))) == architecture
    for wrong in ("gatt", "torch_geometric.nn.NoConv", "torch_geometric.no.GATConv", "this.NoConv", torch.nn.Linear):
        with pytest.raises(ValueError, match=r"Use 'gat' or a class such as `torch_geometric\.nn\.GATv2Conv`"):
            Architecture(attention=wrong)


def test_a_denoiser_that_predicts_zero_says_so(graph, architectures, molecules, cells, conditions):
    for architecture in architectures:
        network = Denoiser(graph, N_GENES, N_FEATURES, 2, architecture, molecules)
        is_zero = not call(network, cells, conditions).any()
        kept = architecture.control_residual or architecture.mixing_gate
        assert network.predicts_zero() == is_zero == (not kept)
        if not is_zero:
            continue
        last = [network.out.weight, network.out.bias, *(network.gate.parameters() if network.gate else ())]
        if network.grn is not None and architecture.mask_as_input:
            last += [network.grn.read_out, network.grn.read_out_bias]
        for weights in last:
            with torch.no_grad():
                weights.view(-1)[-1] = 1.0
            assert not network.predicts_zero()
            assert call(network, cells, conditions).any()
            with torch.no_grad():
                weights.zero_()
