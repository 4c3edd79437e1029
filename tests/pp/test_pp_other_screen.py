"""Another screen as a prior: its effects say which targets are alike."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import unlasting as ul

TARGETS = [f"T{i}" for i in range(12)]
EFFECTS = np.array([3.0, 0.2, 4.0])
"""Factors of three groups of targets, each on its own ten genes; the fourth group does nothing."""


def screen(genes: str, seed: int, n_cells: int = 60) -> AnnData:
    """Counts of 40 genes; targets act by group, on other genes in every screen."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(["control", *TARGETS], [200, *[n_cells] * len(TARGETS)])
    rate = rng.uniform(1, 4, 40) * np.ones((len(labels), 1))
    for i, target in enumerate(TARGETS):
        if (group := i % 4) < 3:
            rate[labels == target, 10 * group : 10 * group + 10] *= EFFECTS[(group + seed) % 3]
    obs = pd.DataFrame({"perturbation": labels}, index=[f"{genes}{i}" for i in range(len(labels))])
    var = pd.DataFrame(index=[f"{genes}{i}" for i in range(40)])
    return AnnData(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)), obs=obs, var=var)


@pytest.fixture(scope="module")
def other() -> AnnData:
    adata = screen("B", seed=1)
    ul.pp.prepare(adata)
    return adata


def change(prior: object) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and observed changes of an untrained target, `T0`, in a screen with other genes."""
    adata = screen("A", seed=0)
    ul.pp.split(adata, "unseen_perturbation", test=["T0"], val=["T7"])
    ul.pp.prepare(adata)
    ul.pp.grn(adata, prior=prior, targets=TARGETS)
    ul.UnlastingModel.setup_anndata(adata)
    model = ul.UnlastingModel(adata)
    model.train(max_steps=0, show_progress=False)
    observed = adata.X[(adata.obs["perturbation"] == "T0").to_numpy()].mean(axis=0)
    control = adata.X[(adata.obs["perturbation"] == "control").to_numpy()].mean(axis=0)
    return model.effects("T0").X[0], np.asarray(observed - control).ravel()


@pytest.mark.slow
def test_another_screen_tells_which_targets_are_alike(other):
    predicted, observed = change(other)
    without, _ = change(None)
    assert np.corrcoef(predicted, observed)[0, 1] > 0.9
    assert ((predicted - observed) ** 2).sum() < 0.3 * ((without - observed) ** 2).sum()


def test_effects_are_changes_in_standard_deviations_without_their_error(other):
    """Against the definition, with the error from repeated halves of the control."""
    found = ul.pp._other_screen.measured_effects(other)
    is_control = (other.obs["perturbation"] == "control").to_numpy()
    controls = other.X[is_control].toarray().astype(float)
    cells = other.X[(other.obs["perturbation"] == "T0").to_numpy()].toarray().astype(float)
    expected = (cells.mean(axis=0) - controls.mean(axis=0)) / controls.std(axis=0)
    cosine = found.loc["T0"] @ expected / np.linalg.norm(found.loc["T0"]) / np.linalg.norm(expected)
    assert cosine == pytest.approx(1.0)
    error = 40 * (1 / len(cells) + 1 / len(controls))
    assert (found.loc["T0"] ** 2).sum() == pytest.approx((expected**2).sum() - error)
    assert np.linalg.norm(found.loc["T3"]) < 0.3 * np.linalg.norm(found.loc["T0"])  # the group without an effect


def test_a_screen_without_labels_names_the_way_out():
    adata = screen("B", seed=1)
    adata.obs["perturbation"] = "control"
    ul.pp.prepare(adata)
    own = screen("A", seed=0)
    ul.pp.prepare(own)
    with pytest.raises(ValueError, match="without a single target beside controls.*`perturbation_key`"):
        ul.pp.grn(own, prior=adata)
    with pytest.raises(ValueError, match=r"`prior.X`.*pp.prepare"):
        ul.pp.grn(own, prior=screen("B", seed=1))


def test_only_training_cells_of_the_other_screen_are_read(other):
    parted = other.copy()
    is_test = (parted.obs["perturbation"] == "T0").to_numpy()
    parted.obs["unlasting_split"] = np.where(is_test, "test", "train")
    own = screen("A", seed=0)
    ul.pp.prepare(own)
    ul.pp.grn(own, prior=parted)
    kept = own.uns["unlasting"]["target_embedding"]["names"]
    changed = parted.copy()
    changed.X = sparse.diags(np.where(is_test, 3.0, 1.0)) @ changed.X
    ul.pp.grn(own, prior=changed)
    assert "T0" not in kept
    assert list(own.uns["unlasting"]["target_embedding"]["names"]) == list(kept)


def test_the_screen_itself_is_no_other_screen(other):
    adata = other.copy()
    for prior in (adata, adata.copy(), [adata]):
        with pytest.raises(ValueError, match="contains this screen itself"):
            ul.pp.grn(adata, prior=prior)
    assert "grn" not in adata.uns["unlasting"]
