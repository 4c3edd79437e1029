"""The experiments to do next, by the posterior of the effects model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from unlasting.screen import Perturbation, ScreenKeys, nearest_name, parse_labels, require_integers
from unlasting.tl._rank import along, criterion_of
from unlasting.tl._screen import screen_of, store

if TYPE_CHECKING:
    from anndata import AnnData

    from unlasting.model import UnlastingModel

MOST_CANDIDATES = 4_000
"""Most candidates: their covariance has the square of this number of entries."""
_LEVEL = np.array([0.95])
"""Level of the upper confidence bound."""


def design(
    model: UnlastingModel,
    candidates: Iterable[str],
    n: int,
    *,
    goal: Literal["learn", "hits"] = "learn",
    toward: AnnData | Sequence[str] | pd.Series | None = None,
    cost: Mapping[str, float] | pd.Series | None = None,
    cell_type: str | Sequence[str] | None = None,
    dose: Any = None,
    key_added: str = "design",
) -> pd.DataFrame:
    r"""Choose the next batch of experiments.

    Candidates are chosen one by one. Each choice takes into account the experiments chosen before, although their
    results are not known yet: the posterior variance does not depend on results.

    Parameters
    ----------
    model
        A model with its screen.
    candidates
        Perturbations that could be measured.
    n
        Number of experiments in the batch.
    goal
        `"learn"`: the candidate whose measurement decreases the posterior variance most, summed over all candidates and
        genes. `"hits"`: the candidate with the largest upper confidence bound for `toward`, where the standard deviation
        decreases with each chosen experiment :cite:p:`desautels2014`.
    toward
        The wanted change for `"hits"`: cells, genes or weights, as in :func:`rank`.
    cost
        Cost of each candidate, 1 where it is missing. Candidates are compared by their gain for each unit of cost.
    cell_type
        Cell types to measure in, all by default. A perturbation in one cell type is one experiment.
    dose
        The drugs' dose in uM, as in `model.generate`.
    key_added
        Key under `uns["unlasting"]`.

    Returns
    -------
    A frame in the order of choice: `condition`, `cell_type`, `dose`, `gain` (decrease in posterior variance over all
    candidates, as a share of the variance before the batch), `remaining` (the variance after this and all earlier
    choices, as a share of that before), `cost`, `seen` (whether the condition has training cells), and `goal`. The goal
    `"hits"` adds `score`, the expected one before the batch, and `upper`, the bound at the choice.

    Updates the following field in `model.adata`:

    - `uns["unlasting"][key_added]`: the frame.

    Raises
    ------
    ValueError
        If there are fewer candidates than `n` or too many, the control is among them, a goal or cost is invalid, `toward` is
        missing for `"hits"`, or the model has no screen.
    """
    adata = screen_of(model)
    require_integers(1, n=n)
    if goal not in ("learn", "hits"):
        raise ValueError(f"`goal` is {goal!r}. Choose 'learn' or 'hits'.")
    if (goal == "hits") == (toward is None):
        raise ValueError("Give `toward` with `goal='hits'`, and with no other goal.")
    labels = [candidates] if isinstance(candidates, str) else list(dict.fromkeys(map(str, candidates)))
    perturbations = parse_labels(labels, **model.keys.grammar, argument="candidates")
    if any(one.is_control for one in perturbations.values()):
        raise ValueError("`candidates` contains the control, which is no experiment to choose. Leave it out.")
    asked = {one.label(**model.keys.grammar): one for one in perturbations.values()}
    price = _prices(cost, perturbations, model.keys)
    criterion_of(toward)
    parts, scores, margins = [], [], []
    for found, controls, changes in model.iterate_changes(labels, cell_type=cell_type, dose=dose):
        part = pd.DataFrame([condition.columns() for condition in found])
        parts.append(
            part.assign(cost=[price.get(asked[one.perturbation], 1.0) for one in found], seen=changes.question == 0)
        )
        if toward is not None:
            score, (upper,), _ = along(changes, toward, adata.var_names, controls, _LEVEL)
            scores.append(score)
            margins.append(upper - score)
    frame = pd.concat(parts, ignore_index=True)
    if n > len(frame):
        raise ValueError(f"`n` is {n}, and there are {len(frame)} candidates. Give `n` from 1 to their number.")
    if len(frame) > MOST_CANDIDATES:
        raise ValueError(
            f"There are {len(frame)} candidates; at most {MOST_CANDIDATES} are compared. Pass the first conditions in `ul.tl.rank`, or "
            "fewer cell types."
        )
    joint = model.candidate_covariance(labels, cell_type=cell_type, dose=dose)
    prior, rows = joint.variance, []
    chosen: list[int] = []
    total = max(float(prior.sum()), 1e-30)
    cost_of = frame["cost"].to_numpy()
    for _ in range(n):
        gains, bound = joint.gains(), np.zeros(len(frame))
        value = gains / cost_of
        if goal == "hits":
            left = np.sqrt(np.clip(joint.variance / np.maximum(prior, 1e-30), 0.0, 1.0))
            bound = np.concatenate(scores) + np.concatenate(margins) * left
            value = bound / cost_of
        value[chosen] = -np.inf
        best = int(value.argmax())
        chosen.append(best)
        joint.measure(best)
        rows.append(
            {"gain": gains[best] / total, "remaining": float(joint.variance.sum()) / total, "upper": bound[best]}
        )
    result = pd.concat([frame.iloc[chosen].reset_index(drop=True), pd.DataFrame(rows)], axis=1).assign(goal=goal)
    if goal == "hits":
        result = result.assign(score=np.concatenate(scores)[chosen])
    else:
        result = result.drop(columns="upper")
    store(adata, **{key_added: result})
    return result.copy()


def _prices(
    cost: Mapping[str, float] | pd.Series | None, candidates: Mapping[object, Perturbation], keys: ScreenKeys
) -> dict[Perturbation, float]:
    """Read the costs of candidates."""
    if cost is not None and not isinstance(cost, Mapping | pd.Series):
        raise TypeError(f"`cost` is {cost!r}. Give a dict from candidates to their costs, or leave it out.")
    price = {} if cost is None else dict(cost)
    named = parse_labels(price, **keys.grammar, argument="cost")
    known = set(candidates.values())
    for name, value in price.items():
        if named[name] not in known:
            raise ValueError(
                f"`cost` names {name!r}, which is no candidate.{nearest_name(name, map(str, candidates))} Remove or rename it."
            )
        if not isinstance(value, Real) or not 0.0 < float(value) < np.inf:
            raise ValueError(f"`cost` of {name!r} is {value!r}. Give a positive, finite number.")
    return {named[name]: float(value) for name, value in price.items()}
