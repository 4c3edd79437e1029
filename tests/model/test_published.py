"""Each equation of the published text, written once more, against its place in the code."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from unlasting.diffusion import LinearBetaSchedule, log_snr_times
from unlasting.model import UnlastingModel
from unlasting.module import LAPTOP, PRESETS, NetworkTraining, Preset
from unlasting.nn import Architecture
from unlasting.screen import Perturbation

T = 500
ALPHA_BAR = np.cumprod(1.0 - np.linspace(0.1 / T, 20.0 / T, T))
QUIET = {"show_progress": False}


class Recorder(torch.nn.Module):
    """A network in place of the denoiser that keeps its arguments and predicts a constant."""

    def __init__(self, value: float = 0.25) -> None:
        super().__init__()
        self.value, self.calls = value, []

    def forward(self, state, t, mask, control, conditions, cell_type):
        self.calls.append({"state": state.clone(), "t": t, "control": control, "conditions": conditions})
        return torch.full_like(state, self.value)


class GivenOdds(torch.nn.Module):
    """A network in place of the mask network: a probability for each control cell and gene."""

    def __init__(self, probability: torch.Tensor) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, control, log_odds, conditions, cell_type):
        return torch.logit(self.probability[: len(control)])


@pytest.fixture(scope="module", params=["paper", "paper-as-printed"])
def built(request, build, screen) -> UnlastingModel:
    """A model with an effects model; tests do not write to it."""
    model = build(screen(n_cells=200), request.param, options={"dropout": 0.0})
    model.is_trained_ = True
    assert model.effects_model is not None  # statistics of the training cells
    return model


@pytest.fixture
def published(built) -> UnlastingModel:
    """The same model with networks and options of its own, which a test may change."""
    model = copy.copy(built)
    model.module = copy.deepcopy(built.module)
    return model


def training_cells(model: UnlastingModel, n: int = 12) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Some cells on the [0, 1] scale with their codes."""
    x = torch.from_numpy(model.adata.X[:n].toarray()) / model.module.statistics.x_max
    obs = model.adata.obs.iloc[:n]
    return (
        x,
        torch.as_tensor(obs["_unlasting_perturbation"].to_numpy().astype(int)),
        torch.as_tensor(obs["_unlasting_population"].to_numpy().astype(int)),
    )


def test_the_presets_differ_in_the_documented_switches_only():
    paper, printed = PRESETS["paper"], PRESETS["paper-as-printed"]
    changed = {
        name: getattr(printed, name)
        for name in ("mask_rule", "mask_labels", "hold_silent", "last_step", "loss_average")
    }
    changed["denoiser"] = dataclasses.replace(
        paper.denoiser, control_residual=True, state_gate=False, mixing_gate=False, node_norm=False, read_out_scale=1.0
    )
    changed["mask_network"] = dataclasses.replace(paper.mask_network, node_norm=False)
    assert paper.replace(**changed) == printed
    assert (printed.mask_rule, printed.hold_silent, printed.last_step) == ("threshold", False, True)
    assert (printed.loss_average, printed.mask_labels, paper.mask_labels) == ("cells", "cells", "conditions")
    assert (paper.mask_rule, paper.hold_silent, paper.last_step) == ("probability", True, False)
    assert (paper.denoiser.control_residual, paper.denoiser.mixing_gate) == (False, True)
    assert all(preset.steps == "time" for preset in PRESETS.values())


def test_eq_5_the_control_signal(published):
    """Nothing for the source, `mu + sigma eps` for the target in training, the control cell itself in generation."""
    module = published.module
    module.denoiser = recorder = Recorder()
    x0, _, population = training_cells(published)
    codes = [module.registered_conditions.index(Perturbation(t)) for t in ((), ("G3",))]
    n, drawn = 4_000, {}
    for name, code in zip(("source", "target"), codes, strict=True):
        module.denoising_loss(
            x0[:1].expand(n, -1),
            torch.full((n,), code),
            population[:1].expand(n),
            generator=torch.Generator().manual_seed(0),
        )
        drawn[name] = recorder.calls[-1]["control"]
    known = module.populations()
    assert not drawn["source"].any()
    torch.testing.assert_close(drawn["target"].mean(0), known.mean[population[0]], atol=0.02, rtol=0)
    torch.testing.assert_close(drawn["target"].std(0), known.sd[population[0]], atol=0.02, rtol=0)

    module.averaged["denoiser"] = recorder = Recorder()
    new = published.generate("G3", 5, cell_type="B", **QUIET)
    cells = published.adata[new.obs["unlasting_source"].astype(str)].X.toarray() / float(module.statistics.x_max)
    source, target = recorder.calls[0], recorder.calls[-1]
    assert not source["control"].any()
    assert source["conditions"].is_control().all()
    np.testing.assert_allclose(target["control"].numpy(), cells, rtol=1e-5)


