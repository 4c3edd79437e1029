"""Distributions of single genes: observed control, observed perturbed, generated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.patches import Patch

from unlasting.pl._figure import (
    GROUP_COLORS,
    NORMAL,
    SMALL,
    Canvas,
    dress,
    expression_unit,
    on_canvas,
    one_cell_type,
    pick,
    stored,
)

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes

NAMES = {"control": "observed control", "observed": "observed perturbed", "generated": "generated"}
# width of the strip for zeros, relative to the range of expressed values
STRIP = 0.6


@on_canvas
def bimodal_genes(
    canvas: Canvas,
    adata: AnnData,
    perturbation: str,
    genes: str | Sequence[str] | None = None,
    *,
    cell_type: str | None = None,
    n_genes: int = 12,
    key: str = "bimodality",
    **kwargs: Any,
) -> Any:
    """Show the distribution in observed and generated cells for a perturbation's top genes.

    One panel per gene: densities of the expressed values (area 1), and to the left of 0 bars with the percentage of
    cells without expression.

    Parameters
    ----------
    adata
        The screen after `tl.bimodality`.
    perturbation
        The perturbation to show.
    genes
        Genes to show, in this order. The `n_genes` with the largest absolute t if `None`.
    cell_type
        The cell type, if the screen has several.
    n_genes
        Number of genes.
    %(stored)s
    **kwargs
        Passed on to `Axes.plot` of the densities.

    %(returns)s

    Raises
    ------
    KeyError
        If `tl.bimodality` has not been run.
    ValueError
        If the perturbation, a gene or the cell type is not stored.
    """
    writer = "ul.tl.bimodality(adata)"
    frame = stored(adata, key, writer=writer, columns=["condition", "cell_type", "gene", "t"])
    density = stored(adata, f"{key}_density", writer=writer, columns=["gene", "group", "value", "density"])
    frame = one_cell_type(pick(frame, "condition", perturbation, "perturbation"), cell_type)
    where = str(frame["cell_type"].iloc[0])
    if genes is None:
        frame = frame.sort_values("t", key=abs, ascending=False, kind="stable").head(n_genes)
    else:
        frame = pick(frame, "gene", genes, "genes")
    density = density[(density["condition"] == perturbation) & (density["cell_type"] == where)]

    margin = (max(0.0, 5.8 - 2.2 * len(frame)), 1.0)
    axes = canvas.grid(len(frame), size=(2.2, 1.6), margin=margin, columns=4)
    for panel, (_, gene) in zip(axes.flat, frame.iterrows(), strict=False):
        _draw(panel, gene, density[density["gene"] == gene["gene"]], kwargs)
    cells = {group: frame.get(f"n_cells_{group}") for group in GROUP_COLORS}
    names = {group: NAMES[group] + (f" ({n.iloc[0]:,} cells)" if n is not None else "") for group, n in cells.items()}
    patches = [Patch(color=color, label=names[group]) for group, color in GROUP_COLORS.items()]
    unit = f"({expression_unit(adata)})"
    title = f"Cells under {perturbation}" + (f" in {where}" if where else "")  # a gene may have the same name
    legend = {"handles": patches, "title": title, "frameon": False, "fontsize": SMALL, "title_fontsize": NORMAL}
    if canvas.ax is None:
        figure = canvas.figure
        figure.legend(**legend, loc="outside upper center", ncols=3)
        figure.supxlabel(f"Expression {unit}. Bars at 0: cells without expression, %", fontsize=NORMAL)
        figure.supylabel("Density of expressed values", fontsize=NORMAL)
    else:
        axes[0, -1].legend(**legend, loc="upper left", bbox_to_anchor=(1.01, 1))
        axes[-1, 0].set_xlabel(f"Expression\n{unit}\nat 0: zeros, %", fontsize=NORMAL)
        axes[-1, 0].set_ylabel("Density of expressed values", fontsize=NORMAL)
    return axes


def _draw(panel: Axes, gene: pd.Series, density: pd.DataFrame, kwargs: dict[str, Any]) -> None:
    top = max(density["density"].max(), 1e-9) if len(density) else 1.0
    right = density["value"].max() if len(density) else 1.0
    strip = STRIP * right
    width = strip / 3.6
    for place, (group, color) in enumerate(GROUP_COLORS.items()):
        curve = density[density["group"] == group]
        panel.plot(curve["value"], curve["density"], **{"color": color, "linewidth": 1.3, **kwargs})
        panel.fill_between(curve["value"], curve["density"], color=color, alpha=0.12, linewidth=0)
        zeros = gene[f"zero_fraction_{group}"]
        middle = -strip + (place + 0.5) * width
        # a bar as high as the panel stands for 100 %
        panel.bar(middle, zeros * top, 0.8 * width, color=color, label=group)
        panel.annotate(
            f"{100 * zeros:.0f}",
            (middle, zeros * top),
            xytext=(0, 1),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=SMALL,
            color=color,
        )
    panel.set_xlim(-1.05 * strip, right)
    panel.set_ylim(0, 1.18 * top)
    ticks = [tick for tick in range(0, int(right) + 1, 1 if right < 4 else 2) if 0 < tick < 0.97 * right]
    panel.set_xticks([-strip / 2 - width * 0.3, *ticks], ["0", *map(str, ticks)])
    panel.set_yticks([])
    dress(panel, title=str(gene["gene"]))
    panel.spines["left"].set_visible(False)
