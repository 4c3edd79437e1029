"""Files of the commands: checked before the computation, complete or absent after it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlasting._files import replacing, replacing_folder, standing

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from unlasting import UnlastingModel

TABLES = {".csv": ",", ".tsv": "\t"}


def may_write(path: Path, force: bool, *, suffixes: Sequence[str] = (), is_folder: bool = False) -> None:
    """Refuse an output before the computation."""
    is_folder = is_folder or path.suffix == ".zarr"
    if path.exists() and not force:
        raise FileExistsError(f"{str(path)!r} exists already. Pass --force to replace it, or another place.")
    if path.exists() and path.is_dir() != is_folder:
        raise FileExistsError(f"{str(path)!r} is a {'file' if is_folder else 'folder'}. Choose another place.")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{str(path.absolute().parent)!r} is read-only. Choose another place.")
    if suffixes and path.suffix not in suffixes:
        raise ValueError(f"{str(path)!r} must end in {' or '.join(suffixes)}. Choose another name.")


def require_model(folder: Path) -> None:
    """Refuse a folder without a saved model, before the package is imported."""
    if not (standing(folder) / "model.json").is_file():
        raise FileNotFoundError(
            f"{str(folder)!r} holds no saved model. Run `unlasting train FILE --model {folder}` first, or name another "
            "folder with --model."
        )


def read_cells(file: Path, layer: str | None = None) -> AnnData:
    """Read a screen, with a layer in place of `X` if asked for."""
    import anndata

    from unlasting.screen import expression, use_plain_strings

    form, read = ("zarr", anndata.read_zarr) if file.is_dir() else ("h5ad", anndata.read_h5ad)
    try:
        adata = read(file)
    except (OSError, KeyError, ValueError) as error:
        message = f"{str(file)!r} cannot be read as {form}: {error}. Give a complete h5ad file or zarr store."
        raise ValueError(message) from error
    use_plain_strings(adata)
    if layer is not None:
        adata.X = expression(adata, layer)
    return adata


def write_cells(adata: AnnData, path: Path) -> None:
    """Write cells as h5ad or zarr."""
    from unlasting.screen import writable

    adata = writable(adata)
    if path.suffix == ".zarr":
        with replacing_folder(path) as folder:
            adata.write_zarr(folder)
    else:
        with replacing(path) as file:
            adata.write_h5ad(file, compression="gzip")


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as csv or tsv."""
    with replacing(path) as file:
        table.to_csv(file, index=False, sep=TABLES[path.suffix])


def read_prior(text: str) -> Any:
    """Read a prior: a name or folder for `pp.grn`, or a table of edges or numbers."""
    import pandas as pd

    path = Path(text)
    if path.suffix not in TABLES:
        return text
    table = pd.read_csv(path, sep=TABLES[path.suffix])
    return table if {"source", "target"} <= set(table.columns) else table.set_index(table.columns[0])


def prepare(adata: AnnData, **options: Any) -> None:
    """Call `pp.prepare`; log-normalised values without counts are kept, and said."""
    import unlasting as ul
    from unlasting.pp._genes import find_counts
    from unlasting.screen import check_log_normalised, expression, logger

    if find_counts(adata)[0] is None:
        try:
            check_log_normalised(expression(adata), "`adata.X`")
        except ValueError:
            ul.pp.prepare(adata, **options)  # says what is wrong
        logger.warning(
            "The file holds no raw counts: its values are taken as log-normalised, and all genes are kept. If they are "
            "something else, put raw counts into X or layers['counts']."
        )
        return
    ul.pp.prepare(adata, **options)


def prepare_as(model: UnlastingModel, adata: AnnData) -> AnnData:
    """Normalise cells as in training, unless `pp.prepare` has done so."""
    if "prepare" not in adata.uns.get("unlasting", {}) and "target_sum" in model.preparation_:
        model.prepare(adata)
    return adata
