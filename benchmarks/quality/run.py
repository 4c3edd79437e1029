"""Score the model beside all baselines on the screens that ship with the package: one table for each name.

    python benchmarks/quality/run.py papalexi_targets --seeds 3

Writes `results/NAME.csv` (scores over conditions) and `results/NAME_conditions.csv` (every condition), and prints the
scores. `--steps 0` judges what is known before any training.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import pandas as pd
import scvi
from stamps import RESULTS

import unlasting as ul
from unlasting.baselines import BASELINES, ModelPredictor

CLEAR = ("IFNGR1", "IFNGR2", "JAK2", "STAT1", "SMAD4", "IRF1", "STAT2", "BRD4", "CUL3")
MEASURED_WELL = ("CD14 Mono", "CD16 Mono", "CD4 Naive T", "CD4 Memory T", "B", "CD8 T", "NK")
METRICS = ("e_distance", "emd", "pearson_change", "pearson_change_centred")
SHAPE = ("zero_fraction_error", "dispersion_error", "detected_genes_error", "library_size_error")
SHAPE += ("correlation_error", "bimodality_error")


def papalexi() -> Any:
    """Load the THP-1 knock-outs."""
    return ul.datasets.papalexi()


def norman() -> Any:
    """Load the K562 activations."""
    return ul.datasets.norman_mini()


def kang() -> Any:
    """Load the cell types with at least 30 cells in both states."""
    adata = ul.datasets.kang()
    counts = pd.crosstab(adata.obs["cell_type"], adata.obs["perturbation"])
    return adata[adata.obs["cell_type"].isin(counts.index[(counts >= 30).all(axis=1)])].copy()


def one_by_one(kind: str, names: tuple[str, ...], **arguments: Any) -> list[dict[str, Any]]:
    """Hold out each name in turn."""
    return [{"kind": kind, "test": name, "val_fraction": 0.0, **arguments} for name in names]


TABLES: dict[str, dict[str, Any]] = {
    "papalexi_cells": {"screen": papalexi, "splits": {"cells": {"kind": "random"}}, "conditions": CLEAR},
    "papalexi_shape": {
        "screen": papalexi,
        "splits": {"cells": {"kind": "random"}},
        "conditions": CLEAR,
        "metrics": SHAPE,
    },
    "papalexi_targets": {
        "screen": papalexi,
        "splits": {"targets left out in turn": one_by_one("leave_one_out", CLEAR)},
        "conditions": CLEAR,
    },
    "papalexi_reference": {"screen": papalexi, "splits": {"reference": {"kind": "reference"}}},
    "norman_reference": {
        "screen": norman,
        "splits": {"reference": {"kind": "reference"}},
        "prepare": {"library_size_key": "ncounts_full", "target_sum": 1e4},
        "setup": {"mode": "activation"},
    },
    "kang_reference": {
        "screen": kang,
        "splits": {"reference": {"kind": "reference"}},
        "prepare": {"n_top_genes": 1_000},
        "setup": {"cell_type_key": "cell_type"},
        "prior": None,
    },
    "kang_cell_types": {
        "screen": kang,
        "splits": {
            "cell types left out in turn": one_by_one("unseen_cell_type", MEASURED_WELL, cell_type_key="cell_type")
        },
        "prepare": {"n_top_genes": 1_000},
        "setup": {"cell_type_key": "cell_type"},
        "prior": None,
    },
}


def maker(setup: dict[str, Any], steps: int | None, seed: int, **options: Any) -> Callable[[Any], Any]:
    """Get a function that trains a model on a prepared screen."""

    def make(adata: Any) -> Any:
        ul.UnlastingModel.setup_anndata(adata, **setup)
        scvi.settings.seed = seed
        model = ul.UnlastingModel(adata, **options)
        model.train(max_steps=steps, seed=seed, show_progress=False)
        return model

    return make


def keeping(make: Callable[[Any], Any], kept: list[tuple[Any, Any]]) -> Callable[[Any], Any]:
    """Train a model by `make`, and keep it with its screen."""

    def made(adata: Any) -> Any:
        kept.append((make(adata), adata))
        return kept[-1][0]

    return made


def run(name: str, n_seeds: int, steps: int | None) -> None:
    """Make one table."""
    table = TABLES[name]
    adata = table["screen"]()

    def prepare(screen: Any) -> None:
        ul.pp.prepare(screen, **table.get("prepare", {}))
        ul.pp.grn(screen, prior=table.get("prior", "default"))

    parts, false_positives = [], []
    for seed in range(n_seeds):
        predictors = {"unlasting": ModelPredictor(maker(table.get("setup", {}), steps, seed))}
        predictors |= {label: baseline() for label, baseline in BASELINES.items()}
        ul.tl.benchmark(
            adata,
            predictors,
            splits=table["splits"],
            seeds=[seed],
            prepare=prepare,
            conditions=table.get("conditions"),
            metrics=table.get("metrics", METRICS),
        )
        stored = adata.uns["unlasting"]
        parts.append(stored["benchmark"].assign(seed=seed))
        false_positives.append(stored["benchmark_false_positives"].assign(seed=seed))
        stored["benchmark_scores"].to_csv(RESULTS / f"{name}_conditions_{seed}.csv", index=False)
        frame = pd.concat(parts, ignore_index=True)
        frame.to_csv(RESULTS / f"{name}.csv", index=False)
        pd.concat(false_positives, ignore_index=True).to_csv(RESULTS / f"{name}_false_positives.csv", index=False)
    wide = frame.pivot_table(index="predictor", columns=["metric", "gene_set"], values="score", sort=False)
    print(f"{name}, {n_seeds} seeds, mean score:\n{wide.round(3).to_string()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=[*TABLES, "all"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=None, help="training steps of the denoiser; 0: none")
    arguments = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    for chosen in TABLES if arguments.name == "all" else [arguments.name]:
        run(chosen, arguments.seeds, arguments.steps)
