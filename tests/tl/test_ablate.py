from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from unlasting import tl
from unlasting.screen import UNS_KEY


def shifted_screen() -> AnnData:
    """`A` adds 1 to the first ten of thirty genes."""
    rng = np.random.default_rng(0)
    label = np.repeat(["control", "A"], 200)
    values = rng.gamma(2.0, 0.5, size=(400, 30)).astype(np.float32)
    values[label == "A", :10] += 1.0
    obs = pd.DataFrame(
        {"perturbation": label, "unlasting_split": np.tile(["train", "test"], 200)},
        index=[f"cell{i}" for i in range(400)],
    )
    obs.loc[obs["perturbation"] == "control", "unlasting_split"] = "train"
    return AnnData(values, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(30)]))


class Shift:
    """A model that knows the truth, but for what an option takes away."""

    def __init__(self, adata: AnnData, shift: float) -> None:
        self.controls, self.shift = adata[adata.obs["perturbation"] == "control"], shift

    def generate(self, perturbation: str, n_cells: int, *, seed: int) -> AnnData:
        rows = np.random.default_rng(seed).integers(self.controls.n_obs, size=n_cells)
        cells = AnnData(np.array(self.controls.X[rows]), var=self.controls.var)
        cells.X[:, :10] += self.shift
        return cells


def make(adata: AnnData, *, use_grn: bool = True, use_latent: bool = True, **options: bool) -> Shift:
    adata.X[:] += 0.0  # a copy: it may be changed
    return Shift(adata, 0.5 * use_grn + 0.5 * use_latent)


def test_every_variant_is_trained_and_evaluated_on_the_same_cells():
    adata = shifted_screen()
    before = np.array(adata.X)
    frame = tl.ablate(adata, make, metrics=["e_distance", "emd"], gene_sets="all", n_repeats=2, n_permutations=99)
    names = ["full", "no control moments", "no encoded latent", "no mask network", "no GRN"]
    assert set(frame["variant"]) == {*names, "no effect"}
    assert "predictor" not in frame
    scores = frame[frame["metric"] == "e_distance"].set_index("variant")["normalised"]
    assert scores["full"] == pytest.approx(0.0, abs=0.1)
    assert scores["full"] == scores["no mask network"]
    assert scores["no GRN"] == scores["no encoded latent"]
    assert 0.1 < scores["no GRN"] < 0.9
    assert scores["no effect"] == pytest.approx(1.0)
    np.testing.assert_array_equal(adata.X, before)
    assert set(adata.uns[UNS_KEY]["score_summary"]["reference"]) == {"full"}
    stored = adata.uns[UNS_KEY]["scores"].rename(columns={"predictor": "variant"})
    pd.testing.assert_frame_equal(stored, frame)


def test_variants_of_ones_own():
    variants = {"all": {}, "neither": {"use_grn": False, "use_latent": False}}
    frame = tl.ablate(
        shifted_screen(), make, variants=variants, metrics="emd", gene_sets="all", n_repeats=2, n_permutations=99
    )
    values = frame.set_index("variant")["value"]
    assert values["all"] < 0.5 * values["neither"]
    assert values["neither"] == pytest.approx(values["no effect"], rel=0.2)
    with pytest.raises(ValueError, match="`variants` is empty"):
        tl.ablate(shifted_screen(), make, variants={})
