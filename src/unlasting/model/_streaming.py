"""An h5ad file written part by part, in any processes, which a repeated call completes after a kill."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
import socket
import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, Executor, as_completed
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import anndata
import h5py
import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from anndata.experimental import concat_on_disk
from anndata.io import write_elem
from tqdm.auto import tqdm

from unlasting._files import PARTIAL, drop_folder, replacing
from unlasting.screen import listed, logger, writable_table

_REQUEST: Final = "request.json"
_VALUES_IN_PART: Final = 4_000_000
"""Cells times genes in a part: with 2,000 genes 2,000 cells, or about 12 MB."""
_MOST_PARTS: Final = 200
"""All parts are open while joined, and operating systems limit the number of open files."""
_LOADED_ELEMENTS: Final = 10_000_000
"""Stored values held in memory while parts are joined."""
_JOINED: Final = "joined.h5ad"
_IMPORTED_IN: Final = os.getpid()
_in_thread = threading.local()  # two threads of a worker do not share a generator


def write_in_parts(
    path: str | Path,
    cells: Callable[[range], AnnData],
    n_cells: int,
    var: pd.DataFrame,
    uns: Mapping[str, Any],
    request: Mapping[str, str | int],
    overwrite: bool,
    show_progress: bool,
    executor: Executor | None,
) -> AnnData:
    """Write missing parts, join all, and open the file.

    Each part, and the file, gets its name when complete. `cells` makes the rows of a part, in the workers of an executor
    if there is one. `request` fingerprints everything behind the cells but the version: earlier parts are kept only if it
    is the same.

    Workers of an earlier call may still be running. Incomplete files thus have unique names, and nobody removes them before
    the end.
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
    damaged = [file for file in files if file.exists() and _is_damaged(file)]
    if damaged:
        logger.warning(
            "%d parts in %r are damaged, as a machine that failed leaves them, and are made again: %s.",
            len(damaged),
            str(folder),
            listed([file.name for file in damaged]),
        )
    for file in damaged:
        file.unlink()
    missing = {file: rows for file, rows in zip(files, parts, strict=True) if not file.exists()}
    with tqdm(total=len(missing), desc="Generating cells", unit="part", disable=None if show_progress else True) as bar:
        if executor is None:
            for file, rows in missing.items():
                with replacing(file, _partial(file)) as partial:
                    cells(rows).write_h5ad(partial)
                bar.update()
        elif missing:
            _make_in_workers(executor, cells, missing, folder, bar)
    for left in folder.glob(f"{PARTIAL}*-{_JOINED}"):
        left.unlink(missing_ok=True)  # as large as the result
    with replacing(path, _partial(folder / _JOINED)) as partial:
        concat_on_disk(files, partial, max_loaded_elems=_LOADED_ELEMENTS)
        with h5py.File(partial, "r+") as joined:
            write_elem(joined, "uns", dict(uns))
            write_elem(joined, "var", writable_table(var, "var", []))
    drop_folder(folder)
    return anndata.read_h5ad(path, backed="r")


def require_executor(executor: object, path: str | Path | None) -> None:
    """Refuse an executor that cannot write parts."""
    if executor is not None and not isinstance(executor, Executor):
        raise TypeError(
            f"`executor` is a {type(executor).__name__}, not a `concurrent.futures.Executor`. Pass a "
            "`ProcessPoolExecutor`, or `client.get_executor()` for a Dask client."
        )
    if executor is not None and path is None:
        raise ValueError(
            "`executor` is given without `path`, but its workers write parts of a file. Pass `path='cells.h5ad'` too, or "
            "leave `executor` out."
        )


def _make_in_workers(
    executor: Executor, cells: Callable[[range], AnnData], missing: Mapping[Path, range], folder: Path, bar: tqdm
) -> None:
    """Make parts in workers, which read the common `cells` once from the shared folder."""
    content = pickle.dumps(cells)
    shared = folder.absolute() / f"cells-{uuid.uuid4().hex}.pickle"
    with replacing(shared, _partial(shared)) as partial:
        partial.write_bytes(content)
    for older in set(folder.glob("cells-*.pickle")) - {folder / shared.name}:
        older.unlink(missing_ok=True)  # workers of a call that failed end without it
    futures = []
    try:
        digest = digest_of(content)
        for file, rows in missing.items():
            futures.append(executor.submit(_make_part, shared, digest, rows, file.name))
        for future in as_completed(futures):
            future.result()
            bar.update()
    except BaseException as error:
        for future in futures:
            future.cancel()
        if isinstance(error, BrokenExecutor):
            error.add_note('In a script, start processes below `if __name__ == "__main__":`; they import the script.')
        if isinstance(error, AttributeError | pickle.PicklingError):
            error.add_note("Classes of your own must be in a module that the workers import, not in a notebook.")
        error.add_note(
            f"Complete parts stay in {str(folder)!r}. Repeat the call to make the missing ones, with a new executor if "
            "workers died, or without one."
        )
        raise


def _make_part(shared: Path, digest: str, rows: range, name: str) -> None:
    """Make a part in a worker. A thread keeps the last `shared` file that it read."""
    if _is_fork() or (multiprocessing.parent_process() is not None and "OMP_NUM_THREADS" not in os.environ):
        torch.set_num_threads(1)
    file = shared.with_name(name)
    if file.exists():  # an earlier call's worker made it
        return
    if getattr(_in_thread, "digest", None) != digest:
        _in_thread.__dict__.clear()
        _in_thread.cells, _in_thread.digest = _read(shared, digest), digest
    with replacing(file, _partial(file)) as partial:
        _in_thread.cells(rows).write_h5ad(partial)
        if not shared.exists():
            raise FileNotFoundError(f"{str(shared)!r} was removed: another call completed or replaced the parts.")


def _is_fork() -> bool:
    """Whether this process is a fork: it has no threads but its own, and torch would wait for the others."""
    return os.getpid() != _IMPORTED_IN


def _read(shared: Path, digest: str) -> Callable[[range], AnnData]:
    """Read the common part of all tasks; a file that another program wrote is refused."""
    try:
        content = shared.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"A worker on {socket.gethostname()!r} cannot read {str(shared)!r}. Choose a `path` in a folder that all "
            "workers share under the same name."
        ) from error
    if digest_of(content) != digest:
        raise ValueError(f"{str(shared)!r} was changed by another program. Repeat the call.")
    return pickle.loads(content)


def _is_damaged(file: Path) -> bool:
    """Whether a file is empty, cut off, or not HDF5."""
    try:
        with h5py.File(file, "r"):
            return False
    except OSError as error:
        if error.errno is not None:  # the system refused: it says nothing about the content
            raise
        return True


def _partial(file: Path) -> Path:
    """Name an incomplete file in the folder of parts."""
    return file.with_name(f"{PARTIAL}{uuid.uuid4().hex}-{file.name}")


def digest_of(*parts: str | bytes | np.ndarray) -> str:
    """Fingerprint text, bytes and arrays."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        content = content if isinstance(content, bytes) else np.ascontiguousarray(content).tobytes()
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


def _open_folder(folder: Path, request: Mapping[str, str | int], overwrite: bool) -> None:
    """Find or make a request's folder."""
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
    if not written.exists():
        if any(not file.name.startswith(PARTIAL) for file in folder.iterdir()):
            raise FileExistsError(
                f"{str(folder)!r}, the folder for parts, holds other files. Move them, or choose another `path`."
            )
        with replacing(written, _partial(written)) as partial:
            partial.write_text(json.dumps(request, indent=1), encoding="utf-8")
