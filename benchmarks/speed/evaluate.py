"""Time of `tl.evaluate`: 100 conditions x 300 cells x 2,000 genes, six predictors, three sets of genes, 5 repeats.

Run with `python benchmarks/speed/evaluate.py`. The target is 120 s on 2 cores. Where others use the machine, one
thread (`OMP_NUM_THREADS=1`) is faster than two that wait for each other.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from unlasting import tl


def screen(n_conditions: int, n_cells: int, n_genes: int, seed: int = 0) -> AnnData:
    """Make log-normalised cells of which three quarters of the entries are zero, with 50 changed genes per condition."""
    rng = np.random.default_rng(seed)
    names = ["control", *(f"T{i}" for i in range(n_conditions)), *(f"S{i}" for i in range(30))]
    sizes = [2000] + [n_cells] * n_conditions + [200] * 30
    usual = rng.gamma(0.3, 1.0, n_genes)
    observed, generated = [], []
    for name, size in zip(names, sizes, strict=True):
        rate = usual.copy()
        if name != "control":
            rate[rng.choice(n_genes, 50, replace=False)] *= rng.gamma(1.0, 2.0, 50)
        for blocks in (observed, generated):
            blocks.append(sparse.csr_matrix(np.log1p(rng.poisson(rate, (size, n_genes)) * 1.1).astype(np.float32)))
    labels = np.repeat(names, sizes)
    obs = pd.DataFrame({"perturbation": labels}, index=[f"cell{i}" for i in range(len(labels))])
    obs["unlasting_split"] = np.where(obs["perturbation"].str.startswith("T"), "test", "train")
    adata = AnnData(sparse.vstack(observed, format="csr"), obs=obs)
    adata.var_names = [f"gene{i}" for i in range(n_genes)]
    adata.layers["unlasting"] = sparse.vstack(generated, format="csr")
    embedding = rng.normal(size=(len(names), 32)).astype(np.float32)
    adata.uns["unlasting"] = {
        "target_embedding": {"names": np.array(names, dtype=object), "matrix": embedding, "origin": "prior"}
    }
    return adata


def main() -> None:
    """Time one evaluation, and print what took part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conditions", type=int, default=100)
    parser.add_argument("--cells", type=int, default=300)
    parser.add_argument("--genes", type=int, default=2000)
    arguments = parser.parse_args()
    adata = screen(arguments.conditions, arguments.cells, arguments.genes)
    start, start_of_cpu = time.perf_counter(), time.process_time()
    frame = tl.evaluate(
        adata,
        baselines=["no effect", "mean shift", "pooled", "linear", "nearest target"],
        metrics=["e_distance", "emd", "pearson_change", "pearson_change_centred", "mse_change"],
    )
    seconds, of_cpu = time.perf_counter() - start, time.process_time() - start_of_cpu
    print(
        f"{frame['condition'].nunique()} conditions, {frame['predictor'].nunique()} predictors, "
        f"{frame['metric'].nunique()} metrics, {frame['gene_set'].nunique()} sets of genes: {seconds:.1f} s, of which the "
        f"processors worked {of_cpu:.1f} s"
    )


if __name__ == "__main__":
    main()
