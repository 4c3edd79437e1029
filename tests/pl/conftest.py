"""A screen in which every result that a figure reads is stored, as it comes back from a file."""

from __future__ import annotations

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from unlasting import tl

CONDITIONS = ("A", "B", "QUIET")
GENES = [f"gene{i}" for i in range(25)]


def _effects(rng: np.random.Generator) -> pd.DataFrame:
    parts = []
    for scale, name in enumerate(CONDITIONS[::-1]):
        change = rng.normal(0, 0.1 + scale, len(GENES))
        parts.append(
            pd.DataFrame(
                {
                    "condition": name,
                    "cell_type": "",
                    "gene": GENES,
                    "observed": change,
                    "predicted": 0.8 * change,
                    "is_de20": np.abs(change) >= np.sort(np.abs(change))[-20],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _scores() -> tuple[pd.DataFrame, pd.DataFrame]:
    rows, summary = [], []
    for metric in ("e_distance", "emd"):
        for predictor, factor in (("unlasting", 0.2), ("no effect", 1.0), ("pooled", 4.0)):
            for i, name in enumerate(CONDITIONS):
                rows.append(
                    {
                        "condition": name,
                        "cell_type": "",
                        "gene_set": "all",
                        "metric": metric,
                        "predictor": predictor,
                        "value": factor,
                        "floor": 0.0,
                        "no_effect": 1.0 + i,
                        "normalised": factor + 0.1 * i if name != "QUIET" else np.nan,
                        "n_cells": 100,
                        "signal": name != "QUIET",
                    }
                )
            interval = {"score": factor, "low": 0.9 * factor, "high": 1.1 * factor, "best": 0.0}
            summary.append({"predictor": predictor, "gene_set": "all", "metric": metric, **interval})
    return pd.DataFrame(rows), pd.DataFrame(summary)


@pytest.fixture(scope="session")
def _read(tmp_path_factory: pytest.TempPathFactory) -> anndata.AnnData:
    rng = np.random.default_rng(0)
    n = 60
    labels = np.repeat(["control", *CONDITIONS], n)
    values = np.where(rng.random((4 * n, 25)) < 0.2, 0, rng.normal(2, 0.4, (4 * n, 25)))
    values[n : 2 * n, :3] = np.where(values[n : 2 * n, :3] > 0, values[n : 2 * n, :3] + 3, 0)
    adata = anndata.AnnData(values.astype(np.float32), obs=pd.DataFrame({"perturbation": labels, "dose": 1.0}))
    adata.obs_names = [f"cell{i}" for i in range(4 * n)]
    adata.var_names = GENES
    adata.obs["unlasting_source"] = rng.choice(adata.obs_names[:n], 4 * n)
    adata.layers["unlasting"] = adata.X.copy()
    adata.obs.loc[adata.obs_names[n : n + 30], "dose"] = 0.1
    tl.bimodality(adata, genes=GENES[:8])
    tl.embedding(adata)
    tl.rank(adata)
    adata.uns["unlasting"]["keys"] = {"dose_key": "dose"}
    tl.dose_response(adata, drugs=["A", "B"], n_genes=4)
    scores, summary = _scores()
    edges = pd.DataFrame(
        {
            "source": ["gene0", "gene1", "TARGET", "gene0", "gene3", "gene9"],
            "target": ["gene1", "gene0", "gene0", "gene2", "gene1", "gene10"],
            "weight": [0.9, 0.9, 0.5, -0.3, 0.4, 1.0],
            "origin": ["coexpression", "coexpression", "go", "go", "coexpression", "go"],
        }
    )
    chosen = pd.DataFrame({"condition": ["B", "A", "C"], "gain": [0.5, 0.2, 0.1], "remaining": [0.5, 0.3, 0.2]})
    results = {
        "design": chosen,
        "effects": _effects(rng),
        "scores": scores,
        "score_summary": summary,
        "grn": {"nodes": np.array([*GENES, "TARGET", "LONELY"], dtype=object), "edges": edges, "report": {}},
        "prepare": {"target_sum": 1e4},
    }
    adata.uns["unlasting"] = {**adata.uns["unlasting"], **results}
    path = tmp_path_factory.mktemp("pl") / "screen.h5ad"
    adata.write_h5ad(path)
    return anndata.read_h5ad(path)


@pytest.fixture
def screen(_read: anndata.AnnData) -> anndata.AnnData:
    """The screen with all results."""
    return _read.copy()


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")
