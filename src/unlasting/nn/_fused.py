"""The attention-weighted sum over neighbours on the CPU, compiled by numba."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import torch
from numba.core.dispatcher import Dispatcher
from torch import Tensor

from unlasting._numba import compiled

SLOPE: Final = 0.2
"""Slope of the leaky rectifier for negative scores."""

_SLOPE: Final = np.float32(SLOPE)
_ONE: Final = np.float32(1.0)
_LEAST: Final = np.float32(np.exp(-80.0))
"""Weight of an edge at least, before normalisation: no target has zero weight in total."""


@compiled
def _forward(
    starts: np.ndarray,
    sources: np.ndarray,
    features: np.ndarray,
    by_source: np.ndarray,
    by_target: np.ndarray,
    summed: np.ndarray,
    inverse: np.ndarray,
    first: int,
    last: int,
) -> None:
    """Write the weighted means `summed` and the inverse total weights of some cells; two heads share a pass."""
    n_features, heads = features.shape[2], by_source.shape[2]
    one, two = np.empty(n_features, np.float32), np.empty(n_features, np.float32)
    for cell in range(first, last):
        values, from_source, from_target = features[cell], by_source[cell], by_target[cell]
        for node in range(starts.shape[0] - 1):
            for h in range(0, heads, 2):
                k = min(h + 1, heads - 1)  # the same head again for the last of an odd number
                h_above, h_below = from_target[node, h, 0], from_target[node, h, 1]
                k_above, k_below = from_target[node, k, 0], from_target[node, k, 1]
                h_total, k_total = np.float32(0.0), np.float32(0.0)
                for f in range(n_features):
                    one[f] = 0.0
                    two[f] = 0.0
                for edge in range(starts[node], starts[node + 1]):
                    j = sources[edge]
                    h_weight = max(from_source[j, h, 0] * h_above, from_source[j, h, 1] * h_below, _LEAST)
                    k_weight = max(from_source[j, k, 0] * k_above, from_source[j, k, 1] * k_below, _LEAST)
                    h_total += h_weight
                    k_total += k_weight
                    row = values[j]
                    for f in range(n_features):
                        one[f] += h_weight * row[f]
                        two[f] += k_weight * row[f]
                h_inverse, k_inverse = _ONE / h_total, _ONE / k_total
                inverse[cell, node, h] = h_inverse
                inverse[cell, node, k] = k_inverse
                for f in range(n_features):
                    summed[cell, node, h, f] = one[f] * h_inverse
                    summed[cell, node, k, f] = two[f] * k_inverse


@compiled
def _backward(
    starts: np.ndarray,
    sources: np.ndarray,
    features: np.ndarray,
    by_source: np.ndarray,
    by_target: np.ndarray,
    summed: np.ndarray,
    inverse: np.ndarray,
    gradient: np.ndarray,
    to_features: np.ndarray,
    to_source: np.ndarray,
    to_target: np.ndarray,
    first: int,
    last: int,
) -> None:
    """Add the gradients of some cells to `to_features` and `to_source`, and write those of target scores."""
    n_features, heads = features.shape[2], by_source.shape[2]
    for cell in range(first, last):
        values, from_source, from_target = features[cell], by_source[cell], by_target[cell]
        feature_gradient, source_gradient = to_features[cell], to_source[cell]
        for node in range(starts.shape[0] - 1):
            for h in range(0, heads, 2):
                k = min(h + 1, heads - 1)
                h_slope, k_slope = gradient[cell, node, h], gradient[cell, node, k]
                h_mean, k_mean = np.float32(0.0), np.float32(0.0)
                for f in range(n_features):
                    h_mean += h_slope[f] * summed[cell, node, h, f]
                    k_mean += k_slope[f] * summed[cell, node, k, f]
                h_above, h_below = from_target[node, h, 0], from_target[node, h, 1]
                k_above, k_below = from_target[node, k, 0], from_target[node, k, 1]
                h_inverse = inverse[cell, node, h]
                k_inverse = inverse[cell, node, k] if k > h else np.float32(0.0)
                h_sum, k_sum = np.float32(0.0), np.float32(0.0)
                for edge in range(starts[node], starts[node + 1]):
                    j = sources[edge]
                    h_up, h_down = from_source[j, h, 0] * h_above, from_source[j, h, 1] * h_below
                    k_up, k_down = from_source[j, k, 0] * k_above, from_source[j, k, 1] * k_below
                    h_weight = max(h_up, h_down, _LEAST) * h_inverse
                    k_weight = max(k_up, k_down, _LEAST) * k_inverse
                    row, to_row = values[j], feature_gradient[j]
                    h_dot, k_dot = np.float32(0.0), np.float32(0.0)
                    for f in range(n_features):
                        h_dot += h_slope[f] * row[f]
                        k_dot += k_slope[f] * row[f]
                        to_row[f] += h_weight * h_slope[f] + k_weight * k_slope[f]
                    h_score = h_weight * (h_dot - h_mean) * (_ONE if h_up >= h_down else _SLOPE)
                    k_score = k_weight * (k_dot - k_mean) * (_ONE if k_up >= k_down else _SLOPE)
                    h_sum += h_score
                    k_sum += k_score
                    source_gradient[j, h] += h_score
                    source_gradient[j, k] += k_score
                to_target[cell, node, h] = h_sum
                if k > h:
                    to_target[cell, node, k] = k_sum


def is_compiled() -> bool:
    """Whether numba compiles; `NUMBA_DISABLE_JIT` switches it off."""
    return isinstance(_forward, Dispatcher)


def _over_cells(kernel: Callable[..., None], *tensors: Tensor) -> None:
    """Run a kernel over all cells, in as many threads as torch has."""
    arrays = [tensor.detach().contiguous().numpy() for tensor in tensors]
    n_cells = len(arrays[2])
    n_threads = min(torch.get_num_threads(), n_cells)
    if n_threads < 2:
        kernel(*arrays, 0, n_cells)
        return
    ends = [i * n_cells // n_threads for i in range(n_threads + 1)]
    with ThreadPoolExecutor(n_threads) as threads:  # a pool that lives on would not survive a fork
        list(threads.map(lambda part: kernel(*arrays, *part), zip(ends[:-1], ends[1:], strict=True)))


def _factors(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Split the exponential of an edge's score into factors from its two nodes, shapes `(n_cells, n_nodes, heads, 2)`.

    `exp(leaky(a + b))` is the larger of `exp(a) exp(b)` and `exp(a / 5) exp(b / 5)`: no exponential for each edge is needed. Both
    are relative to the largest source score, so that no product exceeds 1.
    """
    largest = source.amax(1, keepdim=True)
    below, bound = source - largest, target + largest
    steps = (1.0 - SLOPE) * bound
    by_source = torch.stack([below, SLOPE * below], dim=-1).clamp_(min=-80.0).exp_()
    by_target = torch.stack([steps.clamp(max=0.0), (-steps).clamp(max=0.0)], dim=-1).clamp_(min=-80.0).exp_()
    return by_source, by_target


