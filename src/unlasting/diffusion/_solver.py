"""Solvers of `d state / d clock = prediction(state, t)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from torch import Tensor

Prediction = Callable[[Tensor, Tensor], Tensor]
"""`prediction(state, t)`, with a scalar time t."""


def _euler(prediction: Prediction, state: Tensor, t: Tensor, t_next: Tensor, step: Tensor) -> Tensor:
    """First order; in noise coordinates this is DDIM with eta = 0."""
    return state + step * prediction(state, t)


def _heun(prediction: Prediction, state: Tensor, t: Tensor, t_next: Tensor, step: Tensor) -> Tensor:
    """Second order, two evaluations a step."""
    here = prediction(state, t)
    return state + 0.5 * step * (here + prediction(state + step * here, t_next))


SOLVERS: Final = {"euler": _euler, "heun": _heun}
"""Rules for one step, by name."""


def integrate(
    prediction: Prediction, state: Tensor, times: Tensor, clock: Callable[[Tensor], Tensor], method: str = "heun"
) -> Tensor:
    """Follow the ODE through `times`, in either direction.

    Parameters
    ----------
    prediction
        The derivative with respect to the clock, as a function of the state and the time.
    state
        Where to start, shape `(n_cells, n_genes)`.
    times
        Times in [0, 1], shape `(n_steps + 1,)`: rising to encode, falling to decode.
    clock
        The clock at a time, a scalar or one for each gene.
    method
        A name in :data:`SOLVERS`.

    Returns
    -------
    The state at the last time, shape `(n_cells, n_genes)`.
    """
    rule = SOLVERS[method]
    for t, t_next in zip(times[:-1], times[1:], strict=True):
        state = rule(prediction, state, t, t_next, clock(t_next) - clock(t))
    return state
