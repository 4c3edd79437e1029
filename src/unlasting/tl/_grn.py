"""The graph of genes as a trained model reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from unlasting.screen import TRAIN, UNS_KEY, ScreenKeys, sample
from unlasting.tl._groups import store

if TYPE_CHECKING:
    from anndata import AnnData


def grn(model: Any, controls: AnnData | None = None, *, max_cells: int = 200, seed: int = 0) -> pd.DataFrame:
    """Find which edges of the graph a trained model uses, in control cells.

    An edge from `pp.grn` says that two genes may have to do with each other; its attention says how much of what it
    knows of its neighbours a gene takes from this one. Attention shows where the model looks, and proves no regulation.

    Parameters
    ----------
    model
        A trained :class:`unlasting.UnlastingModel` with its AnnData.
    controls
        The control cells to look at; training controls by default.
    max_cells
        Largest number of cells, drawn at random.
    seed
        Seed of the draw and of the noise that stands for silent genes.

    Returns
    -------
    The edges of the graph with the column `attention`: the share of its attention that the target pays to the source,
    averaged over cells, heads, layers and steps (:meth:`unlasting.UnlastingModel.get_attention`). What is missing to 1
    over the sources of a target, it pays to itself.

    Updates the following fields:

    - `model.adata.uns["unlasting"]["grn"]["edges"]`: the frame, from which :func:`unlasting.pl.grn` takes the widths.

    Raises
    ------
    RuntimeError
        If the model is not trained.
    ValueError
        If the model holds no AnnData or has no graph block, there are no control cells, or the graph was made anew
        after the model.
    """
    if model.adata is None:
        raise ValueError("`model` was loaded without its AnnData. Load it with `adata=...` to read its attention.")
    given = model.adata if controls is None else controls
    keys = ScreenKeys.read(model.adata)
    chosen = keys.labels(given) == keys.control
    if controls is None and (split := keys.split(given)) is not None:
        chosen &= split == TRAIN
    rows = sample(np.flatnonzero(chosen), max_cells, np.random.default_rng(seed))
    found = model.get_attention(given[rows].copy(), seed=seed)
    graph = model.adata.uns[UNS_KEY]["grn"]
    edges = graph["edges"].drop(columns="attention", errors="ignore").astype({"source": str, "target": str})
    if _pairs(edges) != _pairs(found):
        raise ValueError(
            "The graph in `model.adata` is not that of the model: `pp.grn` has been run since. Make and train the model "
            "anew, or load it with the AnnData that it was saved with."
        )
    edges = edges.merge(found, on=["source", "target"], how="left")
    store(model.adata, grn={**graph, "edges": edges})
    return edges.copy()


def _pairs(edges: pd.DataFrame) -> set[tuple[str, str]]:
    """Get the edges between different genes."""
    return {
        (source, target) for source, target in zip(edges["source"], edges["target"], strict=True) if source != target
    }
