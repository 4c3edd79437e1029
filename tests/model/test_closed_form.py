"""The published recipe with ideal networks, as in `benchmarks/quality/closed_form.py`, on a simulated screen."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from unlasting import tl
from unlasting.baselines import ModelPredictor

pytestmark = pytest.mark.slow


@pytest.fixture
def analysis(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks" / "quality"))
    import closed_form

    yield closed_form
    for name in ("closed_form", "presets", "run"):
        sys.modules.pop(name, None)


def test_each_repair_brings_generated_cells_nearer(analysis, screen):
    """Gaussian genes, best possible networks: the threshold of the mask and the silent genes break the printed recipe."""
    adata = screen(n_cells=6_000)
    adata = adata[(adata.obs["cell_type"] == "T") & adata.obs["perturbation"].isin(["control", "G3", "TFX"])].copy()
    variants = {name: ModelPredictor(partial(analysis.ideal, **options)) for name, options in analysis.VARIANTS.items()}
    tl.evaluate(
        adata, layer=None, baselines=variants, metrics=["e_distance", "emd"], gene_sets="all", n_permutations=19
    )
    scores = adata.uns["unlasting"]["score_summary"].pivot_table(index="predictor", columns="metric", values="score")
    scores = scores.loc[list(analysis.VARIANTS)]
    for metric in ("e_distance", "emd"):
        assert (np.diff(scores[metric]) < 0).all(), scores
        assert scores[metric].iloc[2] < 0.5 * scores[metric].iloc[0], scores


def test_the_ideal_denoiser_is_the_regression_of_x_0_on_x_t(analysis):
    rng = np.random.default_rng(0)
    mean, sd, snr = 0.4, 0.08, np.exp(3.0)
    alpha, sigma = np.sqrt(snr / (1 + snr)), np.sqrt(1 / (1 + snr))
    x0 = rng.normal(mean, sd, 200_000)
    x_t = alpha * x0 + sigma * rng.normal(size=len(x0))
    slope, intercept = np.polyfit(x_t, x0, 1)

    class One:
        node = torch.zeros(2, 1, dtype=torch.long)

    network = analysis.IdealDenoiser(torch.tensor([[mean]]), torch.tensor([[sd]]), lambda t: torch.full_like(t, 3.0))
    found = network(torch.tensor([[0.0], [1.0]]), torch.zeros(2), None, None, One, None)
    assert float(found[0]) == pytest.approx(intercept, abs=0.005)
    assert float(found[1] - found[0]) == pytest.approx(slope, abs=0.01)
