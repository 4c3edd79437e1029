"""A target's neighbourhood in the gene graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from unlasting.pl._figure import LINE, PALETTE, SMALL, Canvas, dress, on_canvas, stored
from unlasting.screen import GeneNames, nearest_name

if TYPE_CHECKING:
    from anndata import AnnData


@on_canvas
def grn(canvas: Canvas, adata: AnnData, target: str, *, n_neighbours: int = 25, key: str = "grn", **kwargs: Any) -> Any:
    """Show the neighbours of a target and the edges among them.

    Colours show the origin of edges. After `tl.grn` the width is the larger attention in both directions, otherwise the
    absolute weight. Open circles are targets outside the measured genes.

    Parameters
    ----------
    adata
        The screen after `pp.grn`, or `tl.grn`.
    target
        Gene in the middle.
    n_neighbours
        Number of neighbours, those with the widest edges first.
    %(stored)s
    **kwargs
        Passed on to `networkx.draw_networkx_edges`.

    %(returns)s

    Raises
    ------
    KeyError
        If `pp.grn` has not been run.
    ValueError
        If the target is not in the graph or has no neighbour.
    """
    graph = stored(adata, key, writer="ul.pp.grn(adata)", columns=["nodes", "edges"])
    nodes = GeneNames(graph["nodes"])
    if not nodes.find(target):
        hint = nodes.hint(target) or nearest_name(target, nodes.known)
        raise ValueError(f"`target` {target!r} is not in the graph.{hint}")
    target = nodes.find(target)
    edges = graph["edges"]
    strength = "attention" if "attention" in edges else "weight"
    edges = edges.assign(
        source=edges["source"].astype(str), target=edges["target"].astype(str), width=edges[strength].abs()
    )
    edges = edges[edges["source"] != edges["target"]]
    at_target = edges[(edges["source"] == target) | (edges["target"] == target)]
    if at_target.empty:
        raise ValueError(f"`target` {target!r} has no neighbour in the graph. Choose another target.")
    other = at_target["source"].where(at_target["source"] != target, at_target["target"])
    nearest = at_target["width"].groupby(other).max().sort_values(ascending=False, kind="stable").index[:n_neighbours]
    shown = [target, *nearest]
    edges = edges[edges["source"].isin(shown) & edges["target"].isin(shown)]
    # one line for both directions, as wide as the wider one
    edges = edges.sort_values("width", ascending=False, kind="stable")
    pair = pd.Series([frozenset(p) for p in zip(edges["source"], edges["target"], strict=True)], index=edges.index)
    edges = edges[~pd.DataFrame({"pair": pair, "origin": edges["origin"]}).duplicated()]

    network = nx.Graph()
    network.add_nodes_from(shown)
    network.add_edges_from(zip(edges["source"], edges["target"], strict=True))
    places = _around(target, network)
    axes = canvas.panels(figsize=(7.5, 5.5))[0, 0]
    origins = sorted(map(str, edges["origin"].unique()))
    widest = edges["width"].max() or 1.0
    for color, origin in zip(np.resize(PALETTE, len(origins)), origins, strict=True):
        part = edges[edges["origin"].astype(str) == origin]
        touches = ((part["source"] == target) | (part["target"] == target)).to_numpy()
        for mask, alpha in ((~touches, 0.25), (touches, 0.9)):
            some = part[mask]
            style = {
                "edge_color": color,
                "alpha": alpha,
                "width": 0.4 + 3.0 * (some["width"] / widest).to_numpy(),
                **kwargs,
            }
            if len(some):
                nx.draw_networkx_edges(
                    network, places, edgelist=list(zip(some["source"], some["target"], strict=True)), ax=axes, **style
                )
    measured = set(map(str, adata.var_names))
    at = np.array([places[name] for name in shown])
    faces = ["white" if name not in measured else PALETTE[1] if name == target else "#D9D9D9" for name in shown]
    borders = [PALETTE[1] if name == target else LINE for name in shown]
    axes.scatter(at[:, 0], at[:, 1], s=[150] + [70] * len(nearest), c=faces, edgecolors=borders, zorder=3)
    for name, (x, y) in zip(shown, at, strict=True):
        axes.annotate(
            name,
            (x, y),
            xytext=(0, 6 if name != target else 9),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=SMALL,
            zorder=4,
            path_effects=[withStroke(linewidth=2, foreground="white")],
            fontweight="bold" if name == target else "normal",
        )
    axes.margins(0.1)
    axes.set_axis_off()
    dress(axes, title=f"Neighbourhood of {target}")
    handles = [
        Line2D([], [], color=c, linewidth=2, label=o)
        for c, o in zip(np.resize(PALETTE, len(origins)), origins, strict=True)
    ]
    if len(set(shown) - measured):
        handles.append(
            Line2D([], [], marker="o", color=LINE, markerfacecolor="white", linestyle="none", label="not measured")
        )
    legend = axes.legend(
        handles=handles,
        title=f"edge from\n(width: {strength})",
        loc="upper left",
        bbox_to_anchor=(1.01, 1),
        frameon=False,
        fontsize=SMALL,
    )
    legend.get_title().set_fontsize(SMALL)
    return axes


def _around(target: str, network: nx.Graph) -> dict[str, np.ndarray]:
    """Place the neighbours around the target, reproducibly."""
    if len(network) == 2:
        return nx.circular_layout(network)
    # long springs keep names apart
    return nx.spring_layout(
        network, pos={target: (0.0, 0.0)}, fixed=[target], k=2.2 / np.sqrt(len(network)), iterations=300, seed=0
    )
