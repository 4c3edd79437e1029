from __future__ import annotations

import json
import stat
import subprocess
import sys

import anndata
import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from anndata import AnnData
from scipy import sparse

from unlasting.model import UnlastingModel, _saving

QUIET = {"show_progress": False}
READ_ALONE = """
import sys, warnings
warnings.filterwarnings("ignore")
import anndata
from unlasting.model import UnlastingModel
folder, controls, out = sys.argv[1:]
model = UnlastingModel.load(folder, adata=False, accelerator="cpu")
cells = model.generate(["G3+TFX", "NEW2"], 12, seed=4, controls=anndata.read_h5ad(controls), show_progress=False)
cells.write_h5ad(out)
"""


@pytest.fixture
def folder(either, tmp_path):
    either.save(tmp_path / "model")
    return tmp_path / "model"


def damage(folder, **changes) -> None:
    """Change entries of a description as somebody would who wants it to be believed."""
    description = json.loads((folder / "model.json").read_text()) | changes
    (folder / "model.json").write_text(json.dumps(description | {"sha256": _saving._checksum_of(description)}))


def load(folder, adata=False):
    return UnlastingModel.load(folder, adata=adata, accelerator="cpu")


def test_the_loaded_model_generates_the_same_cells(either, folder, screen):
    expected = either.generate(["G3+TFX", "NEW2"], 12, seed=4, **QUIET)
    adata = screen()
    loaded = load(folder, adata)
    cells = loaded.generate(["G3+TFX", "NEW2"], 12, seed=4, **QUIET)
    np.testing.assert_array_equal(cells.X.toarray(), expected.X.toarray())
    assert cells.obs.equals(expected.obs)
    assert loaded.preset == either.preset
    assert set(loaded.history) == set(either.history)
    for name, frame in either.history.items():
        pd.testing.assert_frame_equal(loaded.history[name], frame, check_dtype=False)
    np.testing.assert_array_equal(
        loaded.predict(indices=range(30), seed=1, copy=True, **QUIET).layers["unlasting"],
        either.predict(indices=range(30), seed=1, copy=True, **QUIET).layers["unlasting"],
    )


def test_without_an_anndata_it_takes_controls(either, folder, controls):
    expected = either.generate("G3", 10, seed=4, controls=controls, **QUIET)
    loaded = load(folder)
    cells = loaded.generate("G3", 10, seed=4, controls=controls, **QUIET)
    np.testing.assert_array_equal(cells.X.toarray(), expected.X.toarray())
    assert list(cells.var_names) == list(controls.var_names)
    with pytest.raises(ValueError, match="loaded without an AnnData: give the control cells"):
        loaded.generate("G3", 10, **QUIET)
    with pytest.raises(ValueError, match="loaded without an AnnData"):
        loaded.predict(**QUIET)
    with pytest.raises(RuntimeError, match="Load it with one to train it"):
        loaded.train(max_steps=1)


def test_a_new_process_generates_the_same_cells(model, tmp_path, controls):
    model.save(tmp_path / "model")
    controls.write_h5ad(tmp_path / "controls.h5ad")
    paths = [str(tmp_path / name) for name in ("model", "controls.h5ad", "out.h5ad")]
    subprocess.run([sys.executable, "-c", READ_ALONE, *paths], check=True, capture_output=True)
    expected = model.generate(["G3+TFX", "NEW2"], 12, seed=4, controls=controls, **QUIET)
    cells = anndata.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_array_equal(cells.X.toarray(), expected.X.toarray())
    assert list(cells.obs["unlasting_source"]) == list(expected.obs["unlasting_source"])


