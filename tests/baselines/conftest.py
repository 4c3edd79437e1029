"""A small screen in which every effect is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

N_GENES = 12
N_CELLS = 15


@pytest.fixture
def screen() -> AnnData:
    """Two cell types with singles A, B, C (trained) and D (test), the pairs A+B (trained) and B+C (test).

    A type `new` has controls only. Gene names are those of the targets A and B and others; C and D are not measured.
    """
    rng = np.random.default_rng(0)
    parts, labels, types, split = [], [], [], []
    for place, cell_type in enumerate(("one", "two", "new")):
        names = ["control", "A", "B", "C", "D", "A+B", "B+C"] if cell_type != "new" else ["control", "A"]
        for i, name in enumerate(names):
            values = rng.normal(2 + 0.3 * place, 0.3, (N_CELLS, N_GENES))
            values[:, i] += 1
            parts.append(np.where(rng.random(values.shape) < 0.2, 0, np.abs(values)))
            labels += [name] * N_CELLS
            types += [cell_type] * N_CELLS
            held_out = name in ("D", "B+C") or (cell_type == "new" and name != "control")
            split += ["test" if held_out else "train"] * N_CELLS
    obs = pd.DataFrame({"perturbation": labels, "cell_type": types, "unlasting_split": split})
    obs.index = [f"cell{i}" for i in range(len(obs))]
    adata = AnnData(sparse.csr_matrix(np.vstack(parts).astype(np.float32)), obs=obs)
    adata.var_names = ["A", "B", *(f"gene{i}" for i in range(N_GENES - 2))]
    adata.uns["unlasting"] = {
        "keys": {"cell_type_key": "cell_type"},
        "target_embedding": {
            "names": np.array(["A", "B", "C", "D"], dtype=object),
            "matrix": np.array([[1, 0, 0], [0, 1, 0], [0.6, 0, 0.8], [0.8, 0, 0.6]], dtype=np.float32),
            "origin": "prior",
        },
    }
    return adata
