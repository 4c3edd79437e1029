"""Files for cell-eval2 and for the Virtual Cell Challenge."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from unlasting._files import replacing
from unlasting.io._counts import to_counts
from unlasting.screen import (
    PREDICTION_KEY,
    TEST,
    Condition,
    MissingKeyError,
    ScreenKeys,
    require_integers,
    screen_counts,
)
from unlasting.tl._screen import Screen

NON_TARGETING = "non-targeting"
CELLS_PER_PERTURBATION = 400


def write_cell_eval(
    adata: AnnData,
    folder: str | PathLike[str],
    *,
    layer: str = PREDICTION_KEY,
    predictions: AnnData | None = None,
    seed: int = 0,
) -> tuple[Path, Path]:
    """Write generated and observed cells as a pair for cell-eval2.

    Parameters
    ----------
    adata
        The screen with counts and a split. Its test cells, and its control cells labelled `train`, are the observed cells.
    folder
        Folder for `pred.h5ad` and `real.h5ad`; it is made if needed.
    layer
        Layer with the generated cells.
    predictions
        Generated cells in a second AnnData, instead of `layer`, with the same genes and columns.
    seed
        Seed for rounding (:func:`to_counts`).

    Returns
    -------
    The paths of the predicted and the observed cells. Both files hold counts, `obs["target"]`, `obs["cell_type"]` and the
    observed control cells, named `non-targeting`. With several cell types, evaluate one at a time.

    Raises
    ------
    KeyError
        If the layer or a column is missing.
    ValueError
        If there are no counts, test cells, control cells, or generated cells in a test condition.

    Examples
    --------
    >>> import unlasting as ul
    >>> pred, real = ul.io.write_cell_eval(adata, "pair")  # doctest: +SKIP
    >>> # cell-eval2 run -ap pair/pred.h5ad -ar pair/real.h5ad --preset vcc2026 -o results/
    """
    screen = Screen.read(adata, layer=layer, predictions=predictions, allow_counts=True)
    shared = [condition for condition in screen.test_conditions() if condition in screen.generated.conditions]
    if not shared:
        raise ValueError("No test condition has generated cells. Run `model.predict(adata)`, or give `predictions`.")
    observed = screen_counts(adata)
    if predictions is None:
        generated = to_counts(adata, layer=layer, seed=seed)
    else:
        generated = to_counts(predictions, screen=adata, seed=seed)[:, screen.generated.columns]
    controls = {cell_type: screen.control_rows(cell_type) for cell_type in dict.fromkeys(c.cell_type for c in shared)}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "pred.h5ad", folder / "real.h5ad"
    parts = (
        [(c, generated[screen.generated.rows(c)]) for c in shared],
        [(c, observed[screen.part(c, TEST)]) for c in shared],
    )
    for path, part in zip(paths, parts, strict=True):
        blocks = [(_name(c), c.cell_type, counts) for c, counts in part]
        blocks += [(NON_TARGETING, cell_type, observed[rows]) for cell_type, rows in controls.items()]
        sizes = [counts.shape[0] for *_, counts in blocks]
        obs = pd.DataFrame(
            {key: np.repeat([block[i] for block in blocks], sizes) for i, key in enumerate(("target", "cell_type"))}
        )
        stacked = sparse.csr_matrix(sparse.vstack([counts for *_, counts in blocks]), dtype=np.float32)
        _write(stacked, obs, adata.var_names, path)
    return paths


def _name(condition: Condition) -> str:
    return f"{condition.perturbation} {condition.dose} uM" if condition.dose else condition.perturbation


def write_vcc(
    predictions: AnnData,
    path: str | PathLike[str],
    *,
    screen: AnnData | None = None,
    controls: AnnData | None = None,
    genes: Sequence[str] | str | PathLike[str] | None = None,
    perturbation_key: str = "perturbation",
    context_key: str = "cell_type",
    context: str | None = None,
    n_cells: int = CELLS_PER_PERTURBATION,
    seed: int = 0,
) -> Path:
    """Write generated cells as a file that `vcc prep` accepts.

    Parameters
    ----------
    predictions
        Generated cells from `model.generate`, log-normalised or counts. Control cells are left out.
    path
        The `.h5ad` file to write.
    screen
        The screen with counts for the control cells, if the cells are log-normalised (:func:`to_counts`).
    controls
        Counts for the control cells on all `genes`, with the names in `obs["unlasting_source"]`. A gene without a
        prediction is copied from the source cell.
    genes
        The genes of the challenge in order, or its file `gene_names.csv`; by default those in `predictions`.
    perturbation_key
        `obs` column with the target.
    context_key
        `obs` column with the context (`A`, `B`, ...).
    context
        The context for all cells, without such a column.
    n_cells
        Cells per target and context, drawn if there are more.
    seed
        Seed for rounding and drawing.

    Returns
    -------
    The path. The file holds integer counts, `obs["target_gene"]` and `obs["context"]`.

    Raises
    ------
    KeyError
        If a column or a gene is missing.
    ValueError
        If a target has too few cells.

    Examples
    --------
    >>> import unlasting as ul
    >>> ul.io.write_vcc(cells, "prediction.h5ad", screen=adata, genes="gene_names.csv", context="A")  # doctest: +SKIP
    >>> # vcc prep prediction.h5ad --genes gene_names.csv --perts pert_counts.csv
    """
    require_integers(1, n_cells=n_cells)
    if perturbation_key not in predictions.obs:
        raise MissingKeyError(f"`predictions.obs` has no column {perturbation_key!r}. Name another `perturbation_key`.")
    if context is None and context_key not in predictions.obs:
        raise MissingKeyError(
            f"`predictions.obs` has no column {context_key!r}. Name another `context_key`, or give `context`."
        )
    keys = ScreenKeys.read(predictions if screen is None else screen)
    targets = predictions.obs[perturbation_key].astype(str).to_numpy()
    contexts = (
        np.full(len(targets), context) if context is not None else predictions.obs[context_key].astype(str).to_numpy()
    )
    rng = np.random.default_rng(seed)
    rows = []
    for name, group in pd.DataFrame({"c": contexts, "t": targets}).groupby(["c", "t"]).indices.items():
        if name[1] in (keys.control, NON_TARGETING):
            continue
        if len(group) < n_cells:
            raise ValueError(
                f"{name[1]!r} in context {name[0]!r} has {len(group)} cells, but {n_cells} are needed. Generate more "
                f"(`n_cells={n_cells}`), or lower `n_cells`."
            )
        rows.append(np.sort(rng.permutation(group)[:n_cells]))
    if not rows:
        raise ValueError("`predictions` holds no perturbed cells. Generate them with `model.generate`.")
    order = np.concatenate(rows)
    chosen = predictions[order].copy()
    names = list(predictions.var_names) if genes is None else _gene_names(genes)
    counts = _on_genes(chosen, to_counts(chosen, screen=screen, seed=seed), names, controls)
    obs = pd.DataFrame({"target_gene": targets[order], "context": contexts[order]})
    _write(sparse.csr_matrix(counts, dtype=np.float32), obs, names, Path(path))
    return Path(path)


def _gene_names(genes: Sequence[str] | str | PathLike[str]) -> list[str]:
    if not isinstance(genes, str | PathLike):
        return list(genes)
    names = pd.read_csv(genes, header=None)[0].astype(str).tolist()
    return names[1:] if names[0] in ("gene_name", "gene", "gene_symbol", "gene_names", "genes") else names


def _on_genes(
    predictions: AnnData, counts: sparse.csr_array, names: list[str], controls: AnnData | None
) -> sparse.csr_array:
    """Bring counts to the named genes; genes without a prediction come from the source cell."""
    places = predictions.var_names.get_indexer(names)
    missing = np.flatnonzero(places < 0)
    if not len(missing):
        return counts[:, places]
    source_key = f"{PREDICTION_KEY}_source"
    if controls is None or source_key not in predictions.obs:
        raise MissingKeyError(
            f"{len(missing)} genes among {len(names)} have no prediction, such as {names[missing[0]]!r}. Give `controls`: "
            f"counts for the control cells in `obs[{source_key!r}]` on all genes."
        )
    source = controls.obs_names.get_indexer(predictions.obs[source_key].astype(str))
    columns = controls.var_names.get_indexer([names[place] for place in missing])
    if (source < 0).any() or (columns < 0).any():
        raise MissingKeyError(
            f"`controls` lacks {(source < 0).sum()} source cells and {(columns < 0).sum()} genes. Give all control cells "
            "with raw counts on all genes."
        )
    rest = sparse.csr_array(controls.X)[source][:, columns]
    joined = sparse.csc_array(sparse.hstack([counts[:, places[places >= 0]], rest], format="csc"))
    order = np.empty(len(names), dtype=int)
    order[np.flatnonzero(places >= 0)] = np.arange((places >= 0).sum())
    order[missing] = (places >= 0).sum() + np.arange(len(missing))
    return sparse.csr_array(joined[:, order])


def _write(counts: sparse.csr_matrix, obs: pd.DataFrame, genes: Sequence[str], path: Path) -> None:
    obs = obs.astype("category").set_axis([f"cell-{i}" for i in range(len(obs))])
    with replacing(path) as temporary:
        AnnData(counts, obs=obs, var=pd.DataFrame(index=pd.Index(genes).astype(str))).write_h5ad(
            temporary, compression="gzip"
        )
