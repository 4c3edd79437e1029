"""A training that is killed goes on from its checkpoint, and ends where it would have ended."""

from __future__ import annotations

import os
import pickle

import pytest
import torch
from lightning.pytorch.callbacks import Callback

pytestmark = pytest.mark.slow

ARGUMENTS = {"max_steps": 36, "seed": 3, "batch_size": 32, "lr": 2e-3, "show_progress": False, "accelerator": "cpu"}
ARGUMENTS |= {"early_stopping": False}  # the effects model leaves little to learn here


class Killed(Exception):
    """Stands for a process that ends without a word."""


class KillAt(Callback):
    def __init__(self, network: str, step: int) -> None:
        self.network, self.step = network, step

    def on_train_batch_end(self, trainer, plan, *args) -> None:
        if plan.network == self.network and trainer.global_step == self.step:
            raise Killed


class Exhausted(Callback):
    """A disk that has room for some checkpoints only."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_save_checkpoint(self, trainer, *args) -> None:
        if trainer.global_step > self.step:
            raise OSError(28, "No space left on device")


@pytest.fixture(scope="module")
def undisturbed(build, screen):
    model = build(screen(300))
    model.train(**ARGUMENTS)
    return model.module.state_dict()


def assert_same(model, state) -> None:
    for name, value in model.module.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_checkpoints_change_nothing(build, screen, undisturbed, tmp_path):
    model = build(screen(300))
    model.train(checkpoint=tmp_path / "state.ckpt", **ARGUMENTS)
    assert_same(model, undisturbed)
    assert [path.name for path in tmp_path.iterdir()] == ["state.ckpt"]


@pytest.mark.parametrize(("network", "step"), [("denoiser", 20), ("denoiser", 36), ("mask_network", 8)])
def test_a_killed_training_ends_with_the_same_weights(build, screen, undisturbed, tmp_path, network, step):
    path = tmp_path / "state.ckpt"
    with pytest.raises(Killed):
        build(screen(300)).train(checkpoint=path, callbacks=[KillAt(network, step)], **ARGUMENTS)
    model = build(screen(300), seed=9)  # where the weights began does not matter
    model.train(resume=path, **ARGUMENTS)
    assert_same(model, undisturbed)


def test_early_stopping_stays_stopped(build, screen, tmp_path):
    arguments = {**ARGUMENTS, "max_steps": 400, "early_stopping": True, "early_stopping_patience": 1, "lr": 0.02}
    whole = build(screen(300))
    whole.train(**arguments)
    assert whole.history["denoiser_validation_score"].index.max() < 200
    with pytest.raises(Killed):
        build(screen(300)).train(checkpoint=tmp_path / "state", callbacks=[KillAt("mask_network", 1)], **arguments)
    model = build(screen(300))
    model.train(resume=tmp_path / "state", **arguments)
    assert_same(model, whole.module.state_dict())


def test_a_full_disk_leaves_the_checkpoint_before(build, screen, undisturbed, tmp_path):
    path = tmp_path / "state.ckpt"
    with pytest.raises(OSError, match="No space left"):
        build(screen(300)).train(checkpoint=path, callbacks=[Exhausted(20)], **ARGUMENTS)
    model = build(screen(300))
    model.train(resume=path, **ARGUMENTS)
    assert_same(model, undisturbed)


# -- files that are no checkpoint of this training


@pytest.fixture(scope="module")
def checkpoint(build, screen, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "state.ckpt"
    build(screen(300)).train(checkpoint=path, **{**ARGUMENTS, "max_steps": 10})
    return path


class Code:
    def __reduce__(self):
        return (os.mkdir, (Code.folder,))


def test_a_foreign_file(build, screen, tmp_path):
    for content in (b"", b"something else", b"PK\x03\x04 not a checkpoint"):
        (tmp_path / "state.ckpt").write_bytes(content)
        with pytest.raises(
            ValueError, match=r"`resume` is .*damaged or no checkpoint.*Give the file that `checkpoint` wrote"
        ):
            build(screen(300)).train(resume=tmp_path / "state.ckpt", **ARGUMENTS)


def test_a_truncated_file(build, screen, checkpoint, tmp_path):
    for share in (0.1, 0.5, 0.99):
        content = checkpoint.read_bytes()
        (tmp_path / "state.ckpt").write_bytes(content[: int(share * len(content))])
        with pytest.raises(ValueError, match="damaged or no checkpoint"):
            build(screen(300)).train(resume=tmp_path / "state.ckpt", **ARGUMENTS)


def test_code_in_a_file_does_not_run(build, screen, tmp_path):
    for write in (torch.save, lambda code, path: path.write_bytes(pickle.dumps(code))):
        Code.folder = str(tmp_path / "made")
        write({"unlasting": Code()}, tmp_path / "state.ckpt")
        with pytest.raises(ValueError, match="damaged or no checkpoint"):
            build(screen(300)).train(resume=tmp_path / "state.ckpt", **ARGUMENTS)
        assert not (tmp_path / "made").exists()


def test_a_checkpoint_of_another_program(build, screen, tmp_path):
    torch.save({"state_dict": {}, "epoch": 3}, tmp_path / "state.ckpt")
    with pytest.raises(ValueError, match="of another program"):
        build(screen(300)).train(resume=tmp_path / "state.ckpt", **ARGUMENTS)


def test_another_model(build, screen, checkpoint):
    with pytest.raises(ValueError, match="a model with other networks"):
        build(screen(300), "paper").train(resume=checkpoint, **ARGUMENTS)


def test_another_training(build, screen, tmp_path):
    for changes, message in (
        ({"max_steps": 37}, "`max_steps` is .*now"),
        ({"batch_size": 16, "max_steps": 10}, "another training"),
    ):
        path = tmp_path / "state.ckpt"
        with pytest.raises(Killed):
            build(screen(300)).train(
                checkpoint=path, callbacks=[KillAt("denoiser", 10)], **{**ARGUMENTS, "max_steps": 10}
            )
        with pytest.raises(ValueError, match=message):
            build(screen(300)).train(resume=path, **{**ARGUMENTS, **changes})


def test_other_cells(build, screen, checkpoint):
    with pytest.raises(ValueError, match=r"its `n_train` is .*same cells and arguments as before"):
        build(screen(280)).train(resume=checkpoint, **{**ARGUMENTS, "max_steps": 10})


def test_places_that_do_not_exist(build, screen, tmp_path):
    model = build(screen(300))
    with pytest.raises(FileNotFoundError, match="`resume` is .*no file"):
        model.train(resume=tmp_path / "nothing.ckpt", **ARGUMENTS)
    with pytest.raises(FileNotFoundError, match="folder of `checkpoint` .* does not exist"):
        model.train(checkpoint=tmp_path / "no" / "state.ckpt", **ARGUMENTS)
    assert not model.is_trained
