"""Two processes that train together end with one model, which is as good as that of a single process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

QUIET = {"show_progress": False, "accelerator": "cpu"}
N_CELLS, BATCH_SIZE = 300, 64
N_BATCHES = 3  # in a pass over the 210 or so training cells
pytestmark = pytest.mark.slow

SCRIPT = """
import sys

sys.path.insert(0, {tests!r})
import torch
from conftest import make_model, make_screen
from lightning.pytorch.callbacks import Callback


class Seen(Callback):
    def __init__(self):
        self.cells = []

    def on_train_batch_start(self, trainer, plan, batch, *args):
        if plan.network == "denoiser" and len(self.cells) < {n_batches}:
            self.cells.append(batch["X"])


seen, rank = Seen(), int(__import__("os").environ.get("LOCAL_RANK", 0))
model = make_model(make_screen(n_cells={n_cells}), seed=rank)  # they start from different weights
model.train(
    max_steps=12, seed=0, batch_size={batch_size}, lr=2e-3, accelerator="cpu", devices=2, strategy="ddp", callbacks=[seen],
    show_progress=False,
)
found = dict(
    state=model.module.state_dict(),
    effects={{name: torch.from_numpy(array) for name, array in model.effects_model.state().items()}},
    history={{name: frame.to_numpy(dtype=float).ravel().tolist() for name, frame in model.history.items()}},
    sizes=[len(cells) for cells in seen.cells],
    cells=torch.cat(seen.cells),
    generated=torch.from_numpy(model.generate(["G3", "NEW1"], 12, show_progress=False).X.toarray()),
)
torch.save(found, "{folder}/%d.pt" % model.trainer.global_rank)
"""


@pytest.fixture(scope="module")
def processes(tmp_path_factory) -> list[dict]:
    """What each of two processes has in the end."""
    folder = tmp_path_factory.mktemp("ddp")
    tests = str(Path(__file__).parent)
    script = folder / "script.py"
    sizes = {"n_cells": N_CELLS, "batch_size": BATCH_SIZE, "n_batches": N_BATCHES}
    script.write_text(SCRIPT.format(tests=tests, folder=folder, **sizes))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(os.listdir(folder)) == ["0.pt", "1.pt", "script.py"]  # nothing else was written
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def alone(build, screen, processes):
    """The model of the first process, in this one."""
    model = build(screen(n_cells=N_CELLS), seed=5)
    model.module.load_state_dict(processes[0]["state"])
    assert model.effects_model is model.module.effects
    model.is_trained_ = True
    return model


def test_all_end_with_the_same_weights_averages_and_history(processes, build, screen):
    one, other = processes
    start = build(screen(n_cells=N_CELLS)).module.state_dict()
    assert one["state"].keys() == other["state"].keys()
    assert all(torch.equal(value, other["state"][name]) for name, value in one["state"].items())
    for network in ("denoiser", "mask_network", "averaged.denoiser", "averaged.mask_network"):
        name = f"{network}.out.weight"
        assert not torch.equal(one["state"][name], start[name])
    assert one["history"] == other["history"]
    assert set(one["history"]) == {
        f"{network}_{what}" for network in ("denoiser", "mask") for what in ("train_loss", "validation_score")
    }


def test_the_cells_of_an_epoch_are_dealt_out(processes, alone):
    one, other = ({row.numpy().tobytes() for row in process["cells"]} for process in processes)
    training = alone.adata[alone.adata.obs["unlasting_split"] == "train"].X.toarray()
    assert not one & other
    assert one | other <= {row.tobytes() for row in training}
    assert set(processes[0]["sizes"]) == set(processes[1]["sizes"]) == {BATCH_SIZE // 2}
    assert len(one | other) == len(training) // BATCH_SIZE * BATCH_SIZE


def test_what_was_fitted_is_what_a_single_process_fits(processes, build, screen):
    for name, value in build(screen(n_cells=N_CELLS)).effects_model.state().items():
        for process in processes:
            torch.testing.assert_close(process["effects"][name], torch.from_numpy(value), equal_nan=True, msg=name)


def test_the_score_is_that_of_a_single_process(processes, alone):
    obs = alone.adata.obs
    val = (obs["unlasting_split"] == "val").to_numpy()
    x0 = torch.from_numpy(alone.adata.X[val].toarray()) / alone.module.statistics.x_max
    codes = (torch.as_tensor(obs[f"_unlasting_{of}"].to_numpy()[val]).long() for of in ("perturbation", "population"))
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        score = alone.module.denoising_loss(x0, *codes, averaged=True, generator=generator)
    assert float(score) == pytest.approx(min(processes[0]["history"]["denoiser_validation_score"]), rel=1e-5)


def test_the_same_weights_generate_the_same_cells(processes, alone):
    generated = alone.generate(["G3", "NEW1"], 12, show_progress=False).X.toarray()
    for process in processes:
        np.testing.assert_allclose(process["generated"], generated, rtol=1e-4, atol=1e-5)
