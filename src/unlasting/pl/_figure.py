"""Shared by all figures: reading stored results, panels, colours, legends, showing and saving."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import update_wrapper
from os import PathLike
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from unlasting._docs import shared
from unlasting.screen import UNS_KEY, MissingKeyError, nearest_name

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

PALETTE: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""Colours that colour-blind readers distinguish (Okabe and Ito)."""

GROUP_COLORS: Final = {"control": "#8C8C8C", "observed": PALETTE[0], "generated": PALETTE[1]}
LINE: Final = "#595959"
QUIET: Final = "#A6A6A6"
SMALL: Final = 8
NORMAL: Final = 9
P = ParamSpec("P")

FIGURE = "ax, figsize, show, save, return_fig\n    As for all figures (:mod:`unlasting.pl`)."
DOCS = shared(
    figure=FIGURE,
    stored=f'key\n    Key under `uns["unlasting"]`.\n{FIGURE}',
    returns="""
    Returns
    -------
    The axes, an array where there are several; the figure with `return_fig`; `None` after showing.
    """,
)


def stored(adata: AnnData, key: str, *, writer: str, columns: Sequence[str] = ()) -> Any:
    """Get a result under `uns["unlasting"]`."""
    results = adata.uns.get(UNS_KEY, {})
    if key not in results:
        raise MissingKeyError(f'`adata.uns["{UNS_KEY}"]` has no {key!r}: run `{writer}` first.')
    found = results[key]
    missing = [column for column in columns if column not in found]
    if missing:
        raise MissingKeyError(f'`adata.uns["{UNS_KEY}"]["{key}"]` lacks {missing}: run `{writer}` again.')
    return found


def pick(frame: pd.DataFrame, column: str, wanted: str | Iterable[str] | None, argument: str) -> pd.DataFrame:
    """Keep the rows with the wanted values in a column, in the wanted order."""
    if wanted is None:
        return frame
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    there = list(map(str, pd.unique(frame[column])))
    for name in names:
        if name not in there:
            raise ValueError(
                f"`{argument}` names {name!r}, for which nothing is stored. Choose among {there[:8]}."
                + nearest_name(name, there)
            )
    place = frame[column].astype(str).map({name: i for i, name in enumerate(names)})
    return frame[place.notna()].iloc[np.argsort(place.dropna().to_numpy(), kind="stable")]


def one_cell_type(frame: pd.DataFrame, cell_type: str | None) -> pd.DataFrame:
    """Keep the rows with one cell type."""
    frame = pick(frame, "cell_type", cell_type, "cell_type")
    types = sorted(map(str, frame["cell_type"].unique()))
    if len(types) > 1:
        raise ValueError(f"Results are stored for several cell types; name one as `cell_type`: {types}.")
    return frame


def condition_names(frame: pd.DataFrame) -> pd.Series:
    """Name conditions by perturbation and dose, with several cell types by cell type too."""
    names = frame["condition"].astype(str)
    if "dose" in frame:
        doses = frame["dose"].astype(str).str.strip("+")  # genes in a combination have no dose
        names = names.where(doses == "", names + " " + doses + " µM")
    if "cell_type" not in frame or frame["cell_type"].nunique() < 2:
        return names
    return names + ", " + frame["cell_type"].astype(str)


def expression_unit(adata: AnnData) -> str:
    """Name the unit recorded by `pp.prepare`."""
    target = adata.uns.get(UNS_KEY, {}).get("prepare", {}).get("target_sum")
    return f"log-normalised to {float(target):,.0f} counts" if target else "log-normalised"


