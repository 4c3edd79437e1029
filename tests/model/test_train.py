"""Training: each network alone, in named steps, with a history, and open to other plans, splitters and loggers."""

from __future__ import annotations

import signal
import sys
import time

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger

import unlasting as ul
from unlasting.model import UnlastingModel
from unlasting.module import PRESETS
from unlasting.nn import Denoiser
from unlasting.screen import logger

QUIET = {"show_progress": False, "accelerator": "cpu"}
HIDDEN = {"show_progress": False}
CODES = ("perturbation", "population")
SERIES = {f"{network}_{kind}" for network in ("denoiser", "mask") for kind in ("train_loss", "validation_score")}
NETWORKS = ("denoiser", "mask_network")


class StopAt(Callback):
    """Raise Ctrl-C at a certain step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, *args) -> None:
        if trainer.global_step == self.step:
            raise KeyboardInterrupt


class Seen(Callback):
    """Record the denoiser's cells in their order."""

    def __init__(self) -> None:
        self.cells: list[bytes] = []

    def on_train_batch_start(self, trainer, plan, batch, *args) -> None:
        if plan.network == "denoiser":
            self.cells += [row.numpy().tobytes() for row in batch["X"]]


class Watch(Callback):
    """Record the parts that change in each network's training."""

    def __init__(self) -> None:
        self.moved: dict[str, set[str]] = {}

    def on_fit_start(self, trainer, plan) -> None:
        self.before = weights(plan.module)

    def on_fit_end(self, trainer, plan) -> None:
        self.moved[plan.network] = moved(self.before, plan.module)


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def moved(before: dict[str, torch.Tensor], module: torch.nn.Module) -> set[str]:
    after = weights(module)
    changed = [name.split(".") for name in before if not torch.equal(before[name], after[name])]
    return {".".join(parts[:2]) if parts[0] == "averaged" else parts[0] for parts in changed}


@pytest.mark.slow
def test_each_stage_moves_only_its_own_network(build, screen):
    for preset in ("default", "paper"):
        watch = Watch()
        build(screen(n_cells=200), preset).train(max_steps=4, seed=0, callbacks=[watch], **QUIET)
        assert watch.moved == {name: {name, f"averaged.{name}"} for name in NETWORKS}


@pytest.mark.slow
def test_no_steps_leave_the_effects_model_alone(build, screen, tmp_path, monkeypatch):
    model = build(screen(n_cells=200))
    before = weights(model.module)
    model.train(max_steps=0)
    assert model.is_trained
    assert moved(before, model.module) == set()
    assert not model.history
    assert len(model.train_indices) + len(model.validation_indices) + len(model.test_indices) == 200
    effect = {label: model.generate(label, 80, seed=0, **HIDDEN).X.toarray().mean(0) for label in ("TFX", "control")}
    assert (effect["TFX"] - effect["control"])[20:30].mean() > 0.1  # the planted effect, from the closed form
    model.save(tmp_path / "model")
    loaded = UnlastingModel.load(tmp_path / "model", model.adata, accelerator="cpu")
    np.testing.assert_array_equal(loaded.generate("TFX", 80, seed=0, **HIDDEN).X.toarray().mean(0), effect["TFX"])
    # the network that predicts zero is not evaluated, and would change nothing
    monkeypatch.setattr(Denoiser, "predicts_zero", lambda self: False)
    np.testing.assert_array_equal(loaded.generate("TFX", 80, seed=0, **HIDDEN).X.toarray().mean(0), effect["TFX"])
    with pytest.raises(ValueError, match="`max_steps=0` leaves the effects model alone.*use the default preset"):
        build(screen(n_cells=100), "paper").train(max_steps=0)


def test_arguments_without_meaning_are_refused_with_the_fix(build, screen):
    model = build(screen(n_cells=100))
    with pytest.raises(TypeError, match=r"`train\(100\)` could mean steps or epochs.*`train\(max_steps=100\)`"):
        model.train(100)
    for name, fix in {
        "train_size": "pp.split",
        "validation_size": "pp.split",
        "shuffle_set_split": "pp.split",
        "datasplitter_kwargs": "_data_splitter_cls",
        "early_stopping_monitor": "own validation score",
        "plan_config": "plan_kwargs",
    }.items():
        with pytest.raises(TypeError, match=rf"`{name}` has no meaning for UnlastingModel.*{fix}"):
            model.train(max_steps=1, **{name: 0.9}, **QUIET)
    with pytest.raises(ValueError, match="`strategy` is 'ddp_spawn'.*script with `strategy='ddp'`"):
        model.train(max_steps=3, devices=2, strategy="ddp_spawn", **QUIET)
    assert not model.is_trained


