"""Speed and memory beside named rivals, as ratios within one run.

    python run.py                    # everything; about 15 minutes on 2 idle cores
    python run.py attention loader   # only cases whose name begins so; the others stay as they were measured before

Each case runs in a process of its own, for at most `--limit` seconds: what it takes beyond what stood before the work
began is its memory. Times are processor seconds of all threads, which other jobs on the machine disturb less than those
of the clock. `results/speed.csv` is written after every case; `results/table.md` and `results/speed.png` are made from
it and from `results/solvers.csv`, and `results/profile.csv` says where the time of a training step goes. `tl.evaluate`
is in `evaluate.py`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pandas as pd
import psutil
import report
import solvers
import torch
from cases import CASES

RESULTS = Path(__file__).parent / "results"

RUNS: list[tuple[str, dict[str, int]]] = [
    *((name, {}) for name in CASES),
    *(("attention", {"n_cells": n}) for n in (8, 16, 64)),
    *(("attention", {"n_edges": n}) for n in (10_000, 20_000, 80_000)),
    *(("attention, PyG GATConv", {"n_cells": n}) for n in (4, 8, 16)),
    *(("step default", {"n_genes": n}) for n in (500, 1_000, 4_000)),
    *(("generation", {"n_steps": n}) for n in (2, 10, 20)),
    *(("fit", {"n_conditions": n}) for n in (250, 1_000, 2_000, 4_000)),
    *(("fit", {"n_batches": n}) for n in (4, 16, 64)),
    *(("fit", {"n_genes": n}) for n in (1_000, 2_000, 4_000)),
    *(("fit", {"n_each": n}) for n in (12, 48, 192)),
    ("fit", {"n_conditions": 2_000, "n_batches": 48}),
    *(("fit", {"n_conditions": n}) for n in (8_500, 12_000, 17_000)),
    ("genome", {"n_conditions": 8_500}),
]
"""What is measured, as the name of a case and its options."""

REPEATS = {
    "matrix product": 5,
    "attention": 9,
    "attention, PyG GATConv": 3,
    "step published": 3,
    "step default": 3,
    "generation": 2,
    "E-distance": 3,
    "EMD": 5,
    "EMD, scipy": 3,
    "EMD, 90 % zeros": 5,
    "EMD, 90 % zeros, sort": 3,
}
"""How often, of which the fastest counts; once where nothing is said."""


PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["cases"])  # imported once for all


def measure(name: str, options: dict[str, int], threads: int) -> dict[str, float]:
    """Do the work of a case, and watch what it takes."""
    torch.set_num_threads(threads)
    process = psutil.Process()

    def memory() -> int:
        info = process.memory_info()
        return info.rss - getattr(info, "shared", 0)  # the code of libraries is no memory of the work

    work, n_units = CASES[name](**options)
    before, peak, done = memory(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, memory())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    seconds, processor, value = [], [], None
    for _ in range(REPEATS.get(name, 1)):
        clock, used = time.perf_counter(), time.process_time()
        value = work()
        seconds.append(time.perf_counter() - clock)
        processor.append(time.process_time() - used)
    done.set()
    watcher.join()
    found = {
        "seconds": min(seconds),
        "processor_seconds": min(processor),
        "megabytes": max(peak - before, 0) / 1e6,
        "n_units": n_units,
    }
    return found | {"value": value} if isinstance(value, float) else found


def _send(connection: Connection, name: str, options: dict[str, int], threads: int) -> None:
    try:
        connection.send(measure(name, options, threads))
    except ModuleNotFoundError as error:
        connection.send({"note": f"{error.name} is not installed"})


def apart(name: str, options: dict[str, int], threads: int, limit: float) -> dict[str, object]:
    """Measure a case in a process of its own; a case that fails or takes too long says so."""
    ours, theirs = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=_send, args=(theirs, name, options, threads))
    process.start()
    theirs.close()
    found: dict[str, object] = {"note": f"not done within {limit:.0f} s"}
    if ours.poll(limit):
        try:
            found = ours.recv()
        except EOFError:
            process.join()
            found = {"note": f"ended with {process.exitcode}"}
    process.kill()
    process.join()
    return {"case": name, **options, "threads": threads, **found}


def _asked(row: dict[str, object]) -> tuple[object, dict[str, int]]:
    """Get the name and the options behind a row."""
    return row["case"], {of: int(row[of]) for of in report.OPTIONS if pd.notna(row.get(of))}


def main() -> None:
    """Measure everything, or one case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", help="beginnings of the names of cases; all by default")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--limit", type=float, default=300, help="seconds that a case may take")
    arguments = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / "speed.csv"
    chosen = [(name, options) for name, options in RUNS if name.startswith(tuple(arguments.only or [""]))]
    rows = pd.read_csv(file).to_dict("records") if file.exists() and arguments.only else []
    for name, options in chosen:
        row = apart(name, options, arguments.threads, arguments.limit)
        rows = [one for one in rows if _asked(one) != (name, options)] + [row]
        said = row.get("note") or f"{row['processor_seconds']:.2f} s of processors, {row['megabytes']:.0f} MB"
        print(f"{name:26} {str(options or ''):24} {said}", flush=True)
        pd.DataFrame(rows, columns=report.COLUMNS).to_csv(file, index=False, float_format="%.6g")
    speed, errors = pd.read_csv(file), solvers.errors()
    errors.to_csv(RESULTS / "solvers.csv", index=False, float_format="%.4g")
    table = report.table(speed, errors)
    (RESULTS / "table.md").write_text(table, encoding="utf-8")
    report.draw(speed, errors, RESULTS / "speed.png")
    print(f"\n{table}")


if __name__ == "__main__":
    main()
