"""Workers of an executor write the file that one process writes, and one call completes what another began."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import anndata
import pytest
import torch
from anndata import AnnData

from unlasting import UnlastingModel, datasets, pp

LABELS = ["G3", "TFX", "NEW1", "G3+TFX", "control"]
N_PARTS = 8  # 5 labels, 2 cell types and 13 cells, 17 in a part
QUIET = {"show_progress": False}
SPAWN = multiprocessing.get_context("spawn")
pytestmark = pytest.mark.usefixtures("small_parts")


class Here(Executor):
    """Runs each task at once, after a look at the folder of parts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def look(self) -> None:
        """Do nothing."""

    def submit(self, fn, /, *args, **kwargs):
        future: Future = Future()
        try:
            self.look()
            future.set_result(fn(*args, **kwargs))
        except (OSError, ValueError) as error:
            future.set_exception(error)
        return future


@pytest.fixture(scope="session")  # the models of `either` come in turn, with all modules in between
def pools() -> Iterator[list[ProcessPoolExecutor]]:
    """The pool of all tests, whose processes import torch once."""
    pools: list[ProcessPoolExecutor] = []
    yield pools
    for pool in pools:
        pool.shutdown()


@pytest.fixture
def workers(pools) -> ProcessPoolExecutor:
    """Two processes; new ones after the test that kills one."""
    if not pools:
        pools.append(ProcessPoolExecutor(2, mp_context=SPAWN))
    return pools[0]


@pytest.fixture(scope="module")
def counted() -> UnlastingModel:
    """A model of a screen with counts, without networks."""
    adata = datasets.simulate_screen(n_cells=600, n_genes=60, seed=0)
    pp.split(adata, "unseen_perturbation")
    pp.prepare(adata)
    pp.grn(adata)
    UnlastingModel.setup_anndata(adata)
    model = UnlastingModel(adata)
    model.train(max_steps=0, accelerator="cpu", **QUIET)
    return model


def parts_of(path: Path) -> dict[str, int]:
    """Complete parts with the time of their writing."""
    return {file.name: file.stat().st_mtime_ns for file in path.with_name(f"{path.name}.parts").glob("0*.h5ad")}


def assert_same(path: Path, other: Path) -> None:
    assert path.read_bytes() == other.read_bytes()
    assert not path.with_name(f"{path.name}.parts").exists()


def test_workers_write_the_file_of_one_process(either, workers, tmp_path):
    either.generate(LABELS, 13, seed=2, path=tmp_path / "alone.h5ad", **QUIET)
    with ThreadPoolExecutor(2) as threads:
        for name, executor in (("processes", workers), ("threads", threads)):
            file = tmp_path / f"{name}.h5ad"
            backed = either.generate(LABELS, 13, seed=2, path=file, executor=executor, **QUIET)
            assert Path(backed.filename) == file
            assert_same(file, tmp_path / "alone.h5ad")


@pytest.mark.slow
def test_workers_write_counts(counted, workers, tmp_path):
    labels = counted.targets["gene"][:3]
    counted.generate(labels, 40, path=tmp_path / "alone.h5ad", **QUIET)
    counted.generate(labels, 40, path=tmp_path / "shared.h5ad", executor=workers, **QUIET)
    assert_same(tmp_path / "shared.h5ad", tmp_path / "alone.h5ad")
    found = anndata.read_h5ad(tmp_path / "shared.h5ad")
    assert found.layers["counts"].sum() > 0
    assert "generated" in found.uns["unlasting"]


def test_workers_write_predictions(either, workers, controls, tmp_path):
    calls = ({"cells": "all"}, {"adata": controls, "perturbation": "G3+TFX"})
    for i, call in enumerate(calls):
        alone, shared = (tmp_path / f"{name}{i}.h5ad" for name in ("alone", "shared"))
        either.predict(path=alone, **call, **QUIET)
        either.predict(path=shared, executor=workers, **call, **QUIET)
        assert_same(shared, alone)


def test_workers_use_the_precision_of_the_call(paper_model, workers, tmp_path):
    files = {name: tmp_path / f"{name}.h5ad" for name in ("alone", "shared", "full")}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        paper_model.generate("G3", 13, path=files["alone"], **QUIET)
        paper_model.generate("G3", 13, path=files["shared"], executor=workers, **QUIET)
    paper_model.generate("G3", 13, path=files["full"], **QUIET)
    assert_same(files["shared"], files["alone"])
    assert files["full"].read_bytes() != files["alone"].read_bytes()


