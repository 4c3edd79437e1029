"""The way to the Hugging Face Hub that the documentation shows, as far as it goes without a connection."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scvi.hub import HubMetadata, HubModel, HubModelCardHelper

from unlasting import datasets, pp
from unlasting.model import UnlastingModel

PAGE = Path(__file__).parents[1] / "docs" / "guide" / "saving.md"
CALL = {"perturbations": "T1", "n_cells": 5, "show_progress": False}


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """A model, and what the page makes of it in an empty folder."""
    adata = datasets.simulate_screen(n_cells=20, n_controls=40, n_genes=20, n_unmeasured=0)
    pp.split(adata, "random")
    pp.prepare(adata)
    pp.grn(adata, prior=None)
    UnlastingModel.setup_anndata(adata)
    model = UnlastingModel(adata, width=12, gene_features=4, attention_features=4)
    model.train(max_steps=2, seed=0, accelerator="cpu", show_progress=False)
    monkeypatch.chdir(tmp_path)
    names = {"model": model}
    block = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)[0]
    exec(compile(block, PAGE.name, "exec"), names)
    return names


@pytest.mark.slow
def test_the_hub_loads_the_model(shared):
    expected = shared["model"].generate(**CALL).X.toarray()
    np.testing.assert_array_equal(shared["hub"].model.generate(**CALL).X.toarray(), expected)
    again = HubModel("my_model")  # from the files alone, as after a download
    assert again.model_card.data.tags[-1] == "model_cls_name:UnlastingModel"
    np.testing.assert_array_equal(again.model.generate(**CALL).X.toarray(), expected)
    assert again.adata.n_obs == shared["model"].adata.n_obs
    assert json.loads(Path("my_model/_scvi_required_metadata.json").read_text())["model_parent_module"] == "unlasting"


@pytest.mark.slow
def test_a_card_is_not_lost(shared):
    with pytest.raises(FileExistsError, match="'README.md' is one"):
        shared["model"].save("my_model", overwrite=True)
    assert "THP-1" in Path("my_model/README.md").read_text()


@pytest.mark.parametrize("shortcut", [HubMetadata, HubModelCardHelper])
@pytest.mark.slow
def test_the_shortcuts_of_scvi_tools_still_do_not_know_the_model(shared, shortcut):
    """When this fails, the page can be shortened."""
    arguments = {"license_info": "mit"} if shortcut is HubModelCardHelper else {}
    with pytest.raises(ValueError, match="model.pt"):
        shortcut.from_dir("my_model", anndata_version="0", **arguments)