def test_eq_6_and_13_the_loss(published):
    """The squared error of the predicted x_0 over expressed genes, divided by their number: in each cell, or in all."""
    module = published.module
    module.denoiser = Recorder(0.25)
    x0, condition, population = training_cells(published)
    loss = module.denoising_loss(x0, condition, population)
    errors = [(cell[cell > 0] - 0.25) ** 2 for cell in x0.numpy()]
    in_cells = published.preset.loss_average == "cells"
    expected = np.mean([error.mean() for error in errors]) if in_cells else np.concatenate(errors).mean()
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_eq_7_10_and_12_nodes_and_read_out(published):
    """`Phi(g_i m_i, t, c) + Psi(x_t,i)`, layers without edges or attention, `<W_i, g_i> + b_i`."""
    module = published.module
    block = module.denoiser.grn
    torch.nn.init.normal_(block.read_out)
    block.attention = torch.nn.ModuleList()
    conditions = module.tensors([Perturbation(), Perturbation(("G3",)), Perturbation(("G3", "TFX"))])
    inputs, context = torch.randn(3, 60, 2), torch.randn(3, 32)
    block.read_out = torch.nn.Parameter(torch.randn(60, 4))
    found = block(inputs, context, None, conditions)
    nodes = list(published.adata.uns["unlasting"]["grn"]["nodes"])
    g = block.gene_embedding.detach()
    for row, targets in enumerate(([], ["G3"], ["G3", "TFX"])):
        keep = torch.ones(len(nodes), 1)
        keep[[nodes.index(name) for name in targets]] = 0.0
        phi = torch.nn.functional.silu(
            (g * keep) @ block.gene_proj.weight.T + block.gene_proj.bias + block.context_proj(context[row])
        )
        psi = inputs[row] @ block.input_proj.weight.T + block.input_proj.bias
        weights = block.read_out_scale * block.read_out
        expected = ((phi[:60] + psi) * weights).sum(-1) + block.read_out_bias
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-5)


def test_eq_10_has_no_control_signal(published):
    """The text's denoiser does not see the control signal under a knock-out; the authors' residual adds it to the output."""
    module, residual = published.module, published.preset.denoiser.control_residual
    for parameter in module.denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    conditions = module.tensors([Perturbation(("G3",))] * 2)
    state = torch.rand(1, 60).expand(2, -1)
    control, t, cell_type = torch.rand(2, 60), torch.full((2,), 0.3), torch.zeros(2, dtype=torch.long)
    out = module.denoiser(state, t, torch.ones_like(state), control, conditions, cell_type)
    expected = control[1] - control[0] if residual else torch.zeros(60)
    torch.testing.assert_close(out[1] - out[0], expected, rtol=1e-4, atol=1e-5)


def test_a_1_the_mask_network_is_a_graph_block(published):
    """No MLP beside the block, no state and no time; it sees the control signal."""
    network = published.module.mask_network
    assert {name.split(".")[0] for name, _ in network.named_parameters()} == {"cell_type", "grn"}
    torch.nn.init.normal_(network.grn.read_out)
    conditions = published.module.tensors([Perturbation(("G3",))])
    zeros, cell_type = torch.zeros(1, 60), torch.zeros(1, dtype=torch.long)
    context = network.cell_type(cell_type)
    control = torch.rand(1, 60)
    expected = network.grn(control[..., None], context, None, conditions)
    torch.testing.assert_close(network(control, zeros, conditions, cell_type), expected)


def test_a_2_the_loss_of_the_mask(published):
    """Binary cross-entropy against `x_0 > 0`."""
    module = published.module
    probability = torch.rand(12, 60) * 0.9 + 0.05
    module.mask_network.forward = GivenOdds(probability).forward
    x0, condition, population = training_cells(published)
    on, p = (x0 > 0).numpy(), probability.numpy()
    module.preset = module.preset.replace(mask_labels="cells")
    expected = -np.where(on, np.log(p), np.log(1.0 - p)).mean()
    assert float(module.mask_loss(x0, condition, population)) == pytest.approx(expected, rel=1e-4)


