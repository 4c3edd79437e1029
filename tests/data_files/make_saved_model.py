"""Save a model in the present format, with cells that it has to generate for ever.

    python tests/data_files/make_saved_model.py

Run once for each format; `tests/model/test_saving.py` loads it with every later version.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scvi
from scipy import sparse

import unlasting as ul

PLACE = Path(__file__).parent / "saved_model_format_2"
SIZES = {"width": 6, "gene_features": 4, "attention_features": 4, "time_frequencies": 8, "condition_features": 8}
CALL = {"perturbations": ["T1", "T1+T2"], "n_cells": 20, "seed": 4, "show_progress": False}


def main() -> None:
    """Simulate a screen, train on it, save the model and its generated cells."""
    adata = ul.datasets.simulate_screen(
        n_cells=12, n_controls=40, n_genes=12, n_targets=3, n_unmeasured=0, n_inert=0, n_downstream=3, mean_counts=15.0
    )
    ul.pp.split(adata, "random")
    ul.pp.prepare(adata)
    ul.pp.grn(adata, prior=None)
    adata.X = sparse.csr_matrix(adata.X)
    adata.obs = adata.obs[["perturbation", "unlasting_split"]]
    adata.var = adata.var[[]]
    del adata.layers, adata.uns["simulation"]
    ul.UnlastingModel.setup_anndata(adata)
    scvi.settings.seed = 0
    model = ul.UnlastingModel(adata, **SIZES)
    model.train(max_steps=100, batch_size=32, lr=2e-3, seed=0, accelerator="cpu", show_progress=False)
    model.save(PLACE / "model", overwrite=True, save_anndata=True)
    new, beside = model.generate(**CALL), model.predict(cells="all", seed=4, copy=True, show_progress=False)
    np.savez_compressed(PLACE / "cells.npz", generated=new.X.toarray(), predicted=beside.layers["unlasting"].toarray())


if __name__ == "__main__":
    main()
