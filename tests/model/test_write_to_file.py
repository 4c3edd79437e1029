"""Cells that are written in parts are those that are made in memory, whatever happens on the way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

QUIET = {"show_progress": False}
LABELS = ["G3", "TFX", "NEW1", "G3+TFX", "control"]


class StopError(Exception):
    """Stands for whatever ends a process."""


pytestmark = pytest.mark.usefixtures("small_parts")


@contextmanager
def stopped_after(n: int) -> Iterator[None]:
    """Let writing fail, as a kill would, once some parts are there."""
    write, left = AnnData.write_h5ad, iter(range(n))

    def failing(self: AnnData, path: Path, **options: object) -> None:
        write(self, path, **options)
        if next(left, None) is None:
            raise StopError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AnnData, "write_h5ad", failing)
        with pytest.raises(StopError):
            yield


def same(one: AnnData, other: AnnData, *, exactly: bool = True) -> None:
    one, other = (a.to_memory() if a.isbacked else a for a in (one, other))
    pd.testing.assert_frame_equal(one.obs, other.obs, check_categorical=False)
    assert list(one.var_names) == list(other.var_names)
    np.testing.assert_allclose(one.X.toarray(), other.X.toarray(), rtol=0, atol=0 if exactly else 1e-5)


def test_the_cells_are_those_made_in_memory(either, tmp_path):
    file = tmp_path / "new" / "cells.h5ad"
    backed = either.generate(LABELS, 13, seed=2, path=file, **QUIET)
    whole = either.generate(LABELS, 13, seed=2, **QUIET)
    assert backed.isbacked
    assert Path(backed.filename) == file
    same(backed, whole, exactly=False)
    read = anndata.read_h5ad(file)
    assert read.uns["unlasting"]["keys"] == whole.uns["unlasting"]["keys"]
    assert list(read.uns["unlasting"]["generated"]["unseen_targets"]) == ["NEW1"]
    assert os.listdir(file.parent) == ["cells.h5ad"]


def test_what_is_written_is_not_made_again(model, tmp_path, monkeypatch):
    whole = model.generate(LABELS, 13, path=tmp_path / "whole.h5ad", **QUIET)
    file = tmp_path / "cells.h5ad"
    with stopped_after(3):
        model.generate(LABELS, 13, path=str(file), **QUIET)
    assert not file.exists()
    parts = sorted((tmp_path / "cells.h5ad.parts").glob("*.h5ad"))
    assert [part.name for part in parts] == ["000000.h5ad", "000001.h5ad", "000002.h5ad"]
    times = [part.stat().st_mtime_ns for part in parts]
    seen = []
    write = AnnData.write_h5ad
    monkeypatch.setattr(AnnData, "write_h5ad", lambda self, path: (seen.append(path.name), write(self, path)))
    same(model.generate(LABELS, 13, path=file, **QUIET), whole)
    assert len(seen) == -(-len(LABELS) * 2 * 13 // 17) - len(times)
    assert not (tmp_path / "cells.h5ad.parts").exists()


def test_parts_of_another_call_are_not_gone_on_with(model, tmp_path):
    for changed, named in (
        ({"seed": 5}, "seed"),
        ({"n_cells": 12}, "n_cells"),
        ({"perturbations": LABELS[:-1]}, "perturbations"),
    ):
        file = tmp_path / named / "cells.h5ad"
        call = {"perturbations": LABELS, "n_cells": 13, "seed": 0, "path": file, **QUIET}
        with stopped_after(2):
            model.generate(**call)
        before = sorted(path.name for path in file.with_name("cells.h5ad.parts").iterdir())
        with pytest.raises(FileExistsError, match=f"differs in .*{named}.*overwrite"):
            model.generate(**{**call, **changed})
        assert sorted(path.name for path in file.with_name("cells.h5ad.parts").iterdir()) == before
        changed_call = {**call, **changed}
        replaced = model.generate(**changed_call, overwrite=True)
        same(replaced, model.generate(**{**changed_call, "path": None}), exactly=False)


def test_parts_of_another_model_or_other_controls_are_not_gone_on_with(model, controls, build, screen, tmp_path):
    file = tmp_path / "cells.h5ad"
    with stopped_after(2):
        model.generate(LABELS, 13, path=file, **QUIET)
    with pytest.raises(FileExistsError, match=r"differs in controls\. Repeat"):
        model.generate(LABELS, 13, path=file, controls=controls[::2].copy(), **QUIET)
    other = build(screen(), train=1)
    with pytest.raises(FileExistsError, match=r"differs in model\. Repeat"):
        other.generate(LABELS, 13, path=file, **QUIET)


def test_a_target_that_is_there_is_refused(model, tmp_path):
    file = tmp_path / "cells.h5ad"
    file.write_text("mine")
    with pytest.raises(FileExistsError, match="exists already.*overwrite=True"):
        model.generate("G3", 3, path=file, **QUIET)
    assert file.read_text() == "mine"
    assert model.generate("G3", 3, path=file, overwrite=True, **QUIET).n_obs == 6


def test_a_folder_of_others_is_never_touched(model, tmp_path):
    folder = tmp_path / "cells.h5ad.parts"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="holds other files"):
            model.generate("G3", 3, path=tmp_path / "cells.h5ad", overwrite=overwrite, **QUIET)
    assert (folder / "thesis.txt").read_text() == "mine"
    (tmp_path / "x.h5ad.parts").write_text("mine")
    with pytest.raises(FileExistsError, match="is a file"):
        model.generate("G3", 3, path=tmp_path / "x.h5ad", overwrite=True, **QUIET)
    with pytest.raises(ValueError, match=r"end in '\.h5ad'"):
        model.generate("G3", 3, path=tmp_path / "cells.zarr", **QUIET)


@pytest.mark.slow
@pytest.mark.parametrize(
    "call", [{"cells": "all"}, {"indices": [5, 3, 200, 41]}, {"cells": "all", "key_added": "other"}]
)
def test_predictions_in_a_file_are_those_made_in_memory(either, tmp_path, call):
    adata, file = either.adata[:: 3 if "cells" in call else 1].copy(), tmp_path / "predicted.h5ad"
    backed = either.predict(adata, seed=2, path=file, **call, **QUIET)
    assert backed.isbacked
    assert not set(adata.layers) - set(either.adata.layers)  # as it was
    key = call.get("key_added", "unlasting")
    assert f"{key}_source" not in adata.obs
    whole = either.predict(adata, seed=2, copy=True, **call, **QUIET)
    rows = call.get("indices", np.arange(adata.n_obs))
    read = anndata.read_h5ad(file)
    pd.testing.assert_frame_equal(read.obs, whole.obs.iloc[rows], check_categorical=False, check_dtype=False)
    np.testing.assert_allclose(read.X.toarray(), whole.layers[key][rows].toarray(), rtol=0, atol=1e-5)
    assert list(read.var_names) == list(adata.var_names)
    assert os.listdir(tmp_path) == ["predicted.h5ad"]


def test_counterfactuals_in_a_file_go_on_after_a_kill(model, controls, tmp_path):
    file = tmp_path / "predicted.h5ad"
    with stopped_after(2):
        model.predict(controls, "G3+TFX", path=file, **QUIET)
    for other in ({"perturbation": "G3"}, {"adata": controls[1:].copy()}, {"seed": 7}):
        with pytest.raises(FileExistsError, match="differs in"):
            model.predict(**{"adata": controls, "perturbation": "G3+TFX", "path": file, **QUIET, **other})
    parts = sorted((tmp_path / "predicted.h5ad.parts").glob("*.h5ad"))
    assert len(parts) == 2
    gone_on = model.predict(controls, "G3+TFX", path=file, **QUIET)
    whole = model.predict(controls, "G3+TFX", copy=True, **QUIET)
    np.testing.assert_allclose(gone_on.to_memory().X.toarray(), whole.layers["unlasting"].toarray(), rtol=0, atol=1e-5)
    with pytest.raises(FileExistsError, match="exists already"):
        model.predict(controls, "G3+TFX", path=file, **QUIET)


def test_columns_with_missing_text_are_written_whatever_part_they_are_in(model, tmp_path):
    adata = model.adata[np.argsort(model.adata.obs["perturbation"] != "control", kind="stable")].copy()
    is_control = (adata.obs["perturbation"] == "control").to_numpy()
    adata.obs["guide"] = np.where(is_control, None, "sg1")
    adata.obs["barcode"] = [f"cell {i // 40 if i < 100 else i}" for i in range(adata.n_obs)]  # repeats in some parts
    backed = model.predict(adata, cells="all", path=tmp_path / "predicted.h5ad", copy=True, **QUIET)
    assert (backed.obs["guide"].isna() == is_control).all()
    assert list(backed.obs["barcode"]) == list(adata.obs["barcode"])


def test_parts_of_other_labels_are_not_gone_on_with(model, controls, tmp_path):
    with stopped_after(2):
        model.predict(controls, "G3", path=tmp_path / "predicted.h5ad", **QUIET)
    relabelled = controls.copy()
    relabelled.obs["note"] = "new"
    with pytest.raises(FileExistsError, match="differs in .*obs"):
        model.predict(relabelled, "G3", path=tmp_path / "predicted.h5ad", **QUIET)


def test_a_file_is_not_written_over_while_it_is_read(model, tmp_path):
    file = tmp_path / "screen.h5ad"
    model.adata.write_h5ad(file)
    backed = anndata.read_h5ad(file, backed="r")
    with pytest.raises(ValueError, match="the file behind `adata`"):
        model.predict(backed, path=file, overwrite=True, **QUIET)
    with pytest.raises(ValueError, match="the file behind `controls`"):
        model.generate("G3", 2, controls=backed, path=file, overwrite=True, **QUIET)
    predicted = model.predict(backed, cells="all", path=tmp_path / "predicted.h5ad", **QUIET)
    assert predicted.n_obs == backed.n_obs
    model.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model", backed)
    for call in (loaded.generate, lambda label, **kwargs: loaded.predict(perturbation=label, indices=[0], **kwargs)):
        with pytest.raises(ValueError, match=r"the file behind `(model\.)?adata`"):
            call("G3", path=file, overwrite=True, **QUIET)
    assert anndata.read_h5ad(file).shape == model.adata.shape


@pytest.mark.parametrize("call", ["generate", "predict"])
def test_parts_of_another_precision_are_not_gone_on_with(model, controls, tmp_path, call):
    file = tmp_path / "cells.h5ad"

    def write() -> AnnData:
        if call == "generate":
            return model.generate(LABELS, 13, path=file, **QUIET)
        return model.predict(controls, "G3", path=file, **QUIET)

    with stopped_after(2), torch.autocast("cpu", dtype=torch.bfloat16):
        write()
    with pytest.raises(FileExistsError, match=r"differs in precision\. Repeat"):
        write()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert write().n_obs > 0


def test_a_damaged_part_is_made_again(model, tmp_path, caplog):
    file = tmp_path / "cells.h5ad"
    expected = model.generate(LABELS, 13, path=tmp_path / "expected.h5ad", **QUIET).to_memory()
    for share in (0.0, 0.1, 0.5, 0.99):  # as a machine that failed leaves it
        with stopped_after(2):
            model.generate(LABELS, 13, path=file, **QUIET)
        part = tmp_path / "cells.h5ad.parts" / "000001.h5ad"
        os.truncate(part, int(share * part.stat().st_size))
        caplog.clear()
        found = model.generate(LABELS, 13, path=file, **QUIET).to_memory()
        np.testing.assert_array_equal(found.X.toarray(), expected.X.toarray())
        said = [record.getMessage() for record in caplog.records if "damaged" in record.getMessage()]
        assert len(said) == 1
        assert "000001.h5ad" in said[0]
        file.unlink()
