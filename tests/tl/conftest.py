"""A small screen with planted effects, in which everything is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

N_GENES = 30


def _cells(n: int, shift: dict[int, float], rng: np.random.Generator) -> np.ndarray:
    values = rng.normal(2.0, 0.4, (n, N_GENES))
    for gene, by in shift.items():
        values[:, gene] += by
    # zeros as after dropout
    return np.where(rng.random((n, N_GENES)) < 0.15, 0.0, np.clip(values, 0.01, None))


@pytest.fixture(scope="session")
def planted_screen() -> Callable[..., AnnData]:
    """Make a screen with controls, `none` (no effect), `half` (half of the cells gain genes 0-5), `all` (all lose 6-11).

    The layer holds cells of the same distributions; each comes from a control cell that is named in `obs`.
    """

    def make(
        n: int = 240,
        *,
        share: float = 0.5,
        storage: Callable[[np.ndarray], object] = np.asarray,
        dtype: type = np.float32,
        cell_types: tuple[str, ...] = ("",),
        seed: int = 0,
    ) -> AnnData:
        rng = np.random.default_rng(seed)
        up, down = dict.fromkeys(range(6), 2.0), dict.fromkeys(range(6, 12), -1.5)

        def draw(label: str) -> np.ndarray:
            if label == "half":
                responding = int(round(share * n))
                return np.vstack([_cells(responding, up, rng), _cells(n - responding, {}, rng)])
            return _cells(n, down if label == "all" else {}, rng)

        labels = ("control", "none", "half", "all")
        blocks = [(cell_type, label) for cell_type in cell_types for label in labels]
        observed = np.vstack([draw(label) for _, label in blocks])
        generated = np.vstack([draw(label) for _, label in blocks])
        obs = pd.DataFrame(
            {
                "perturbation": np.repeat([label for _, label in blocks], n),
                "cell_type": np.repeat([cell_type for cell_type, _ in blocks], n),
                "responds": np.tile(np.arange(n) < round(share * n), len(blocks)),
            },
            index=[f"cell{i}" for i in range(n * len(blocks))],
        )
        adata = AnnData(storage(observed.astype(dtype)), obs=obs)
        adata.var_names = [f"gene{i}" for i in range(N_GENES)]
        adata.layers["unlasting"] = storage(generated.astype(dtype))
        adata.obs["unlasting_split"] = np.tile(["train", "train", "test"], adata.n_obs)[: adata.n_obs]
        adata.obs.loc[adata.obs["perturbation"] == "control", "unlasting_split"] = "train"
        controls = {
            c: adata.obs_names[(obs["perturbation"] == "control") & (obs["cell_type"] == c)] for c in cell_types
        }
        adata.obs["unlasting_source"] = [rng.choice(controls[c]) for c in obs["cell_type"]]
        return adata

    return make


STORAGES = {"dense": np.asarray, "csr": sparse.csr_matrix, "csc": sparse.csc_matrix}


@pytest.fixture(params=list(STORAGES))
def storage(request: pytest.FixtureRequest) -> Callable[[np.ndarray], object]:
    """Every way in which a matrix may be stored."""
    return STORAGES[request.param]
