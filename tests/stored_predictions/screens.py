"""The screens, models and numbers behind the stored predictions.

python tests/stored_predictions/screens.py    # writes one file a screen and preset beside this one
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scvi

import unlasting as ul

FOLDER = Path(__file__).parent
QUIET = {"show_progress": False, "accelerator": "cpu"}
SMALL = {"width": 8, "gene_features": 8, "attention_features": 8, "time_frequencies": 8, "n_steps": 5}
N_GENES = 100
N_CELLS = 4
N_CONDITIONS = 8


def papalexi() -> Any:
    adata = ul.datasets.papalexi()
    ul.pp.split(adata, "unseen_perturbation")
    ul.pp.prepare(adata)
    ul.pp.grn(adata, prior="go")
    return adata, {}


def norman() -> Any:
    adata = ul.datasets.norman_mini()
    ul.pp.split(adata, "reference")
    ul.pp.prepare(adata, library_size_key="ncounts_full", target_sum=1e4)
    ul.pp.grn(adata, prior="go")
    return adata, {"mode": "activation"}


def kang() -> Any:
    adata = ul.datasets.kang()
    ul.pp.split(adata, "reference", cell_type_key="cell_type")
    ul.pp.prepare(adata, n_top_genes=200)
    ul.pp.grn(adata, prior=None)
    return adata, {"cell_type_key": "cell_type"}


def simulated() -> Any:
    adata = ul.datasets.simulate_screen(n_cells=60, n_controls=300, n_combos=3, n_cell_types=2)
    ul.pp.split(adata, "unseen_perturbation", cell_type_key="cell_type")
    ul.pp.prepare(adata, library_size_key="library_size")
    ul.pp.grn(adata, prior=adata.uns["simulation"]["edges"])
    return adata, {"cell_type_key": "cell_type"}


def simulated_drugs() -> Any:
    adata = ul.datasets.simulate_drug_screen(n_gene_targets=2, n_combos=1, base=ul.datasets.kang())
    keys = {"dose_key": "dose", "smiles_key": "smiles", "cell_type_key": "cell_type"}
    ul.pp.split(adata, "unseen_drug", **keys)
    ul.pp.prepare(adata)
    ul.pp.molecules(adata, smiles_key="smiles")
    ul.pp.grn(adata, prior=adata.uns["simulation"]["edges"])
    return adata, keys


SCREENS = {f.__name__: f for f in (papalexi, norman, kang, simulated, simulated_drugs)}
PRESETS = {name: ("default",) if name in ("norman", "kang") else ("default", "paper") for name in SCREENS}
"""The published recipe takes neither stimuli (Kang) nor targets that are no node of the graph (one in Norman)."""


def numbers(screen: str, preset: str) -> dict[str, np.ndarray]:
    """Compute what is stored of a screen: hurdle parameters before training, cells after 20 steps of each network."""
    adata, setup = SCREENS[screen]()
    ul.UnlastingModel.setup_anndata(adata, **setup)
    scvi.settings.seed = 0
    options = SMALL if preset == "paper" else {}
    model = ul.UnlastingModel(adata, preset=preset, **options)
    conditions = model._conditions()
    step = max(1, len(conditions) // N_CONDITIONS)
    asked = conditions[1::step][:N_CONDITIONS]
    genes = slice(None, None, max(1, adata.n_vars // N_GENES))
    found = {} if preset == "paper" else hurdle_parameters(model, asked, genes)
    model.train(max_steps=20, seed=0, batch_size=32, early_stopping=False, **QUIET)
    has_doses = model.keys.dose_key is not None
    drugs = model.vocabulary.names_of_drugs
    labels = [
        p.label(**model.keys.grammar) for p in asked if not has_doses or p.targets[0] in drugs and len(p.targets) == 1
    ]
    cell_type = None
    if model.keys.cell_type_key is not None:
        cell_type = sorted(model.keys.cell_types(adata)[model.keys.labels(adata) == model.keys.control])[0]
    asking = {
        "n_cells": N_CELLS,
        "cell_type": cell_type,
        "dose": 1.0 if has_doses else None,
        "seed": 0,
        "show_progress": False,
    }
    cells = model.generate(list(dict.fromkeys(labels))[:4], **asking)
    found["cells"] = cells.X.toarray()
    model.preset = model.module.preset = model.preset.replace(integer_counts=False)
    found["unrounded_cells"] = model.generate(list(dict.fromkeys(labels))[:4], **asking).X.toarray()
    return {name: np.asarray(values, dtype=np.float32) for name, values in found.items()}


def hurdle_parameters(model: Any, asked: Any, genes: slice) -> dict[str, np.ndarray]:
    """Compute log-odds of detection, mean and s.d. of expressed values in the first two control populations."""
    import torch

    effects, populations = model.effects_model, model.module.populations()
    found: dict[str, list[np.ndarray]] = {"log_odds": [], "base": [], "scale": []}
    with torch.no_grad():
        for population in range(min(2, len(populations))):
            rows = torch.full((len(asked),), population)
            parameters = effects.predict(asked, populations[rows])
            for name, values in found.items():
                values.append(getattr(parameters, name)[:, genes].numpy())
    return {name: np.stack(values) for name, values in found.items()}


if __name__ == "__main__":
    for screen in SCREENS:
        for preset in PRESETS[screen]:
            values = numbers(screen, preset)
            np.savez_compressed(FOLDER / f"{screen}_{preset}.npz", **values)
            print(screen, preset, {name: array.shape for name, array in values.items()}, flush=True)