def test_sparse_features_of_the_prior_are_saved(build, screen, tmp_path):
    """Such as annotations: an unseen target is described alike in a new process."""
    adata = screen(n_cells=300)
    rng = np.random.default_rng(3)
    terms = sparse.random(len(adata.uns["unlasting"]["target_embedding"]["names"]), 30, 0.3, "csr", np.float32, rng)
    terms[-1] = terms[3]  # NEW1 is annotated as G3
    adata.uns["unlasting"]["target_embedding"]["features"] = sparse.csr_matrix(terms)
    model = build(adata, train=3)
    controls = adata[adata.obs["perturbation"] == "control"].copy()
    model.save(tmp_path / "model")
    controls.write_h5ad(tmp_path / "controls.h5ad")
    paths = [str(tmp_path / name) for name in ("model", "controls.h5ad", "out.h5ad")]
    script = READ_ALONE.replace("NEW2", "NEW1")
    subprocess.run([sys.executable, "-c", script, *paths], check=True, capture_output=True)
    expected = model.generate(["G3+TFX", "NEW1"], 12, seed=4, controls=controls, **QUIET)
    cells = anndata.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_array_equal(cells.X.toarray(), expected.X.toarray())
    np.testing.assert_array_equal(cells.obs["unlasting_support"], expected.obs["unlasting_support"])
    support = expected.obs.groupby("perturbation", observed=True)["unlasting_support"].first()
    assert 0 < support["NEW1"] < support["G3+TFX"]


def test_the_anndata_can_be_saved_along(build, screen, tmp_path):
    model = build(screen(n_cells=150), train=3)
    model.save(tmp_path / "model", save_anndata=True)
    loaded = load(tmp_path / "model", None)
    one, other = (m.generate("G3", 5, **QUIET).X.toarray() for m in (model, loaded))
    np.testing.assert_array_equal(one, other)


def test_a_loaded_model_trains_on(build, screen, tmp_path):
    adata = screen(n_cells=200)
    model = build(adata, train=5)
    model.save(tmp_path / "model")
    loaded = load(tmp_path / "model", screen(n_cells=200))
    before = {k: v.clone() for k, v in loaded.module.denoiser.state_dict().items()}
    loaded.train(max_steps=5, accelerator="cpu", **QUIET)
    assert any(not torch.equal(v, before[k]) for k, v in loaded.module.denoiser.state_dict().items())
    assert len(loaded.history["denoiser_train_loss"]) > len(model.history["denoiser_train_loss"])
    loaded.save(tmp_path / "model", overwrite=True)
    assert load(tmp_path / "model").is_trained


def test_a_loaded_model_keeps_its_statistics_and_split_of_conditions(model, folder, screen):
    """Cells that look different do not change a model that is trained."""
    other = screen(seed=5)
    loaded = load(folder, other)
    assert loaded.vocabulary.trained == model.vocabulary.trained
    if loaded.preset == model.preset:
        for name, value in model.module.state_dict().items():
            assert torch.equal(loaded.module.state_dict()[name], value), name


def test_nothing_in_the_folder_runs_code(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "tensors.safetensors"]
    json.loads((folder / "model.json").read_text())
    safetensors.torch.load_file(folder / "tensors.safetensors")


