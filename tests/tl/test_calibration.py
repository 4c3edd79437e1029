"""`tl.calibration` against means by hand and the posterior of the model."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import unlasting as ul


@pytest.fixture(scope="module")
def model():
    adata = ul.datasets.simulate_screen(n_targets=9, n_genes=80, n_cells=60, n_unmeasured=0, seed=1)
    held_out = adata.obs["perturbation"].isin(["T3", "T6"])
    adata.obs["unlasting_split"] = np.where(held_out, "test", "train")
    ul.pp.prepare(adata)
    ul.pp.grn(adata, prior=adata.uns["simulation"]["edges"])
    ul.UnlastingModel.setup_anndata(adata)
    model = ul.UnlastingModel(adata)
    model.train(max_steps=0, show_progress=False)
    return model


def test_changes_and_intervals(model):
    frame = ul.tl.calibration(model)
    adata = model.adata
    assert list(dict.fromkeys(frame["condition"])) == ["T3", "T6"]
    pd.testing.assert_frame_equal(frame, adata.uns["unlasting"]["calibration"])
    part = frame[frame["condition"] == "T6"].set_index("gene").loc[adata.var_names]
    x, y = (adata[adata.obs["perturbation"] == name].X.toarray().astype(float) for name in ("T6", "control"))
    np.testing.assert_allclose(part["observed"], x.mean(axis=0) - y.mean(axis=0), atol=1e-6)
    found = model.effects("T6")
    np.testing.assert_allclose(part["predicted"], found.X[0], atol=1e-6)
    noise = x.var(axis=0, ddof=1) / len(x) + y.var(axis=0, ddof=1) / len(y)
    half = 1.959964 * np.sqrt(found.layers["sd"][0].astype(float) ** 2 + noise)
    np.testing.assert_allclose(part["high"] - part["predicted"], half, rtol=1e-4)
    np.testing.assert_allclose(part["predicted"] - part["low"], half, rtol=1e-4)
    t = np.abs(part["observed"] / np.sqrt(noise))
    assert set(part.index[part["is_de20"]]) == set(t.sort_values().index[-20:])
    assert part["expected_error"].iloc[0] == pytest.approx(found.obs["unlasting_expected_error"].iloc[0])
    assert ((frame["observed"] > frame["low"]) & (frame["observed"] < frame["high"])).mean() > 0.8
    axes = ul.pl.calibration(adata, key="calibration", show=False)
    assert [panel.get_title().split("\n")[0] for panel in axes.ravel()][:2] in (["T3", "T6"], ["T6", "T3"])


def test_a_screen_without_test_cells_is_refused(model):
    with pytest.raises(ValueError, match="min_cells=100.*pp.split"):
        ul.tl.calibration(model, min_cells=100)
