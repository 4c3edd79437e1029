"""Compare the published recipe and its repairs where every network is ideal: each gene is Gaussian where it is expressed.

    python benchmarks/quality/closed_form.py

The minimiser of the published loss is then known: for the denoiser the conditional mean of an expressed value, for the
mask network the detection rate. Both replace the networks of a model; encoding, decoding and masks are the package's.
Writes `results/closed_form.csv` (normalised scores of held-out cells, nine knock-outs, three seeds) and
`results/closed_form_latent.csv` (moments of encoded control cells).
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from presets import dense, prepare
from run import CLEAR, METRICS, RESULTS, keeping
from torch import Tensor, nn

import unlasting as ul
from unlasting.baselines import ModelPredictor, NoEffect

MIN_EXPRESSED = 10
"""Cells of a condition in which a gene is expressed; with fewer, it takes the moments of the controls."""
VARIANTS: dict[str, dict[str, Any]] = {
    "as printed": {"mask_rule": "threshold", "hold_silent": False, "last_step": True},
    "masks from mean probabilities": {"hold_silent": False, "last_step": True},
    "silent genes held at noise": {"last_step": True},
    "no last step": {},
    "steps uniform in log-SNR": {"steps": "log_snr"},
}
"""Each change beside those before it; the fourth is `preset="paper"`."""


class IdealDenoiser(nn.Module):
    """The conditional mean `m + s^2 alpha / (alpha^2 s^2 + sigma^2) (x_t - alpha m)` of each gene.

    `mean` and `sd` hold a row for each node of a target, and the control in the last one.
    """

    def __init__(self, mean: Tensor, sd: Tensor, log_snr: Any) -> None:
        super().__init__()
        self.mean, self.sd, self.log_snr = mean, sd, log_snr

    def forward(
        self, state: Tensor, t: Tensor, mask: Tensor, control: Tensor, conditions: Any, cell_type: Any
    ) -> Tensor:
        """Predict x_0 from x_t, shape `(n_cells, n_genes)`."""
        mean, sd = (table[conditions.node[:, 0]] for table in (self.mean, self.sd))
        snr = self.log_snr(t).exp()[:, None]
        alpha = (snr / (1.0 + snr)).sqrt()
        gain = alpha * sd**2 / (alpha**2 * sd**2 + 1.0 / (1.0 + snr))
        return mean + gain * (state - alpha * mean)


class IdealMask(nn.Module):
    """The log-odds of each gene's detection rate, in rows as those of the denoiser."""

    def __init__(self, rate: Tensor) -> None:
        super().__init__()
        self.log_odds = torch.logit(rate, eps=1e-6)

    def forward(self, control: Tensor, log_odds: Tensor, conditions: Any, cell_type: Any) -> Tensor:
        """Predict log-odds, shape `(n, n_genes)`."""
        return self.log_odds[conditions.node[:, 0]]


def ideal(adata: Any, **options: Any) -> Any:
    """Make a model with `preset="paper"` and ideal networks."""
    ul.UnlastingModel.setup_anndata(adata)
    small = {"gene_features": 2, "attention_features": 2, "width": 8, "time_frequencies": 8}
    model = ul.UnlastingModel(adata, preset="paper", **small, **options)
    model.train(max_steps=1, show_progress=False)
    nodes = list(adata.uns["unlasting"]["grn"]["nodes"])
    x = dense(adata) / float(model.module.statistics.x_max)
    training = (adata.obs["unlasting_split"] == "train").to_numpy()
    label = adata.obs["perturbation"].to_numpy()
    tables = [np.zeros((len(nodes) + 1, adata.n_vars)) for _ in range(3)]
    for name in ["control", *sorted(set(label) - {"control"})]:
        cells = x[training & (label == name)]
        n = (cells > 0).sum(axis=0)
        mean = cells.sum(axis=0) / np.maximum(n, 1)
        sd = np.sqrt((np.where(cells > 0, cells - mean, 0.0) ** 2).sum(axis=0) / np.maximum(n - 1, 1))
        row = -1 if name == "control" else nodes.index(name)
        few = n < (2 if name == "control" else MIN_EXPRESSED)
        found = (np.where(few, tables[0][-1], mean), np.where(few, tables[1][-1], sd), n / len(cells))
        for table, values in zip(tables, found, strict=True):
            table[row] = values
    mean, sd, rate = (torch.as_tensor(table, dtype=torch.float32) for table in tables)
    model.module.averaged["denoiser"] = IdealDenoiser(mean, sd, model.module.schedule.log_snr)
    model.module.averaged["mask_network"] = IdealMask(rate)
    return model


def run(n_seeds: int) -> None:
    """Make the tables."""
    adata = ul.datasets.papalexi()
    scores, latents = [], []
    for seed in range(n_seeds):
        kept: dict[str, list[tuple[Any, Any]]] = {name: [] for name in VARIANTS}
        ideals = {
            name: ModelPredictor(keeping(partial(ideal, **options), kept[name])) for name, options in VARIANTS.items()
        }
        ul.tl.benchmark(
            adata,
            {**ideals, "no effect": NoEffect()},
            splits={"cells": {"kind": "random"}},
            seeds=[seed],
            prepare=prepare,
            conditions=CLEAR,
            metrics=METRICS[:2],
        )
        scores.append(adata.uns["unlasting"]["benchmark"].assign(seed=seed))
        for name, [(model, screen)] in kept.items():
            is_control = (screen.obs["perturbation"] == "control") & (screen.obs["unlasting_split"] == "test")
            controls = screen[is_control.to_numpy()].copy()
            encoded, on = model.encode(controls, seed=seed), dense(controls) > 0
            for part, values in (("expressed", encoded[on]), ("silent", encoded[~on])):
                latents.append(
                    {"variant": name, "seed": seed, "genes": part, "mean": values.mean(), "s.d.": values.std()}
                )
        pd.concat(scores, ignore_index=True).to_csv(RESULTS / "closed_form.csv", index=False)
        pd.DataFrame(latents).to_csv(RESULTS / "closed_form_latent.csv", index=False)
    wide = pd.concat(scores).pivot_table(index="predictor", columns=["metric", "gene_set"], values="score", sort=False)
    print(wide.round(3).to_string())
    print(pd.DataFrame(latents).groupby(["variant", "genes"], sort=False).mean(numeric_only=True).round(2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    RESULTS.mkdir(exist_ok=True)
    run(parser.parse_args().seeds)