def test_labels_by_condition_are_the_mean_over_its_cells(build, screen):
    """The loss equals the mean of the losses of the condition's training cells, under the same noise."""
    model = build(screen(n_cells=200), "paper", options={"dropout": 0.0})
    model.train(max_steps=2, **QUIET)
    module, obs = model.module, model.adata.obs
    code, population = (obs[f"_unlasting_{name}"].to_numpy().astype(int) for name in ("perturbation", "population"))
    for condition in range(3):
        chosen = (code == condition) & (population == 1) & (obs["unlasting_split"] == "train").to_numpy()
        assert chosen.sum() > 1
        x = torch.from_numpy(model.adata.X[chosen].toarray()) / module.statistics.x_max

        def loss(cell, labels, condition=condition):
            module.preset = module.preset.replace(mask_labels=labels)
            codes = torch.tensor([condition]), torch.tensor([1])
            return float(module.mask_loss(cell[None], *codes, generator=torch.Generator().manual_seed(0)).detach())

        assert loss(x[0], "conditions") == pytest.approx(np.mean([loss(cell, "cells") for cell in x]), rel=1e-5)


def test_labels_by_condition_need_a_network_that_reads_nothing_of_the_cell():
    with pytest.raises(ValueError, match="detected_genes_slope=False"):
        Preset(mask_labels="conditions")


@pytest.mark.parametrize("rule", ["threshold", "probability"])
def test_a_2_rates_over_control_cells(build, screen, rule):
    """Labels are averaged over K control cells after the threshold, or probabilities without one."""
    model = build(screen(n_cells=200), "paper", options={"mask_rule": rule, "mask_threshold": 0.4})
    assert model.effects_model is not None
    probability = torch.rand(50, 60) * 0.98 + 0.01
    model.module.averaged["mask_network"] = GivenOdds(probability)
    condition = model.module.tensors([Perturbation(("G3",))])
    rate = model.module.published_mask_rate(torch.rand(50, 60), condition, torch.zeros(1, dtype=torch.long))
    expected = (probability > 0.4).float().mean(0) if rule == "threshold" else probability.mean(0)
    torch.testing.assert_close(rate, expected)


def test_eq_14_and_15_generation(published):
    """Encoded by the source, decoded by the target, masked, multiplied by x_max and clipped at 0."""
    module = published.module
    module.averaged["denoiser"] = Recorder(0.25)
    module.averaged["mask_network"] = GivenOdds(torch.full((500, 60), 0.7))
    new = published.generate("G3", 200, cell_type="B", **QUIET)
    x = new.X.toarray() / float(module.statistics.x_max)
    # under a constant prediction, u = x_t / sigma moves by the clock times the prediction, and back
    sources = published.adata[new.obs["unlasting_source"].astype(str)].X.toarray() / float(module.statistics.x_max)
    first = (new.obs["unlasting_replicate"] == 0).to_numpy()
    compared = (x > 0) & (sources > 0) & first[:, None]
    if published.preset.last_step:
        np.testing.assert_allclose(x[x > 0], 0.25, rtol=1e-4)
    else:
        np.testing.assert_allclose(x[compared], sources[compared], atol=1e-3)
    assert (x >= 0).all()
    rate = 1.0 if published.preset.mask_rule == "threshold" else 0.7
    shown = (x > 0)[:, (sources > 0.02).mean(0) > 0.9].mean()
    assert shown == pytest.approx(rate, abs=0.05)


def test_silent_genes_are_held_at_noise_while_encoding(published):
    """With the switch the latent of a silent gene is noise, and the network sees `sigma eps` there, as in training."""
    module = published.module
    module.averaged["denoiser"] = recorder = Recorder(0.25)
    controls = published.adata[published.adata.obs["perturbation"] == "control"].copy()
    silent = controls.X.toarray() == 0
    latent = published.encode(controls, seed=3)
    if not published.preset.hold_silent:
        assert latent[silent].std() < 1e-3  # all zeros go the same way
        return
    assert abs(latent[silent].mean()) < 4 / np.sqrt(silent.sum())
    assert latent[silent].std() == pytest.approx(1.0, abs=0.1)
    halfway = recorder.calls[25]
    step = int(np.rint(float(halfway["t"][0]) * (T - 1)))
    seen = halfway["state"].numpy()[silent]
    np.testing.assert_allclose(
        seen, np.sqrt(1 - ALPHA_BAR[step]) * latent[silent] / np.sqrt(1 - ALPHA_BAR[-1]), rtol=1e-3
    )


