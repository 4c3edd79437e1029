"""Perturbations ranked by an in-silico screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize

from unlasting.pl._figure import (
    LINE,
    NORMAL,
    PALETTE,
    SMALL,
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

TRUST = LinearSegmentedColormap.from_list("trust", [PALETTE[0], "#D0D0D0"])
"""Colours from a trusted prediction to none"""


@on_canvas
def rank(canvas: Canvas, adata: AnnData, *, n: int = 25, key: str = "rank", **kwargs: Any) -> Any:
    """Show the top perturbations in an in-silico screen, with 95 % intervals.

    Full points were seen in training, open ones were not. After a ranking by a model, the colour is the expected
    normalised error: 0 (blue) is perfect, and 1 (grey) is no better than the control.

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
    colours = np.array([PALETTE[0]] * len(frame), dtype=object)
    if "expected_error" in frame:
        shades = ScalarMappable(Normalize(0.0, 1.0), TRUST)
        colours = shades.to_rgba(np.clip(frame["expected_error"].to_numpy(dtype=float), 0.0, 1.0))
        bar = axes.figure.colorbar(shades, ax=axes, shrink=0.6, aspect=25)
        bar.set_label("Expected error (0: perfect, 1: as control cells)", fontsize=NORMAL)
        bar.ax.tick_params(labelsize=SMALL)
    axes.hlines(y, frame["low"], frame["high"], colors=colours, linewidth=1.2)
    for seen, name in ((True, "seen in training"), (False, "not seen")):
        part = (frame["seen"].astype(bool) == seen).to_numpy()
        if part.any():
            faces = colours[part] if seen else "white"
            style = {"s": 26, "facecolors": faces, "edgecolors": colours[part], "zorder": 3, "label": name, **kwargs}
            axes.scatter(frame["score"][part], y[part], **style)
    axes.axvline(0, color=LINE, linewidth=0.8, linestyle="--", zorder=0)
    axes.set_yticks(y, names)
    axes.set_ylim(len(frame) - 0.4, -0.6)
    dress(axes, xlabel=label)
    legend_beside(axes)
    return axes
