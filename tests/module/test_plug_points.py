"""Networks of a user's own, and the effects model behind them."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import nn

from unlasting.effects import ConditionFeatures, EffectsModel, ScreenCells, TargetVocabulary
from unlasting.module import PRESETS, UnlastingModule
from unlasting.nn import MaskNetwork
from unlasting.screen import Perturbation

N_GENES = 6
GENES = [f"G{i}" for i in range(N_GENES)]
CONDITIONS = [Perturbation(), Perturbation(("G0",)), Perturbation(("G1",))]
VOCABULARY = TargetVocabulary(GENES, CONDITIONS[1:], [], np.zeros((0, 1)), {}, [], np.zeros((0, 1)))


class Linear(nn.Module):
    """A denoiser without graph, time and conditions."""

    def __init__(self, graph, n_genes, n_features, n_cell_types, architecture, molecules=None):
        super().__init__()
        self.layer = nn.Linear(n_genes, n_genes)

    def forward(self, state, t, mask, control, conditions, cell_type):
        return self.layer(state * mask) + control


class LinearModule(UnlastingModule):
    _denoiser_cls = Linear


@pytest.fixture(scope="module")
def effects() -> EffectsModel:
    rng = np.random.default_rng(0)
    cells = rng.uniform(1, 2, (300, N_GENES)) * (rng.random((300, N_GENES)) < 0.7)
    codes = np.repeat([0, 1, 2], 100)
    zeros = np.zeros(300, dtype=int)
    return EffectsModel.fit(ScreenCells(sparse.csr_matrix(cells), codes, zeros, zeros, 3, 1), CONDITIONS, VOCABULARY)


def make(cls=LinearModule) -> UnlastingModule:
    torch.manual_seed(0)
    preset = PRESETS["default"].replace(width=8, gene_features=4, attention_features=4, time_frequencies=8)
    edges = torch.tensor([[0, 1, 2], [1, 2, 3]])
    n_features = len(ConditionFeatures(VOCABULARY))
    return cls(preset, edges, N_GENES, N_GENES, n_features, CONDITIONS, torch.zeros(1, dtype=torch.long))


def loss(module: UnlastingModule) -> torch.Tensor:
    x0 = torch.rand(5, N_GENES, generator=torch.Generator().manual_seed(1))
    condition, population = torch.tensor([0, 1, 2, 1, 0]), torch.zeros(5, dtype=torch.long)
    generator = torch.Generator().manual_seed(2)
    return module.denoising_loss(x0, condition, population, generator=generator) + module.mask_loss(
        x0, condition, population, generator=generator
    )


def test_another_denoiser_takes_the_place(effects):
    module = make()
    assert isinstance(module.averaged["denoiser"], Linear)
    assert isinstance(module.mask_network, MaskNetwork)
    module.use_effects(effects)
    loss(module).backward()
    assert module.denoiser.layer.weight.grad.abs().sum() > 0
    tensors = module.tensors([CONDITIONS[1]])
    populations = module.populations()
    expected = module.expected([CONDITIONS[1]], populations)(torch.zeros(1).long(), torch.zeros(1).long())
    x0 = torch.full((1, N_GENES), 0.5)
    latent = module.encode(x0, torch.zeros_like(x0), populations.mean, tensors, populations, expected)
    back = module.decode(latent, torch.ones_like(x0), populations.mean, tensors, populations, expected)
    torch.testing.assert_close(back, x0, atol=0.02, rtol=0)


def test_without_effects_the_module_says_where_they_come_from():
    module = make()
    assert not module.has_effects
    with pytest.raises(RuntimeError, match=r"Call `module.use_effects\(EffectsModel.fit\(...\)\)`"):
        module.populations()


def test_copies_keep_the_effects_and_the_state_holds_the_networks_only(effects):
    module = make()
    module.use_effects(effects)
    value = loss(module)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        torch.testing.assert_close(loss(other), value, rtol=0, atol=0)
    parts = {name.split(".")[0] for name in module.state_dict()}
    assert parts == {"denoiser", "mask_network", "averaged"}


def test_tensors_computed_in_validation_serve_training(effects):
    module = make()
    module.use_effects(effects)
    with torch.inference_mode():
        value = loss(module)
    again = loss(module)
    again.backward()
    torch.testing.assert_close(again.detach(), value.clone())
