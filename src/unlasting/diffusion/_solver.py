"""Solvers of `d state / d clock = prediction(state, t)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from torch import Tensor

Prediction = Callable[[Tensor, Tensor], Tensor]
"""`prediction(state, t)`, with a scalar time t."""


class _Past(NamedTuple):
    """The last step's slope and clock difference."""

    slope: Tensor
    step: Tensor


def _euler(
    prediction: Prediction, state: Tensor, t: Tensor, t_next: Tensor, step: Tensor, past: _Past | None
) -> tuple[Tensor, _Past]:
    """First order; in noise coordinates this is DDIM with eta = 0."""
    here = prediction(state, t)
    return state + step * here, _Past(here, step)


def _adams(
    prediction: Prediction, state: Tensor, t: Tensor, t_next: Tensor, step: Tensor, past: _Past | None
) -> tuple[Tensor, _Past]:
    """Third order, two evaluations a step: Adams-Bashforth predicts, Adams-Moulton corrects; the first is Heun's."""
    here = prediction(state, t)
    bend = 0.0 if past is None else (here - past.slope) * (step / past.step)  # of the slope, over a step like this one
    there = prediction(state + step * (here + 0.5 * bend), t_next)
    moved = state + 0.5 * step * (here + there)
    if past is not None:
        moved = moved - step**2 / (6.0 * (step + past.step)) * (there - here - bend)
    return moved, _Past(here, step)


SOLVERS: Final = {"euler": _euler, "adams": _adams}
"""Rules for one step, by name."""


def integrate(
    prediction: Prediction, state: Tensor, times: Tensor, clock: Callable[[Tensor], Tensor], method: str = "adams"
) -> Tensor:
    """Follow the ODE through `times`, in either direction.

    Parameters
    ----------
    prediction
        The derivative with respect to the clock, as `prediction(state, t)`.
    state
        Initial state, shape `(n_cells, n_genes)`.
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
    rule, past = SOLVERS[method], None
    for t, t_next in zip(times[:-1], times[1:], strict=True):
        state, past = rule(prediction, state, t, t_next, clock(t_next) - clock(t), past)
    return state
