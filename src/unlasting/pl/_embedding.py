"""Control, observed and generated cells on one map."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from unlasting.pl._figure import GROUP_COLORS, LINE, dress, finish, legend_beside, panels, pick, stored

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

# from so many points on, a vector file holds them as an image
MANY = 5000


def embedding(
    adata: AnnData,
    conditions: str | Sequence[str] | None = None,
    *,
    n_arrows: int = 60,
    key: str = "embedding",
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
    return_fig: bool = False,
    **kwargs: Any,
) -> Any:
    """Show control, observed and generated cells on one map, with arrows from source cells to generated cells.

    Parameters
    ----------
    adata
        The screen after `tl.embedding`.
    conditions
        Perturbations to show. All if `None`.
    n_arrows
        Number of arrows, taken evenly over the generated cells; 0 for none.
    key
        Where under `uns["unlasting"]` the map is.
    ax, figsize, show, save, return_fig
        Axes to draw in, size of a new figure in inches, whether to show it (by default in interactive sessions, if no
        `ax` is given), a file to write, whether to return the Figure.
    **kwargs
        Passed on to `Axes.scatter`.

    Returns
    -------
    Axes, the Figure with `return_fig`, or `None` if it was shown.

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
    shown = {"control": control, **{group: frame[frame["group"] == group] for group in ("observed", "generated")}}

    figure, axes = panels(ax, figsize=figsize or (6.5, 4.5))
    axes = axes[0, 0]
    for group, cells in shown.items():
        style = {"s": 9, "linewidths": 0, "alpha": 0.55, "rasterized": len(cells) > MANY, **kwargs}
        axes.scatter(cells["x"], cells["y"], color=GROUP_COLORS[group], label=group, **style)
    bridge = shown["generated"].dropna(subset=["source_x", "source_y"])
    if n_arrows and len(bridge):
        bridge = bridge.iloc[np.unique(np.linspace(0, len(bridge) - 1, min(n_arrows, len(bridge))).astype(int))]
        axes.quiver(
            bridge["source_x"],
            bridge["source_y"],
            bridge["x"] - bridge["source_x"],
            bridge["y"] - bridge["source_y"],
            angles="xy",
            scale_units="xy",
            scale=1,
            width=0.0022,
            headwidth=5,
            color=LINE,
            alpha=0.7,
            label="from source cell",
        )
    axes.set_xticks([])
    axes.set_yticks([])
    one = conditions if isinstance(conditions, str) else ", ".join(conditions) if conditions is not None else ""
    dress(axes, title=one, xlabel=str(names[0]), ylabel=str(names[1]))
    legend_beside(axes, markerscale=2)
    for handle in axes.get_legend().legend_handles:
        handle.set_alpha(1)
    return finish(figure, axes, ax=ax, show=show, save=save, return_fig=return_fig)
