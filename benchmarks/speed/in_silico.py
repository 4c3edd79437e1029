"""Generate a slice of a genome-wide screen to a file, kill it on the way, go on, and say what the whole would take.

    python in_silico.py --perturbations 120

20,000 perturbations of 300 cells with 2,000 genes are hours of a processor: a slice is generated in parts
of 1,200 cells, killed as `kill -9` does after the second, and gone on with. Writes `results/in_silico.csv`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import anndata
import pandas as pd
import screens
import torch

from unlasting.model import _streaming

RESULTS = Path(__file__).parent / "results"
N_CELLS = 300
CELLS_IN_PART = 1_200
WHOLE = 20_000
"""Perturbations of a genome-wide screen."""


def generate(path: Path, n_perturbations: int) -> None:
    """Generate the slice, or what is missing of it."""
    torch.set_num_threads(1)
    model = screens.model("default", n_cells=8_000)
    _streaming._VALUES_IN_PART = CELLS_IN_PART * model.adata.n_vars
    labels = [f"G{100 + i}" for i in range(n_perturbations)]
    model.generate(labels, N_CELLS, path=path, show_progress=False)


def start(path: Path, n_perturbations: int) -> multiprocessing.Process:
    """Start it in a process of its own."""
    process = multiprocessing.get_context("spawn").Process(target=generate, args=(path, n_perturbations))
    process.start()
    return process


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--perturbations", type=int, default=120)
    n_perturbations = parser.parse_args().perturbations
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "screen.h5ad"
        killed = start(path, n_perturbations)
        while killed.is_alive() and not (path.with_name("screen.h5ad.parts") / "000001.h5ad").exists():
            time.sleep(0.1)
        killed.kill()
        killed.join()
        n_kept = 2 * CELLS_IN_PART
        start(path, n_perturbations).join()
        cells = anndata.read_h5ad(path, backed="r")
        n_cells = n_perturbations * N_CELLS
        if cells.n_obs != n_cells or not cells.obs_names.is_unique:
            raise SystemExit(f"{cells.n_obs} cells are in the file, {n_cells} were asked for.")
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = used.ru_utime + used.ru_stime
        found = {
            "cells": n_cells,
            "kept over the kill": n_kept,
            "processor seconds": round(seconds, 1),
            "processor seconds per cell": round(seconds / n_cells, 4),
            "largest memory, MB": round(used.ru_maxrss / 1024),
            "file, MB": round(path.stat().st_size / 1e6, 1),
            "whole, hours of a processor": round(seconds / n_cells * WHOLE * N_CELLS / 3_600, 1),
            "whole, file, GB": round(path.stat().st_size / n_cells * WHOLE * N_CELLS / 1e9),
        }
    pd.DataFrame([found]).to_csv(RESULTS / "in_silico.csv", index=False)
    print(pd.Series(found).to_string())


if __name__ == "__main__":
    main()
