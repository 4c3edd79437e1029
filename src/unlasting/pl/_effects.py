"""Observed and predicted mean changes, gene by gene."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from unlasting.pl._figure import (
    LINE,
    NORMAL,
    PALETTE,
    SMALL,
    Canvas,
    condition_names,
    dress,
    expression_unit,
    label_columns,
    label_points,
    legend_beside,
    on_canvas,
    pick,
    stored,
)

if TYPE_CHECKING:
    from anndata import AnnData

WRITER = "ul.tl.evaluate(adata)"
NEEDED = ["condition", "gene", "observed", "predicted", "is_de20"]


@on_canvas
def calibration(
    canvas: Canvas,
    adata: AnnData,
    conditions: str | Sequence[str] | None = None,
    *,
    n_conditions: int = 6,
    n_labels: int = 5,
    key: str = "effects",
    **kwargs: Any,
) -> Any:
    """Show predicted against observed mean changes, one panel per condition.

    A perfect prediction lies on the diagonal, no effect on the horizontal line. Titles contain the correlation r, and the
    slope of observed on predicted changes: above 1, predictions are too small. After `tl.calibration`, with
    `key="calibration"`, the top genes have 95 %% intervals, and titles also contain the expected normalised error and the
    probability of any change.

    Parameters
    ----------
    adata
        The screen after `tl.evaluate` or `tl.calibration`.
    conditions
        Perturbations to show. The `n_conditions` with the largest observed change in a gene if `None`.
    n_conditions
        Number of conditions.
    n_labels
        Number of named genes in each panel, those with the largest change, where there is room.
    %(stored)s
    **kwargs
        Passed on to `Axes.scatter`.

    %(returns)s

    Raises
    ------
    KeyError
        If `tl.evaluate` has not been run.
    ValueError
        If a condition is not stored.
    """
    frame = pick(stored(adata, key, writer=WRITER, columns=NEEDED), "condition", conditions, "conditions")
    frame = frame.assign(name=condition_names(frame))
    names = _strongest(frame, n_conditions) if conditions is None else list(pd.unique(frame["name"]))
    axes = canvas.grid(len(names), size=(2.5, 2.5), margin=(1.6, 0.6))
    for panel, name in zip(axes.flat, names, strict=False):
        part = frame[frame["name"] == name]
        top = part["is_de20"].astype(bool)
        for chosen, color, label in ((~top, "#B3B3B3", "other genes"), (top, PALETTE[0], "top 20 DE genes")):
            style = {"s": 12, "color": color, "linewidths": 0, "label": label, **kwargs}
            panel.scatter(part.loc[chosen, "observed"], part.loc[chosen, "predicted"], **style)
        title = name
        if "slope" in part:
            title += f"\nr {part['pearson'].iloc[0]:.2f}, slope {part['slope'].iloc[0]:.2f}"
        if "low" in part:
            panel.vlines(
                part.loc[top, "observed"], part.loc[top, "low"], part.loc[top, "high"], color=PALETTE[0], linewidth=0.6
            )
            error, active = part[["expected_error", "p_active"]].iloc[0]
            title += f"\nexpected error {error:.2f}, P(active) {active:.2f}"
        panel.axline((0, 0), slope=1, color=LINE, linewidth=0.8, zorder=0)
        panel.axhline(0, color=LINE, linewidth=0.8, linestyle="--", zorder=0)
        panel.locator_params(nbins=4)
        panel.margins(0.12)
        panel.set_aspect("equal", adjustable="datalim")  # else effects that are too small look right
        dress(panel, title=title)
    unit = f"\n({expression_unit(adata)})"
    for panel in axes[:, 0]:
        panel.set_ylabel("Predicted change", fontsize=NORMAL)
    label_columns(axes, len(names), f"Observed change{unit}")
    legend_beside(axes[0, -1], handles=axes[0, 0].get_legend_handles_labels()[0], markerscale=1.6)
    for panel, name in zip(axes.flat, names, strict=False):
        part = frame[frame["name"] == name].sort_values("observed", key=abs, ascending=False, kind="stable")
        label_points(panel, part[["observed", "predicted"]].to_numpy(), list(part["gene"].astype(str)[:n_labels]))
    return axes


@on_canvas
def heatmap(
    canvas: Canvas,
    adata: AnnData,
    conditions: str | Sequence[str] | None = None,
    genes: str | Sequence[str] | None = None,
    *,
    n_conditions: int = 15,
    n_genes: int = 30,
    key: str = "effects",
    **kwargs: Any,
) -> Any:
    """Show observed and predicted mean changes and their difference side by side, on one colour scale.

    Parameters
    ----------
    adata
        The screen after `tl.evaluate`.
    conditions
        Perturbations to show. The `n_conditions` with the largest observed change of a gene if `None`.
    genes
        Genes to show. The `n_genes` with the largest observed change in any condition if `None`.
    n_conditions, n_genes
        Numbers of conditions and genes.
    %(stored)s
    **kwargs
        Passed on to `Axes.pcolormesh`.

    %(returns)s

    Raises
    ------
    KeyError
        If `tl.evaluate` has not been run.
    ValueError
        If a condition or gene is not stored.
    """
    frame = pick(stored(adata, key, writer=WRITER, columns=NEEDED), "condition", conditions, "conditions")
    frame = pick(frame, "gene", genes, "genes")
    frame = frame.assign(name=condition_names(frame))
    names = _strongest(frame, n_conditions) if conditions is None else list(pd.unique(frame["name"]))
    frame = frame[frame["name"].isin(names)]
    if genes is None:
        size = frame["observed"].abs().groupby(frame["gene"].astype(str)).max()
        shown = list(size.sort_values(ascending=False, kind="stable").index[:n_genes])
    else:
        shown = list(pd.unique(frame["gene"].astype(str)))
    frame = frame.assign(gene=frame["gene"].astype(str))
    frame = frame[frame["gene"].isin(shown)]
    tables = [frame.pivot(index="gene", columns="name", values=v).loc[shown, names] for v in ("observed", "predicted")]
    tables.append(tables[1] - tables[0])
    limit = max(float(np.nanquantile(np.abs(table.to_numpy()), 0.99)) for table in tables) or 1.0

    size = (2.2 + 0.46 * max(len(names), 6), 1.6 + 0.16 * len(shown))
    axes = canvas.panels(1, 3, figsize=size, sharey=True)
    for panel, table, title in zip(axes[0], tables, ("observed", "predicted", "predicted - observed"), strict=True):
        mesh = panel.pcolormesh(
            table.to_numpy(),
            **{"cmap": "RdBu_r", "vmin": -limit, "vmax": limit, "edgecolors": "white", "linewidth": 0.3, **kwargs},
        )
        panel.set_xticks(np.arange(len(names)) + 0.5, names, rotation=90)
        panel.set_yticks(np.arange(len(shown)) + 0.5, shown)
        dress(panel, title=title)
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
    for panel in axes[0, 1:]:
        panel.tick_params(labelleft=False)
    axes[0, 0].invert_yaxis()
    bar = canvas.figure.colorbar(mesh, ax=list(axes[0]), shrink=0.6, extend="both", aspect=25)
    bar.set_label(f"Mean change ({expression_unit(adata)})", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    return axes[0]


def _strongest(frame: pd.DataFrame, n: int) -> list[str]:
    size = frame["observed"].abs().groupby(frame["name"]).max()
    return list(size.sort_values(ascending=False, kind="stable").index[:n])
