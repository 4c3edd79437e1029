"""What becomes of the transcript of a target that was never perturbed in training."""

from __future__ import annotations

import numpy as np
import pytest

from unlasting import UnlastingModel, datasets, pp

pytestmark = pytest.mark.slow

QUIET = {"show_progress": False}


@pytest.fixture(scope="module")
def screen():
    """Activations of genes that are not measured, but for TMSB4X, which is held out."""
    adata = datasets.norman_mini()
    pp.split(adata, "unseen_perturbation", test=["TMSB4X"])
    pp.prepare(adata, library_size_key="ncounts_full", target_sum=1e4)
    pp.grn(adata)
    return adata


def fold(model, gene: str) -> float:
    """By how much the mean count of a gene changes when it is the target."""
    mean = {
        label: np.expm1(model.generate(label, 200, seed=0, **QUIET)[:, gene].X.toarray()).mean()
        for label in (gene, "control")
    }
    return mean[gene] / mean["control"]


def test_where_no_trained_target_is_measured_the_mode_speaks(screen):
    for mode, low, high in (("activation", 2.5, 6.0), ("knockdown", 0.1, 0.5), ("knockout", 0.7, 1.3)):
        adata = screen.copy()
        UnlastingModel.setup_anndata(adata, mode=mode)
        model = UnlastingModel(adata)
        model.train(max_steps=0)
        assert low < fold(model, "TMSB4X") < high
        others = adata.var_names.drop("TMSB4X")
        cells, controls = (model.generate(label, 200, seed=0, **QUIET)[:, others] for label in ("TMSB4X", "control"))
        change = cells.X.toarray().mean(axis=0) - controls.X.toarray().mean(axis=0)
        assert np.abs(change).max() < 0.5  # and nothing much becomes of other genes
