"""Normalised scores by predictor and condition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from unlasting.pl._figure import (
    LINE,
    MARKERS,
    PALETTE,
    Canvas,
    condition_names,
    dress,
    legend_beside,
    on_canvas,
    pick,
    stored,
)

if TYPE_CHECKING:
    from anndata import AnnData

ALL = "all conditions"
# farther points are drawn at the border
LIMIT = 2.5


@on_canvas
def scores(
    canvas: Canvas,
    adata: AnnData,
    metric: str = "e_distance",
    gene_set: str = "all",
    *,
    predictors: Sequence[str] | None = None,
    key: str = "scores",
    **kwargs: Any,
) -> Any:
    """Show each predictor's normalised score in every scored condition.

    For a distance, 0 is the noise floor (a second sample of true cells) and 1 is no effect (control cells). For a metric
    with best value 1, such as a correlation, 1 is the ceiling: the value for a second sample of true cells. The first row
    is the score over all conditions, a ratio of means, with its bootstrap interval.

    Parameters
    ----------
    adata
        The screen after `tl.evaluate`.
    metric
        Name of the metric.
    gene_set
        `"all"`, `"de20"` or `"de40"`.
    predictors
        Predictors to show, in this order. All if `None`.
    %(stored)s
    **kwargs
        Passed on to `Axes.plot` of the points.

    %(returns)s

    Raises
    ------
    KeyError
        If `tl.evaluate` has not been run.
    ValueError
        If the metric, gene set or a predictor is not stored, or no condition is scored.
    """
    writer = "ul.tl.evaluate(adata)"
    columns = ["metric", "gene_set", "predictor"]
    frame = stored(
        adata, key, writer=writer, columns=["condition", "normalised", "floor", "no_effect", "signal", *columns]
    )
    summary = stored(adata, "score_summary", writer=writer, columns=["score", "low", "high", "best", *columns])
    frame, summary = (
        pick(
            pick(pick(f, "metric", metric, "metric"), "gene_set", gene_set, "gene_set"),
            "predictor",
            predictors,
            "predictors",
        )
        for f in (frame, summary)
    )
    frame = frame.assign(name=condition_names(frame))
    is_distance = float(summary["best"].iloc[0]) == 0
    has_signal = frame.groupby("name")["signal"].first()
    frame = frame[frame["normalised"].notna()]
    frame = frame.sort_values("no_effect" if is_distance else "floor", ascending=False, kind="stable")
    if frame.empty:
        raise ValueError(
            f"No condition has a signal in {metric!r} over {gene_set!r}. Choose another metric, or name `conditions` in "
            "`ul.tl.evaluate`."
        )
    left_out = has_signal.drop(frame["name"].unique())
    silent, at_floor = int((~left_out).sum()), int(left_out.sum())
    rows = [ALL, *pd.unique(frame["name"])]
    names = list(pd.unique(summary["predictor"]))

    axes = canvas.panels(figsize=(7.0, 1.2 + 0.28 * len(rows)))[0, 0]
    for line, linestyle in ((0, "-"), (1, "--")):
        axes.axvline(line, color=LINE, linewidth=0.8, linestyle=linestyle, zorder=0)
    axes.axhspan(-0.5, 0.5, color="#F0F0F0", zorder=-1)
    offsets = dict(zip(names, np.linspace(-0.28, 0.28, len(names)) if len(names) > 1 else [0.0], strict=True))
    for i, name in enumerate(names):
        style = {
            "color": PALETTE[i % len(PALETTE)],
            "marker": MARKERS[(i + i // len(PALETTE)) % len(MARKERS)],
            "markersize": 5,
            "linestyle": "none",
            **kwargs,
        }
        whole = summary[summary["predictor"] == name].iloc[0]
        part = frame[frame["predictor"] == name]
        x = np.array([whole["score"], *part["normalised"]], dtype=float)
        y = np.array([0, *part["name"].map({row: j for j, row in enumerate(rows)})]) + offsets[name]
        axes.plot(np.where(x <= LIMIT, x, np.nan), y, label=name, **style)
        axes.plot(np.full((x > LIMIT).sum(), LIMIT), y[x > LIMIT], **{**style, "marker": ">"})
        axes.plot([whole["low"], whole["high"]], [offsets[name]] * 2, color=style["color"], linewidth=1.2)
    far = max(frame["normalised"].max(), summary["score"].max(), summary["high"].max()) > LIMIT
    axes.set_xlim(right=LIMIT + 0.05 if far else None)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), rows)
    notes = ["▸ beyond the axis"] if far else []
    if silent:
        notes.append(f"{silent} condition{'s' * (silent > 1)} without a signal left out")
    if at_floor:
        notes.append(f"{at_floor} at the noise floor, in the first row only")
    scale = "Normalised score (0: noise floor, 1: no effect)" if is_distance else "Share of the ceiling (1: true cells)"
    label = "\n".join([scale, "; ".join(notes)]).strip()
    dress(axes, title=f"{metric}, {gene_set} genes", xlabel=label)
    legend_beside(axes, title="predictor")
    return axes
