"""Baselines that follow the nearest target choose the source of similarity by leaving trained targets out."""

from __future__ import annotations

import anndata
import numpy as np
import pytest

import unlasting as ul
from unlasting.baselines import NearestTarget
from unlasting.metrics import e_distance

TARGETS = ["IFNGR1", "IFNGR2", "JAK2", "STAT1", "IRF1", "SMAD4", "BRD4", "CUL3"]


@pytest.mark.slow
def test_the_source_with_the_smallest_errors_for_left_out_targets_is_followed():
    """Against the same baseline with each source given as its embedding."""
    adata = ul.datasets.papalexi()
    rng = np.random.default_rng(0)
    groups = adata.obs.groupby("perturbation", observed=True).indices
    rows = np.concatenate([rng.permutation(groups[name])[:100] for name in ["control", *TARGETS]])
    adata = anndata.AnnData(adata.X[rows], obs=adata.obs.iloc[rows], var=adata.var)
    ul.pp.split(adata, "unseen_perturbation", test=["STAT1"], val_fraction=0.0)
    ul.pp.prepare(adata)
    ul.pp.grn(adata)
    fitted = NearestTarget().fit(adata)
    cells = {name: adata[(adata.obs["perturbation"] == name).to_numpy()].X.toarray() for name in TARGETS}
    errors, guesses = {}, {}
    for source in ("default", "go", "reactome", "string"):
        alone = adata.copy()
        ul.pp.grn(alone, prior=source)
        known = alone.uns["unlasting"]["target_embedding"]
        row = {name: i for i, name in enumerate(known["names"])}
        unit = {name: known["matrix"][row[name]].astype(float) for name in TARGETS}
        nearest = {
            name: max(
                (other for other in TARGETS if other not in (name, "STAT1")), key=lambda o, n=name: unit[n] @ unit[o]
            )
            for name in TARGETS
        }
        errors[source] = sum(
            e_distance(cells[nearest[name]], cells[name], unbiased=True) for name in TARGETS if name != "STAT1"
        )
        guesses[source] = nearest["STAT1"]
    best = min(errors, key=errors.get)
    found = fitted.predict("STAT1", 100)
    expected = cells[guesses[best]]
    np.testing.assert_allclose(np.sort(found.sum(axis=1)), np.sort(expected.sum(axis=1)), rtol=1e-5)
