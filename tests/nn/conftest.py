from __future__ import annotations

import dataclasses

import pytest
import torch

from unlasting.effects import ConditionTensors
from unlasting.module import PRESETS
from unlasting.nn import Architecture, SharedGraph

N_GENES, N_NODES, N_FEATURES, N_CONDITIONS = 11, 14, 7, 8
SMALL = {"gene_features": 4, "attention_features": 6, "width": 16, "time_frequencies": 8}


@pytest.fixture
def architectures() -> list[Architecture]:
    """The denoiser's switches in every preset, and in the default with a graph block, at a small size."""
    presets = [*PRESETS.values(), PRESETS["default"].replace(use_grn=True)]
    return [
        dataclasses.replace(p.denoiser, **SMALL, condition_features=5 if p.denoiser.condition_features else 0)
        for p in presets
    ]


@pytest.fixture
def edge_index() -> torch.Tensor:
    return torch.randint(N_NODES, (2, 40), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def graph(edge_index) -> SharedGraph:
    return SharedGraph(edge_index, N_NODES)


@pytest.fixture
def conditions() -> ConditionTensors:
    """Control; a gene; a gene with an unmeasured one; a gene; a gene outside the graph; a drug at a dose with a gene; two
    drugs; a stimulus.
    """
    features = torch.randn(N_CONDITIONS, N_FEATURES, generator=torch.Generator().manual_seed(1))
    features[0] = 0.0
    return ConditionTensors(
        kind=torch.tensor([[-1, -1], [0, -1], [0, 0], [0, -1], [0, -1], [1, 0], [1, 1], [2, -1]]),
        node=torch.tensor([[-1, -1], [2, -1], [12, 5], [7, -1], [-1, -1], [-1, 7], [-1, -1], [-1, -1]]),
        molecule=torch.tensor([[-1, -1], [-1, -1], [-1, -1], [-1, -1], [-1, -1], [0, -1], [1, 2], [-1, -1]]),
        dose=torch.tensor([[-1, -1], [-1, -1], [-1, -1], [-1, -1], [-1, -1], [0.3, -1], [1.0, -1], [-1, -1]]),
        features=features,
        weight=torch.ones(N_CONDITIONS),
    )


@pytest.fixture
def molecules() -> torch.Tensor:
    return torch.nn.functional.normalize(torch.rand(3, 9, generator=torch.Generator().manual_seed(4)))


@pytest.fixture
def cells() -> dict[str, torch.Tensor]:
    """The arguments of the networks, for a cell of each condition."""
    generator = torch.Generator().manual_seed(2)
    return {
        "state": torch.randn(N_CONDITIONS, N_GENES, generator=generator),
        "t": torch.rand(N_CONDITIONS, generator=generator),
        "mask": (torch.rand(N_CONDITIONS, N_GENES, generator=generator) > 0.4).float(),
        "control": torch.rand(N_CONDITIONS, N_GENES, generator=generator),
        "log_odds": torch.randn(N_CONDITIONS, N_GENES, generator=generator),
        "cell_type": torch.arange(N_CONDITIONS) % 2,
    }


def shaken(network: torch.nn.Module) -> torch.nn.Module:
    """Move all parameters away from where they start, so that none hides by being zero."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return network


@pytest.fixture
def shake():
    return shaken
