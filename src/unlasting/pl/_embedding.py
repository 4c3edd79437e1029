"""Control, observed and generated cells on one map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from unlasting.pl._figure import (
    GROUP_COLORS,
    NORMAL,
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

# more points are an image in a vector file
MANY = 2000
ARROW = "#1A1A1A"
SHARED = {"sharex": True, "sharey": True}


@on_canvas
def embedding(
    canvas: Canvas,
    adata: AnnData,
    conditions: str | Sequence[str] | None = None,
    *,
    n_conditions: int = 6,
    n_arrows: int = 25,
    key: str = "embedding",
    **kwargs: Any,
) -> Any:
    """Show control, observed and generated cells on one map, with arrows from source to generated cells.

    The thick arrow leads from the mean source cell to the mean generated cell, and the thin ones belong to single cells.

    Parameters
    ----------
    adata
        The screen after `tl.embedding`.
    conditions
        Perturbations to show, one panel each. The `n_conditions` with the largest change in generated cells if `None`.
    n_conditions
        Number of conditions.
    n_arrows
        Number of arrows in a panel, taken evenly over the generated cells; 0 for none.
    %(stored)s
    **kwargs
        Passed on to `Axes.scatter`.

    %(returns)s

    Raises
    ------
    KeyError
        If `tl.embedding` has not been run.
    ValueError
        If a condition is not stored.
    """
    writer = "ul.tl.embedding(adata)"
    frame = stored(adata, key, writer=writer, columns=["group", "condition", "x", "y", "source_x", "source_y"])
    names = stored(adata, f"{key}_axes", writer=writer)
    control = frame[frame["group"] == "control"]
    frame = pick(frame[frame["group"] != "control"], "condition", conditions, "conditions")
    frame = frame.assign(name=condition_names(frame))
    shown = list(pd.unique(frame["name"]))[: n_conditions if conditions is None else None]
    margin, shared = ((4.0, 2.2), {}) if len(shown) == 1 else ((1.4, 0.3), SHARED)
    axes = canvas.grid(len(shown), size=(2.5, 2.3), margin=margin, **shared)
    for panel, name in zip(axes.flat, shown, strict=False):
        cells = frame[frame["name"] == name]
        _draw(panel, control[control["cell_type"].isin(cells["cell_type"])], cells, n_arrows, kwargs)
        dress(panel, title=name)
    axes[-1, 0].set_xlabel(str(names[0]), fontsize=NORMAL)
    axes[-1, 0].set_ylabel(str(names[1]), fontsize=NORMAL)
    handles, _ = axes[0, 0].get_legend_handles_labels()
    if n_arrows and frame["source_x"].notna().any():
        handles.append(
            Line2D(
                [],
                [],
                color=ARROW,
                linewidth=2.2,
                marker=">",
                markersize=5,
                label="source to generated,\nmean (thick) and cells",
            )
        )
    legend_beside(axes[0, -1], handles=handles, markerscale=1.8)
    return axes


def _draw(panel: Axes, control: pd.DataFrame, cells: pd.DataFrame, n_arrows: int, kwargs: dict[str, Any]) -> None:
    shown = {"control": control, **{group: cells[cells["group"] == group] for group in ("observed", "generated")}}
    for group, some in shown.items():
        style = {"s": 9 if len(some) < MANY else 4, "linewidths": 0, "alpha": 0.55, "rasterized": len(some) > MANY}
        panel.scatter(some["x"], some["y"], color=GROUP_COLORS[group], label=group, **{**style, **kwargs})
    bridge = shown["generated"].dropna(subset=["source_x", "source_y"])
    if n_arrows and len(bridge):
        whole = bridge.iloc[[0]].assign(**bridge[["x", "y", "source_x", "source_y"]].mean())
        some = bridge.iloc[np.unique(np.linspace(0, len(bridge) - 1, min(n_arrows, len(bridge))).astype(int))]
        _arrows(panel, some, width=0.01, alpha=0.45, zorder=3)
        _arrows(panel, whole, width=0.035, edgecolor="white", linewidth=0.8, zorder=4)
    panel.set_xticks([])
    panel.set_yticks([])


def _arrows(panel: Axes, bridge: pd.DataFrame, **style: Any) -> None:
    """Draw arrows from source to generated cells."""
    change = bridge["x"] - bridge["source_x"], bridge["y"] - bridge["source_y"]
    options: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1, "units": "inches", "color": ARROW}
    panel.quiver(bridge["source_x"], bridge["source_y"], *change, **options, headwidth=4.5, minlength=0, **style)
