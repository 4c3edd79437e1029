"""A drug drives contexts that differ strongly towards one common state; two contexts are held out."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import unlasting as ul

N_GENES, N_CELLS = 100, 150
LABELS = {"perturbation_key": "perturbation", "control": "control", "split_key": "fold"}


def screen(seed: int) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    common = rng.gamma(1.5, 1.5, N_GENES) + 0.2
    fold, changed = np.ones(N_GENES), rng.choice(N_GENES, 25, replace=False)
    fold[changed] = np.where(rng.random(25) < 0.5, 3.0, 1 / 3)
    state = common * rng.lognormal(0, 0.5, N_GENES)
    counts, contexts, perturbations = [], [], []
    for context in range(5):
        base = common * rng.lognormal(0, 0.8, N_GENES)
        for name, change in (("control", np.ones(N_GENES)), ("drugX", fold * (state / base) ** 0.6)):
            depth = rng.lognormal(0, 0.3, N_CELLS)[:, None]
            rate = rng.gamma(4, 1 / 4, (N_CELLS, N_GENES)) * base * change * depth
            counts.append(rng.poisson(rate).astype(np.float32))
            contexts += [f"D{context}"] * N_CELLS
            perturbations += [name] * N_CELLS
    adata = ad.AnnData(
        sparse.csr_matrix(np.concatenate(counts)), var=pd.DataFrame(index=[f"G{i}" for i in range(N_GENES)])
    )
    adata.obs_names = [f"cell_{i}" for i in range(adata.n_obs)]
    adata.obs["context"], adata.obs["perturbation"] = pd.Categorical(contexts), pd.Categorical(perturbations)
    held_out = adata.obs["context"].isin(["D1", "D3"]) & (adata.obs["perturbation"] == "drugX")
    adata.obs["fold"] = np.where(held_out, "test", "train")
    return adata


def mean(adata: ad.AnnData, context: str, perturbation: str) -> np.ndarray:
    chosen = (adata.obs["context"] == context) & (adata.obs["perturbation"] == perturbation)
    return np.asarray(adata[chosen.to_numpy()].X.mean(axis=0)).ravel()


@pytest.mark.slow
def test_no_held_out_context_is_predicted_backwards() -> None:
    """A prediction correlates with the truth about as well as the others' mean change, with a positive slope."""
    for seed in range(4):
        adata = screen(seed)
        ul.pp.prepare(adata, **LABELS)
        ul.pp.grn(adata, prior=None, cell_type_key="context", **LABELS)
        ul.UnlastingModel.setup_anndata(adata, cell_type_key="context", **LABELS)
        model = ul.UnlastingModel(adata)
        model.train(max_steps=0, accelerator="cpu", show_progress=False, seed=0)
        true = {f"D{i}": mean(adata, f"D{i}", "drugX") - mean(adata, f"D{i}", "control") for i in range(5)}
        others = np.mean([true[context] for context in ("D0", "D2", "D4")], axis=0)
        for context in ("D1", "D3"):
            cells = model.generate("drugX", N_CELLS, cell_type=context, seed=0, show_progress=False)
            found = np.asarray(cells.X.mean(axis=0)).ravel() - mean(adata, context, "control")
            r = np.corrcoef(found, true[context])[0, 1]
            assert r > np.corrcoef(others, true[context])[0, 1] - 0.1, (seed, context, r)
            assert found @ true[context] > 0.2 * true[context] @ true[context], (seed, context)
