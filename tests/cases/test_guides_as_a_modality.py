"""Guides are a modality of a MuData, several guides of one gene in a cell, two in some cells.

Source: pinellolab/PerTurbo #5; satijalab/seurat #4591; Katsevich-Lab/sceptre #38. Expected: labels by target; works
through `setup_mudata`.
"""

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from scipy import sparse as sp
from simulated import TARGETS, TINY, screen, trial

import unlasting as ul


@pytest.mark.slow
def test_guides_as_a_modality():
    a = screen(combos=[("MYC", "SPI1")], write=lambda t: t if isinstance(t, str) else "+".join(t))
    lab = a.obs.perturbation.astype(str).to_numpy()
    names = [f"{t}_g{i}" for t in TARGETS for i in (1, 2)] + ["NT_g1", "NT_g2"]
    x = np.random.default_rng(0).poisson(0.3, (a.n_obs, len(names)))
    for r, l in enumerate(lab):
        for part in l.split("+"):
            x[r, names.index(f"{('NT' if part == 'control' else part)}_g{1 + r % 2}")] += 40
    g = ad.AnnData(
        sp.csr_matrix(x.astype(np.float32)),
        obs=pd.DataFrame(index=a.obs_names),
        var=pd.DataFrame({"target": [n[:-3] if not n.startswith("NT") else "NT" for n in names]}, index=names),
    )
    b = a.copy()
    del b.obs["perturbation"]
    mdata = md.MuData({"rna": b, "guides": g})
    with trial() as t:
        ul.pp.assign_guides(mdata["rna"], mdata["guides"], target_key="target", control="NT")
        ul.pp.split(mdata["rna"], test=["IRF1"])
        ul.pp.prepare(mdata["rna"], min_cells=1)
        ul.pp.grn(mdata["rna"])
        ul.UnlastingModel.setup_mudata(
            mdata, control="NT", modalities={"layer": "rna", "perturbation_key": "rna", "split_key": "rna"}
        )
        m = ul.UnlastingModel(mdata, **TINY)
        m.train(max_steps=2, accelerator="cpu", show_progress=False)
        n = m.generate("STAT1", 5, show_progress=False)
    assert (
        t.error is None
        and np.mean(mdata["rna"].obs.perturbation.astype(str).to_numpy() == np.where(lab == "control", "NT", lab))
        > 0.98
    ), str(t.error or "labels are right")
