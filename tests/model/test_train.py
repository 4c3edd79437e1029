from __future__ import annotations

import signal

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from unlasting.model import UnlastingModel

QUIET = {"show_progress": False, "accelerator": "cpu"}


class StopAt(Callback):
    """What Ctrl-C does, at a certain step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, *args) -> None:
        if trainer.global_step == self.step:
            raise KeyboardInterrupt


def weights_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def moved(before: dict[str, torch.Tensor], module: torch.nn.Module) -> set[str]:
    after = weights_of(module)
    return {
        name.split(".")[0] if not name.startswith("averaged") else ".".join(name.split(".")[:2])
        for name in before
        if not torch.equal(before[name], after[name])
    }


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_each_stage_moves_only_its_own_network(build, screen, preset):
    model = build(screen(n_cells=200), preset)
    before = weights_of(model.module)
    options = {"early_stopping": False, "early_stopping_patience": 1, "devices": "auto", "seed": 0, **QUIET}
    model._train_network("denoiser", model.preset.train_denoiser.__class__(6, 32, 1e-3, 0.0, 0.9), **options)
    assert moved(before, model.module) == {"denoiser", "averaged.denoiser"}
    before = weights_of(model.module)
    model._train_network("mask_network", model.preset.train_denoiser.__class__(6, 32, 1e-3, 0.0, 0.9), **options)
    assert moved(before, model.module) == {"mask_network", "averaged.mask_network"}


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_the_same_seed_gives_the_same_cells(build, screen, preset):
    one, same, other = (build(screen(n_cells=200), preset, train=8, seed=s) for s in (1, 1, 2))
    first, second, third = (m.generate(["G3", "NEW2"], 10, seed=0, show_progress=False) for m in (one, same, other))
    np.testing.assert_array_equal(first.X.toarray(), second.X.toarray())
    assert first.obs.equals(second.obs)
    assert not np.array_equal(first.X.toarray(), third.X.toarray())


def test_history_holds_both_networks(build, screen):
    model = build(screen(), train=100)  # so small a screen is learnt by heart in more
    assert set(model.history) == {
        "denoiser_train_loss",
        "denoiser_validation_score",
        "mask_train_loss",
        "mask_validation_score",
    }
    for name, frame in model.history.items():
        values = frame.to_numpy(dtype=float)
        assert np.isfinite(values).all(), name
        assert len(values) > 1, name
        assert frame.index.is_unique, name
        assert values[-1] < values[0], name
    assert model.is_trained


def test_training_goes_on_from_the_weights(build, screen):
    model = build(screen(n_cells=200), train=12)
    lengths = {name: len(frame) for name, frame in model.history.items()}
    before = weights_of(model.module)
    model.train(max_steps=12, seed=0, **QUIET)
    assert moved(before, model.module) == {"denoiser", "mask_network", "averaged.denoiser", "averaged.mask_network"}
    for name, frame in model.history.items():
        assert len(frame) > lengths[name], name
        assert frame.index.is_monotonic_increasing, name
        assert frame.index.is_unique, name
    change = max(float((before[n] - p.detach()).abs().max()) for n, p in model.module.named_parameters() if n in before)
    assert change < 1.0  # it did not begin anew


def test_an_interruption_keeps_what_was_learnt(build, screen):
    model = build(screen(n_cells=300))
    before, handler = weights_of(model.module), signal.getsignal(signal.SIGINT)
    model.train(max_steps=60, seed=0, callbacks=[StopAt(20)], **QUIET)
    assert signal.getsignal(signal.SIGINT) is handler  # Ctrl-C works afterwards
    assert model.is_trained
    assert moved(before, model.module) == {"denoiser", "averaged.denoiser"}
    assert model.trainer.global_step == 20
    assert model.generate("G3", 3, show_progress=False).n_obs == 6
    model.train(max_steps=20, seed=0, **QUIET)
    assert "mask_validation_score" in model.history
    assert "mask_network" in moved(before, model.module)


def test_an_interruption_says_so(build, screen, caplog):
    model = build(screen(n_cells=200))
    with caplog.at_level("WARNING", logger="unlasting"):
        from unlasting.screen import logger

        logger.addHandler(caplog.handler)
        try:
            model.train(max_steps=20, callbacks=[StopAt(3)], **QUIET)
        finally:
            logger.removeHandler(caplog.handler)
    assert "interrupted at step 3 of the denoiser" in caplog.text
    assert "`train()` goes on from there" in caplog.text


def test_a_fault_is_not_an_interruption(build, screen):
    class Fault(Callback):
        def on_train_batch_end(self, *args) -> None:
            raise RuntimeError("disk on fire")

    model = build(screen(n_cells=200))
    with pytest.raises(RuntimeError, match="disk on fire"):
        model.train(max_steps=5, callbacks=[Fault()], **QUIET)
    assert not model.is_trained


def test_early_stopping_stops_when_nothing_gets_better(build, screen):
    model = build(screen(n_cells=200))
    model.train(
        max_steps=25, lr=1e-30, early_stopping_patience=2, seed=0, batch_size=128, **QUIET
    )  # a step is an epoch
    assert len(model.history["denoiser_validation_score"]) == 3
    model = build(screen(n_cells=200))
    model.train(max_steps=25, lr=1e-30, early_stopping=False, seed=0, batch_size=128, **QUIET)
    assert len(model.history["denoiser_validation_score"]) >= 25


def test_the_best_averaged_weights_are_kept(build, screen):
    """A learning rate that is far too large late in training must not cost what was learnt before."""

    class Ruin(Callback):
        def on_train_batch_end(self, trainer, plan, *args) -> None:
            if trainer.global_step > 40:
                with torch.no_grad():
                    for parameter in plan.module.averaged[plan.network].parameters():
                        parameter.add_(0.2 * torch.randn_like(parameter))

    model = build(screen(n_cells=300))
    model.train(max_steps=60, seed=0, early_stopping=False, callbacks=[Ruin()], **QUIET)
    scores = model.history["denoiser_validation_score"].to_numpy(dtype=float).ravel()
    assert scores[-1] > 2 * scores.min()
    from unlasting.train import NetworkPlan

    plan = NetworkPlan(model.module, "denoiser", model.preset.train_denoiser, 1)
    assert plan.validation_score == "denoiser_validation_score"
    x0 = torch.from_numpy(model.adata.X.toarray()) / model.module.statistics.x_max
    codes = {
        k: torch.as_tensor(model.adata.obs[f"_unlasting_{k}"].to_numpy()).long() for k in ("perturbation", "population")
    }
    val = torch.as_tensor((model.adata.obs["unlasting_split"] == "val").to_numpy())
    with torch.no_grad():
        score = model.module.denoising_loss(
            x0[val],
            codes["perturbation"][val],
            codes["population"][val],
            averaged=True,
            generator=torch.Generator().manual_seed(0),
        )
    assert float(score) == pytest.approx(scores.min(), rel=0.2)


def test_without_validation_cells_in_the_split_a_tenth_is_taken(build, screen):
    adata = screen(n_cells=400)
    del adata.obs["unlasting_split"]
    model = build(adata, train=5)
    assert 0.05 < len(model.validation_indices) / 400 < 0.1
    assert len(model.train_indices) + len(model.validation_indices) == 400
    assert len(model.test_indices) == 0
    assert set(adata.obs["perturbation"].iloc[model.validation_indices]) == set(adata.obs["perturbation"])
    np.testing.assert_allclose(model.history["denoiser_validation_score"].to_numpy(dtype=float) > 0, 1)


def test_epochs_are_passes_over_the_training_cells(build, screen):
    model = build(screen(n_cells=300))
    model.train(max_epochs=2, batch_size=32, **QUIET)
    n_train = int((model.adata.obs["unlasting_split"] == "train").sum())
    assert len(model.history["denoiser_train_loss"]) == 2
    assert len(model.train_indices) == n_train


def test_a_screen_smaller_than_a_batch(build, screen):
    model = build(screen(n_cells=60))
    model.train(max_steps=3, batch_size=512, **QUIET)
    assert model.generate("G7", 3, show_progress=False).n_obs == 6


def test_half_precision_trains_like_full(build, screen):
    full, half = build(screen(n_cells=200)), build(screen(n_cells=200))
    full.train(max_steps=20, seed=0, **QUIET)
    half.train(max_steps=20, seed=0, precision="bf16-mixed", **QUIET)
    for name, frame in full.history.items():
        np.testing.assert_allclose(half.history[name].to_numpy(float), frame.to_numpy(float), rtol=0.02, err_msg=name)
    new, other = (one.generate(["G3", "NEW1"], 20, show_progress=False).X.toarray() for one in (full, half))
    assert np.corrcoef(new.mean(axis=0), other.mean(axis=0))[0, 1] > 0.99


def test_half_precision_generates_nearly_the_same_cells(model):
    full = model.generate(["G3", "NEW1"], 20, show_progress=False).X.toarray()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model.generate(["G3", "NEW1"], 20, show_progress=False).X.toarray()
    assert np.mean((full > 0) == (half > 0)) > 0.99
    expressed = (full > 0) & (half > 0)
    assert np.sqrt(np.mean((full - half)[expressed] ** 2)) < 0.05 * full[expressed].std()
    assert not np.array_equal(full, half)


def test_test_cells_change_nothing(build, screen):
    """The same model, whatever the test cells hold."""
    adata = screen(n_cells=300)
    other = adata.copy()
    is_test = (adata.obs["unlasting_split"] == "test").to_numpy()
    values = other.X.toarray()
    values[is_test] = np.abs(np.random.default_rng(9).normal(3.0, 2.0, size=values[is_test].shape))
    other.X = values
    one, two = build(adata, train=10), build(other, train=10)
    for (name, ours), theirs in zip(one.module.state_dict().items(), two.module.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    for name, frame in one.history.items():
        assert frame.equals(two.history[name]), name


def test_progress_is_told_in_steps_on_the_standard_error(build, screen, capsys):
    model = build(screen(n_cells=120))
    model.train(max_steps=3, accelerator="cpu")
    shown = capsys.readouterr()
    assert "Training the denoiser: 100%" in shown.err
    assert "3/3" in shown.err
    assert "Training the mask network: 100%" in shown.err
    assert "Training the denoiser" not in shown.out
    model.generate("G3", 5, show_progress=False)
    assert capsys.readouterr().err == ""


def test_the_same_seed_gives_the_same_model(screen):
    """Whatever else drew random numbers before, and without those of others being changed."""
    adata = screen(n_cells=150)
    UnlastingModel.setup_anndata(adata, cell_type_key="cell_type")
    models = []
    for drawn in (0, 3):
        torch.rand(drawn)
        before = torch.get_rng_state()
        models.append(UnlastingModel(adata))
        assert torch.equal(torch.get_rng_state(), before)
        models[-1].train(max_steps=3, seed=4, show_progress=False, accelerator="cpu")
    one, other = (model.module.state_dict() for model in models)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_is_registered_can_be_looked_at(model, capsys):
    model.view_anndata_setup()
    shown = " ".join(capsys.readouterr().out.split())
    for said in ("UnlastingModel", "perturbation state registry", "population state registry"):
        assert said in shown
