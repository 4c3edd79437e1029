"""One map for control, observed and generated cells, with the way from each source cell to its generated cell."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

from unlasting.screen import PREDICTION_KEY, TRAIN, Cells, sample
from unlasting.tl._groups import Groups, store

if TYPE_CHECKING:
    from anndata import AnnData

BLOCK = 4096


def embedding(
    adata: AnnData,
    *,
    layer: str = PREDICTION_KEY,
    predictions: AnnData | None = None,
    conditions: Iterable[str | tuple[str, ...]] | None = None,
    method: Literal["pca", "umap"] = "pca",
    n_components: int = 30,
    max_cells: int = 20_000,
    source_key: str = "unlasting_source",
    key_added: str = "embedding",
    seed: int = 0,
    perturbation_key: str | None = None,
    control: str | None = None,
    cell_type_key: str | None = None,
    split_key: str | None = None,
    delimiter: str | None = None,
) -> pd.DataFrame:
    """Place control, observed and generated cells on one map.

    The map is fitted on training cells (controls and perturbed) only; test cells and generated cells are then placed
    on it, so that generated cells cannot bend it towards themselves.

    Parameters
    ----------
    adata
        The screen, log-normalised.
    layer
        Layer with the generated cells.
    predictions
        Generated cells as an AnnData of their own, from any model, instead of `layer`.
    conditions
        Perturbations, or tuples of perturbation, cell type and dose. All conditions with generated cells if `None`. The
        map itself does not depend on it.
    method
        `"pca"`: the first two principal components. `"umap"`: two dimensions from `n_components` principal components.
    n_components
        Number of principal components under a UMAP.
    max_cells
        Largest number of cells on which the map is fitted, drawn at random.
    source_key
        Column with the name of the control cell from which each generated cell came. Without it (cells of another
        model) there are no arrows.
    key_added
        Where under `uns["unlasting"]` the results go.
    seed
        Seed of the draw and of the UMAP.
    perturbation_key, control, cell_type_key, split_key, delimiter
        Where the labels are, if other than recorded by `pp` or `setup_anndata`.

    Returns
    -------
    A frame with one row for each cell, controls first, then condition by condition, those whose generated cells are
    farthest from the controls first: `cell`, `group` (`control`, `observed`, `generated`), `condition`,
    `cell_type`, `dose`, `x`, `y`, and for generated cells `source`, `source_x`, `source_y` (missing where unknown).

    Updates the following fields:

    - `adata.uns["unlasting"][key_added]`: the frame.
    - `adata.uns["unlasting"][key_added + "_axes"]`: the names of the two axes.

    Raises
    ------
    KeyError
        If the layer or a label column is missing.
    ValueError
        If `method` is unknown, or there are fewer than three training cells.
    """
    if method not in ("pca", "umap"):
        raise ValueError(f"`method` is {method!r}; it is 'pca' or 'umap'.")
    groups = Groups.read(
        adata,
        layer=layer,
        predictions=predictions,
        perturbation_key=perturbation_key,
        control=control,
        cell_type_key=cell_type_key,
        split_key=split_key,
        delimiter=delimiter,
    )
    chosen = groups.conditions(conditions)
    train = sample(np.flatnonzero(groups.split == TRAIN), max_cells, np.random.default_rng(seed))
    if len(train) < 3:
        raise ValueError(f"The map is fitted on training cells, but only {len(train)} cells are labelled 'train'.")
    place, axes = _fit(groups.observed.values(train), method, n_components, seed)

    control_rows = [
        groups.control_rows(cell_type) for cell_type in dict.fromkeys(condition.cell_type for condition in chosen)
    ]
    parts = [
        _placed(groups.observed, np.concatenate(control_rows), "control", place),
        _placed(groups.observed, np.concatenate([groups.observed.rows(c) for c in chosen]), "observed", place),
    ]
    rows = np.concatenate([groups.generated.rows(c) for c in chosen])
    generated = _placed(groups.generated, rows, "generated", place)
    parts.append(_with_sources(generated, groups, rows, source_key, place))
    frame = _farthest_first(pd.concat(parts, ignore_index=True))
    frame["source"] = frame["source"].fillna("").astype(str)
    store(adata, **{key_added: frame, f"{key_added}_axes": np.array(axes, dtype=object)})
    return frame.copy()


def _farthest_first(frame: pd.DataFrame) -> pd.DataFrame:
    """Put the controls first, then the conditions by how far the mean of their generated cells is from controls."""
    means = frame.groupby(["group", "cell_type", "condition", "dose"])[["x", "y"]].mean()
    control = means.loc["control"].droplevel(["condition", "dose"])
    moved = means.loc["generated"].sub(control, level="cell_type").pow(2).sum(axis=1)
    places = moved.reindex(pd.MultiIndex.from_frame(frame[["cell_type", "condition", "dose"]])).fillna(np.inf)
    return frame.iloc[np.argsort(-places.to_numpy(), kind="stable")].reset_index(drop=True)


class _Map:
    """Principal components, and a UMAP of them if one is given."""

    def __init__(self, pca: PCA, umap: object | None) -> None:
        self.pca = pca
        self.umap = umap

    def __call__(self, values: np.ndarray) -> np.ndarray:
        components = self.pca.transform(values)
        return components[:, :2] if self.umap is None else np.asarray(self.umap.transform(components))  # type: ignore[attr-defined]


def _fit(values: np.ndarray, method: str, n_components: int, seed: int) -> tuple[_Map, list[str]]:
    limit = min(values.shape[0] - 1, values.shape[1])
    if limit < 2:
        raise ValueError(
            f"A map needs at least two genes and three training cells; `adata` has {values.shape[1]} genes."
        )
    pca = PCA(
        min(limit, 2 if method == "pca" else n_components),
        svd_solver="full" if limit < 500 else "randomized",
        random_state=seed,
    ).fit(values)
    if method == "pca":
        return _Map(pca, None), [
            f"PC{i + 1} ({share:.0%} of variance)" for i, share in enumerate(pca.explained_variance_ratio_)
        ]
    # slow to import, and wanted only here
    from umap import UMAP

    umap = UMAP(n_neighbors=min(15, len(values) - 1), random_state=seed, n_jobs=1).fit(pca.transform(values))
    return _Map(pca, umap), ["UMAP1", "UMAP2"]


def _placed(cells: Cells, rows: np.ndarray, group: str, place: _Map) -> pd.DataFrame:
    blocks = [place(cells.values(rows[start : start + BLOCK])) for start in range(0, len(rows), BLOCK)]
    coordinates = np.concatenate(blocks) if blocks else np.empty((0, 2))
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


def _with_sources(frame: pd.DataFrame, groups: Groups, rows: np.ndarray, source_key: str, place: _Map) -> pd.DataFrame:
    """Add where the source cells of the generated cells are."""
    found = groups.source_rows(rows, source_key)
    distinct = np.unique(found[found >= 0])
    places = _placed(groups.observed, distinct, "control", place).set_index(distinct)[["x", "y"]].reindex(found)
    names = np.where(found >= 0, np.asarray(groups.observed.names, dtype=object)[found], "")
    return frame.assign(source=names, source_x=places["x"].to_numpy(), source_y=places["y"].to_numpy())