def test_silent_genes_are_held_at_noise_while_decoding(published):
    """Where the mask is known to be 0, the network sees `sigma` times the latent at every step, as in training."""
    module = published.module
    module.averaged["denoiser"] = recorder = Recorder(0.25)
    latent, mask = np.random.default_rng(0).normal(size=(4, 60)), np.arange(60) % 2 * np.ones((4, 1))
    controls = published.adata.X[:4].toarray()
    published.decode(latent, "G3", mask=mask, cell_type="B", controls=controls)
    steps = [int(np.rint(float(call["t"][0]) * (T - 1))) for call in recorder.calls]
    sigma = np.sqrt(1.0 - ALPHA_BAR[steps])
    seen = np.array([call["state"].numpy()[mask == 0] for call in recorder.calls]) / sigma[:, None]
    same = np.allclose(seen, latent[mask == 0], rtol=1e-3, atol=1e-4)
    assert same == published.preset.hold_silent


def test_steps_uniform_in_log_snr():
    schedule = LinearBetaSchedule()
    times = log_snr_times(schedule, 50)
    log_snr = np.log(ALPHA_BAR / (1.0 - ALPHA_BAR))
    found = schedule.log_snr(times).numpy()
    assert (times[0], times[-1]) == (0.0, 1.0)
    assert (np.diff(times.numpy()) > 0).all()
    for wanted in np.linspace(log_snr[0], log_snr[-1], 51):  # a training step has no nearer neighbour
        assert np.abs(found - wanted).min() == pytest.approx(np.abs(log_snr - wanted).min(), abs=1e-3)


@pytest.mark.slow
def test_the_published_presets_are_saved_with_every_option_class(build, screen, tmp_path):
    small = {"gene_features": 4, "attention_features": 4, "width": 8, "time_frequencies": 8}
    training = NetworkTraining(3, 16, 1e-3, 0.0, 0.9)
    for preset in ("paper", "paper-as-printed"):
        adata = screen(n_cells=100)
        UnlastingModel.setup_anndata(adata, cell_type_key="cell_type")
        named = Preset.named(preset)
        options = {
            "denoiser": dataclasses.replace(named.denoiser, **small),
            "mask_network": Architecture(**{**dataclasses.asdict(named.mask_network), **small}),
            "train_denoiser": training,
            "train_mask": training,
            "steps": "log_snr",
            "last_step": True,
        }
        model = UnlastingModel(adata, preset=preset, **options)
        model.train(seed=0, accelerator="cpu", **QUIET)
        model.save(tmp_path / preset)
        loaded = UnlastingModel.load(tmp_path / preset, adata, accelerator="cpu")
        assert loaded.preset == model.preset
        one, other = (m.generate("G3", 6, **QUIET).X for m in (model, loaded))
        np.testing.assert_array_equal(sparse.csr_matrix(one).toarray(), sparse.csr_matrix(other).toarray())


def test_the_laptop_recipe_is_the_published_one_at_other_sizes():
    paper, laptop = PRESETS["paper"], PRESETS["paper"].replace(**LAPTOP)
    sizes = {name: getattr(paper.denoiser, name) for name in LAPTOP if hasattr(paper.denoiser, name)}
    trained = {name: getattr(paper, name) for name in ("train_denoiser", "train_mask")}
    assert laptop.replace(**sizes, **trained) == paper
    assert laptop.train_denoiser.max_steps < paper.train_denoiser.max_steps


@pytest.mark.slow
def test_a_gene_target_acts_in_every_mode(build, screen):
    """The zeroed node is the only sign of a target in the text, which has activations too."""
    for mode in ("knockout", "activation"):
        assert build(screen(n_cells=100), "paper", mode=mode).preset.denoiser.knock_out
        assert build(screen(n_cells=100), mode=mode).preset.denoiser.knock_out == (mode == "knockout")


@pytest.mark.slow
def test_a_graph_that_leads_nowhere_is_warned_of(build, screen, caplog, monkeypatch):
    """Perturbations act along edges alone: where the targets reach few genes, training says so, and the fix."""
    monkeypatch.setattr("unlasting.screen._logging.logger.propagate", True)
    adata = screen(n_cells=100)
    build(adata, "paper", train=1)
    assert "trained targets reach" not in caplog.text
    graph = adata.uns["unlasting"]["grn"]
    graph["edges"] = graph["edges"].iloc[:0]
    build(adata, "paper", train=1)
    assert "half of the trained targets reach" in caplog.text
    assert "`pp.grn(adata, response_fdr=0.2)`" in caplog.text
    caplog.clear()
    graph["edges"] = pd.DataFrame({"source": ["G3"], "target": ["G11"], "weight": [1.0], "origin": ["response"]})
    build(adata, "paper", train=1)
    assert "Few edges by response were found: use `preset='default'`" in caplog.text