@pytest.mark.slow
def test_plan_and_splitter_are_classes_of_the_model(screen):
    seen = {"splitters": [], "decay": [], "batch_sizes": []}

    class Plan(ul.train.NetworkPlan):
        def configure_optimizers(self):
            found = super().configure_optimizers()
            seen["decay"].append(found["optimizer"].param_groups[0]["weight_decay"])
            return found

        def log(self, name, value, *, batch_size, **options):
            seen["batch_sizes"].append(batch_size)
            super().log(name, value, batch_size=batch_size, **options)

    class Splitter(ul.train.CellSplitter):
        def __init__(self, manager, parts, batch_size, n_processes):
            super().__init__(manager, parts, batch_size, n_processes)
            seen["splitters"].append((len(parts[0]), batch_size))

    class Model(UnlastingModel):
        _training_plan_cls = Plan
        _data_splitter_cls = Splitter

    adata = screen(n_cells=150)
    Model.setup_anndata(adata)
    model = Model(adata, width=16, gene_features=4, attention_features=4)
    model.train(max_steps=2, batch_size=32, plan_kwargs={"weight_decay": 0.25}, **QUIET)
    n_train, n_val = ((adata.obs["unlasting_split"] == part).sum() for part in ("train", "val"))
    assert seen["decay"] == [0.25, 0.25]
    assert seen["splitters"] == [(n_train, 32), (n_train, model.preset.train_mask.batch_size)]
    assert set(seen["batch_sizes"]) == {32, n_train, n_val}  # cells, not entries of the batch


@pytest.mark.slow
def test_the_same_seed_gives_the_same_cells(build, screen):
    for preset in ("default", "paper"):
        one, same, other = (build(screen(n_cells=200), preset, train=8, seed=s) for s in (1, 1, 2))
        first, second, third = (m.generate(["G3", "NEW2"], 10, seed=0, **HIDDEN) for m in (one, same, other))
        np.testing.assert_array_equal(first.X.toarray(), second.X.toarray())
        assert first.obs.equals(second.obs)
        assert not np.array_equal(first.X.toarray(), third.X.toarray())


@pytest.mark.slow
def test_the_same_seed_gives_the_same_model(screen):
    """Whatever else drew random numbers before, and without any effect on those."""
    adata = screen(n_cells=150)
    UnlastingModel.setup_anndata(adata, cell_type_key="cell_type")
    models = []
    for drawn in (0, 3):
        torch.rand(drawn)
        before = torch.get_rng_state()
        models.append(UnlastingModel(adata))
        assert torch.equal(torch.get_rng_state(), before)
        models[-1].train(max_steps=3, seed=4, **QUIET)
    one, other = (model.module.state_dict() for model in models)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_history_holds_both_networks(build, screen):
    model = build(screen(n_cells=2_000), train=400)  # in fewer cells the effects model leaves nothing to learn
    assert set(model.history) == SERIES
    for name, frame in model.history.items():
        values = frame[name].to_numpy()
        assert np.isfinite(values).all(), name
        assert len(values) > 10, name
        half = len(values) // 2
        if name == "mask_train_loss":  # of a few batches between validations: their cells differ more than the weights
            assert values[half:].mean() == pytest.approx(values[:half].mean(), rel=0.01)
        elif name == "denoiser_train_loss":
            assert values[half:].mean() < values[:half].mean()
        else:
            assert values[-1] < values[0], name


