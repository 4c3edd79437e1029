"""An h5ad file written part by part, which a repeated call completes after a kill."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.experimental import concat_on_disk
from anndata.io import write_elem
from tqdm.auto import tqdm

from unlasting._files import PARTIAL, drop_folder, replacing
from unlasting.screen import writable_table

_REQUEST: Final = "request.json"
_VALUES_IN_PART: Final = 32_000_000
"""Cells times genes in a part: with 2,000 genes 16,000 cells, or about 100 MB."""
_MOST_PARTS: Final = 200
"""All parts are open while joined, and operating systems limit the number of open files."""
_LOADED_ELEMENTS: Final = 10_000_000
"""Stored values held in memory while parts are joined."""


def write_in_parts(
    path: str | Path,
    cells: Callable[[range], AnnData],
    n_cells: int,
    var: pd.DataFrame,
    uns: Mapping[str, Any],
    request: Mapping[str, str | int],
    overwrite: bool,
    show_progress: bool,
) -> AnnData:
    """Write missing parts, join all, and open the file.

    Each part, and the file, gets its name when complete. `cells` makes the rows of a part. `request` fingerprints
    everything behind the cells but the version: earlier parts are kept only if it is the same.
    """
    path, n_genes = Path(path), len(var)
    if path.suffix != ".h5ad":
        raise ValueError(f"`path` is {str(path)!r}; cells are written as h5ad, so its name must end in '.h5ad'.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{str(path)!r} exists already. Pass `overwrite=True` to replace it.")
    folder = path.with_name(f"{path.name}.parts")
    step = max(1, _VALUES_IN_PART // n_genes, -(-n_cells // _MOST_PARTS))
    parts = [range(i, min(i + step, n_cells)) for i in range(0, n_cells, step)]
    _open_folder(folder, {"version": version("unlasting"), **request, "n_parts": len(parts)}, overwrite)
    files = [folder / f"{number:06d}.h5ad" for number in range(len(parts))]
    missing = [number for number, file in enumerate(files) if not file.exists()]
    bar = tqdm(missing, desc="Generating cells", unit="part", disable=None if show_progress else True)
    for number in bar:
        with replacing(files[number]) as partial:
            cells(parts[number]).write_h5ad(partial)
    with replacing(path) as partial:
        concat_on_disk(files, partial, max_loaded_elems=_LOADED_ELEMENTS)
        with h5py.File(partial, "r+") as joined:
            write_elem(joined, "uns", dict(uns))
            write_elem(joined, "var", writable_table(var, "var", []))
    drop_folder(folder)
    return anndata.read_h5ad(path, backed="r")


def digest_of(*parts: str | np.ndarray) -> str:
    """Fingerprint text and arrays."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        content = part.encode() if isinstance(part, str) else np.ascontiguousarray(part).tobytes()
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


def _open_folder(folder: Path, request: Mapping[str, str | int], overwrite: bool) -> None:
    """Find or make a request's folder, and remove incomplete parts."""
    written = folder / _REQUEST
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{str(folder)!r}, the folder for parts, is a file. Move it, or choose another `path`.")
    if written.exists():
        other = json.loads(written.read_text(encoding="utf-8"))
        different = sorted(key for key in {*request, *other} if request.get(key) != other.get(key))
        if different and not overwrite:
            raise FileExistsError(
                f"{str(folder)!r} holds parts of another call, which differs in {', '.join(different)}. Repeat that call "
                "to complete it, choose another `path`, or pass `overwrite=True` to drop its parts."
            )
        if different:
            drop_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for partial in folder.glob(f"{PARTIAL}*"):
        partial.unlink()
    if not written.exists():
        if any(folder.iterdir()):
            raise FileExistsError(
                f"{str(folder)!r}, the folder for parts, holds other files. Move them, or choose another `path`."
            )
        with replacing(written) as partial:
            partial.write_text(json.dumps(request, indent=1), encoding="utf-8")
