from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unlasting.nn import ConditionEncoder, ConditionTensors


@pytest.fixture
def encoder(shake) -> ConditionEncoder:
    return shake(ConditionEncoder(4, 5))


def test_the_control_is_exactly_zero(encoder, conditions):
    assert conditions.is_control().tolist() == [True, False, False, False, False]
    assert torch.equal(encoder(conditions)[0], torch.zeros(5))
    assert torch.equal(encoder(conditions, torch.ones(5, dtype=torch.bool))[0], torch.zeros(5))
    assert (encoder(conditions)[1:].abs().sum(-1) > 0).all()


def test_targets_have_no_order(encoder, conditions):
    fields = dataclasses.fields(conditions)
    turned = ConditionTensors(*(getattr(conditions, f.name).flip(1) for f in fields))
    for hidden in (None, torch.ones(5, dtype=torch.bool)):
        torch.testing.assert_close(encoder(turned, hidden), encoder(conditions, hidden))
    assert torch.equal(turned.keep_nodes(14), conditions.keep_nodes(14))


def test_an_empty_slot_changes_nothing(encoder, conditions):
    wider = ConditionTensors(
        node=torch.nn.functional.pad(conditions.node, (0, 2), value=-1),
        identity=torch.nn.functional.pad(conditions.identity, (0, 2), value=-1),
        similarity=torch.nn.functional.pad(conditions.similarity, (0, 0, 0, 2), value=-torch.inf),
        filled=torch.nn.functional.pad(conditions.filled, (0, 2), value=False),
    )
    torch.testing.assert_close(encoder(wider), encoder(conditions))


def test_a_trained_target_is_its_own_identity(encoder, conditions):
    embedded = encoder(conditions)
    torch.testing.assert_close(embedded[1], encoder.generic + encoder.identity[0])
    torch.testing.assert_close(embedded[2], 2 * encoder.generic + encoder.identity[3] + encoder.identity[1])


def test_an_untrained_target_is_a_mixture_of_similar_ones(encoder, conditions):
    logits = torch.cat([encoder.sharpness * conditions.similarity[3, 0], encoder.none_of_these[None]])
    share = torch.exp(logits) / torch.exp(logits).sum()
    torch.testing.assert_close(encoder(conditions)[3], encoder.generic + share[:4] @ encoder.identity)


def test_a_target_that_nothing_is_known_of_is_the_generic_one(encoder, conditions):
    torch.testing.assert_close(encoder(conditions)[4], encoder.generic)


def test_a_hidden_target_sees_neither_itself_nor_its_partner(encoder, conditions):
    hidden = torch.ones(5, dtype=torch.bool)
    before = encoder(conditions, hidden).detach().clone()
    with torch.no_grad():
        encoder.identity[0] += 10.0
    after = encoder(conditions, hidden)
    torch.testing.assert_close(after[1], before[1], rtol=0, atol=0)
    assert not torch.allclose(after[3], before[3])  # another target may well look at it
    # Of a pair, neither target sees itself or the other.
    gradient = torch.autograd.grad(encoder(conditions, hidden)[2].sum(), encoder.identity)[0]
    assert torch.equal(gradient[[1, 3]], torch.zeros(2, 5))
    assert (gradient[[0, 2]] != 0).all()


def test_hiding_is_for_each_cell(encoder, conditions):
    hidden = torch.tensor([False, True, False, False, False])
    some, none, every = (
        encoder(conditions, h) for h in (hidden, torch.zeros(5, dtype=torch.bool), torch.ones(5, dtype=torch.bool))
    )
    torch.testing.assert_close(some[1], every[1])
    torch.testing.assert_close(some[2:], none[2:])
    torch.testing.assert_close(none, encoder(conditions))


def test_gradients_are_finite_where_the_prior_says_nothing(encoder, conditions):
    encoder(conditions, torch.ones(5, dtype=torch.bool)).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert (parameter.grad != 0).any(), name


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sets(st.integers(0, 9), max_size=4), min_size=1, max_size=5))
def test_exactly_the_targets_nodes_are_zeroed(targets):
    n_slots = max(map(len, targets)) or 1
    node = torch.tensor([sorted(t) + [-1] * (n_slots - len(t)) for t in targets])
    conditions = ConditionTensors(node, node, torch.zeros(*node.shape, 1), node >= 0)
    expected = [[0.0 if i in t else 1.0 for i in range(10)] for t in targets]
    assert conditions.keep_nodes(10).tolist() == expected
