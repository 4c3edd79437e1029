"""A drug drives the cells of contexts that differ strongly towards one common state; two contexts are held out.

The law: the predicted change of a held-out context never has the opposite
sign of the change that the others show, and correlates with the truth at least as well as their plain mean change
(less 0.1), with a positive slope.
"""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse as sp

import unlasting as ul


@pytest.mark.slow
def test_contexts_towards_one_state():
    def contexts(seed):
        rng = np.random.default_rng(seed)
        n_genes, names = (100, [f"G{i}" for i in range(100)])
        common = rng.gamma(1.5, 1.5, n_genes) + 0.2
        fold = np.ones(n_genes)
        changed = rng.choice(n_genes, 25, replace=False)
        fold[changed] = np.where(rng.random(25) < 0.5, 3.0, 1 / 3)
        state = common * rng.lognormal(0, 0.5, n_genes)
        blocks, context, label = ([], [], [])
        for d in range(5):
            base = common * rng.lognormal(0, 0.8, n_genes)
            own = fold * (state / base) ** 0.6
            for name, f in (("control", np.ones(n_genes)), ("drugX", own)):
                depth = rng.lognormal(0, 0.3, 150)[:, None]
                blocks.append(rng.poisson(rng.gamma(4, 1 / 4, (150, n_genes)) * base * f * depth).astype(np.float32))
                context += [f"D{d}"] * 150
                label += [name] * 150
        a = ad.AnnData(sp.csr_matrix(np.concatenate(blocks)), var=pd.DataFrame(index=names))
        a.obs_names = [f"cell_{i}" for i in range(a.n_obs)]
        a.obs["context"], a.obs["perturbation"] = (pd.Categorical(context), pd.Categorical(label))
        return a

    worst = []
    for seed in range(4):
        a = contexts(seed)
        test = a.obs["context"].isin(["D1", "D3"]).to_numpy() & (a.obs["perturbation"] == "drugX").to_numpy()
        a.obs["fold"] = np.where(test, "test", "train")
        K = dict(perturbation_key="perturbation", control="control", split_key="fold")
        ul.pp.prepare(a, **K)
        ul.pp.grn(a, prior=None, cell_type_key="context", **K)
        ul.UnlastingModel.setup_anndata(a, cell_type_key="context", **K)
        m = ul.UnlastingModel(a)
        m.train(max_steps=20, accelerator="cpu", show_progress=False, seed=0)
        for d in ("D1", "D3"):
            ctrl = a[(a.obs.context == d) & (a.obs.perturbation == "control")].X.toarray().mean(0)
            true = a[(a.obs.context == d) & (a.obs.perturbation == "drugX")].X.toarray().mean(0) - ctrl
            new = m.generate("drugX", 150, cell_type=d, seed=0, show_progress=False)
            pred = np.asarray(new.X.toarray() if sp.issparse(new.X) else new.X).mean(0) - ctrl
            r = float(np.corrcoef(pred, true)[0, 1])
            size = float(pred @ true / (true @ true))
            worst.append((r, size))
            others = np.mean(
                [
                    a[(a.obs.context == o) & (a.obs.perturbation == "drugX")].X.toarray().mean(0)
                    - a[(a.obs.context == o) & (a.obs.perturbation == "control")].X.toarray().mean(0)
                    for o in ("D0", "D2", "D4")
                ],
                axis=0,
            )
            worst[-1] += (float(np.corrcoef(others, true)[0, 1]),)
    ok = all((r > base - 0.1 and slope > 0.2 for r, slope, base in worst))
    assert ok, worst
