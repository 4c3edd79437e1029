from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unlasting.diffusion import bridge_mask, mask_latent

probabilities = st.floats(0.001, 0.999)
seeds = st.integers(0, 2**31)


def drawn(seed: int, probability: float, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.rand(n, 1, generator=generator) < probability).float()
    return mask, torch.rand(n, 1, generator=generator)


@given(seeds, probabilities)
def test_the_same_probability_returns_the_same_mask(seed, probability):
    mask, uniform = drawn(seed, 0.5, 500)
    uniform[:3] = torch.tensor([[0.0], [1.0], [1.0 - 2**-24]])
    mask[:3] = 1.0
    p = torch.full_like(mask, probability)
    assert torch.equal(bridge_mask(mask_latent(mask, p, uniform), p), mask.bool())
    assert torch.equal(bridge_mask(mask_latent(1 - mask, p, uniform), p), ~mask.bool())


@given(seeds, probabilities, probabilities, probabilities)
def test_a_higher_probability_turns_genes_on_and_none_off(seed, before, one, other):
    mask, uniform = drawn(seed, before, 200)
    latent = mask_latent(mask, torch.full_like(mask, before), uniform)
    low, high = sorted((one, other))
    fewer, more = bridge_mask(latent, torch.tensor(low)), bridge_mask(latent, torch.tensor(high))
    assert (fewer <= more).all()
    assert ((latent >= 0) & (latent <= 1)).all()


def test_the_latent_is_uniform():
    for seed, probability in enumerate([0.002, 0.1, 0.5, 0.93]):
        mask, uniform = drawn(seed, probability, 20_000)
        latent = mask_latent(mask, torch.full_like(mask, probability), uniform)
        assert stats.kstest(latent.numpy().ravel(), "uniform").pvalue > 1e-3


def test_rates_afterwards_are_those_asked_for():
    n = 40_000
    for seed, (before, after) in enumerate([(0.05, 0.6), (0.6, 0.05), (0.4, 0.45), (0.001, 0.3), (0.999, 0.5)]):
        mask, uniform = drawn(seed, before, n)
        carried = bridge_mask(mask_latent(mask, torch.full_like(mask, before), uniform), torch.tensor(after))
        assert abs(float(carried.float().mean()) - after) < 4 * np.sqrt(after * (1 - after) / n)


def test_no_more_genes_change_than_must():
    """The bridge is the coupling with the fewest changes: their share is the difference of the rates."""
    mask, uniform = drawn(0, 0.3, 40_000)
    carried = bridge_mask(mask_latent(mask, torch.full_like(mask, 0.3), uniform), torch.tensor(0.5))
    assert abs(float((carried != mask.bool()).float().mean()) - 0.2) < 0.01
