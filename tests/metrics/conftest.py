"""Pairs of samples that are hard on a metric, in every form in which matrices come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import sparse


def sparse_cells(rng: np.random.Generator, n: int, n_genes: int) -> np.ndarray:
    """Draw non-negative values of which most are zero."""
    return rng.gamma(2.0, 0.5, (n, n_genes)) * (rng.random((n, n_genes)) < 0.3)


def make_pair(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Draw two samples of the same genes."""
    rng = np.random.default_rng(0)
    x, y = sparse_cells(rng, 31, 12), sparse_cells(rng, 31, 12) + 0.2 * rng.random(12)
    match name:
        case "offset":
            return x + 1e3, y + 1e3
        case "unequal":
            return x[:9], np.vstack([y, y + 0.1])
        case "one cell":
            return x[:1], y
        case "one cell each":
            return x[:1], y[:1]
        case "one gene":
            return x[:, :1], y[:, :1]
        case "constant genes":
            x[:, :4], y[:, 2:6] = 0.7, 0.7
        case "ties":
            return np.round(x), np.round(y)
        case "zeros":
            return np.zeros((5, 3)), np.zeros((4, 3))
        case "zeros against values":
            return np.zeros_like(x), y
        case "repeated cells":
            return np.repeat(x[:3], 9, axis=0), np.vstack([x[:3], y[:5]])
        case "far clusters":
            return np.vstack([x, x + 1e3]), np.vstack([y[:20] + 1e3, y])
        case "negative":
            return x - 1.5, -y
        case "tiny values":
            return 1e-6 * x, 1e-6 * y
        case "many genes":
            return sparse_cells(rng, 14, 700), sparse_cells(rng, 17, 700)
    return x, y


PAIRS = [
    "plain",
    "offset",
    "unequal",
    "one cell",
    "one cell each",
    "one gene",
    "constant genes",
    "ties",
    "zeros",
    "zeros against values",
    "repeated cells",
    "far clusters",
    "negative",
    "tiny values",
    "many genes",
]

FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "float64": lambda x: x,
    "float32": lambda x: x.astype(np.float32),
    "column order": np.asfortranarray,
    "csr": sparse.csr_array,
    "csc float32": lambda x: sparse.csc_matrix(x.astype(np.float32)),
}


@pytest.fixture(scope="session")
def given_pairs() -> list[tuple[Any, Any, np.ndarray, np.ndarray, float]]:
    """Pairs in every form, the same values as dense float64, and the tolerance of the type."""
    found = []
    for name in PAIRS:
        for form in FORMS.values():
            x, y = (form(values) for values in make_pair(name))
            exact_x, exact_y = (np.asarray(v.toarray() if sparse.issparse(v) else v, dtype=np.float64) for v in (x, y))
            found.append((x, y, exact_x, exact_y, 1e-6 if x.dtype == np.float64 else 1e-4))
    return found


@pytest.fixture
def set_block(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Any], None]:
    """Set the size of blocks, which no argument changes, such as `_matrices.BLOCK_VALUES`."""
    return lambda name, value: monkeypatch.setattr(f"unlasting.metrics.{name}", value)


@pytest.fixture
def cells() -> Callable[..., np.ndarray]:
    return sparse_cells
