from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unlasting.nn import NO_DOSE, ConditionEncoder, ConditionTensors, dose_gate


@pytest.fixture
def encoder(shake) -> ConditionEncoder:
    return shake(ConditionEncoder(7, 5))


def everywhere(conditions: ConditionTensors) -> torch.Tensor:
    return torch.ones(len(conditions), dtype=torch.bool)


def at_dose(conditions: ConditionTensors, slot: tuple[int, int], log1p_dose: float) -> ConditionTensors:
    dose = conditions.dose.clone()
    dose[slot] = log1p_dose
    return dataclasses.replace(conditions, dose=dose)


def gate_of(encoder: ConditionEncoder, identity: torch.Tensor, log1p_dose: float) -> torch.Tensor:
    """A Hill curve of log1p(dose), written another way."""
    log_half, log_slope = encoder.usual_potency + identity @ encoder.of_potency
    power = log1p_dose ** torch.exp(torch.tanh(log_slope))
    return power / (power + torch.exp(log_half) ** torch.exp(torch.tanh(log_slope)))


def test_the_control_is_exactly_zero(encoder, conditions):
    assert conditions.is_control().tolist() == [True] + [False] * 7
    assert torch.equal(encoder(conditions)[0], torch.zeros(5))
    assert torch.equal(encoder(conditions, everywhere(conditions))[0], torch.zeros(5))
    assert (encoder(conditions)[1:].abs().sum(-1) > 0).all()


def test_the_null_is_a_control_of_the_same_form(encoder, conditions):
    null = conditions.null()
    assert torch.equal(encoder(null), torch.zeros(1, 5))
    assert torch.equal(null.keep_nodes(14), torch.ones(1, 14))
    for f in dataclasses.fields(conditions):
        ours, theirs = getattr(null, f.name), getattr(conditions, f.name)
        assert ours.dtype == theirs.dtype
        assert ours.shape == (1, *theirs.shape[1:])
    assert len(conditions[:0].null()) == 1


def test_targets_have_no_order(encoder, conditions):
    fields = dataclasses.fields(conditions)
    turned = ConditionTensors(*(getattr(conditions, f.name).flip(1) for f in fields))
    for hidden in (None, everywhere(conditions)):
        torch.testing.assert_close(encoder(turned, hidden), encoder(conditions, hidden))
    assert torch.equal(turned.keep_nodes(14), conditions.keep_nodes(14))


def test_an_empty_slot_changes_nothing(encoder, conditions):
    empty = conditions.null()[torch.zeros(len(conditions), dtype=torch.long)]
    fields = [f.name for f in dataclasses.fields(conditions)]
    wider = ConditionTensors(*(torch.cat([getattr(part, f) for part in (conditions, empty)], dim=1) for f in fields))
    torch.testing.assert_close(encoder(wider), encoder(conditions))


def test_a_trained_target_is_its_own_identity(encoder, conditions):
    embedded = encoder(conditions)
    gene, drug, stimulus = encoder.generic
    torch.testing.assert_close(embedded[1], gene + encoder.identity[0])
    torch.testing.assert_close(embedded[2], 2 * gene + encoder.identity[3] + encoder.identity[1])
    torch.testing.assert_close(embedded[7], stimulus + encoder.identity[6])
    gene_alone = dataclasses.replace(conditions, kind=torch.where(conditions.kind == 0, 0, -1))
    of_drug = gate_of(encoder, encoder.identity[4], 0.3) * (drug + encoder.identity[4])
    torch.testing.assert_close(embedded[5], of_drug + encoder(gene_alone)[5])


def test_an_untrained_target_is_a_mixture_of_similar_ones_of_its_kind(encoder, conditions):
    logits = torch.cat([encoder.sharpness[0] * conditions.similarity[3, 0, :4], encoder.none_of_these[:1]])
    share = torch.exp(logits) / torch.exp(logits).sum()
    torch.testing.assert_close(encoder(conditions)[3], encoder.generic[0] + share[:4] @ encoder.identity[:4])
    weights = encoder.weights(conditions)
    assert torch.equal(weights[3, 0, 4:], torch.zeros(3))
    assert torch.equal(weights[6, 1, [0, 1, 2, 3, 6]], torch.zeros(5))
    assert (weights[6, 1, 4:6] > 0).all()


def test_a_target_that_nothing_is_known_of_is_the_generic_one(encoder, conditions):
    torch.testing.assert_close(encoder(conditions)[4], encoder.generic[0])


