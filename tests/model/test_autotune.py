"""Hyperparameters are searched for with Ray, by the validation score of a network."""

from __future__ import annotations

import numpy as np
import pytest

from unlasting import UnlastingModel

pytest.importorskip("ray")
pytest.importorskip("scib_metrics")

pytestmark = pytest.mark.slow


def test_the_best_of_two_models_has_the_lower_score(screen, tmp_path):
    from ray import tune
    from scvi import autotune

    adata = screen(n_cells=200)
    UnlastingModel.setup_anndata(adata, cell_type_key="cell_type")
    train = {"max_steps": 12, "lr": tune.grid_search([1e-9, 1e-2]), "accelerator": "cpu", "show_progress": False}
    found = autotune.run_autotune(
        UnlastingModel,
        adata,
        metrics="denoiser_validation_score",
        mode="min",
        search_space={
            "model_params": {"width": 16, "gene_features": 4, "attention_features": 4},
            "train_params": train,
        },
        num_samples=1,
        searcher="random",
        scheduler="fifo",
        seed=0,
        resources={"cpu": 1},
        logging_dir=str(tmp_path),
    ).result_grid
    assert not found.errors
    scores = [one.metrics_dataframe["denoiser_validation_score"].to_numpy() for one in found]
    assert all(len(of_one) > 1 and np.isfinite(of_one).all() for of_one in scores)
    best = found.get_best_result("denoiser_validation_score", "min")
    assert best.config["train_params"]["lr"] == 1e-2
