"""Save, train and generate in processes that are killed at random moments, and look at what is left.

    python killed.py {saving,training,generation} N_KILLS FOLDER

Prints counts as JSON, and ends with an error where something was lost.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import anndata
import numpy as np
import torch
from conftest import LABELS, make_model, make_parts_small, make_screen

from unlasting.model import UnlastingModel

TRAINING = {"max_steps": 36, "seed": 3, "batch_size": 32, "lr": 2e-3, "show_progress": False, "accelerator": "cpu"}
STEPS = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.scandir", "shutil.rmtree"}
"""What Python tells of the disk before it is done."""


def killed(work: Callable[[], object], seconds: float) -> bool:
    """Do something in another process, which is killed after a while; tell whether it had not come to its end."""
    child, deadline = os.fork(), time.monotonic() + seconds
    if not child:
        try:
            work()
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    ended, status = os.waitpid(child, os.WNOHANG)
    while not ended and time.monotonic() < deadline:
        time.sleep(0.001)
        ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or status == 0, "the process failed"
    return os.WIFSIGNALED(status)


def at_every_step(work: Callable[[], object]) -> Iterator[int]:
    """Do something in processes of which each gets one step further on the disk before it is killed."""

    def kill_at(step: int) -> None:
        left = iter(range(step))

        def watch(event: str, arguments: object) -> None:
            if event in STEPS and next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        work()

    for step in count():
        if not killed(lambda step=step: kill_at(step), 60.0):
            return
        yield step


def taken(work: Callable[[], object]) -> float:
    """Measure the seconds of something."""
    start = time.monotonic()
    work()
    return time.monotonic() - start


def is_same(model: UnlastingModel, other: UnlastingModel) -> bool:
    state = other.module.state_dict()
    return all(torch.equal(value, state[name]) for name, value in model.module.state_dict().items())


def saving(n_kills: int, folder: Path) -> dict[str, int]:
    """Replace one model by another, again and again: the old or the new one stands, with its cells."""
    models, path = [make_model(make_screen(n_cells=100 + i), seed=i) for i in range(2)], folder / "model"

    def save(which: int) -> None:
        models[which].save(path, overwrite=True, save_anndata=True)

    def replace_again_and_again() -> None:
        while True:
            for which in (1, 0):
                save(which)

    def look() -> None:
        counts["set_aside"] += not path.exists()
        found = UnlastingModel.load(path, accelerator="cpu")
        which = found.adata.n_obs - 100
        assert is_same(found, models[which])
        counts[("first", "second")[which]] += 1

    save(0)
    usual, counts = taken(lambda: save(0)), Counter(kills=n_kills, first=0, second=0, set_aside=0)
    for _ in range(n_kills):
        assert killed(replace_again_and_again, random.uniform(0.0, 4.0 * usual))
        look()
    for _ in at_every_step(lambda: save(1)):
        look()
        counts["kills"] += 1
        save(0)
    assert sorted(file.name for file in folder.iterdir()) == ["model"]
    return dict(counts)


def training(n_kills: int, folder: Path) -> dict[str, int]:
    """Train with a checkpoint and go on from it: the weights are those of a training that nobody disturbed."""
    whole, path, result = make_model(make_screen(n_cells=300)), folder / "state.ckpt", folder / "model"
    usual, counts = taken(lambda: whole.train(**TRAINING)), Counter(kills=0, resumed=0, trainings=0)
    while counts["kills"] < n_kills or not counts["trainings"]:
        model = make_model(make_screen(n_cells=300), seed=random.randrange(99))
        if not path.exists():
            model = make_model(make_screen(n_cells=300))
        counts["resumed"] += path.exists()
        seconds = random.uniform(0.1, 1.0) * usual if counts["kills"] < n_kills else 600.0

        def work(model: UnlastingModel = model) -> None:
            model.train(**TRAINING, **{"resume" if path.exists() else "checkpoint": path})
            model.save(result)

        counts["kills"] += killed(work, seconds)
        if result.exists():
            assert is_same(UnlastingModel.load(result, adata=False, accelerator="cpu"), whole)
            counts["trainings"] += 1
            for file in [path, *result.iterdir()]:
                file.unlink()
            result.rmdir()
    return dict(counts)


def generation(n_kills: int, folder: Path) -> dict[str, int]:
    """Generate into a file and call again: no cell is lost or doubled."""
    make_parts_small()
    model, path = make_model(make_screen(n_cells=300), train=5), folder / "cells.h5ad"

    def generate(path: Path) -> None:
        model.generate(LABELS, 20, path=path, overwrite=True, show_progress=False)

    usual, counts = taken(lambda: generate(folder / "whole.h5ad")), Counter(kills=0, files=0)
    whole = anndata.read_h5ad(folder / "whole.h5ad")
    while counts["kills"] < n_kills or not counts["files"]:
        seconds = random.uniform(0.0, 0.5) * usual if counts["kills"] < n_kills else 600.0
        if killed(lambda: generate(path), seconds):
            counts["kills"] += 1
            continue
        found = anndata.read_h5ad(path)
        assert found.obs.equals(whole.obs)
        np.testing.assert_array_equal(found.X.toarray(), whole.X.toarray())
        counts["files"] += 1
        path.unlink()
    return dict(counts)


if __name__ == "__main__":
    torch.set_num_threads(1)  # a fork has no threads but its own, and would wait for the others
    case = {"saving": saving, "training": training, "generation": generation}[sys.argv[1]]
    print(json.dumps(case(int(sys.argv[2]), Path(sys.argv[3]))))  # noqa: T201
