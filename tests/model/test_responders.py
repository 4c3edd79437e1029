"""Cells that escape their perturbation, on a simulated screen where these are known."""

from __future__ import annotations

import numpy as np
import pytest

from unlasting import UnlastingModel, datasets, pp

pytestmark = pytest.mark.slow

RESPONDERS = 0.6
TARGETS = [f"T{i}" for i in range(1, 10)]


@pytest.fixture(scope="module")
def simulated():
    """Strong effects on six in ten cells."""
    adata = datasets.simulate_screen(n_cells=300, n_genes=60, responders=RESPONDERS, strength=3.0, seed=2)
    pp.prepare(adata, library_size_key="library_size", target_sum=1e4)
    pp.grn(adata, prior=adata.uns["simulation"]["edges"])
    return adata


def stays(model, adata, target: str) -> np.ndarray:
    """Whether each control cell stays as it is under a perturbation."""
    controls = adata[adata.obs["perturbation"] == "control"].copy()
    model.predict(controls, perturbation=target, seed=0, show_progress=False)
    moved = np.abs(controls.layers["unlasting"].toarray() - controls.X.toarray()).max(axis=1)
    return moved < 0.02 * controls.X.max()


@pytest.fixture(scope="module")
def model(simulated, build):
    return build(simulated, train=20)


@pytest.fixture(scope="module")
def staying(simulated, model):
    """Whether each control cell stays as it is, by target."""
    return {target: stays(model, simulated, target) for target in TARGETS}


def test_as_many_cells_stay_with_the_control_as_escaped_in_training(simulated, staying):
    """For nearly all targets; an effect may be too weak to tell."""
    labels = simulated.obs["perturbation"].astype(str)
    errors = []
    for target in TARGETS:
        share = staying[target].mean()
        nonresponding = 1 - simulated.obs.loc[labels == target, "responder"].mean()
        errors.append(abs(share - nonresponding) if share > 0.05 else np.nan)
    assert np.isnan(errors).sum() <= 2
    assert np.nanmax(errors) < 0.1


def test_a_cell_that_escapes_one_perturbation_escapes_those_that_more_cells_escape(staying):
    stay = sorted(staying.values(), key=np.mean)
    for fewer, more in zip(stay[:-1], stay[1:], strict=True):
        if fewer.mean() > 0.05:
            assert not (fewer & ~more).any()


def test_it_can_be_switched_off(simulated, build):
    assert not stays(build(simulated, train=20, options={"use_responders": False}), simulated, "T1").any()


def test_few_cells_of_many_doses_show_how_many_do_not_respond():
    """Forty cells a dose; also at a dose that was not tested."""
    adata = datasets.simulate_drug_screen(
        n_drugs=4, n_families=2, n_cells=40, responders=RESPONDERS, strength=3.0, n_genes=60, seed=1
    )
    pp.prepare(adata, library_size_key="library_size", target_sum=1e4)
    pp.molecules(adata)
    pp.grn(adata, prior=adata.uns["simulation"]["edges"])
    UnlastingModel.setup_anndata(adata, cell_type_key="cell_type", dose_key="dose", smiles_key="smiles")
    model = UnlastingModel(adata)
    model.train(max_steps=0)
    curves = adata.uns["simulation"]["drugs"]
    first = adata.obs["cell_type"].astype(str).iloc[0]  # where every family has an effect
    controls = adata[(adata.obs["perturbation"] == "control") & (adata.obs["cell_type"] == first)].copy()
    strong = curves[(curves["cell_type"] == first) & (curves["target"] != "")]["drug"]
    for dose in (10.0, 5.0):
        shares = []
        for drug in strong:
            model.predict(controls, perturbation=drug, dose=dose, seed=0, show_progress=False)
            moved = np.abs(controls.layers["unlasting"].toarray() - controls.X.toarray()).max(axis=1)
            shares.append((moved < 0.02 * controls.X.max()).mean())
        np.testing.assert_allclose(shares, 1 - RESPONDERS, atol=0.15)
        assert np.mean(shares) == pytest.approx(1 - RESPONDERS, abs=0.08)