@pytest.mark.slow
def test_history_counts_each_networks_own_steps_whatever_the_logger(build, screen, tmp_path):
    model, logged = build(screen(n_cells=200)), build(screen(n_cells=200))
    model.train(max_steps=12, seed=0, **QUIET)
    logged.train(max_steps=12, seed=0, logger=CSVLogger(tmp_path), **QUIET)
    assert set(model.history) == set(logged.history) == SERIES
    mask_steps = round(12 / model.preset.train_denoiser.max_steps * model.preset.train_mask.max_steps)
    for name, frame in model.history.items():
        assert frame.equals(logged.history[name]), name
        assert frame.dtypes.to_list() == [np.float64]
        assert (frame.index.name, frame.index.max()) == ("step", 12 if name.startswith("denoiser") else mask_steps)
    assert list(tmp_path.rglob("metrics.csv"))  # the user's logger was used

    before, first = weights(model.module), model.history
    model.train(max_steps=12, seed=0, **QUIET)  # continues
    assert moved(before, model.module) == {*NETWORKS, *(f"averaged.{name}" for name in NETWORKS)}
    for name, frame in model.history.items():
        assert frame.index.is_monotonic_increasing, name
        assert frame.index.is_unique, name
        assert frame.index.max() == 2 * first[name].index.max(), name
    change = max(float((before[n] - p.detach()).abs().max()) for n, p in model.module.named_parameters() if n in before)
    assert change < 1.0  # from the earlier weights


@pytest.mark.slow
def test_an_interruption_keeps_the_weights_and_says_so(build, screen, caplog):
    model = build(screen(n_cells=300))
    before, handler = weights(model.module), signal.getsignal(signal.SIGINT)
    logger.addHandler(caplog.handler)
    try:
        model.train(max_steps=30, seed=0, callbacks=[StopAt(10)], **QUIET)
    finally:
        logger.removeHandler(caplog.handler)
    assert "interrupted at step 10 of the denoiser. Its weights are kept; continue with `train()`" in caplog.text
    assert signal.getsignal(signal.SIGINT) is handler  # Ctrl-C works afterwards
    assert model.is_trained
    assert moved(before, model.module) == {"denoiser", "averaged.denoiser"}
    assert model.trainer.global_step == 10
    assert model.generate("G3", 3, **HIDDEN).n_obs == 6
    model.train(max_steps=5, seed=0, **QUIET)
    assert "mask_validation_score" in model.history
    assert "mask_network" in moved(before, model.module)


@pytest.mark.slow
def test_an_error_is_not_an_interruption(build, screen):
    class Fault(Callback):
        def on_train_batch_end(self, *args) -> None:
            raise RuntimeError("disk on fire")

    model = build(screen(n_cells=200))
    with pytest.raises(RuntimeError, match="disk on fire"):
        model.train(max_steps=5, callbacks=[Fault()], **QUIET)
    assert not model.is_trained


@pytest.mark.slow
def test_early_stopping_stops_without_improvement(build, screen):
    for early_stopping, n in ((True, 4), (False, 26)):
        model = build(screen(n_cells=200))
        options = {"early_stopping": early_stopping, "early_stopping_patience": 2}
        model.train(max_steps=25, lr=1e-30, seed=0, batch_size=128, **options, **QUIET)  # a step is an epoch
        assert len(model.history["denoiser_validation_score"]) == n


