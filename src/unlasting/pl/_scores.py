"""Normalised scores by predictor and condition."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from unlasting.baselines import BASELINES
from unlasting.pl._figure import (
    LINE,
    PALETTE,
    QUIET,
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
    from matplotlib.axes import Axes

NO_EFFECT = "no effect"
LIMITS = (-1.0, 2.5)
"""Farther points are drawn at the border."""
BAND = "#F2F2F2"
TITLES = {"e_distance": "E-distance", "emd": "EMD"}
COLORS = (PALETTE[1], PALETTE[0], PALETTE[2], PALETTE[3], PALETTE[4], PALETTE[5])
"""Colours of evaluated predictors; baselines are grey."""


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
    """Show scores over all conditions for each predictor, and in each condition.

    For a distance, 0 is the noise floor (a second sample of true cells) and 1 is no effect (control cells). For a metric
    with best value 1, such as a correlation, 1 is the ceiling: the value for a second sample of true cells. The upper
    panel has the score over all conditions (a ratio of means) with its 95 % bootstrap interval, best first, and a dot for
    each condition. The lower panel has the same dots by condition. Baselines are grey.

    Parameters
    ----------
    adata
        The screen after `tl.evaluate`.
    metric
        Name of the metric.
    gene_set
        `"all"`, `"de20"` or `"de40"`.
    predictors
        Predictors to show. All if `None`.
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
    chosen = {"metric": metric, "gene_set": gene_set, "predictor": predictors}
    for column, wanted in chosen.items():
        argument = "predictors" if column == "predictor" else column
        frame, summary = (pick(part, column, wanted, argument) for part in (frame, summary))
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
    rows = list(pd.unique(frame["name"]))
    summary = summary.sort_values("score", ascending=is_distance, kind="stable")
    counts = frame["predictor"].value_counts().reindex(summary["predictor"], fill_value=0)
    best = "best baseline" if predictors is None else "best of these baselines"
    styles = predictor_styles(list(summary["predictor"]), counts.index[counts == counts.max()], best)

    size = (7.0, 1.7 + 0.2 * len(summary) + 0.24 * len(rows))
    upper, lower = canvas.panels(
        2, 1, figsize=size, sharex=True, height_ratios=[len(summary) + 0.5, 1.2 * len(rows) + 0.5]
    )[:, 0]
    forest(upper, summary, {name: part["normalised"] for name, part in frame.groupby("predictor")}, styles, **kwargs)
    by_condition(lower, frame, rows, styles, kwargs)
    for panel in (upper, lower):
        reference_lines(panel)
    left_out = has_signal.drop(rows)
    silent, at_floor = int((~left_out).sum()), int(left_out.sum())
    notes = ["arrowheads: beyond the axis"] if not frame["normalised"].between(*LIMITS).all() else []
    if silent:
        notes.append(f"{silent} condition{'s' * (silent > 1)} without a signal left out")
    if at_floor:
        notes.append(f"{at_floor} at the noise floor, in the upper panel only")
    scale = "Normalised score (0: noise floor, 1: no effect)" if is_distance else "Share of the ceiling (1: true cells)"
    n = f"{len(rows)} condition{'s' * (len(rows) > 1)}"
    genes = "all genes" if gene_set == "all" else f"top {gene_set.removeprefix('de')} DE genes"
    title = TITLES.get(metric, metric.replace("_", " "))
    dress(upper, title=f"{title}, {genes}: score over {n}, and each condition (dots)")
    dress(lower, xlabel="\n".join([scale, "; ".join(notes)]).strip())
    legend_beside(lower)
    return np.array([upper, lower])


