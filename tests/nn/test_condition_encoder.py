from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unlasting.effects import NO_DOSE, ConditionTensors
from unlasting.nn import ConditionEncoder, dose_gate


@pytest.fixture
def encoder() -> ConditionEncoder:
    return ConditionEncoder(7, 5)


def test_the_control_is_exactly_zero(encoder, conditions):
    assert conditions.is_control().tolist() == [True] + [False] * 7
    assert torch.equal(encoder(conditions)[0], torch.zeros(5))
    assert (encoder(conditions)[1:].abs().sum(-1) > 0).all()


def test_slots_have_no_order(conditions):
    slots = {
        f.name: getattr(conditions, f.name).flip(1)
        for f in dataclasses.fields(conditions)
        if f.name not in ("features", "weight")
    }
    turned = dataclasses.replace(conditions, **slots)
    assert torch.equal(turned.keep_nodes(14), conditions.keep_nodes(14))
    assert torch.equal(turned.is_control(), conditions.is_control())


def test_the_embedding_is_linear_in_the_features(encoder, conditions):
    one, other = conditions.features[1:5], conditions.features[4:8]
    both = dataclasses.replace(conditions[1:5], features=2.0 * one - 3.0 * other)
    torch.testing.assert_close(encoder(both), 2.0 * encoder(conditions[1:5]) - 3.0 * encoder(conditions[4:8]))


def test_a_typical_condition_is_embedded_with_unit_variance(conditions):
    """Features have length one, so that what the networks are conditioned on is neither tiny nor huge."""
    torch.manual_seed(0)
    features = torch.nn.functional.normalize(conditions.features[1:], dim=-1)
    embedded = ConditionEncoder(7, 4_000)(dataclasses.replace(conditions[1:], features=features))
    assert embedded.std(dim=-1).detach().tolist() == pytest.approx([1.0] * 7, abs=0.1)


# -- doses


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(0.0, 50.0, width=32), min_size=2, max_size=8),
    st.floats(-8, 4, width=32),
    st.floats(-5, 5, width=32),
)
def test_the_gate_rises_with_the_dose(doses, log_half, log_slope):
    share = dose_gate(torch.tensor(sorted(doses)), torch.tensor(log_half), torch.tensor(log_slope))
    assert (share.diff() >= 0).all()
    assert ((share >= 0) & (share <= 1)).all()
    assert dose_gate(torch.tensor(0.0), torch.tensor(log_half), torch.tensor(log_slope)) == 0
    assert dose_gate(torch.tensor(NO_DOSE), torch.tensor(log_half), torch.tensor(log_slope)) == 1
    half = torch.tensor(log_half).exp()
    assert float(dose_gate(half, torch.tensor(log_half), torch.tensor(log_slope))) == pytest.approx(0.5, abs=1e-4)


def test_gradients_of_the_gate_are_finite_at_dose_zero():
    log_half = torch.tensor(0.3, requires_grad=True)
    dose_gate(torch.tensor([0.0, 1.0, NO_DOSE]), log_half, torch.tensor(0.1)).sum().backward()
    assert torch.isfinite(log_half.grad)
    assert log_half.grad != 0


# -- nodes


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sets(st.integers(0, 9), max_size=4), min_size=1, max_size=5))
def test_exactly_the_targets_nodes_are_zeroed(targets):
    n_slots = max(map(len, targets)) or 1
    node = torch.tensor([sorted(t) + [-1] * (n_slots - len(t)) for t in targets])
    kind = torch.where(node < 0, -1, 0)
    conditions = ConditionTensors(
        kind, node, node, kind.float(), torch.zeros(len(targets), 1), torch.ones(len(targets))
    )
    expected = [[0.0 if i in t else 1.0 for i in range(10)] for t in targets]
    assert conditions.keep_nodes(10).tolist() == expected