def test_training_grows_with_cells_and_conditions():
    denoiser, mask = PRESETS["default"].train_denoiser, PRESETS["default"].train_mask
    steps = {size: denoiser.for_screen(*size).max_steps for size in ((200, 5), (25_000, 80), (80_000, 80), (10**6, 80))}
    assert list(steps.values()) == [400, 400, 80_000 // 64, 5_000]
    assert denoiser.for_screen(30_000, 2_000).max_steps == 2_000  # 64 cells for each condition
    assert denoiser.for_screen(10**6, 20_000).max_steps == 5_000
    assert [mask.for_screen(n, 80).max_steps for n in (200, 80_000, 10**6)] == [200, 80_000 // 256, 1_250]
    published = PRESETS["paper"].train_denoiser
    assert published.for_screen(10**6, 2_000) == published


@pytest.mark.slow
def test_validations_are_many_at_any_size_and_score_few_cells(build, screen, caplog):
    class Scored(Callback):
        n_trained, n_validated = 0, 0

        def on_train_batch_end(self, trainer, plan, outputs, batch, *args) -> None:
            self.n_trained += len(batch["X"])

        def on_validation_batch_end(self, trainer, plan, outputs, batch, *args) -> None:
            self.n_validated += len(batch["X"])

    for n_cells, max_steps, batch_size in ((400, 20, 8), (400, 60, 32), (4_000, 50, 32)):
        model, scored = build(screen(n_cells=n_cells)), Scored()
        model.train(max_steps=max_steps, batch_size=batch_size, early_stopping=False, callbacks=[scored], **QUIET)
        steps = model.history["denoiser_validation_score"].index
        assert 10 <= len(steps) - 1 <= 26
        assert steps[0] == 0
        assert steps[-1] == max_steps
    assert scored.n_validated < 0.7 * scored.n_trained  # each takes a third of the time of a trained cell


@pytest.mark.slow
def test_number_of_steps_and_expected_time_are_logged(build, screen, caplog, monkeypatch):
    class Slow(Callback):
        def on_train_batch_start(self, trainer, plan, *args) -> None:
            clock[0] += 13.0 if plan.network == "denoiser" else 1.0

    clock, model = [1.0], build(screen(n_cells=200))
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    logger.addHandler(caplog.handler)
    try:
        model.train(max_steps=60, batch_size=70, early_stopping=False, callbacks=[Slow()], **QUIET)
    finally:
        logger.removeHandler(caplog.handler)
    n_train = int((model.adata.obs["unlasting_split"] == "train").sum())
    passes = f"{60 * 70 / n_train:.2g} passes"
    assert f"Training the denoiser for at most 60 steps of 70 cells ({passes}), about 13 minutes." in caplog.text
    n_mask = min(n_train, 256)
    assert f"Training the mask network for at most 30 steps of {n_mask} cells" in caplog.text
    assert caplog.text.count("about") == 1  # the mask network takes less than a minute


@pytest.mark.slow
def test_the_best_averaged_weights_are_kept(build, screen):
    """Weights that are ruined late in training do not replace the earlier ones."""

    class Ruin(Callback):
        def on_train_batch_end(self, trainer, plan, *args) -> None:
            if trainer.global_step > 40:
                with torch.no_grad():
                    for parameter in plan.module.averaged[plan.network].parameters():
                        parameter.add_(0.2 * torch.randn_like(parameter))

    model = build(screen(n_cells=300))
    model.train(max_steps=60, seed=0, early_stopping=False, callbacks=[Ruin()], **QUIET)
    scores = model.history["denoiser_validation_score"].to_numpy().ravel()
    assert scores[-1] > 2 * scores.min()
    x0 = torch.from_numpy(model.adata.X.toarray()) / model.module.statistics.x_max
    val = torch.as_tensor((model.adata.obs["unlasting_split"] == "val").to_numpy())
    codes = (torch.as_tensor(model.adata.obs[f"_unlasting_{key}"].to_numpy()).long()[val] for key in CODES)
    with torch.no_grad():
        score = model.module.denoising_loss(x0[val], *codes, averaged=True, generator=torch.Generator().manual_seed(0))
    assert float(score) == pytest.approx(scores.min(), rel=0.2)


@pytest.mark.slow
def test_cells_behind_steps_and_epochs(build, screen):
    """Without a split a tenth is validated; epochs are passes over training cells; a batch may exceed the screen."""
    adata = screen(n_cells=400)
    del adata.obs["unlasting_split"]
    model = build(adata, train=3)
    assert 0.05 < len(model.validation_indices) / 400 < 0.1
    assert len(model.train_indices) + len(model.validation_indices) == 400
    assert len(model.test_indices) == 0
    assert set(adata.obs["perturbation"].iloc[model.validation_indices]) == set(adata.obs["perturbation"])
    model, seen = build(screen(n_cells=300)), Seen()
    n_train = int((model.adata.obs["unlasting_split"] == "train").sum())
    model.train(max_epochs=2, batch_size=n_train // 3, callbacks=[seen], **QUIET)
    assert model.history["denoiser_train_loss"].index.max() == 6
    assert len(model.train_indices) == n_train
    passes = [set(seen.cells[i : i + n_train // 3 * 3]) for i in (0, n_train // 3 * 3)]
    training = {row.tobytes() for row in model.adata.X[model.train_indices].toarray()}
    assert [len(one) for one in passes] == [n_train // 3 * 3] * 2  # each cell once, but for those left over
    assert all(one <= training for one in passes)
    assert seen.cells[: n_train // 3] != seen.cells[n_train // 3 * 3 :][: n_train // 3]  # in another order
    model = build(screen(n_cells=60))
    model.train(max_steps=3, batch_size=512, **QUIET)
    assert model.generate("G7", 3, **HIDDEN).n_obs == 6


@pytest.mark.slow
def test_half_precision_is_like_full(build, screen):
    full, half = build(screen(n_cells=200)), build(screen(n_cells=200))
    full.train(max_steps=20, seed=0, **QUIET)
    half.train(max_steps=20, seed=0, precision="bf16-mixed", **QUIET)
    for name, frame in full.history.items():
        np.testing.assert_allclose(half.history[name], frame, rtol=0.02, err_msg=name)
    new, other = (one.generate(["G3", "NEW1"], 20, **HIDDEN).X.toarray() for one in (full, half))
    assert np.corrcoef(new.mean(axis=0), other.mean(axis=0))[0, 1] > 0.99

    model = build(screen(), train=250)
    whole = model.generate(["G3", "NEW1"], 20, **HIDDEN).X.toarray()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.generate(["G3", "NEW1"], 20, **HIDDEN).X.toarray()
    assert np.mean((whole > 0) == (rough > 0)) > 0.99
    expressed = (whole > 0) & (rough > 0)
    assert np.sqrt(np.mean((whole - rough)[expressed] ** 2)) < 0.05 * whole[expressed].std()
    assert not np.array_equal(whole, rough)


@pytest.mark.slow
def test_test_cells_change_nothing(build, screen):
    """The same model, whatever the values of test cells."""
    adata = screen(n_cells=300)
    other = adata.copy()
    is_test = (adata.obs["unlasting_split"] == "test").to_numpy()
    values = other.X.toarray()
    values[is_test] = np.abs(np.random.default_rng(9).normal(3.0, 2.0, size=values[is_test].shape))
    other.X = values
    one, two = build(adata, train=5), build(other, train=5)
    for (name, ours), theirs in zip(one.module.state_dict().items(), two.module.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    for name, frame in one.history.items():
        assert frame.equals(two.history[name]), name


@pytest.mark.slow
def test_progress_appears_in_steps_on_the_standard_error(build, screen, capsys, monkeypatch):
    model = build(screen(n_cells=120))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)  # a log file gets no bars
    model.train(max_steps=3, accelerator="cpu")
    shown = capsys.readouterr()
    assert "Training the denoiser: 100%" in shown.err
    assert "3/3" in shown.err
    assert "Training the mask network: 100%" in shown.err
    assert "Training the denoiser: " not in shown.out
    model.generate("G3", 5, **HIDDEN)
    assert capsys.readouterr().err == ""


def test_a_model_describes_itself(model, build, screen, capsys):
    model.view_anndata_setup()
    repr(model)
    shown = " ".join(capsys.readouterr().out.split())
    for part in ("UnlastingModel", "perturbation state registry", "population state registry"):
        assert part in shown
    assert "5 conditions, 3 trained targets, 60 genes" in shown
    assert model.targets == {"gene": ["G3", "G7", "TFX"], "drug": [], "stimulus": []}
    table = model._repr_html_()
    for name, value in {"conditions": 5, "gene targets": 3, "genes": 60, "trained": "yes"}.items():
        assert f"<tr><th>{name}</th><td>{value}</td></tr>" in table
    assert "last step of denoiser" in table
    assert "call `model.train()`" in build(screen(n_cells=100))._repr_html_()


def test_a_model_shows_a_graph_where_its_networks_have_one(build, screen, capsys):
    for options, is_shown in (({}, False), ({"use_grn": True}, True)):
        model = build(screen(n_cells=100), options=options)
        repr(model)
        summary = " ".join(capsys.readouterr().out.split())
        assert ("60 genes, 62 nodes" in summary) == is_shown
        assert ("<tr><th>graph</th><td>62 nodes" in model._repr_html_()) == is_shown
        assert ("nodes" in summary) == ("graph" in model._repr_html_()) == is_shown
