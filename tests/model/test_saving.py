"""Saved models generate the same cells for ever; damaged or foreign files are refused and run no code."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from anndata import AnnData
from scipy import sparse

from unlasting.model import UnlastingModel
from unlasting.module import NetworkTraining
from unlasting.nn import Architecture

QUIET = {"show_progress": False}
READ_ALONE = """
import sys, warnings
warnings.filterwarnings("ignore")
import anndata
from unlasting.model import UnlastingModel
folder, controls, out = sys.argv[1:]
model = UnlastingModel.load(folder, adata=False, accelerator="cpu")
cells = model.generate(["G3+TFX", "NEW1"], 12, seed=4, controls=anndata.read_h5ad(controls), show_progress=False)
cells.write_h5ad(out)
"""
STORED = [Path(__file__).parents[1] / "data_files" / f"saved_model_format_{number}" for number in (1, 2)]
CALL = {"perturbations": ["T1", "T1+T2"], "n_cells": 20, "seed": 4, "show_progress": False}
N_DAMAGED = 60


@pytest.fixture
def folder(either, tmp_path):
    either.save(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def stored(tmp_path):
    """A copy of the stored model that a test may damage."""
    return Path(shutil.copytree(STORED[-1] / "model", tmp_path / "model"))


def load(folder, adata=False):
    return UnlastingModel.load(folder, adata=adata, accelerator="cpu")


def sign(folder: Path, **changes) -> None:
    """Change a description and all checksums, as an attacker would."""
    description = json.loads((folder / "model.json").read_text()) | changes
    description["files"] = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in description["files"]
    }
    del description["sha256"]
    text = json.dumps(description, sort_keys=True)
    description["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (folder / "model.json").write_text(json.dumps(description))


# -- the same model


def test_the_loaded_model_generates_the_same_cells(either, folder, screen):
    expected = either.generate(["G3+TFX", "NEW2"], 12, seed=4, **QUIET)
    loaded = load(folder, screen())
    cells = loaded.generate(["G3+TFX", "NEW2"], 12, seed=4, **QUIET)
    np.testing.assert_array_equal(cells.X.toarray(), expected.X.toarray())
    assert cells.obs.equals(expected.obs)
    assert loaded.preset == either.preset
    assert loaded.targets == either.targets
    assert set(loaded.history) == set(either.history)
    for name, frame in either.history.items():
        pd.testing.assert_frame_equal(loaded.history[name], frame)
    np.testing.assert_array_equal(
        loaded.predict(indices=range(30), seed=1, copy=True, **QUIET).layers["unlasting"].toarray(),
        either.predict(indices=range(30), seed=1, copy=True, **QUIET).layers["unlasting"].toarray(),
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


@pytest.mark.slow
def test_options_are_saved(build, screen, tmp_path):
    """Single options, and whole option classes of the networks and their training."""
    sizes = {"width": 8, "gene_features": 4, "attention_features": 4, "time_frequencies": 8}
    cases = [
        ("default", {"n_steps": 3, "use_grn": False}, {"mode": "activation"}),
        ("paper", {name: NetworkTraining(3, 16, 1e-3, 0.0, 0.9) for name in ("train_denoiser", "train_mask")}, {}),
        ("default", {"denoiser": Architecture(**sizes, heads=1), "mask_network": Architecture(**sizes)}, {}),
    ]
    for number, (preset, options, setup) in enumerate(cases):
        adata = screen(n_cells=100)
        UnlastingModel.setup_anndata(adata, cell_type_key="cell_type", **setup)
        whole = "denoiser" in options
        model = UnlastingModel(adata, preset=preset, **options, **({} if whole else sizes))
        model.train(max_steps=3, seed=0, accelerator="cpu", **QUIET)
        model.save(tmp_path / str(number))
        loaded = load(tmp_path / str(number), adata)
        assert loaded.preset == model.preset
        one, other = (m.generate(["G3", "G7"], 6, **QUIET).X.toarray() for m in (model, loaded))
        np.testing.assert_array_equal(one, other)
        for name, value in options.items():
            assert getattr(loaded.preset, name, getattr(loaded.preset.denoiser, name, None)) == value, name
        assert loaded.preset.denoiser.knock_out == (not setup)


def test_an_untrained_model_can_be_saved(build, screen, tmp_path):
    build(screen(n_cells=100)).save(tmp_path / "model")
    loaded = load(tmp_path / "model", screen(n_cells=100))
    with pytest.raises(RuntimeError, match=r"not trained yet. Call `model.train\(\)`"):
        loaded.generate("G3", **QUIET)


@pytest.mark.slow
def test_a_new_process_generates_the_same_cells(build, screen, tmp_path):
    """Also with sparse features of the prior, such as annotations."""
    adata = screen(n_cells=300)
    terms = sparse.random(
        len(adata.uns["unlasting"]["target_embedding"]["names"]), 30, 0.3, "csr", np.float32, random_state=3
    )
    terms[-1] = terms[3]  # NEW1 is annotated as G3
    adata.uns["unlasting"]["target_embedding"] |= {
        "features": sparse.csr_matrix(terms),
        "feature_source": np.repeat(["terms", "partners"], [20, 10]),
        "feature_is_term": np.repeat([True, False], [20, 10]),
    }
    model = build(adata, train=3)
    controls = adata[adata.obs["perturbation"] == "control"].copy()
    model.save(tmp_path / "model")
    controls.write_h5ad(tmp_path / "controls.h5ad")
    paths = [str(tmp_path / name) for name in ("model", "controls.h5ad", "out.h5ad")]
    subprocess.run([sys.executable, "-c", READ_ALONE, *paths], check=True, capture_output=True)
    expected = model.generate(["G3+TFX", "NEW1"], 12, seed=4, controls=controls, **QUIET)
    cells = anndata.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_array_equal(cells.X.toarray(), expected.X.toarray())
    for key in ("unlasting_source", "unlasting_expected_error", "unlasting_p_better"):
        assert list(cells.obs[key]) == list(expected.obs[key])
    error = expected.obs.groupby("perturbation", observed=True)["unlasting_expected_error"].first()
    assert error["G3+TFX"] < error["NEW1"]


@pytest.mark.slow
def test_a_loaded_model_trains_on(build, screen, tmp_path):
    model = build(screen(n_cells=200), train=5)
    model.save(tmp_path / "model")
    loaded = load(tmp_path / "model", screen(n_cells=200))
    before = {k: v.clone() for k, v in loaded.module.denoiser.state_dict().items()}
    loaded.train(max_steps=5, accelerator="cpu", **QUIET)
    assert any(not torch.equal(v, before[k]) for k, v in loaded.module.denoiser.state_dict().items())
    assert len(loaded.history["denoiser_train_loss"]) > len(model.history["denoiser_train_loss"])
    loaded.save(tmp_path / "model", overwrite=True)
    assert load(tmp_path / "model").is_trained


def test_a_loaded_model_keeps_its_statistics_and_its_own_split(model, tmp_path, screen):
    """Cells with other values do not change a trained model."""
    model.save(tmp_path / "model")
    loaded = load(tmp_path / "model", screen(seed=5))
    assert loaded.vocabulary.trained == model.vocabulary.trained
    for name, value in model.module.state_dict().items():
        assert torch.equal(loaded.module.state_dict()[name], value), name


@pytest.mark.slow
@pytest.mark.parametrize("stored", STORED, ids=["format 1", "format 2"])
def test_a_stored_model_gives_the_stored_cells_also_after_another_save(stored, tmp_path):
    folder, expected = stored / "model", np.load(stored / "cells.npz", allow_pickle=False)
    assert sum(file.stat().st_size for file in stored.rglob("*") if file.is_file()) < 200_000
    adata = anndata.read_h5ad(folder / "adata.h5ad")
    controls = adata[(adata.obs["perturbation"] == "control") & (adata.obs["unlasting_split"] == "train")].copy()
    model = load(folder, None)
    model.save(tmp_path / "again", save_anndata=True)
    again = load(tmp_path / "again", None)
    for one, given in ((model, None), (load(folder, adata), None), (load(folder, False), controls), (again, None)):
        np.testing.assert_allclose(one.generate(**CALL, controls=given).X.toarray(), expected["generated"], atol=1e-3)
    predicted = model.predict(cells="all", seed=4, copy=True, **QUIET).layers["unlasting"]
    np.testing.assert_allclose(predicted.toarray(), expected["predicted"], atol=1e-3)
    trust = [one.generate(**CALL).obs["unlasting_expected_error"].to_numpy() for one in (model, again)]
    np.testing.assert_array_equal(*trust)


def test_files_are_data_that_others_may_read(folder, tmp_path):
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "tensors.safetensors"]
    json.loads((folder / "model.json").read_text())
    safetensors.torch.load_file(folder / "tensors.safetensors")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain.txt").write_text("")
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    usual = stat.S_IMODE((tmp_path / "plain.txt").stat().st_mode)
    assert [stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()] == [usual, usual]


# -- the old save, and other files, survive


def test_nothing_is_overwritten_unasked(model, paper_model, tmp_path):
    model.save(tmp_path / "model", save_anndata=True)
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    with pytest.raises(FileExistsError, match="overwrite=True"):
        paper_model.save(tmp_path / "model")
    with pytest.raises(FileExistsError, match=r"holds cells \('adata.h5ad'\), which would be lost.*save_anndata=True"):
        paper_model.save(tmp_path / "model", overwrite=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before
    paper_model.save(tmp_path / "model", overwrite=True, save_anndata=True)
    assert load(tmp_path / "model", None).preset == paper_model.preset

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match=r"thesis.txt' is a file|exists already"):
            model.save(tmp_path / "mine" / "thesis.txt", overwrite=overwrite)
        with pytest.raises(FileExistsError, match=r"holds other files .*'thesis.txt' is one|exists already"):
            model.save(tmp_path / "mine", overwrite=overwrite)
    assert [path.read_text() for path in (tmp_path / "mine").iterdir()] == ["mine"]


def test_a_full_disk_leaves_the_old_save(model, tmp_path, monkeypatch):
    model.save(tmp_path / "model", save_anndata=True)

    def full(*args, **kwargs) -> None:
        raise OSError(28, "No space left on device")

    def full_in_hdf5(*args, **kwargs) -> None:
        raise RuntimeError("Can't decrement id ref count (file write failed)")

    usage = shutil.disk_usage(tmp_path)
    for owner, name, fails in (
        (Path, "write_bytes", full),
        (Path, "write_text", full),
        (AnnData, "write_h5ad", full_in_hdf5),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fails)
            patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
            with pytest.raises(OSError, match=r"No space left on the disk.*choose another place.*model'") as caught:
                model.save(tmp_path / "model", overwrite=True, save_anndata=True)
        assert caught.value.errno == 28
        assert [path.name for path in tmp_path.iterdir()] == ["model"]  # no incomplete file is left behind
        assert load(tmp_path / "model").is_trained
    with monkeypatch.context() as patch:
        patch.setattr(AnnData, "write_h5ad", full_in_hdf5)
        model.save(tmp_path / "model", overwrite=True, save_anndata=True)  # the disk has room: the weights are kept
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model.json", "tensors.safetensors"]
    assert load(tmp_path / "model").is_trained


def test_a_folder_that_cannot_be_moved_leaves_the_old_save(model, tmp_path, monkeypatch):
    model.save(tmp_path / "model")
    rename = Path.rename

    def refuse(self, target):
        if self.name == ".partial-model":
            raise PermissionError("no")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        with pytest.raises(PermissionError):
            model.save(tmp_path / "model", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert load(tmp_path / "model").is_trained


def test_a_model_set_aside_by_a_killed_save_is_found(model, paper_model, tmp_path):
    model.save(tmp_path / "model")
    (tmp_path / "model").rename(tmp_path / ".before-model")
    assert load(tmp_path / "model").preset == model.preset
    with pytest.raises(FileExistsError, match="overwrite=True"):
        paper_model.save(tmp_path / "model")
    paper_model.save(tmp_path / "model", overwrite=True)
    assert load(tmp_path / "model").preset == paper_model.preset
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_link_and_the_present_folder_are_places_too(model, tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    model.save(tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert load(tmp_path / "real").is_trained
    monkeypatch.chdir(tmp_path / "real")
    assert load(".").is_trained


# -- damaged and foreign files


def test_folders_and_descriptions_of_others_are_refused(stored, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no saved model"):
        load(tmp_path / "nowhere")
    torch.save({"model_state_dict": {}, "attr_dict": {}}, tmp_path / "model.pt")  # as scvi-tools saves
    with pytest.raises(
        FileNotFoundError, match=r"`model.json` and `tensors.safetensors`.*the folder that `save` wrote"
    ):
        load(tmp_path)
    for changes, message in (
        ({"class": "SCVI"}, "does not describe a saved UnlastingModel"),
        ({"format": 99, "unlasting_version": "9.9"}, r"saved by unlasting 9\.9 in format 99.*Update unlasting"),
    ):
        before = (stored / "model.json").read_text()
        sign(stored, **changes)
        with pytest.raises(ValueError, match=message):
            load(stored)
        (stored / "model.json").write_text(before)
    for content in ("[]", "{}", '{"class": "UnlastingModel", "format": 1}', '{"class": "SCVI"}'):
        (stored / "model.json").write_text(content)
        with pytest.raises(ValueError, match=r"`model.json`.*(describe a saved UnlastingModel|damaged)"):
            load(stored)


def test_another_panel_of_genes_is_refused(folder, screen):
    adata = screen()
    with pytest.raises(ValueError, match="1 of the 60 genes of the model are missing, 'G59'"):
        load(folder, adata[:, :-1].copy())
    with pytest.raises(ValueError, match="not those of the model in the same order"):
        load(folder, adata[:, ::-1].copy())


def equal_json(one: bytes, other: bytes) -> bool:
    """Whether two files are JSON that differs in white space, or `1e5` and `1E5`."""
    try:
        return json.dumps(json.loads(one)) == json.dumps(json.loads(other))
    except ValueError:
        return False


@pytest.mark.parametrize("file", ["model.json", "tensors.safetensors", "adata.h5ad"])
def test_a_damaged_file_is_refused(stored, file):
    """Whichever byte it is: positions are drawn anew each time, and reported when damage goes unnoticed."""
    path = stored / file
    content, noticed = path.read_bytes(), r"damaged|does not describe a saved|in format"
    for how in ("changed", "truncated", "emptied", "longer"):
        for _ in range(N_DAMAGED if how == "changed" else N_DAMAGED // 10):
            position, change = random.randrange(len(content)), random.randrange(1, 256)
            damaged = {
                "changed": content[:position] + bytes([content[position] ^ change]) + content[position + 1 :],
                "truncated": content[:position],
                "emptied": bytes(len(content)),
                "longer": content + bytes([change]),
            }[how]
            if equal_json(content, damaged):
                continue
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=noticed) as caught:
                load(stored, None)
            assert file in str(caught.value) or "Update unlasting" in str(caught.value), (how, position, change)


def test_cells_may_be_left_out_or_given(stored):
    adata = anndata.read_h5ad(stored / "adata.h5ad")
    (stored / "adata.h5ad").write_bytes(b"changed")
    with pytest.raises(ValueError, match=r"`adata.h5ad` in .*checksum differs. Pass the cells as `adata`"):
        load(stored, None)
    assert load(stored, adata).adata is adata
    (stored / "adata.h5ad").unlink()
    assert load(stored, None).adata is None
    for other in ("adata.h5ad", True, 3):
        with pytest.raises(TypeError, match=rf"`adata` is of type {type(other).__name__}. Give an AnnData"):
            load(stored, other)


class Code:
    """Would make a folder, if it were unpickled."""

    def __reduce__(self):
        return (os.mkdir, (Code.folder,))


def test_code_in_a_folder_does_not_run(stored, tmp_path):
    Code.folder = str(tmp_path / "made")
    torch.save(Code(), stored / "model.pt")  # the file of other scvi-tools models
    load(stored)
    before = {name: (stored / name).read_bytes() for name in ("tensors.safetensors", "model.json")}
    for name, message in (
        ("tensors.safetensors", r"`tensors.safetensors` in .* cannot be read"),
        ("model.json", r"`model.json` in .* is damaged"),
    ):
        (stored / name).write_bytes(pickle.dumps(Code()))
        if name == "tensors.safetensors":
            sign(stored)
        with pytest.raises(ValueError, match=message):
            load(stored)
        for other, content in before.items():
            (stored / other).write_bytes(content)
    assert not (tmp_path / "made").exists()
