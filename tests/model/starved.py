"""Save, train and generate on a small disk with less and less room, and look at what is left.

    python starved.py {saving,training,generation} FOLDER_ON_A_SMALL_DISK

Prints counts as JSON, and ends with an error where something was lost.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import anndata
import torch
from conftest import LABELS, make_model, make_parts_small, make_screen
from killed import TRAINING, is_same

from unlasting.model import UnlastingModel

KILOBYTE = 1024


def with_less_room(folder: Path, work: Callable[[], object], look: Callable[[], object]) -> Counter[str]:
    """Do something with 16, 32, 64, ... kB of room until there is enough of it; look at what is left each time."""
    counts, room, ballast = Counter(refused=0), 16 * KILOBYTE, folder / "ballast"
    while True:
        free = shutil.disk_usage(folder).free
        assert room < free, "the disk is too small"
        ballast.write_bytes(bytes(free - room))
        try:
            work()
        except OSError as error:
            if "No space left on the disk" not in str(error):
                raise
            counts["refused"] += 1
            ballast.unlink()
            look()
            room *= 2
        else:
            ballast.unlink()
            return counts


def saving(folder: Path) -> Counter[str]:
    first, second = (make_model(make_screen(n_cells=100 + i), seed=i) for i in range(2))
    path = folder / "model"
    first.save(path, save_anndata=True)

    def look() -> None:
        assert is_same(UnlastingModel.load(path, accelerator="cpu"), first)
        assert sorted(file.name for file in folder.iterdir()) == ["model"]

    counts = with_less_room(folder, lambda: second.save(path, overwrite=True, save_anndata=True), look)
    assert is_same(UnlastingModel.load(path, accelerator="cpu"), second)
    shutil.rmtree(path)
    return counts


def training(folder: Path) -> Counter[str]:
    path = folder / "state.ckpt"
    model = make_model(make_screen(n_cells=300))
    model.train(checkpoint=path, **TRAINING)
    before = path.read_bytes()

    def look() -> None:
        assert path.read_bytes() == before
        assert sorted(file.name for file in folder.iterdir()) == ["state.ckpt"]

    counts = with_less_room(
        folder, lambda: make_model(make_screen(n_cells=300)).train(checkpoint=path, **TRAINING), look
    )
    path.unlink()
    return counts


def generation(folder: Path) -> Counter[str]:
    make_parts_small()
    model, path = make_model(make_screen(n_cells=300), train=5), folder / "cells.h5ad"
    whole = model.generate(LABELS, 20, show_progress=False)

    def look() -> None:
        for file in path.with_name("cells.h5ad.parts").glob("*.h5ad"):
            anndata.read_h5ad(file)  # what has a name is whole
        assert not path.exists()

    counts = with_less_room(folder, lambda: model.generate(LABELS, 20, path=path, show_progress=False), look)
    assert anndata.read_h5ad(path).obs.equals(whole.obs)
    path.unlink()
    return counts


if __name__ == "__main__":
    torch.set_num_threads(1)
    case = {"saving": saving, "training": training, "generation": generation}[sys.argv[1]]
    print(json.dumps(case(Path(sys.argv[2]))), flush=True)  # noqa: T201
    os._exit(0)  # HDF5 may crash at the end of a process in which it met a full disk
