"""Figures of the page of results, for light and for dark pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from rows_tables import DISTANCES, LEVEL, OURS, score
from stamps import ROOT

from unlasting.tl._uncertainty import score_interval

FOLDER = ROOT / "docs" / "_static" / "results"
INK = {"light": "#303030", "dark": "#e0e0e0"}
OWN, QUIET = "#d55e00", "#8c8c8c"
LIMITS = (-0.5, 2.0)
TITLES = {"e_distance": "E-distance", "emd": "EMD"}


@contextmanager
def style() -> Iterator[None]:
    """Draw the same bytes whenever a figure is drawn."""
    with plt.rc_context({"svg.hashsalt": "unlasting", "font.size": 9, "savefig.dpi": 120}):
        yield


def points(axes: Axes, x: np.ndarray, y: float, color: str, **style: object) -> None:
    """Draw points, those beyond the axis as arrowheads at its border."""
    inside = (x >= LIMITS[0]) & (x <= LIMITS[1])
    style = {"linestyle": "none", "color": color, "marker": "o", "markeredgewidth": 0, **style}
    axes.plot(x[inside], np.full(inside.sum(), y), **style)
    for border, marker, beyond in ((LIMITS[0], "<", x < LIMITS[0]), (LIMITS[1], ">", x > LIMITS[1])):
        if beyond.any():
            axes.plot([border], [y], **{**style, "marker": marker, "clip_on": False})


def row_of(axes: Axes, y: float, terms: np.ndarray, color: str, marker: str, *, dots: bool = True) -> None:
    """Draw a score with its interval over conditions, and a dot for each condition."""
    value, low, high = score_interval(score, terms, 0, level=LEVEL)
    if dots:
        each = score(terms)
        points(axes, each[np.isfinite(each)], y, color, markersize=3.5, alpha=0.35, rasterized=len(each) > 40)
    if np.isfinite(low):
        axes.plot(np.clip([low, high], *LIMITS), [y, y], color=color, linewidth=2.0, solid_capstyle="butt")
    points(axes, np.array([value]), y, color, marker=marker, markersize=6.5)


def dress(axes: Axes, ink: str, n_rows: int) -> None:
    """Draw noise floor and no effect, and set limits and colours."""
    axes.axvline(0, color=ink, linewidth=0.9)
    axes.axvline(1, color=ink, linewidth=0.9, linestyle="--")
    axes.set_xlim(LIMITS[0] - 0.03, LIMITS[1] + 0.03)
    axes.set_ylim(n_rows - 0.4, -0.6)
    axes.set_xticks([0, 1, 2], ["0\nnoise floor", "1\nno effect", "2"])
    axes.tick_params(colors=ink, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(ink)


def legend(figure: Figure, ink: str, entries: list[tuple[str, str, str]], *, ncols: int) -> None:
    """Put the legend below the panels."""
    handles = [
        Line2D([], [], color=color, marker=marker, linestyle="none", markeredgewidth=0, label=label)
        for color, marker, label in entries
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=ncols, frameon=False, labelcolor=ink)


def draw_question(part: pd.DataFrame, ink: str) -> Figure:
    """Draw all predictors for one question, best first, by E-distance and by EMD."""
    n_rows = max(len(terms) for terms in part["terms"]) - 1
    # one above the other: readable on a phone
    figure, axes = plt.subplots(2, 1, figsize=(5.4, 1.5 + 0.4 * n_rows), layout="constrained", sharex=True)
    for panel, line in zip(axes, part.to_dict("records"), strict=True):
        values = {name: float(score(terms.mean(axis=0)[None])[0]) for name, terms in line["terms"].items()}
        order = sorted((name for name in values if name != "no effect"), key=values.__getitem__)
        for y, name in enumerate(order):
            own, best = name == OURS, name == line["best"]
            row_of(
                panel,
                y,
                line["terms"][name],
                OWN if own else ink if best else QUIET,
                "D" if own else "s" if best else "o",
            )
        panel.set_yticks(range(len(order)), order)
        dress(panel, ink, len(order))
        for label in panel.get_yticklabels():
            if label.get_text() == OURS:
                label.set(color=OWN, fontweight="bold")
        panel.set_title(f"{TITLES[line['metric']]}, {line['n']} conditions", color=ink, fontsize=9)
    return figure


def draw_overview(lines: pd.DataFrame, ink: str, *, is_narrow: bool = False) -> Figure:
    """Draw our score beside the best baseline for every question; one metric below the other for phones."""
    rows = list(lines["row"].unique())
    shape, width = ((2, 1), 5.0) if is_narrow else ((1, 2), 8.6)
    size = (width, 1.2 + 0.33 * len(rows) * shape[0])
    figure, axes = plt.subplots(*shape, figsize=size, layout="constrained", sharey=True, sharex=True)
    titles = [f"{line.row}: {line.title} ({line.n})" for line in lines.drop_duplicates("row").itertuples()]
    for panel, metric in zip(axes, DISTANCES, strict=True):
        for y, line in enumerate(lines[lines["metric"] == metric].to_dict("records")):
            row_of(panel, y + 0.17, line["terms"][line["best"]], ink, "s", dots=False)
            row_of(panel, y - 0.12, line["terms"][OURS], OWN, "D")
        panel.set_yticks(range(len(rows)), [title.replace(", ", ",\n") if is_narrow else title for title in titles])
        dress(panel, ink, len(rows))
        panel.set_title(TITLES[metric], color=ink, fontsize=9)
    entries = [(OWN, "D", "unlasting, conditions as dots"), (ink, "s", "best baseline, chosen on these conditions")]
    legend(figure, ink, entries, ncols=1 if is_narrow else 2)
    return figure
