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

HEADS = {(True, False): "-", (True, True): "-", (False, False): "-|>", (False, True): "|-|, widthA=0, widthB=0.4"}
"""Ends of edges, by whether they exist in both directions and whether their weight is negative."""


@on_canvas
def grn(canvas: Canvas, adata: AnnData, target: str, *, n_neighbours: int = 25, key: str = "grn", **kwargs: Any) -> Any:
    """Show the neighbours of a target and the edges among them.

    Colours show the origin of edges. After `tl.grn` the width is the larger attention in both directions, otherwise the
    absolute weight. An arrowhead marks an edge in one direction only, and a bar in its place a negative weight; negative
    edges in both directions are dashed. Open circles are targets outside the measured genes.

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
    ends = [frozenset(pair) for pair in zip(edges["source"], edges["target"], strict=True)]
    edges = edges.assign(pair=pd.Series(ends, index=edges.index), origin=edges["origin"].astype(str))
    directions = edges.groupby(["pair", "origin"])["source"].transform("nunique")
    edges = edges.assign(is_mutual=directions == 2, is_negative=edges["weight"] < 0)
    edges = edges[~edges.duplicated(["pair", "origin"])]

    network = nx.DiGraph()
    network.add_nodes_from(shown)
    network.add_edges_from(zip(edges["source"], edges["target"], strict=True))
    places = _around(target, network.to_undirected())
    axes = canvas.panels(figsize=(7.5, 5.5))[0, 0]
    origins = sorted(edges["origin"].unique())
    colors = dict(zip(origins, np.resize(PALETTE, len(origins)), strict=True))
    widest = edges["width"].max() or 1.0
    for edge in edges[::-1].itertuples():
        style = {
            "edge_color": colors[edge.origin],
            "alpha": 0.9 if target in edge.pair else 0.25,
            "width": 0.4 + 3.0 * edge.width / widest,
            "arrowstyle": HEADS[edge.is_mutual, edge.is_negative],
            "style": "dashed" if edge.is_mutual and edge.is_negative else "solid",
            **kwargs,
        }
        nx.draw_networkx_edges(network, places, edgelist=[(edge.source, edge.target)], ax=axes, arrows=True, **style)
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
    handles = [Line2D([], [], color=color, linewidth=2, label=origin) for origin, color in colors.items()]
    one_way = edges[~edges["is_mutual"]]
    signs = ((False, "in one direction, positive", ">"), (True, "in one direction, negative", "|"))
    for is_negative, label, marker in signs:
        if (one_way["is_negative"] == is_negative).any():
            handles.append(Line2D([], [], color=LINE, marker=marker, markevery=[-1], label=label))
    if (edges["is_mutual"] & edges["is_negative"]).any():
        handles.append(Line2D([], [], color=LINE, linestyle="--", label="negative"))
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
