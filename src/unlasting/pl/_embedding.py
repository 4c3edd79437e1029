"""Control, observed and generated cells on one map."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from unlasting.pl._figure import (
    GROUP_COLORS,
    NORMAL,
    condition_names,
    dress,
    finish,
    legend_beside,
    panels,
    pick,
    stored,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

# from so many points on, a vector file holds them as an image
MANY = 2000
ARROW = "#1A1A1A"
SHARED = {"sharex": True, "sharey": True}


def embedding(
    adata: AnnData,
    conditions: str | Sequence[str] | None = None,
    *,
    n_conditions: int = 6,
    n_arrows: int = 25,
    key: str = "embedding",
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
    return_fig: bool = False,
    **kwargs: Any,
) -> Any:
    """Show control, observed and generated cells on one map, with arrows from source to generated cells.

    Parameters
    ----------
    adata
        The screen after `tl.embedding`.
    conditions
        Perturbations to show, one panel each. The `n_conditions` that move the generated cells most if `None`.
    n_conditions
        Number of conditions.
    n_arrows
        Number of arrows in a panel, taken evenly over the generated cells; 0 for none.
    key
        Where under `uns["unlasting"]` the map is.
    ax, figsize, show, save, return_fig
        Axes to draw in (divided if there are several panels), size of a new figure in inches, whether to show it (by
        default in interactive sessions, if no `ax` is given), a file to write, whether to return the Figure.
    **kwargs
        Passed on to `Axes.scatter`.

    Returns
    -------
    Array of Axes, the Figure with `return_fig`, or `None` if it was shown.

    Raises
    ------
    KeyError
        If `tl.embedding` has not been run.
    ValueError
        If nothing is stored for a condition.
    """
    writer = "ul.tl.embedding(adata)"
    frame = stored(adata, key, writer=writer, columns=["group", "condition", "x", "y", "source_x", "source_y"])
    names = stored(adata, f"{key}_axes", writer=writer)
    control = frame[frame["group"] == "control"]
    frame = pick(frame[frame["group"] != "control"], "condition", conditions, "conditions")
    frame = frame.assign(name=condition_names(frame))
    shown = list(pd.unique(frame["name"]))[: n_conditions if conditions is None else None]
    n_columns = min(3, len(shown))
    n_rows = -(-len(shown) // n_columns)
    size = figsize or ((6.5, 4.5) if len(shown) == 1 else (2.5 * n_columns + 1.4, 2.3 * n_rows + 0.3))
    figure, axes = panels(ax, n_rows, n_columns, figsize=size, **({} if len(shown) == 1 else SHARED))
    for panel, name in zip(axes.flat, shown, strict=False):
        cells = frame[frame["name"] == name]
        # controls of other cell types would only hide them
        _draw(panel, control[control["cell_type"].isin(cells["cell_type"])], cells, n_arrows, kwargs)
        dress(panel, title=name)
    for panel in axes.flat[len(shown) :]:
        panel.set_axis_off()
    axes[-1, 0].set_xlabel(str(names[0]), fontsize=NORMAL)
    axes[-1, 0].set_ylabel(str(names[1]), fontsize=NORMAL)
    handles, _ = axes[0, 0].get_legend_handles_labels()
    if n_arrows and frame["source_x"].notna().any():
        handles.append(
            Line2D([], [], color=ARROW, linewidth=1.2, marker=">", markersize=4, label="source to generated")
        )
    legend_beside(axes[0, -1], handles=handles, markerscale=1.8)
    return finish(figure, axes, ax=ax, show=show, save=save, return_fig=return_fig)


def _draw(panel: Axes, control: pd.DataFrame, cells: pd.DataFrame, n_arrows: int, kwargs: dict[str, Any]) -> None:
    shown = {"control": control, **{group: cells[cells["group"] == group] for group in ("observed", "generated")}}
    for group, some in shown.items():
        style = {"s": 9 if len(some) < MANY else 4, "linewidths": 0, "alpha": 0.55, "rasterized": len(some) > MANY}
        panel.scatter(some["x"], some["y"], color=GROUP_COLORS[group], label=group, **{**style, **kwargs})
    bridge = shown["generated"].dropna(subset=["source_x", "source_y"])
    if n_arrows and len(bridge):
        bridge = bridge.iloc[np.unique(np.linspace(0, len(bridge) - 1, min(n_arrows, len(bridge))).astype(int))]
        panel.quiver(
            bridge["source_x"],
            bridge["source_y"],
            bridge["x"] - bridge["source_x"],
            bridge["y"] - bridge["source_y"],
            angles="xy",
            scale_units="xy",
            scale=1,
            units="inches",
            width=0.02,
            headwidth=5,
            color=ARROW,
            edgecolor="white",
            linewidth=0.6,
            zorder=3,
        )
    panel.set_xticks([])
    panel.set_yticks([])
