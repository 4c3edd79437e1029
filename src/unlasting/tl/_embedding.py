"""One map for control, observed and generated cells, with the path from each source cell to its generated cell."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

from unlasting.screen import PREDICTION_KEY, TRAIN, Cells, sample
from unlasting.tl._screen import Screen, blocks, store

if TYPE_CHECKING:
    from anndata import AnnData


def embedding(
    adata: AnnData,
    *,
    layer: str = PREDICTION_KEY,
    predictions: AnnData | None = None,
    conditions: Iterable[str | tuple[str, ...]] | None = None,
    method: Literal["pca", "umap"] = "pca",
    n_components: int = 30,
    max_cells: int = 20_000,
    key_added: str = "embedding",
    seed: int = 0,
) -> pd.DataFrame:
    """Place control, observed and generated cells on one map.

    Only training cells (controls and perturbed) determine the map. Test cells and generated cells are then placed on
    it, so that generated cells cannot distort it.

    Parameters
    ----------
    adata
        The screen, log-normalised.
    layer
        Layer with the generated cells.
    predictions
        Generated cells as an AnnData, instead of `layer`.
    conditions
        Perturbations, or tuples (perturbation, cell type, dose). All conditions with generated cells if `None`. The
        map itself does not depend on them.
    method
        `"pca"`: the first two principal components. `"umap"`: two dimensions from `n_components` principal components.
    n_components
        Principal components under a UMAP.
    max_cells
        Most cells that determine the map, sampled at random.
    key_added
        Key under `uns["unlasting"]`.
    seed
        Random seed.

    Returns
    -------
    A frame with a row for each cell: controls first, then conditions by descending distance between generated cells and
    controls. Columns are `cell`, `group` (`control`, `observed`, `generated`), `condition`, `cell_type`, `dose`, `x`,
    `y`, and for generated cells `source`, `source_x`, `source_y` (missing where unknown).

    Updates the following fields:

    - `adata.uns["unlasting"][key_added]`: the frame.
    - `adata.uns["unlasting"][key_added + "_axes"]`: both axis names.

    Raises
    ------
    KeyError
        If the layer or a label column is missing.
    ValueError
        If `method` is unknown, or there are fewer than three training cells.
    """
    if method not in ("pca", "umap"):
        raise ValueError(f"`method` is {method!r}; choose 'pca' or 'umap'.")
    screen = Screen.read(adata, layer, predictions)
    chosen = screen.generated_conditions(conditions)
    train = sample(np.flatnonzero(screen.split == TRAIN), max_cells, np.random.default_rng(seed))
    if len(train) < 3:
        raise ValueError(
            f"Training cells determine the map, but only {len(train)} cells are labelled 'train' in "
            f"`obs[{screen.keys.split_key!r}]`. Label at least three."
        )
    place, axes = _fit(screen.observed.values(train), method, n_components, seed)
    cell_types = dict.fromkeys(condition.cell_type for condition in chosen)
    observed = {
        "control": np.concatenate([screen.control_rows(cell_type) for cell_type in cell_types]),
        "observed": np.concatenate([screen.observed.rows(c) for c in chosen]),
    }
    parts = [_placed(screen.observed, rows, group, place) for group, rows in observed.items()]
    rows = np.concatenate([screen.generated.rows(c) for c in chosen])
    parts.append(_with_sources(_placed(screen.generated, rows, "generated", place), screen, rows, place))
    frame = _farthest_first(pd.concat(parts, ignore_index=True))
    frame["source"] = frame["source"].fillna("").astype(str)
    store(adata, **{key_added: frame, f"{key_added}_axes": np.array(axes, dtype=object)})
    return frame.copy()


def _farthest_first(frame: pd.DataFrame) -> pd.DataFrame:
    """Sort by the distance between mean generated cell and mean control, controls first."""
    means = frame.groupby(["group", "cell_type", "condition", "dose"])[["x", "y"]].mean()
    control = means.loc["control"].droplevel(["condition", "dose"])
    moved = means.loc["generated"].sub(control, level="cell_type").pow(2).sum(axis=1)
    places = moved.reindex(pd.MultiIndex.from_frame(frame[["cell_type", "condition", "dose"]])).fillna(np.inf)
    return frame.iloc[np.argsort(-places.to_numpy(), kind="stable")].reset_index(drop=True)


def _fit(
    values: np.ndarray, method: str, n_components: int, seed: int
) -> tuple[Callable[[np.ndarray], np.ndarray], list[str]]:
    """Fit principal components, and a UMAP on them; return the map and its axis names."""
    limit = min(values.shape[0] - 1, values.shape[1])
    if limit < 2:
        raise ValueError(f"A map needs at least two genes; `adata` has {values.shape[1]}. Pass the whole screen.")
    pca = PCA(
        min(limit, 2 if method == "pca" else n_components),
        svd_solver="full" if limit < 500 else "randomized",
        random_state=seed,
    ).fit(values)
    if method == "pca":
        shares = pca.explained_variance_ratio_
        return pca.transform, [f"PC{i + 1} ({share:.0%} of variance)" for i, share in enumerate(shares)]
    from umap import UMAP  # slow

    umap = UMAP(n_neighbors=min(15, len(values) - 1), random_state=seed, n_jobs=1).fit(pca.transform(values))
    return lambda cells: np.asarray(umap.transform(pca.transform(cells))), ["UMAP1", "UMAP2"]


def _placed(cells: Cells, rows: np.ndarray, group: str, place: Callable[[np.ndarray], np.ndarray]) -> pd.DataFrame:
    coordinates = np.concatenate([np.empty((0, 2)), *(place(block) for block in blocks(cells, rows))])
    return pd.DataFrame(
        {
            "cell": np.asarray(cells.names[rows], dtype=object),
            "group": group,
            "condition": cells.labels[rows],
            "cell_type": cells.cell_types[rows],
            "dose": cells.doses[rows],
            "x": coordinates[:, 0],
            "y": coordinates[:, 1],
        }
    )


def _with_sources(
    frame: pd.DataFrame, screen: Screen, rows: np.ndarray, place: Callable[[np.ndarray], np.ndarray]
) -> pd.DataFrame:
    """Add the source cells' names and coordinates."""
    found = screen.source_rows(rows)
    distinct = np.unique(found[found >= 0])
    placed = _placed(screen.observed, distinct, "control", place).set_index(distinct)[["x", "y"]].reindex(found)
    names = np.where(found >= 0, np.asarray(screen.observed.names, dtype=object)[found], "")
    return frame.assign(source=names, source_x=placed["x"].to_numpy(), source_y=placed["y"].to_numpy())