@torch.library.custom_op("unlasting::attend", mutates_args=())
def attend(features: Tensor, source: Tensor, target: Tensor, starts: Tensor, sources: Tensor) -> tuple[Tensor, Tensor]:
    """Average neighbours by attention, shape `(n_cells, n_nodes, heads, n_features)`, beside the inverse total weights.

    Features have the shape `(n_cells, n_nodes, n_features)`, scores of edges as source and target `(n_cells, n_nodes, heads)`. Edges
    are in CSR form by target.
    """
    summed = features.new_empty(*source.shape, features.shape[-1])
    inverse = source.new_empty(source.shape)
    _over_cells(_forward, starts, sources, features, *_factors(source, target), summed, inverse)
    return summed, inverse


@torch.library.custom_op("unlasting::attend_backward", mutates_args=())
def _attend_backward(
    features: Tensor,
    source: Tensor,
    target: Tensor,
    starts: Tensor,
    sources: Tensor,
    summed: Tensor,
    inverse: Tensor,
    gradient: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    found = features.new_zeros(features.shape), source.new_zeros(source.shape), target.new_empty(target.shape)
    weights = _factors(source, target)
    _over_cells(_backward, starts, sources, features, *weights, summed, inverse, gradient, *found)
    return found


@attend.register_fake
def _(features: Tensor, source: Tensor, target: Tensor, starts: Tensor, sources: Tensor) -> tuple[Tensor, Tensor]:
    return features.new_empty(*source.shape, features.shape[-1]), source.new_empty(source.shape)


@_attend_backward.register_fake
def _(features: Tensor, source: Tensor, target: Tensor, *others: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return features.new_empty(features.shape), source.new_empty(source.shape), target.new_empty(target.shape)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _differentiate(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *_attend_backward(*ctx.saved_tensors, gradient), None, None


attend.register_autograd(_differentiate, setup_context=_keep)