class Canvas:
    """A new figure, or the axes `ax` in a given one."""

    def __init__(self, ax: Axes | None, figsize: tuple[float, float] | None) -> None:
        self.ax, self._figsize = ax, figsize

    def panels(
        self,
        n_rows: int = 1,
        n_columns: int = 1,
        *,
        figsize: tuple[float, float],
        height_ratios: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """Make axes in a new figure or in place of `ax`, shape `(n_rows, n_columns)`; `figsize` is the default."""
        ax = self.ax
        if ax is None:
            size = self._figsize or figsize
            self.figure, axes = plt.subplots(
                n_rows,
                n_columns,
                figsize=size,
                layout="constrained",
                squeeze=False,
                height_ratios=height_ratios,
                **kwargs,
            )
            return axes
        self.figure = ax.figure.figure
        if n_rows * n_columns == 1:
            return np.array([[ax]])
        spec = ax.get_subplotspec()
        if spec is None:
            raise ValueError(
                "This figure has several panels. Pass `ax` from `plt.subplots`, so that it can be divided."
            )
        ax.remove()
        return spec.subgridspec(n_rows, n_columns, height_ratios=height_ratios).subplots(squeeze=False, **kwargs)

    def grid(
        self, n: int, *, size: tuple[float, float], margin: tuple[float, float], columns: int = 3, **kwargs: Any
    ) -> np.ndarray:
        """Make `n` panels in rows; panels have a `size` and figures a `margin`, in inches."""
        n_columns = min(columns, n)
        n_rows = -(-n // n_columns)
        default = (size[0] * n_columns + margin[0], size[1] * n_rows + margin[1])
        axes = self.panels(n_rows, n_columns, figsize=default, **kwargs)
        for panel in axes.flat[n:]:
            panel.set_axis_off()
        return axes


def on_canvas(function: Callable[Concatenate[Canvas, P], Any]) -> Callable[P, Any]:
    """Give a function that draws on a canvas the arguments of every figure; save, show and return the figure."""

    def draw(
        *args: Any,
        ax: Axes | None = None,
        figsize: tuple[float, float] | None = None,
        show: bool | None = None,
        save: str | PathLike[str] | None = None,
        return_fig: bool = False,
        **kwargs: Any,
    ) -> Any:
        canvas = Canvas(ax, figsize)
        axes = function(canvas, *args, **kwargs)
        if save is not None:
            canvas.figure.savefig(save, bbox_inches="tight", dpi=200)
        if show is None:
            show = matplotlib.is_interactive() and ax is None and not return_fig
        if show:
            plt.show()
        if return_fig:
            return canvas.figure
        return None if show else axes

    own, common = inspect.signature(function), inspect.signature(draw)
    (_, *first, kwargs), options = own.parameters.values(), list(common.parameters.values())[1:-1]
    figure: Any = DOCS(update_wrapper(draw, function))
    figure.__signature__ = own.replace(parameters=[*first, *options, kwargs])
    del figure.__wrapped__  # the documentation would show the canvas
    return figure


def label_columns(axes: np.ndarray, n: int, label: str) -> None:
    """Label the x axis on the lowest panel in each column."""
    for column in range(axes.shape[1]):
        lowest = [row for row in range(axes.shape[0]) if row * axes.shape[1] + column < n][-1]
        axes[lowest, column].set_xlabel(label, fontsize=NORMAL)


def dress(ax: Axes, *, title: str = "", xlabel: str = "", ylabel: str = "") -> None:
    """Set labels in sizes for a notebook, without the upper and right frame."""
    if title:
        ax.set_title(title, fontsize=NORMAL)
    if xlabel:
        ax.set_xlabel(xlabel, fontsize=NORMAL)
    if ylabel:
        ax.set_ylabel(ylabel, fontsize=NORMAL)
    ax.tick_params(labelsize=SMALL)
    ax.spines[["top", "right"]].set_visible(False)


def legend_beside(ax: Axes, **kwargs: Any) -> None:
    """Put the legend to the right of the data."""
    legend = ax.legend(
        **{"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "frameon": False, "fontsize": SMALL, **kwargs}
    )
    if legend.get_title().get_text():
        legend.get_title().set_fontsize(SMALL)


def label_points(ax: Axes, points: np.ndarray, names: Sequence[str]) -> None:
    """Name the first points, shape `(n_points, 2)`, where a name hides neither points nor other names."""
    figure = ax.figure.figure
    figure.draw_without_rendering()
    frame = ax.get_window_extent()
    pixels = ax.transData.transform(points)
    taken: list[Any] = []
    places = [(dx, dy, side) for dy in (-3, 4, -10) for dx, side in ((5, "left"), (-5, "right"))]
    for point, name in zip(points, names, strict=False):
        for dx, dy, side in places:
            text = ax.annotate(name, point, xytext=(dx, dy), textcoords="offset points", ha=side, fontsize=SMALL)
            text.set_in_layout(False)
            box = text.get_window_extent()
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            free = not any(box.overlaps(other) for other in taken) and not box.padded(1).count_contains(pixels)
            if inside and free:
                taken.append(box)
                break
            text.remove()
