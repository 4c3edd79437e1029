"""Expression of single genes against the dose."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.lines import Line2D

from unlasting.pl._figure import (
    GROUP_COLORS,
    LINE,
    NORMAL,
    Canvas,
    dress,
    expression_unit,
    label_columns,
    legend_beside,
    on_canvas,
    one_cell_type,
    pick,
    stored,
)

if TYPE_CHECKING:
    from anndata import AnnData


@on_canvas
def dose_response(
    canvas: Canvas,
    adata: AnnData,
    drug: str,
    genes: str | Sequence[str] | None = None,
    *,
    cell_type: str | None = None,
    n_genes: int = 6,
    key: str = "dose_response",
    **kwargs: Any,
) -> Any:
    """Show mean expression against a drug's dose, in observed and generated cells.

    Bands are 95 % intervals for the mean. Open points are doses without training cells. Where `tl.dose_response` was given a
    model, a grey band is the 95 % interval of its posterior, and titles contain the largest expected error over doses.

    Parameters
    ----------
    adata
        The screen after `tl.dose_response`.
    drug
        The drug to show.
    genes
        Genes to show, in this order. The first `n_genes` stored ones, with the largest change, if `None`.
    cell_type
        The cell type, if the screen has several.
    n_genes
        Number of genes.
    %(stored)s
    **kwargs
        Passed on to `Axes.plot`.

    %(returns)s

    Raises
    ------
    KeyError
        If `tl.dose_response` has not been run.
    ValueError
        If the drug, a gene or the cell type is not stored.
    """
    columns = ["drug", "cell_type", "gene", "dose", "group", "mean", "low", "high"]
    frame = stored(adata, key, writer="ul.tl.dose_response(adata)", columns=columns)
    frame = one_cell_type(pick(frame, "drug", drug, "drug"), cell_type)
    frame = pick(frame, "gene", genes, "genes")
    names = list(pd.unique(frame["gene"].astype(str)))[: n_genes if genes is None else None]
    axes = canvas.grid(len(names), size=(2.5, 2.2), margin=(1.4, 0.5))
    any_untrained = False
    for panel, name in zip(axes.flat, names, strict=False):
        chosen = frame["gene"].astype(str) == name
        title = name
        band = frame[chosen & (frame["group"] == "posterior")].sort_values("dose")
        if len(band):
            label = "95 % interval of the prediction"
            panel.fill_between(band["dose"], band["low"], band["high"], color=LINE, alpha=0.2, linewidth=0, label=label)
            title = f"{name}\nexpected error {band['expected_error'].max():.2f}"
        for group, color in GROUP_COLORS.items():
            curve = frame[chosen & (frame["group"] == group)].sort_values("dose")
            if curve.empty:
                continue
            if group == "control":
                panel.axhspan(curve["low"].iloc[0], curve["high"].iloc[0], color=color, alpha=0.2, linewidth=0)
                panel.axhline(curve["mean"].iloc[0], color=color, linestyle="--", label=group)
                continue
            panel.fill_between(curve["dose"], curve["low"], curve["high"], color=color, alpha=0.2, linewidth=0)
            style: dict[str, Any] = {"color": color, "marker": "o", "markersize": 4.5, "linewidth": 1.3, **kwargs}
            panel.plot(curve["dose"], curve["mean"], **{"label": group, **style})
            if len(curve) == 1:  # a band has no width
                panel.vlines(curve["dose"], curve["low"], curve["high"], color=color, alpha=0.4, linewidth=2)
            untrained = curve[~curve["trained"].astype(bool)] if "trained" in curve else curve[:0]
            panel.plot(
                untrained["dose"], untrained["mean"], **{**style, "linestyle": "none", "markerfacecolor": "white"}
            )
            any_untrained |= len(untrained) > 0
        panel.set_xscale("log")
        panel.locator_params(axis="y", nbins=4)
        dress(panel, title=title)
    for panel in axes[:, 0]:
        panel.set_ylabel("Mean expression\n" + fill(f"({expression_unit(adata)})", 26), fontsize=NORMAL)
    label_columns(axes, len(names), f"Dose of {drug} (µM)")
    handles, _ = axes[0, 0].get_legend_handles_labels()
    if any_untrained:
        handles.append(
            Line2D(
                [],
                [],
                color=LINE,
                marker="o",
                markersize=4.5,
                markerfacecolor="white",
                linestyle="none",
                label="dose not trained",
            )
        )
    legend_beside(axes[0, -1], handles=handles)
    return axes
