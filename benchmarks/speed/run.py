"""Speed and memory beside named rivals, as ratios within one run.

    python benchmarks/speed/run.py

Each case runs in a process of its own: what it takes beyond what stood before the work began is its memory. Times are
processor seconds of all threads, which other jobs on the machine disturb less than those of the clock; both are in
`results/speed.csv`, and the curves in `results/curves.csv` and `results/speed.png`. E-distance and EMD beside scipy and
pertpy are in `metrics.py`, `tl.evaluate` in `evaluate.py`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import psutil
import torch
from cases import CASES

RESULTS = Path(__file__).parent / "results"
RIVALS = [
    ("attention, 32 cells", "attention", "attention PyG", 5.0),
    ("training step, published", "step paper", "step paper plain", 10.0),
    ("generation of a cell", "generation", "generation plain", 20.0),
]
"""What is compared: ours, theirs, and how many times faster it is to be."""

CURVES = {"n_cells": [8, 16, 32, 64], "n_edges": [10_000, 20_000, 40_000, 80_000]}


def measure(name: str, repeats: int, options: dict[str, int]) -> dict[str, float]:
    """Do the work of a case, and watch what it takes."""
    process = psutil.Process()
    work, n_units = CASES[name](**options)
    before, peak, done = process.memory_info().rss, 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    seconds, processor = [], []
    for _ in range(repeats):
        clock, used = time.perf_counter(), time.process_time()
        work()
        seconds.append(time.perf_counter() - clock)
        processor.append(time.process_time() - used)
    done.set()
    watcher.join()
    return {
        "seconds": min(seconds),
        "processor_seconds": min(processor),
        "megabytes": max(peak - before, 0) / 1e6,
        "n_units": n_units,
    }


def apart(name: str, repeats: int, threads: int, **options: int) -> dict[str, object]:
    """Measure a case in a process of its own."""
    case = json.dumps({"name": name, "repeats": repeats, "options": options})
    command = [sys.executable, __file__, "--threads", str(threads), "--case", case]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} failed: {done.stderr[-2000:]}")
    row = {"case": name, **options, **json.loads(done.stdout.splitlines()[-1])}
    row["processor_seconds_per_unit"] = row["processor_seconds"] / row["n_units"]
    print(
        f"{name:18} {options or '':20} {row['seconds']:9.2f} s {row['processor_seconds']:9.2f} s of processors", end=""
    )
    print(f" {row['megabytes']:8.0f} MB", flush=True)
    return row


def exponent(frame: pd.DataFrame, of: str) -> float:
    """Fit the power with which the time grows."""
    return float(np.polyfit(np.log(frame[of]), np.log(frame["processor_seconds"]), 1)[0])


def draw(curves: pd.DataFrame, file: Path) -> None:
    """Draw time and memory over cells and edges."""
    figure, axes = plt.subplots(2, 2, figsize=(8, 6), layout="constrained")
    for column, of in enumerate(CURVES):
        part = curves[curves[of].notna()].sort_values(of)
        for row, (value, label) in enumerate(
            [("processor_seconds", "processor seconds"), ("megabytes", "peak memory (MB)")]
        ):
            ax = axes[row, column]
            for case, line in part.groupby("case"):
                ax.plot(line[of], line[value], "o-", label="one shared graph" if case == "attention" else "PyG GATConv")
            ax.set(xscale="log", yscale="log", xlabel=of.replace("n_", "number of "), ylabel=label)
    axes[0, 0].legend(frameon=False)
    figure.savefig(file, dpi=120)


def main() -> None:
    """Measure everything, or one case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--skip", nargs="*", default=[], choices=[*CASES, "curves"], help="what is left out")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.case:
        print(json.dumps(measure(**json.loads(arguments.case))))
        return
    RESULTS.mkdir(exist_ok=True)
    repeats = {"loader": 1, "step paper plain": 1, "generation plain": 1}
    rows = {name: apart(name, repeats.get(name, 3), arguments.threads) for name in CASES if name not in arguments.skip}
    speed = pd.DataFrame(rows.values()).assign(threads=arguments.threads)
    speed.to_csv(RESULTS / "speed.csv", index=False, float_format="%.6g")
    print()
    for label, ours, theirs, target in RIVALS:
        if ours in rows and theirs in rows:
            ratio = rows[theirs]["processor_seconds_per_unit"] / rows[ours]["processor_seconds_per_unit"]
            memory = rows[theirs]["megabytes"] / max(rows[ours]["megabytes"], 1.0)
            print(f"{label:28} {ratio:6.1f} times faster (target {target:.0f}), {memory:6.1f} times less memory")
    if "curves" in arguments.skip:
        return
    curves = pd.DataFrame(
        apart(case, 2, arguments.threads, **{of: n})
        for case in ("attention", "attention PyG")
        for of, values in CURVES.items()
        for n in values
    )
    curves.to_csv(RESULTS / "curves.csv", index=False, float_format="%.6g")
    for of in CURVES:
        ours = curves[(curves["case"] == "attention") & curves[of].notna()]
        print(f"time of attention grows with {of} to the power {exponent(ours, of):.2f}")
    draw(curves, RESULTS / "speed.png")


if __name__ == "__main__":
    main()