def test_a_hidden_target_sees_neither_itself_nor_its_partner(encoder, conditions):
    hidden = everywhere(conditions)
    before = encoder(conditions, hidden).detach().clone()
    with torch.no_grad():
        encoder.identity[0] += 10.0
    after = encoder(conditions, hidden)
    torch.testing.assert_close(after[1], before[1], rtol=0, atol=0)
    assert not torch.allclose(after[3], before[3])  # another target may well look at it
    # Of a pair, neither target sees itself or the other.
    gradient = torch.autograd.grad(encoder(conditions, hidden)[2].sum(), encoder.identity, retain_graph=True)[0]
    assert torch.equal(gradient[[1, 3]], torch.zeros(2, 5))
    assert (gradient[[0, 2]] != 0).all()
    of_drugs = torch.autograd.grad(encoder(conditions, hidden)[6].sum(), encoder.identity)[0]
    assert torch.equal(of_drugs[[0, 1, 2, 3, 5, 6]], torch.zeros(6, 5))
    assert (of_drugs[4] != 0).all()  # a drug is guessed from the other drug


def test_a_stimulus_is_never_hidden(encoder, conditions):
    torch.testing.assert_close(encoder(conditions, everywhere(conditions))[7], encoder(conditions)[7], rtol=0, atol=0)


def test_hiding_is_for_each_cell(encoder, conditions):
    hidden = torch.arange(len(conditions)) == 1
    some, none, every = (encoder(conditions, h) for h in (hidden, ~everywhere(conditions), everywhere(conditions)))
    torch.testing.assert_close(some[1], every[1])
    torch.testing.assert_close(some[2:], none[2:])
    torch.testing.assert_close(none, encoder(conditions))


def test_gradients_are_finite_where_the_prior_says_nothing(encoder, conditions):
    some_at_dose_zero = at_dose(conditions, (6, 0), 0.0)
    hidden = torch.arange(len(conditions)) != 2
    encoder(some_at_dose_zero, hidden).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert (parameter.grad != 0).any(), name


# -- doses


def test_dose_zero_is_nothing_and_no_dose_is_all(encoder, conditions):
    one = dataclasses.replace(conditions, kind=torch.where(conditions.kind == 1, 1, -1))[5:6]
    torch.testing.assert_close(encoder(at_dose(one, (0, 0), 0.0)), torch.zeros(1, 5), rtol=0, atol=0)
    full = encoder.generic[1] + encoder.identity[4]
    torch.testing.assert_close(encoder(at_dose(one, (0, 0), NO_DOSE))[0], full)
    torch.testing.assert_close(encoder(at_dose(one, (0, 0), 1e-12))[0], torch.zeros(5), rtol=0, atol=1e-3)
    torch.testing.assert_close(encoder(at_dose(one, (0, 0), 1e9))[0], full, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(encoder(at_dose(one, (0, 0), 0.3))[0], gate_of(encoder, encoder.identity[4], 0.3) * full)


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
    half = torch.tensor(log_half).exp()
    assert float(dose_gate(half, torch.tensor(log_half), torch.tensor(log_slope))) == pytest.approx(0.5, abs=1e-4)


def test_the_half_of_the_effect_starts_in_the_range_of_the_doses(conditions):
    encoder = ConditionEncoder(7, 5)
    before = encoder.usual_potency.detach().clone()
    encoder.start_at_doses_of(conditions[:5])  # no drug
    assert torch.equal(encoder.usual_potency, before)
    encoder.start_at_doses_of(dataclasses.replace(conditions, dose=conditions.dose / 1_000))
    assert float(encoder.usual_potency[0].detach().exp()) in (pytest.approx(0.3e-3), pytest.approx(1e-3))


def test_potency_is_read_from_the_identity(encoder, conditions):
    """Two drugs at one dose are at different parts of their curves."""
    both = at_dose(conditions, (5, 0), 1.0)
    slots = dataclasses.replace(both, kind=torch.where(both.identity >= 4, both.kind, -1))[5:7]
    gates = [gate_of(encoder, encoder.identity[i], 1.0) for i in (4, 5)]
    assert abs((gates[0] - gates[1]).item()) > 1e-3
    for row, (gate, i) in enumerate(zip(gates, (4, 5), strict=True)):
        torch.testing.assert_close(encoder(slots)[row], gate * (encoder.generic[1] + encoder.identity[i]))


# -- nodes


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sets(st.integers(0, 9), max_size=4), min_size=1, max_size=5))
def test_exactly_the_targets_nodes_are_zeroed(targets):
    n_slots = max(map(len, targets)) or 1
    node = torch.tensor([sorted(t) + [-1] * (n_slots - len(t)) for t in targets])
    kind = torch.where(node < 0, -1, 0)
    conditions = ConditionTensors(kind, node, node, kind.float(), node, torch.zeros(*node.shape, 1))
    expected = [[0.0 if i in t else 1.0 for i in range(10)] for t in targets]
    assert conditions.keep_nodes(10).tolist() == expected
