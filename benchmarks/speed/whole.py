"""Time each step from raw counts on disk to predicted test cells, in one process, with its peak memory.

    python whole.py --cells 90000 --genes 5000 --targets 237

The screen is simulated: negative binomial counts, a tenth of them above 0, human gene symbols, and targets that share
20 programs. Writes `results/whole.csv`. Training has its full length, since early stopping depends on the screen.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.io import write_elem
from scipy import sparse

import unlasting as ul
from unlasting.pp._priors import read_prior

RESULTS = Path(__file__).parent / "results"
N_PROGRAMS = 20
DENSITY = 0.1
BLOCK = 4_000


def write_counts(file: Path, n_cells: int, n_genes: int, n_targets: int) -> None:
    """Write raw counts, of which only a block of cells is in memory."""
    rng = np.random.default_rng(0)
    symbols = np.array(sorted(str(name) for name in read_prior("default", 256).names), dtype=object)
    genes = rng.permutation(symbols)[:n_genes]
    mean = np.exp(rng.normal(0.0, 1.5, n_genes))
    factors = np.geomspace(1e-4, 10, 500)
    expressed = np.array([(1.0 - (1.0 + factor * mean / 2.0) ** -2).mean() for factor in factors])
    mean *= factors[np.searchsorted(expressed, DENSITY)]
    programs = rng.normal(0.0, 0.5, (N_PROGRAMS, n_genes)) * (rng.random((N_PROGRAMS, n_genes)) < 0.1)
    effect = rng.gamma(1.0, 1.0, (n_targets, 1)) * programs[rng.integers(N_PROGRAMS, size=n_targets)]
    effect[np.arange(n_targets), np.arange(n_targets)] += np.log(0.2)
    n_controls = n_cells // 15
    code = rng.permutation(np.concatenate([np.full(n_controls, -1), np.arange(n_cells - n_controls) % n_targets]))
    labels = np.array(["control", *genes[:n_targets]], dtype=object)[code + 1]
    obs = pd.DataFrame({"perturbation": pd.Categorical(labels)}, index=pd.RangeIndex(n_cells).astype(str))
    AnnData(obs=obs, var=pd.DataFrame(index=genes.astype(str))).write_h5ad(file)
    effect = np.vstack([np.zeros(n_genes), effect])
    with h5py.File(file, "r+") as written:
        empty = sparse.csr_matrix((0, n_genes), dtype=np.float32)
        write_elem(written, "X", empty, dataset_kwargs={"indptr_dtype": "int64"})
        matrix = written["X"]
        for name in ("data", "indices", "indptr"):
            kept, attributes = matrix[name][:], dict(matrix[name].attrs)
            del matrix[name]
            matrix.create_dataset(name, data=kept, maxshape=(None,), chunks=(1 << 16,)).attrs.update(attributes)
        for start in range(0, n_cells, BLOCK):
            rows = code[start : start + BLOCK] + 1
            depth = rng.gamma(5.0, 0.2, (len(rows), 1))
            drawn = sparse.csr_matrix(
                rng.poisson(rng.gamma(2.0, mean * depth * np.exp(effect[rows]) / 2.0)), dtype="f4"
            )
            n_stored = len(matrix["data"])
            parts = {"data": drawn.data, "indices": drawn.indices, "indptr": drawn.indptr[1:].astype("i8") + n_stored}
            for name, values in parts.items():
                stored = matrix[name]
                stored.resize(len(stored) + len(values), axis=0)
                stored[-len(values) :] = values
        matrix.attrs["shape"] = (n_cells, n_genes)


def timed(step: str, work: Callable[[], Any], found: list[dict[str, Any]]) -> Any:
    """Do a step, and keep its time and the peak memory so far."""
    clock, used = time.perf_counter(), time.process_time()
    made = work()
    row = {"step": step, "seconds": time.perf_counter() - clock, "processor_seconds": time.process_time() - used}
    found.append(row | {"gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6})
    print({name: value if isinstance(value, str) else round(value, 1) for name, value in found[-1].items()}, flush=True)
    return made


def main() -> None:
    """Measure every step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=90_000)
    parser.add_argument("--genes", type=int, default=5_000)
    parser.add_argument("--targets", type=int, default=237)
    asked = parser.parse_args()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        counts, prepared = (Path(folder) / name for name in ("counts.h5ad", "prepared.h5ad"))
        write_counts(counts, asked.cells, asked.genes, asked.targets)
        raw = anndata.read_h5ad(counts, backed="r")
        timed("pp.split", lambda: ul.pp.split(raw, "unseen_perturbation"), found)
        made = timed("pp.prepare", partial(ul.pp.prepare, raw, n_top_genes=asked.genes, copy=True), found)
        timed("pp.grn", partial(ul.pp.grn, made), found)
        timed("write_h5ad", partial(made.write_h5ad, prepared), found)
        del made
        screen = anndata.read_h5ad(prepared, backed="r")
        timed("setup_anndata", lambda: ul.UnlastingModel.setup_anndata(screen), found)
        model = ul.UnlastingModel(screen)
        timed("closed form", lambda: model.train(max_steps=0), found)
        timed("networks", lambda: model.train(early_stopping=False, show_progress=False), found)
        path = Path(folder) / "predicted.h5ad"
        made = timed("predict", lambda: model.predict(screen, path=path, show_progress=False), found)
        print(f"{made.n_obs} cells of {made.n_vars} genes were predicted.")
    table = pd.DataFrame(found).assign(n_cells=asked.cells, n_genes=asked.genes, n_targets=asked.targets)
    table.to_csv(RESULTS / "whole.csv", index=False, float_format="%.3g")


if __name__ == "__main__":
    main()
