"""Models that earlier versions saved give the same cells for ever; what is damaged or foreign is refused and runs no code."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch

from unlasting.model import UnlastingModel, _saving

STORED = Path(__file__).parents[1] / "data_files"
FORMATS = sorted(path.name for path in STORED.glob("saved_model_format_*"))
CALL = {"perturbations": ["T1", "T1+T2"], "n_cells": 20, "seed": 4, "show_progress": False}
N_DAMAGED = 60


@pytest.fixture
def folder(tmp_path):
    """A copy of the stored model that a test may damage."""
    return Path(shutil.copytree(STORED / FORMATS[-1] / "model", tmp_path / "model"))


def load(folder, adata=None):
    return UnlastingModel.load(folder, adata, accelerator="cpu")


def test_every_format_is_stored():
    assert FORMATS == [f"saved_model_format_{i}" for i in range(1, _saving.FORMAT + 1)]
    assert sum(file.stat().st_size for file in STORED.rglob("*") if file.is_file()) < 200_000 * _saving.FORMAT


@pytest.mark.parametrize("name", FORMATS)
def test_a_stored_model_gives_the_stored_cells(name):
    folder, expected = STORED / name / "model", np.load(STORED / name / "cells.npz", allow_pickle=False)
    adata = anndata.read_h5ad(folder / "adata.h5ad")
    controls = adata[(adata.obs["perturbation"] == "control") & (adata.obs["unlasting_split"] == "train")].copy()
    for model, given in ((load(folder), None), (load(folder, adata), None), (load(folder, False), controls)):
        generated = model.generate(**CALL, controls=given).X.toarray()
        np.testing.assert_allclose(generated, expected["generated"], atol=1e-3)
    predicted = load(folder).predict(seed=4, copy=True, show_progress=False).layers["unlasting"]
    np.testing.assert_allclose(predicted.toarray(), expected["predicted"], atol=1e-3)


@pytest.mark.parametrize("name", FORMATS)
def test_a_stored_model_that_is_saved_anew_gives_the_same_cells(name, tmp_path):
    model, expected = load(STORED / name / "model"), np.load(STORED / name / "cells.npz", allow_pickle=False)
    model.save(tmp_path / "anew", save_anndata=True)
    again = load(tmp_path / "anew")
    np.testing.assert_allclose(again.generate(**CALL).X.toarray(), expected["generated"], atol=1e-3)
    support = [load_.generate(**CALL).obs["unlasting_support"].to_numpy() for load_ in (model, again)]
    np.testing.assert_array_equal(*support)


def says_the_same(one: bytes, other: bytes) -> bool:
    """Tell whether two files are JSON that differs in white space, or `1e5` and `1E5`."""
    try:
        return json.dumps(json.loads(one)) == json.dumps(json.loads(other))
    except ValueError:
        return False


@pytest.mark.parametrize("file", ["model.json", "tensors.safetensors", "adata.h5ad"])
@pytest.mark.parametrize("how", ["changed", "truncated", "emptied", "longer"])
def test_a_damaged_file_is_refused(folder, file, how):
    """Whichever byte it is: positions are drawn anew each time, and told when one is not noticed."""
    path = folder / file
    content, noticed = path.read_bytes(), r"damaged|does not describe a saved|in format"
    for _ in range(N_DAMAGED if how == "changed" else N_DAMAGED // 10):
        position, change = random.randrange(len(content)), random.randrange(1, 256)
        damaged = {
            "changed": content[:position] + bytes([content[position] ^ change]) + content[position + 1 :],
            "truncated": content[:position],
            "emptied": bytes(len(content)),
            "longer": content + bytes([change]),
        }[how]
        if says_the_same(content, damaged):
            continue
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=noticed) as caught:
            load(folder)
        assert file in str(caught.value) or "Update unlasting" in str(caught.value), (position, change)


def test_the_cells_may_be_left_out_or_given(folder):
    adata = anndata.read_h5ad(folder / "adata.h5ad")
    (folder / "adata.h5ad").write_bytes(b"changed")
    with pytest.raises(ValueError, match=r"`adata.h5ad` in .*checksum differs. Pass the cells as `adata`"):
        load(folder)
    assert load(folder, adata).adata is adata
    (folder / "adata.h5ad").unlink()
    assert load(folder).adata is None


@pytest.mark.parametrize("adata", ["adata.h5ad", True, 3])
def test_cells_of_another_kind_are_refused(folder, adata):
    with pytest.raises(TypeError, match=rf"`adata` is of type {type(adata).__name__}. Give an AnnData"):
        load(folder, adata)


class Code:
    """What would make a folder, if it were unpickled."""

    def __reduce__(self):
        return (os.mkdir, (Code.folder,))


def as_tensors(folder: Path, content: bytes) -> None:
    """Put something in the place of the tensors, with the checksums that it needs to be read."""
    (folder / "tensors.safetensors").write_bytes(content)
    description = json.loads((folder / "model.json").read_text())
    description["files"]["tensors.safetensors"] = _saving._checksum(folder / "tensors.safetensors")
    description["sha256"] = _saving._checksum_of(description)
    (folder / "model.json").write_text(json.dumps(description))


@pytest.mark.parametrize("place", ["tensors", "description", "beside"])
def test_code_in_a_folder_does_not_run(folder, tmp_path, place):
    Code.folder = str(tmp_path / "made")
    if place == "tensors":
        as_tensors(folder, pickle.dumps(Code()))
        with pytest.raises(ValueError, match=r"`tensors.safetensors` in .* cannot be read"):
            load(folder)
    elif place == "description":
        (folder / "model.json").write_bytes(pickle.dumps(Code()))
        with pytest.raises(ValueError, match=r"`model.json` in .* is damaged"):
            load(folder)
    else:  # the file of other scvi-tools models
        torch.save(Code(), folder / "model.pt")
        load(folder)
    assert not (tmp_path / "made").exists()


def test_a_saved_model_of_scvi_tools(tmp_path):
    torch.save({"model_state_dict": {}, "attr_dict": {}}, tmp_path / "model.pt")
    with pytest.raises(FileNotFoundError, match=r"holds no saved model: `model.json` and `tensors.safetensors`"):
        load(tmp_path)