def test_another_process_completes_the_parts_of_one(either, tmp_path, monkeypatch):
    whole, file = tmp_path / "whole.h5ad", tmp_path / "cells.h5ad"
    either.generate(LABELS, 13, path=whole, **QUIET)
    write = AnnData.write_h5ad

    def failing(self: AnnData, path: Path) -> None:
        write(self, path)
        if len(parts_of(file)) == 3:
            raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(AnnData, "write_h5ad", failing)
        with pytest.raises(InterruptedError):
            either.generate(LABELS, 13, path=file, **QUIET)
    before, seen = parts_of(file), []

    class Watching(Here):
        def look(self) -> None:
            seen.append(parts_of(file))

    either.generate(LABELS, 13, path=file, executor=Watching(tmp_path), **QUIET)
    assert [len(parts) for parts in seen] == list(range(3, N_PARTS))
    assert all(before.items() <= parts.items() for parts in seen)
    assert_same(file, whole)


def test_incomplete_parts_of_a_running_worker_stay_until_the_end(model, tmp_path):
    file, folder = tmp_path / "cells.h5ad", tmp_path / "cells.h5ad.parts"

    class Failing(Here):
        def look(self) -> None:
            (folder / ".partial-0-000001.h5ad").write_text("another worker")
            raise InterruptedError

    class Watching(Here):
        def look(self) -> None:
            assert (folder / ".partial-0-000001.h5ad").read_text() == "another worker"

    with pytest.raises(InterruptedError):
        model.generate(LABELS, 13, path=file, executor=Failing(folder), **QUIET)
    model.generate(LABELS, 13, path=file, executor=Watching(folder), **QUIET)
    assert os.listdir(tmp_path) == ["cells.h5ad"]


def test_a_worker_without_the_folder_names_it(model, tmp_path):
    class Elsewhere(Here):
        def look(self) -> None:
            for file in self.folder.glob("*.pickle"):
                file.unlink()

    folder = tmp_path / "cells.h5ad.parts"
    with pytest.raises(FileNotFoundError, match="folder that all workers share") as caught:
        model.generate(LABELS, 13, path=tmp_path / "cells.h5ad", executor=Elsewhere(folder), **QUIET)
    assert str(folder) in caught.value.__notes__[-1]


def test_a_changed_file_is_not_unpickled(model, tmp_path):
    class Changing(Here):
        def look(self) -> None:
            for file in self.folder.glob("*.pickle"):
                file.write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")

    with pytest.raises(ValueError, match="was changed by another program"):
        model.generate(
            "G3", 13, path=tmp_path / "cells.h5ad", executor=Changing(tmp_path / "cells.h5ad.parts"), **QUIET
        )


def test_what_cannot_write_parts_is_refused(model, controls, tmp_path):
    calls = (lambda **options: model.generate("G3", 3, **options), lambda **options: model.predict(controls, **options))
    for call in calls:
        with pytest.raises(ValueError, match="`executor` is given without `path`.*Pass `path="):
            call(executor=Here(tmp_path))
        with pytest.raises(TypeError, match=r"is a int, not .*client\.get_executor"):
            call(executor=2, path=tmp_path / "cells.h5ad")
    assert not os.listdir(tmp_path)


def test_dask_writes_the_file_of_one_process(model, tmp_path):
    distributed = pytest.importorskip("distributed")
    alone, shared = tmp_path / "alone.h5ad", tmp_path / "shared.h5ad"
    model.generate(LABELS, 13, path=alone, **QUIET)
    with distributed.Client(n_workers=2, processes=True, dashboard_address=None) as client:
        model.generate(LABELS, 13, path=shared, executor=client.get_executor(), **QUIET)
    assert_same(shared, alone)


def test_a_killed_worker_costs_its_part_only(model, pools, workers, tmp_path, monkeypatch):
    whole, file = tmp_path / "whole.h5ad", tmp_path / "cells.h5ad"
    model.generate(LABELS, 65, path=whole, **QUIET)
    done = threading.Event()

    def kill_one(process: int) -> None:
        while len(parts_of(file)) < 3 and not done.is_set():
            time.sleep(0.002)
        os.kill(process, signal.SIGKILL)

    killer = threading.Thread(target=kill_one, args=(workers.submit(os.getpid).result(),))
    killer.start()
    try:
        with pytest.raises(BrokenProcessPool) as caught:
            model.generate(LABELS, 65, path=file, executor=workers, **QUIET)
    finally:
        done.set()
        killer.join()
        pools.pop().shutdown()
    assert "Repeat the call" in caught.value.__notes__[-1]
    assert not file.exists()
    kept, made, write = parts_of(file), [], AnnData.write_h5ad
    assert len(kept) >= 3
    monkeypatch.setattr(AnnData, "write_h5ad", lambda self, path: (made.append(path.name[-11:]), write(self, path)))
    model.generate(LABELS, 65, path=file, **QUIET)
    assert len(made) == -(-len(LABELS) * 2 * 65 // 17) - len(kept)
    assert not set(made) & set(kept)
    assert_same(file, whole)