def predictor_styles(names: Sequence[str], complete: Collection[str], best: str) -> dict[str, dict[str, Any]]:
    """Colour evaluated predictors; baselines are grey, the first with all conditions (the best one) dark."""
    baselines = [name for name in names if name in BASELINES]
    evaluated = [name for name in names if name not in BASELINES]
    rivals = [name for name in baselines if name in complete and name != NO_EFFECT and not BASELINES[name].is_ceiling]
    colors = np.resize(COLORS, len(evaluated))
    styles: dict[str, dict[str, Any]] = {
        name: {"color": str(color), "marker": "D", "label": name, "zorder": 4}
        for name, color in zip(evaluated, colors, strict=True)
    }
    styles |= {name: {"color": LINE, "marker": "s", "label": f"{best}:\n{name}", "zorder": 3} for name in rivals[:1]}
    other = {"color": QUIET, "marker": "o", "label": "other baselines", "zorder": 2}
    return styles | {name: other for name in baselines if name not in styles}


def forest(
    axes: Axes,
    summary: pd.DataFrame,
    dots: Mapping[str, pd.Series],
    styles: Mapping[str, dict[str, Any]],
    **kwargs: Any,
) -> None:
    """Draw a row for each predictor: its score with an interval, and a dot for each condition."""
    for y, row in enumerate(summary.itertuples()):
        color, marker = styles[row.predictor]["color"], styles[row.predictor]["marker"]
        _points(axes, dots.get(row.predictor, pd.Series(dtype=float)), y, color, markersize=3, alpha=0.45)
        axes.plot(np.clip([row.low, row.high], *LIMITS), [y, y], color=color, linewidth=2.2, zorder=3)
        edge = {"markersize": 6, "markeredgecolor": "white", "markeredgewidth": 0.8, "zorder": 4}
        _points(axes, [row.score], y, color, **{"marker": marker, **edge, **kwargs})
    axes.set_yticks(range(len(summary)), summary["predictor"])
    for label, name in zip(axes.get_yticklabels(), summary["predictor"], strict=True):
        if styles[name]["color"] not in (QUIET, LINE):
            label.set_color(styles[name]["color"])
            label.set_fontweight("bold")
    axes.set_ylim(len(summary) - 0.4, -0.6)


def by_condition(
    axes: Axes, frame: pd.DataFrame, rows: Sequence[str], styles: Mapping[str, dict[str, Any]], kwargs: dict[str, Any]
) -> None:
    """Draw a row for each condition, with a marker for each predictor but no effect."""
    place = {name: y for y, name in enumerate(rows)}
    for y in range(1, len(rows), 2):
        axes.axhspan(y - 0.5, y + 0.5, color=BAND, linewidth=0, zorder=-1)
    labelled: set[str] = set()
    for name in [name for name in styles if name != NO_EFFECT]:
        part, style = frame[frame["predictor"] == name], dict(styles[name])
        if style["label"] in labelled:
            style["label"] = "_"
        labelled.add(style["label"])
        edge = {"markeredgecolor": "white", "markeredgewidth": 0.6} if style["color"] != QUIET else {"alpha": 0.6}
        size = 4 if style["color"] == QUIET else 5.5
        color, label = style.pop("color"), style.pop("label")
        _points(
            axes,
            part["normalised"],
            part["name"].map(place),
            color,
            **{"label": label, "markersize": size, **edge, **style, **kwargs},
        )
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.4, -0.6)


def reference_lines(axes: Axes, values: Sequence[float] = (0, 1)) -> None:
    """Draw the noise floor and no effect."""
    for value, linestyle in zip(values, ("-", "--"), strict=True):
        axes.axvline(value, color=LINE, linewidth=0.9, linestyle=linestyle, zorder=1)


def _points(axes: Axes, x: Any, y: Any, color: str, **style: Any) -> None:
    """Draw points, those beyond the limits as arrowheads at the border."""
    x = np.asarray(x, dtype=float)
    y = np.broadcast_to(np.asarray(y, dtype=float), x.shape)
    style = {"linestyle": "none", "color": color, "marker": "o", **style}
    inside = (x >= LIMITS[0]) & (x <= LIMITS[1])
    axes.plot(x[inside], y[inside], **style)
    for border, marker, beyond in ((LIMITS[0], "<", x < LIMITS[0]), (LIMITS[1], ">", x > LIMITS[1])):
        if beyond.any():
            axes.plot(np.full(beyond.sum(), border), y[beyond], **{**style, "marker": marker, "label": "_"})
