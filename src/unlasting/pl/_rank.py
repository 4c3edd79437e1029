"""Perturbations ranked by an in-silico screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from unlasting.pl._figure import (
    LINE,
    PALETTE,
    Canvas,
    condition_names,
    dress,
    expression_unit,
    legend_beside,
    on_canvas,
    stored,
)

if TYPE_CHECKING:
    from anndata import AnnData


@on_canvas
def rank(canvas: Canvas, adata: AnnData, *, n: int = 25, key: str = "rank", **kwargs: Any) -> Any:
    """Show the top perturbations in an in-silico screen, with 95 % intervals.

    Full points were seen in training, open ones were not.

    Parameters
    ----------
    adata
        The screen after `tl.rank`.
    n
        Number of top conditions.
    %(stored)s
    **kwargs
        Passed on to `Axes.scatter`.

    %(returns)s

    Raises
    ------
    KeyError
        If `tl.rank` has not been run.
    """
    columns = ["condition", "score", "low", "high", "seen", "criterion"]
    frame = stored(adata, key, writer="ul.tl.rank(adata)", columns=columns)
    names = condition_names(frame).head(n)
    frame = frame.head(n)
    label = {
        "effect": "E-distance to control cells",
        "state": "Share of the path from control to the wanted state",
        "gene set": f"Mean change of the gene set above other genes\n({expression_unit(adata)})",
        "signature": f"Weighted mean change\n({expression_unit(adata)})",
    }[str(frame["criterion"].iloc[0])]

    axes = canvas.panels(figsize=(6.5, 1.0 + 0.2 * len(frame)))[0, 0]
    y = np.arange(len(frame))
    axes.hlines(y, frame["low"], frame["high"], color=PALETTE[0], linewidth=1.2)
    for seen, face, name in ((True, PALETTE[0], "seen in training"), (False, "white", "not seen")):
        part = (frame["seen"].astype(bool) == seen).to_numpy()
        if part.any():
            style = {"s": 26, "facecolors": face, "edgecolors": PALETTE[0], "zorder": 3, "label": name, **kwargs}
            axes.scatter(frame["score"][part], y[part], **style)
    axes.axvline(0, color=LINE, linewidth=0.8, linestyle="--", zorder=0)
    axes.set_yticks(y, names)
    axes.set_ylim(len(frame) - 0.4, -0.6)
    dress(axes, xlabel=label)
    legend_beside(axes)
    return axes
