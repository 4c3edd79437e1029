"""Gains expected from the chosen experiments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from unlasting.pl._figure import LINE, PALETTE, Canvas, condition_names, dress, legend_beside, on_canvas, stored

if TYPE_CHECKING:
    from anndata import AnnData


@on_canvas
def design(canvas: Canvas, adata: AnnData, *, n: int = 25, key: str = "design", **kwargs: Any) -> Any:
    """Show the gain expected from each chosen experiment, and the variance that remains after it.

    Both are shares of the posterior variance before the batch.

    Parameters
    ----------
    adata
        The screen after `tl.design`.
    n
        Number of experiments, in the order of choice.
    %(stored)s
    **kwargs
        Passed on to `Axes.barh`.

    %(returns)s

    Raises
    ------
    KeyError
        If `tl.design` has not been run.
    """
    columns = ["condition", "gain", "remaining"]
    frame = stored(adata, key, writer="ul.tl.design(model, candidates, n)", columns=columns)
    names = condition_names(frame).head(n)
    frame = frame.head(n)
    axes = canvas.panels(figsize=(5.5, 1.0 + 0.2 * len(frame)))[0, 0]
    y = np.arange(len(frame))
    axes.barh(y, frame["gain"], **{"color": PALETTE[0], "label": "gain of the experiment", **kwargs})
    style = {"color": LINE, "marker": "o", "markersize": 3, "linewidth": 1.0, "label": "remaining after it"}
    axes.plot(frame["remaining"], y, **style)
    axes.set_yticks(y, names)
    axes.set_ylim(len(frame) - 0.4, -0.6)
    axes.set_xlim(left=0.0)
    dress(axes, xlabel="Share of the posterior variance")
    legend_beside(axes)
    return axes
