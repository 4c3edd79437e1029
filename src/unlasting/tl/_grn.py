"""A trained model's attention on the gene graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from unlasting.screen import TRAIN, UNS_KEY, ScreenKeys, sample, to_memory
from unlasting.tl._screen import screen_of, store

if TYPE_CHECKING:
    from anndata import AnnData


def grn(model: Any, controls: AnnData | None = None, *, max_cells: int = 200, seed: int = 0) -> pd.DataFrame:
    """Compute a trained model's attention on each edge in the gene graph, in control cells.

    The networks need a graph block, which the default leaves out: `UnlastingModel(adata, use_grn=True)`.
    An edge from `pp.grn` marks a possible relation between two genes. Its attention is the source's weight among the
    target's neighbours. Attention describes the model and is no evidence for regulation.

    Parameters
    ----------
    model
        A trained :class:`unlasting.UnlastingModel` with its AnnData.
    controls
        Control cells; training controls by default.
    max_cells
        Most cells, sampled at random.
    seed
        Seed for the sample and for the noise in silent genes.

    Returns
    -------
    The graph's edges with the column `attention`: the share of the target's attention on the source, averaged over
    cells, heads, layers and steps (:meth:`unlasting.UnlastingModel.get_attention`). The remainder to 1, over all sources,
    is the target's attention on itself.

    Updates the following fields:

    - `model.adata.uns["unlasting"]["grn"]["edges"]`: the frame; :func:`unlasting.pl.grn` draws its widths.

    Raises
    ------
    RuntimeError
        If the model is not trained.
    ValueError
        If the model has no AnnData or no graph block, there are no control cells, or the graph is newer than the model.
    """
    adata = screen_of(model)
    given = adata if controls is None else controls
    keys = ScreenKeys.read(adata)
    chosen = keys.labels(given) == keys.control
    if controls is None and (split := keys.split(given)) is not None:
        chosen &= split == TRAIN
    rows = sample(np.flatnonzero(chosen), max_cells, np.random.default_rng(seed))
    found = model.get_attention(to_memory(given[rows]), seed=seed)
    graph = adata.uns[UNS_KEY]["grn"]
    edges = graph["edges"].drop(columns="attention", errors="ignore").astype({"source": str, "target": str})
    if _pairs(edges) != _pairs(found):
        raise ValueError(
            "The graph in `model.adata` differs from the model's: `pp.grn` has been run since. Make and train a new model, "
            "or load this one with the AnnData it was saved with."
        )
    edges = edges.merge(found, on=["source", "target"], how="left")
    store(adata, grn={**graph, "edges": edges})
    return edges.copy()


def _pairs(edges: pd.DataFrame) -> set[tuple[str, str]]:
    """List the edges between different genes."""
    return {
        (source, target) for source, target in zip(edges["source"], edges["target"], strict=True) if source != target
    }
