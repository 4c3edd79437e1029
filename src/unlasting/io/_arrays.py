"""Files with arrays, from tools without AnnData."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SAFE = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
}
"""Names that a pickle may use: arrays and dictionaries, and no code."""


class _ArrayUnpickler(pickle.Unpickler):
    """Read arrays, numbers, text, lists and dictionaries, and refuse everything else."""

    def find_class(self, module: str, name: str) -> Any:
        """Look up an allowed class."""
        if (module, name) not in SAFE:
            raise ValueError(
                f"The pickle asks for `{module}.{name}`, which is refused for safety. Save arrays instead: "
                "`numpy.savez(path, **arrays)`."
            )
        return super().find_class(module, name)


def read_arrays(path: Path) -> dict[str, Any]:
    """Read named arrays from `.npz`, `.pkl`, or a table (`.csv`, `.tsv`) with one row per condition.

    The columns of a table become `gene_names`. GEARS with uncertainty gives a pair of dictionaries; the first counts.

    Raises
    ------
    ValueError
        If the suffix is another, or a pickle holds more than arrays.
    """
    readers: dict[str, Callable[[], dict[str, Any]]] = {
        ".npz": lambda: dict(np.load(path, allow_pickle=False)),
        ".pkl": lambda: _unpickled(path),
        ".pickle": lambda: _unpickled(path),
        ".csv": lambda: _table(path, ","),
        ".tsv": lambda: _table(path, "\t"),
    }
    if path.suffix not in readers:
        raise ValueError(f"{path} ends in {path.suffix!r}. Give a file that ends in one of {list(readers)} or '.h5ad'.")
    return readers[path.suffix]()


def _unpickled(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        found = _ArrayUnpickler(file).load()
    if isinstance(found, tuple) and found:
        found = found[0]
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}. Save a dictionary from conditions to arrays.")
    return found


def _table(path: Path, separator: str) -> dict[str, Any]:
    table = pd.read_csv(path, sep=separator, index_col=0)
    values = table.to_numpy(dtype=np.float32)
    return {"pred": values, "pert_cat": np.asarray(table.index, dtype=str), "gene_names": np.asarray(table.columns)}