def test_others_may_read_the_folder_as_any_other(folder, tmp_path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain.txt").write_text("")
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    usual = stat.S_IMODE((tmp_path / "plain.txt").stat().st_mode)
    assert [stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()] == [usual, usual]


def test_an_untrained_model_can_be_saved(build, screen, tmp_path):
    build(screen(n_cells=100)).save(tmp_path / "model")
    loaded = load(tmp_path / "model", screen(n_cells=100))
    with pytest.raises(RuntimeError, match=r"not trained yet. Call `model.train\(\)`"):
        loaded.generate("G3", **QUIET)


def test_options_are_saved(build, screen, tmp_path):
    adata = screen(n_cells=100)
    UnlastingModel.setup_anndata(adata, cell_type_key="cell_type", mode="activation")
    model = UnlastingModel(adata, width=24, n_steps=3, use_grn=False)
    model.save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert loaded.preset == model.preset
    assert (loaded.preset.denoiser.width, loaded.preset.n_steps, loaded.preset.denoiser.use_grn) == (24, 3, False)
    assert not loaded.preset.denoiser.knock_out


# -- what goes wrong


def test_an_existing_folder_is_not_overwritten_unasked(either, folder):
    before = (folder / "model.json").read_bytes()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        either.save(folder)
    assert (folder / "model.json").read_bytes() == before
    either.save(folder, overwrite=True)
    load(folder)


def test_a_full_disk_leaves_the_old_save(model, tmp_path, monkeypatch):
    model.save(tmp_path / "model")

    def full(*args, **kwargs) -> None:
        raise OSError(28, "No space left on device")

    def full_in_hdf5(*args, **kwargs) -> None:
        raise RuntimeError("Can't decrement id ref count (errno = 28, error message = 'No space left on device')")

    for owner, name, fails in (
        (_saving.Path, "write_bytes", full),
        (_saving.Path, "write_text", full),
        (AnnData, "write_h5ad", full_in_hdf5),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fails)
            with pytest.raises(OSError, match=r"No space left on the disk.*choose another place.*model'") as caught:
                model.save(tmp_path / "model", overwrite=True, save_anndata=True)
        assert caught.value.errno == 28
        assert [path.name for path in tmp_path.iterdir()] == ["model"]  # nothing half-written is left behind
        assert load(tmp_path / "model").is_trained


def test_a_folder_that_cannot_be_moved_leaves_the_old_save(model, tmp_path, monkeypatch):
    model.save(tmp_path / "model")
    rename = _saving.Path.rename

    def refuse(self, target):
        if self.name == ".partial-model":
            raise PermissionError("no")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(_saving.Path, "rename", refuse)
        with pytest.raises(PermissionError):
            model.save(tmp_path / "model", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert load(tmp_path / "model").is_trained


def test_a_model_set_aside_by_a_killed_save_stands_for_it(model, paper_model, tmp_path):
    model.save(tmp_path / "model")
    (tmp_path / "model").rename(tmp_path / ".before-model")
    assert load(tmp_path / "model").preset == model.preset
    with pytest.raises(FileExistsError, match="overwrite=True"):
        paper_model.save(tmp_path / "model")
    paper_model.save(tmp_path / "model", overwrite=True)
    assert load(tmp_path / "model").preset == paper_model.preset
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_files_of_others_are_never_lost(model, tmp_path, overwrite):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"thesis.txt' is a file|exists already"):
        model.save(tmp_path / "thesis.txt", overwrite=overwrite)
    with pytest.raises(FileExistsError, match=r"holds other files .*'thesis.txt' is one|exists already"):
        model.save(tmp_path, overwrite=overwrite)
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_link_and_the_folder_one_is_in_are_places_too(model, tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    model.save(tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert load(tmp_path / "real").is_trained
    monkeypatch.chdir(tmp_path / "real")
    assert load(".").is_trained


def test_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no saved model"):
        load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"`model.json` and `tensors.safetensors`"):
        load(tmp_path)


@pytest.mark.parametrize("content", ["[]", "{}", '{"class": "UnlastingModel", "format": 1}', '{"class": "SCVI"}'])
def test_a_foreign_description(folder, content):
    (folder / "model.json").write_text(content)
    with pytest.raises(ValueError, match=r"`model.json`.*(describe a saved UnlastingModel|damaged)"):
        load(folder)


def test_another_class(folder):
    damage(folder, **{"class": "SCVI"})
    with pytest.raises(ValueError, match="does not describe a saved UnlastingModel"):
        load(folder)


def test_a_later_format(folder):
    damage(folder, format=99, unlasting_version="9.9")
    with pytest.raises(ValueError, match=r"saved by unlasting 9\.9 in format 99.*Update unlasting"):
        load(folder)


def test_another_panel_of_genes(folder, screen):
    adata = screen()
    with pytest.raises(ValueError, match="1 of the 60 genes of the model are missing, 'G59'"):
        load(folder, adata[:, :-1].copy())
    with pytest.raises(ValueError, match="not those of the model in the same order"):
        load(folder, adata[:, ::-1].copy())
