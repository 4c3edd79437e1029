"""Cells on another scale than the training controls are refused by every call, with the fix."""

import logging

import numpy as np
import pytest
from scipy import sparse
from typer.testing import CliRunner

from unlasting import tl
from unlasting.cli import app
from unlasting.model import UnlastingModel

QUIET = {"show_progress": False}

OTHER = {
    "another total": lambda x: np.log1p(100 * np.expm1(x)),
    "another total of each cell": lambda x: np.log1p(np.expm1(x) * np.linspace(5, 60, len(x))[:, None]),
    "log2": lambda x: x / np.log(2),
    "log10": lambda x: x / np.log(10),
    "square root": lambda x: np.sqrt(np.expm1(x)),
    "no logarithm": lambda x: 1e4 * np.expm1(x),
    "a constant factor": lambda x: 3 * x,
}


def changed(adata, change):
    new = adata.copy()
    new.X = sparse.csr_matrix(change(adata.X.toarray()).astype(np.float32))
    return new


@pytest.mark.parametrize("kind", OTHER)
def test_every_call_refuses_another_scale(kind, model, controls, adata, tmp_path):
    new = changed(controls, OTHER[kind])
    said = r"another scale .* `model\.prepare\(|without a logarithm.*np\.log1p"
    with pytest.raises(ValueError, match=said):
        model.predict(new, "G3", **QUIET)
    with pytest.raises(ValueError, match=said):
        model.generate("G3", 3, controls=new, **QUIET)
    with pytest.raises(ValueError, match=said):
        model.encode(new)
    model.save(tmp_path / "m")
    with pytest.raises(ValueError, match=said):
        UnlastingModel.load(tmp_path / "m", changed(adata, OTHER[kind]))


def test_a_loaded_model_without_cells_has_the_scale(model, controls, tmp_path):
    model.save(tmp_path / "m")
    loaded = UnlastingModel.load(tmp_path / "m", adata=False)
    with pytest.raises(ValueError, match="another scale"):
        loaded.generate("G3", 3, controls=changed(controls, OTHER["another total"]), **QUIET)
    assert loaded.generate("G3", 3, controls=controls, **QUIET).n_obs == 6


def test_the_factor_of_the_message_restores_the_scale(model, controls):
    new = changed(controls, OTHER["another total"])
    with pytest.raises(ValueError, match="rescale") as error:
        model.predict(new, "G3", **QUIET)
    factor = float(str(error.value).split("np.expm1(X) * ")[1].split(")")[0])
    np.testing.assert_allclose(np.log1p(np.expm1(new.X.toarray()) * factor), controls.X.toarray(), rtol=1e-4, atol=1e-5)


def test_a_screen_of_two_normalisations_is_refused(screen):
    adata = screen(n_cells=200)
    perturbed = (adata.obs["perturbation"] != "control").to_numpy()
    values = adata.X.toarray()
    values[perturbed] = np.log1p(100 * np.expm1(values[perturbed]))
    adata.X = sparse.csr_matrix(values)
    with pytest.raises(ValueError, match=r"perturbed cells in adata\.X has another scale .*pp\.prepare"):
        UnlastingModel.setup_anndata(adata)


def test_a_screen_normalised_again_is_refused(screen):
    adata = screen(n_cells=200)
    adata.uns["unlasting"]["prepare"] = {"target_sum": 20.0}
    with pytest.raises(ValueError, match=r"scaled to 20 counts .*Leave further normalisation out"):
        UnlastingModel.setup_anndata(adata)


def test_predictions_of_another_tool_are_compared(model, adata, tmp_path):
    generated = model.generate(["G3", "G7"], 40, **QUIET)
    found = tl.evaluate(adata.copy(), predictions=generated, min_cells=8)
    assert len(found) > 0
    for kind in ("another total", "no logarithm"):
        with pytest.raises(ValueError, match=r"another scale .* normalisation of `adata`|without a logarithm"):
            tl.evaluate(adata, predictions=changed(generated, OTHER[kind]))
    adata.write_h5ad(tmp_path / "screen.h5ad")
    changed(generated, OTHER["another total"]).write_h5ad(tmp_path / "other.h5ad")
    command = ["evaluate", str(tmp_path / "screen.h5ad"), "--predictions", str(tmp_path / "other.h5ad")]
    result = CliRunner().invoke(app, [*command, "-o", str(tmp_path / "scores.csv")])
    assert result.exit_code != 0
    assert not (tmp_path / "scores.csv").exists()


def test_a_difference_that_may_be_biological_is_logged(screen, build, caplog, monkeypatch):
    """Where a panel has varying totals, a moderate difference may be another cell type."""
    adata = screen(n_cells=300)
    adata = adata[:, :30].copy()
    adata.uns["unlasting"].pop("grn"), adata.uns["unlasting"].pop("target_embedding")
    model = build(adata, options={"n_steps": 2})
    model.train(max_steps=0)
    low, median, high = model.preparation_["control_totals"]
    assert low < 0.9 * median < median < 0.9 * high
    control = adata[adata.obs["perturbation"] == "control"].copy()
    monkeypatch.setattr(logging.getLogger("unlasting"), "propagate", True)
    with caplog.at_level(logging.WARNING, "unlasting"):
        model.predict(control.copy(), "G3", **QUIET)
        assert not [m for m in caplog.messages if "scale" in m]
        wider = changed(control, lambda x: np.log1p(np.expm1(x) * 1.4 * high / median))
        model.predict(wider, "G3", **QUIET)
    assert [m for m in caplog.messages if "another scale" in m and "another type" in m]
    with pytest.raises(ValueError, match="another scale"):
        model.predict(changed(control, lambda x: np.log1p(np.expm1(x) * 3 * high / median)), "G3", **QUIET)
